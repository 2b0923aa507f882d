//! What lies before the IP header, by link type (<https://www.tcpdump.org/linktypes.html>).

use std::fmt;

use super::{Skip, be16, be32};
use crate::source::capture::Packet;

/// A `LINKTYPE_` value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinkType(pub u16);

impl LinkType {
    pub const NULL: Self = Self(0);
    pub const ETHERNET: Self = Self(1);
    /// The `DLT_RAW` of some systems, which found its way into files.
    pub const RAW_12: Self = Self(12);
    pub const RAW_14: Self = Self(14);
    pub const RAW: Self = Self(101);
    pub const LOOP: Self = Self(108);
    pub const LINUX_SLL: Self = Self(113);
    pub const IPV4: Self = Self(228);
    pub const IPV6: Self = Self(229);
    pub const LINUX_SLL2: Self = Self(276);

    /// Whether its packets can be read.
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Self::NULL
                | Self::ETHERNET
                | Self::RAW_12
                | Self::RAW_14
                | Self::RAW
                | Self::LOOP
                | Self::LINUX_SLL
                | Self::IPV4
                | Self::IPV6
                | Self::LINUX_SLL2
        )
    }
}

impl fmt::Debug for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LINKTYPE {}", self.0)
    }
}

/// An IP packet, as far as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    pub data: &'a [u8],
    /// Its length on the wire, with what the link may have padded.
    pub len: u32,
    /// Where it was seen: interface and, if the link tells, whether it came or went. Tells copies of a packet apart from
    /// packets that are alike.
    pub place: u64,
}

const ETHERNET_BYTES: usize = 14;
const SLL_BYTES: usize = 16;
const SLL2_BYTES: usize = 20;
const VLAN_BYTES: usize = 4;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Finds the IP packet.
pub fn network<'a>(packet: &Packet<'a>) -> Result<Network<'a>, Skip> {
    let place = u64::from(packet.interface) << 40;
    let network = Network { data: packet.data, len: packet.len, place };
    match packet.link {
        LinkType::ETHERNET => network.after(ETHERNET_BYTES)?.ethertype(be16(packet.data, 12)),
        LinkType::LINUX_SLL => {
            let place = place | u64::from(be16(packet.data, 0) & 0xff) << 32;
            Network { place, ..network }.after(SLL_BYTES)?.ethertype(be16(packet.data, 14))
        }
        LinkType::LINUX_SLL2 => {
            let kind = u64::from(packet.data.get(10).copied().unwrap_or_default());
            let place = place | kind << 32 | u64::from(be32(packet.data, 4));
            Network { place, ..network }.after(SLL2_BYTES)?.ethertype(be16(packet.data, 0))
        }
        LinkType::NULL | LinkType::LOOP => {
            // The address family of the capturing system, in its byte order: 2 is IPv4 everywhere, IPv6 is not.
            let family = be32(packet.data, 0);
            match family.min(family.swap_bytes()) {
                2 | 10 | 24 | 28 | 30 => network.after(4),
                _ => Err(Skip::NotIp),
            }
        }
        LinkType::RAW | LinkType::RAW_12 | LinkType::RAW_14 | LinkType::IPV4 | LinkType::IPV6 => Ok(network),
        _ => Err(Skip::Link),
    }
}

impl Network<'_> {
    /// Behind `bytes` of header.
    fn after(self, bytes: usize) -> Result<Self, Skip> {
        let data = self.data.get(bytes..).ok_or(Skip::Cut)?;
        Ok(Self { data, len: self.len.saturating_sub(bytes as u32), ..self })
    }

    /// Behind any number of VLAN tags (IEEE 802.1Q, 802.1ad and what came before it).
    fn ethertype(mut self, mut ethertype: u16) -> Result<Self, Skip> {
        while let 0x8100 | 0x88a8 | 0x9100 = ethertype {
            ethertype = be16(self.data, 2);
            self = self.after(VLAN_BYTES)?;
        }
        match ethertype {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Ok(self),
            _ => Err(Skip::NotIp),
        }
    }
}
