//! One segment of one flow: what it changes and what there is to tell of it.

use tracer_ebpf::{
    FlowKey, Header, OPTIONS_BYTES, ResetRecord, RetransmitRecord, SegmentRecord, ShownRecord, StateRecord,
    Tuple, conn_flag, kind, milestone, state, tcp_flag,
};

use super::{
    Counts,
    flow::{Flow, LOCAL, REMOTE, Turn},
};
use crate::source::{Event, Repeats, packet::Segment};

/// Whom to tell.
pub struct Teller<'a> {
    pub emit: &'a mut dyn FnMut(Event<'_>),
    pub counts: &'a mut Counts,
    /// Also each change of state and each reset.
    pub events: bool,
    /// Also each segment.
    pub segments: bool,
}

/// Takes in a segment. `dir`: the direction of the key in which it was sent. Returns how the connection ended, if it
/// did with this segment: nobody knows that yet.
pub fn step(
    flow: &mut Flow,
    key: &FlowKey,
    dir: usize,
    segment: &Segment<'_>,
    tell: &mut Teller<'_>,
) -> Turn {
    if !flow.is_oriented && (segment.len > 0 || segment.has(tcp_flag::FIN | tcp_flag::RST)) {
        orient(flow, dir, segment);
    }
    let sender = usize::from(dir != flow.local_dir);
    if flow.copies.is_copy(sender, segment) {
        tell.counts.copies += 1;
        return Turn::None;
    }
    // Captures of several queues or interfaces are not quite in order.
    flow.seen_ns = flow.seen_ns.max(segment.time_ns);
    flow.sides[sender].segments = flow.sides[sender].segments.saturating_add(1);
    if tell.segments {
        (tell.emit)(Event::Shown(shown(&flow.conn.tuple, flow.conn.id, sender == LOCAL, segment)));
    }
    let states_before = flow.conn.states_len;
    let turn = if segment.has(tcp_flag::RST) {
        reset(flow, sender, segment, tell)
    } else {
        carry(flow, key, dir, sender, segment, tell)
    };
    if tell.events {
        states(flow, states_before, tell);
    }
    turn
}

/// Which end is the client's, for a connection whose handshake was not seen: the one that sends a request, else the one
/// that does not send a response, else the one with the higher port (as it was set at first).
fn orient(flow: &mut Flow, dir: usize, segment: &Segment<'_>) {
    flow.is_oriented = true;
    let from_local = dir == flow.local_dir;
    let starts_request = is_request(segment.data);
    let starts_response = segment.data.starts_with(b"HTTP/1.");
    if starts_request && !from_local || starts_response && from_local {
        flow.turn_round();
    }
}

/// A method in capitals and a space (RFC 9112 §3.1).
fn is_request(data: &[u8]) -> bool {
    let method = data.iter().take(20).take_while(|byte| byte.is_ascii_uppercase()).count();
    method >= 3 && data.get(method) == Some(&b' ')
}

/// A segment that is no reset.
fn carry(
    flow: &mut Flow,
    key: &FlowKey,
    dir: usize,
    sender: usize,
    segment: &Segment<'_>,
    tell: &mut Teller<'_>,
) -> Turn {
    let syn = segment.has(tcp_flag::SYN);
    if syn {
        synchronise(flow, sender, segment, tell);
    } else if !flow.sides[sender].is_known() {
        flow.sides[sender].begin(segment.seq);
    }
    if segment.has(tcp_flag::ACK) {
        let other = &mut flow.sides[1 - sender];
        // The SYN-ACK was not seen, but here it is acknowledged.
        if sender == LOCAL && flow.conn.state == state::SYN_SENT && !syn && !other.is_known() {
            other.begin(segment.ack);
        }
        if other.acknowledge(segment.ack) {
            tell.sent(flow);
        }
    }
    let side = &mut flow.sides[sender];
    side.announce(segment.window);
    if !syn && !segment.has(tcp_flag::FIN) && side.is_probe(segment.seq, segment.len) {
        side.probes += 1;
        return flow.advance(sender, segment, false);
    }
    let Some(taken) = side.take(segment.seq, segment.len) else {
        tell.counts.out_of_window += 1;
        return flow.advance(sender, segment, false);
    };
    side.bytes_repeated += taken.repeated;
    let new_fin = segment.has(tcp_flag::FIN) && side.finish(taken.offset + u64::from(segment.len));
    let fin_repeated = segment.has(tcp_flag::FIN) && !new_fin;
    if !syn && (taken.repeated > 0 || fin_repeated) {
        side.repeats += 1;
        retransmit(flow, sender, false, tell);
    }
    let turn = flow.advance(sender, segment, new_fin);
    if !flow.is_told && (turn == Turn::Established || older(flow)) {
        flow.is_told = true;
        let preexisting = flow.conn.flags & conn_flag::PREEXISTING != 0;
        let reached = if preexisting { milestone::PREEXISTING } else { milestone::ESTABLISHED };
        tell.conn(reached, flow);
    }
    if taken.new > 0 || new_fin {
        let (offset, len) = (taken.offset, segment.len);
        let record = record(flow, key, dir, segment, offset, len);
        tell.counts.handed += 1;
        tell.counts.bytes_handed += segment.data.len() as u64;
        (tell.emit)(Event::Segment { record, data: segment.data });
    }
    turn
}

/// Older than the capture, and known which end is which.
fn older(flow: &Flow) -> bool {
    flow.is_oriented && flow.conn.state != state::SYN_SENT && flow.conn.flags & conn_flag::PREEXISTING != 0
}

/// A SYN: the first, one sent again, or the other end's.
fn synchronise(flow: &mut Flow, sender: usize, segment: &Segment<'_>, tell: &mut Teller<'_>) {
    if sender == REMOTE && segment.has(tcp_flag::ACK) {
        if !flow.sides[LOCAL].is_known() {
            // The SYN was before the capture.
            flow.sides[LOCAL].begin(segment.ack);
        }
        if flow.sides[LOCAL].offset(segment.ack).is_none_or(|at| at < 0) {
            // It answers another SYN.
            return;
        }
    }
    let side = &mut flow.sides[sender];
    match side.isn {
        None => {
            side.isn = Some(segment.seq);
            side.begin(segment.seq);
            if sender == LOCAL && flow.conn.states_len == 0 {
                flow.enter(state::SYN_SENT, segment.time_ns);
            }
        }
        Some(_) if sender == LOCAL && segment.has(tcp_flag::ACK) => {
            // The answer in a simultaneous open (RFC 9293 §3.5).
        }
        Some(isn) => {
            // A server that keeps no state (SYN cookies) begins each answer anew.
            if isn != segment.seq && side.next == 0 && flow.conn.state == state::SYN_SENT {
                side.isn = Some(segment.seq);
                side.begin(segment.seq);
            }
            if sender == LOCAL {
                flow.repeat_syn(flow.seen_ns);
            } else {
                side.syn_repeats += 1;
            }
            retransmit(flow, sender, sender == REMOTE, tell);
        }
    }
}

fn reset(flow: &mut Flow, sender: usize, segment: &Segment<'_>, tell: &mut Teller<'_>) -> Turn {
    let refuses = flow.conn.state == state::SYN_SENT && sender == REMOTE && flow.sides[REMOTE].isn.is_none();
    let heeded = if refuses {
        // It must acknowledge the SYN (RFC 9293 §3.10.7.3).
        segment.has(tcp_flag::ACK) && flow.sides[LOCAL].offset(segment.ack).is_some_and(|at| at >= 0)
    } else {
        flow.sides[sender].can_reset(segment.seq)
    };
    if !heeded {
        tell.counts.out_of_window += 1;
        return Turn::None;
    }
    flow.sides[sender].end(segment.seq);
    if segment.has(tcp_flag::ACK) {
        flow.sides[1 - sender].acknowledge(segment.ack);
    }
    if tell.events {
        (tell.emit)(Event::Reset(ResetRecord {
            header: header(kind::RESET, 0, flow.seen_ns),
            conn: flow.conn.id,
            tuple: flow.conn.tuple,
            reason: u32::MAX,
            sent: u8::from(sender == LOCAL),
            state: flow.conn.state,
            pad: [0; 2],
        }));
    }
    let (flag, error) = match (sender, refuses) {
        (LOCAL, _) => (conn_flag::RST_SENT, 0),
        (_, true) => (conn_flag::RST_RECEIVED, libc::ECONNREFUSED),
        (_, false) => (conn_flag::RST_RECEIVED, libc::ECONNRESET),
    };
    flow.close(flag, error, flow.seen_ns);
    Turn::Closed
}

fn retransmit(flow: &Flow, sender: usize, synack: bool, tell: &mut Teller<'_>) {
    let state = if synack { state::NEW_SYN_RECV } else { flow.conn.state };
    (tell.emit)(Event::Retransmit(RetransmitRecord {
        header: header(kind::RETRANSMIT, 0, flow.seen_ns),
        conn: flow.conn.id,
        tuple: flow.tuple_of(sender),
        state,
        synack: u8::from(synack),
        pad: [0; 6],
    }));
}

/// The changes of state since the timeline had this length.
pub fn states(flow: &Flow, since: u32, tell: &mut Teller<'_>) {
    let (since, until) = (since as usize, flow.conn.states_len as usize);
    for at in since..until {
        let packed = flow.conn.states[at];
        let old_state = at.checked_sub(1).map_or(state::CLOSE, |before| flow.conn.states[before] as u8);
        (tell.emit)(Event::State(StateRecord {
            header: header(kind::STATE, 0, flow.conn.opened_ns + (packed >> 8)),
            conn: flow.conn.id,
            tuple: flow.conn.tuple,
            in_state_ns: flow.conn.in_state_ns(at.wrapping_sub(1)),
            old_state,
            new_state: packed as u8,
            pad: [0; 6],
        }));
    }
}

impl Teller<'_> {
    /// What was sent beyond what was seen.
    fn sent(&mut self, flow: &Flow) {
        for (dir, end) in flow.sent() {
            (self.emit)(Event::Sent { flow: flow.conn.flow, dir, end });
        }
    }

    /// A connection reached a milestone.
    pub fn conn(&mut self, milestone: u16, flow: &Flow) {
        let repeats = flow.received_again();
        if milestone == milestone::CLOSED && repeats != Repeats::default() {
            (self.emit)(Event::Repeats { conn: flow.conn.id, repeats });
        }
        if milestone == milestone::CLOSED {
            self.sent(flow);
        }
        let conn = Box::new(flow.snapshot());
        (self.emit)(Event::Conn { milestone, time_ns: flow.seen_ns, conn });
    }
}

/// The header of a segment that the tuple's local end has `sent`, or received.
pub fn shown(tuple: &Tuple, conn: u64, sent: bool, segment: &Segment<'_>) -> ShownRecord {
    let mut options = [0; OPTIONS_BYTES];
    let len = segment.options.len().min(OPTIONS_BYTES);
    options[..len].copy_from_slice(&segment.options[..len]);
    ShownRecord {
        header: header(kind::SHOWN, 0, segment.time_ns),
        conn,
        tuple: *tuple,
        seq: segment.seq.wrapping_sub(u32::from(segment.has(tcp_flag::SYN))),
        ack: segment.ack,
        len: segment.len,
        ifindex: 0,
        window: segment.window,
        flags: segment.offset_flags,
        sent: sent.into(),
        options_len: len as u8,
        pad: [0; 2],
        options,
    }
}

fn header(kind: u16, detail: u16, time_ns: u64) -> Header {
    Header { kind, detail, pad: 0, time_ns }
}

fn record(
    flow: &Flow,
    key: &FlowKey,
    dir: usize,
    segment: &Segment<'_>,
    offset: u64,
    len: u32,
) -> SegmentRecord {
    SegmentRecord {
        header: header(kind::SEGMENT, 0, flow.seen_ns),
        flow: flow.conn.flow,
        offset,
        data_offset: offset,
        // All segments are handed on, so there is nothing to catch up with.
        peer_next: 0,
        peer_time_ns: 0,
        len,
        copied: segment.data.len() as u32,
        seq: segment.seq,
        lost: 0,
        dir: dir as u8,
        flags: segment.flags,
        from_start: flow.from_start.into(),
        pad: 0,
        ifindex: 0,
        a_addr: key.a_addr,
        b_addr: key.b_addr,
        a_port: key.a_port,
        b_port: key.b_port,
        pad2: 0,
        netns_cookie: key.netns_cookie,
    }
}
