//! Bytes in, exchanges out: one case for each rule of the engine.

use super::*;

pub(super) const C: Direction = Direction::AToB;
pub(super) const S: Direction = Direction::BToA;

/// What happens on the wire, one after the other, 10 ns apart.
#[derive(Clone, Debug)]
enum Step {
    /// Captured payload.
    Client(&'static str),
    Server(&'static str),
    /// Payload seen, not captured.
    ClientSeen(u32),
    ServerSeen(u32),
    /// Payload that no record speaks of.
    ClientMissing(u64),
    ServerMissing(u64),
    ClientFin,
    ServerFin,
    Reset,
    Close,
}
use Step::*;

pub(super) struct Wire {
    pub flow: Flow,
    pub out: Vec<Output>,
    now_ns: u64,
    at: [u64; 2],
}

impl Wire {
    pub(super) fn new(client: Option<Direction>, from_start: bool) -> Self {
        Self::with(&Config::default(), client, from_start)
    }

    fn with(config: &Config, client: Option<Direction>, from_start: bool) -> Self {
        let mut flow = Flow::new(config, client, from_start);
        flow.established(1);
        Self { flow, out: Vec::new(), now_ns: 1, at: [0; 2] }
    }

    pub(super) fn at(&mut self, direction: Direction, offset: u64, len: u32, data: &[u8], fin: bool) {
        self.now_ns += 10;
        let segment = Segment { time_ns: self.now_ns, offset, len, data_offset: offset, data, fin };
        self.flow.segment(direction, &segment, &mut self.out);
    }

    pub(super) fn send(&mut self, direction: Direction, data: &[u8]) {
        let offset = self.at[direction.index()];
        self.at[direction.index()] += data.len() as u64;
        self.at(direction, offset, data.len() as u32, data, false);
    }

    pub(super) fn progress(&mut self, direction: Direction, end_offset: u64) {
        self.now_ns += 10;
        self.flow.progress(direction, end_offset, self.now_ns, &mut self.out);
    }

    fn seen(&mut self, direction: Direction, len: u32) {
        let offset = self.at[direction.index()];
        self.at[direction.index()] += u64::from(len);
        self.at(direction, offset, len, b"", false);
    }

    fn fin(&mut self, direction: Direction) {
        self.at(direction, self.at[direction.index()], 0, b"", true);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Client(data) => self.send(C, data.as_bytes()),
            Server(data) => self.send(S, data.as_bytes()),
            ClientSeen(len) => self.seen(C, *len),
            ServerSeen(len) => self.seen(S, *len),
            ClientMissing(len) => self.at[0] += len,
            ServerMissing(len) => self.at[1] += len,
            ClientFin => self.fin(C),
            ServerFin => self.fin(S),
            Reset => self.flow.reset(self.now_ns, &mut self.out),
            Close => self.flow.close(self.now_ns, &mut self.out),
        }
    }

    pub(super) fn exchanges(&self) -> Vec<&Exchange> {
        self.out
            .iter()
            .filter_map(|output| match output {
                Output::Exchange(exchange) => Some(&**exchange),
                Output::Skip { .. } => None,
            })
            .collect()
    }

    fn marks(&self) -> Vec<(Direction, Mark)> {
        let mark = |output: &Output| match output {
            Output::Skip { direction, mark } => Some((*direction, *mark)),
            Output::Exchange(_) => None,
        };
        self.out.iter().filter_map(mark).collect()
    }

    fn shown(&self) -> Vec<String> {
        self.exchanges().into_iter().map(shown).collect()
    }
}

/// An exchange on one line, times aside: `seq method target framing:content > informational status
/// framing:content outcome flags`.
pub(super) fn shown(exchange: &Exchange) -> String {
    let size = |bytes: Option<u64>| bytes.map_or("?".to_owned(), |bytes| bytes.to_string());
    let mut text = format!("{}", exchange.seq);
    match &exchange.request {
        Some(r) => {
            let (method, target) = (r.method.escape_ascii(), r.target.escape_ascii());
            text += &format!(" {method} {target} {}:{}", r.framing.as_str(), size(r.body_bytes));
        }
        None => text += " -",
    }
    text += " >";
    for status in &exchange.informational {
        text += &format!(" {status}");
    }
    match &exchange.response {
        Some(r) => text += &format!(" {} {}:{}", r.status, r.framing.as_str(), size(r.body_bytes)),
        None => text += " -",
    }
    text += &format!(" {}", exchange.outcome.as_str());
    for (flag, name) in
        [(exchange.reused, " reused"), (exchange.pipelined, " pipelined"), (!exchange.exact, " inexact")]
    {
        text += if flag { name } else { "" };
    }
    if let Some(reason) = exchange.malformed_reason {
        text += &format!(" ({reason})");
    }
    text
}

fn run(client: Option<Direction>, from_start: bool, steps: &[Step]) -> Wire {
    let mut wire = Wire::new(client, from_start);
    for step in steps {
        wire.step(step);
    }
    wire
}

/// The steps give these exchanges; the roles are known or told by the bytes.
#[track_caller]
fn check(steps: &[Step], expected: &[&str]) -> Wire {
    let wire = run(Some(C), true, steps);
    assert_eq!(wire.shown(), expected, "{steps:#?}");
    let unknown = run(None, true, steps);
    assert_eq!(unknown.shown(), expected, "roles not given: {steps:#?}");
    wire
}

#[track_caller]
fn check_joined(steps: &[Step], expected: &[&str]) -> Wire {
    let wire = run(Some(C), false, steps);
    assert_eq!(wire.shown(), expected, "{steps:#?}");
    assert_eq!(run(None, false, steps).shown(), expected, "roles not given: {steps:#?}");
    wire
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const OK2: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET_OK: &str = "1 GET /a none:0 > 200 content-length:2 complete";

#[test]
fn content_length() {
    check(&[Client(GET), Server(OK2)], &[GET_OK]);
    check(
        &[Client("POST /p HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"), Server("HTTP/1.1 204 No\r\n\r\n")],
        &["1 POST /p content-length:3 > 204 none:0 complete"],
    );
    check(
        &[Client(GET), Server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Close],
        &["1 GET /a none:0 > 200 content-length:0 complete"],
    );
    check(
        &[Client(GET), Server("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok")],
        &[GET_OK],
    );
}

#[test]
fn responses_without_content() {
    let head = "HEAD / HTTP/1.1\r\n\r\n";
    check(
        &[
            Client(head),
            Server("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
            Client(head),
            Server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Client(GET),
            Server("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &[
            "1 HEAD / none:0 > 200 none:0 complete",
            "2 HEAD / none:0 > 200 none:0 complete reused",
            "3 GET /a none:0 > 304 none:0 complete reused",
            "4 GET /a none:0 > 200 content-length:2 complete reused",
        ],
    );
}

#[test]
fn chunked() {
    check(
        &[
            Client("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3;x=y\r\nabc\r\n"),
            Client("a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"),
            Server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
            Client(GET),
            Server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n0\r\n\r\n"),
        ],
        &[
            "1 POST / chunked:13 > 200 chunked:1 complete",
            "2 GET /a none:0 > 200 chunked:0 complete reused (both Transfer-Encoding and Content-Length)",
        ],
    );
    check(
        &[Client(GET), Server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Close],
        &["1 GET /a none:0 > 200 chunked:? malformed (chunk size missing)"],
    );
}

#[test]
fn until_close() {
    let wire = check(
        &[Client(GET), Server("HTTP/1.0 200 OK\r\n\r\nabc"), ServerSeen(1000), ServerFin, ClientFin, Close],
        &["1 GET /a none:0 > 200 until-close:1003 complete"],
    );
    assert_eq!(wire.exchanges()[0].response_end_ns, Some(31), "the last byte, not the FIN");
    check(
        &[Client(GET), Server("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"), ServerFin],
        &["1 GET /a none:0 > 200 until-close:3 complete"],
    );
    check(
        &[Client(GET), Server("HTTP/1.0 200 OK\r\n\r\n"), ServerFin],
        &["1 GET /a none:0 > 200 until-close:0 complete"],
    );
    check(
        &[Client(GET), Server("HTTP/1.0 200 OK\r\n\r\nabc"), Reset],
        &["1 GET /a none:0 > 200 until-close:3 reset"],
    );
    check(
        &[Client(GET), Server("HTTP/1.0 200 OK\r\n\r\nabc"), Close],
        &["1 GET /a none:0 > 200 until-close:3 truncated inexact"],
    );
    // The bytes are not wanted and may go without record; the FIN says how many they were.
    let wire = check(
        &[Client(GET), Server("HTTP/1.0 200 OK\r\n\r\n"), ServerMissing(5000), ServerFin],
        &["1 GET /a none:0 > 200 until-close:5000 complete"],
    );
    assert_eq!(wire.marks(), [(S, Mark::Never)]);
    assert_eq!(wire.exchanges()[0].response_end_ns, None);
}

#[test]
fn interim_responses() {
    check(
        &[
            Client("PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
            Server("HTTP/1.1 100 Continue\r\n\r\n"),
            Client("ab"),
            Server(
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ),
        ],
        &["1 PUT / content-length:2 > 100 103 200 content-length:2 complete"],
    );
}

#[test]
fn upgrade_and_tunnel() {
    let ask = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\u{1}\u{2}";
    let wire = check(
        &[Client(ask), Server(switch), Client("GET GET GET"), Close],
        &["1 GET /ws none:0 > 101 none:0 upgraded"],
    );
    assert_eq!(wire.flow.protocol(), Protocol::WebSocket);
    assert_eq!(wire.marks(), [(C, Mark::Never), (S, Mark::Never)]);
    let wire = check(
        &[Client(ask), Server("HTTP/1.1 101 S\r\nUpgrade: h2c\r\n\r\n")],
        &["1 GET /ws none:0 > 101 none:0 upgraded"],
    );
    assert_eq!(wire.flow.protocol(), Protocol::Upgraded("h2c".into()));

    let connect = "CONNECT h:443 HTTP/1.1\r\n\r\n";
    let wire = check(
        &[
            Client(connect),
            Client("\u{16}\u{3}\u{1}"),
            Server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ],
        &["1 CONNECT h:443 none:0 > 200 none:0 tunnel"],
    );
    assert_eq!(wire.flow.protocol(), Protocol::Tunnel);
    assert_eq!(wire.marks(), [(C, Mark::Never), (S, Mark::Never)]);
    // Refused: what came early is the next request.
    check(
        &[Client(connect), Client(GET), Server("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"), Server(OK2)],
        &[
            "1 CONNECT h:443 none:0 > 407 content-length:0 complete",
            "2 GET /a none:0 > 200 content-length:2 complete reused",
        ],
    );
}

#[test]
fn pipelining() {
    check(
        &[
            Client("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nHEAD /3 HTTP/1.1\r\n\r\n"),
            Server(OK2),
            Server(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            ),
        ],
        &[
            "1 GET /1 none:0 > 200 content-length:2 complete",
            "2 GET /2 none:0 > 200 content-length:2 complete reused pipelined",
            "3 HEAD /3 none:0 > 200 none:0 complete reused pipelined",
        ],
    );
    let config = Config { outstanding_max: 3, ..Config::default() };
    let mut wire = Wire::with(&config, Some(C), true);
    for _ in 0..4 {
        wire.step(&Client(GET));
    }
    assert_eq!(wire.exchanges().len(), 3);
    assert_eq!(wire.shown()[0], "1 GET /a none:0 > - malformed (too many requests without response)");
    assert_eq!(wire.marks().len(), 2);
}

#[test]
fn early_responses() {
    let refused = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    let post = "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc";
    check(
        &[Client(post), Server(refused), Client("defghij"), Close],
        &["1 POST / content-length:10 > 413 content-length:2 complete"],
    );
    check(
        &[Client(post), Server(refused), ServerFin, Reset],
        &["1 POST / content-length:3 > 413 content-length:2 complete"],
    );
    check(
        &[Client("GET /very-long"), Server("HTTP/1.1 414 L\r\nContent-Length: 0\r\n\r\n"), Close],
        &["1 - > 414 content-length:0 complete inexact"],
    );
    check(
        &[
            Client("GET /a HTTP/1.1\r\nA: "),
            Server("HTTP/1.1 400 B\r\nContent-Length: 0\r\n\r\n"),
            Client("b\r\n\r\n"),
        ],
        &["1 GET /a none:0 > 400 content-length:0 complete"],
    );
}

#[test]
fn ends_without_response() {
    check(&[Client(GET), ServerFin, Close], &["1 GET /a none:0 > - no_response"]);
    check(&[Client(GET), Close], &["1 GET /a none:0 > - no_response"]);
    check(&[Client(GET), Reset], &["1 GET /a none:0 > - reset"]);
    // Sent while the server's FIN was on its way.
    check(
        &[Client(GET), Server(OK2), ServerFin, Client(GET), Reset],
        &[GET_OK, "2 GET /a none:0 > - reset reused"],
    );
    check(
        &[Client("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"), ClientFin, Close],
        &["1 POST / content-length:2 > - truncated"],
    );
    check(&[Client("GET /a HTTP/1.1\r\nHo"), Close], &["1 GET /a none:? > - truncated inexact"]);
    check(
        &[Client(GET), Server(OK2), Client("GET /lon"), Close],
        &[GET_OK, "2 - > - truncated reused inexact"],
    );
    check(
        &[Client(GET), Server("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), ServerFin],
        &["1 GET /a none:0 > 200 content-length:3 truncated"],
    );
    check(
        &[Client(GET), Server("HTTP/1.1 200 OK\r\nConte"), Close],
        &["1 GET /a none:0 > 200 none:? truncated inexact"],
    );
    check(&[Client(GET), Server("HTTP/1.1 20"), Close], &["1 GET /a none:0 > - no_response"]);
    // Half-closed client.
    check(&[Client(GET), ClientFin, Server(OK2)], &[GET_OK]);
}

#[test]
fn silence_is_no_exchange() {
    let wire = check(&[Client(GET), Server(OK2), ServerFin, ClientFin, Close], &[GET_OK]);
    assert_eq!(wire.marks(), []);
    check(&[Close], &[]);
    check(&[ServerFin, ClientFin, Close], &[]);
    // A server that gives up waiting says so.
    check(
        &[Server("HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"), ServerFin, Close],
        &["1 - > 408 content-length:0 complete inexact"],
    );
}

#[test]
fn leniency() {
    check(
        &[
            Client("\r\n\r\n\nGET /a HTTP/1.1\nHost: h\n\n"),
            Server("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
        ],
        &[GET_OK],
    );
    check(
        &[
            Client("GET /a HTTP/1.1\r\nHost : h\r\n\r\n"),
            Server("HTTP/1.1 200\r\nContent-Length : 2\r\n\r\nok"),
        ],
        &["1 GET /a none:0 > 200 content-length:2 complete (whitespace before colon)"],
    );
    check(
        &[Client("GET /a b HTTP/1.1\r\n\r\n"), Server(OK2)],
        &["1 GET /a b none:0 > 200 content-length:2 complete (whitespace in request target)"],
    );
    let wire = check(&[Client("\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n"), Server(OK2)], &[GET_OK]);
    assert_eq!(wire.exchanges()[0].request.as_ref().unwrap().header_bytes, GET.len() as u64);
}

#[test]
fn requests_that_cannot_be_framed() {
    let bad = "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n";
    for (fields, reason) in [
        ("Content-Length: 1\r\nContent-Length: 2", "contradictory Content-Length"),
        ("Content-Length: x", "invalid Content-Length"),
        ("Transfer-Encoding: chunked, gzip", "chunked is not the last transfer coding"),
    ] {
        let mut wire = Wire::new(Some(C), true);
        wire.send(C, format!("POST / HTTP/1.1\r\n{fields}\r\n\r\nGET / HTTP/1.1\r\n\r\n").as_bytes());
        wire.send(S, bad.as_bytes());
        wire.send(C, GET.as_bytes());
        wire.send(S, OK2.as_bytes());
        let first = &wire.shown()[0];
        let reason = if fields.contains("gzip") { "coding after chunked" } else { reason };
        assert_eq!(*first, format!("1 POST / none:? > 400 content-length:0 malformed ({reason})"));
        assert_eq!(wire.shown()[1..], ["2 GET /a none:0 > 200 content-length:2 complete reused"]);
    }
    check(
        &[Client(GET), Server("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\na"), Client(GET), Server(OK2)],
        &[
            "1 GET /a none:0 > 200 none:? malformed (contradictory Content-Length)",
            "2 GET /a none:0 > 200 content-length:2 complete reused",
        ],
    );
}

#[test]
fn other_protocols() {
    for (direction, bytes, protocol) in [
        (C, &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Protocol::Http2),
        (C, b"\x16\x03\x01\x02\x00", Protocol::Tls),
        (C, b"*1\r\n$4\r\nPING\r\n", Protocol::Other),
        (C, b"\0\0\0\x08\x04\xd2\x16\x2f", Protocol::Other),
        (C, b"get key\r\n", Protocol::Other),
        (S, b"SSH-2.0-OpenSSH_9\r\n", Protocol::Other),
        (S, b"220 mail ESMTP\r\n", Protocol::Other),
        (S, b"J\0\0\0\n5.7\0", Protocol::Other),
        (S, b"HTTP/2 200\r\n", Protocol::Other),
    ] {
        let mut wire = Wire::new(Some(C), true);
        wire.send(direction, bytes);
        wire.flow.close(9, &mut wire.out);
        assert_eq!(wire.flow.protocol(), protocol, "{}", bytes.escape_ascii());
        assert_eq!(wire.exchanges(), [] as [&Exchange; 0]);
        assert_eq!(wire.marks(), [(C, Mark::Never), (S, Mark::Never)]);
    }
    let wire = check(
        &[Client(GET), Server("garbage\r\n\r\n"), Client(GET)],
        &["1 GET /a none:0 > - malformed (not an HTTP/1.x message)"],
    );
    assert_eq!(wire.flow.protocol(), Protocol::Other);
    let wire = check(&[Client(GET), Server(OK2), Client("garbage\r\n\r\n")], &[GET_OK]);
    assert_eq!(wire.marks().len(), 2);
}

#[test]
fn head_too_large() {
    let config = Config { head_max_bytes: 100, ..Config::default() };
    let mut wire = Wire::with(&config, Some(C), true);
    wire.send(C, format!("GET /a HTTP/1.1\r\nA: b\r\nB: {}\r\n\r\n", "x".repeat(200)).as_bytes());
    wire.send(S, OK2.as_bytes());
    wire.send(C, GET.as_bytes());
    wire.send(S, format!("HTTP/1.1 200 OK\r\nB: {}\r\n\r\n", "x".repeat(200)).as_bytes());
    wire.send(C, GET.as_bytes());
    wire.send(S, OK2.as_bytes());
    assert_eq!(
        wire.shown(),
        [
            "1 GET /a none:? > 200 content-length:2 malformed (head too large)",
            "2 GET /a none:0 > 200 none:? malformed reused (head too large)",
            "3 GET /a none:0 > 200 content-length:2 complete reused",
        ]
    );
    assert_eq!(wire.exchanges()[0].request.as_ref().unwrap().headers.len(), 1);
    let mut wire = Wire::with(&config, Some(C), true);
    wire.send(C, format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(200)).as_bytes());
    assert_eq!(wire.flow.protocol(), Protocol::Other);
}

#[test]
fn times_idle_and_totals() {
    let steps = [
        Client("GET /a HT"),
        Client("TP/1.1\r\n\r\n"),
        Server("HTTP/1.1 200 OK\r\nContent-Len"),
        Server("gth: 2\r\n\r\no"),
        Server("k"),
        Client(GET),
        Server(OK2),
    ];
    let wire = check(&steps, &[GET_OK, "2 GET /a none:0 > 200 content-length:2 complete reused"]);
    let [first, second] = wire.exchanges()[..] else { panic!() };
    let times = |x: &Exchange| [x.started_ns, x.request_end_ns, x.response_start_ns, x.response_end_ns];
    assert_eq!(times(first), [11, 21, 31, 51].map(Some));
    assert_eq!(times(second), [61, 61, 71, 71].map(Some));
    assert_eq!((first.idle_before_ns, second.idle_before_ns), (Some(10), Some(10)));
    let Summary { requests, responses, reused, idle_max_ns, last_end_ns } = wire.flow.summary();
    assert_eq!((requests, responses, reused, idle_max_ns, last_end_ns), (2, 2, 1, Some(10), Some(71)));
}

#[test]
fn keep_alive_and_retransmits() {
    let mut wire = Wire::new(Some(C), true);
    wire.flow.retransmitted(9);
    wire.send(C, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    wire.flow.retransmitted(2);
    wire.flow.retransmitted(u32::MAX);
    wire.send(
        S,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\nKeep-Alive: timeout=5, max=7\r\n\r\n",
    );
    let exchange = wire.exchanges()[0];
    let expected = KeepAlive { request: Some(true), response: Some(false), timeout_s: Some(5), max: Some(7) };
    assert_eq!(exchange.keep_alive, expected);
    assert_eq!(exchange.retransmits, u32::MAX);
    assert_eq!(exchange.response.as_ref().unwrap().headers[2].1, b"timeout=5, max=7");
}

#[test]
fn uncaptured_content_of_known_length_is_exact() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    let whole = "1 GET /a none:0 > 200 content-length:100000 complete";
    let at = head.len() as u64 + 100_000;
    let wire = check(&[Client(GET), Server(head), ServerSeen(60_000), ServerSeen(40_000)], &[whole]);
    assert_eq!(wire.marks(), [(S, Mark::Until { offset: at, then_head: true })]);
    assert_eq!(wire.exchanges()[0].response_end_ns, Some(41));
    check(&[Client(GET), Server(head), ServerMissing(60_000), ServerSeen(40_000)], &[whole]);
    check(
        &[Client(GET), Server(head), ServerSeen(60_000), Close],
        &["1 GET /a none:0 > 200 content-length:60000 truncated inexact"],
    );
    // The last byte has no record: complete by what follows, but when is not known.
    let wire = check(
        &[Client(GET), Server(head), ServerMissing(100_000), ServerFin, Close],
        &["1 GET /a none:0 > 200 content-length:100000 complete inexact"],
    );
    assert_eq!(wire.exchanges()[0].response_end_ns, None);

    let mut wire = run(Some(C), true, &[Client(GET), Server(head)]);
    wire.flow.progress(S, at - 1, 70, &mut wire.out);
    assert_eq!(wire.exchanges().len(), 0);
    wire.flow.progress(S, at, 77, &mut wire.out);
    assert_eq!(wire.shown(), [whole]);
    assert_eq!(wire.exchanges()[0].response_end_ns, Some(77));
}

#[test]
fn bytes_reported_before_their_record_count_from_the_earlier_time() {
    let mut wire = run(Some(C), true, &[Client(GET)]);
    wire.flow.progress(S, OK2.len() as u64, 500, &mut wire.out);
    assert_eq!(wire.shown().len(), 0);
    wire.send(S, OK2.as_bytes());
    assert_eq!(wire.shown(), [GET_OK]);
    assert_eq!(wire.exchanges()[0].response_start_ns, Some(21));
}

#[test]
fn data_outside_the_payload_is_ignored() {
    let mut wire = run(Some(C), true, &[Client(GET)]);
    let data = format!("xx{OK2}yy");
    let segment = Segment {
        time_ns: 9,
        offset: 2,
        len: OK2.len() as u32,
        data_offset: 0,
        data: data.as_bytes(),
        fin: false,
    };
    wire.flow.segment(S, &segment, &mut wire.out);
    wire.at(S, 0, 2, b"\r\n", false);
    assert_eq!(wire.shown(), [GET_OK]);
}

#[test]
fn marks_of_chunks() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8000\r\n";
    let steps = [Client(GET), Server(head), ServerSeen(0x8000), Server("\r\n5\r\nhello\r\n0\r\n\r\n")];
    let wire = check(&steps, &["1 GET /a none:0 > 200 chunked:32773 complete"]);
    let offset = head.len() as u64 + 0x8000;
    assert_eq!(wire.marks(), [(S, Mark::Until { offset, then_head: false })]);
}

#[test]
fn chunk_sizes_that_were_not_captured() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    let lost = "1 GET /a none:0 > 200 chunked:? complete inexact";
    let next = "2 GET /a none:0 > 200 content-length:2 complete reused";
    let wire = check(&[Client(GET), Server(head), ServerSeen(5000), Client(GET), Server(OK2)], &[lost, next]);
    assert_eq!(wire.exchanges()[0].response_end_ns, Some(31), "the last byte seen before the turn");
    check(&[Client(GET), Server(head), ServerSeen(5000), ServerFin, Close], &[lost]);
    check(
        &[Client(GET), Server(head), ServerSeen(5000), Reset],
        &["1 GET /a none:0 > 200 chunked:? reset inexact"],
    );
    check(
        &[
            Client("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"),
            ClientSeen(5000),
            Server(OK2),
            Client(GET),
            Server(OK2),
        ],
        &["1 POST / chunked:? > 200 content-length:2 complete inexact", next],
    );
    // A late copy fills the gap.
    let mut wire = run(Some(C), true, &[Client(GET), Server(head), ServerSeen(9)]);
    wire.at(S, head.len() as u64, 9, b"lo\r\n0\r\n\r\n", false);
    assert_eq!(wire.shown(), ["1 GET /a none:0 > 200 chunked:5 complete"]);
    assert_eq!(wire.exchanges()[0].response_end_ns, Some(31));
}

#[test]
fn heads_that_were_not_captured() {
    let next = "2 GET /a none:0 > 200 content-length:2 complete reused";
    // The response's head is missing.
    check(
        &[
            Client(GET),
            ServerMissing(20),
            Server("\r\nContent-Length: 2\r\n\r\nok"),
            Client(GET),
            Server(OK2),
        ],
        &["1 GET /a none:0 > - truncated inexact", next],
    );
    // Its second half is.
    check(
        &[Client(GET), Server("HTTP/1.1 200 OK\r\nServer: x"), ServerSeen(90), Client(GET), Server(OK2)],
        &["1 GET /a none:0 > 200 none:? complete inexact", next],
    );
    // The request's is.
    check(
        &[Client("GET /a HTTP/1.1\r\nA: "), ClientSeen(90), Server(OK2), Client(GET), Server(OK2)],
        &["1 GET /a none:? > 200 content-length:2 complete inexact", next],
    );
    check(
        &[Client(GET), Server(OK2), ClientMissing(9), Client("\r\n\r\n"), Server(OK2)],
        &[GET_OK, "2 - > 200 content-length:2 complete reused inexact"],
    );
    // Nothing of the request was captured.
    check(
        &[Client(GET), Server(OK2), ClientSeen(90), Server(OK2), Client(GET), Server(OK2)],
        &[
            GET_OK,
            "2 - > 200 content-length:2 complete reused inexact",
            "3 GET /a none:0 > 200 content-length:2 complete reused",
        ],
    );
    // A whole response went by without record.
    check(
        &[Client(GET), ServerMissing(40), Client(GET), Server(OK2), Client(GET), Server(OK2)],
        &[
            "1 GET /a none:0 > - truncated inexact",
            "2 GET /a none:0 > - truncated reused pipelined inexact",
            "3 GET /a none:0 > 200 content-length:2 complete reused",
        ],
    );
}

#[test]
fn waiting_is_bounded() {
    let config = Config { reorder_max_bytes: 4096, ..Config::default() };
    let mut wire = Wire::with(&config, Some(C), true);
    wire.send(C, GET.as_bytes());
    wire.step(&ServerMissing(1));
    for _ in 0..100 {
        wire.send(S, &[b'x'; 100]);
        assert!(wire.flow.sides[1].stream.cost_bytes() <= 4096);
    }
    wire.send(C, GET.as_bytes());
    wire.send(S, OK2.as_bytes());
    assert_eq!(
        wire.shown(),
        ["1 GET /a none:0 > - truncated inexact", "2 GET /a none:0 > 200 content-length:2 complete reused",]
    );
}

#[test]
fn joined_midway() {
    check_joined(&[Client(GET), Server(OK2)], &[GET_OK]);
    check_joined(&[Server("the rest of some content"), Client(GET), Server(OK2)], &[GET_OK]);
    check_joined(
        &[Client("more content"), Server(OK2), Client(GET), Server(OK2)],
        &[
            "1 - > 200 content-length:2 complete inexact",
            "2 GET /a none:0 > 200 content-length:2 complete reused",
        ],
    );
    // It may answer a HEAD: what it announces need not come.
    let wire = check_joined(
        &[Server("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"), Client(GET), Server(OK2)],
        &[
            "1 - > 200 content-length:? complete inexact",
            "2 GET /a none:0 > 200 content-length:2 complete reused",
        ],
    );
    assert_eq!(wire.marks(), []);
    // Content that looks like a message in the middle of a turn is not believed.
    check_joined(&[Server("xx"), Server(OK2), Client(GET), Server(OK2)], &[GET_OK]);
    let steps: Vec<Step> =
        (0..20).flat_map(|_| [Client("\u{17}\u{3}\u{3}"), Server("\u{17}\u{3}\u{3}")]).collect();
    let wire = check_joined(&steps, &[]);
    assert_eq!(wire.flow.protocol(), Protocol::Tls);
    assert_eq!(wire.marks().len(), 2);
}

#[test]
fn idle_flow_is_small() {
    assert!(size_of::<Flow>() < 512, "{}", size_of::<Flow>());
    let wire = check(&[Client(GET), Server(OK2)], &[GET_OK]);
    assert!(wire.flow.sides.iter().all(|side| side.stream.cost_bytes() == 0));
    assert!(wire.flow.queue.capacity() <= 4);
}
