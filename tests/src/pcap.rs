//! Capture files, written by hand: pcap and pcapng in every variant that the tracer reads.

/// Link types (<https://www.tcpdump.org/linktypes.html>).
pub mod link {
    pub const NULL: u16 = 0;
    pub const ETHERNET: u16 = 1;
    pub const RAW: u16 = 101;
    pub const LOOP: u16 = 108;
    pub const LINUX_SLL: u16 = 113;
    pub const USB: u16 = 189;
    pub const IPV4: u16 = 228;
    pub const IPV6: u16 = 229;
    pub const LINUX_SLL2: u16 = 276;
}

/// Byte order of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    Little,
    Big,
}

impl Endian {
    fn u16(self, value: u16) -> [u8; 2] {
        if self == Self::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self == Self::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    fn u64(self, value: u64) -> [u8; 8] {
        if self == Self::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }
}

/// A pcap file.
#[derive(Clone, Debug)]
pub struct Pcap {
    endian: Endian,
    nanoseconds: bool,
    pub snap_len: usize,
    pub bytes: Vec<u8>,
}

impl Pcap {
    /// Little endian, with nanoseconds.
    pub fn new(link: u16) -> Self {
        Self::with(Endian::Little, true, link)
    }

    pub fn with(endian: Endian, nanoseconds: bool, link: u16) -> Self {
        let magic = if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let mut bytes = endian.u32(magic).to_vec();
        bytes.extend([endian.u16(2), endian.u16(4)].concat());
        bytes.extend([endian.u32(0), endian.u32(0), endian.u32(262_144), endian.u32(link.into())].concat());
        Self { endian, nanoseconds, snap_len: 262_144, bytes }
    }

    /// Adds a packet, cut at the snap length.
    pub fn packet(&mut self, time_ns: u64, data: &[u8]) {
        self.packet_of(time_ns, data, data.len());
    }

    /// Adds a packet that was `len` bytes long on the wire.
    pub fn packet_of(&mut self, time_ns: u64, data: &[u8], len: usize) {
        let fraction = time_ns % 1_000_000_000 / if self.nanoseconds { 1 } else { 1000 };
        let data = &data[..data.len().min(self.snap_len)];
        for value in [(time_ns / 1_000_000_000) as u32, fraction as u32, data.len() as u32, len as u32] {
            self.bytes.extend(self.endian.u32(value));
        }
        self.bytes.extend_from_slice(data);
    }
}

/// A pcapng file.
#[derive(Clone, Debug)]
pub struct PcapNg {
    endian: Endian,
    pub bytes: Vec<u8>,
}

impl PcapNg {
    /// A file with one section and no interface yet.
    pub fn new(endian: Endian) -> Self {
        let mut file = Self { endian, bytes: Vec::new() };
        file.section(endian);
        file
    }

    /// Begins a section, whose interfaces are numbered anew.
    pub fn section(&mut self, endian: Endian) {
        self.endian = endian;
        let version = [endian.u16(1), endian.u16(0)].concat();
        let length_unknown = endian.u64(u64::MAX);
        let body = [endian.u32(0x1a2b_3c4d).as_slice(), &version, &length_unknown].concat();
        self.block(0x0a0d_0d0a, &body);
    }

    /// Describes an interface; without a resolution it counts microseconds.
    pub fn interface(&mut self, link: u16, snap_len: u32, resolution: Option<u8>, offset_s: Option<i64>) {
        let e = self.endian;
        let mut body = [e.u16(link).as_slice(), &[0; 2], &e.u32(snap_len)].concat();
        // A name first, so that an option of odd length comes before the others.
        body.extend([e.u16(2).as_slice(), &e.u16(3), b"eth\0"].concat());
        if let Some(resolution) = resolution {
            body.extend([e.u16(9).as_slice(), &e.u16(1), &[resolution, 0, 0, 0]].concat());
        }
        if let Some(offset_s) = offset_s {
            body.extend([e.u16(14).as_slice(), &e.u16(8), &e.u64(offset_s as u64)].concat());
        }
        body.extend([0; 4]);
        self.block(1, &body);
    }

    /// An enhanced packet, `len` bytes long on the wire.
    pub fn packet(&mut self, interface: u32, ticks: u64, data: &[u8], len: usize) {
        let e = self.endian;
        let head = [interface, (ticks >> 32) as u32, ticks as u32, data.len() as u32, len as u32];
        let mut body: Vec<u8> = head.into_iter().flat_map(|value| e.u32(value)).collect();
        body.extend(padded(data));
        // Flags: inbound.
        body.extend([e.u16(2).as_slice(), &e.u16(4), &e.u32(1), &[0; 4]].concat());
        self.block(6, &body);
    }

    pub fn obsolete_packet(&mut self, interface: u16, ticks: u64, data: &[u8], len: usize) {
        let e = self.endian;
        let mut body = [e.u16(interface), e.u16(0xffff)].concat();
        for value in [(ticks >> 32) as u32, ticks as u32, data.len() as u32, len as u32] {
            body.extend(e.u32(value));
        }
        body.extend(padded(data));
        self.block(2, &body);
    }

    pub fn simple_packet(&mut self, data: &[u8], len: usize) {
        let body = [self.endian.u32(len as u32).to_vec(), padded(data)].concat();
        self.block(3, &body);
    }

    /// Any block.
    pub fn block(&mut self, kind: u32, body: &[u8]) {
        let len = self.endian.u32(body.len() as u32 + 12);
        for part in [&self.endian.u32(kind), &len, body, &len] {
            self.bytes.extend_from_slice(part);
        }
    }
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(4), 0);
    data
}
