//! A passive observer of TCP: segments seen between two ends become the events that the kernel side would report.
//!
//! One connection for each pair of ends. Its `local` end is the client's, and its states are that end's, entered when a
//! segment that shows it passes here. Without a kernel, some ends are inferred:
//!
//! - A new SYN on the ends of an open connection closes the older one: how is not known.
//! - SYNs that nobody answers time out after [`UNANSWERED_NS`]; a connection with FINs both ways whose last
//!   acknowledgement is missing is over after [`TIME_WAIT_NS`]. Both are dated at their last segment.
//! - TIME_WAIT expires [`TIME_WAIT_NS`] after the last FIN that it answers, if the capture goes on for that long.
//!
//! Bounded: open connections and past ones `max` each, and each has a fixed size. Any segments are survived.

mod copies;
mod flow;
mod past;
mod side;
mod step;

use std::collections::HashMap;

use tracer_ebpf::{Conn, FlowKey, Tuple, conn_flag, end_cause, milestone, state, tcp_flag, time_wait};

use self::{
    flow::{Flow, LOCAL, REMOTE, Turn},
    past::{Past, Pasts, TIME_WAIT_NS},
    step::{Teller, step},
};
use super::{Event, Repeats, packet::Segment};

/// Linux gives up 127 s after the first SYN by default (`tcp_syn_retries` 6), 64 s after the last.
const UNANSWERED_NS: u64 = 130_000_000_000;

/// How often connections are looked through for those that are over, in time and in segments for each of them.
const SWEEP_EVERY_NS: u64 = 10_000_000_000;
const SWEEP_SHARE: u64 = 8;

/// Decides by its ends whether a connection is followed.
pub type Wanted = Box<dyn Fn(&Tuple) -> bool>;

/// What was seen, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub segments: u64,
    pub payload_bytes: u64,
    /// Handed on for their payload, with the bytes captured.
    pub handed: u64,
    pub bytes_handed: u64,
    /// Captured twice.
    pub copies: u64,
    /// Of no connection: resets, and what came late.
    pub stray: u64,
    /// With sequence numbers that their connection cannot have.
    pub out_of_window: u64,
    /// Of connections that the user did not choose.
    pub unwanted: u64,
    /// SYNs of connections that found the table full.
    pub full: u64,
}

/// A connection that is open when the capture ends.
#[derive(Clone, Copy, Debug)]
pub struct Still {
    pub conn: Conn,
    pub repeats: Repeats,
    /// An event has told of it before.
    pub is_told: bool,
    /// Bytes sent in each direction of its flow, where more were sent than were seen.
    pub sent: [Option<u64>; 2],
}

/// Follows all connections of a capture.
pub struct Observer {
    max: usize,
    wanted: Wanted,
    events: bool,
    segments: bool,
    open: HashMap<FlowKey, Box<Flow>>,
    past: Pasts,
    last_id: u64,
    counts: Counts,
    now_ns: u64,
    sweep_at_ns: u64,
    /// Segments since the last sweep.
    since_sweep: u64,
}

impl Observer {
    /// `events`: also tell each change of state and each reset; `segments`: also each segment.
    pub fn new(max: usize, events: bool, segments: bool, wanted: Wanted) -> Self {
        Self {
            max,
            wanted,
            events,
            segments,
            open: HashMap::new(),
            past: Pasts::new(max),
            last_id: 0,
            counts: Counts::default(),
            now_ns: 0,
            sweep_at_ns: 0,
            since_sweep: 0,
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Most open connections, and as many past ones.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Connections that are over and may still be heard of.
    pub fn past(&self) -> usize {
        self.past.len()
    }

    /// The latest time seen.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Takes in one segment.
    pub fn segment(&mut self, segment: &Segment<'_>, emit: &mut dyn FnMut(Event<'_>)) {
        self.counts.segments += 1;
        self.counts.payload_bytes += u64::from(segment.len);
        self.pass_time(segment.time_ns, emit);
        let (key, dir) = FlowKey::new(0, segment.source, segment.destination);
        let opens = segment.has(tcp_flag::SYN) && !segment.has(tcp_flag::ACK);
        if let Some(flow) = self.open.get_mut(&key) {
            if !(opens && is_succeeded(flow, dir, segment)) {
                let mut tell =
                    Teller { emit, counts: &mut self.counts, events: self.events, segments: self.segments };
                let turn = step(flow, &key, dir, segment, &mut tell);
                self.turned(&key, turn, emit);
                return;
            }
            flow.seen_ns = flow.seen_ns.max(segment.time_ns);
            let time_ns = flow.seen_ns;
            self.end_unseen(&key, time_ns, emit);
        }
        if self.past.contains(&key) {
            if !opens {
                self.late(&key, segment);
                self.show_stray(segment, emit);
                return;
            }
            self.succeed(&key, segment, emit);
        }
        self.begin(key, dir, segment, emit);
    }

    /// The capture is over: tells of the connections still open, in no order.
    pub fn finish(&mut self, mut tell: impl FnMut(Still)) {
        for flow in std::mem::take(&mut self.open).into_values() {
            let mut sent = [None; 2];
            flow.sent().for_each(|(dir, end)| sent[usize::from(dir)] = Some(end));
            tell(Still {
                conn: flow.snapshot(),
                repeats: flow.received_again(),
                is_told: flow.is_told,
                sent,
            });
        }
    }

    /// A connection's first segment.
    fn begin(&mut self, key: FlowKey, dir: usize, segment: &Segment<'_>, emit: &mut dyn FnMut(Event<'_>)) {
        let (syn, ack) = (segment.has(tcp_flag::SYN), segment.has(tcp_flag::ACK));
        let mut flow = Flow::new(self.last_id + 1, segment, dir);
        if !(self.wanted)(&flow.conn.tuple) {
            self.counts.unwanted += 1;
            return;
        }
        if segment.has(tcp_flag::RST) {
            self.counts.stray += 1;
            self.show_stray(segment, emit);
            return;
        }
        if self.open.len() >= self.max {
            self.counts.full += u64::from(syn && !ack);
            return;
        }
        self.last_id += 1;
        if syn {
            flow.set_role();
            flow.is_oriented = true;
            flow.from_start = true;
            if ack {
                flow.turn_round();
                flow.preexists(state::SYN_SENT);
            }
        } else {
            if segment.source.1 < segment.destination.1 {
                flow.turn_round();
            }
            flow.preexists(state::ESTABLISHED);
        }
        let mut flow = Box::new(flow);
        let mut tell =
            Teller { emit, counts: &mut self.counts, events: self.events, segments: self.segments };
        let turn = step(&mut flow, &key, dir, segment, &mut tell);
        self.open.insert(key, flow);
        self.turned(&key, turn, emit);
    }

    /// Ends a connection that came to its end.
    fn turned(&mut self, key: &FlowKey, turn: Turn, emit: &mut dyn FnMut(Event<'_>)) {
        if let Turn::Closed | Turn::TimeWait = turn
            && let Some(flow) = self.open.remove(key)
        {
            self.end(*key, flow, turn, emit);
        }
    }

    fn end(&mut self, key: FlowKey, mut flow: Box<Flow>, turn: Turn, emit: &mut dyn FnMut(Event<'_>)) {
        let time_ns = flow.seen_ns;
        let mut owner = None;
        if flow.conn.state != state::CLOSE {
            let before = flow.conn.states_len;
            owner = Some(if turn == Turn::TimeWait { LOCAL } else { REMOTE });
            let flags = if turn == Turn::TimeWait { conn_flag::MINI_SOCKET } else { 0 };
            flow.close(flags, 0, time_ns);
            if self.events {
                let mut tell = Teller { emit, counts: &mut self.counts, events: true, segments: false };
                step::states(&flow, before, &mut tell);
            }
        }
        let mut tell =
            Teller { emit, counts: &mut self.counts, events: self.events, segments: self.segments };
        tell.conn(milestone::CLOSED, &flow);
        let past = Past {
            id: flow.conn.id,
            family: flow.conn.family,
            time_wait: owner.map(|owner| flow.tuple_of(owner)),
            began_ns: time_ns,
            until_ns: time_ns.saturating_add(TIME_WAIT_NS),
        };
        let forgotten = self.past.add(key, past);
        let ended = forgotten.and_then(|past| past.ended(time_wait::CANCELLED, end_cause::UNKNOWN, time_ns));
        if let Some(record) = ended {
            emit(Event::TimeWait(record));
        }
    }

    /// Ends a connection of whose end a part was not seen, at this time.
    fn end_unseen(&mut self, key: &FlowKey, time_ns: u64, emit: &mut dyn FnMut(Event<'_>)) {
        let Some(mut flow) = self.open.remove(key) else { return };
        let [local, remote] = &flow.sides;
        let turn = match flow.conn.state {
            _ if local.fin.is_none() || remote.fin.is_none() => {
                flow.conn.lost += 1;
                flow.close(conn_flag::END_MISSED, 0, time_ns);
                Turn::Closed
            }
            state::LAST_ACK => Turn::Closed,
            state::FIN_WAIT1 => {
                flow.enter(state::CLOSING, time_ns);
                Turn::TimeWait
            }
            _ => Turn::TimeWait,
        };
        if turn == Turn::TimeWait || flow.conn.state == state::LAST_ACK {
            flow.conn.lost += 1;
        }
        self.end(*key, flow, turn, emit);
    }

    /// A segment of a connection that is over.
    fn late(&mut self, key: &FlowKey, segment: &Segment<'_>) {
        self.counts.stray += 1;
        if segment.has(tcp_flag::FIN) {
            self.past.renew(key, segment.time_ns.saturating_add(TIME_WAIT_NS));
        }
    }

    /// A segment of no connection is its sender's.
    fn show_stray(&self, segment: &Segment<'_>, emit: &mut dyn FnMut(Event<'_>)) {
        let tuple = Flow::new(0, segment, 0).conn.tuple;
        if self.segments && (self.wanted)(&tuple) {
            emit(Event::Shown(step::shown(&tuple, 0, true, segment)));
        }
    }

    /// A SYN takes over the ends of a connection that is over.
    fn succeed(&mut self, key: &FlowKey, segment: &Segment<'_>, emit: &mut dyn FnMut(Event<'_>)) {
        let Some(past) = self.past.remove(key) else { return };
        let by_owner = past.time_wait.is_some_and(|tuple| {
            tuple.local_port == segment.source.1 && tuple.local_addr == flow::bytes(segment.source.0)
        });
        let cause = if by_owner { end_cause::REUSED_BY_CONNECT } else { end_cause::REUSED_BY_SYN };
        let time_ns = segment.time_ns.max(past.began_ns);
        if let Some(record) = past.ended(time_wait::CANCELLED, cause, time_ns) {
            emit(Event::TimeWait(record));
        }
    }

    /// What ends by the passing of time.
    fn pass_time(&mut self, time_ns: u64, emit: &mut dyn FnMut(Event<'_>)) {
        self.now_ns = self.now_ns.max(time_ns);
        while let Some(past) = self.past.first(self.now_ns) {
            if let Some(record) = past.ended(time_wait::EXPIRED, end_cause::UNKNOWN, past.until_ns) {
                emit(Event::TimeWait(record));
            }
        }
        self.since_sweep += 1;
        if self.now_ns >= self.sweep_at_ns && self.since_sweep >= self.open.len() as u64 / SWEEP_SHARE {
            self.sweep(emit);
        }
    }

    fn sweep(&mut self, emit: &mut dyn FnMut(Event<'_>)) {
        self.since_sweep = 0;
        self.sweep_at_ns = self.now_ns.saturating_add(SWEEP_EVERY_NS);
        let silent = |flow: &Flow, ns: u64| flow.seen_ns.saturating_add(ns) <= self.now_ns;
        let over = |flow: &Flow| {
            let [local, remote] = &flow.sides;
            flow.conn.state == state::SYN_SENT && remote.isn.is_none() && silent(flow, UNANSWERED_NS)
                || local.fin.is_some() && remote.fin.is_some() && silent(flow, TIME_WAIT_NS)
        };
        let mut keys: Vec<(u64, FlowKey)> =
            self.open.iter().filter(|(_, flow)| over(flow)).map(|(key, flow)| (flow.conn.id, *key)).collect();
        keys.sort_unstable_by_key(|(id, _)| *id);
        for (_, key) in keys {
            let Some(flow) = self.open.get_mut(&key) else { continue };
            let time_ns = flow.seen_ns;
            if flow.conn.state == state::SYN_SENT {
                flow.close(0, libc::ETIMEDOUT, time_ns);
                self.turned(&key, Turn::Closed, emit);
            } else {
                self.end_unseen(&key, time_ns, emit);
            }
        }
    }
}

/// Whether a SYN begins another connection than the one that is open on its ends.
fn is_succeeded(flow: &Flow, dir: usize, segment: &Segment<'_>) -> bool {
    let sender = usize::from(dir != flow.local_dir);
    let isn = flow.sides[sender].isn;
    // Both ends may open it at once (RFC 9293 §3.5).
    let simultaneous = sender == REMOTE && flow.conn.state == state::SYN_SENT && isn.is_none();
    isn != Some(segment.seq) && !simultaneous
}

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
