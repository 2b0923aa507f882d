//! The classic format: a file header, then packets (draft-ietf-opsawg-pcap).

use super::{Endian, Found, Input, MAX_PACKET_BYTES, Problem, whole};
use crate::source::packet::LinkType;

const FILE_HEADER_BYTES: usize = 24;
const PACKET_HEADER_BYTES: usize = 16;

/// Timestamps in microseconds, in nanoseconds, and the variant with longer packet headers.
const MICROS: u32 = 0xa1b2_c3d4;
const NANOS: u32 = 0xa1b2_3c4d;
const MODIFIED: u32 = 0xa1b2_cd34;

/// What the file header says.
#[derive(Debug)]
pub struct Header {
    endian: Endian,
    /// Nanoseconds in a unit of the timestamp's fraction.
    fraction_ns: u64,
    link: LinkType,
    /// Bytes of the packet given last, to be passed over.
    given: usize,
}

impl Header {
    pub fn read(input: &mut Input, magic: [u8; 4]) -> Result<Self, Problem> {
        let known = |magic: u32| matches!(magic, MICROS | NANOS | MODIFIED);
        let (endian, magic) = match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
            (little, _) if known(little) => (Endian::Little, little),
            (_, big) if known(big) => (Endian::Big, big),
            _ => return Err(Problem::NotACapture(magic.to_vec())),
        };
        if magic == MODIFIED {
            return Err(Problem::ModifiedPcap);
        }
        let header = whole(input, "the file header", FILE_HEADER_BYTES)?;
        let (major, minor) = (endian.u16(header, 4), endian.u16(header, 6));
        if major != 2 {
            return Err(Problem::Version(major, minor));
        }
        // The upper bits speak of a frame check sequence.
        let link = LinkType(endian.u32(header, 20) as u16);
        if !link.is_read() {
            return Err(Problem::LinkType(link));
        }
        let fraction_ns = if magic == NANOS { 1 } else { 1000 };
        Ok(Self { endian, fraction_ns, link, given: FILE_HEADER_BYTES })
    }

    pub fn next(&mut self, input: &mut Input) -> Result<Option<Found>, Problem> {
        input.skip(std::mem::take(&mut self.given));
        let header = match input.fill(PACKET_HEADER_BYTES).map_err(Problem::read)? {
            [] => return Ok(None),
            header if header.len() < PACKET_HEADER_BYTES => {
                let (need, have) = (PACKET_HEADER_BYTES, header.len());
                return Err(Problem::Truncated { what: "a packet's header", need, have });
            }
            header => header,
        };
        let word = |at: usize| self.endian.u32(header, at);
        let (seconds, fraction, captured, len) = (word(0), word(4), word(8) as usize, word(12));
        if captured > MAX_PACKET_BYTES {
            return Err(Problem::Length { what: "the packet", len: captured as u64 });
        }
        whole(input, "the packet", PACKET_HEADER_BYTES + captured)?;
        self.given = PACKET_HEADER_BYTES + captured;
        Ok(Some(Found {
            time_ns: u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.fraction_ns,
            link: self.link,
            interface: 0,
            len,
            data_at: PACKET_HEADER_BYTES,
            data_len: captured,
        }))
    }
}
