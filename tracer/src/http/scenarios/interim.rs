//! Interim responses (RFC 9110 §15.2) and `Expect: 100-continue` (§10.1.1).

use super::Step::*;
use super::{Case, GET, OK2, SECOND, case};

const EXPECT: &[u8] = b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";

pub(super) const CASES: &[Case] = &[
    case(
        "RFC 9110 §10.1.1: the client waits for 100, then sends its content",
        &[Client(EXPECT), Server(b"HTTP/1.1 100 Continue\r\n\r\n"), Client(b"ab"), Server(OK2)],
        &["1 PUT / content-length:2 > 100 200 content-length:2 complete"],
    ),
    case(
        "RFC 9110 §10.1.1: the client need not wait",
        &[Client(EXPECT), Client(b"ab"), Server(b"HTTP/1.1 100 Continue\r\n\r\n"), Server(OK2)],
        &["1 PUT / content-length:2 > 100 200 content-length:2 complete"],
    ),
    case(
        "RFC 9110 §10.1.1: refused by a final response, the content is never sent",
        &[
            Client(EXPECT),
            Server(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            ServerFin,
            ClientFin,
            Close,
        ],
        &["1 PUT / content-length:0 > 417 content-length:0 complete"],
    ),
    case(
        "RFC 9110 §10.1.1: answered at once, and the content sent all the same",
        &[Client(EXPECT), Server(OK2), Client(b"ab"), Client(GET), Server(OK2)],
        &["1 PUT / content-length:2 > 200 content-length:2 complete", SECOND],
    ),
    case(
        "RFC 9110 §15.2: any number of interim responses, in one piece with the final one",
        &[
            Client(GET),
            Server(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
            Server(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            Client(GET),
            Server(OK2),
        ],
        &["1 GET /a none:0 > 102 103 103 200 content-length:2 complete", SECOND],
    ),
    case(
        "§6.3: an interim response has no content, whatever it announces",
        &[
            Client(GET),
            Server(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Server(OK2),
        ],
        &["1 GET /a none:0 > 103 200 content-length:2 complete"],
    ),
    case(
        "RFC 9110 §15.2: an interim response is no answer",
        &[Client(GET), Server(b"HTTP/1.1 103 Early Hints\r\n\r\n"), ServerFin],
        &["1 GET /a none:0 > 103 - no_response"],
    ),
    case(
        "RFC 9110 §15.2: interim responses belong to the oldest request without answer",
        &[
            Client(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n"),
            Server(b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 204 N\r\n\r\nHTTP/1.1 102 P\r\n\r\n"),
            Server(OK2),
        ],
        &[
            "1 GET /1 none:0 > 103 204 none:0 complete",
            "2 GET /a none:0 > 102 200 content-length:2 complete reused pipelined",
        ],
    ),
];
