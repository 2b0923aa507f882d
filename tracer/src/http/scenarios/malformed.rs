//! Messages whose end cannot be known (RFC 9112 §6.3), and how the flow goes on behind them.

use super::Step::*;
use super::{Case, GET, GET_OK, OK2, SECOND, case};

const BAD: &[u8] = b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n";

pub(super) const CASES: &[Case] = &[
    case(
        "§6.3: contradictory lengths of a request; what follows it may be its content",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            Client(b"xGET /smuggled HTTP/1.1\r\n\r\n"),
            Server(BAD),
            Client(GET),
            Server(OK2),
        ],
        &["1 POST / ?:? > 400 content-length:0 malformed (contradictory Content-Length)", SECOND],
    ),
    case(
        "§6.3: contradictory lengths in one list",
        &[Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 2\r\n\r\n"), Server(BAD)],
        &["1 POST / ?:? > 400 content-length:0 malformed (contradictory Content-Length)"],
    ),
    case(
        "§6.3: a length that is no number",
        &[Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n"), Server(BAD)],
        &["1 POST / ?:? > 400 content-length:0 malformed (invalid Content-Length)"],
    ),
    case(
        "§6.3: a negative length",
        &[Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n"), Server(BAD)],
        &["1 POST / ?:? > 400 content-length:0 malformed (invalid Content-Length)"],
    ),
    case(
        "§6.3: a length with a sign",
        &[Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n"), Server(BAD)],
        &["1 POST / ?:? > 400 content-length:0 malformed (invalid Content-Length)"],
    ),
    case(
        "§6.3: a length beyond 64 bits",
        &[Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n"), Server(BAD)],
        &["1 POST / ?:? > 400 content-length:0 malformed (invalid Content-Length)"],
    ),
    case(
        "§6.3: contradictory lengths of a response",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\na"), Client(GET), Server(OK2)],
        &["1 GET /a none:0 > 200 ?:? malformed (contradictory Content-Length)", SECOND],
    ),
    case(
        "§6.3: a request whose last coding is not chunked",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
            Server(BAD),
            Client(GET),
            Server(OK2),
        ],
        &["1 POST / ?:? > 400 content-length:0 malformed (chunked is not the last transfer coding)", SECOND],
    ),
    case(
        "§6.1: a coding behind chunked",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
            Server(BAD),
        ],
        &["1 POST / ?:? > 400 content-length:0 malformed (coding after chunked)"],
    ),
    case(
        "§6.1: chunked twice",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
            Server(BAD),
        ],
        &["1 POST / ?:? > 400 content-length:0 malformed (coding after chunked)"],
    ),
    case(
        "§6.1: a coding that is none of chunked's names",
        &[Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), Server(BAD)],
        &["1 POST / ?:? > 400 content-length:0 malformed (chunked is not the last transfer coding)"],
    ),
    case(
        "§6.1: Transfer-Encoding without a value",
        &[Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n"), Server(BAD)],
        &["1 POST / ?:? > 400 content-length:0 malformed (empty Transfer-Encoding)"],
    ),
    case(
        "§3.2: a request of HTTP/1.1 without Host",
        &[Client(b"GET /a HTTP/1.1\r\n\r\n"), Server(BAD), Client(GET), Server(OK2)],
        &["1 GET /a none:0 > 400 content-length:0 complete (no Host)", SECOND],
    ),
    case(
        "§3.2: a request with two Hosts",
        &[Client(b"GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), Server(BAD)],
        &["1 GET /a none:0 > 400 content-length:0 complete (more than one Host)"],
    ),
    case(
        "§3: what is no request line ends the following of a connection that was HTTP",
        &[Client(GET), Server(OK2), Client(b"garbage\r\n\r\n"), Server(BAD)],
        &[GET_OK],
    )
    .protocol("Other"),
    case(
        "§4: what is no status line",
        &[Client(GET), Server(b"garbage\r\n\r\n"), Client(GET)],
        &["1 GET /a none:0 > - malformed (not an HTTP/1.x message)"],
    )
    .protocol("Other"),
];
