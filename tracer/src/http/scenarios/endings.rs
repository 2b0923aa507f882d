//! Exchanges that do not come to their end (RFC 9112 §8, §9.5).

use super::Step::*;
use super::{Case, GET, GET_OK, OK2, case};

pub(super) const CASES: &[Case] = &[
    case(
        "§9.5: FIN instead of an answer",
        &[Client(GET), ServerFin, Close],
        &["1 GET /a none:0 > - no_response"],
    ),
    case(
        "§9.5: the connection is gone before any answer",
        &[Client(GET), Close],
        &["1 GET /a none:0 > - no_response"],
    ),
    case("§9.5: a reset instead of an answer", &[Client(GET), Reset], &["1 GET /a none:0 > - reset"]),
    case(
        "§9.5: a request that crosses the server's FIN is reset",
        &[Client(GET), Server(OK2), ServerFin, Client(GET), Reset],
        &[GET_OK, "2 GET /a none:0 > - reset reused"],
    ),
    case(
        "§8: a request whose content is cut short",
        &[Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab"), ClientFin, Close],
        &["1 POST / content-length:2 > - truncated"],
    ),
    case(
        "§8: a request whose head is cut short",
        &[Client(b"GET /a HTTP/1.1\r\nHo"), Close],
        &["1 GET /a ?:? > - truncated inexact"],
    ),
    case(
        "§8: a request whose line is cut short, on a connection known to be HTTP",
        &[Client(GET), Server(OK2), Client(b"GET /lon"), Close],
        &[GET_OK, "2 - > - truncated reused inexact"],
    ),
    case(
        "§8: a response whose content is cut short by FIN",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), ServerFin],
        &["1 GET /a none:0 > 200 content-length:3 truncated"],
    ),
    case(
        "§8: a response whose content is cut short by a reset",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), Reset],
        &["1 GET /a none:0 > 200 content-length:3 reset"],
    ),
    case(
        "§8: a response whose head is cut short",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nConte"), Close],
        &["1 GET /a none:0 > 200 ?:? truncated inexact"],
    ),
    case(
        "§8: a response whose status line is cut short",
        &[Client(GET), Server(b"HTTP/1.1 20"), ServerFin, Close],
        &["1 GET /a none:0 > - no_response"],
    ),
    case("§9.3: silence is no exchange", &[Client(GET), Server(OK2), ServerFin, ClientFin, Close], &[GET_OK]),
    case("§9.3: a connection that is only opened", &[Close], &[]).protocol("Unknown"),
    case("§9.3: a connection that is only opened and closed", &[ServerFin, ClientFin, Close], &[])
        .protocol("Unknown"),
];
