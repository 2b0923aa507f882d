//! What the tracker found, as records of the output.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tracer_ebpf::{
    Conn, ResetRecord, RetransmitRecord, StateRecord, TIME_UNSEEN, conn_flag, role, state, tcp_flag,
};

use crate::{
    emit::{
        Lines,
        headers::HeaderPolicy,
        record::{self, ConnId, Cookie, Micros, StateAt, Tuple},
        text::Text,
        time::Timestamp,
    },
    http,
    track::{self, Connection, Output, Process, Segment, TimeWait},
};

/// Name in `enum sk_rst_reason` of the reset that answers data for an orphan; it is sent when the socket is gone.
const ABORT_ON_DATA: &str = "TCP_ABORT_ON_DATA";

/// Turns CLOCK_MONOTONIC into wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Wall clock minus CLOCK_MONOTONIC, ns.
    offset_ns: i64,
}

impl Clock {
    /// From both clocks' readings of one moment.
    pub fn new(wall_ns: i64, monotonic_ns: u64) -> Self {
        Self { offset_ns: wall_ns - monotonic_ns as i64 }
    }

    /// From the wall clock minus CLOCK_MONOTONIC.
    pub fn with_offset(offset_ns: i64) -> Self {
        Self { offset_ns }
    }

    pub fn offset_ns(self) -> i64 {
        self.offset_ns
    }

    pub fn at(self, monotonic_ns: u64) -> Timestamp {
        Timestamp::from_unix_ns(self.offset_ns.wrapping_add(monotonic_ns as i64))
    }
}

/// Writes the records.
pub struct Report<'a> {
    pub clock: Clock,
    pub headers: &'a HeaderPolicy,
    /// `enum sk_rst_reason` of this kernel.
    pub reset_reasons: Arc<[(u32, String)]>,
    pub lines: Lines,
    /// `conn` and `http` lines so far, and how many there may be.
    pub written: u64,
    pub limit: u64,
}

impl Report<'_> {
    /// Writes one output; advice for the kernel side is not for the report. `now_ns` is the time of records that
    /// describe something still going on.
    pub fn output(&mut self, output: &Output, now_ns: u64) {
        match output {
            Output::Connection(_) | Output::Exchange { .. } if self.is_full() => {}
            Output::Connection(connection) => {
                self.connection(connection, now_ns);
                self.written += 1;
            }
            Output::Exchange { conn, process, exchange } => {
                self.exchange(conn, process.as_ref(), exchange, now_ns);
                self.written += 1;
            }
            Output::TimeWait(ended) => self.time_wait(ended),
            Output::State(event) => self.state(event),
            Output::Retransmit(event) => self.retransmit(event),
            Output::Reset(event) => self.reset(event),
            Output::Segment(segment) => self.segment(segment),
            Output::Mark { .. } | Output::Forget { .. } | Output::ForgetTimeWait { .. } => {}
        }
    }

    /// Whether the last `conn` or `http` line that was asked for is written.
    pub fn is_full(&self) -> bool {
        self.written >= self.limit
    }

    fn connection(&mut self, connection: &Connection, now_ns: u64) {
        let Connection { conn, peer, process, states, close, http, protocol, time_wait, .. } = connection;
        let Connection { received_again, open, .. } = connection;
        let preexisting = conn.flags & conn_flag::PREEXISTING != 0;
        let opening_seen = track::opening_seen(conn);
        let at = |time_ns: u64| self.clock.at(time_ns);
        let states: Vec<StateAt> = states
            .iter()
            .map(|reached| StateAt {
                state: track::state_name(reached.state),
                at_us: reached.at_ns.map(Micros),
            })
            .collect();
        let established_ns = track::reached(conn, state::ESTABLISHED);
        let closed_ns = (!open).then_some(conn.closed_ns);
        // The kernel counts the peer's FIN as a byte received (tcp_rcv_nxt_update).
        let fin = u64::from(conn.flags & conn_flag::FIN_RECEIVED != 0);
        let totals = conn.flags & conn_flag::TOTALS_READ != 0;
        let known = |value: u64| totals.then_some(value);
        let segments = conn.flags & conn_flag::SEGMENTS_SEEN != 0;
        let seen = |value: u32| segments.then_some(value.into());
        let syn_times = conn.syn_at_us.iter().take(conn.syn_retrans as usize).filter(|at_us| **at_us != 0);
        let syn_at_us: Vec<Micros> = syn_times.map(|at_us| Micros::from_us((*at_us).into())).collect();
        self.lines.write(&record::Conn {
            ts: at(closed_ns.unwrap_or(now_ns)),
            id: ConnId(conn.id),
            peer: peer.map(ConnId),
            cookie: (conn.cookie != 0).then_some(Cookie(conn.cookie)),
            netns: netns(&conn.tuple),
            tuple: tuple(&conn.tuple, conn.family),
            role: role_name(conn.role),
            process: process.as_ref().map(process_record),
            protocol: protocol_name(protocol),
            opened: opening_seen.then_some(at(conn.opened_ns)),
            established: established_ns.map(at),
            closed: closed_ns.map(at),
            preexisting,
            open: *open,
            first_seen: at(conn.opened_ns),
            duration_us: closed_ns
                .filter(|_| opening_seen)
                .map(|closed| Micros(closed.saturating_sub(conn.opened_ns))),
            // The child socket of a server is made by the handshake's last segment: it saw no SYN.
            handshake_us: established_ns
                .filter(|_| conn.role == role::CLIENT && opening_seen)
                .map(|established| Micros(established.saturating_sub(conn.opened_ns))),
            states: &states,
            close: close.as_ref().map_or_else(record::Close::default, |close| record::Close {
                by: close.by.map(track::Party::name),
                how: Some(close.how.name()),
                reason: if conn.flags & conn_flag::ABORTED_ON_DATA != 0 {
                    self.reset_reasons
                        .iter()
                        .map(|(_, name)| name.as_str())
                        .find(|name| *name == ABORT_ON_DATA)
                } else {
                    reset_reason(&self.reset_reasons, close.reset_reason)
                },
                at_us: close.at_ns.map(Micros),
            }),
            bytes_sent: known(conn.bytes_sent.saturating_sub(conn.bytes_retrans)),
            bytes_received: known(conn.bytes_received.saturating_sub(fin)),
            segments: record::SegmentTotals {
                sent: known(conn.segs_out.into()),
                received: known(conn.segs_in.into()),
            },
            retransmits: record::Retransmits {
                segments: known(conn.retrans.into()),
                syn: Some(conn.syn_retrans.into()),
                synack: Some(conn.synack_retrans.into()),
                bytes: known(conn.bytes_retrans),
                syn_at_us: &syn_at_us,
            },
            retransmits_received: received_again.map(|again| record::RetransmitsReceived {
                segments: again.segments.into(),
                bytes: again.bytes,
            }),
            rtt_us: record::Rtt {
                min: (conn.min_rtt_us != u32::MAX && !open)
                    .then_some(Micros::from_us(conn.min_rtt_us.into())),
                smoothed: (conn.srtt_us != 0).then_some(Micros::from_us(conn.srtt_us.into())),
            },
            keepalive_probes: record::KeepaliveProbes {
                sent: seen(conn.probes_sent),
                received: seen(conn.probes_received),
            },
            zero_windows: record::ZeroWindows {
                sent: seen(conn.zero_windows_sent),
                received: seen(conn.zero_windows_received),
            },
            http: http.as_ref().map(|summary| {
                let ended_ns = close
                    .as_ref()
                    .and_then(|close| close.at_ns)
                    .map(|at_ns| conn.opened_ns.saturating_add(at_ns));
                http_summary(summary, ended_ns)
            }),
            time_wait: *time_wait,
            complete: conn.lost == 0 && conn.flags & conn_flag::STATES_CUT == 0,
            lost: Some(conn.lost.into()),
        });
    }

    fn exchange(&mut self, conn: &Conn, process: Option<&Process>, exchange: &http::Exchange, now_ns: u64) {
        let target = exchange.request.as_ref().map(|request| self.headers.target(&request.target));
        let request_version = exchange.request.as_ref().map(|request| version(request.version));
        let response_version = exchange.response.as_ref().map(|response| version(response.version));
        let since = |start: Option<u64>, end: Option<u64>| Some(Micros(end?.saturating_sub(start?)));
        let started = exchange.started_ns;
        let ended = exchange.response_end_ns.or(exchange.response_start_ns);
        self.lines.write(&record::Http {
            ts: self.clock.at(ended.unwrap_or(now_ns)),
            conn: ConnId(conn.id),
            seq: exchange.seq,
            role: role_name(conn.role),
            tuple: tuple(&conn.tuple, conn.family),
            process: process.map(process_record),
            request: exchange.request.as_ref().map(|request| record::Request {
                method: Some(Text(&request.method)),
                target: target.as_deref().map(Text),
                version: request_version.as_deref().map(|text| Text(text.as_bytes())),
                host: request.host.as_deref().map(Text),
                header_bytes: Some(request.header_bytes),
                body_bytes: request.body_bytes,
                framing: request.framing.map(http::Framing::as_str),
                headers: self.headers.select(fields(&request.headers)),
            }),
            response: exchange.response.as_ref().map(|response| record::Response {
                status: Some(response.status),
                reason: Some(Text(&response.reason)),
                version: response_version.as_deref().map(|text| Text(text.as_bytes())),
                header_bytes: Some(response.header_bytes),
                body_bytes: response.body_bytes,
                framing: response.framing.map(http::Framing::as_str),
                headers: self.headers.select(fields(&response.headers)),
            }),
            informational: &exchange.informational,
            started: started.map(|started| self.clock.at(started)),
            timeline: record::Timeline {
                request_end_us: since(started, exchange.request_end_ns),
                response_start_us: since(started, exchange.response_start_ns),
                response_end_us: since(started, exchange.response_end_ns),
            },
            duration_us: since(started, exchange.response_end_ns),
            // An answer that began before the request was over waited for nothing.
            ttfb_us: exchange
                .request_end_ns
                .zip(exchange.response_start_ns)
                .and_then(|(asked, answered)| answered.checked_sub(asked))
                .map(Micros),
            idle_before_us: exchange.idle_before_ns.map(Micros),
            // What an older connection carried before is not known.
            reused: (exchange.reused || track::opening_seen(conn)).then_some(exchange.reused),
            pipelined: exchange.pipelined,
            keep_alive: record::KeepAlive {
                request: exchange.keep_alive.request,
                response: exchange.keep_alive.response,
                timeout_s: exchange.keep_alive.timeout_s,
                max: exchange.keep_alive.max,
            },
            outcome: exchange.outcome.as_str(),
            exact: exchange.exact,
            malformed: exchange.malformed_reason,
            retransmits: Some(exchange.retransmits.into()),
        });
    }

    fn time_wait(&mut self, ended: &TimeWait) {
        self.lines.write(&record::TimeWait {
            ts: self.clock.at(ended.ended_ns),
            conn: ended.conn.map(ConnId),
            netns: netns(&ended.tuple),
            tuple: tuple(&ended.tuple, ended.family),
            process: ended.process.as_ref().map(process_record),
            began: ended.began_ns.map(|began| self.clock.at(began)),
            ended: self.clock.at(ended.ended_ns),
            duration_us: ended.began_ns.map(|began| Micros(ended.ended_ns.saturating_sub(began))),
            end: ended.end.name(),
            end_source: if ended.observed { "observed" } else { "inferred" },
            reused_by: ended.end.reused_by(),
            closer: ended.closer.map(track::Party::name),
            requests: ended.requests,
            cause: None,
            preexisting: ended.preexisting,
        });
    }

    fn state(&mut self, event: &StateRecord) {
        self.lines.write(&record::StateEvent {
            ts: self.clock.at(event.header.time_ns),
            conn: Some(ConnId(event.conn)),
            netns: (event.tuple.netns != 0).then_some(event.tuple.netns.into()),
            tuple: tuple(&event.tuple, 0),
            old_state: track::state_name(event.old_state),
            new_state: track::state_name(event.new_state),
            in_state_us: (event.in_state_ns != TIME_UNSEEN).then_some(Micros(event.in_state_ns)),
        });
    }

    fn retransmit(&mut self, event: &RetransmitRecord) {
        let kind = match event.state {
            _ if event.synack != 0 => "synack",
            state::SYN_SENT => "syn",
            _ => "data",
        };
        self.lines.write(&record::RetransmitEvent {
            ts: self.clock.at(event.header.time_ns),
            conn: (event.conn != 0).then_some(ConnId(event.conn)),
            netns: (event.tuple.netns != 0).then_some(event.tuple.netns.into()),
            tuple: tuple(&event.tuple, 0),
            kind,
            state: Some(track::state_name(event.state)),
            segments: None,
            bytes: None,
        });
    }

    fn segment(&mut self, segment: &Segment) {
        let event = &segment.record;
        let options = &segment.options;
        self.lines.write(&record::Segment {
            ts: self.clock.at(event.header.time_ns),
            conn: segment.conn.map(ConnId),
            netns: (event.tuple.netns != 0).then_some(event.tuple.netns.into()),
            tuple: tuple(&event.tuple, 0),
            direction: if event.sent != 0 { "sent" } else { "received" },
            flags: &flag_names(event.flags),
            seq: event.seq,
            ack: (event.flags as u8 & tcp_flag::ACK != 0).then_some(event.ack),
            seq_relative: segment.seq_relative,
            ack_relative: segment.ack_relative,
            payload_bytes: event.len,
            window: event.window,
            window_bytes: segment.window_bytes,
            options: record::SegmentOptions {
                mss: options.mss,
                window_scale: options.window_scale,
                sack_permitted: options.sack_permitted,
                sack: &options.sack,
                timestamp: options.timestamps.map(|(value, _)| value),
                timestamp_echo: options.timestamps.map(|(_, echo)| echo),
            },
        });
    }

    fn reset(&mut self, event: &ResetRecord) {
        self.lines.write(&record::ResetEvent {
            ts: self.clock.at(event.header.time_ns),
            conn: (event.conn != 0).then_some(ConnId(event.conn)),
            netns: (event.tuple.netns != 0).then_some(event.tuple.netns.into()),
            tuple: tuple(&event.tuple, 0),
            direction: if event.sent != 0 { "sent" } else { "received" },
            state: (event.conn != 0).then_some(track::state_name(event.state)),
            reason: reset_reason(&self.reset_reasons, event.reason),
        });
    }
}

/// Names of the flags in bytes 12 and 13 of the header.
fn flag_names(flags: u16) -> Vec<&'static str> {
    const NAMES: [&str; 9] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"];
    NAMES.into_iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, name)| name).collect()
}

fn reset_reason(names: &[(u32, String)], reason: u32) -> Option<&str> {
    // 0 is SK_RST_REASON_NOT_SPECIFIED.
    names.iter().find(|(value, _)| *value == reason && reason != 0).map(|(_, name)| name.as_str())
}

fn fields(headers: &[http::Field]) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
}

fn version((major, minor): (u8, u8)) -> String {
    format!("{major}.{minor}")
}

/// `ended_ns`: when the first FIN or RST ended the connection.
fn http_summary(summary: &http::Summary, ended_ns: Option<u64>) -> record::HttpSummary {
    let idle_at_close_ns =
        ended_ns.zip(summary.last_end_ns).and_then(|(ended, last)| ended.checked_sub(last));
    record::HttpSummary {
        requests: summary.requests,
        responses: summary.responses,
        idle_max_us: summary.idle_max_ns.map(Micros),
        idle_at_close_us: idle_at_close_ns.map(Micros),
        reuse: summary.reused > 0,
    }
}

fn process_record(process: &Process) -> record::Process<'_> {
    let info = process.info.as_deref();
    let comm = &process.owner.comm;
    let comm_len = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    record::Process {
        pid: process.owner.pid,
        comm: Some(Text(&comm[..comm_len])),
        exe: info.and_then(|info| info.exe.as_deref()).map(Text),
        cgroup: info.and_then(|info| info.cgroup.as_deref()).map(Text),
        container: info.and_then(|info| info.container.as_deref()).map(|id| Text(id.as_bytes())),
        source: process.source,
    }
}

fn role_name(role: u8) -> &'static str {
    match role {
        role::CLIENT => "client",
        role::SERVER => "server",
        _ => "unknown",
    }
}

fn protocol_name(protocol: &http::Protocol) -> Option<&'static str> {
    match protocol {
        http::Protocol::Unknown => None,
        http::Protocol::Http1 => Some("http/1"),
        http::Protocol::Http2 => Some("http/2"),
        http::Protocol::Tls => Some("tls"),
        http::Protocol::WebSocket => Some("websocket"),
        http::Protocol::Upgraded(_) => Some("upgraded"),
        http::Protocol::Tunnel => Some("tunnel"),
        http::Protocol::Other => Some("other"),
    }
}

/// No namespace has inode 0: a capture tells of none.
fn netns(tuple: &tracer_ebpf::Tuple) -> Option<u64> {
    (tuple.netns != 0).then(|| tuple.netns.into())
}

/// Addresses as the socket has them: one of family `AF_INET6` keeps an IPv4-mapped address.
fn tuple(tuple: &tracer_ebpf::Tuple, family: u8) -> Tuple {
    let end = |addr: [u8; 16], port: u16| {
        let addr = Ipv6Addr::from(addr);
        match addr.to_ipv4_mapped() {
            Some(v4) if i32::from(family) != libc::AF_INET6 => SocketAddr::from((v4, port)),
            _ => SocketAddr::from((addr, port)),
        }
    };
    Tuple::new(end(tuple.local_addr, tuple.local_port), end(tuple.remote_addr, tuple.remote_port))
}
