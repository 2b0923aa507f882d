//! The states that a connection went through.

use tracer_ebpf::{Conn, TIME_UNSEEN, conn_flag};

/// A state and when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateAt {
    /// As in [`tracer_ebpf::state`].
    pub state: u8,
    /// Nanoseconds since the connection was first seen; `None` when that is not known.
    pub at_ns: Option<u64>,
}

impl StateAt {
    /// A state that began at a CLOCK_MONOTONIC time.
    pub fn at(conn: &Conn, state: u8, time_ns: u64) -> Self {
        Self { state, at_ns: Some(time_ns.saturating_sub(conn.opened_ns)) }
    }
}

/// Whether the connection's first change of state was seen: it is no older than the tracer, and nothing was missed.
pub fn opening_seen(conn: &Conn) -> bool {
    of(conn).first().map_or(conn.flags & conn_flag::PREEXISTING == 0, |first| first.at_ns.is_some())
}

/// Unpacks the kernel side's timeline. The first state of a pre-existing connection began before it was seen.
pub fn of(conn: &Conn) -> Vec<StateAt> {
    let preexisting = conn.flags & conn_flag::PREEXISTING != 0;
    conn.states
        .iter()
        .take(conn.states_len as usize)
        .enumerate()
        .map(|(index, packed)| StateAt {
            state: *packed as u8,
            at_ns: Some(packed >> 8).filter(|at_ns| (!preexisting || index > 0) && *at_ns != TIME_UNSEEN),
        })
        .collect()
}

/// When a connection first reached a state, if the timeline knows.
pub fn reached(conn: &Conn, state: u8) -> Option<u64> {
    of(conn).into_iter().find(|at| at.state == state)?.at_ns.map(|at_ns| conn.opened_ns.saturating_add(at_ns))
}

/// RFC 9293 §3.3.2 names, as the kernel writes them.
pub fn name(state: u8) -> &'static str {
    use tracer_ebpf::state::*;
    match state {
        ESTABLISHED => "ESTABLISHED",
        SYN_SENT => "SYN_SENT",
        SYN_RECV | NEW_SYN_RECV => "SYN_RECV",
        FIN_WAIT1 => "FIN_WAIT1",
        FIN_WAIT2 => "FIN_WAIT2",
        TIME_WAIT => "TIME_WAIT",
        CLOSE_WAIT => "CLOSE_WAIT",
        LAST_ACK => "LAST_ACK",
        LISTEN => "LISTEN",
        CLOSING => "CLOSING",
        _ => "CLOSE",
    }
}
