//! Requests sent before the answers have come (RFC 9112 §9.3.2).

use super::Step::*;
use super::{C, Case, GET, OK2, SECOND, Wire, case};
use crate::http::Config;

pub(super) const CASES: &[Case] = &[
    case(
        "§9.3.2: answers come in the order of the requests, each framed by its own method",
        &[
            Client(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nHEAD /3 HTTP/1.1\r\nHost: h\r\n\r\n"),
            Server(OK2),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
        ],
        &[
            "1 GET /1 none:0 > 200 content-length:2 complete",
            "2 GET /2 none:0 > 200 content-length:2 complete reused pipelined",
            "3 HEAD /3 none:0 > 200 none:0 complete reused pipelined",
        ],
    ),
    case(
        "§9.3.2: sent while the answer is on its way is pipelined as well",
        &[
            Client(GET),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"),
            Client(b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"),
            Server(b"cd"),
            Server(OK2),
        ],
        &[
            "1 GET /a none:0 > 200 content-length:4 complete",
            "2 GET /2 none:0 > 200 content-length:2 complete reused pipelined",
        ],
    ),
    case(
        "§9.3.2: sent behind the whole answer is not pipelined",
        &[Client(GET), Server(OK2), Client(GET), Server(OK2)],
        &["1 GET /a none:0 > 200 content-length:2 complete", SECOND],
    ),
    case(
        "§9.3.2: content of pipelined requests and answers",
        &[
            Client(b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcPOST /2 HTTP/1.1\r\nHost: h\r\n"),
            Client(b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\n\r\nHTTP/1.1 204 N\r\n\r\n"),
            Server(OK2),
        ],
        &[
            "1 POST /1 content-length:3 > 200 chunked:1 complete",
            "2 POST /2 chunked:1 > 204 none:0 complete reused pipelined",
            "3 GET /3 none:0 > 200 content-length:2 complete reused pipelined",
        ],
    ),
    case(
        "§9.3.2: the server ends the connection behind one answer, the others never come",
        &[
            Client(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
            ServerFin,
        ],
        &["1 GET /1 none:0 > 200 content-length:2 complete", "2 GET /2 none:0 > - no_response reused pipelined"],
    ),
    case(
        "§9.3.2: a reset takes all that were not answered",
        &[
            Client(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"),
            Reset,
        ],
        &[
            "1 GET /1 none:0 > 200 content-length:2 reset",
            "2 GET /2 none:0 > - reset reused pipelined",
        ],
    ),
    case(
        "§9.3.2: an answer until close leaves the others without",
        &[
            Client(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\n\r\nabc"),
            Server(OK2),
            ServerFin,
        ],
        &["1 GET /1 none:0 > 200 until-close:43 complete", "2 GET /2 none:0 > - no_response reused pipelined"],
    ),
];

#[test]
fn a_flow_with_too_many_requests_is_followed_no_further() {
    let config = Config { outstanding_max: 3, ..Config::default() };
    let mut wire = Wire::with(&config, Some(C), true);
    (0..4).for_each(|_| wire.step(Client(GET)));
    assert_eq!(wire.exchanges().len(), 3);
    assert_eq!(wire.shown()[0], "1 GET /a none:0 > - malformed (too many requests without response)");
    assert_eq!(wire.marks().len(), 2);
}
