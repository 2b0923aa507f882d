//! The engine of one connection: takes segments, follows both directions, and says what it finds.

use std::collections::VecDeque;

use super::pairing::{Cut, RUNNING_BYTES, Running};
use super::side::{Side, State};
use super::stream::Run;
use super::{Config, Direction, Output, Segment};

/// What a connection carries, as far as its bytes have shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    #[default]
    Unknown,
    Http1,
    /// The HTTP/2 preface was seen (RFC 9113 §3.4).
    Http2,
    /// It starts like a TLS record.
    Tls,
    /// Upgraded from HTTP/1.1 (RFC 6455).
    WebSocket,
    /// Upgraded from HTTP/1.1 to the protocol named; empty when the name was not usable.
    Upgraded(String),
    /// A CONNECT tunnel.
    Tunnel,
    /// Not HTTP, or no longer.
    Other,
}

/// Totals of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Request heads seen.
    pub requests: u64,
    /// Final response heads seen.
    pub responses: u64,
    /// Requests that were not the first.
    pub reused: u64,
    /// Longest silence between two exchanges, in nanoseconds.
    pub idle_max_ns: Option<u64>,
    /// When the last exchange ended, in nanoseconds of the caller's clock; what follows is idle time too. `None`
    /// when that is not known.
    pub last_end_ns: Option<u64>,
}

/// Follows the HTTP/1.x messages of one TCP connection.
#[derive(Debug)]
pub struct Flow {
    pub(super) config: Config,
    pub(super) sides: [Side; 2],
    /// The direction of requests.
    pub(super) client: Option<Direction>,
    /// Exchanges that run, oldest first. Only the last can have an incomplete request.
    pub(super) queue: VecDeque<Running>,
    /// Memory for the heads of those.
    pub(super) heads_bytes: usize,
    pub(super) protocol: Protocol,
    pub(super) summary: Summary,
    pub(super) last_seq: u64,
    pub(super) established_ns: Option<u64>,
    /// Responses are known to belong to the requests they are paired with.
    pub(super) pairing_exact: bool,
    /// A response was seen while another request was already waiting.
    pub(super) pipelines: bool,
    /// Nothing more is followed.
    pub(super) over: bool,
    pub(super) strikes: u8,
}

impl Flow {
    /// A flow that has seen nothing. `client`: the direction that carries requests, `None` to let the bytes
    /// tell. `from_start`: observation begins with the first byte of both streams; otherwise the first
    /// message boundary has to be found.
    pub fn new(config: &Config, client: Option<Direction>, from_start: bool) -> Self {
        Self {
            config: *config,
            sides: [Side::new(from_start), Side::new(from_start)],
            client,
            queue: VecDeque::new(),
            heads_bytes: 0,
            protocol: Protocol::Unknown,
            summary: Summary::default(),
            last_seq: 0,
            established_ns: None,
            pairing_exact: true,
            pipelines: false,
            over: false,
            strikes: 0,
        }
    }

    /// The handshake was complete at `time_ns`; silence before the first request counts from here.
    pub fn established(&mut self, time_ns: u64) {
        self.established_ns = Some(time_ns);
    }

    /// Segments retransmitted, either way: counted into the exchanges now running.
    pub fn retransmitted(&mut self, segments: u32) {
        for running in &mut self.queue {
            running.exchange.retransmits = running.exchange.retransmits.saturating_add(segments);
        }
    }

    pub fn summary(&self) -> Summary {
        self.summary
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol.clone()
    }

    /// Memory held for bytes and heads, at most [`Config::held_max_bytes`].
    pub fn held_bytes(&self) -> usize {
        let early: usize = self.sides.iter().map(Side::held_bytes).sum();
        early + self.queue.len() * RUNNING_BYTES + self.heads_bytes
    }

    /// A segment of one direction passed.
    pub fn segment(&mut self, direction: Direction, segment: &Segment, out: &mut Vec<Output>) {
        if self.over {
            return;
        }
        let end = segment.offset.saturating_add(u64::from(segment.len));
        let (data_start, data) = captured(segment, end);
        let side = &mut self.sides[direction.index()];
        if segment.fin {
            side.stream.fin.get_or_insert((end, segment.time_ns));
        }
        if segment.offset < end {
            // A copy of what has passed shows no turn.
            let first = segment.offset.max(side.stream.next);
            if side.is_lost() && first < end {
                let known = usize::try_from(first.saturating_sub(data_start)).unwrap_or(usize::MAX);
                let new = data.get(known..).unwrap_or_default();
                self.resync(direction, first, data_start.max(first), new, out);
            }
            let stream = &mut self.sides[direction.index()].stream;
            stream.see(end, segment.time_ns);
            let data_end = data_start + data.len() as u64;
            for (start, end, data) in [
                (segment.offset, data_start, None),
                (data_start, data_end, Some(data)),
                (data_end, end, None),
            ] {
                self.take(direction, start, end, segment.time_ns, data, out);
            }
        }
        self.settle(direction, out);
    }

    /// Bytes up to `end_offset` of one direction had passed at `time_ns` and were not copied.
    pub fn progress(&mut self, direction: Direction, end_offset: u64, time_ns: u64, out: &mut Vec<Output>) {
        if self.over {
            return;
        }
        let stream = &mut self.sides[direction.index()].stream;
        stream.see(end_offset, time_ns);
        if stream.is_empty() && end_offset > stream.next {
            // Only the last of these bytes is known to have passed at that time.
            let earlier = end_offset - stream.next - 1;
            self.feed(direction, Run { len: earlier, time_ns: None, data: None }, out);
        }
        let next = self.sides[direction.index()].stream.next;
        self.take(direction, next, end_offset, time_ns, None, out);
        self.settle(direction, out);
    }

    /// Bytes up to `end_offset` of one direction were sent at some time, whether or not there was a segment of them.
    pub fn sent(&mut self, direction: Direction, end_offset: u64) {
        let stream = &mut self.sides[direction.index()].stream;
        stream.sent_end = stream.sent_end.max(end_offset);
    }

    /// The connection was reset.
    pub fn reset(&mut self, _time_ns: u64, out: &mut Vec<Output>) {
        self.end(Cut::Reset, out);
    }

    /// The connection is over; nothing more will come.
    pub fn close(&mut self, _time_ns: u64, out: &mut Vec<Output>) {
        self.end(Cut::Close, out);
    }

    /// Consumes what can be used at once and holds the rest.
    fn take(
        &mut self,
        direction: Direction,
        start: u64,
        end: u64,
        time_ns: u64,
        data: Option<&[u8]>,
        out: &mut Vec<Output>,
    ) {
        let stream = &self.sides[direction.index()].stream;
        let first = start.max(stream.next);
        if self.over || first >= end {
            return;
        }
        let run = Run { len: end - start, time_ns: Some(time_ns), data }.after(first - start);
        let used = if stream.is_empty() && first == stream.next { self.feed(direction, run, out) } else { 0 };
        if used < run.len && !self.over {
            let rest = run.after(used);
            self.sides[direction.index()].stream.hold(first + used, end, time_ns, rest.data);
        }
    }

    /// Consumes what has become usable and keeps to the cap.
    fn settle(&mut self, direction: Direction, out: &mut Vec<Output>) {
        self.drain(direction, out);
        while !self.over
            && self.sides[direction.index()].stream.cost_bytes() > self.config.reorder_max_bytes as usize
        {
            self.give_up(direction, out);
        }
    }

    /// Consumes held bytes as far as they are in order or may be missing, then the FIN.
    pub(super) fn drain(&mut self, direction: Direction, out: &mut Vec<Output>) {
        if self.sides[direction.index()].busy {
            return;
        }
        while !self.over {
            let side = &mut self.sides[direction.index()];
            let Some(hole) = side.stream.hole() else { break };
            if hole > 0 {
                let missing = Run { len: hole, time_ns: None, data: None };
                if hole > side.may_miss() || self.feed(direction, missing, out) == 0 {
                    break;
                }
                continue;
            }
            let Some(mut piece) = side.stream.pop() else { break };
            let run = piece.run();
            let (len, used) = (run.len, self.feed(direction, run, out));
            if used < len && !self.over {
                piece.trim(used);
                self.sides[direction.index()].stream.unpop(piece);
                break;
            }
        }
        let side = &self.sides[direction.index()];
        let ended = side.stream.fin.is_some_and(|(end, _)| end <= side.stream.next);
        if ended && !self.over && !matches!(side.state, State::Closed) {
            self.cut(direction, Cut::Fin, out);
        }
    }

    /// Goes on past bytes that will not come: those of known length pass, others end the framing.
    pub(super) fn give_up(&mut self, direction: Direction, out: &mut Vec<Output>) {
        if self.sides[direction.index()].busy {
            return;
        }
        loop {
            self.drain(direction, out);
            let side = &self.sides[direction.index()];
            let Some(hole) = side.stream.hole() else { return };
            if self.over {
                return;
            }
            let opaque = if let State::Body(body) = &side.state { body.opaque() } else { 0 };
            let missing = Run { len: hole.min(opaque), time_ns: None, data: None };
            if self.feed(direction, missing, out) == 0 {
                self.lose(direction, out);
                return;
            }
        }
    }

    /// A segment of a direction whose framing is lost: does a message start with it?
    fn resync(
        &mut self,
        direction: Direction,
        offset: u64,
        data_start: u64,
        data: &[u8],
        out: &mut Vec<Output>,
    ) {
        let other_lost = self.sides[direction.other().index()].is_lost();
        let side = &self.sides[direction.index()];
        let State::Lost { open, turn } = side.state else { return };
        let starts = turn && !data.is_empty() && data_start == offset && offset >= side.stream.next;
        if starts && self.can_start(direction, data) {
            if open {
                self.infer_end(direction, out);
            }
            let after_hole = offset > self.sides[direction.index()].stream.next;
            if after_hole && self.client != Some(direction) {
                self.pass_over(out);
            }
            let side = &mut self.sides[direction.index()];
            side.stream.next = offset;
            side.state = State::Boundary;
            side.tentative = true;
            side.after_hole = after_hole;
        } else {
            self.sides[direction.index()].state = State::Lost { open, turn: false };
            if turn {
                self.strike(data, out);
            }
        }
        // With neither direction in step, any answer is a turn.
        if other_lost && let State::Lost { turn, .. } = &mut self.sides[direction.other().index()].state {
            *turn = true;
        }
    }
}

/// The captured bytes of a segment that lie inside its payload, and their offset.
fn captured<'a>(segment: &Segment<'a>, end: u64) -> (u64, &'a [u8]) {
    let start = segment.data_offset.clamp(segment.offset, end);
    let before = usize::try_from(start.saturating_sub(segment.data_offset)).unwrap_or(usize::MAX);
    let data = segment.data.get(before..).unwrap_or_default();
    let room = usize::try_from(end - start).unwrap_or(usize::MAX);
    (start, &data[..data.len().min(room)])
}
