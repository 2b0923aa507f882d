//! TIME_WAIT, remembered from the socket it came from until its end.

use std::collections::{HashMap, VecDeque};

use tracer_ebpf::{Conn, TimeWaitRecord, Tuple, end_cause, state, time_wait};

use super::{Connection, Party, Process};

/// A cancelled timer is armed again at once, or never.
const SETTLE_NS: u64 = 5_000_000;

/// Where nothing told why it ended, the connection that took over its ends may: a handshake away.
const SETTLE_UNKNOWN_NS: u64 = 1_000_000_000;

/// More than end in that time, unless time stands still as it can in a capture. Of more, the oldest are settled at once.
const MAX_ENDING: usize = 65_536;

/// Why a TIME_WAIT ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Expired,
    ReusedByConnect,
    ReusedBySyn,
    Reset,
    /// It never began: the kernel had no room.
    Overflow,
    Killed,
    NamespaceExit,
    Unknown,
}

impl End {
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::ReusedByConnect | Self::ReusedBySyn => "reused",
            Self::Reset => "reset",
            Self::Overflow => "overflow",
            Self::Killed => "killed",
            Self::NamespaceExit => "namespace_exit",
            Self::Unknown => "unknown",
        }
    }

    pub fn reused_by(self) -> Option<&'static str> {
        match self {
            Self::ReusedByConnect => Some("connect"),
            Self::ReusedBySyn => Some("syn"),
            _ => None,
        }
    }

    fn of(cause: u8) -> Self {
        match cause {
            end_cause::REUSED_BY_CONNECT => Self::ReusedByConnect,
            end_cause::REUSED_BY_SYN => Self::ReusedBySyn,
            end_cause::RESET => Self::Reset,
            end_cause::NAMESPACE_EXIT => Self::NamespaceExit,
            end_cause::KILLED => Self::Killed,
            _ => Self::Unknown,
        }
    }
}

/// A TIME_WAIT that ended.
#[derive(Clone, Debug)]
pub struct TimeWait {
    /// `None`: its connection was older than the tracer, or not followed.
    pub conn: Option<u64>,
    pub tuple: Tuple,
    pub family: u8,
    pub process: Option<Process>,
    /// `None`: before the tracer, or not seen.
    pub began_ns: Option<u64>,
    pub ended_ns: u64,
    pub end: End,
    /// The end's cause was seen, not inferred.
    pub observed: bool,
    pub closer: Option<Party>,
    /// Requests that the connection had carried; `None` when it carried no HTTP.
    pub requests: Option<u64>,
    pub preexisting: bool,
}

/// What is kept of a connection.
#[derive(Debug)]
struct Living {
    process: Option<Process>,
    closer: Option<Party>,
    requests: Option<u64>,
    began_ns: Option<u64>,
}

/// Mini-sockets of connections that we followed, and those whose end is not settled yet.
#[derive(Debug, Default)]
pub struct TimeWaits {
    living: HashMap<u64, Box<Living>>,
    ending: VecDeque<Ending>,
}

/// A cancelled timer.
#[derive(Debug)]
struct Ending {
    record: TimeWaitRecord,
    /// What a newer connection on the same ends speaks of.
    successor: Option<End>,
}

/// What an ended mini-socket turned out to be.
#[derive(Debug)]
pub enum Ended {
    TimeWait(Box<TimeWait>),
    /// It was still in FIN_WAIT2: the peer's FIN never came.
    /// `reset`: an RST was sent for this reason.
    FinWait2 {
        conn: u64,
        ended_ns: u64,
        reset: Option<u32>,
    },
}

impl TimeWaits {
    pub fn len(&self) -> usize {
        self.living.len()
    }

    /// A socket gave way to its mini-socket. `end`: which one's it is. `began_ns`: when TIME_WAIT began; `None` while it
    /// is in FIN_WAIT2.
    pub fn begin(&mut self, connection: &Connection, end: Party, began_ns: Option<u64>) {
        let closer = connection.close.and_then(|close| close.by);
        let living = Living {
            process: connection.process.clone(),
            // As the end in TIME_WAIT sees it.
            closer: if end == Party::Remote { closer.map(Party::reversed) } else { closer },
            requests: connection.http.map(|http| http.requests),
            began_ns,
        };
        self.living.insert(connection.conn.id, Box::new(living));
    }

    /// The peer's FIN came, or the timer started anew for another reason: then the time of the first stays.
    pub fn began(&mut self, conn: u64, time_ns: u64) {
        if let Some(living) = self.living.get_mut(&conn) {
            living.began_ns.get_or_insert(time_ns);
        }
    }

    /// The kernel had no room for it.
    pub fn overflow(connection: &Connection) -> TimeWait {
        let conn = &connection.conn;
        TimeWait {
            conn: Some(conn.id),
            tuple: conn.tuple,
            family: conn.family,
            process: connection.process.clone(),
            began_ns: None,
            ended_ns: conn.closed_ns,
            end: End::Overflow,
            observed: true,
            closer: connection.close.and_then(|close| close.by),
            requests: connection.http.map(|http| http.requests),
            preexisting: false,
        }
    }

    /// A timer ran out: that is the end. `observed`: a timer was seen to.
    pub fn expired(&mut self, record: &TimeWaitRecord, observed: bool) -> Ended {
        // Running out begins with a cancellation.
        self.rearmed(record);
        self.ended(record, End::Expired, observed)
    }

    /// A timer was cancelled: the end, unless it is armed again. Returns one that had to make room.
    pub fn cancelled(&mut self, record: TimeWaitRecord) -> Option<(TimeWaitRecord, Ended)> {
        let oldest = if self.ending.len() >= MAX_ENDING { self.ending.pop_front() } else { None };
        self.ending.push_back(Ending { record, successor: None });
        oldest.map(|ending| self.settled(&ending))
    }

    pub fn rearmed(&mut self, record: &TimeWaitRecord) {
        if let Some(at) = self.ending.iter().rposition(|ending| same(&ending.record, record)) {
            self.ending.remove(at);
        }
    }

    /// A connection opened: if it took over the ends of one whose end nothing explains, that is why it ended.
    pub fn succeeded_by(&mut self, conn: &Conn) {
        for ending in &mut self.ending {
            if ending.record.tuple == conn.tuple && ending.successor.is_none() {
                ending.successor = taken_over_by(conn, &ending.record);
            }
        }
    }

    /// Settles what was cancelled long enough ago.
    pub fn settle(&mut self, now_ns: u64) -> Vec<(TimeWaitRecord, Ended)> {
        let mut settled = Vec::new();
        let mut waiting = VecDeque::new();
        while let Some(ending) = self.ending.pop_front() {
            let Ending { record, successor } = &ending;
            let unknown = record.cause == end_cause::UNKNOWN && successor.is_none();
            let settle_ns = if unknown { SETTLE_UNKNOWN_NS } else { SETTLE_NS };
            if record.header.time_ns.saturating_add(settle_ns) > now_ns {
                waiting.push_back(ending);
                continue;
            }
            settled.push(self.settled(&ending));
        }
        self.ending = waiting;
        settled
    }

    fn settled(&mut self, ending: &Ending) -> (TimeWaitRecord, Ended) {
        let Ending { record, successor } = ending;
        let (end, observed) = match End::of(record.cause) {
            End::Unknown => (successor.unwrap_or(End::Unknown), false),
            // The cause is what was left over.
            end @ (End::Killed | End::NamespaceExit) => (end, false),
            end => (end, true),
        };
        let outcome = self.ended(record, end, observed);
        (*record, outcome)
    }

    fn ended(&mut self, record: &TimeWaitRecord, end: End, observed: bool) -> Ended {
        let living = self.living.remove(&record.conn);
        let ended_ns = record.header.time_ns;
        if record.substate == state::FIN_WAIT2 {
            let reset = (record.rst_sent != 0).then_some(record.reset_reason);
            return Ended::FinWait2 { conn: record.conn, ended_ns, reset };
        }
        let (process, closer, requests, began_ns) = match living {
            Some(living) => (living.process, living.closer, living.requests, living.began_ns),
            None => (None, None, None, (record.began_ns != 0).then_some(record.began_ns)),
        };
        Ended::TimeWait(Box::new(TimeWait {
            conn: (record.conn != 0).then_some(record.conn),
            tuple: record.tuple,
            family: record.family,
            process,
            began_ns,
            ended_ns,
            end,
            observed,
            closer,
            requests,
            preexisting: record.began_ns == 0,
        }))
    }
}

/// Two records of one mini-socket.
fn same(one: &TimeWaitRecord, other: &TimeWaitRecord) -> bool {
    one.tuple == other.tuple && one.began_ns == other.began_ns
}

/// Whether a record says that TIME_WAIT itself (not FIN_WAIT2) goes on.
pub fn is_beginning(record: &TimeWaitRecord) -> bool {
    record.header.detail == time_wait::FIN_ARRIVED
        || record.header.detail == time_wait::REARMED && record.substate == state::TIME_WAIT
}

/// The end that a newer connection on the same ends speaks of.
fn taken_over_by(conn: &Conn, record: &TimeWaitRecord) -> Option<End> {
    let newer = conn.opened_ns.saturating_add(SETTLE_UNKNOWN_NS) > record.header.time_ns;
    match conn.role {
        tracer_ebpf::role::CLIENT if newer => Some(End::ReusedByConnect),
        tracer_ebpf::role::SERVER if newer => Some(End::ReusedBySyn),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_ebpf::Header;

    #[test]
    fn where_time_stands_still_the_oldest_make_room() {
        let mut time_waits = TimeWaits::default();
        let record = |conn: u64| TimeWaitRecord {
            header: Header { kind: 0, detail: time_wait::CANCELLED, pad: 0, time_ns: 5 },
            conn,
            began_ns: 1,
            tuple: Conn::ZERO.tuple,
            substate: state::TIME_WAIT,
            cause: end_cause::UNKNOWN,
            family: 2,
            rst_sent: 0,
            reset_reason: 0,
        };
        let max = MAX_ENDING as u64;
        assert!((1..=max).all(|conn| time_waits.cancelled(record(conn)).is_none()));
        let made_room = time_waits.cancelled(record(max + 1));
        assert!(matches!(made_room, Some((record, Ended::TimeWait(_))) if record.conn == 1));
        assert_eq!(time_waits.ending.len(), MAX_ENDING);
        assert_eq!(time_waits.settle(u64::MAX).len(), MAX_ENDING);
    }
}
