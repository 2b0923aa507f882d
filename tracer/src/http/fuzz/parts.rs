//! The parts of the engine, each against a simple model of what it has to do.

use super::conversation::{conversation, damage};
use crate::fuzz::Input;
use crate::http::chunked::Chunked;
use crate::http::head::{self, Scan};
use crate::http::scenarios::C;
use crate::http::start_line::{self, Prefix};
use crate::http::stream::Stream;

/// What comes out is what was held first, byte by byte, and what it costs is what is there.
pub(crate) fn stream(input: &mut Input<'_>) {
    const LEN: usize = 300;
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Byte {
        Missing,
        Seen,
        Captured(u8),
    }
    let base = if input.once_in(4) { u64::MAX - LEN as u64 } else { input.byte().into() };
    let mut stream = Stream::default();
    stream.next = base;
    let mut model = [Byte::Missing; LEN];
    let mut handed = 0;
    while !input.is_empty() {
        let start = input.below(LEN);
        let end = (start + 1 + input.below(80)).min(LEN);
        let bytes: Option<Vec<u8>> =
            (!input.once_in(3)).then(|| (start..end).map(|_| input.byte()).collect());
        stream.hold(base + start as u64, base + end as u64, 7, bytes.as_deref());
        for (index, byte) in model[start..end].iter_mut().enumerate() {
            match (&bytes, *byte) {
                (Some(bytes), Byte::Missing | Byte::Seen) => *byte = Byte::Captured(bytes[index]),
                (None, Byte::Missing) => *byte = Byte::Seen,
                _ => {}
            }
        }
        if input.once_in(4) {
            while stream.hole() == Some(0) && !stream.is_empty() {
                let mut piece = stream.pop().expect("it is not empty");
                let len = (piece.end - piece.start) as usize;
                let used = if input.once_in(3) { 1 + input.below(len) } else { len };
                let at = (piece.start - base) as usize;
                assert_eq!(at, handed, "in order");
                for (index, byte) in model[at..at + used].iter().enumerate() {
                    let got = piece.run().data.map_or(Byte::Seen, |data| Byte::Captured(data[index]));
                    assert_eq!(got, *byte, "offset {}", at + index);
                }
                handed += used;
                stream.next += used as u64;
                if used < len {
                    piece.trim(used as u64);
                    stream.unpop(piece);
                }
            }
        }
        let held = model[handed..].iter().filter(|byte| matches!(byte, Byte::Captured(_))).count();
        assert!(stream.cost_bytes() >= held);
        // A byte that was used may stay with the rest of its piece.
        assert!(stream.cost_bytes() <= (LEN - handed) * 65 + 80);
    }
    stream.abandon();
    assert_eq!((stream.cost_bytes(), stream.is_empty()), (0, true));
}

/// Heads: found where they end however they are cut; a line that is valid is never called impossible before.
pub(crate) fn head(input: &mut Input<'_>) {
    for (direction, bytes) in conversation(input) {
        let end = Scan::default().find_end(&bytes);
        let mut scan = Scan::default();
        let mut cut = 0;
        let mut found = None;
        while found.is_none() && cut < bytes.len() {
            cut = (cut + 1 + input.below(40)).min(bytes.len());
            found = scan.find_end(&bytes[..cut]);
        }
        assert_eq!(found, end);
        let (line, rest) = start_line::first_line(&bytes);
        let request = start_line::request_line(line);
        let response = start_line::status_line(line);
        for cut in 0..=line.len() {
            let prefix = start_line::prefix(&line[..cut]);
            assert!(
                request.is_err() || matches!(prefix, Prefix::Request | Prefix::Either),
                "{prefix:?} at {cut}"
            );
            assert!(
                response.is_err() || matches!(prefix, Prefix::Response | Prefix::Either),
                "{prefix:?} at {cut}"
            );
        }
        if let Ok(line) = request {
            assert!(
                start_line::authority(&line).is_none_or(|authority| authority.len() <= line.target.len())
            );
        }
        let fields_max = input.below(5);
        let some = head::fields(&bytes[rest..], direction == C, fields_max);
        let all = head::fields(&bytes[rest..], direction == C, usize::MAX);
        assert_eq!((&some.facts, some.defect), (&all.facts, all.defect), "a cap changes no framing");
        assert_eq!(some.fields, all.fields[..all.fields.len().min(fields_max)]);
        let kept: usize = all.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(kept <= bytes.len(), "nothing is made up");
    }
}

/// What is chunked comes back whole; what is damaged is judged alike however it is cut and whether or not its data is
/// looked at.
pub(crate) fn chunked(input: &mut Input<'_>) {
    let mut bytes = Vec::new();
    let mut content = 0;
    for _ in 0..input.below(6) {
        let data = input.bytes(40);
        if !data.is_empty() {
            let zeros = input.below(3);
            let extension = input.choose(&["", ";a", " ; a=\"b;c\"", ";x=y;z"]);
            bytes.extend(format!("{:0zeros$x}{extension}\r\n", data.len()).bytes());
            bytes.extend_from_slice(data);
            bytes.extend(b"\r\n");
            content += data.len() as u64;
        }
    }
    let ends: [&[u8]; 3] = [b"0\r\n\r\n", b"0;last\r\nA: b\r\n\r\n", b"000\r\nA: b\r\nC:\r\n\r\n"];
    bytes.extend(*input.choose(&ends));
    let len = bytes.len();
    bytes.extend(b"HTTP/1.1 200");
    let mut whole = Chunked::new();
    assert_eq!(whole.advance(&bytes), Ok(len));
    assert_eq!((whole.content(), whole.is_done()), (content, true));
    if input.once_in(2) {
        damage(&mut bytes, input);
    }
    let mut whole = Chunked::new();
    let expected = whole.advance(&bytes).map(|used| (used, whole.content(), whole.is_done()));
    assert_eq!(in_parts(&bytes, input), expected);
}

fn in_parts(bytes: &[u8], input: &mut Input<'_>) -> Result<(usize, u64, bool), &'static str> {
    let mut parts = Chunked::new();
    let mut at = 0;
    while at < bytes.len() && !parts.is_done() {
        let part = &bytes[at..(at + 1 + input.below(30)).min(bytes.len())];
        at += if parts.opaque() > 0 && input.once_in(2) {
            parts.skip(part.len() as u64) as usize
        } else {
            parts.advance(part)?
        };
    }
    Ok((at, parts.content(), parts.is_done()))
}
