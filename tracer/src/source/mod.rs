//! Where events come from. Every source yields the same [`Event`]s, in order.
//!
//! The live source is the ring, whose records [`decode`] reads. A capture file is read by [`capture`], its packets'
//! headers by [`packet`], and [`observer`] makes of their segments what the kernel side would have reported. What
//! [`recorded`] has kept of a live run is the ring's records again.

pub mod capture;
pub mod observer;
pub mod packet;
pub mod recorded;

use tracer_ebpf::{
    Conn, ConnRecord, Header, Owner, OwnerRecord, ProcessRecord, ResetRecord, RetransmitRecord,
    SegmentRecord, ShownRecord, StateRecord, TimeWaitRecord, kind,
};

/// One thing that the kernel side reported, or that a capture shows. Times are nanoseconds of one clock:
/// CLOCK_MONOTONIC, or a capture's own.
#[derive(Debug)]
pub enum Event<'a> {
    Conn {
        milestone: u16,
        time_ns: u64,
        conn: Box<Conn>,
    },
    Owner {
        conn: u64,
        owner: Owner,
    },
    /// What the remote end of a connection has sent again, which only an observer between the ends can tell. Comes before
    /// the connection's end.
    Repeats {
        conn: u64,
        repeats: Repeats,
    },
    /// Bytes of a flow before this offset were sent, as an acknowledgement or a reset shows: those of which there was no
    /// segment are missing. Comes before the connection's end.
    Sent {
        flow: u64,
        dir: u8,
        end: u64,
    },
    /// A process is seen for the first time.
    Process(Box<ProcessRecord>),
    Segment {
        record: SegmentRecord,
        data: &'a [u8],
    },
    /// A segment's header, asked for with `--segments`.
    Shown(ShownRecord),
    State(StateRecord),
    Retransmit(RetransmitRecord),
    Reset(ResetRecord),
    TimeWait(TimeWaitRecord),
}

/// Segments sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    pub segments: u32,
    pub bytes: u64,
}

/// A ring record that does not have the shape that its kind promises.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a record of kind {kind} and {len} bytes does not fit the contract between kernel side and daemon")]
pub struct DecodeError {
    pub kind: u16,
    pub len: usize,
}

/// Decodes one ring record. Any bytes give an event or an error.
///
/// # Errors
/// The kind is not known, or the record is too short for it.
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, DecodeError> {
    let wrong = |kind| DecodeError { kind, len: bytes.len() };
    let header: Header = read(bytes).ok_or(wrong(0))?;
    let kind = header.kind;
    let event = match kind {
        kind::CONN => read(bytes).map(|record: ConnRecord| Event::Conn {
            milestone: header.detail,
            time_ns: header.time_ns,
            conn: Box::new(record.conn),
        }),
        kind::OWNER => {
            read(bytes).map(|record: OwnerRecord| Event::Owner { conn: record.conn, owner: record.owner })
        }
        kind::PROCESS => read(bytes).map(|record| Event::Process(Box::new(record))),
        kind::SEGMENT => read(bytes).and_then(|record: SegmentRecord| {
            // The ring rounds sizes up: the record says how much of it is data.
            let data = bytes.get(size_of::<SegmentRecord>()..)?.get(..record.copied as usize)?;
            Some(Event::Segment { record, data })
        }),
        kind::SHOWN => read(bytes).map(Event::Shown),
        kind::STATE => read(bytes).map(Event::State),
        kind::RETRANSMIT => read(bytes).map(Event::Retransmit),
        kind::RESET => read(bytes).map(Event::Reset),
        kind::TIME_WAIT => read(bytes).map(Event::TimeWait),
        _ => None,
    };
    event.ok_or(wrong(kind))
}

/// Reads a record from the start of the bytes.
fn read<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: long enough, and `Pod` means that any bytes are a valid `T`.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_give_an_event_or_an_error(
            kind in 0u16..12,
            rest in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut bytes = kind.to_ne_bytes().to_vec();
            bytes.extend(rest);
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn short_and_unknown_records_are_errors() {
        assert_eq!(decode(&[]).unwrap_err().len, 0);
        let mut bytes = [0u8; 16];
        bytes[0] = kind::CONN as u8;
        assert_eq!(decode(&bytes).unwrap_err(), DecodeError { kind: kind::CONN, len: 16 });
        bytes[0] = 99;
        assert_eq!(decode(&bytes).unwrap_err(), DecodeError { kind: 99, len: 16 });
    }

    #[test]
    fn a_segment_that_claims_more_data_than_it_has_is_an_error() {
        let mut bytes = vec![0u8; size_of::<SegmentRecord>() + 8];
        bytes[0] = kind::SEGMENT as u8;
        let copied = std::mem::offset_of!(SegmentRecord, copied);
        bytes[copied..copied + 4].copy_from_slice(&9u32.to_ne_bytes());
        assert!(decode(&bytes).is_err());
        bytes[copied..copied + 4].copy_from_slice(&8u32.to_ne_bytes());
        assert!(matches!(decode(&bytes), Ok(Event::Segment { data, .. }) if data.len() == 8));
    }
}
