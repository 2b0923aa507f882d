//! Made-up conversations: TCP segments as bytes of every link type, and two ends that send them.

use crate::pcap::{Pcap, link};
use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// One TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// IPv4's identification.
    pub id: u16,
    /// TCP options, a multiple of four bytes.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Segment {
    fn tcp(&self) -> Vec<u8> {
        let offset = ((20 + self.options.len()) as u8 / 4) << 4;
        let mut bytes = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        bytes.extend([self.seq.to_be_bytes(), self.ack.to_be_bytes()].concat());
        bytes.extend([offset, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend_from_slice(&self.options);
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The IP packet; the checksums are left to an offload.
    pub fn ip(&self) -> Vec<u8> {
        self.ip_with(&[])
    }

    /// With IPv4 options (a multiple of four bytes), or IPv6 extension headers that lead to TCP.
    pub fn ip_with(&self, extra: &[u8]) -> Vec<u8> {
        let tcp = self.tcp();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let total = (20 + extra.len() + tcp.len()) as u16;
                let mut bytes = vec![0x40 | ((20 + extra.len()) as u8 / 4), 0];
                bytes.extend([total.to_be_bytes(), self.id.to_be_bytes()].concat());
                bytes.extend([0x40, 0, 64, 6, 0, 0]);
                bytes.extend([from.octets(), to.octets()].concat());
                [&bytes, extra, &tcp].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let first = if extra.is_empty() { 6 } else { 0 };
                let mut bytes = vec![0x60, 0, 0, 0];
                bytes.extend(((extra.len() + tcp.len()) as u16).to_be_bytes());
                bytes.extend([first, 64]);
                bytes.extend([from.octets(), to.octets()].concat());
                [&bytes, extra, &tcp].concat()
            }
            _ => panic!("{} and {} are of two families", self.from, self.to),
        }
    }

    fn ethertype(&self) -> [u8; 2] {
        if self.from.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] }
    }

    pub fn ethernet(&self) -> Vec<u8> {
        self.vlans(&[])
    }

    /// Ethernet with VLAN tags: type and number of each.
    pub fn vlans(&self, tags: &[(u16, u16)]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (kind, number) in tags {
            bytes.extend([kind.to_be_bytes(), number.to_be_bytes()].concat());
        }
        bytes.extend(self.ethertype());
        [bytes, self.ip()].concat()
    }

    /// Linux cooked, version 1; `kind` 0 came in, 4 went out.
    pub fn sll(&self, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0, kind, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
        bytes.extend(self.ethertype());
        [bytes, self.ip()].concat()
    }

    /// Linux cooked, version 2.
    pub fn sll2(&self, interface: u32, kind: u8) -> Vec<u8> {
        let mut bytes = self.ethertype().to_vec();
        bytes.extend([0; 2]);
        bytes.extend(interface.to_be_bytes());
        bytes.extend([0, 1, kind, 6, 2, 0, 0, 0, 0, 1, 0, 0]);
        [bytes, self.ip()].concat()
    }

    /// BSD loopback, in either byte order.
    pub fn null(&self, family: [u8; 4]) -> Vec<u8> {
        [family.to_vec(), self.ip()].concat()
    }

    /// As a link type has it.
    pub fn frame(&self, link: u16) -> Vec<u8> {
        let family: u32 = if self.from.is_ipv4() { 2 } else { 30 };
        match link {
            link::ETHERNET => self.ethernet(),
            link::LINUX_SLL => self.sll(0),
            link::LINUX_SLL2 => self.sll2(1, 0),
            link::NULL => self.null(family.to_le_bytes()),
            link::LOOP => self.null(family.to_be_bytes()),
            _ => self.ip(),
        }
    }
}

/// Index of the end that opens the connection, and of the other.
pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;

/// Two ends, what they have sent, and when.
#[derive(Clone, Debug)]
pub struct Talk {
    pub ends: [SocketAddr; 2],
    /// Next sequence number of each end.
    pub next: [u32; 2],
    /// What each end has received.
    pub received: [u32; 2],
    pub ids: [u16; 2],
    pub time_ns: u64,
    pub segments: Vec<(u64, Segment)>,
}

/// When conversations begin: 2026-01-01T00:00:00Z.
pub const BEGIN_NS: u64 = 1_767_225_600_000_000_000;
/// Between two segments.
pub const STEP_NS: u64 = 1_000_000;

impl Default for Talk {
    fn default() -> Self {
        Self::between("10.0.0.1:40000", "10.0.0.2:80")
    }
}

impl Talk {
    pub fn between(client: &str, server: &str) -> Self {
        let end = |text: &str| text.parse().expect("an address and a port");
        let isn = [1000, 0xffff_fff0];
        Self {
            ends: [end(client), end(server)],
            next: isn,
            received: [0; 2],
            ids: [1, 1000],
            time_ns: BEGIN_NS,
            segments: Vec::new(),
        }
    }

    pub fn wait(&mut self, ns: u64) -> &mut Self {
        self.time_ns += ns;
        self
    }

    /// Another connection on the same ends.
    pub fn again(&mut self) -> &mut Self {
        self.next = self.next.map(|next| next.wrapping_add(1_000_000));
        self.received = [0; 2];
        self
    }

    /// A segment of one end; the other one has received all before when it answers.
    pub fn send(&mut self, end: usize, flags: u8, payload: &[u8]) -> &mut Self {
        let segment = Segment {
            from: self.ends[end],
            to: self.ends[1 - end],
            seq: self.next[end],
            ack: if flags & ACK != 0 { self.received[end] } else { 0 },
            flags,
            window: 1000,
            id: self.ids[end],
            options: Vec::new(),
            payload: payload.to_vec(),
        };
        let taken = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.next[end] = self.next[end].wrapping_add(taken);
        self.received[1 - end] = self.next[end];
        // 0 would be none.
        self.ids[end] = self.ids[end].wrapping_add(1).max(1);
        self.push(segment)
    }

    pub fn push(&mut self, segment: Segment) -> &mut Self {
        self.segments.push((self.time_ns, segment));
        self.time_ns += STEP_NS;
        self
    }

    /// Sends one of the segments again, with an identification of its own.
    pub fn repeat(&mut self, at: usize) -> &mut Self {
        let mut segment = self.segments[at].1.clone();
        segment.id = 0x8000 | self.segments.len() as u16;
        self.push(segment)
    }

    /// Changes the segment sent last.
    pub fn change(&mut self, change: impl FnOnce(&mut Segment)) -> &mut Self {
        change(&mut self.segments.last_mut().expect("a segment").1);
        self
    }

    /// Leaves out of the capture what was sent last.
    pub fn unseen(&mut self) -> &mut Self {
        self.segments.pop();
        self
    }

    pub fn open(&mut self) -> &mut Self {
        self.send(CLIENT, SYN, b"").send(SERVER, SYN | ACK, b"").send(CLIENT, ACK, b"")
    }

    /// A request and its response.
    pub fn exchange(&mut self, target: &str, body: usize) -> &mut Self {
        let request = format!("GET {target} HTTP/1.1\r\nHost: example.org\r\n\r\n");
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n{}", "x".repeat(body));
        self.send(CLIENT, ACK, request.as_bytes())
            .send(SERVER, ACK, response.as_bytes())
            .send(CLIENT, ACK, b"")
    }

    /// This end closes first, then the other.
    pub fn close(&mut self, first: usize) -> &mut Self {
        self.send(first, FIN | ACK, b"").send(1 - first, FIN | ACK, b"").send(first, ACK, b"")
    }

    /// As a pcap file.
    pub fn pcap(&self, link: u16) -> Vec<u8> {
        let mut file = Pcap::new(link);
        for (time_ns, segment) in &self.segments {
            file.packet(*time_ns, &segment.frame(link));
        }
        file.bytes
    }
}
