//! When each message began and ended: the times of the segments that carried its first and its last byte.

use super::Step::*;
use super::{C, GET, GET_OK, HEAD, OK2, S, SECOND, Step, Wire, case};
use crate::http::{Exchange, Summary};

/// First and last byte of the request, then of the response.
fn times(exchange: &Exchange) -> [Option<u64>; 4] {
    [exchange.started_ns, exchange.request_end_ns, exchange.response_start_ns, exchange.response_end_ns]
}

fn played(steps: &'static [Step]) -> Wire {
    case("", steps, &[]).play(Some(C))
}

/// Times of the only exchange.
fn only(steps: &'static [Step]) -> [Option<u64>; 4] {
    let wire = played(steps);
    assert_eq!(wire.exchanges().len(), 1);
    times(wire.exchanges()[0])
}

#[test]
fn heads_and_content_in_pieces() {
    let wire = played(&[
        Client(b"GET /a HT"),
        Client(b"TP/1.1\r\nHost: h\r\n\r\n"),
        Server(b"HTTP/1.1 200 OK\r\nContent-Len"),
        Server(b"gth: 2\r\n\r\no"),
        Server(b"k"),
        Client(GET),
        Server(OK2),
    ]);
    assert_eq!(wire.shown(), [GET_OK, SECOND]);
    let [first, second] = wire.exchanges()[..] else { panic!() };
    assert_eq!(times(first), [11, 21, 31, 51].map(Some));
    assert_eq!(times(second), [61, 61, 71, 71].map(Some));
    assert_eq!((first.idle_before_ns, second.idle_before_ns), (Some(10), Some(10)));
    let Summary { requests, responses, reused, idle_max_ns, last_end_ns } = wire.flow.summary();
    assert_eq!((requests, responses, reused, idle_max_ns, last_end_ns), (2, 2, 1, Some(10), Some(71)));
}

#[test]
fn content_of_a_request_ends_it() {
    let steps = &[
        Client(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n"),
        Client(b"a"),
        Client(b"b"),
        Server(OK2),
    ];
    assert_eq!(only(steps), [11, 31, 41, 41].map(Some));
}

#[test]
fn the_last_chunk_and_the_trailers_end_content() {
    let steps = &[
        Client(GET),
        Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"),
        Server(b"0\r\nA: b\r\n"),
        Server(b"\r\n"),
    ];
    assert_eq!(only(steps), [11, 11, 21, 41].map(Some));
}

#[test]
fn until_close_ends_with_its_last_byte_not_with_the_fin() {
    let steps =
        &[Client(GET), Server(b"HTTP/1.0 200 OK\r\n\r\n"), ServerSeen(9), ClientFin, ServerFin, Close];
    assert_eq!(only(steps), [11, 11, 21, 31].map(Some));
}

#[test]
fn the_final_response_counts_not_the_interim_ones() {
    let steps = &[
        Client(b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"),
        Server(b"HTTP/1.1 100 Continue\r\n\r\n"),
        Client(b"a"),
        Server(OK2),
    ];
    assert_eq!(only(steps), [11, 31, 41, 41].map(Some));
}

#[test]
fn empty_lines_before_a_request_are_not_its_first_byte() {
    assert_eq!(only(&[Client(b"\r\n"), Client(GET), Server(OK2)]), [21, 21, 31, 31].map(Some));
}

#[test]
fn an_early_answer_begins_before_the_request_ends() {
    let steps =
        &[Client(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n"), Server(OK2), Client(b"a")];
    assert_eq!(only(steps), [11, 31, 21, 21].map(Some));
}

#[test]
fn what_never_came_has_no_time() {
    assert_eq!(only(&[Client(GET), Reset]), [Some(11), Some(11), None, None]);
    assert_eq!(only(&[Client(b"GET /a HTTP/1.1\r\nHo"), Reset]), [Some(11), None, None, None]);
    assert_eq!(
        only(&[Client(GET), Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), Reset]),
        [Some(11), Some(11), Some(21), None]
    );
}

/// A retransmission is later than the segment that it repeats.
#[test]
fn the_first_copy_gives_the_time() {
    let mut wire = Wire::new(Some(C), true);
    wire.send(C, GET);
    wire.at(C, 0, GET.len() as u32, GET, false);
    wire.at(S, 10, 30, &OK2[10..40], false);
    wire.at(S, 0, OK2.len() as u32, OK2, false);
    assert_eq!(times(wire.exchanges()[0]), [11, 11, 41, 31].map(Some));
}

/// Keep-alive silence belongs to no exchange: neither to the one before nor to the one after.
#[test]
fn a_minute_of_silence_is_never_part_of_a_duration() {
    const MINUTE_NS: u64 = 60_000_000_000;
    let mut wire = Wire::new(Some(C), true);
    for ask in [GET, HEAD, GET] {
        wire.now_ns += MINUTE_NS;
        wire.send(C, ask);
        wire.send(S, if ask == HEAD { super::OK0 } else { OK2 });
    }
    // The silence of a connection whose client only sent the empty line that old ones send behind content.
    wire.send(C, b"\r\n");
    wire.now_ns += MINUTE_NS;
    wire.send(C, GET);
    wire.send(S, OK2);
    for exchange in wire.exchanges() {
        let [started, request_end, response_start, response_end] = times(exchange).map(Option::unwrap);
        assert_eq!(
            (request_end - started, response_start - request_end, response_end - started),
            (0, 10, 10)
        );
        let idle = exchange.idle_before_ns.unwrap();
        assert!((MINUTE_NS..MINUTE_NS + 100).contains(&idle), "{idle}");
    }
    assert_eq!(wire.flow.summary().idle_max_ns, Some(MINUTE_NS + 20));
}

#[test]
fn silence_is_from_the_end_of_the_exchange_before() {
    let wire = played(&[
        Client(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n"),
        Server(OK2),
        Client(b"a"),
        Client(GET),
        Server(OK2),
    ]);
    let idle: Vec<Option<u64>> = wire.exchanges().iter().map(|exchange| exchange.idle_before_ns).collect();
    assert_eq!(idle, [Some(10), Some(10)], "the request's last byte came after the response's");
}

#[test]
fn a_pipelined_request_has_no_silence_before_it() {
    let wire = played(&[Client(GET), Client(GET), Server(OK2), Server(OK2)]);
    assert_eq!(wire.exchanges()[1].idle_before_ns, None);
    assert_eq!(wire.flow.summary().idle_max_ns, None);
}

/// What the silence before the end of a connection is counted from.
#[test]
fn the_end_of_the_last_exchange() {
    let last = |steps: &'static [Step]| played(steps).flow.summary().last_end_ns;
    assert_eq!(last(&[Client(GET), Server(OK2), ServerFin, ClientFin, Close]), Some(21));
    assert_eq!(last(&[Client(GET), ServerFin, Close]), Some(11), "nothing came behind the request");
    assert_eq!(
        last(&[
            Client(GET),
            Server(OK2),
            Client(GET),
            Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"),
            Reset
        ]),
        None
    );
    assert_eq!(last(&[Close]), None);
}

#[test]
fn directions_are_named_by_the_first_message() {
    let mut wire = Wire::new(None, true);
    wire.send(S, GET);
    wire.send(C, OK2);
    assert_eq!(wire.shown(), [GET_OK]);
}
