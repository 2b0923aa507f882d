//! Who ended a connection first, and how.

use tracer_ebpf::{Conn, conn_flag, state};

use super::timeline;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    Local,
    Remote,
    /// Their FINs crossed (RFC 9293 §3.6, simultaneous close).
    Both,
}

impl Party {
    /// As the other end sees it.
    pub fn reversed(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
            Self::Both => Self::Both,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Both => "both",
        }
    }
}

/// What ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Fin,
    RstSent,
    RstReceived,
    /// RST in answer to the SYN.
    Refused,
    Timeout,
    Unreachable,
    /// The local side gave the socket up before the handshake was complete, or an administrator ended it.
    Aborted,
    /// Another child of the same request was first, and this one never was a connection.
    Duplicate,
    /// None of these; `errno` tells.
    Error,
    /// Its end was missed.
    Unknown,
}

impl How {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::RstSent => "rst_sent",
            Self::RstReceived => "rst_received",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Aborted => "aborted",
            Self::Duplicate => "duplicate",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    pub by: Option<Party>,
    pub how: How,
    /// `enum sk_rst_reason` of a reset that this end sent; 0 when the kernel gave none.
    pub reset_reason: u32,
    /// `sk_err`, 0 for none.
    pub errno: u16,
    /// Nanoseconds since the connection was first seen; `None` when it was closing already.
    pub at_ns: Option<u64>,
}

impl Close {
    /// Reads it off a finished connection.
    pub fn of(conn: &Conn) -> Self {
        let how = how(conn);
        let fin = first_fin(conn);
        let by = fin.map(|(party, _)| party).or(match how {
            How::RstReceived | How::Refused => Some(Party::Remote),
            How::RstSent | How::Aborted => Some(Party::Local),
            How::Duplicate | How::Fin | How::Timeout | How::Unreachable | How::Error | How::Unknown => None,
        });
        let end_ns = conn.closed_ns.saturating_sub(conn.opened_ns);
        Self {
            by,
            how,
            reset_reason: conn.reset_reason,
            errno: conn.error,
            at_ns: fin.map_or(Some(end_ns), |(_, at_ns)| at_ns),
        }
    }
}

/// Whose FIN was first, as this end saw it: FIN_WAIT1 is our own, CLOSE_WAIT the peer's, and CLOSING says that the
/// peer's was on its way when it got ours (RFC 9293 §3.10.7.4).
fn first_fin(conn: &Conn) -> Option<(Party, Option<u64>)> {
    let states = timeline::of(conn);
    // The first of them may not have been seen; the second says the same.
    let ours = [state::FIN_WAIT1, state::FIN_WAIT2, state::CLOSING];
    let theirs = [state::CLOSE_WAIT, state::LAST_ACK];
    let first = states.iter().find(|at| ours.contains(&at.state) || theirs.contains(&at.state))?;
    let party = if theirs.contains(&first.state) {
        Party::Remote
    } else if states.iter().any(|at| at.state == state::CLOSING) {
        Party::Both
    } else {
        Party::Local
    };
    Some((party, first.at_ns))
}

fn how(conn: &Conn) -> How {
    if conn.flags & conn_flag::END_MISSED != 0 {
        return How::Unknown;
    }
    if conn.flags & conn_flag::DUPLICATE != 0 {
        return How::Duplicate;
    }
    match i32::from(conn.error) {
        libc::ECONNREFUSED => return How::Refused,
        libc::ETIMEDOUT => return How::Timeout,
        libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::EHOSTDOWN
        | libc::ENETDOWN
        | libc::ENONET
        | libc::ENOPROTOOPT
        | libc::EACCES => {
            return How::Unreachable;
        }
        libc::ECONNABORTED => return How::Aborted,
        _ => {}
    }
    if conn.flags & conn_flag::RST_RECEIVED != 0 {
        return How::RstReceived;
    }
    if conn.flags & conn_flag::RST_SENT != 0 {
        return How::RstSent;
    }
    match (conn.error, conn.old_state) {
        (0, state::LAST_ACK | state::FIN_WAIT2 | state::CLOSING) => How::Fin,
        (0, _) => How::Aborted,
        _ => How::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(states: &[u8], error: i32, flags: u16) -> Conn {
        let mut conn = Conn { opened_ns: 1000, closed_ns: 1000 + 100 * states.len() as u64, ..Conn::ZERO };
        for (index, state) in states.iter().enumerate() {
            conn.states[index] = (100 * index as u64) << 8 | u64::from(*state);
        }
        conn.states_len = states.len() as u32;
        conn.old_state = states[states.len() - 2];
        conn.error = error as u16;
        conn.flags = flags;
        conn
    }

    #[test]
    fn closers() {
        use state::*;
        let rst_in = conn_flag::RST_RECEIVED;
        let rst_out = conn_flag::RST_SENT;
        type Case<'a> = (&'a [u8], i32, u16, Option<Party>, How);
        let cases: [Case<'_>; 10] = [
            (&[SYN_SENT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE], 0, 0, Some(Party::Local), How::Fin),
            (&[SYN_RECV, ESTABLISHED, CLOSE_WAIT, LAST_ACK, CLOSE], 0, 0, Some(Party::Remote), How::Fin),
            (&[SYN_SENT, ESTABLISHED, FIN_WAIT1, CLOSING, CLOSE], 0, 0, Some(Party::Both), How::Fin),
            (&[SYN_SENT, CLOSE], libc::ECONNREFUSED, rst_in, Some(Party::Remote), How::Refused),
            (&[SYN_SENT, CLOSE], libc::ETIMEDOUT, 0, None, How::Timeout),
            (&[SYN_SENT, CLOSE], libc::EHOSTUNREACH, 0, None, How::Unreachable),
            (&[SYN_SENT, CLOSE], 0, 0, Some(Party::Local), How::Aborted),
            (&[SYN_SENT, ESTABLISHED, CLOSE], 0, rst_out, Some(Party::Local), How::RstSent),
            (
                &[SYN_SENT, ESTABLISHED, CLOSE],
                libc::ECONNRESET,
                rst_in,
                Some(Party::Remote),
                How::RstReceived,
            ),
            // The peer closed first and then answered with a reset.
            (
                &[SYN_RECV, ESTABLISHED, CLOSE_WAIT, CLOSE],
                libc::EPIPE,
                rst_in,
                Some(Party::Remote),
                How::RstReceived,
            ),
        ];
        for (states, error, flags, by, how) in cases {
            let close = Close::of(&conn(states, error, flags));
            assert_eq!((close.by, close.how), (by, how), "{states:?} {error}");
        }
    }

    #[test]
    fn the_first_fin_is_when_it_ended() {
        use state::*;
        let close = Close::of(&conn(&[SYN_SENT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE], 0, 0));
        assert_eq!(close.at_ns, Some(200));
    }
}
