//! Content that ends by its length, or with the connection (RFC 9112 §6.2, §6.3).

use super::Step::*;
use super::{Case, GET, GET_OK, OK2, S, SECOND, case};
use crate::http::Mark;

pub(super) const CASES: &[Case] = &[
    case("§6.3: Content-Length gives the size of a response", &[Client(GET), Server(OK2)], &[GET_OK]),
    case(
        "§6.3: Content-Length gives the size of a request; its name is without case",
        &[
            Client(b"POST /p HTTP/1.1\r\nHost: h\r\ncontent-length: 3\r\n\r\nabc"),
            Server(b"HTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n"),
        ],
        &["1 POST /p content-length:3 > 201 content-length:0 complete"],
    ),
    case(
        "§6.3: a length of 0 is an end, the next message follows at once",
        &[
            Client(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &["1 POST /p content-length:0 > 200 content-length:0 complete", SECOND],
    ),
    case(
        "§6.3: a request without Content-Length and Transfer-Encoding has no content",
        &[
            Client(b"POST /p HTTP/1.1\r\nHost: h\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &["1 POST /p none:0 > 200 content-length:2 complete"],
    ),
    case(
        "§6.3: identical lengths, in a list or in repeated fields, are one",
        &[
            Client(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\ncontent-length: 3\r\n\r\nabc"),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &["1 PUT / content-length:3 > 200 content-length:2 complete"],
    ),
    case(
        "RFC 9110 §8.6: leading zeros do not change a length",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nContent-Length: 0002\r\n\r\nok")],
        &[GET_OK],
    ),
    case(
        "§6.3: content that looks like a message is content",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\nHTTP/1.1 500 No\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &["1 POST / content-length:18 > 200 content-length:19 complete", SECOND],
    ),
    case(
        "§6.3: without a length the response lasts until its FIN",
        &[Client(GET), Server(b"HTTP/1.0 200 OK\r\n\r\nabc"), ServerSeen(1000), ServerFin, ClientFin, Close],
        &["1 GET /a none:0 > 200 until-close:1003 complete"],
    ),
    case(
        "§6.3: until the FIN there may be nothing",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\n\r\n"), ServerFin],
        &["1 GET /a none:0 > 200 until-close:0 complete"],
    ),
    case(
        "§6.1: other codings than chunked in a response last until its FIN",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"), ServerFin],
        &["1 GET /a none:0 > 200 until-close:3 complete"],
    ),
    case(
        "§6.3: other codings override Content-Length too",
        &[
            Client(GET),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\n\r\nabc"),
            ServerFin,
        ],
        &["1 GET /a none:0 > 200 until-close:3 complete (both Transfer-Encoding and Content-Length)"],
    ),
    case(
        "§8: until-close that ends by a reset is incomplete",
        &[Client(GET), Server(b"HTTP/1.0 200 OK\r\n\r\nabc"), Reset],
        &["1 GET /a none:0 > 200 until-close:3 reset"],
    ),
    case(
        "§8: until-close whose FIN was not seen",
        &[Client(GET), Server(b"HTTP/1.0 200 OK\r\n\r\nabc"), Close],
        &["1 GET /a none:0 > 200 until-close:3 truncated inexact"],
    ),
    case(
        "§6.3: what looks like a response behind until-close is its content",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\n\r\n"), Server(OK2), ServerFin],
        &["1 GET /a none:0 > 200 until-close:40 complete"],
    ),
    case(
        "§6.3: 205 has no exception, its length counts",
        &[Client(GET), Server(b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n"), Client(GET), Server(OK2)],
        &["1 GET /a none:0 > 205 content-length:0 complete", SECOND],
    ),
];

/// The bytes are not wanted and may go without record; the FIN says how many they were.
#[test]
fn until_close_by_its_fin_alone() {
    let steps = &[Client(GET), Server(b"HTTP/1.0 200 OK\r\n\r\n"), ServerMissing(5000), ServerFin];
    let wire = case("", steps, &[]).play(None);
    assert_eq!(wire.shown(), ["1 GET /a none:0 > 200 until-close:5000 complete"]);
    assert_eq!(wire.marks(), [(S, Mark::Never)]);
    assert_eq!(wire.exchanges()[0].response_end_ns, None);
}
