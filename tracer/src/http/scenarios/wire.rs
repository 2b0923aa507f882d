//! A connection on which things happen one after the other, 10 ns apart.

use super::super::*;

pub(crate) const C: Direction = Direction::AToB;
pub(crate) const S: Direction = Direction::BToA;

/// What happens on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Captured payload.
    Client(&'static [u8]),
    Server(&'static [u8]),
    /// Payload seen, not captured.
    ClientSeen(u32),
    ServerSeen(u32),
    /// Payload that no record speaks of.
    ClientMissing(u64),
    ServerMissing(u64),
    ClientFin,
    ServerFin,
    Reset,
    Close,
}

impl Step {
    /// Captured payload, and whose.
    pub(crate) fn captured(self) -> Option<(Direction, &'static [u8])> {
        match self {
            Self::Client(data) => Some((C, data)),
            Self::Server(data) => Some((S, data)),
            _ => None,
        }
    }
}

pub(crate) struct Wire {
    pub(crate) flow: Flow,
    pub(crate) out: Vec<Output>,
    pub(crate) now_ns: u64,
    /// Stream offsets reached.
    pub(crate) at: [u64; 2],
}

impl Wire {
    pub(crate) fn new(client: Option<Direction>, from_start: bool) -> Self {
        Self::with(&Config::default(), client, from_start)
    }

    pub(crate) fn with(config: &Config, client: Option<Direction>, from_start: bool) -> Self {
        let mut flow = Flow::new(config, client, from_start);
        flow.established(1);
        Self { flow, out: Vec::new(), now_ns: 1, at: [0; 2] }
    }

    pub(crate) fn at(&mut self, direction: Direction, offset: u64, len: u32, data: &[u8], fin: bool) {
        self.now_ns += 10;
        let segment = Segment { time_ns: self.now_ns, offset, len, data_offset: offset, data, fin };
        self.flow.segment(direction, &segment, &mut self.out);
    }

    pub(crate) fn send(&mut self, direction: Direction, data: &[u8]) {
        let offset = self.at[direction.index()];
        self.at[direction.index()] += data.len() as u64;
        self.at(direction, offset, data.len() as u32, data, false);
    }

    pub(crate) fn progress(&mut self, direction: Direction, end_offset: u64) {
        self.now_ns += 10;
        self.flow.progress(direction, end_offset, self.now_ns, &mut self.out);
    }

    pub(crate) fn seen(&mut self, direction: Direction, len: u32) {
        let offset = self.at[direction.index()];
        self.at[direction.index()] += u64::from(len);
        self.at(direction, offset, len, b"", false);
    }

    fn fin(&mut self, direction: Direction) {
        self.at(direction, self.at[direction.index()], 0, b"", true);
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Client(data) => self.send(C, data),
            Step::Server(data) => self.send(S, data),
            Step::ClientSeen(len) => self.seen(C, len),
            Step::ServerSeen(len) => self.seen(S, len),
            Step::ClientMissing(len) => self.at[0] += len,
            Step::ServerMissing(len) => self.at[1] += len,
            Step::ClientFin => self.fin(C),
            Step::ServerFin => self.fin(S),
            Step::Reset => self.flow.reset(self.now_ns, &mut self.out),
            Step::Close => self.flow.close(self.now_ns, &mut self.out),
        }
    }

    pub(crate) fn exchanges(&self) -> Vec<&Exchange> {
        self.out
            .iter()
            .filter_map(|output| match output {
                Output::Exchange(exchange) => Some(&**exchange),
                Output::Skip { .. } => None,
            })
            .collect()
    }

    pub(crate) fn marks(&self) -> Vec<(Direction, Mark)> {
        let mark = |output: &Output| match output {
            Output::Skip { direction, mark } => Some((*direction, *mark)),
            Output::Exchange(_) => None,
        };
        self.out.iter().filter_map(mark).collect()
    }

    pub(crate) fn shown(&self) -> Vec<String> {
        self.exchanges().into_iter().map(shown).collect()
    }
}

/// An exchange on one line, times aside: `seq method target framing:content > informational status
/// framing:content outcome flags`.
pub(crate) fn shown(exchange: &Exchange) -> String {
    let framing = |framing: Option<Framing>| framing.map_or("?", Framing::as_str);
    let size = |bytes: Option<u64>| bytes.map_or("?".to_owned(), |bytes| bytes.to_string());
    let mut text = format!("{}", exchange.seq);
    match &exchange.request {
        Some(r) => {
            let (method, target) = (r.method.escape_ascii(), r.target.escape_ascii());
            text += &format!(" {method} {target} {}:{}", framing(r.framing), size(r.body_bytes));
        }
        None => text += " -",
    }
    text += " >";
    for status in &exchange.informational {
        text += &format!(" {status}");
    }
    match &exchange.response {
        Some(r) => text += &format!(" {} {}:{}", r.status, framing(r.framing), size(r.body_bytes)),
        None => text += " -",
    }
    text += &format!(" {}", exchange.outcome.as_str());
    for (flag, name) in
        [(exchange.reused, " reused"), (exchange.pipelined, " pipelined"), (!exchange.exact, " inexact")]
    {
        text += if flag { name } else { "" };
    }
    if let Some(reason) = exchange.malformed_reason {
        text += &format!(" ({reason})");
    }
    text
}

/// An exchange with its heads, times aside: all that the way into segments must not change.
pub(crate) fn full(exchange: &Exchange) -> String {
    let heads = (
        exchange.request.as_ref().map(|r| (r.header_bytes, &r.host, &r.headers)),
        exchange.response.as_ref().map(|r| (r.header_bytes, &r.reason, &r.headers)),
    );
    format!("{} {:?} {heads:?}", shown(exchange), exchange.keep_alive)
}
