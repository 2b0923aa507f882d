use ::tests::talk::{ACK, Segment as Sent, Talk};
use proptest::prelude::*;

use super::*;

fn sent(from: &str, to: &str) -> Sent {
    let mut talk = Talk::between(from, to);
    talk.next[0] = 0xffff_fffe;
    talk.received[0] = 7;
    talk.send(0, ACK, b"payload");
    talk.segments[0].1.clone()
}

fn v4() -> Sent {
    sent("10.0.0.1:40000", "10.0.0.2:80")
}

fn v6() -> Sent {
    sent("[2001:db8::1]:40000", "[2001:db8::2]:80")
}

fn read(link: u16, data: &[u8]) -> Result<Segment<'_>, Skip> {
    read_of(link, data, data.len())
}

fn read_of(link: u16, data: &[u8], len: usize) -> Result<Segment<'_>, Skip> {
    segment(&Packet { time_ns: 5, link: LinkType(link), interface: 0, len: len as u32, data })
}

fn is_the_one(result: Result<Segment<'_>, Skip>, sent: &Sent) {
    let seen = result.unwrap_or_else(|skip| panic!("{skip:?}"));
    assert_eq!((seen.source.1, seen.destination.1), (40000, 80));
    assert_eq!((seen.seq, seen.ack, seen.flags, seen.window), (0xffff_fffe, 7, ACK, 1000));
    assert_eq!((seen.len, seen.data, seen.is_ipv6), (7, &b"payload"[..], sent.from.is_ipv6()));
    let last = if seen.is_ipv6 { u32::from_be(seen.source.0[0]) } else { u32::from_be(seen.source.0[3]) };
    assert_eq!(last, if seen.is_ipv6 { 0x2001_0db8 } else { 0x0a00_0001 });
}

#[test]
fn every_link_type() {
    for sent in [v4(), v6()] {
        let frames: Vec<(u16, Vec<u8>)> = vec![
            (1, sent.ethernet()),
            (1, sent.vlans(&[(0x8100, 5)])),
            (1, sent.vlans(&[(0x88a8, 5), (0x8100, 6)])),
            (1, sent.vlans(&[(0x9100, 5), (0x9100, 6), (0x8100, 7)])),
            (113, sent.sll(0)),
            (276, sent.sll2(3, 4)),
            (101, sent.ip()),
            (12, sent.ip()),
            (14, sent.ip()),
            (228, sent.ip()),
            (229, sent.ip()),
        ];
        for (link, frame) in frames {
            is_the_one(read(link, &frame), &sent);
        }
        let families: &[u32] = if sent.from.is_ipv4() { &[2] } else { &[10, 24, 28, 30] };
        for family in families {
            is_the_one(read(0, &sent.null(family.to_le_bytes())), &sent);
            is_the_one(read(0, &sent.null(family.to_be_bytes())), &sent);
            is_the_one(read(108, &sent.null(family.to_be_bytes())), &sent);
        }
    }
}

#[test]
fn options_and_extension_headers() {
    is_the_one(read(101, &v4().ip_with(&[1; 12])), &v4());
    // Hop-by-hop, routing, destination, authentication, mobility, then TCP.
    let chain: [&[u8]; 5] = [
        &[43, 0, 1, 4, 0, 0, 0, 0],
        &[60, 0, 0, 0, 0, 0, 0, 0],
        &[51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[135, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[6, 0, 0, 0, 0, 0, 0, 0],
    ];
    is_the_one(read(101, &v6().ip_with(&chain.concat())), &v6());
    let mut with_tcp_options = v4();
    with_tcp_options.options = vec![1; 40];
    is_the_one(read(101, &with_tcp_options.ip()), &v4());
    // A fragment header of a packet that is whole (RFC 6946).
    let whole = [&[44, 0, 1, 4, 0, 0, 0, 0][..], &[6, 0, 0, 0, 1, 2, 3, 4]].concat();
    is_the_one(read(101, &v6().ip_with(&whole)), &v6());
    let first = [&[44, 0, 1, 4, 0, 0, 0, 0][..], &[6, 0, 0, 1, 1, 2, 3, 4]].concat();
    assert_eq!(read(101, &v6().ip_with(&first)).unwrap_err(), Skip::Fragment);
}

#[test]
fn why_others_are_passed_over() {
    let change = |at: usize, bytes: &[u8]| {
        let mut frame = v4().ethernet();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let cases = [
        (change(12, &[8, 6]), Skip::NotIp),
        (change(12, &[0, 40]), Skip::NotIp),
        (change(14, &[0x55]), Skip::NotIp),
        (change(23, &[17]), Skip::NotTcp),
        (change(20, &[0x20, 0]), Skip::Fragment),
        (change(20, &[0x00, 9]), Skip::Fragment),
        (change(14, &[0x44]), Skip::Malformed),
        (change(16, &[0, 10]), Skip::Malformed),
        (change(16, &[0, 39]), Skip::Malformed),
        (change(46, &[0x40]), Skip::Malformed),
        (change(46, &[0xf0]), Skip::Malformed),
    ];
    for (frame, why) in cases {
        assert_eq!(read(1, &frame).unwrap_err(), why, "{frame:02x?}");
    }
    assert_eq!(read(189, &v4().ethernet()).unwrap_err(), Skip::Link);
    assert_eq!(read(0, &v4().null([7, 0, 0, 0])).unwrap_err(), Skip::NotIp);
}

#[test]
fn a_snap_length_cuts_the_payload_then_the_headers() {
    let frame = v4().ethernet();
    let whole = frame.len();
    for len in 0..whole {
        match read_of(1, &frame[..len], whole) {
            Ok(seen) => assert_eq!((seen.len, seen.data.len()), (7, len - 54), "{len}"),
            Err(skip) => assert!(len < 54 && (skip == Skip::Cut || len < 14), "{len} {skip:?}"),
        }
    }
}

#[test]
fn padding_is_no_payload_and_an_offload_leaves_the_length_0() {
    let padded = [v4().ethernet(), vec![0; 20]].concat();
    is_the_one(read(1, &padded), &v4());
    let mut offloaded = v4().ethernet();
    offloaded[16..18].fill(0);
    is_the_one(read(1, &offloaded), &v4());
    let seen = read_of(1, &offloaded, 100_054).unwrap();
    assert_eq!((seen.len, seen.data), (100_000, &b"payload"[..]));
    let mut jumbo = v6().ip();
    jumbo[4..6].fill(0);
    is_the_one(read(101, &jumbo), &v6());
}

#[test]
fn copies_have_one_fingerprint_wherever_they_were_seen() {
    let (at_one, at_other) = (v4().sll2(1, 4), v4().sll2(2, 0));
    let (one, other) = (read(276, &at_one).unwrap(), read(276, &at_other).unwrap());
    assert_eq!(one.fingerprint, other.fingerprint);
    assert_ne!(one.place, other.place);
    let mut again = v4();
    again.id += 1;
    let again = again.ethernet();
    assert_ne!(read(1, &again).unwrap().fingerprint, one.fingerprint);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        link in proptest::sample::select(vec![0u16, 1, 12, 14, 101, 108, 113, 189, 228, 229, 276]),
        data in proptest::collection::vec(any::<u8>(), 0..120),
        len: u32,
    ) {
        let packet = Packet { time_ns: 0, link: LinkType(link), interface: 0, len, data: &data };
        if let Ok(seen) = segment(&packet) {
            prop_assert!(seen.data.len() <= seen.len as usize);
        }
    }

    #[test]
    fn damage_is_survived(at in 0usize..61, byte: u8, cut in 0usize..61) {
        let mut data = v6().vlans(&[(0x8100, 1)]);
        let at = at.min(data.len() - 1);
        data[at] = byte;
        let _ = read_of(1, &data[..cut.min(data.len())], data.len());
    }
}
