//! HTTP/1.x messages made at random, and what they mean.

use crate::chance::Chance;
use std::{collections::BTreeSet, ops::Range};

/// What a conversation has in it that a reader may trip over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trait {
    /// A response to HEAD announces content.
    HeadAnnounces,
    /// 204 or 304 announces content.
    BodilessAnnounces,
    Pipelining,
    Interim,
    UntilClose,
    Chunked,
    /// White space behind the name of the coding.
    Blank,
    Extensions,
    Trailers,
    Connect,
    /// Content with lines in it that could begin a message.
    Lookalike,
    Old,
    /// The last exchange does not come to its end.
    Cut,
    OutOfOrder,
    Retransmission,
    Overlap,
    Wrap,
}

pub type Traits = BTreeSet<Trait>;

/// How content is framed; the names are those of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length,
    Chunked,
    UntilClose,
}

impl Framing {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Length => "content-length",
            Self::Chunked => "chunked",
            Self::UntilClose => "until-close",
        }
    }
}

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    pub bytes: Vec<u8>,
    /// Bytes before the content.
    pub head: usize,
    /// Bytes of content, without what frames it.
    pub content: usize,
    pub framing: Framing,
    /// Where it says nothing about its framing: content, except for the last byte of a known length.
    pub undecisive: Vec<Range<usize>>,
}

const LOOKALIKES: [&str; 5] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
    "GET /false HTTP/1.1\r\nHost: h\r\n\r\n",
    "\r\n0\r\n\r\n",
    "\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n",
];
const LENGTHS: [&str; 4] = ["Content-Length: ", "content-length:", "CONTENT-LENGTH:  ", "Content-length:\t"];
const CODINGS: [&str; 3] =
    ["Transfer-Encoding: chunked", "transfer-encoding:chunked", "Transfer-Encoding: Chunked "];
const EXTENSIONS: [&str; 4] = [";a", ";name=value", ";q=\"a;b\"", " ; a = b ; c"];
const TRAILERS: [&str; 3] = ["X-Sum: 5\r\n", "Expires: never\r\nA: b\r\n", "Content-Length: 9\r\n"];

/// A message from its start line, its fields (each with its line end) and a way to frame content.
pub fn message(
    chance: &mut Chance,
    traits: &mut Traits,
    start: &str,
    fields: &str,
    framing: Framing,
) -> Message {
    let content = match framing {
        Framing::None => Vec::new(),
        _ => content(chance, traits),
    };
    let mut head = format!("{start}\r\n{fields}");
    match framing {
        Framing::Length => head += &format!("{}{}\r\n", chance.choose(&LENGTHS), content.len()),
        Framing::Chunked => {
            traits.insert(Trait::Chunked);
            let coding = chance.choose(&CODINGS);
            if coding.ends_with(' ') {
                traits.insert(Trait::Blank);
            }
            head += coding;
            head += "\r\n";
        }
        Framing::None | Framing::UntilClose => {}
    }
    head += "\r\n";
    let mut made = Message {
        head: head.len(),
        bytes: head.into_bytes(),
        content: content.len(),
        framing,
        undecisive: Vec::new(),
    };
    match framing {
        Framing::Chunked => chunks(chance, traits, &content, &mut made),
        _ => {
            let last = usize::from(framing == Framing::Length);
            made.undecisive.push(made.head..(made.head + content.len()).saturating_sub(last).max(made.head));
            made.bytes.extend(content);
        }
    }
    made
}

fn content(chance: &mut Chance, traits: &mut Traits) -> Vec<u8> {
    let len = chance.size(120_000);
    let mut content: Vec<u8> = (0..len).map(|at| b'a' + (at % 26) as u8).collect();
    if len > 100 && chance.once_in(12) {
        traits.insert(Trait::Lookalike);
        for _ in 0..chance.within(1..5) {
            let text = chance.choose(&LOOKALIKES).as_bytes();
            let at = chance.below(len - text.len());
            content[at..at + text.len()].copy_from_slice(text);
        }
    }
    content
}

fn chunks(chance: &mut Chance, traits: &mut Traits, content: &[u8], made: &mut Message) {
    let (extensions, trailers) = (chance.once_in(5), chance.once_in(5));
    let mut extension = |chance: &mut Chance| {
        if extensions && chance.once_in(2) {
            traits.insert(Trait::Extensions);
            return chance.choose(&EXTENSIONS);
        }
        ""
    };
    let mut rest = content;
    while !rest.is_empty() {
        let most = [1, 20, 5000, 70_000][chance.below(4)];
        let len = chance.within(1..most + 1).max(content.len() / 50).min(rest.len());
        let (chunk, after) = rest.split_at(len);
        rest = after;
        let zeros = if chance.once_in(8) { "00" } else { "" };
        let size = if chance.once_in(2) { format!("{len:x}") } else { format!("{len:X}") };
        made.bytes.extend(format!("{zeros}{size}{}\r\n", extension(chance)).into_bytes());
        made.undecisive.push(made.bytes.len()..made.bytes.len() + len);
        made.bytes.extend(chunk);
        made.bytes.extend(b"\r\n");
    }
    made.bytes.extend(format!("0{}\r\n", extension(chance)).into_bytes());
    if trailers {
        traits.insert(Trait::Trailers);
        made.bytes.extend(chance.choose(&TRAILERS).as_bytes());
    }
    made.bytes.extend(b"\r\n");
}
