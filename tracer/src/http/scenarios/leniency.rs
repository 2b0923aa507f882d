//! What a recipient may or must put up with (RFC 9112 §2.2, §3, §4, §5). What a sender must not do is told.

use super::Step::*;
use super::{Case, GET, GET_OK, OK2, SECOND, case};

pub(super) const CASES: &[Case] = &[
    case(
        "§2.2: empty lines before a request are passed over",
        &[Client(b"\r\n\r\n\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n"), Server(OK2)],
        &[GET_OK],
    ),
    case(
        "§2.2: the empty line that old clients send behind content is none of the next request's",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx\r\n"),
            Server(OK2),
            Client(GET),
            Server(OK2),
        ],
        &["1 POST / content-length:1 > 200 content-length:2 complete", SECOND],
    ),
    case(
        "§2.2: bare LF ends a line",
        &[
            Client(b"GET /a HTTP/1.1\nHost: h\n\n"),
            Server(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
            Client(b"GET /a HTTP/1.1\r\nHost: h\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\nok"),
        ],
        &[GET_OK, SECOND],
    ),
    case(
        "§5.2: a folded line belongs to the field before",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nA: b\r\n  c\r\n\td\r\nContent-Length:\r\n 2\r\n\r\nok")],
        &["1 GET /a none:0 > 200 content-length:2 complete (obsolete line folding)"],
    ),
    case(
        "§5.2: a folded line is no field of its own",
        &[Client(b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\n Content-Length: 5\r\n\r\n"), Server(OK2)],
        &["1 GET /a none:0 > 200 content-length:2 complete (obsolete line folding)"],
    ),
    case(
        "§2.2: whitespace before the first field is passed over",
        &[Client(b"GET /a HTTP/1.1\r\n X: y\r\nHost: h\r\n\r\n"), Server(OK2)],
        &["1 GET /a none:0 > 200 content-length:2 complete (whitespace before the first field)"],
    ),
    case(
        "§5.1: whitespace before the colon is a request's defect",
        &[Client(b"GET /a HTTP/1.1\r\nHost : h\r\n\r\n"), Server(OK2)],
        &["1 GET /a none:0 > 200 content-length:2 complete (whitespace before colon)"],
    ),
    case(
        "§5.1: and is taken out of a response",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok")],
        &[GET_OK],
    ),
    case(
        "§5: a line without colon is passed over",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok")],
        &["1 GET /a none:0 > 200 content-length:2 complete (field line without colon)"],
    ),
    case(
        "§3: whitespace in the target, as servers of old accept it",
        &[Client(b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"), Server(OK2)],
        &["1 GET /a b none:0 > 200 content-length:2 complete (whitespace in request target)"],
    ),
    case(
        "§3: more than one space around the target, and behind the version",
        &[Client(b"GET   /a  HTTP/1.1 \r\nHost: h\r\n\r\n"), Server(OK2)],
        &[GET_OK],
    ),
    case(
        "§4: the reason phrase may be empty, and its space missing",
        &[
            Client(GET),
            Server(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"),
            Client(GET),
            Server(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &[GET_OK, SECOND],
    ),
    case(
        "RFC 9110 §15: codes without a meaning are framed like any other",
        &[Client(GET), Server(b"HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\nok")],
        &["1 GET /a none:0 > 799 content-length:2 complete"],
    ),
    case(
        "§2.3: later minor versions are HTTP/1.1",
        &[
            Client(b"GET /a HTTP/1.9\r\nHost: h\r\n\r\n"),
            Server(b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            Client(GET),
            Server(OK2),
        ],
        &[GET_OK, SECOND],
    ),
    case(
        "RFC 9110 §5.5: NUL in a value",
        &[Client(b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n"), Server(OK2)],
        &["1 GET /a none:0 > 200 content-length:2 complete (NUL or bare CR in field value)"],
    ),
    case(
        "§2.2: CR without LF in a value",
        &[Client(b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\rContent-Length: 9\r\n\r\n"), Server(OK2)],
        &["1 GET /a none:0 > 200 content-length:2 complete (NUL or bare CR in field value)"],
    ),
];

#[test]
fn a_head_is_counted_from_its_first_byte_not_from_empty_lines() {
    let wire = case("", &[Client(b"\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n"), Server(OK2)], &[]).play(None);
    assert_eq!(wire.exchanges()[0].request.as_ref().unwrap().header_bytes, GET.len() as u64);
}

#[test]
fn folded_values_are_joined_by_a_space() {
    let steps = &[Client(b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\n  c\r\n\td \r\n\r\n"), Server(OK2)];
    let wire = case("", steps, &[]).play(None);
    assert_eq!(wire.exchanges()[0].request.as_ref().unwrap().headers[1].1, b"b c d");
}
