use std::io::Cursor;

use ::tests::{
    pcap::{Endian, Pcap, PcapNg, link},
    talk::Talk,
};
use proptest::prelude::*;

use super::{Capture, Input};

type Packets = Vec<(u64, u16, u32, u32, Vec<u8>)>;

/// All packets, and what ended them if not the end: packet number and text.
fn read(bytes: &[u8]) -> (Packets, Option<(Option<u64>, String)>) {
    let source = Box::new(Cursor::new(bytes.to_vec()));
    let opened = Input::new(source)
        .map_err(|problem| (None, problem.to_string()))
        .and_then(|input| Capture::new("x".into(), input).map_err(|error| (error.number, error.to_string())));
    let mut capture = match opened {
        Ok(capture) => capture,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut packets = Vec::new();
    loop {
        match capture.packet() {
            Ok(Some(packet)) => {
                packets.push((
                    packet.time_ns,
                    packet.link.0,
                    packet.interface,
                    packet.len,
                    packet.data.to_vec(),
                ));
            }
            Ok(None) => return (packets, None),
            Err(error) => return (packets, Some((error.number, error.to_string()))),
        }
    }
}

const TIME_NS: u64 = 1_700_000_000_123_456_789;

#[test]
fn pcap_of_both_byte_orders_and_resolutions() {
    for endian in [Endian::Little, Endian::Big] {
        for (nanoseconds, time_ns) in [(true, TIME_NS), (false, TIME_NS / 1000 * 1000)] {
            let mut file = Pcap::with(endian, nanoseconds, link::ETHERNET);
            file.snap_len = 4;
            file.packet(TIME_NS, b"abcdef");
            file.packet(TIME_NS + 1_000_000_000, b"");
            let expected = vec![
                (time_ns, link::ETHERNET, 0, 6, b"abcd".to_vec()),
                (time_ns + 1_000_000_000, link::ETHERNET, 0, 0, Vec::new()),
            ];
            assert_eq!(read(&file.bytes), (expected, None), "{endian:?} {nanoseconds}");
        }
    }
}

#[test]
fn upper_bits_of_the_link_type_are_no_part_of_it() {
    let mut file = Pcap::new(link::ETHERNET);
    file.bytes[23] = 0x24;
    file.packet(TIME_NS, b"a");
    assert_eq!(read(&file.bytes).0.len(), 1);
}

#[test]
fn pcapng_with_every_kind_of_packet_several_interfaces_and_sections() {
    let mut file = PcapNg::new(Endian::Big);
    file.interface(link::ETHERNET, 0, None, None);
    file.interface(link::RAW, 3, Some(9), Some(1_700_000_000));
    file.block(5, &[0; 12]);
    file.packet(0, 1_700_000_000_000_001, b"abcde", 9);
    file.packet(1, 5, b"xyz", 3);
    file.obsolete_packet(1, 6, b"o", 1);
    file.section(Endian::Little);
    file.interface(link::IPV6, 3, Some(0x80 | 1), None);
    file.packet(0, 3, b"s", 1);
    file.simple_packet(b"abc", 7);
    file.block(0x0bad_0bad, b"");
    let expected = vec![
        (1_700_000_000_000_001_000, link::ETHERNET, 0, 9, b"abcde".to_vec()),
        (1_700_000_000_000_000_005, link::RAW, 1, 3, b"xyz".to_vec()),
        (1_700_000_000_000_000_006, link::RAW, 1, 1, b"o".to_vec()),
        (1_500_000_000, link::IPV6, 2, 1, b"s".to_vec()),
        (1_500_000_000, link::IPV6, 2, 7, b"abc".to_vec()),
    ];
    assert_eq!(read(&file.bytes), (expected, None));
}

#[test]
fn interfaces_that_are_not_read_are_passed_over_beside_others() {
    let mut file = PcapNg::new(Endian::Little);
    file.interface(link::USB, 0, None, None);
    file.interface(link::ETHERNET, 0, None, None);
    file.packet(0, 1, b"u", 1);
    assert_eq!(read(&file.bytes).1, None);
    let mut alone = PcapNg::new(Endian::Little);
    alone.interface(link::USB, 0, None, None);
    alone.packet(0, 1, b"u", 1);
    let (_, error) = read(&alone.bytes);
    assert!(
        error.as_ref().is_some_and(|(packet, text)| *packet == Some(1) && text.contains("189")),
        "{error:?}"
    );
}

#[test]
fn errors_say_where_and_why() {
    let file = Pcap::new(link::ETHERNET).bytes;
    let with = |at: usize, bytes: &[u8]| {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let mut long = Pcap::new(link::ETHERNET);
    long.packet(TIME_NS, b"whole");
    long.packet(TIME_NS, b"");
    let at = long.bytes.len() - 8;
    long.bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut cut = Pcap::new(link::ETHERNET);
    cut.packet(TIME_NS, b"whole");
    cut.packet(TIME_NS, b"0123456789");
    cut.bytes.truncate(cut.bytes.len() - 1);
    let ng = |change: &dyn Fn(&mut PcapNg)| {
        let mut file = PcapNg::new(Endian::Little);
        change(&mut file);
        file.bytes
    };
    let cases: [(Vec<u8>, Option<u64>, &str); 14] = [
        (Vec::new(), None, "empty"),
        (b"GET".to_vec(), None, "begins with [47, 45, 54], which is neither pcap"),
        (b"{\"type\":".to_vec(), None, "neither pcap nor pcapng"),
        (with(0, &0xa1b2_cd34u32.to_le_bytes()), None, "editcap"),
        (with(4, &[9, 0]), None, "version 9.4"),
        (with(20, &[189, 0]), None, "link type 189"),
        (file[..20].to_vec(), None, "ends inside of the file header: of its 24 bytes, 20 are there"),
        (long.bytes, Some(2), "packet 2, at byte 45: the packet claims to be 4294967295 bytes long"),
        (cut.bytes, Some(2), "packet 2, at byte 45: the file ends inside of the packet: of its 26 bytes, 25"),
        (ng(&|file| file.packet(0, 0, b"", 0)), Some(1), "an interface that no block has described"),
        (ng(&|file| file.bytes[8] = 0), Some(1), "no byte-order magic"),
        (ng(&|file| file.bytes[24] = 1), Some(1), "the block's two lengths differ"),
        (
            ng(&|file| {
                file.interface(link::RAW, 0, None, None);
                file.packet(0, 0, b"abcd", 4);
                let at = file.bytes.len() - 28;
                file.bytes[at..at + 4].copy_from_slice(&99u32.to_le_bytes());
            }),
            Some(1),
            "the packet is longer than its block",
        ),
        (
            ng(&|file| file.bytes.extend([6, 0, 0, 0, 0xfc, 0xff, 0xff, 0xff, 0])),
            Some(1),
            "packet 1, at byte 28: the block claims to be 4294967292 bytes long",
        ),
    ];
    for (bytes, packet, text) in cases {
        let (_, error) = read(&bytes);
        let (at, said) = error.unwrap_or_else(|| panic!("no error: {text}"));
        assert!(at == packet && said.contains(text), "{at:?} {said}\nwanted: {text}");
    }
}

#[test]
fn damaged_gzip_is_an_error_behind_what_was_whole() {
    use std::io::Write;
    let mut file = Pcap::new(link::ETHERNET);
    for at in 0..1000u64 {
        file.packet(TIME_NS + at, &at.to_le_bytes().repeat(at as usize % 50));
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&file.bytes).unwrap();
    let packed = encoder.finish().unwrap();
    assert_eq!(read(&packed), read(&file.bytes));
    let (packets, error) = read(&packed[..packed.len() / 2]);
    assert!(!packets.is_empty() && packets[..] == read(&file.bytes).0[..packets.len()]);
    assert!(error.is_some_and(|(packet, text)| packet.is_some() && text.contains("cannot be read")));
}

#[test]
fn what_comes_before_damage_in_gzip_is_given() {
    use std::io::Write;
    let mut file = Pcap::new(link::ETHERNET);
    for at in 0..4000u64 {
        file.packet(TIME_NS + at, &at.to_le_bytes());
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(&file.bytes).unwrap();
    let mut packed = encoder.finish().unwrap();
    // Behind the file's header, that of a stored block and the block: the next one's, of a type that there is not.
    let second = 10 + 5 + usize::from(u16::from_le_bytes([packed[11], packed[12]]));
    packed[second] = 0xff;
    let (packets, error) = read(&packed);
    assert!(packets.len() >= (second - 15 - 24 - 512) / 24 && error.is_some(), "{}", packets.len());
    assert!(read(&file.bytes).0.starts_with(&packets));
}

fn samples() -> [Vec<u8>; 2] {
    let mut talk = Talk::default();
    talk.open().exchange("/a", 40).close(0);
    let mut ng = PcapNg::new(Endian::Little);
    ng.interface(link::ETHERNET, 0, Some(9), None);
    for (time_ns, segment) in &talk.segments {
        let frame = segment.ethernet();
        ng.packet(0, *time_ns, &frame, frame.len());
    }
    [talk.pcap(link::ETHERNET), ng.bytes]
}

#[test]
fn truncated_anywhere_all_packets_before_are_given() {
    for bytes in samples() {
        let (whole, error) = read(&bytes);
        assert!(error.is_none() && whole.len() == 9);
        let mut most = 0;
        for len in 0..bytes.len() {
            let (packets, error) = read(&bytes[..len]);
            assert!(whole.starts_with(&packets) && packets.len() >= most, "{len}");
            most = packets.len();
            let ended_between = error.is_none();
            assert!(!ended_between || len > 20, "{len}: {packets:?}");
        }
        assert_eq!(most, whole.len() - 1);
    }
}

proptest! {
    #[test]
    fn any_bytes_give_packets_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read(&bytes);
    }

    #[test]
    fn damage_anywhere_is_survived(
        which in 0usize..2,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = samples()[which].clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read(&bytes);
    }
}
