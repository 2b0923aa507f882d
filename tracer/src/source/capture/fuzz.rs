//! Captures that begin as valid ones and are then damaged: no panic, no more memory than stated, and all packets before
//! the damage.

use std::io::{Cursor, Read, Write};

use ::tests::pcap::{Endian, Pcap, PcapNg};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

use super::{Capture, MAX_PACKET_BYTES, Packet, input};
use crate::fuzz::Input;

/// A block may be this much longer than a packet. Twice that: a buffer that grows may double.
const HELD_MAX: usize = 2 * (MAX_PACKET_BYTES + (1 << 20));
/// Compressed bytes before the damage whose packets may be lost with it.
const GZIP_LOST_BYTES: usize = input::PACKED_BYTES;
const LINKS: [u16; 4] = [1, 101, 113, 276];

/// A valid capture, and where in it each packet ends.
struct Made {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// A packet as it was read.
type Got = (u64, u16, u32, u32, Vec<u8>);

pub(crate) fn capture(input: &mut Input<'_>) {
    if input.once_in(6) {
        let magic: [&[u8]; 5] = [
            b"",
            &[0x0a, 0x0d, 0x0d, 0x0a],
            &[0xd4, 0xc3, 0xb2, 0xa1],
            &[0xa1, 0xb2, 0x3c, 0x4d],
            &[0x1f, 0x8b, 8],
        ];
        let bytes = [*input.choose(&magic), input.bytes(300)].concat();
        read(bytes);
        return;
    }
    let made = if input.once_in(2) { pcap(input) } else { pcapng(input) };
    let whole = read(made.bytes.clone());
    assert_eq!(whole.len(), made.ends.len());
    let mut bytes = made.bytes.clone();
    let (packed, intact) = match input.below(3) {
        0 => {
            let intact = damage(&mut bytes, input);
            (bytes, intact)
        }
        // What is compressed is damaged, or the compressed.
        1 => {
            let intact = damage(&mut bytes, input);
            (gzip(&bytes, input), intact)
        }
        _ => {
            let mut packed = gzip(&bytes, input);
            let before = packed.clone();
            let intact = damage(&mut packed, input).saturating_sub(GZIP_LOST_BYTES);
            (packed, unpacked(&before[..intact]))
        }
    };
    let due = made.ends.iter().filter(|end| **end <= intact).count();
    let got = read(packed);
    assert!(got.len() >= due && got[..due] == whole[..due], "{due} packets before byte {intact}: {got:?}");
}

/// All packets up to the first error, which says where.
fn read(bytes: Vec<u8>) -> Vec<Got> {
    let mut got = Vec::new();
    let Ok(source) = super::Input::new(Box::new(Cursor::new(bytes))) else { return got };
    let mut capture = match Capture::new("x".into(), source) {
        Ok(capture) => capture,
        Err(error) => {
            assert!(error.number.is_none() && !error.to_string().is_empty());
            return got;
        }
    };
    loop {
        match capture.packet() {
            Ok(Some(Packet { time_ns, link, interface, len, data })) => {
                assert!(data.len() <= len as usize && data.len() <= MAX_PACKET_BYTES + (1 << 20));
                got.push((time_ns, link.0, interface, len, data.to_vec()));
            }
            Ok(None) => break,
            Err(error) => {
                assert!(error.number == Some(got.len() as u64 + 1) && !error.to_string().is_empty());
                break;
            }
        }
    }
    assert!(capture.input.held() <= HELD_MAX, "{}", capture.input.held());
    got
}

fn pcap(input: &mut Input<'_>) -> Made {
    let endian = *input.choose(&[Endian::Little, Endian::Big]);
    let mut file = Pcap::with(endian, input.once_in(2), *input.choose(&LINKS));
    let mut ends = Vec::new();
    for _ in 0..input.below(30) {
        let data = payload(input);
        file.packet_of(time_ns(input), &data, data.len() + usize::from(input.byte()));
        ends.push(file.bytes.len());
    }
    Made { bytes: file.bytes, ends }
}

fn pcapng(input: &mut Input<'_>) -> Made {
    let order = |input: &mut Input<'_>| *input.choose(&[Endian::Little, Endian::Big]);
    let mut file = PcapNg::new(order(input));
    let mut interfaces = 0;
    let mut ends = Vec::new();
    for _ in 0..input.below(40) {
        let kind = if interfaces == 0 { 0 } else { input.below(8) };
        let interface = input.below(interfaces as usize) as u32;
        let data = payload(input);
        let len = data.len() + usize::from(input.byte());
        match kind {
            0 => {
                let resolution = *input.choose(&[None, Some(9), Some(6), Some(0x80 | 10), Some(12)]);
                let offset_s = *input.choose(&[None, Some(0), Some(-1), Some(1_700_000_000)]);
                file.interface(*input.choose(&LINKS), 0, resolution, offset_s);
                interfaces += 1;
                continue;
            }
            1 => {
                file.section(order(input));
                interfaces = 0;
                continue;
            }
            2 => {
                file.block(5, &[0; 12]);
                continue;
            }
            3 => file.obsolete_packet(interface as u16, time_ns(input), &data, len),
            4 => file.simple_packet(&data, data.len()),
            _ => file.packet(interface, time_ns(input), &data, len),
        }
        ends.push(file.bytes.len());
    }
    Made { bytes: file.bytes, ends }
}

fn payload(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = input.bytes(30).to_vec();
    if input.once_in(4) {
        // Longer ones that cannot be compressed to nothing.
        let mut word = input.u64() | 1;
        for _ in 0..input.below(3000) {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push((word >> 56) as u8 & 0x3f);
        }
    }
    bytes
}

fn time_ns(input: &mut Input<'_>) -> u64 {
    if input.once_in(4) { input.number() } else { 1_700_000_000_000_000_000 + u64::from(input.byte()) }
}

fn gzip(bytes: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut packed = Vec::new();
    let level = *input.choose(&[Compression::fast(), Compression::none(), Compression::best()]);
    for part in bytes.chunks(1 + bytes.len() / (1 + input.below(3))) {
        let mut encoder = GzEncoder::new(&mut packed, level);
        encoder.write_all(part).expect("memory");
        encoder.finish().expect("memory");
    }
    packed
}

/// How many bytes can be had of this.
fn unpacked(packed: &[u8]) -> usize {
    let mut bytes = Vec::new();
    let _cut = MultiGzDecoder::new(packed).read_to_end(&mut bytes);
    bytes.len()
}

/// Changes something, often a length; all before the offset returned stays.
fn damage(bytes: &mut Vec<u8>, input: &mut Input<'_>) -> usize {
    let mut intact = bytes.len();
    for _ in 0..=input.below(3) {
        let at = input.below(bytes.len() + 1);
        let to = (at + input.below(40)).min(bytes.len());
        intact = intact.min(at);
        match input.below(6) {
            0 => bytes.truncate(at),
            1 => {
                bytes.drain(at..to);
            }
            2 => {
                let copy = bytes[at..to].repeat(1 + input.below(20));
                bytes.splice(at..at, copy);
            }
            3 => {
                let new = input.bytes(20).to_vec();
                bytes.splice(at..to, new);
            }
            4 => {
                let word = input.number() as u32;
                let word = if input.once_in(2) { word.to_le_bytes() } else { word.to_be_bytes() };
                let to = (at + 4).min(bytes.len());
                bytes.splice(at..to, word);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << input.below(8);
                }
            }
        }
    }
    intact
}
