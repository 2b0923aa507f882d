//! Many made-up conversations at once, in one capture file.

use crate::{
    carry::{Carried, carry},
    chance::Chance,
    conversation::Conversation,
    pcap::{Endian, Pcap, link},
    records::Record,
    talk::{BEGIN_NS, CLIENT},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// All conversations begin within this time.
const SPREAD_US: usize = 500_000;
const FIRST_PORT: u16 = 20_000;
const SERVER_PORTS: [u16; 2] = [80, 8080];

/// A capture and what is in it.
#[derive(Clone, Debug)]
pub struct Capture {
    pub conversations: Vec<(Conversation, Carried)>,
    pub bytes: Vec<u8>,
}

impl Capture {
    /// `count` conversations over a link type, with segments that the capture lacks or without.
    pub fn new(seed: u64, link: u16, count: usize, losses: bool) -> Self {
        let mut chance = Chance::new(seed);
        let mut conversations = Vec::new();
        let mut packets = Vec::new();
        for number in 0..count {
            let mut conversation = Conversation::new(&mut chance, number);
            let ends = ends(&mut chance, link, number);
            let begin_ns = BEGIN_NS + 1000 * chance.below(SPREAD_US) as u64;
            let carried = carry(&mut conversation, &mut chance, ends, begin_ns, losses);
            let segments = carried.talk.segments.iter();
            packets.extend(segments.map(|(time_ns, segment)| (*time_ns, segment.frame(link))));
            conversations.push((conversation, carried));
        }
        // Of the same time, in the order in which they were sent.
        packets.sort_by_key(|(time_ns, _)| *time_ns);
        let endian = if chance.once_in(2) { Endian::Little } else { Endian::Big };
        let mut file = Pcap::with(endian, chance.once_in(2), link);
        packets.iter().for_each(|(time_ns, frame)| file.packet(*time_ns, frame));
        Self { conversations, bytes: file.bytes }
    }

    /// Which conversation a record belongs to.
    pub fn index(&self, record: &Record) -> Option<usize> {
        let port = record.count("/local/port")? as usize;
        let index = port.checked_sub(FIRST_PORT.into())?;
        (index < self.conversations.len()).then_some(index)
    }
}

fn ends(chance: &mut Chance, link: u16, number: usize) -> [SocketAddr; 2] {
    let six = match link {
        link::IPV4 => false,
        link::IPV6 => true,
        _ => chance.once_in(2),
    };
    let ports = [FIRST_PORT + number as u16, SERVER_PORTS[chance.below(2)]];
    [0, 1].map(|end| {
        let host = 1 + end as u8 + if end == CLIENT { chance.below(3) as u8 * 10 } else { 0 };
        let address = if six {
            IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()))
        } else {
            IpAddr::from(Ipv4Addr::new(10, 0, 0, host))
        };
        SocketAddr::new(address, ports[end])
    })
}
