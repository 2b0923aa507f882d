//! Responses that end with their head, whatever it announces (RFC 9112 §6.3, RFC 9110 §6.4.1).

use super::Step::*;
use super::{Case, GET, HEAD, OK2, SECOND, case};

pub(super) const CASES: &[Case] = &[
    case(
        "§6.3: the answer to HEAD has no content though it gives a length",
        &[Client(HEAD), Server(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"), Client(GET), Server(OK2)],
        &["1 HEAD / none:0 > 200 none:0 complete", SECOND],
    ),
    case(
        "§6.3: the answer to HEAD has no content though it says chunked",
        &[
            Client(HEAD),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &["1 HEAD / none:0 > 200 none:0 complete", SECOND],
    ),
    case(
        "§6.3: the answer to HEAD does not last until close",
        &[Client(HEAD), Server(b"HTTP/1.1 200 OK\r\n\r\n"), Client(GET), Server(OK2)],
        &["1 HEAD / none:0 > 200 none:0 complete", SECOND],
    ),
    case(
        "§6.3: an error that answers HEAD has none either",
        &[Client(HEAD), Server(b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n"), Client(GET), Server(OK2)],
        &["1 HEAD / none:0 > 404 none:0 complete", SECOND],
    ),
    case(
        "RFC 9110 §9.1: methods have case: `head` is not HEAD",
        &[Client(b"head / HTTP/1.1\r\nHost: h\r\n\r\n"), Server(OK2)],
        &["1 head / none:0 > 200 content-length:2 complete"],
    ),
    case(
        "§6.3: 204 has no content",
        &[Client(GET), Server(b"HTTP/1.1 204 No Content\r\n\r\n"), Client(GET), Server(OK2)],
        &["1 GET /a none:0 > 204 none:0 complete", SECOND],
    ),
    case(
        "§6.3: 204 has none though it is said to be chunked",
        &[
            Client(GET),
            Server(b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &["1 GET /a none:0 > 204 none:0 complete", SECOND],
    ),
    case(
        "§6.3: 304 has none though it gives the length of the representation",
        &[
            Client(GET),
            Server(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &["1 GET /a none:0 > 304 none:0 complete", SECOND],
    ),
    case(
        "§6.3: content behind a bodiless response is no message",
        &[
            Client(HEAD),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html></html>\r\n"),
            Client(GET),
        ],
        &["1 HEAD / none:0 > 200 none:0 complete"],
    )
    .protocol("Other"),
];
