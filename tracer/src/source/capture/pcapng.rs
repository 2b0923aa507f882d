//! pcapng: blocks in sections, each section with its own byte order and interfaces (draft-ietf-opsawg-pcapng).

use super::{Endian, Found, Input, MAX_PACKET_BYTES, Problem, whole};
use crate::source::packet::LinkType;

/// Block type of a section header; the same in both byte orders.
pub const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Type and length; the length again stands at the end.
const HEAD_BYTES: usize = 8;
const FRAME_BYTES: usize = 12;
/// Where no other block than a packet's can be longer. Secrets and name tables are far smaller.
const MAX_BLOCK_BYTES: usize = MAX_PACKET_BYTES + (1 << 20);
/// Interfaces of a section that are remembered; a machine has fewer.
const MAX_INTERFACES: usize = 65_536;

/// Block types (§11.1).
mod block {
    pub const INTERFACE: u32 = 1;
    pub const OBSOLETE_PACKET: u32 = 2;
    pub const SIMPLE_PACKET: u32 = 3;
    pub const ENHANCED_PACKET: u32 = 6;
}

/// Options of an interface (§4.2).
mod option {
    pub const END: u16 = 0;
    pub const TIMESTAMP_RESOLUTION: u16 = 9;
    pub const TIMESTAMP_OFFSET: u16 = 14;
}

/// Where in its sections the file is.
#[derive(Debug, Default)]
pub struct Sections {
    endian: Endian,
    interfaces: Vec<Interface>,
    /// Interfaces of earlier sections, so that each has a number of its own within the file.
    earlier: u32,
    /// A simple packet has no time: the one before tells.
    last_ns: u64,
    given: usize,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: LinkType,
    /// 0: unlimited.
    snap_len: u32,
    clock: Clock,
}

/// How timestamps count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    unit: Unit,
    offset_s: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Nanoseconds(u64),
    /// Parts of a nanosecond.
    PerNanosecond(u64),
    /// 2 to the power of minus this many seconds.
    Binary(u32),
}

impl Sections {
    pub fn next(&mut self, input: &mut Input) -> Result<Option<Found>, Problem> {
        loop {
            input.skip(std::mem::take(&mut self.given));
            let head = match input.fill(HEAD_BYTES).map_err(Problem::read)? {
                [] => return Ok(None),
                head if head.len() < HEAD_BYTES => {
                    let (need, have) = (HEAD_BYTES, head.len());
                    return Err(Problem::Truncated { what: "a block's header", need, have });
                }
                head => head,
            };
            if head[..4] == MAGIC {
                self.section(input)?;
                continue;
            }
            let (kind, len) = (self.endian.u32(head, 0), self.endian.u32(head, 4) as usize);
            let len = self.whole_block(input, len)?;
            self.given = len;
            let body = &input.peek(len)[HEAD_BYTES..len - 4];
            let found = match kind {
                block::INTERFACE => {
                    self.interface(body)?;
                    None
                }
                block::ENHANCED_PACKET | block::OBSOLETE_PACKET => Some(self.packet(kind, body)?),
                block::SIMPLE_PACKET => Some(self.simple_packet(body)?),
                _ => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// Reads a whole block and compares both its lengths.
    fn whole_block(&self, input: &mut Input, len: usize) -> Result<usize, Problem> {
        if !(FRAME_BYTES..=MAX_BLOCK_BYTES).contains(&len) || !len.is_multiple_of(4) {
            return Err(Problem::Length { what: "the block", len: len as u64 });
        }
        let block = whole(input, "the block", len)?;
        if self.endian.u32(block, len - 4) as usize != len {
            return Err(Problem::Damaged { what: "the block's two lengths differ" });
        }
        Ok(len)
    }

    fn section(&mut self, input: &mut Input) -> Result<(), Problem> {
        let start = whole(input, "the section header", 28)?;
        self.endian = match (Endian::Little.u32(start, 8), Endian::Big.u32(start, 8)) {
            (BYTE_ORDER_MAGIC, _) => Endian::Little,
            (_, BYTE_ORDER_MAGIC) => Endian::Big,
            _ => return Err(Problem::Damaged { what: "the section header has no byte-order magic" }),
        };
        let (len, major, minor) =
            (self.endian.u32(start, 4) as usize, self.endian.u16(start, 12), self.endian.u16(start, 14));
        if major != 1 {
            return Err(Problem::Version(major, minor));
        }
        self.given = self.whole_block(input, len)?;
        self.earlier = self.earlier.wrapping_add(self.interfaces.len() as u32);
        self.interfaces.clear();
        Ok(())
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), Problem> {
        if body.len() < 8 || self.interfaces.len() >= MAX_INTERFACES {
            return Err(Problem::Damaged { what: "the interface's block is too short, or one too many" });
        }
        let mut clock = Clock { unit: Unit::Nanoseconds(1000), offset_s: 0 };
        for (code, value) in (Options { endian: self.endian, rest: &body[8..] }) {
            match (code, value) {
                (option::TIMESTAMP_RESOLUTION, &[resolution, ..]) => clock.unit = Unit::of(resolution)?,
                (option::TIMESTAMP_OFFSET, value) if value.len() >= 8 => {
                    clock.offset_s = self.endian.u64(value, 0) as i64;
                }
                _ => {}
            }
        }
        let (link, snap_len) = (LinkType(self.endian.u16(body, 0)), self.endian.u32(body, 4));
        self.interfaces.push(Interface { link, snap_len, clock });
        Ok(())
    }

    /// An enhanced packet, or the obsolete kind: that has a count of drops beside a shorter interface number.
    fn packet(&mut self, kind: u32, body: &[u8]) -> Result<Found, Problem> {
        const AT: usize = 20;
        if body.len() < AT {
            return Err(Problem::Damaged { what: "the packet's block is too short" });
        }
        let word = |at: usize| self.endian.u32(body, at);
        let number =
            if kind == block::OBSOLETE_PACKET { u32::from(self.endian.u16(body, 0)) } else { word(0) };
        let ticks = u64::from(word(4)) << 32 | u64::from(word(8));
        let (captured, len) = (word(12) as usize, word(16));
        if captured > body.len() - AT {
            return Err(Problem::Damaged { what: "the packet is longer than its block" });
        }
        let interface = self.interface_of(number)?;
        let time_ns = interface.clock.unix_ns(ticks);
        self.last_ns = time_ns;
        Ok(self.found(number, interface.link, time_ns, len, HEAD_BYTES + AT, captured))
    }

    /// A packet of the first interface, with nothing but its length.
    fn simple_packet(&mut self, body: &[u8]) -> Result<Found, Problem> {
        const AT: usize = 4;
        if body.len() < AT {
            return Err(Problem::Damaged { what: "the packet's block is too short" });
        }
        let interface = self.interface_of(0)?;
        let len = self.endian.u32(body, 0);
        let snap_len = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
        let captured = (body.len() - AT).min(len.min(snap_len) as usize);
        Ok(self.found(0, interface.link, self.last_ns, len, HEAD_BYTES + AT, captured))
    }

    fn interface_of(&self, number: u32) -> Result<Interface, Problem> {
        let interface = self.interfaces.get(number as usize).copied();
        let interface = interface
            .ok_or(Problem::Damaged { what: "the packet is of an interface that no block has described" })?;
        // Beside interfaces that are read, others are passed over.
        if !interface.link.is_read() && !self.interfaces.iter().any(|interface| interface.link.is_read()) {
            return Err(Problem::LinkType(interface.link));
        }
        Ok(interface)
    }

    fn found(
        &self,
        number: u32,
        link: LinkType,
        time_ns: u64,
        len: u32,
        data_at: usize,
        data_len: usize,
    ) -> Found {
        Found { time_ns, link, interface: self.earlier.wrapping_add(number), len, data_at, data_len }
    }
}

impl Unit {
    /// `if_tsresol`: a power of 10, or of 2 when its highest bit is set.
    fn of(resolution: u8) -> Result<Self, Problem> {
        let power = u32::from(resolution & 0x7f);
        match resolution & 0x80 {
            0 if power <= 9 => Ok(Self::Nanoseconds(10u64.pow(9 - power))),
            0 if power <= 28 => Ok(Self::PerNanosecond(10u64.pow(power - 9))),
            0x80 if power <= 63 => Ok(Self::Binary(power)),
            _ => Err(Problem::Damaged { what: "the interface's clock is finer than 64 bits can count" }),
        }
    }
}

impl Clock {
    /// Nanoseconds since 1970; what lies before, or after 2262, is the nearest that can be told.
    fn unix_ns(self, ticks: u64) -> u64 {
        let ns = match self.unit {
            Unit::Nanoseconds(each) => u128::from(ticks) * u128::from(each),
            Unit::PerNanosecond(parts) => u128::from(ticks / parts),
            Unit::Binary(power) => (u128::from(ticks) * 1_000_000_000) >> power,
        };
        let ns = ns as i128 + i128::from(self.offset_s) * 1_000_000_000;
        ns.clamp(0, i64::MAX.into()) as u64
    }
}

/// Options behind a block's fixed part: code, length, value, padding to four bytes.
struct Options<'a> {
    endian: Endian,
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.rest.split_at_checked(4)?;
        let (code, len) = (self.endian.u16(head, 0), usize::from(self.endian.u16(head, 2)));
        if code == option::END {
            return None;
        }
        let value = rest.get(..len)?;
        self.rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((code, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_units() {
        let at = |resolution: u8, ticks: u64| {
            Clock { unit: Unit::of(resolution).unwrap(), offset_s: 0 }.unix_ns(ticks)
        };
        assert_eq!(at(6, 1_500_000), 1_500_000_000);
        assert_eq!(at(9, 1_500_000_007), 1_500_000_007);
        assert_eq!(at(0, 3), 3_000_000_000);
        assert_eq!(at(12, 1_999), 1);
        assert_eq!(at(0x80 | 10, 1536), 1_500_000_000);
        assert_eq!(at(0x80, 2), 2_000_000_000);
        assert_eq!(at(0, u64::MAX), i64::MAX as u64);
        assert!(Unit::of(29).is_err() && Unit::of(0xc0).is_err());
    }

    #[test]
    fn timestamp_offsets() {
        let clock = |offset_s| Clock { unit: Unit::Nanoseconds(1), offset_s };
        assert_eq!(clock(1_700_000_000).unix_ns(5), 1_700_000_000_000_000_005);
        assert_eq!(clock(-1).unix_ns(5), 0);
        assert_eq!(clock(i64::MIN).unix_ns(u64::MAX), 0);
        assert_eq!(clock(i64::MAX).unix_ns(u64::MAX), i64::MAX as u64);
    }

    #[test]
    fn options_end_where_they_do_not_fit() {
        let all = |bytes: &[u8]| {
            Options { endian: Endian::Little, rest: bytes }
                .map(|(code, value)| (code, value.to_vec()))
                .collect::<Vec<_>>()
        };
        let bytes = [9, 0, 1, 0, 6, 0, 0, 0, 14, 0, 2, 0, 1, 2, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0];
        assert_eq!(all(&bytes), [(9, vec![6]), (14, vec![1, 2])]);
        assert_eq!(all(&bytes[..7]), [(9, vec![6])]);
        assert_eq!(all(&bytes[..14]), [(9, vec![6]), (14, vec![1, 2])]);
        assert_eq!(all(&bytes[..13]), [(9, vec![6])]);
    }
}
