//! Every bound, and what is said of what lies beyond it.

use super::Step::*;
use super::{C, GET, GET_OK, HEAD, OK2, S, SECOND, Wire, case};
use crate::http::{Config, Flow, Protocol};

fn head_of(bytes: usize, start: &str) -> Vec<u8> {
    let begin = format!("{start}\r\nHost: h\r\nContent-Length: 0\r\nBig: ");
    let fill = "x".repeat(bytes - begin.len() - 4);
    format!("{begin}{fill}\r\n\r\n").into_bytes()
}

/// 64 KiB are followed by default, in one piece or in many, to the byte.
#[test]
fn heads_up_to_the_cap() {
    for piece in [usize::MAX, 65_160, 1448, 7] {
        let mut wire = Wire::new(None, true);
        for part in head_of(64 << 10, "GET /a HTTP/1.1").chunks(piece) {
            wire.send(C, part);
        }
        for part in head_of(64 << 10, "HTTP/1.1 200 OK").chunks(piece) {
            wire.send(S, part);
        }
        wire.send(C, GET);
        wire.send(S, OK2);
        assert_eq!(
            wire.shown(),
            ["1 GET /a content-length:0 > 200 content-length:0 complete", SECOND],
            "in pieces of {piece}"
        );
        let sizes = |exchange: &crate::http::Exchange| {
            (
                exchange.request.as_ref().unwrap().header_bytes,
                exchange.response.as_ref().unwrap().header_bytes,
            )
        };
        assert_eq!(sizes(wire.exchanges()[0]), (64 << 10, 64 << 10));
    }
}

/// Larger ones are told, with what came of them, and the connection is followed on.
#[test]
fn heads_beyond_the_cap() {
    for piece in [usize::MAX, 65_160, 1448] {
        let mut wire = Wire::new(None, true);
        let too_large = (64 << 10) + 1;
        for part in head_of(too_large, "GET /a HTTP/1.1").chunks(piece) {
            wire.send(C, part);
        }
        wire.send(S, b"HTTP/1.1 431 Large\r\nContent-Length: 0\r\n\r\n");
        wire.send(C, GET);
        for part in head_of(too_large, "HTTP/1.1 200 OK").chunks(piece) {
            wire.send(S, part);
        }
        wire.send(C, GET);
        wire.send(S, OK2);
        assert_eq!(
            wire.shown(),
            [
                "1 GET /a ?:? > 431 content-length:0 malformed (head too large)",
                "2 GET /a none:0 > 200 ?:? malformed reused (head too large)",
                "3 GET /a none:0 > 200 content-length:2 complete reused",
            ],
            "in pieces of {piece}"
        );
        assert_eq!(
            wire.exchanges()[0].request.as_ref().unwrap().headers.len(),
            3,
            "the fields that came whole"
        );
        assert_eq!(wire.flow.summary().requests, 3);
    }
}

/// Even a request line beyond the cap is told, with its answer, on a new connection and on a used one.
#[test]
fn request_lines_beyond_the_cap() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(70_000));
    let too_long = b"HTTP/1.1 414 Long\r\nContent-Length: 0\r\n\r\n";
    for client in [Some(C), None] {
        for piece in [usize::MAX, 1448] {
            let mut wire = Wire::new(client, true);
            long.as_bytes().chunks(piece).for_each(|part| wire.send(C, part));
            wire.send(S, too_long);
            wire.send(C, GET);
            wire.send(S, OK2);
            long.as_bytes().chunks(piece).for_each(|part| wire.send(C, part));
            wire.send(S, too_long);
            let told = [
                "1 - > 414 content-length:0 malformed inexact (head too large)",
                SECOND,
                "3 - > 414 content-length:0 malformed reused inexact (head too large)",
            ];
            assert_eq!(wire.shown(), told, "client {client:?}, in pieces of {piece}");
            assert_eq!(wire.exchanges()[0].started_ns, Some(11));
            assert_eq!((wire.flow.summary().requests, wire.flow.protocol()), (3, Protocol::Http1));
        }
    }
    // What has no end of line and no method either is no request.
    let mut wire = Wire::new(Some(C), true);
    wire.send(C, format!("some {}", "x".repeat(70_000)).as_bytes());
    assert_eq!((wire.shown(), wire.flow.protocol()), (vec![], Protocol::Other));
}

#[test]
fn fields_beyond_the_cap_are_not_kept_and_still_count() {
    let mut wire = Wire::new(None, true);
    let fields = "A: b\r\n".repeat(200);
    wire.send(C, format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: 1\r\n\r\nx").as_bytes());
    wire.send(S, OK2);
    assert_eq!(wire.shown(), ["1 POST / content-length:1 > 200 content-length:2 complete"]);
    assert_eq!(wire.exchanges()[0].request.as_ref().unwrap().headers.len(), 128);
}

#[test]
fn lines_of_chunks_and_trailers_beyond_their_caps() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, reason) in [
        (format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(17_000)), "chunk size line too long"),
        (format!("0\r\n{}\r\n", "A: b\r\n".repeat(11_000)), "trailer section too large"),
    ] {
        let mut wire = Wire::new(Some(C), true);
        wire.send(C, GET);
        wire.send(S, format!("{head}{body}").as_bytes());
        wire.send(C, GET);
        wire.send(S, OK2);
        assert_eq!(wire.shown(), [&format!("1 GET /a none:0 > 200 chunked:? malformed ({reason})"), SECOND]);
    }
}

/// 64 are kept, all are followed.
#[test]
fn interim_responses_beyond_the_cap() {
    let mut wire = Wire::new(Some(C), true);
    wire.send(C, GET);
    (0..1000).for_each(|_| wire.send(S, b"HTTP/1.1 102 Processing\r\n\r\n"));
    wire.send(S, OK2);
    assert_eq!(wire.exchanges()[0].informational, [102; 64]);
    assert_eq!(wire.exchanges()[0].response.as_ref().unwrap().status, 200);
}

#[test]
fn early_bytes_beyond_the_cap() {
    let config = Config { reorder_max_bytes: 4096, ..Config::default() };
    let mut wire = Wire::with(&config, Some(C), true);
    wire.send(C, GET);
    wire.step(ServerMissing(1));
    for _ in 0..100 {
        wire.send(S, &[b'x'; 100]);
        assert!(wire.flow.sides[1].stream.cost_bytes() <= 4096);
    }
    wire.send(C, GET);
    wire.send(S, OK2);
    assert_eq!(wire.shown(), ["1 GET /a none:0 > - truncated inexact", SECOND]);
}

/// A client that never reads may not fill our memory with the heads of its requests.
#[test]
fn heads_of_outstanding_requests_beyond_the_cap() {
    let config = Config::default();
    let mut wire = Wire::new(Some(C), true);
    let big = head_of(60_000, "GET /a HTTP/1.1");
    let mut most = 0;
    for _ in 0..100 {
        wire.send(C, &big);
        most = most.max(wire.flow.held_bytes());
    }
    assert!(most <= config.held_max_bytes(), "{most} of {}", config.held_max_bytes());
    assert!(most < 2 << 20, "{most}");
    let told = wire.shown();
    assert!((15..20).contains(&told.len()), "{}", told.len());
    assert!(
        told.iter()
            .all(|line| line.contains("malformed") && line.ends_with("(too many requests without response)"))
    );
    assert_eq!((wire.flow.protocol(), wire.flow.held_bytes()), (Protocol::Http1, 0));
}

#[test]
fn an_idle_flow_is_small() {
    assert!(size_of::<Flow>() < 512, "{}", size_of::<Flow>());
    for steps in
        [&[Client(GET), Server(OK2)][..], &[Client(HEAD), Client(GET), Server(super::OK0), Server(OK2)]]
    {
        let mut wire = Wire::new(None, true);
        steps.iter().for_each(|step| wire.step(*step));
        assert_eq!(wire.flow.held_bytes(), 0);
        assert!(wire.flow.queue.capacity() <= 4);
    }
    assert_eq!(case("", &[Client(GET), Server(OK2)], &[]).play(None).shown(), [GET_OK]);
}
