//! Segments of a connection, both directions, and the HTTP engine that follows them. Both ends of a loopback
//! connection share one flow.

use std::collections::HashMap;

use tracer_ebpf::{Conn, FlowKey, SegmentRecord, role, tcp_flag};

use super::{Process, timeline};
use crate::http;

/// A connection claims its flow within the handshake's last step, and one older than us with the snapshot.
const UNCLAIMED_MAX_NS: u64 = 30_000_000_000;

#[derive(Debug)]
struct Flow {
    /// Connection whose local end is a, and the one whose local end is b; 0 for none.
    ends: [u64; 2],
    /// Direction of the client's bytes, when a connection told.
    client: Option<http::Direction>,
    established_ns: Option<u64>,
    /// Made by the first segment.
    engine: Option<Box<http::Flow>>,
    /// Bytes sent in each direction before there was an engine.
    sent: [u64; 2],
    reset: bool,
    /// Last segment, or the join.
    seen_ns: u64,
    key: FlowKey,
    /// Ends that are done.
    left: usize,
    /// The end that is done while the other one may still send; what is said then is said of both.
    silent: Option<Box<(Conn, Option<Process>)>>,
}

#[derive(Debug)]
pub struct Flows {
    max: usize,
    http: Option<http::Config>,
    flows: HashMap<u64, Flow>,
    full: u64,
    unclaimed: u64,
}

fn direction(index: usize) -> http::Direction {
    if index == 0 { http::Direction::AToB } else { http::Direction::BToA }
}

impl Flows {
    pub fn new(max: usize, http: Option<http::Config>) -> Self {
        Self { max, http, flows: HashMap::new(), full: 0, unclaimed: 0 }
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }

    pub fn full(&self) -> u64 {
        self.full
    }

    pub fn unclaimed(&self) -> u64 {
        self.unclaimed
    }

    pub fn count_unclaimed(&mut self) {
        self.unclaimed += 1;
    }

    /// The connections that a flow belongs to.
    pub fn ends(&self, flow: u64) -> impl Iterator<Item = u64> + use<> {
        let ends = self.flows.get(&flow).map_or([0; 2], |flow| flow.ends);
        ends.into_iter().filter(|id| *id != 0)
    }

    pub fn peer(&self, conn: &Conn) -> Option<u64> {
        let (_, local) = FlowKey::of(conn.netns_cookie, &conn.tuple);
        let peer = self.flows.get(&conn.flow)?.ends[1 - local];
        (peer != 0).then_some(peer)
    }

    /// An open connection says which flow is its own.
    pub fn join(&mut self, conn: &Conn) {
        if conn.flow == 0 {
            return;
        }
        let (key, local) = FlowKey::of(conn.netns_cookie, &conn.tuple);
        let Some(flow) = self.entry(conn.flow, key) else { return };
        flow.ends[local] = conn.id;
        match conn.role {
            role::CLIENT => flow.client = Some(direction(local)),
            role::SERVER => flow.client = Some(direction(1 - local)),
            _ => {}
        }
        let established = timeline::reached(conn, tracer_ebpf::state::ESTABLISHED);
        if flow.established_ns.is_none() {
            flow.established_ns = established;
        }
    }

    fn entry(&mut self, id: u64, key: FlowKey) -> Option<&mut Flow> {
        if self.flows.len() >= self.max && !self.flows.contains_key(&id) {
            self.full += 1;
            return None;
        }
        Some(self.flows.entry(id).or_insert(Flow {
            ends: [0; 2],
            client: None,
            established_ns: None,
            engine: None,
            sent: [0; 2],
            reset: false,
            seen_ns: 0,
            key,
            left: 0,
            silent: None,
        }))
    }

    pub fn segment(&mut self, record: &SegmentRecord, data: &[u8], said: &mut Vec<http::Output>) {
        let Some(config) = self.http else { return };
        // A FIN or RST alone begins nothing: its flow is an old one.
        if record.len == 0 && !self.flows.contains_key(&record.flow) {
            return;
        }
        let key = FlowKey {
            netns_cookie: record.netns_cookie,
            a_addr: record.a_addr,
            b_addr: record.b_addr,
            a_port: record.a_port,
            b_port: record.b_port,
            pad: 0,
        };
        let Some(flow) = self.entry(record.flow, key) else { return };
        let time_ns = record.header.time_ns;
        flow.seen_ns = time_ns;
        let (client, established_ns, sent) = (flow.client, flow.established_ns, flow.sent);
        let engine = flow.engine.get_or_insert_with(|| {
            let mut engine = http::Flow::new(&config, client, record.from_start != 0);
            if let Some(established_ns) = established_ns {
                engine.established(established_ns);
            }
            for (dir, end) in sent.into_iter().enumerate() {
                engine.sent(self::direction(dir), end);
            }
            Box::new(engine)
        });
        let direction = direction(usize::from(record.dir & 1));
        if record.peer_next > 0 {
            engine.progress(direction.other(), record.peer_next, record.peer_time_ns, said);
        }
        let segment = http::Segment {
            time_ns,
            offset: record.offset,
            len: record.len,
            data_offset: record.data_offset,
            data,
            fin: record.flags & tcp_flag::FIN != 0,
        };
        engine.segment(direction, &segment, said);
        if record.flags & tcp_flag::RST != 0 && !flow.reset {
            flow.reset = true;
            engine.reset(time_ns, said);
        }
    }

    /// Bytes before this offset were sent.
    pub fn sent(&mut self, flow: u64, dir: u8, end: u64) {
        let Some(flow) = self.flows.get_mut(&flow) else { return };
        let dir = usize::from(dir & 1);
        match &mut flow.engine {
            Some(engine) => engine.sent(direction(dir), end),
            None => flow.sent[dir] = end,
        }
    }

    pub fn retransmitted(&mut self, flow: u64) {
        if let Some(engine) = self.flows.get_mut(&flow).and_then(|flow| flow.engine.as_mut()) {
            engine.retransmitted(1);
        }
    }

    /// One end is done: nothing more can complete.
    pub fn close(&mut self, conn: &Conn, reset: bool, said: &mut Vec<http::Output>) {
        if let Some(flow) = self.flows.get_mut(&conn.flow)
            && let Some(engine) = &mut flow.engine
        {
            if reset && !flow.reset {
                flow.reset = true;
                engine.reset(conn.closed_ns, said);
            }
            engine.close(conn.closed_ns, said);
        }
    }

    /// Whether the other end of a connection is on this host, and not done.
    pub fn is_peer_open(&self, conn: &Conn) -> bool {
        self.peer(conn).is_some() && self.flows.get(&conn.flow).is_some_and(|flow| flow.left == 0)
    }

    /// One end is done, and the other one may still send.
    pub fn fall_silent(&mut self, conn: &Conn, process: Option<Process>) {
        if let Some(flow) = self.flows.get_mut(&conn.flow) {
            flow.silent = Some(Box::new((*conn, process)));
        }
    }

    /// The end of a flow with this id, if it is done while the other one is not.
    pub fn silent(&self, flow: u64, id: u64) -> Option<&(Conn, Option<Process>)> {
        self.flows.get(&flow)?.silent.as_deref().filter(|(conn, _)| conn.id == id)
    }

    /// What the flow carried, as a connection's record tells it; no summary when there was no HTTP.
    pub fn summary(&self, conn: &Conn) -> (Option<http::Summary>, http::Protocol) {
        match self.flows.get(&conn.flow).and_then(|flow| flow.engine.as_ref()) {
            Some(engine) => {
                let summary = engine.summary();
                ((summary.requests + summary.responses > 0).then_some(summary), engine.protocol())
            }
            None => (None, http::Protocol::Unknown),
        }
    }

    /// A finished connection leaves; the last one takes the flow with it. Its id stays visible to the other end.
    pub fn leave(&mut self, conn: &Conn) {
        let Some(flow) = self.flows.get_mut(&conn.flow) else { return };
        flow.left += 1;
        if flow.ends.iter().filter(|id| **id != 0).count() <= flow.left {
            self.flows.remove(&conn.flow);
        }
    }
}

impl Flows {
    /// Drops flows that no connection has claimed within [`UNCLAIMED_MAX_NS`] of their last segment.
    pub fn sweep(&mut self, now_ns: u64, mut dropped: impl FnMut(u64, FlowKey)) {
        self.flows.retain(|id, flow| {
            let keep = flow.ends != [0; 2] || flow.seen_ns.saturating_add(UNCLAIMED_MAX_NS) > now_ns;
            if !keep {
                dropped(*id, flow.key);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    fn flows() -> Flows {
        Flows::new(4, Some(http::Config::default()))
    }

    fn segment(
        flows: &mut Flows,
        dir: u8,
        data: &[u8],
        flags: u8,
        change: impl Fn(&mut SegmentRecord),
    ) -> Vec<http::Outcome> {
        // SAFETY: integers only.
        let mut record: SegmentRecord = unsafe { std::mem::zeroed() };
        (record.flow, record.dir, record.flags, record.from_start) = (7, dir, flags, 1);
        (record.len, record.copied) = (data.len() as u32, data.len() as u32);
        record.header.time_ns = 50;
        change(&mut record);
        let mut said = Vec::new();
        flows.segment(&record, data, &mut said);
        outcomes(said)
    }

    fn outcomes(said: Vec<http::Output>) -> Vec<http::Outcome> {
        let outcome = |output| match output {
            http::Output::Exchange(exchange) => Some(exchange.outcome),
            http::Output::Skip { .. } => None,
        };
        said.into_iter().filter_map(outcome).collect()
    }

    #[test]
    fn data_on_syn_and_fin() {
        let mut flows = flows();
        assert_eq!(segment(&mut flows, 0, GET, tcp_flag::SYN, |_| ()), []);
        let complete = [http::Outcome::Complete];
        assert_eq!(segment(&mut flows, 1, OK, tcp_flag::FIN, |_| ()), complete);
        assert_eq!(flows.len(), 1);
    }

    #[test]
    fn a_reset_is_told_once() {
        let mut flows = flows();
        segment(&mut flows, 0, GET, 0, |_| ());
        assert_eq!(segment(&mut flows, 1, b"", tcp_flag::RST, |_| ()), [http::Outcome::Reset]);
        let mut conn = Conn::ZERO;
        conn.flow = 7;
        let mut said = Vec::new();
        flows.close(&conn, true, &mut said);
        assert_eq!(outcomes(said), []);
    }

    #[test]
    fn nothing_begins_with_the_end_of_an_older_flow() {
        let mut flows = flows();
        segment(&mut flows, 0, b"", tcp_flag::FIN, |_| ());
        segment(&mut flows, 0, b"", tcp_flag::RST, |_| ());
        assert_eq!(flows.len(), 0);
    }

    /// The content was not copied; the next request's record says how far the answer had come, and when.
    #[test]
    fn the_other_directions_progress_completes_an_answer() {
        let mut flows = flows();
        segment(&mut flows, 0, GET, 0, |_| ());
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        segment(&mut flows, 1, head, 0, |_| ());
        let said = segment(&mut flows, 0, GET, 0, |record| {
            (record.offset, record.data_offset) = (GET.len() as u64, GET.len() as u64);
            (record.peer_next, record.peer_time_ns) = (head.len() as u64 + 1000, 90);
            record.header.time_ns = 100;
        });
        assert_eq!(said, [http::Outcome::Complete]);
        let mut conn = Conn::ZERO;
        conn.flow = 7;
        let (summary, protocol) = flows.summary(&conn);
        let summary = summary.unwrap();
        assert_eq!((summary.requests, summary.idle_max_ns, protocol), (2, Some(10), http::Protocol::Http1));
    }

    #[test]
    fn flows_beyond_the_bound_are_counted() {
        let mut flows = flows();
        for id in 0..6 {
            segment(&mut flows, 0, GET, 0, |record| record.flow = id);
        }
        assert_eq!((flows.len(), flows.full()), (4, 2));
    }
}
