//! Whole HTTP/1.x conversations made at random: what each end sends, in turns, and what it means.

use crate::{
    chance::Chance,
    message::{Framing, Message, Trait, Traits, message},
    talk::{CLIENT, SERVER},
};
use std::ops::Range;

/// How an exchange ends; the names are those of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    NoResponse,
    Truncated,
    Reset,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::NoResponse => "no_response",
            Self::Truncated => "truncated",
            Self::Reset => "reset",
        }
    }
}

/// A message and where it lies in its direction.
#[derive(Clone, Debug)]
pub struct Placed {
    pub at: Range<usize>,
    pub message: Message,
}

impl Placed {
    /// The bytes that decide where it ends.
    pub fn decisive(&self) -> impl Iterator<Item = usize> + '_ {
        let undecisive = |at: &usize| self.message.undecisive.iter().any(|range| range.contains(at));
        (0..self.at.len()).filter(move |at| !undecisive(at)).map(|at| self.at.start + at)
    }
}

/// An exchange as its makers mean it.
#[derive(Clone, Debug)]
pub struct Meant {
    /// In the target and in the reason phrase, and nowhere else.
    pub name: String,
    pub method: &'static str,
    pub target: String,
    pub versions: [&'static str; 2],
    pub status: u16,
    pub informational: Vec<u16>,
    /// Where the interim responses lie.
    pub interim: Range<usize>,
    pub request: Placed,
    /// Its content is what is sent of it.
    pub response: Option<Placed>,
    pub keep_alive: [Option<bool>; 2],
    pub timeout_s: Option<u64>,
    pub outcome: Outcome,
}

/// One connection's.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// What the client sends, and the server.
    pub streams: [Vec<u8>; 2],
    /// Who sends how much, in turns.
    pub turns: Vec<(usize, Range<usize>)>,
    pub exchanges: Vec<Meant>,
    pub traits: Traits,
    /// Who ends it, and whether by a reset.
    pub closer: usize,
    pub reset: bool,
}

const METHODS: [&str; 9] = ["GET", "GET", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT"];
const FIELDS: [&str; 6] = [
    "Accept: */*\r\n",
    "user-agent: x/1.0 (y; z)\r\n",
    "X-Empty:\r\n",
    "Cookie: a=b; c=\"d\"\r\n",
    "X-Long: 0123456789012345678901234567890123456789012345678901234567890123456789\r\n",
    "Accept-Encoding: gzip, deflate\r\n",
];

impl Conversation {
    /// The conversation of this number.
    pub fn new(chance: &mut Chance, number: usize) -> Self {
        let mut made = Self { closer: chance.below(2), ..Self::default() };
        let count = chance.within(1..7);
        let cut = chance.once_in(12);
        while made.exchanges.len() < count {
            let left = count - made.exchanges.len();
            let batch = if left > 1 && chance.once_in(8) { chance.within(2..left + 1) } else { 1 };
            made.batch(chance, number, batch, left == batch, cut);
        }
        made
    }

    fn say(&mut self, end: usize, bytes: &[u8]) -> Range<usize> {
        let start = self.streams[end].len();
        self.streams[end].extend(bytes);
        let said = start..self.streams[end].len();
        match self.turns.last_mut() {
            _ if bytes.is_empty() => {}
            Some((last, range)) if *last == end => range.end = said.end,
            _ => self.turns.push((end, said.clone())),
        }
        said
    }

    /// Some requests at once, then their responses. In the last one the connection ends, or it is cut short.
    fn batch(&mut self, chance: &mut Chance, number: usize, count: usize, last: bool, cut: bool) {
        if count > 1 {
            self.traits.insert(Trait::Pipelining);
        }
        let first = self.exchanges.len();
        for at in 0..count {
            let last = last && at + 1 == count;
            self.ask(chance, number, last, count > 1);
        }
        for at in first..first + count {
            let ends = last && at + 1 == first + count;
            self.answer(chance, at, ends, cut && ends);
        }
    }

    fn ask(&mut self, chance: &mut Chance, number: usize, last: bool, pipelined: bool) {
        let name = format!("c{number}e{}", self.exchanges.len() + 1);
        let method = match chance.choose(&METHODS) {
            // What comes behind it waits for its answer.
            "CONNECT" if pipelined => "GET",
            method => method,
        };
        let (host, target) = match chance.below(6) {
            _ if method == "CONNECT" => (format!("{name}:443"), format!("{name}:443")),
            0 => ("h".to_owned(), format!("http://h/{name}?a=b&c=%20")),
            1 if method == "OPTIONS" => ("h".to_owned(), format!("*{name}")),
            _ => ("h".to_owned(), format!("/{name}{}", "/x".repeat(chance.below(8)))),
        };
        let old = chance.once_in(12);
        let (version, mut fields, keep) = match (old, last && chance.once_in(3)) {
            (true, true) => ("1.0", String::new(), false),
            (true, false) => ("1.0", "Connection: keep-alive\r\n".to_owned(), true),
            (false, true) => ("1.1", "connection: close\r\n".to_owned(), false),
            (false, false) => ("1.1", String::new(), true),
        };
        if old {
            self.traits.insert(Trait::Old);
        }
        if method == "CONNECT" {
            self.traits.insert(Trait::Connect);
        }
        fields += &format!("Host: {host}\r\n");
        (0..chance.below(4)).for_each(|_| fields += chance.choose(&FIELDS));
        let framing = match method {
            "POST" | "PUT" if !old && chance.once_in(3) => Framing::Chunked,
            "POST" | "PUT" => Framing::Length,
            "DELETE" if chance.once_in(2) => Framing::Length,
            _ => Framing::None,
        };
        let expects = framing != Framing::None && !old && !pipelined && chance.once_in(8);
        if expects {
            fields += "Expect: 100-continue\r\n";
        }
        let start = format!("{method} {target} HTTP/{version}");
        let request = message(chance, &mut self.traits, &start, &fields, framing);
        let mut interim = 0..0;
        let mut informational = Vec::new();
        let at = if expects {
            self.traits.insert(Trait::Interim);
            let head = self.say(CLIENT, &request.bytes[..request.head]);
            interim = self.say(SERVER, b"HTTP/1.1 100 Continue\r\n\r\n");
            informational.push(100);
            head.start..self.say(CLIENT, &request.bytes[request.head..]).end
        } else {
            self.say(CLIENT, &request.bytes)
        };
        self.exchanges.push(Meant {
            name,
            method,
            target,
            versions: [version, "1.1"],
            status: 0,
            informational,
            interim,
            request: Placed { at, message: request },
            response: None,
            keep_alive: [Some(keep), None],
            timeout_s: None,
            outcome: Outcome::Complete,
        });
    }

    fn answer(&mut self, chance: &mut Chance, index: usize, ends: bool, cut: bool) {
        let mut meant = self.exchanges[index].clone();
        if cut {
            self.traits.insert(Trait::Cut);
            self.closer = SERVER;
            self.reset = chance.once_in(2);
            meant.outcome = if self.reset { Outcome::Reset } else { Outcome::NoResponse };
            if chance.once_in(2) {
                self.exchanges[index] = meant;
                return;
            }
        }
        if chance.once_in(12) {
            self.traits.insert(Trait::Interim);
            for _ in 0..chance.within(1..3) {
                let said = self.say(SERVER, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
                let start = if meant.informational.is_empty() { said.start } else { meant.interim.start };
                meant.interim = start..said.end;
                meant.informational.push(103);
            }
        }
        self.describe(chance, &mut meant, ends);
        let response = meant.response.as_mut().expect("it was just made");
        let mut len = response.message.bytes.len();
        if cut {
            let known = response.message.framing == Framing::Length && response.message.content > 0;
            len = if known { response.message.head + chance.below(response.message.content) } else { len };
            response.message.content =
                if known { len - response.message.head } else { response.message.content };
            meant.outcome = match (known, self.reset) {
                (true, true) => Outcome::Reset,
                (true, false) => Outcome::Truncated,
                (false, true) if response.message.framing == Framing::UntilClose => Outcome::Reset,
                (false, _) => Outcome::Complete,
            };
        }
        response.at = self.say(SERVER, &response.message.bytes[..len]);
        self.exchanges[index] = meant;
    }

    /// Makes the response.
    fn describe(&mut self, chance: &mut Chance, meant: &mut Meant, ends: bool) {
        let mut status = *[200, 200, 200, 201, 404, 500, 204, 304].get(chance.below(10)).unwrap_or(&200);
        if meant.method == "CONNECT" {
            status = [403, 407, 502][chance.below(3)];
        }
        let closes = meant.keep_alive[0] == Some(false) || ends && chance.once_in(4);
        let old = closes && chance.once_in(6);
        let mut fields = String::new();
        let mut keep = true;
        if closes {
            self.closer = SERVER;
            keep = false;
            fields += if old { "" } else { "Connection: close\r\n" };
        } else if meant.versions[0] == "1.0" {
            fields += "Connection: Keep-Alive\r\n";
        }
        if keep && chance.once_in(6) {
            meant.timeout_s = Some(chance.below(100) as u64);
            fields += &format!("Keep-Alive: timeout={}\r\n", meant.timeout_s.unwrap_or_default());
        }
        if old {
            self.traits.insert(Trait::Old);
        }
        (0..chance.below(3)).for_each(|_| fields += chance.choose(&FIELDS));
        let bodiless = meant.method == "HEAD" || matches!(status, 204 | 304);
        let framing = match chance.below(3) {
            _ if bodiless => Framing::None,
            _ if closes && chance.once_in(2) => Framing::UntilClose,
            0 if !old && meant.versions[0] != "1.0" => Framing::Chunked,
            _ => Framing::Length,
        };
        if bodiless && status != 204 && chance.once_in(2) {
            let head = meant.method == "HEAD";
            self.traits.insert(if head { Trait::HeadAnnounces } else { Trait::BodilessAnnounces });
            let coded = head && meant.versions[0] == "1.1" && !old && chance.once_in(3);
            fields += if coded { "Transfer-Encoding: chunked\r\n" } else { "Content-Length: 1234\r\n" };
        }
        if framing == Framing::UntilClose {
            self.traits.insert(Trait::UntilClose);
        }
        meant.versions[1] = if old { "1.0" } else { "1.1" };
        meant.status = status;
        meant.keep_alive[1] = Some(keep);
        let start = format!("HTTP/{} {status} {}", meant.versions[1], meant.name);
        let message = message(chance, &mut self.traits, &start, &fields, framing);
        meant.response = Some(Placed { at: 0..0, message });
    }
}
