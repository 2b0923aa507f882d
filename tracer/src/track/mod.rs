//! Correlation: kernel events become connections and exchanges.
//!
//! A function of its events and their times: no clock, no `/proc`, no sockets. Every table has a bound; what does not
//! fit is counted in [`Losses`].

mod close;
mod flows;
mod listeners;
mod options;
mod peers;
mod shown;
mod time_wait;
mod timeline;

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

pub use close::{Close, How, Party};
pub use shown::Segment;
pub use time_wait::TimeWait;
pub use timeline::{StateAt, name as state_name, opening_seen, reached};
use tracer_ebpf::{
    Conn, FlowKey, Owner, ResetRecord, RetransmitRecord, StateRecord, TimeWaitRecord, Tuple, conn_flag,
    milestone, owner_source, role,
};

use crate::{
    filter::Filter,
    http,
    source::{Event, Repeats, observer::Still},
    track::{
        flows::Flows,
        listeners::Listeners,
        peers::Peers,
        shown::Shown,
        time_wait::{Ended, TimeWaits},
    },
};

/// How long an orphaned FIN_WAIT2 can last: `TCP_TIMEWAIT_LEN` (include/net/tcp.h), the bound on the mini-socket's
/// timer whatever `tcp_fin_timeout` says, and a second for our own delays.
const FIN_WAIT2_MAX_NS: u64 = 61_000_000_000;

const SWEEP_EVERY_NS: u64 = 10_000_000_000;

/// What is known of a process beyond what the kernel side saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    pub exe: Option<Vec<u8>>,
    pub cgroup: Option<Vec<u8>>,
    pub container: Option<String>,
}

/// Knows processes; the live one reads `/proc`, and remembers those that are gone.
pub trait Processes {
    fn info(&mut self, owner: &Owner) -> Option<Arc<ProcessInfo>>;
}

/// An owner and how it is known.
#[derive(Clone, Debug)]
pub struct Process {
    pub owner: Owner,
    pub source: &'static str,
    pub info: Option<Arc<ProcessInfo>>,
}

/// A connection as the output tells it.
#[derive(Debug)]
pub struct Connection {
    pub conn: Conn,
    pub peer: Option<u64>,
    pub process: Option<Process>,
    pub states: Vec<StateAt>,
    pub close: Option<Close>,
    pub http: Option<http::Summary>,
    pub protocol: http::Protocol,
    /// `None`: not known (it ended in FIN_WAIT2, and whether the peer's FIN came was not seen).
    pub time_wait: Option<bool>,
    /// What the remote end has sent again; `None` where that is not seen.
    pub received_again: Option<Repeats>,
    /// It was still open when the run ended.
    pub open: bool,
}

/// What the tracker has to say.
#[derive(Debug)]
pub enum Output {
    Connection(Box<Connection>),
    Exchange {
        conn: Box<Conn>,
        process: Option<Process>,
        exchange: Arc<http::Exchange>,
    },
    State(StateRecord),
    Retransmit(RetransmitRecord),
    Reset(ResetRecord),
    Segment(Box<Segment>),
    /// Advice for the kernel side.
    Mark {
        flow: u64,
        direction: http::Direction,
        mark: http::Mark,
    },
    TimeWait(Box<TimeWait>),
    /// The kernel side's entry of a mini-socket that ended.
    ForgetTimeWait {
        tuple: Tuple,
        began_ns: u64,
    },
    /// The kernel side's flow has no use any more; it may be gone already.
    Forget {
        flow: u64,
        key: FlowKey,
    },
}

/// Things that did not fit or did not match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Connections beyond the bound.
    pub connections_full: u64,
    /// Flows beyond the bound.
    pub flows_full: u64,
    /// Exchanges on flows that no connection claimed.
    pub unclaimed_exchanges: u64,
}

impl Losses {
    /// Also those of another tracker.
    pub fn add(&mut self, other: Self) {
        self.connections_full += other.connections_full;
        self.flows_full += other.flows_full;
        self.unclaimed_exchanges += other.unclaimed_exchanges;
    }
}

/// Sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub connections: usize,
    pub flows: usize,
    pub awaiting_fin: usize,
    pub time_waits: usize,
    pub listeners: usize,
}

/// Both ends, the local one first; IPv4-mapped addresses as IPv4.
pub fn ends(tuple: &Tuple) -> (SocketAddr, SocketAddr) {
    let end = |addr: [u8; 16], port| SocketAddr::from((Ipv6Addr::from(addr).to_canonical(), port));
    (end(tuple.local_addr, tuple.local_port), end(tuple.remote_addr, tuple.remote_port))
}

/// Decides, beyond what the kernel side could, whether a connection is written.
pub type Wanted = Box<dyn Fn(&Tuple, Option<&Process>) -> bool>;

/// A filter, for what the kernel side could not decide: it knows the owner of a client only.
pub fn wanted(filter: Filter) -> Wanted {
    Box::new(move |tuple, process| {
        let comm = process.map(|process| {
            let comm = &process.owner.comm;
            &comm[..comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len())]
        });
        let (local, remote) = ends(tuple);
        filter.matches_tuple(local, remote)
            && (!filter.asks_for_process()
                || filter.matches_process(process.map(|process| process.owner.pid), comm))
    })
}

/// From where connections are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// From the host whose sockets they are: each socket is one connection.
    Host,
    /// From between two ends: both are one connection, told as the client's end. No listeners, owners and timers.
    Wire,
}

/// The connection and flow tables.
pub struct Tracker {
    view: View,
    max_connections: usize,
    wanted: Wanted,
    /// Boxed: a table that grows moves all that is in it.
    connections: HashMap<u64, Box<Conn>>,
    flows: Flows,
    listeners: Listeners,
    /// Connections in orphaned FIN_WAIT2, by when that ends at the latest.
    awaiting_fin: HashMap<u64, Box<Connection>>,
    awaiting_until: BTreeMap<(u64, u64), ()>,
    peers: Peers,
    time_waits: TimeWaits,
    shown: Shown,
    /// Of connections whose end comes next.
    repeats: HashMap<u64, Repeats>,
    losses: Losses,
    sweep_at_ns: u64,
}

impl Tracker {
    pub fn new(view: View, max_connections: usize, http: Option<http::Config>, wanted: Wanted) -> Self {
        Self {
            view,
            max_connections,
            wanted,
            connections: HashMap::new(),
            flows: Flows::new(max_connections, http),
            listeners: Listeners::default(),
            awaiting_fin: HashMap::new(),
            awaiting_until: BTreeMap::new(),
            peers: Peers::default(),
            time_waits: TimeWaits::default(),
            shown: Shown::default(),
            repeats: HashMap::new(),
            losses: Losses::default(),
            sweep_at_ns: 0,
        }
    }

    pub fn losses(&self) -> Losses {
        Losses { flows_full: self.flows.full(), unclaimed_exchanges: self.flows.unclaimed(), ..self.losses }
    }

    pub fn sizes(&self) -> Sizes {
        Sizes {
            connections: self.connections.len(),
            flows: self.flows.len(),
            awaiting_fin: self.awaiting_fin.len(),
            time_waits: self.time_waits.len(),
            listeners: self.listeners.len(),
        }
    }

    /// Takes in one event.
    pub fn event(&mut self, event: Event<'_>, processes: &mut dyn Processes, out: &mut Vec<Output>) {
        if let Event::Conn { conn, .. } = &event {
            let mut segments = Vec::new();
            self.shown.opened(conn, &mut segments);
            self.show(segments, processes, out);
        }
        match event {
            Event::Conn { milestone: milestone::CLOSED, conn, .. } => self.closed(*conn, processes, out),
            Event::Conn { milestone: milestone::LISTENING, conn, .. } => self.listeners.add(&conn),
            Event::Conn { milestone: milestone::LISTENER_GONE, conn, time_ns } => {
                self.listeners.remove(&conn, time_ns);
            }
            Event::Conn { conn, .. } => self.opened(*conn),
            Event::Owner { conn, owner } => {
                if let Some(known) = self.connections.get_mut(&conn) {
                    known.owner = owner;
                }
            }
            Event::Repeats { conn, repeats } => {
                self.repeats.insert(conn, repeats);
            }
            Event::Sent { flow, dir, end } => self.flows.sent(flow, dir, end),
            // The source has looked it up already.
            Event::Process(_) => {}
            Event::Segment { record, data } => {
                let mut said = Vec::new();
                self.flows.segment(&record, data, &mut said);
                self.say(record.flow, said, processes, out);
            }
            Event::Shown(record) => {
                let mut segments = Vec::new();
                self.shown.take(record, &mut segments);
                self.show(segments, processes, out);
            }
            Event::State(record) => out.push(Output::State(record)),
            Event::Retransmit(record) => {
                if let Some(conn) = self.connections.get(&record.conn) {
                    self.flows.retransmitted(conn.flow);
                }
                out.push(Output::Retransmit(record));
            }
            Event::Reset(record) => out.push(Output::Reset(record)),
            Event::TimeWait(record) => self.time_wait(record, out),
        }
    }

    fn show(&self, segments: Vec<Segment>, processes: &mut dyn Processes, out: &mut Vec<Output>) {
        for segment in segments {
            let conn = segment.conn.and_then(|id| self.connections.get(&id));
            let process = conn.and_then(|conn| self.process(conn, processes));
            if (self.wanted)(&segment.record.tuple, process.as_ref()) {
                out.push(Output::Segment(Box::new(segment)));
            }
        }
    }

    fn time_wait(&mut self, record: TimeWaitRecord, out: &mut Vec<Output>) {
        if time_wait::is_beginning(&record) {
            self.time_waits.began(record.conn, record.header.time_ns);
            self.fin_came(record.conn, Some(record.header.time_ns), out);
        }
        match record.header.detail {
            tracer_ebpf::time_wait::EXPIRED => {
                let ended = self.time_waits.expired(&record, self.view == View::Host);
                self.time_wait_ended(ended, out);
            }
            tracer_ebpf::time_wait::CANCELLED => {
                if let Some((record, ended)) = self.time_waits.cancelled(record) {
                    self.time_wait_settled(&record, ended, out);
                }
            }
            tracer_ebpf::time_wait::REARMED => self.time_waits.rearmed(&record),
            tracer_ebpf::time_wait::FIN_FOUND => self.fin_came(record.conn, None, out),
            _ => {}
        }
    }

    fn time_wait_ended(&mut self, ended: Ended, out: &mut Vec<Output>) {
        match ended {
            Ended::TimeWait(done) => {
                // That it was in TIME_WAIT is the first that we hear of the FIN.
                if let Some(conn) = done.conn {
                    self.fin_came(conn, None, out);
                }
                if (self.wanted)(&done.tuple, done.process.as_ref()) {
                    out.push(Output::TimeWait(done));
                }
            }
            Ended::FinWait2 { conn, ended_ns, reset } => self.fin_stayed_away(conn, ended_ns, reset, out),
        }
    }

    /// An orphaned FIN_WAIT2 went on to TIME_WAIT.
    fn fin_came(&mut self, conn: u64, time_ns: Option<u64>, out: &mut Vec<Output>) {
        let Some(mut done) = self.stop_awaiting(conn) else { return };
        // The connection is done when TIME_WAIT begins; that its socket gave way earlier is the kernel's economy.
        done.conn.closed_ns = time_ns.unwrap_or(done.conn.closed_ns);
        let state = tracer_ebpf::state::TIME_WAIT;
        let at_ns = time_ns.map(|time_ns| time_ns.saturating_sub(done.conn.opened_ns));
        done.states.push(StateAt { state, at_ns });
        done.time_wait = Some(true);
        out.push(Output::Connection(done));
    }

    /// An orphaned FIN_WAIT2 ended as such; `reset`: with an RST sent for this reason.
    fn fin_stayed_away(&mut self, conn: u64, ended_ns: u64, reset: Option<u32>, out: &mut Vec<Output>) {
        let Some(mut done) = self.stop_awaiting(conn) else { return };
        if let (Some(reset_reason), Some(close)) = (reset, &mut done.close) {
            close.how = How::RstSent;
            close.reset_reason = reset_reason;
        }
        done.states.push(StateAt::at(&done.conn, tracer_ebpf::state::CLOSE, ended_ns));
        done.conn.closed_ns = ended_ns;
        done.time_wait = Some(false);
        let (key, _) = FlowKey::of(done.conn.netns_cookie, &done.conn.tuple);
        out.push(Output::Forget { flow: done.conn.flow, key });
        out.push(Output::Connection(done));
    }

    fn stop_awaiting(&mut self, conn: u64) -> Option<Box<Connection>> {
        let flow = self.awaiting_fin.get(&conn)?.conn.flow;
        self.summarise_awaiting(flow);
        let done = self.awaiting_fin.remove(&conn)?;
        self.awaiting_until.remove(&(done.conn.closed_ns.saturating_add(FIN_WAIT2_MAX_NS), conn));
        Some(done)
    }

    /// Newer totals of an open connection.
    pub fn refresh(&mut self, conn: Conn) {
        if let Some(known) = self.connections.get_mut(&conn.id) {
            **known = Conn { role: known.role, ..conn };
        } else if conn.role != role::LISTENER && conn.state != tracer_ebpf::state::CLOSE {
            // Nobody has told of it: it is not established, or the record of that was lost.
            self.opened(conn);
        }
    }

    /// A connection that is open when a capture ends.
    pub fn still_open(&mut self, still: &Still) {
        if still.is_told {
            self.refresh(still.conn);
        } else {
            // Nobody has answered yet, or only one side was heard: open all the same.
            self.opened(still.conn);
        }
        self.repeats.insert(still.conn.id, still.repeats);
        for (dir, sent) in (0..).zip(still.sent) {
            sent.inspect(|end| self.flows.sent(still.conn.flow, dir, *end));
        }
    }

    /// Time passes: an orphaned FIN_WAIT2 whose FIN did not come is over.
    pub fn tick(&mut self, now_ns: u64, processes: &mut dyn Processes, out: &mut Vec<Output>) {
        let mut segments = Vec::new();
        self.shown.tick(now_ns, &mut segments);
        self.show(segments, processes, out);
        while let Some((&(until, id), ())) = self.awaiting_until.first_key_value() {
            if until > now_ns {
                break;
            }
            self.fin_stayed_away(id, until, None, out);
            self.awaiting_until.remove(&(until, id));
        }
        self.settle_time_waits(now_ns, out);
        if now_ns >= self.sweep_at_ns {
            self.sweep_at_ns = now_ns.saturating_add(SWEEP_EVERY_NS);
            self.flows.sweep(now_ns, |flow, key| out.push(Output::Forget { flow, key }));
        }
    }

    fn settle_time_waits(&mut self, now_ns: u64, out: &mut Vec<Output>) {
        for (record, ended) in self.time_waits.settle(now_ns) {
            self.time_wait_settled(&record, ended, out);
        }
    }

    fn time_wait_settled(&mut self, record: &TimeWaitRecord, ended: Ended, out: &mut Vec<Output>) {
        out.push(Output::ForgetTimeWait { tuple: record.tuple, began_ns: record.began_ns });
        self.time_wait_ended(ended, out);
    }

    /// The run is over: what is still open is told as it stands.
    pub fn finish(&mut self, processes: &mut dyn Processes, out: &mut Vec<Output>) {
        let mut segments = Vec::new();
        self.shown.tick(u64::MAX, &mut segments);
        self.show(segments, processes, out);
        self.settle_time_waits(u64::MAX, out);
        for done in std::mem::take(&mut self.awaiting_fin).into_values() {
            out.push(Output::Connection(done));
        }
        let mut open: Vec<Box<Conn>> = std::mem::take(&mut self.connections).into_values().collect();
        open.sort_unstable_by_key(|conn| conn.id);
        for conn in open {
            let connection = self.describe(*conn, processes);
            if (self.wanted)(&connection.conn.tuple, connection.process.as_ref()) {
                out.push(Output::Connection(Box::new(connection)));
            }
        }
    }

    fn opened(&mut self, mut conn: Conn) {
        if self.connections.len() >= self.max_connections && !self.connections.contains_key(&conn.id) {
            self.losses.connections_full += 1;
            return;
        }
        self.settle_role(&mut conn);
        self.flows.join(&conn);
        self.peers.add(&conn);
        self.time_waits.succeeded_by(&conn);
        self.connections.insert(conn.id, Box::new(conn));
    }

    fn closed(&mut self, mut conn: Conn, processes: &mut dyn Processes, out: &mut Vec<Output>) {
        if self.connections.remove(&conn.id).is_none() {
            // Never established, or the record of that was lost.
            self.settle_role(&mut conn);
            self.flows.join(&conn);
            self.peers.add(&conn);
        } else if conn.role == role::UNKNOWN {
            self.settle_role(&mut conn);
        }
        let reset = conn.flags & (conn_flag::RST_RECEIVED | conn_flag::RST_SENT) != 0;
        let mini = conn.flags & conn_flag::MINI_SOCKET != 0;
        if mini && conn.flags & conn_flag::FIN_RECEIVED == 0 && self.flows.is_peer_open(&conn) {
            // Whether the other end closes as well or sends more and is reset ends the exchange.
            let process = self.process(&conn, processes);
            self.flows.fall_silent(&conn, process);
        } else {
            let mut said = Vec::new();
            self.flows.close(&conn, reset, &mut said);
            // The connection is out of the table, so its last exchanges are told with what is at hand.
            self.connections.insert(conn.id, Box::new(conn));
            self.say(conn.flow, said, processes, out);
            self.connections.remove(&conn.id);
            self.summarise_awaiting(conn.flow);
        }
        let mut connection = self.describe(conn, processes);
        self.flows.leave(&conn);
        self.peers.remove(&conn);
        if !(self.wanted)(&connection.conn.tuple, connection.process.as_ref()) {
            return;
        }
        connection.open = false;
        connection.close = Some(Close::of(&conn));
        if conn.flags & conn_flag::TIME_WAIT_OVERFLOW != 0 {
            out.push(Output::TimeWait(Box::new(TimeWaits::overflow(&connection))));
        }
        connection.time_wait = Some(mini);
        if mini {
            // The socket's CLOSE is the mini-socket's beginning (tcp_time_wait).
            connection.states.pop();
            if conn.flags & conn_flag::FIN_RECEIVED == 0 {
                connection.time_wait = None;
                self.time_waits.begin(&connection, Party::Local, None);
                self.await_fin(connection, out);
                return;
            }
            self.time_waits.begin(&connection, Party::Local, Some(conn.closed_ns));
            connection.states.push(StateAt::at(&conn, tracer_ebpf::state::TIME_WAIT, conn.closed_ns));
        } else if self.view == View::Wire && conn.old_state == tracer_ebpf::state::LAST_ACK && !reset {
            // Then the other end's begins.
            self.time_waits.begin(&connection, Party::Remote, Some(conn.closed_ns));
        }
        out.push(Output::Connection(Box::new(connection)));
    }

    /// The other end of a flow that waits for its FIN has the flow's last totals.
    fn summarise_awaiting(&mut self, flow: u64) {
        for id in self.flows.ends(flow) {
            if let Some(done) = self.awaiting_fin.get_mut(&id) {
                (done.http, done.protocol) = self.flows.summary(&done.conn);
            }
        }
    }

    fn await_fin(&mut self, connection: Connection, out: &mut Vec<Output>) {
        if self.awaiting_fin.len() >= self.max_connections {
            self.losses.connections_full += 1;
            out.push(Output::Connection(Box::new(connection)));
            return;
        }
        let id = connection.conn.id;
        self.awaiting_until.insert((connection.conn.closed_ns.saturating_add(FIN_WAIT2_MAX_NS), id), ());
        self.awaiting_fin.insert(id, Box::new(connection));
    }

    /// A connection older than the tracer is the server's when somebody listens on its port.
    fn settle_role(&self, conn: &mut Conn) {
        if conn.role == role::UNKNOWN && self.view == View::Host {
            conn.role = if self.listeners.find(conn).is_some() { role::SERVER } else { role::CLIENT };
        }
    }

    fn describe(&mut self, conn: Conn, processes: &mut dyn Processes) -> Connection {
        let (http, protocol) = self.flows.summary(&conn);
        let received_again = self.repeats.remove(&conn.id);
        Connection {
            received_again: (self.view == View::Wire).then(|| received_again.unwrap_or_default()),
            peer: self.flows.peer(&conn).or_else(|| self.peers.of(&conn)),
            process: self.process(&conn, processes),
            states: timeline::of(&conn),
            close: None,
            http,
            protocol,
            time_wait: None,
            open: true,
            conn,
        }
    }

    /// The owner: seen on the socket itself, else that of the listener it came from.
    fn process(&self, conn: &Conn, processes: &mut dyn Processes) -> Option<Process> {
        let (owner, source) = match conn.owner.source {
            owner_source::NONE => (*self.listeners.find(conn)?, "listener"),
            owner_source::FILE_TABLE => (conn.owner, "file_table"),
            owner_source::ACCEPT => (conn.owner, "accept"),
            owner_source::IO => (conn.owner, "socket_io"),
            owner_source::CONNECT => (conn.owner, "connect"),
            _ => (conn.owner, "listen"),
        };
        Some(Process { owner, source, info: processes.info(&owner) })
    }

    /// Hands on what a flow's engine said: an exchange is told once for each local end.
    fn say(
        &mut self,
        flow: u64,
        said: Vec<http::Output>,
        processes: &mut dyn Processes,
        out: &mut Vec<Output>,
    ) {
        for output in said {
            match output {
                http::Output::Skip { direction, mark } => out.push(Output::Mark { flow, direction, mark }),
                http::Output::Exchange(exchange) => {
                    let exchange = Arc::new(*exchange);
                    let mut claimed = false;
                    for id in self.flows.ends(flow) {
                        let (conn, process) = match (self.connections.get(&id), self.flows.silent(flow, id)) {
                            (Some(conn), _) => (&**conn, self.process(conn, processes)),
                            (None, Some((conn, process))) => (conn, process.clone()),
                            (None, None) => continue,
                        };
                        claimed = true;
                        if (self.wanted)(&conn.tuple, process.as_ref()) {
                            let exchange = Arc::clone(&exchange);
                            out.push(Output::Exchange { conn: Box::new(*conn), process, exchange });
                        }
                    }
                    if !claimed {
                        self.flows.count_unclaimed();
                    }
                }
            }
        }
    }
}
