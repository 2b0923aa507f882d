//! One record of each kind with everything known, and one with as little known as possible.

use super::*;
use crate::emit::headers::HeaderPolicy;
use crate::emit::text::Text;
use crate::emit::time::Timestamp;
use crate::filter::Filter;
use serde::Serialize;
use serde_json::json;
use std::net::SocketAddr;

const TS: Timestamp = Timestamp::from_unix_ns(1_709_210_096_000_000_007);
const CONN: ConnId = ConnId(0xc0ffee);

const PROCESS: Process<'static> = Process {
    pid: 4711,
    comm: Some(Text(b"ng\xffinx")),
    exe: Some(Text(b"/usr/sbin/nginx")),
    cgroup: Some(Text(b"/system.slice/nginx.service")),
    container: Some(Text(b"0123456789ab")),
    source: "connect",
};

fn tuple(local: &str, remote: &str) -> Tuple {
    Tuple::new(local.parse::<SocketAddr>().unwrap(), remote.parse::<SocketAddr>().unwrap())
}

fn known() -> Tuple {
    tuple("[::ffff:10.0.0.1]:43210", "[::ffff:10.0.0.2]:80")
}

fn unbound() -> Tuple {
    tuple("[::]:0", "[2001:db8::1]:443")
}

/// Samples as lines, with the kind of each.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    let records = [
        starts(),
        conns(),
        https(),
        time_waits(),
        findings(),
        stats(),
        states(),
        retransmits(),
        resets(),
        segments(),
    ];
    records.into_iter().flatten().collect()
}

fn line(kind: &'static str, record: impl Serialize) -> (&'static str, String) {
    (kind, serde_json::to_string(&record).unwrap())
}

fn starts() -> Vec<(&'static str, String)> {
    let filter = Filter {
        ports: vec![80],
        hosts: vec!["10.0.0.0/8".parse().unwrap()],
        pids: vec![1],
        comms: vec!["nginx".into()],
    };
    let hooks = [
        Hook { hook: "tcp:tcp_destroy_sock", way: Some("tp_btf"), attached: true, reason: None, lost: None },
        Hook {
            hook: "inet_twsk_alloc",
            way: None,
            attached: false,
            reason: Some("no BTF"),
            lost: Some("begin of TIME_WAIT"),
        },
    ];
    let full = Start {
        ts: TS,
        schema: SCHEMA_VERSION,
        tracer: "0.1.0",
        kernel: Text(b"6.12.0"),
        hostname: Text(b"host"),
        boot_id: Some(Text(b"3f1c5c1e-0000-4000-8000-000000000000")),
        hooks: &hooks,
        capture: Some("cgroup"),
        interfaces: &[Text(b"lo"), Text(b"eth0")],
        files: &[Text(b"a.pcap")],
        filters: &filter,
        limits: Map(&[("connections", 262_144), ("ring_bytes", 8 << 20)]),
    };
    let everything = Filter::default();
    let bare = Start {
        boot_id: None,
        hooks: &[],
        capture: None,
        interfaces: &[],
        files: &[],
        filters: &everything,
        limits: Map(&[]),
        ..full.clone()
    };
    vec![line("start", &full), line("start", &bare)]
}

fn conns() -> Vec<(&'static str, String)> {
    let states = [
        StateAt { state: "SYN_SENT", at_us: Some(Micros(0)) },
        StateAt { state: "TIME_WAIT", at_us: Some(Micros(1_234_567)) },
    ];
    let full = Conn {
        ts: TS,
        id: CONN,
        peer: Some(ConnId(1)),
        cookie: Some(Cookie(0x2a)),
        netns: Some(4_026_531_840),
        tuple: known(),
        role: "client",
        process: Some(PROCESS),
        protocol: Some("http/1"),
        opened: Some(TS),
        established: Some(TS),
        closed: Some(TS),
        preexisting: false,
        open: false,
        first_seen: TS,
        duration_us: Some(Micros(1_234_567)),
        handshake_us: Some(Micros(98_000)),
        states: &states,
        close: Close {
            by: Some("local"),
            how: Some("fin"),
            reason: Some("TCP_CLOSE"),
            at_us: Some(Micros(1)),
        },
        bytes_sent: Some(100),
        bytes_received: Some(2000),
        segments: SegmentTotals { sent: Some(5), received: Some(4) },
        retransmits: Retransmits {
            segments: Some(3),
            syn: Some(2),
            syn_at_us: &[Micros(1_032_000_000), Micros(3_048_000_000)],
            synack: Some(0),
            bytes: Some(10),
        },
        retransmits_received: Some(RetransmitsReceived { segments: 1, bytes: 1448 }),
        rtt_us: Rtt { min: Some(Micros(20_000)), smoothed: Some(Micros(21_125)) },
        keepalive_probes: KeepaliveProbes { sent: Some(0), received: Some(0) },
        zero_windows: ZeroWindows { sent: Some(1), received: Some(0) },
        http: Some(HttpSummary {
            requests: 2,
            responses: 2,
            idle_max_us: Some(Micros(5_000)),
            idle_at_close_us: Some(Micros(60_000_000_000)),
            reuse: true,
        }),
        time_wait: Some(true),
        complete: true,
        lost: Some(0),
    };
    let bare = Conn {
        peer: None,
        cookie: None,
        netns: None,
        tuple: unbound(),
        role: "unknown",
        process: Some(Process {
            comm: None,
            exe: None,
            cgroup: None,
            container: None,
            source: "snapshot",
            ..PROCESS
        }),
        protocol: None,
        opened: None,
        established: None,
        closed: None,
        preexisting: true,
        open: true,
        duration_us: None,
        handshake_us: None,
        states: &[StateAt { state: "ESTABLISHED", at_us: None }],
        close: Close::default(),
        bytes_sent: None,
        bytes_received: None,
        segments: SegmentTotals::default(),
        retransmits: Retransmits::default(),
        retransmits_received: None,
        rtt_us: Rtt::default(),
        keepalive_probes: KeepaliveProbes::default(),
        zero_windows: ZeroWindows::default(),
        http: None,
        time_wait: None,
        complete: false,
        lost: None,
        ..full.clone()
    };
    let once = Conn {
        http: Some(HttpSummary {
            requests: 1,
            responses: 0,
            idle_max_us: None,
            idle_at_close_us: None,
            reuse: false,
        }),
        ..bare.clone()
    };
    vec![line("conn", &full), line("conn", &bare), line("conn", &once)]
}

fn https() -> Vec<(&'static str, String)> {
    let policy = HeaderPolicy::new(&["all".into()], &[], true);
    let fields: [(&[u8], &[u8]); 3] = [(b"Cookie", b"a=b"), (b"Via", b"1.1 a"), (b"via", b"1.1 \xff\\\"")];
    let target = policy.target(b"/\xff?token=secret");
    let full = Http {
        ts: TS,
        conn: CONN,
        seq: 1,
        role: "server",
        tuple: known(),
        process: Some(PROCESS),
        request: Some(Request {
            method: Some(Text(b"GET")),
            target: Some(Text(&target)),
            version: Some(Text(b"1.1")),
            host: Some(Text(b"example.org")),
            header_bytes: Some(120),
            body_bytes: Some(0),
            framing: Some("none"),
            headers: policy.select(fields),
        }),
        response: Some(Response {
            status: Some(200),
            reason: Some(Text(b"OK")),
            version: Some(Text(b"1.1")),
            header_bytes: Some(90),
            body_bytes: Some(5),
            framing: Some("chunked"),
            headers: policy.select(fields),
        }),
        informational: &[103, 100],
        started: Some(TS),
        timeline: Timeline {
            request_end_us: Some(Micros(10)),
            response_start_us: Some(Micros(1_000)),
            response_end_us: Some(Micros(2_001)),
        },
        duration_us: Some(Micros(2_001)),
        ttfb_us: Some(Micros(990)),
        idle_before_us: Some(Micros(7)),
        reused: Some(false),
        pipelined: false,
        keep_alive: KeepAlive {
            request: Some(true),
            response: Some(false),
            timeout_s: Some(5),
            max: Some(100),
        },
        outcome: "complete",
        exact: true,
        malformed: Some("whitespace before the colon"),
        retransmits: Some(0),
    };
    let bare = Http {
        tuple: unbound(),
        role: "unknown",
        process: None,
        request: None,
        response: None,
        informational: &[],
        started: None,
        timeline: Timeline::default(),
        duration_us: None,
        ttfb_us: None,
        idle_before_us: None,
        reused: None,
        keep_alive: KeepAlive::default(),
        outcome: "no_response",
        exact: false,
        malformed: None,
        retransmits: None,
        ..full.clone()
    };
    let (request, response) = (full.request.clone().unwrap(), full.response.clone().unwrap());
    let malformed = Http {
        outcome: "malformed",
        request: Some(Request {
            method: None,
            target: None,
            version: None,
            host: None,
            header_bytes: None,
            body_bytes: None,
            framing: None,
            ..request
        }),
        response: Some(Response {
            status: None,
            reason: None,
            version: None,
            header_bytes: None,
            body_bytes: None,
            framing: None,
            ..response
        }),
        ..full.clone()
    };
    vec![line("http", &full), line("http", &bare), line("http", &malformed)]
}

fn time_waits() -> Vec<(&'static str, String)> {
    let full = TimeWait {
        ts: TS,
        conn: Some(CONN),
        netns: Some(4_026_531_840),
        tuple: known(),
        process: Some(PROCESS),
        began: Some(TS),
        ended: TS,
        duration_us: Some(Micros(1_500_000_000)),
        end: "reused",
        end_source: "observed",
        reused_by: Some("connect"),
        closer: Some("local"),
        requests: Some(1),
        cause: Some("no_keep_alive"),
        preexisting: false,
    };
    let bare = TimeWait {
        conn: None,
        netns: None,
        tuple: tuple("[2001:db8::2]:43210", "[2001:db8::1]:443"),
        process: None,
        began: None,
        duration_us: None,
        end: "unknown",
        end_source: "inferred",
        reused_by: None,
        closer: None,
        requests: None,
        cause: None,
        preexisting: true,
        ..full.clone()
    };
    vec![line("time_wait", &full), line("time_wait", &bare)]
}

fn findings() -> Vec<(&'static str, String)> {
    let full = Finding {
        ts: TS,
        kind: "selfcheck",
        severity: "warning",
        subject: json!({"counter": "active_opens"}),
        summary: "The tracer counted 3 and the kernel 4.".into(),
        evidence: json!({"ours": 3, "kernel": 4, "examples": ["c0ffee"]}),
        remedy: "Report this.".into(),
        first_seen: TS,
        last_seen: TS,
        count: 1,
    };
    let bare = Finding { subject: json!({}), evidence: json!({}), ..full.clone() };
    vec![line("finding", &full), line("finding", &bare)]
}

fn stats() -> Vec<(&'static str, String)> {
    let selfcheck = json!({"opened": {"ours": 3, "kernel": 3}});
    let tables = [("connections", Table { entries: Some(3), capacity: Some(262_144), evictions: 0 })];
    let full = Stats {
        ts: TS,
        is_final: true,
        interval_s: 10.0,
        events: Map(&[("state", 12), ("segment", 40)]),
        lost: Map(&[("ring", 0), ("output", 1)]),
        tables: Map(&tables),
        segments: Segments {
            seen: Some(40),
            bytes_seen: Some(4000),
            copied: Some(2),
            bytes_copied: Some(300),
        },
        capture: Some(Capture {
            files: 1,
            damaged_files: 0,
            packets: 41,
            packet_bytes: 6000,
            skipped: Map(&[("not_tcp", 1)]),
        }),
        output_bytes: 12_345,
        output_lines: 12,
        cpu: Cpu { user_s: 0.25, system_s: 0.125 },
        selfcheck: Some(&selfcheck),
    };
    let bare = Stats {
        is_final: false,
        events: Map(&[]),
        lost: Map(&[]),
        tables: Map(&[("flows", Table { entries: None, capacity: None, evictions: 0 })]),
        segments: Segments::default(),
        capture: None,
        selfcheck: None,
        ..full
    };
    vec![line("stats", full), line("stats", bare)]
}

fn states() -> Vec<(&'static str, String)> {
    let full = StateEvent {
        ts: TS,
        conn: Some(CONN),
        netns: Some(4_026_531_840),
        tuple: known(),
        old_state: "ESTABLISHED",
        new_state: "FIN_WAIT1",
        in_state_us: Some(Micros(17)),
    };
    let bare = StateEvent { conn: None, netns: None, tuple: unbound(), in_state_us: None, ..full };
    vec![line("state", full), line("state", bare)]
}

fn retransmits() -> Vec<(&'static str, String)> {
    let full = RetransmitEvent {
        ts: TS,
        conn: Some(CONN),
        netns: Some(4_026_531_840),
        tuple: known(),
        kind: "data",
        state: Some("ESTABLISHED"),
        segments: Some(1),
        bytes: Some(1448),
    };
    let bare = RetransmitEvent {
        conn: None,
        netns: None,
        kind: "synack",
        state: None,
        segments: None,
        bytes: None,
        ..full
    };
    vec![line("retransmit", full), line("retransmit", bare)]
}

fn resets() -> Vec<(&'static str, String)> {
    let full = ResetEvent {
        ts: TS,
        conn: Some(CONN),
        netns: Some(4_026_531_840),
        tuple: known(),
        direction: "sent",
        state: Some("ESTABLISHED"),
        reason: Some("NO_SOCKET"),
    };
    let bare =
        ResetEvent { conn: None, netns: None, direction: "received", state: None, reason: None, ..full };
    vec![line("reset", full), line("reset", bare)]
}

fn segments() -> Vec<(&'static str, String)> {
    let options = SegmentOptions {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        sack: &[(1, 2), (5, 9)],
        timestamp: Some(77),
        timestamp_echo: Some(0),
    };
    let full = record_of_a_segment(options);
    let bare = Segment {
        conn: None,
        netns: None,
        flags: &[],
        ack: None,
        seq_relative: None,
        ack_relative: None,
        window_bytes: None,
        ..record_of_a_segment(SegmentOptions::default())
    };
    vec![line("segment", full), line("segment", bare)]
}

fn record_of_a_segment(options: SegmentOptions<'_>) -> Segment<'_> {
    Segment {
        ts: TS,
        conn: Some(CONN),
        netns: Some(4_026_531_840),
        tuple: known(),
        direction: "sent",
        flags: &["SYN", "ACK"],
        seq: u32::MAX,
        ack: Some(1),
        seq_relative: Some(0),
        ack_relative: Some(1),
        payload_bytes: 0,
        window: 65535,
        window_bytes: Some(65535),
        options,
    }
}
