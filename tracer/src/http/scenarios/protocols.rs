//! What is not HTTP/1.x: recognised by its first bytes, named, and left alone.

use super::Step::*;
use super::{C, Case, GET, GET_OK, OK2, S, Wire, case};
use crate::http::{Exchange, Mark};

pub(super) const CASES: &[Case] = &[
    case(
        "RFC 9113 §3.4: the preface of HTTP/2",
        &[Client(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")],
        &[],
    )
    .protocol("Http2"),
    case(
        "RFC 9113 §3.4: the server may be first to send its preface, a SETTINGS frame",
        &[Server(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64"), Client(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")],
        &[],
    )
    .protocol("Http2"),
    case(
        "RFC 9113 §3.4: the preface behind a request",
        &[Client(GET), Server(OK2), Client(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")],
        &[GET_OK],
    )
    .protocol("Http2"),
    case(
        "RFC 8446 §5.1: a TLS record",
        &[Client(b"\x16\x03\x01\x02\x00\x01\x00"), Server(b"\x16\x03\x03")],
        &[],
    )
    .protocol("Tls"),
    case(
        "RFC 8446 §5.1: an alert is the first thing that the server sends",
        &[Server(b"\x15\x03\x01\0\x02\x02\x46")],
        &[],
    )
    .protocol("Tls"),
    case("first bytes too few for a name, and no more of them", &[Client(b"\x16"), Close], &[])
        .protocol("Other"),
    case("Redis", &[Client(b"*1\r\n$4\r\nPING\r\n")], &[]).protocol("Other"),
    case("PostgreSQL's SSLRequest", &[Client(b"\0\0\0\x08\x04\xd2\x16\x2f")], &[]).protocol("Other"),
    case("memcached: words, but no request line", &[Client(b"get key\r\n")], &[]).protocol("Other"),
    case("SSH: the server begins", &[Server(b"SSH-2.0-OpenSSH_9\r\n"), Client(b"SSH-2.0-x\r\n")], &[])
        .protocol("Other"),
    case("SMTP: a greeting", &[Server(b"220 mail ESMTP\r\n"), Client(b"EHLO h\r\n")], &[]).protocol("Other"),
    case("MySQL", &[Server(b"J\0\0\0\n5.7\0")], &[]).protocol("Other"),
    case("RTSP is not HTTP", &[Client(b"OPTIONS rtsp://h/ RTSP/1.0\r\nCSeq: 1\r\n\r\n")], &[])
        .protocol("Other"),
    case("§2.3: another major version in a request", &[Client(b"GET / HTTP/3.0\r\n\r\n")], &[])
        .protocol("Other"),
    case("§2.3: HTTP/0.9", &[Client(b"GET /\r\n"), Server(b"<html>"), ServerFin], &[]).protocol("Other"),
    case("§2.3: another major version in a response", &[Server(b"HTTP/2 200\r\n")], &[]).protocol("Other"),
];

/// No exchange is made up, and no further byte of either direction is asked for.
#[test]
fn they_cost_nothing_further() {
    for case in CASES.iter().filter(|case| case.told.is_empty() && !case.steps.contains(&Close)) {
        let mut wire = case.play(Some(C));
        assert_eq!(wire.marks(), [(C, Mark::Never), (S, Mark::Never)], "{}", case.clause);
        wire.send(C, GET);
        wire.send(S, OK2);
        wire.step(Close);
        assert_eq!(wire.exchanges(), [] as [&Exchange; 0], "{}", case.clause);
        assert_eq!(wire.flow.held_bytes(), 0);
    }
}

/// Nor does garbage of a connection joined midway, after some turns.
#[test]
fn encrypted_turns_are_believed_after_a_while() {
    let mut wire = Wire::new(None, false);
    for _ in 0..20 {
        wire.send(C, b"\x17\x03\x03");
        wire.send(S, b"\x17\x03\x03");
    }
    assert_eq!(format!("{:?}", wire.flow.protocol()), "Tls");
    assert_eq!(wire.marks(), [(C, Mark::Never), (S, Mark::Never)]);
}
