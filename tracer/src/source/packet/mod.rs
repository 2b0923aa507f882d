//! A captured packet's headers: link, IP, TCP. What the snap length cut off is reckoned with, not required.
//!
//! Any bytes give a segment or the reason why there is none; never a panic. Nothing is copied.

mod ip;
mod link;
mod tcp;

pub use link::LinkType;
pub use tcp::Segment;

use super::capture::Packet;

/// Why a packet is passed over. The order is that of [`Skip::NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Of a link type that is not read, beside others that are.
    Link,
    /// ARP and the like.
    NotIp,
    NotTcp,
    /// A fragment: only the first has the TCP header, and none has the whole segment.
    Fragment,
    /// The snap length cut its headers.
    Cut,
    /// Lengths in its headers contradict each other.
    Malformed,
}

impl Skip {
    pub const NAMES: [&str; 6] = ["link_type", "not_ip", "not_tcp", "fragment", "headers_cut", "malformed"];
}

/// Reads a packet's headers.
///
/// # Errors
/// It holds no whole TCP header.
pub fn segment<'a>(packet: &Packet<'a>) -> Result<Segment<'a>, Skip> {
    let network = link::network(packet)?;
    let datagram = ip::datagram(&network)?;
    tcp::segment(packet, &network, &datagram)
}

/// 16 bits in network order.
fn be16(bytes: &[u8], at: usize) -> u16 {
    let bytes = bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u16::from_be_bytes)
}

/// 32 bits in network order.
fn be32(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
