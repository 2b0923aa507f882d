//! Ring records: any bytes give an event or an error, and no event holds more than the bytes given.

use tracer_ebpf::{SegmentRecord, kind};

use super::Input;
use crate::source::{self, Event};

pub(super) fn decode(input: &mut Input<'_>) {
    let kind = input.below(kind::COUNT + 2) as u16;
    let mut bytes = kind.to_ne_bytes().to_vec();
    bytes.extend(input.bytes(900));
    if kind == kind::SEGMENT && !input.once_in(4) {
        // Near what the record can hold, on either side.
        let data = bytes.len().saturating_sub(size_of::<SegmentRecord>());
        let claimed = (data + input.below(5)).saturating_sub(2) as u32;
        let at = std::mem::offset_of!(SegmentRecord, copied);
        if let Some(copied) = bytes.get_mut(at..at + 4) {
            copied.copy_from_slice(&claimed.to_ne_bytes());
        }
    }
    match source::decode(&bytes) {
        Ok(Event::Segment { record, data }) => {
            assert_eq!(data.len(), record.copied as usize);
            assert!(bytes[size_of::<SegmentRecord>()..].starts_with(data));
        }
        Ok(_) => assert!(bytes.len() >= 16),
        Err(error) => assert_eq!(error.len, bytes.len()),
    }
}
