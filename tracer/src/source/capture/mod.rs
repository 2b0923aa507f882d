//! Capture files: pcap and pcapng, compressed by gzip or not, from a file or a pipe.
//!
//! The containers are read here and not by a crate: an error has to name packet, byte and reason, a packet must cost no
//! allocation (options included), and a hostile length must not ask for memory.
//!
//! Any bytes give packets, an end, or a [`CaptureError`]; never a panic. All packets before an error were given.

mod error;
mod input;
mod pcap;
mod pcapng;

pub use error::{CaptureError, Problem};
pub use input::{Input, Stop};

use super::packet::LinkType;

/// Longer than any packet: the largest snap length in use is 262,144, and an offloaded super-packet has up to 512 KiB.
pub const MAX_PACKET_BYTES: usize = 16 << 20;

const ITEM: &str = "packet";

/// One captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Wall clock, nanoseconds since 1970.
    pub time_ns: u64,
    pub link: LinkType,
    /// Number of the interface within the file.
    pub interface: u32,
    /// Length on the wire; more than `data` when it was cut by the snap length.
    pub len: u32,
    pub data: &'a [u8],
}

/// A capture that is being read.
pub struct Capture {
    name: String,
    input: Input,
    format: Format,
    packets: u64,
}

enum Format {
    Pcap(pcap::Header),
    PcapNg(pcapng::Sections),
}

impl Capture {
    /// A capture from any bytes; `name` stands in errors.
    ///
    /// # Errors
    /// It is no capture.
    pub fn new(name: String, mut input: Input) -> Result<Self, CaptureError> {
        match begin(&mut input) {
            Ok(format) => Ok(Self { name, input, format, packets: 0 }),
            Err(problem) => {
                Err(CaptureError { file: name, item: ITEM, number: None, offset: input.offset(), problem })
            }
        }
    }

    /// The next packet, `None` at the end of the capture.
    ///
    /// # Errors
    /// The capture is damaged or cannot be read on.
    pub fn packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        let found = match &mut self.format {
            Format::Pcap(header) => header.next(&mut self.input),
            Format::PcapNg(sections) => sections.next(&mut self.input),
        };
        match found {
            Ok(Some(found)) => {
                self.packets += 1;
                Ok(Some(found.packet(&self.input)))
            }
            Ok(None) => Ok(None),
            Err(problem) => Err(CaptureError {
                file: self.name.clone(),
                item: ITEM,
                number: Some(self.packets + 1),
                offset: self.input.offset(),
                problem,
            }),
        }
    }
}

/// A packet that lies at the front of the input; it is passed over with the next one.
#[derive(Clone, Copy, Debug)]
struct Found {
    time_ns: u64,
    link: LinkType,
    interface: u32,
    len: u32,
    /// Where its data lies from the input's front on.
    data_at: usize,
    data_len: usize,
}

impl Found {
    fn packet(self, input: &Input) -> Packet<'_> {
        let data = input.peek(self.data_at + self.data_len).get(self.data_at..).unwrap_or_default();
        let len = self.len.max(data.len() as u32);
        Packet { time_ns: self.time_ns, link: self.link, interface: self.interface, len, data }
    }
}

fn begin(input: &mut Input) -> Result<Format, Problem> {
    let magic: [u8; 4] = match *input.fill(4).map_err(Problem::read)? {
        [] => return Err(Problem::Empty),
        [a, b, c, d] => [a, b, c, d],
        ref short => return Err(Problem::NotACapture(short.to_vec())),
    };
    if magic == pcapng::MAGIC {
        return Ok(Format::PcapNg(pcapng::Sections::default()));
    }
    pcap::Header::read(input, magic).map(Format::Pcap)
}

/// Integers of a file in its own byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Endian {
    #[default]
    Little,
    Big,
}

impl Endian {
    /// The 16 bits at `at`, 0 where there are none.
    fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let bytes = bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        if self == Self::Little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    }

    fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        if self == Self::Little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    }

    fn u64(self, bytes: &[u8], at: usize) -> u64 {
        let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        if self == Self::Little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) }
    }
}

/// The next `need` bytes, or what is wrong.
pub fn whole<'a>(input: &'a mut Input, what: &'static str, need: usize) -> Result<&'a [u8], Problem> {
    let bytes = input.fill(need).map_err(Problem::read)?;
    if bytes.len() < need {
        return Err(Problem::Truncated { what, need, have: bytes.len() });
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
