//! Where HTTP/1.x ends and another protocol begins (RFC 9110 §7.8, §9.3.6).

use super::Step::*;
use super::{C, Case, GET, OK2, S, SECOND, case};
use crate::http::Mark;

const ASK: &[u8] = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const CONNECT: &[u8] = b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n";

pub(super) const CASES: &[Case] = &[
    case(
        "RFC 6455 §4: WebSocket; frames may follow the head at once",
        &[
            Client(ASK),
            Server(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi"),
            Client(b"\x82\x7eGET / HTTP/1.1\r\n\r\n"),
            Close,
        ],
        &["1 GET /ws none:0 > 101 none:0 upgraded"],
    )
    .protocol("WebSocket"),
    case(
        "RFC 9110 §7.8: any other protocol by its name",
        &[
            Client(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"),
            Server(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
            Client(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ],
        &["1 GET / none:0 > 101 none:0 upgraded"],
    )
    .protocol("Upgraded(\"h2c\")"),
    case(
        "RFC 9110 §7.8: a server may ignore Upgrade",
        &[Client(ASK), Server(OK2), Client(GET), Server(OK2)],
        &["1 GET /ws none:0 > 200 content-length:2 complete", SECOND],
    ),
    case(
        "RFC 9110 §15.5.22: 426 asks for an upgrade and is none",
        &[
            Client(GET),
            Server(b"HTTP/1.1 426 Upgrade\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &["1 GET /a none:0 > 426 content-length:0 complete", SECOND],
    ),
    case(
        "RFC 9110 §7.8: 100 comes before 101",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"),
            Server(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Client(b"a"),
            Server(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"),
        ],
        &["1 POST / content-length:1 > 100 101 none:0 upgraded"],
    )
    .protocol("Upgraded(\"x\")"),
    case(
        "RFC 9110 §7.8: what was asked behind the upgrade is the new protocol's, and said to be lost",
        &[
            Client(ASK),
            Client(GET),
            Server(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n"),
        ],
        &[
            "1 GET /ws none:0 > 101 none:0 upgraded",
            "2 GET /a none:0 > - malformed reused pipelined (sent before the protocol changed)",
        ],
    )
    .protocol("WebSocket"),
    case(
        "RFC 9110 §9.3.6: 2xx to CONNECT begins a tunnel, whatever its framing fields",
        &[
            Client(CONNECT),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Client(b"\x16\x03\x01"),
            Server(b"\x16\x03\x03"),
            Close,
        ],
        &["1 CONNECT h:443 none:0 > 200 none:0 tunnel (both Transfer-Encoding and Content-Length)"],
    )
    .protocol("Tunnel"),
    case(
        "RFC 9110 §9.3.6: the client's bytes may be sent before the tunnel is there",
        &[Client(CONNECT), Client(b"\x16\x03\x01"), Server(b"HTTP/1.1 299 Fine\r\n\r\n")],
        &["1 CONNECT h:443 none:0 > 299 none:0 tunnel"],
    )
    .protocol("Tunnel"),
    case(
        "RFC 9110 §9.3.6: HTTP inside of the tunnel is the tunnel's",
        &[Client(CONNECT), Server(b"HTTP/1.1 200 OK\r\n\r\n"), Client(GET), Server(OK2)],
        &["1 CONNECT h:443 none:0 > 200 none:0 tunnel"],
    )
    .protocol("Tunnel"),
    case(
        "RFC 9110 §9.3.6: CONNECT is refused: what came early is the next request",
        &[
            Client(CONNECT),
            Client(GET),
            Server(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"),
            Server(OK2),
        ],
        &["1 CONNECT h:443 none:0 > 407 content-length:0 complete", SECOND],
    ),
    case(
        "RFC 9110 §9.3.6: CONNECT is refused with content",
        &[
            Client(CONNECT),
            Server(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"),
            Client(GET),
            Server(OK2),
        ],
        &["1 CONNECT h:443 none:0 > 403 content-length:2 complete", SECOND],
    ),
    case(
        "RFC 9110 §9.3.6: CONNECT behind a request, answered in its turn",
        &[
            Client(GET),
            Client(CONNECT),
            Client(b"\x16\x03\x01"),
            Server(OK2),
            Server(b"HTTP/1.1 200 OK\r\n\r\n\x16"),
            Client(b"\x17"),
        ],
        &[super::GET_OK, "2 CONNECT h:443 none:0 > 200 none:0 tunnel reused pipelined"],
    )
    .protocol("Tunnel"),
    case(
        "RFC 9110 §9.3.6: CONNECT is never answered",
        &[Client(CONNECT), Client(b"early"), ServerFin, Close],
        &["1 CONNECT h:443 none:0 > - no_response"],
    ),
];

#[test]
fn they_cost_nothing_further() {
    let left = ["WebSocket", "Tunnel", "Upgraded(\"h2c\")"];
    for case in CASES.iter().filter(|case| left.contains(&case.protocol)) {
        let wire = case.play(Some(C));
        assert_eq!(wire.marks(), [(C, Mark::Never), (S, Mark::Never)], "{}", case.clause);
        assert_eq!(wire.flow.held_bytes(), 0, "{}", case.clause);
    }
}
