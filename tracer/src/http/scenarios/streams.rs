//! Segments that carry more or less than a message (RFC 9293 §3.10.7.4 seen from outside).

use super::Step::*;
use super::{C, Case, GET, GET_OK, OK2, S, SECOND, Wire, case};
use crate::http::{Config, Direction, Output, Segment};

pub(super) const CASES: &[Case] = &[
    case(
        "one segment may hold the end of one message and the beginning of the next",
        &[
            Client(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /a HTTP/1.1\r\nHo"),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nCont"),
            Client(b"st: h\r\n\r\n"),
            Server(b"ent-Length: 2\r\n\r\nok"),
        ],
        &[GET_OK, "2 GET /a none:0 > 200 content-length:2 complete reused pipelined"],
    ),
    case(
        "data behind the client's FIN_WAIT2 is still the answer",
        &[
            Client(GET),
            ClientFin,
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"),
            Server(b"abc"),
            Server(b"def"),
            ServerFin,
            Close,
        ],
        &["1 GET /a none:0 > 200 content-length:6 complete"],
    ),
    case(
        "a direction has ended with its FIN, whatever bytes come behind it",
        &[Client(GET), Server(OK2), ServerFin, Server(OK2), ClientFin, Close],
        &[GET_OK],
    ),
];

/// Plays segments of one exchange: direction, offset, payload, FIN.
fn played(segments: &[(Direction, u64, &[u8], bool)]) -> Vec<String> {
    let mut wire = Wire::new(None, true);
    for (direction, offset, data, fin) in segments {
        wire.at(*direction, *offset, data.len() as u32, data, *fin);
    }
    wire.flow.close(wire.now_ns, &mut wire.out);
    wire.shown()
}

/// TCP Fast Open (RFC 7413): offsets count payload, so data on a SYN begins at 0 like any other.
#[test]
fn fin_with_data() {
    assert_eq!(played(&[(C, 0, GET, true), (S, 0, OK2, true)]), [GET_OK]);
    let head = b"HTTP/1.0 200 OK\r\n\r\n";
    let whole = [&head[..], b"abc"].concat();
    let expected = ["1 GET /a none:0 > 200 until-close:3 complete"];
    assert_eq!(played(&[(C, 0, GET, false), (S, 0, &whole, true)]), expected);
    assert_eq!(played(&[(C, 0, GET, false), (S, 0, head, false), (S, 19, b"abc", true)]), expected);
    // Sent again with the data that had come without it.
    assert_eq!(played(&[(C, 0, GET, false), (S, 0, &whole, false), (S, 19, b"abc", true)]), expected);
}

#[test]
fn a_fin_that_overtakes_data_waits_for_it() {
    let (first, rest) = OK2.split_at(20);
    let segments =
        [(C, 0, GET, false), (S, 0, first, false), (S, OK2.len() as u64, b"", true), (S, 20, rest, false)];
    assert_eq!(played(&segments), [GET_OK]);
}

#[test]
fn retransmitted_overlapping_and_out_of_order() {
    let all = |order: &[(usize, usize)]| {
        let mut segments = vec![(C, 0, GET, false)];
        segments.extend(order.iter().map(|&(from, to)| (S, from as u64, &OK2[from..to], false)));
        played(&segments)
    };
    let end = OK2.len();
    for order in [
        &[(0, end), (0, end), (0, end)][..],
        &[(10, end), (0, 10)],
        &[(20, end), (10, 20), (0, 10)],
        &[(0, 20), (10, end)],
        &[(10, 30), (5, 35), (0, 6), (0, end)],
        &[(0, 10), (0, 10), (30, end), (30, end), (10, 30)],
    ] {
        assert_eq!(all(order), [GET_OK], "{order:?}");
    }
}

/// The first copy is what the receiver most likely used; a different second one is not believed.
#[test]
fn the_first_copy_of_a_byte_counts() {
    let liar = b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno";
    assert_eq!(played(&[(C, 0, GET, false), (S, 0, OK2, false), (S, 0, liar, false)]), [GET_OK]);
    let held =
        [(C, 0, GET, false), (S, 9, &OK2[9..], false), (S, 9, &liar[9..], false), (S, 0, &OK2[..9], false)];
    assert_eq!(played(&held), [GET_OK]);
}

/// Offsets are 64 bits, made from sequence numbers before they reach the engine, so that neither the wrap of those nor
/// a stream of many gigabytes is anything special here.
#[test]
fn offsets_beyond_the_sequence_space() {
    for base in [(1 << 31) - 30, (1 << 32) - 30, (1 << 32) + 5, (1 << 40) - 1, u64::MAX - 300] {
        let mut wire = Wire::new(Some(C), true);
        wire.at = [base, base];
        wire.flow.sides.iter_mut().for_each(|side| side.stream.next = base);
        for _ in 0..2 {
            wire.send(C, GET);
            wire.send(S, OK2);
        }
        assert_eq!(wire.shown(), [GET_OK, SECOND], "from {base}");
    }
}

/// What GSO and GRO make of a stream: one "segment" of up to 64 KiB with many messages in it.
#[test]
fn super_packets() {
    let messages = 5000;
    let (asked, answered) = (GET.repeat(messages), OK2.repeat(messages));
    let config = Config { outstanding_max: messages as u32, ..Config::default() };
    let mut wire = Wire::with(&config, None, true);
    for part in asked.chunks(65_160) {
        wire.send(C, part);
    }
    for part in answered.chunks(65_160) {
        wire.send(S, part);
    }
    let exchanges = wire.exchanges();
    assert_eq!(exchanges.len(), messages);
    assert!(exchanges.iter().all(|exchange| exchange.exact && exchange.pipelined == (exchange.seq > 1)));
    assert_eq!(wire.flow.held_bytes(), 0);
}

#[test]
fn data_outside_the_payload_is_ignored() {
    let mut wire = case("", &[Client(GET)], &[]).play(None);
    let data = [b"xx", OK2, b"yy"].concat();
    let segment =
        Segment { time_ns: 9, offset: 2, len: OK2.len() as u32, data_offset: 0, data: &data, fin: false };
    wire.flow.segment(S, &segment, &mut wire.out);
    wire.at(S, 0, 2, b"\r\n", false);
    assert_eq!(wire.shown(), [GET_OK]);
}

/// A retransmission is counted into the exchanges that run when it happens, and into no other.
#[test]
fn retransmissions_are_counted_while_an_exchange_runs() {
    let mut wire = Wire::new(Some(C), true);
    wire.flow.retransmitted(9);
    wire.send(C, GET);
    wire.flow.retransmitted(2);
    wire.send(S, OK2);
    wire.flow.retransmitted(5);
    wire.send(C, &GET.repeat(2));
    wire.flow.retransmitted(u32::MAX);
    wire.flow.retransmitted(1);
    wire.send(S, OK2);
    wire.send(S, OK2);
    let counted: Vec<u32> = wire.exchanges().iter().map(|exchange| exchange.retransmits).collect();
    assert_eq!(counted, [2, u32::MAX, u32::MAX]);
}

/// Where framing was lost the next turn is waited for. A copy of old bytes is none, alone or before new ones.
#[test]
fn retransmissions_while_framing_is_lost() {
    const BROKEN: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let mut wire = case("", &[Client(GET), Server(BROKEN), Client(GET)], &[]).play(Some(C));
    wire.at(S, 0, BROKEN.len() as u32, BROKEN, false);
    let both = [&BROKEN[BROKEN.len() - 4..], OK2].concat();
    wire.at(S, BROKEN.len() as u64 - 4, both.len() as u32, &both, false);
    let malformed = "1 GET /a none:0 > 200 chunked:? malformed (chunk size missing)";
    assert_eq!(wire.shown(), [malformed, SECOND]);
}

#[test]
fn what_comes_behind_the_end_is_ignored() {
    let mut wire = case("", &[Client(GET), Server(OK2), Close], &[]).play(None);
    let before = wire.out.len();
    wire.send(C, GET);
    wire.progress(S, 1 << 40);
    wire.flow.reset(99, &mut wire.out);
    assert_eq!(wire.out.len(), before);
    assert!(!wire.out.iter().any(|output| matches!(output, Output::Skip { .. })));
}
