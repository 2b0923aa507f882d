//! The TCP header (RFC 9293 §3.1).

use tracer_ebpf::tcp_flag;

use super::{Skip, be16, be32, ip::Datagram, link::Network};
use crate::source::capture::Packet;

const HEADER_BYTES: usize = 20;

/// A TCP segment as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub time_ns: u64,
    /// Address as in [`tracer_ebpf::FlowKey`], and port.
    pub source: ([u32; 4], u16),
    pub destination: ([u32; 4], u16),
    pub is_ipv6: bool,
    /// Sequence number of the first payload byte: behind the SYN, if it has one.
    pub seq: u32,
    pub ack: u32,
    /// [`tcp_flag`] bits.
    pub flags: u8,
    /// Bytes 12 and 13 of the header: data offset, reserved bits and flags.
    pub offset_flags: u16,
    /// Options, as far as they were captured.
    pub options: &'a [u8],
    /// As in the header: unscaled.
    pub window: u16,
    /// Payload on the wire.
    pub len: u32,
    /// The payload as far as it was captured.
    pub data: &'a [u8],
    /// IPv4's identification, 0 for none.
    pub ip_id: u16,
    /// Where it was seen, see [`Network`].
    pub place: u64,
    /// Of all that stays the same in a copy of the packet.
    pub fingerprint: u64,
}

impl Segment<'_> {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

pub fn segment<'a>(
    packet: &Packet<'a>,
    network: &Network<'a>,
    datagram: &Datagram,
) -> Result<Segment<'a>, Skip> {
    let bytes = network.data.get(datagram.header_len..).ok_or(Skip::Cut)?;
    let header = bytes.get(..HEADER_BYTES).ok_or(Skip::Cut)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    let on_wire = datagram.len - datagram.header_len as u32;
    if header_len < HEADER_BYTES {
        return Err(Skip::Malformed);
    }
    let len = on_wire.checked_sub(header_len as u32).ok_or(Skip::Malformed)?;
    let data = bytes.get(header_len..).unwrap_or_default();
    let (seq, ack, flags) = (be32(header, 4), be32(header, 8), header[13]);
    let window = be16(header, 14);
    let syn = u32::from(flags & tcp_flag::SYN != 0);
    Ok(Segment {
        time_ns: packet.time_ns,
        source: (datagram.source, be16(header, 0)),
        destination: (datagram.destination, be16(header, 2)),
        is_ipv6: datagram.is_ipv6,
        seq: seq.wrapping_add(syn),
        ack,
        flags,
        offset_flags: be16(header, 12),
        options: &bytes[HEADER_BYTES..header_len.min(bytes.len())],
        window,
        len,
        data: &data[..data.len().min(len as usize)],
        ip_id: datagram.id,
        place: network.place,
        fingerprint: fingerprint([
            u64::from(seq) << 32 | u64::from(ack),
            u64::from(len) << 32 | u64::from(window) << 16 | u64::from(flags) << 8,
            // The options, where timestamps and selective acknowledgements are.
            u64::from(be32(bytes, 20)) << 32 | u64::from(be32(bytes, 24)),
            u64::from(be32(bytes, 28)) << 32 | u64::from(datagram.id),
        ]),
    })
}

/// Folds words into one, each word's order and value counting.
fn fingerprint(words: [u64; 4]) -> u64 {
    // An odd number without pattern: the golden ratio's fraction.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    words.into_iter().fold(0, |sum: u64, word| (sum.rotate_left(23) ^ word).wrapping_mul(FACTOR))
}
