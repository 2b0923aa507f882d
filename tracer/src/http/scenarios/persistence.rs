//! Which connections persist (RFC 9112 §9.3), and what each head said of it.

use super::Step::*;
use super::{Case, GET, GET_OK, OK2, SECOND, case};
use crate::http::KeepAlive;

const OLD: &[u8] = b"GET /a HTTP/1.0\r\n\r\n";
const OLD_KEPT: &[u8] = b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";

pub(super) const CASES: &[Case] = &[
    case(
        "§9.3: HTTP/1.1 persists by default, however long it is idle",
        &[Client(GET), Server(OK2), Client(GET), Server(OK2), ServerFin, ClientFin, Close],
        &[GET_OK, SECOND],
    ),
    case(
        "§9.3: HTTP/1.0 does not persist",
        &[
            Client(OLD),
            Server(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            ServerFin,
            ClientFin,
            Close,
        ],
        &[GET_OK],
    ),
    case(
        "§9.3: HTTP/1.0 persists with keep-alive",
        &[
            Client(OLD_KEPT),
            Server(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
            Client(OLD_KEPT),
            Server(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &[GET_OK, SECOND],
    ),
    case(
        "§9.6: close is an announcement: what the client sends behind it is still a request, and not answered",
        &[
            Client(GET),
            Server(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
            Client(GET),
            ServerFin,
            Reset,
        ],
        &[GET_OK, "2 GET /a none:0 > - no_response reused"],
    ),
    case(
        "§9.3: a client may close behind its request and still get its answer",
        &[Client(GET), ClientFin, Server(OK2), ServerFin, Close],
        &[GET_OK],
    ),
];

/// What both heads of one exchange said.
fn said(request: &'static [u8], response: &'static [u8]) -> KeepAlive {
    let steps = vec![Client(request), Server(response), ServerFin].leak();
    let wire = case("", steps, &[]).play(None);
    wire.exchanges()[0].keep_alive
}

#[test]
fn both_heads_with_the_defaults_of_their_versions() {
    let old_close = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
    let close = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: foo, Close\r\n\r\n";
    let both = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, close\r\n\r\n";
    let ask_close = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let two_fields = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: x\r\nconnection: close\r\n\r\n";
    for (request, response, expected) in [
        (GET, OK2, (true, true)),
        (OLD, old_close, (false, false)),
        (OLD_KEPT, old_close, (true, false)),
        (GET, close, (true, false)),
        (GET, both, (true, false)),
        (ask_close, OK2, (false, true)),
        (two_fields, OK2, (false, true)),
    ] {
        let KeepAlive { request: asked, response: answered, .. } = said(request, response);
        assert_eq!((asked, answered), (Some(expected.0), Some(expected.1)), "{}", request.escape_ascii());
    }
}

#[test]
fn parameters_of_the_keep_alive_field() {
    for (field, timeout_s, max) in [
        (&b"timeout=5, max=7"[..], Some(5), Some(7)),
        (b"max = 100 , TIMEOUT=60", Some(60), Some(100)),
        (b"timeout=5.5, max=", None, None),
        (b"timeout=99999999999999999999", None, None),
        (b"timeout", None, None),
        (b"timeout=5, timeout=6", Some(6), None),
    ] {
        let head = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: ", field, b"\r\n\r\n"].concat();
        let said = said(GET, head.leak());
        assert_eq!((said.timeout_s, said.max), (timeout_s, max), "{}", field.escape_ascii());
    }
}

#[test]
fn a_head_that_was_not_seen_says_nothing() {
    let wire = case("", &[Client(GET), ServerFin], &[]).play(None);
    assert_eq!(wire.exchanges()[0].keep_alive, KeepAlive { request: Some(true), ..KeepAlive::default() });
}
