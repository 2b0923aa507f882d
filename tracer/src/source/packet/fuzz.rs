//! Any bytes as a packet: a segment that lies within it, or none. A packet that is not damaged is read as it was made.

use ::tests::talk::{CLIENT, SERVER, Talk};

use super::{LinkType, Segment, segment};
use crate::{fuzz::Input, source::capture::Packet};

/// The longest datagram whose header tells its length.
const DATAGRAM_MAX: u32 = 65_535 + 40;
const LINKS: [u16; 10] = [0, 1, 12, 14, 101, 108, 113, 228, 229, 276];

pub(crate) fn packet(input: &mut Input<'_>) {
    let link = if input.once_in(20) { input.u64() as u16 } else { *input.choose(&LINKS) };
    let made = (!input.once_in(4)).then(|| made(input));
    let mut data = match &made {
        Some(segment) => segment.frame(link),
        None => {
            let begins: [&[u8]; 3] = [b"\x45", b"\x60", b""];
            [input.bytes(20), *input.choose(&begins), input.bytes(200)].concat()
        }
    };
    let mut whole = made.is_some() && LINKS.contains(&link);
    while input.once_in(2) {
        damage(&mut data, input);
        whole = false;
    }
    let mut len = data.len() as u32;
    if input.once_in(3) {
        data.truncate(input.below(data.len() + 1));
    }
    if input.once_in(10) {
        // No shorter than what there is of it: that is the container's part.
        len = (input.number() as u32).max(data.len() as u32);
        whole = false;
    }
    let packet = Packet {
        time_ns: input.number(),
        link: LinkType(link),
        interface: input.u64() as u32,
        len,
        data: &data,
    };
    let read = segment(&packet);
    if let Ok(segment) = &read {
        lies_within(segment, &packet);
    }
    if let Some(made) = made.filter(|_| whole) {
        match read {
            Ok(segment) => is_same(&segment, &made),
            Err(skip) => assert!(data.len() < len as usize, "{skip:?}"),
        }
    }
}

fn lies_within(segment: &Segment<'_>, packet: &Packet<'_>) {
    let place = |part: &[u8]| {
        let at =
            (part.as_ptr() as usize).checked_sub(packet.data.as_ptr() as usize).expect("behind its start");
        assert!(at + part.len() <= packet.data.len());
        at
    };
    let options = place(segment.options);
    assert!(segment.options.len() <= 40);
    if !segment.data.is_empty() {
        assert_eq!(place(segment.data), options + segment.options.len());
    }
    assert!(segment.data.len() <= segment.len as usize);
    assert!(segment.len <= packet.len.max(DATAGRAM_MAX) - 40);
    assert_eq!(segment.offset_flags as u8, segment.flags);
}

/// As far as it was captured.
fn is_same(segment: &Segment<'_>, made: &::tests::talk::Segment) {
    assert_eq!((segment.source.1, segment.destination.1), (made.from.port(), made.to.port()));
    assert_eq!(segment.is_ipv6, made.from.is_ipv6());
    assert_eq!(segment.seq, made.seq.wrapping_add(u32::from(made.flags >> 1 & 1)));
    assert_eq!((segment.ack, segment.flags, segment.window), (made.ack, made.flags, made.window));
    assert_eq!(segment.len as usize, made.payload.len());
    assert!(made.payload.starts_with(segment.data) && made.options.starts_with(segment.options));
}

fn made(input: &mut Input<'_>) -> ::tests::talk::Segment {
    let mut talk =
        if input.once_in(2) { Talk::between("[fd00::1]:4000", "[fd00::2]:80") } else { Talk::default() };
    talk.next = [input.u64() as u32, input.u64() as u32];
    let (end, flags) = (*input.choose(&[CLIENT, SERVER]), input.byte());
    talk.send(end, flags, input.bytes(100));
    let (_, mut segment) = talk.segments.remove(0);
    segment.options = vec![1; input.below(11) * 4];
    segment.window = input.u64() as u16;
    segment
}

fn damage(data: &mut Vec<u8>, input: &mut Input<'_>) {
    // Mostly where the headers are.
    let end = if input.once_in(4) { data.len() } else { data.len().min(80) };
    let at = input.below(end + 1);
    match input.below(5) {
        0 => {
            let to = (at + input.below(20)).min(data.len());
            data.drain(at..to);
        }
        1 => {
            // Tags, extension headers and other beginnings.
            let words: [&[u8]; 6] = [
                &[0x81, 0, 0, 1],
                &[0x88, 0xa8, 0, 0],
                &[0, 0, 1, 2, 0, 0, 0, 0],
                &[44, 0, 0, 0],
                &[6, 0],
                &[0; 8],
            ];
            data.splice(at..at, input.choose(&words).repeat(1 + input.below(20)));
        }
        2 => {
            let bytes = input.bytes(12).to_vec();
            let to = (at + bytes.len()).min(data.len());
            data.splice(at..to, bytes);
        }
        _ => {
            if let Some(byte) = data.get_mut(at) {
                *byte = *input.choose(&[0, 1, 4, 5, 6, 0x0f, 0x40, 0x50, 0x60, 0x80, 0xf0, 0xff, *byte ^ 1]);
            }
        }
    }
}
