//! Observation that begins in the middle of a connection: the first message boundary has to be found.

use super::Step::*;
use super::{Case, GET, GET_OK, OK2, SECOND, case};

pub(super) const CASES: &[Case] = &[
    case("joined between two exchanges", &[Client(GET), Server(OK2)], &[GET_OK]).joined(),
    case(
        "joined in the content of an answer",
        &[Server(b"the rest of some content"), Client(GET), Server(OK2)],
        &[GET_OK],
    )
    .joined(),
    case(
        "joined in the content of a request: its answer is told without it",
        &[Client(b"more content"), Server(OK2), Client(GET), Server(OK2)],
        &["1 - > 200 content-length:2 complete inexact", SECOND],
    )
    .joined(),
    case(
        "joined before an answer that may be to HEAD: what it announces need not come",
        &[Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"), Client(GET), Server(OK2)],
        &["1 - > 200 content-length:? complete inexact", SECOND],
    )
    .joined(),
    case(
        "what looks like a message in the middle of a turn is not believed",
        &[Server(b"xx"), Server(OK2), Client(GET), Server(OK2)],
        &[GET_OK],
    )
    .joined(),
    case(
        "joined in a request's head",
        &[Client(b"n/json\r\nContent-Length: 0\r\n\r\n"), Server(OK2), Client(GET), Server(OK2)],
        &["1 - > 200 content-length:2 complete inexact", SECOND],
    )
    .joined(),
    case("joined, and nothing said", &[ClientFin, ServerFin, Close], &[]).joined().protocol("Unknown"),
];

#[test]
fn no_mark_is_given_for_content_that_may_not_come() {
    let steps = &[Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"), Client(GET), Server(OK2)];
    assert_eq!(case("", steps, &[]).joined().play(None).marks(), []);
}

/// Silence before the first exchange seen is not known: others may have been before it.
#[test]
fn the_first_exchange_seen_is_not_called_reused() {
    let wire = case("", &[Client(GET), Server(OK2), Client(GET), Server(OK2)], &[]).joined().play(None);
    let reused: Vec<bool> = wire.exchanges().iter().map(|exchange| exchange.reused).collect();
    assert_eq!(reused, [false, true]);
}
