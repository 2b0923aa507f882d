//! Final responses before the request is complete (RFC 9112 §9.5, RFC 9110 §7.5), and what follows them.

use super::Step::*;
use super::{Case, GET, OK2, SECOND, case};

const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc";
const REFUSED: &[u8] = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
const BAD: &[u8] = b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n";

pub(super) const CASES: &[Case] = &[
    case(
        "§9.5: 413 while the content is on its way, which comes all the same",
        &[Client(POST), Server(REFUSED), Client(b"defghij"), Close],
        &["1 POST / content-length:10 > 413 content-length:2 complete"],
    ),
    case(
        "§9.5: 413, after which the client stops and the next request follows its content",
        &[Client(POST), Server(OK2), Client(b"defghij"), Client(GET), Server(OK2)],
        &["1 POST / content-length:10 > 200 content-length:2 complete", SECOND],
    ),
    case(
        "§9.6: 413, FIN, and the reset that answers the rest of the content",
        &[Client(POST), Server(REFUSED), ServerFin, Client(b"def"), Reset],
        &["1 POST / content-length:6 > 413 content-length:2 complete"],
    ),
    case(
        "§9.6: a reset in the middle of the early answer",
        &[Client(POST), Server(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nn"), Reset],
        &["1 POST / content-length:3 > 413 content-length:1 reset"],
    ),
    case(
        "§9.5: 413 in the middle of chunks",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
            Server(REFUSED),
            ClientFin,
            ServerFin,
            Close,
        ],
        &["1 POST / chunked:2 > 413 content-length:2 complete"],
    ),
    case(
        "§3: 414 before the request line is whole",
        &[
            Client(b"GET /very-long"),
            Server(b"HTTP/1.1 414 Long\r\nContent-Length: 0\r\n\r\n"),
            ServerFin,
            Close,
        ],
        &["1 - > 414 content-length:0 complete inexact"],
    ),
    case(
        "§5: 400 in the middle of the head, which then ends",
        &[Client(b"GET /a HTTP/1.1\r\nHost: h\r\nA: "), Server(BAD), Client(b"b\r\n\r\n")],
        &["1 GET /a none:0 > 400 content-length:0 complete"],
    ),
    case(
        "§5: 431 in the middle of the head, and a reset",
        &[
            Client(b"GET /a HTTP/1.1\r\nHost: h\r\nA: "),
            Server(b"HTTP/1.1 431 Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
            ServerFin,
            Reset,
        ],
        &["1 GET /a ?:? > 431 content-length:0 complete"],
    ),
    case(
        "RFC 9110 §15.5.9: 408 without any request",
        &[
            Server(b"HTTP/1.1 408 Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
            ServerFin,
            ClientFin,
            Close,
        ],
        &["1 - > 408 content-length:0 complete inexact"],
    ),
    case(
        "RFC 9110 §15.5.9: 408 when an idle connection is given up",
        &[
            Client(GET),
            Server(OK2),
            Server(b"HTTP/1.1 408 Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
            ServerFin,
            ClientFin,
            Close,
        ],
        &[super::GET_OK, "2 - > 408 content-length:0 complete reused inexact"],
    ),
];
