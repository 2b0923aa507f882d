//! IPv4 (RFC 791) and IPv6 with its extension headers (RFC 8200 §4).

use super::{Skip, be16, be32, link::Network};

const TCP: u8 = 6;
/// Extension headers of their own shape.
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// More extension headers than any packet in earnest has.
const MAX_EXTENSIONS: usize = 16;

/// The header of a TCP segment's datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// As four native words, IPv4 mapped to IPv6, as in [`tracer_ebpf::FlowKey`].
    pub source: [u32; 4],
    pub destination: [u32; 4],
    /// IPv4's identification; 0 for IPv6 and where the sender sets none.
    pub id: u16,
    pub is_ipv6: bool,
    /// Where the TCP header begins.
    pub header_len: usize,
    /// Headers and payload on the wire.
    pub len: u32,
}

pub fn datagram(network: &Network<'_>) -> Result<Datagram, Skip> {
    match network.data.first().map(|first| first >> 4) {
        Some(4) => ipv4(network),
        Some(6) => ipv6(network),
        Some(_) => Err(Skip::NotIp),
        None => Err(Skip::Cut),
    }
}

fn ipv4(network: &Network<'_>) -> Result<Datagram, Skip> {
    let header = network.data.get(..IPV4_BYTES).ok_or(Skip::Cut)?;
    if header[9] != TCP {
        return Err(Skip::NotTcp);
    }
    // More fragments follow, or this is not the first.
    if be16(header, 6) & 0x3fff != 0 {
        return Err(Skip::Fragment);
    }
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let len = on_wire(be16(header, 2).into(), network);
    if header_len < IPV4_BYTES || (len as usize) < header_len {
        return Err(Skip::Malformed);
    }
    let addr = |at: usize| [0, 0, 0xffff_u32.to_be(), be32(header, at).to_be()];
    let id = be16(header, 4);
    Ok(Datagram { source: addr(12), destination: addr(16), id, is_ipv6: false, header_len, len })
}

fn ipv6(network: &Network<'_>) -> Result<Datagram, Skip> {
    let header = network.data.get(..IPV6_BYTES).ok_or(Skip::Cut)?;
    let payload = u32::from(be16(header, 4));
    let len = on_wire(if payload == 0 { 0 } else { payload + IPV6_BYTES as u32 }, network);
    let mut next = header[6];
    let mut header_len = IPV6_BYTES;
    for _ in 0..MAX_EXTENSIONS {
        if next == TCP {
            if (len as usize) < header_len {
                return Err(Skip::Malformed);
            }
            let addr = |at: usize| [0, 4, 8, 12].map(|word| be32(header, at + word).to_be());
            let (source, destination) = (addr(8), addr(24));
            return Ok(Datagram { source, destination, id: 0, is_ipv6: true, header_len, len });
        }
        if !is_extension(next) {
            return Err(Skip::NotTcp);
        }
        let extension = |at: usize| network.data.get(header_len + at).copied().ok_or(Skip::Cut);
        let following = extension(0)?;
        header_len += match next {
            AUTHENTICATION => (usize::from(extension(1)?) + 2) * 4,
            FRAGMENT => {
                // One that is whole is no fragment (RFC 6946).
                if u16::from_be_bytes([extension(2)?, extension(3)?]) & 0xfff9 != 0 {
                    return Err(Skip::Fragment);
                }
                8
            }
            _ => (usize::from(extension(1)?) + 1) * 8,
        };
        next = following;
    }
    Err(Skip::Malformed)
}

/// Hop-by-hop options, routing, fragment, authentication, destination options, mobility, HIP, Shim6.
fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | FRAGMENT | AUTHENTICATION | 60 | 135 | 139 | 140)
}

/// The length that the header tells. 0 is left by an offload (TSO) and by packets beyond 64 KiB (RFC 2675, BIG TCP):
/// then it is all that was on the wire.
fn on_wire(told: u32, network: &Network<'_>) -> u32 {
    if told == 0 { network.len } else { told }
}
