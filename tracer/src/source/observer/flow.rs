//! One flow between two ends: its states as the client's end goes through them, and its totals.

use tracer_ebpf::{Conn, MAX_STATES, MAX_SYN_TIMES, Tuple, conn_flag, role, state, tcp_flag};

use super::{copies::Copies, side::Side};
use crate::source::{Repeats, packet::Segment};

/// Index of the end that the record is of, and of the other.
pub const LOCAL: usize = 0;
pub const REMOTE: usize = 1;

/// Bits of a packed state's time: 2.3 years in nanoseconds.
const STATE_TIME_MAX: u64 = (1 << 56) - 1;

/// Both directions of a connection.
#[derive(Debug)]
pub struct Flow {
    pub conn: Conn,
    pub sides: [Side; 2],
    /// Direction of the flow's key in which the local end sends.
    pub local_dir: usize,
    /// The tracker knows it.
    pub is_told: bool,
    /// Which end is which is settled.
    pub is_oriented: bool,
    /// Both streams are seen from their first byte on.
    pub from_start: bool,
    pub seen_ns: u64,
    pub copies: Copies,
}

/// What became of the connection with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    None,
    Established,
    Closed,
    /// The local end's TIME_WAIT began.
    TimeWait,
}

impl Flow {
    pub fn new(id: u64, segment: &Segment<'_>, local_dir: usize) -> Self {
        let (local, remote) = (segment.source, segment.destination);
        let tuple = Tuple {
            local_addr: bytes(local.0),
            remote_addr: bytes(remote.0),
            local_port: local.1,
            remote_port: remote.1,
            netns: 0,
        };
        let conn = Conn {
            id,
            flow: id,
            opened_ns: segment.time_ns,
            tuple,
            min_rtt_us: u32::MAX,
            flags: conn_flag::TOTALS_READ | conn_flag::SEGMENTS_SEEN | conn_flag::IDENTIFIED,
            family: if segment.is_ipv6 { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 },
            state: state::CLOSE,
            ..Conn::ZERO
        };
        Self {
            conn,
            sides: [Side::default(), Side::default()],
            local_dir,
            is_told: false,
            is_oriented: false,
            from_start: false,
            seen_ns: segment.time_ns,
            copies: Copies::default(),
        }
    }

    /// The other end is the local one.
    pub fn turn_round(&mut self) {
        self.conn.tuple = reversed(&self.conn.tuple);
        self.sides.swap(LOCAL, REMOTE);
        self.local_dir = 1 - self.local_dir;
    }

    /// It is older than the capture, at least in this state.
    pub fn preexists(&mut self, state: u8) {
        self.conn.flags |= conn_flag::PREEXISTING;
        self.enter(state, self.conn.opened_ns);
    }

    pub fn enter(&mut self, state: u8, time_ns: u64) {
        let at = self.conn.states_len as usize;
        if at < MAX_STATES {
            let since = time_ns.saturating_sub(self.conn.opened_ns).min(STATE_TIME_MAX);
            self.conn.states[at] = since << 8 | u64::from(state);
            self.conn.states_len += 1;
        } else {
            self.conn.flags |= conn_flag::STATES_CUT;
        }
        self.conn.old_state = self.conn.state;
        self.conn.state = state;
    }

    /// Goes back before the state entered last.
    fn leave_again(&mut self) {
        self.conn.states_len = self.conn.states_len.saturating_sub(1);
        self.conn.state = self.conn.old_state;
    }

    /// A SYN sent again; its time is kept.
    pub fn repeat_syn(&mut self, time_ns: u64) {
        let at = self.conn.syn_retrans as usize;
        if at < MAX_SYN_TIMES {
            let since_us = time_ns.saturating_sub(self.conn.opened_ns) / 1000;
            self.conn.syn_at_us[at] = u32::try_from(since_us).unwrap_or(u32::MAX);
        }
        self.conn.syn_retrans += 1;
        self.sides[LOCAL].syn_repeats += 1;
    }

    /// Moves on in the state diagram of the local end (RFC 9293 §3.3.2). `new_fin`: the segment has a FIN that was
    /// not seen before.
    pub fn advance(&mut self, sender: usize, segment: &Segment<'_>, new_fin: bool) -> Turn {
        let time_ns = self.seen_ns;
        let mut turn = Turn::None;
        if self.conn.state == state::SYN_SENT && self.shows_established(sender, segment) {
            self.enter(state::ESTABLISHED, time_ns);
            turn = Turn::Established;
        }
        if new_fin {
            self.fin(sender, time_ns);
        }
        if sender == REMOTE && self.sides[LOCAL].is_fin_acked() {
            match self.conn.state {
                state::FIN_WAIT1 => self.enter(state::FIN_WAIT2, time_ns),
                state::CLOSING => return Turn::TimeWait,
                state::LAST_ACK => return Turn::Closed,
                _ => {}
            }
        }
        if sender == LOCAL && self.conn.state == state::FIN_WAIT2 && self.sides[REMOTE].is_fin_acked() {
            return Turn::TimeWait;
        }
        turn
    }

    /// The client acknowledges the SYN-ACK, or the server sends what it could not send before that.
    fn shows_established(&self, sender: usize, segment: &Segment<'_>) -> bool {
        let plain = segment.has(tcp_flag::ACK) && !segment.has(tcp_flag::SYN | tcp_flag::RST);
        if sender == LOCAL {
            let remote = &self.sides[REMOTE];
            plain && remote.offset(segment.ack).is_some_and(|at| at >= 0)
        } else {
            let ours = self.sides[LOCAL].offset(segment.ack).is_some_and(|at| at >= 0);
            plain && ours && (segment.len > 0 || segment.has(tcp_flag::FIN))
        }
    }

    fn fin(&mut self, sender: usize, time_ns: u64) {
        match (sender, self.conn.state) {
            (LOCAL, state::ESTABLISHED) => self.enter(state::FIN_WAIT1, time_ns),
            (LOCAL, state::CLOSE_WAIT) if self.sides[REMOTE].is_fin_acked() => {
                self.enter(state::LAST_ACK, time_ns);
            }
            // It did not know of the other FIN yet: they crossed (§3.6, simultaneous close).
            (LOCAL, state::CLOSE_WAIT) => {
                self.leave_again();
                self.enter(state::FIN_WAIT1, time_ns);
                self.enter(state::CLOSING, time_ns);
            }
            (REMOTE, state::ESTABLISHED) => self.enter(state::CLOSE_WAIT, time_ns),
            (REMOTE, state::FIN_WAIT1) if !self.sides[LOCAL].is_fin_acked() => {
                self.enter(state::CLOSING, time_ns);
            }
            _ => {}
        }
    }

    /// The end; `error` is an errno.
    pub fn close(&mut self, flags: u16, error: i32, time_ns: u64) {
        self.conn.flags |= flags;
        self.conn.error = error as u16;
        self.conn.closed_ns = time_ns.max(self.conn.opened_ns);
        self.enter(state::CLOSE, time_ns);
    }

    /// The connection with its totals so far.
    pub fn snapshot(&self) -> Conn {
        let [local, remote] = &self.sides;
        let mut conn = self.conn;
        let fin = remote.fin.is_some();
        conn.flags |= if fin { conn_flag::FIN_RECEIVED } else { 0 };
        conn.bytes_retrans = local.bytes_repeated;
        conn.bytes_sent = local.next.saturating_add(local.bytes_repeated);
        conn.bytes_received = remote.next + u64::from(fin);
        (conn.segs_out, conn.segs_in) = (local.segments, remote.segments);
        conn.synack_retrans = remote.syn_repeats;
        conn.retrans = local.repeats + local.syn_repeats + remote.syn_repeats;
        (conn.probes_sent, conn.probes_received) = (local.probes, remote.probes);
        (conn.zero_windows_sent, conn.zero_windows_received) = (local.zero_windows, remote.zero_windows);
        conn.lost += local.missing() + remote.missing();
        conn
    }

    /// The directions in which more was sent than was seen, and how far.
    pub fn sent(&self) -> impl Iterator<Item = (u8, u64)> + use<> {
        let ends = [LOCAL, REMOTE].map(|end| {
            let side = &self.sides[end];
            let dir = if end == LOCAL { self.local_dir } else { 1 - self.local_dir };
            side.sent().map(|end| (dir as u8, end))
        });
        ends.into_iter().flatten()
    }

    /// What the other end has sent again.
    pub fn received_again(&self) -> Repeats {
        let remote = &self.sides[REMOTE];
        Repeats { segments: remote.repeats, bytes: remote.bytes_repeated }
    }

    pub fn set_role(&mut self) {
        self.conn.role = role::CLIENT;
    }

    /// The tuple as one end sees it.
    pub fn tuple_of(&self, end: usize) -> Tuple {
        if end == LOCAL { self.conn.tuple } else { reversed(&self.conn.tuple) }
    }
}

fn reversed(tuple: &Tuple) -> Tuple {
    Tuple {
        local_addr: tuple.remote_addr,
        remote_addr: tuple.local_addr,
        local_port: tuple.remote_port,
        remote_port: tuple.local_port,
        netns: tuple.netns,
    }
}

/// Words in network order as bytes.
pub fn bytes(words: [u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}
