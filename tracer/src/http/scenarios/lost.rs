//! Bytes that were seen and not captured, or of which there is no record.

use super::Step::*;
use super::{C, Case, GET, GET_OK, OK2, S, SECOND, Wire, case};

const CHUNKS: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
const LONG: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
const LONG_OK: &str = "1 GET /a none:0 > 200 content-length:100000 complete";
const CHUNKS_LOST: &str = "1 GET /a none:0 > 200 chunked:? complete inexact";

pub(super) const CASES: &[Case] = &[
    case(
        "content of known length need not be captured",
        &[Client(GET), Server(LONG), ServerSeen(60_000), ServerSeen(40_000)],
        &[LONG_OK],
    ),
    case(
        "nor have a record, except for its last byte",
        &[Client(GET), Server(LONG), ServerMissing(60_000), ServerSeen(40_000)],
        &[LONG_OK],
    ),
    case(
        "without a record of its last byte, when it ended is not known",
        &[Client(GET), Server(LONG), ServerMissing(100_000), ServerFin, Close],
        &["1 GET /a none:0 > 200 content-length:100000 complete inexact"],
    ),
    case(
        "content of known length, cut short by an end that was not seen",
        &[Client(GET), Server(LONG), ServerSeen(60_000), Close],
        &["1 GET /a none:0 > 200 content-length:60000 truncated inexact"],
    ),
    case(
        "chunk sizes that were not captured: the next request shows that the answer was over",
        &[Client(GET), Server(CHUNKS), ServerSeen(5000), Client(GET), Server(OK2)],
        &[CHUNKS_LOST, SECOND],
    ),
    case(
        "chunk sizes that were not captured: FIN shows it as well",
        &[Client(GET), Server(CHUNKS), ServerSeen(5000), ServerFin, Close],
        &[CHUNKS_LOST],
    ),
    case(
        "chunk sizes that were not captured: a reset leaves it open",
        &[Client(GET), Server(CHUNKS), ServerSeen(5000), Reset],
        &["1 GET /a none:0 > 200 chunked:? reset inexact"],
    ),
    case(
        "chunk sizes of a request that were not captured: the answer shows that it was over",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"),
            ClientSeen(5000),
            Server(OK2),
            Client(GET),
            Server(OK2),
        ],
        &["1 POST / chunked:? > 200 content-length:2 complete inexact", SECOND],
    ),
    case(
        "the beginning of a response's head is missing",
        &[
            Client(GET),
            ServerMissing(20),
            Server(b"\r\nContent-Length: 2\r\n\r\nok"),
            Client(GET),
            Server(OK2),
        ],
        &["1 GET /a none:0 > - truncated inexact", SECOND],
    ),
    case(
        "the second half of a response's head was not captured",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nServer: x"), ServerSeen(90), Client(GET), Server(OK2)],
        &["1 GET /a none:0 > 200 ?:? complete inexact", SECOND],
    ),
    case(
        "the second half of a request's head was not captured",
        &[Client(b"GET /a HTTP/1.1\r\nA: "), ClientSeen(90), Server(OK2), Client(GET), Server(OK2)],
        &["1 GET /a ?:? > 200 content-length:2 complete inexact", SECOND],
    ),
    case(
        "the beginning of a request's head is missing",
        &[Client(GET), Server(OK2), ClientMissing(9), Client(b"\r\n\r\n"), Server(OK2)],
        &[GET_OK, "2 - > 200 content-length:2 complete reused inexact"],
    ),
    case(
        "nothing of a request was captured",
        &[Client(GET), Server(OK2), ClientSeen(90), Server(OK2), Client(GET), Server(OK2)],
        &[
            GET_OK,
            "2 - > 200 content-length:2 complete reused inexact",
            "3 GET /a none:0 > 200 content-length:2 complete reused",
        ],
    ),
    case(
        "what follows a response without end may have been answered",
        &[Client(GET), Client(GET), Server(CHUNKS), ServerSeen(5000), ServerFin, Close],
        &[CHUNKS_LOST, "2 GET /a none:0 > - no_response reused pipelined inexact"],
    ),
    case(
        "content of an answer that may be to HEAD may be answers to others",
        &[
            Client(GET),
            Server(OK2),
            ClientMissing(9),
            Client(b"\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nHTTP/1.1 304 N\r\n\r\n"),
            Client(GET),
            Server(OK2),
            ServerFin,
            Close,
        ],
        &[
            GET_OK,
            "2 - > 200 content-length:58 truncated reused inexact",
            "3 GET /a none:0 > - no_response reused pipelined inexact",
        ],
    ),
    case(
        "until-close in answer to what may be HEAD may be answers to others",
        &[
            Client(GET),
            Server(OK2),
            ClientMissing(9),
            Client(b"\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 304 N\r\n\r\n"),
            Client(GET),
            Server(OK2),
            ServerFin,
            Close,
        ],
        &[
            GET_OK,
            "2 - > 200 until-close:58 complete reused inexact",
            "3 GET /a none:0 > - no_response reused pipelined inexact",
        ],
    ),
    case(
        "an interim response shows that a request was held back",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n"),
            ClientMissing(99),
            Server(OK2),
            Client(GET),
            Server(b"HTTP/1.1 103 E\r\n\r\n"),
            Server(OK2),
        ],
        &[
            "1 POST / content-length:99 > 200 content-length:2 complete inexact",
            "2 GET /a none:0 > 103 200 content-length:2 complete reused",
        ],
    ),
    case(
        "a whole response went by without record",
        &[Client(GET), ServerMissing(40), Client(GET), Server(OK2), Client(GET), Server(OK2)],
        &[
            "1 GET /a none:0 > - truncated inexact",
            "2 GET /a none:0 > - truncated reused pipelined inexact",
            "3 GET /a none:0 > 200 content-length:2 complete reused",
        ],
    ),
];

#[test]
fn a_late_copy_fills_the_gap() {
    let mut wire = case("", &[Client(GET), Server(CHUNKS), ServerSeen(9)], &[]).play(Some(C));
    wire.at(S, CHUNKS.len() as u64, 9, b"lo\r\n0\r\n\r\n", false);
    assert_eq!(wire.shown(), ["1 GET /a none:0 > 200 chunked:5 complete"]);
    assert_eq!(wire.exchanges()[0].response_end_ns, Some(31), "when it passed, not when it was copied");
}

#[test]
fn an_inferred_end_is_the_last_byte_seen_before_the_turn() {
    let steps = &[Client(GET), Server(CHUNKS), ServerSeen(5000), Client(GET), Server(OK2)];
    let wire = case("", steps, &[]).play(Some(C));
    assert_eq!(wire.exchanges()[0].response_end_ns, Some(31));
}

#[test]
fn progress_tells_of_bytes_without_record() {
    let at = LONG.len() as u64 + 100_000;
    let mut wire = case("", &[Client(GET), Server(LONG)], &[]).play(Some(C));
    wire.flow.progress(S, at - 1, 70, &mut wire.out);
    assert_eq!(wire.exchanges().len(), 0);
    wire.flow.progress(S, at, 77, &mut wire.out);
    assert_eq!(wire.shown(), [LONG_OK]);
    assert_eq!(wire.exchanges()[0].response_end_ns, Some(77));
}

/// As the server's acknowledgement shows.
#[test]
fn a_request_of_which_more_was_sent_than_seen() {
    let mut wire = Wire::new(Some(C), true);
    wire.send(C, b"GET /a HTTP/1.1\r\nHost: ");
    wire.flow.sent(C, 90);
    wire.send(S, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    wire.step(ServerFin);
    assert_eq!(wire.shown(), ["1 GET /a ?:? > 200 content-length:1 truncated inexact"]);
}

/// As the acknowledgement of a reset shows.
#[test]
fn an_answer_that_was_sent_and_not_seen() {
    let mut wire = case("", &[Client(GET)], &[]).play(Some(C));
    wire.flow.sent(S, 40);
    wire.step(Reset);
    assert_eq!(wire.shown(), ["1 GET /a none:0 > - reset inexact"]);
    let mut wire = case("", &[Client(GET), Server(LONG)], &[]).play(Some(C));
    wire.flow.sent(S, LONG.len() as u64 + 100_000);
    wire.step(Reset);
    assert_eq!(wire.shown(), ["1 GET /a none:0 > 200 content-length:100000 complete inexact"]);
}

/// Its answer, acknowledging it, was there first: what is paired from here on may be one off.
#[test]
fn a_request_that_comes_after_its_answer() {
    let mut wire = Wire::new(Some(C), true);
    wire.flow.sent(C, GET.len() as u64);
    wire.send(S, OK2);
    for step in [Client(GET), Client(GET), Server(OK2), Server(OK2)] {
        wire.step(step);
    }
    assert!(wire.exchanges().iter().all(|exchange| !exchange.exact), "{:?}", wire.shown());
}

#[test]
fn bytes_told_before_their_record_count_from_the_earlier_time() {
    let mut wire = case("", &[Client(GET)], &[]).play(Some(C));
    wire.flow.progress(S, OK2.len() as u64, 500, &mut wire.out);
    assert_eq!(wire.shown().len(), 0);
    wire.send(S, OK2);
    assert_eq!(wire.shown(), [GET_OK]);
    assert_eq!(wire.exchanges()[0].response_start_ns, Some(21));
}

/// An end that is not known makes the silence behind it unknown, and not longer.
#[test]
fn silence_after_an_unknown_end_is_unknown() {
    let mut wire = Wire::new(Some(C), true);
    let endless = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n");
    for step in [Client(GET), Server(OK2), Client(GET), endless, Client(GET), Server(OK2)] {
        wire.step(step);
    }
    let idle: Vec<Option<u64>> = wire.exchanges().iter().map(|exchange| exchange.idle_before_ns).collect();
    assert_eq!(idle, [Some(10), Some(10), None]);
}
