//! The four forms of a request target (RFC 9112 §3.2) and the authority that they give (§3.3).

use super::Step::*;
use super::{Case, OK2, case};

pub(super) const CASES: &[Case] = &[
    case(
        "§3.2.1: origin-form",
        &[Client(b"GET /where?q=now HTTP/1.1\r\nHost: www.example.org\r\n\r\n"), Server(OK2)],
        &["1 GET /where?q=now none:0 > 200 content-length:2 complete"],
    ),
    case(
        "§3.2.2: absolute-form",
        &[Client(b"GET http://www.example.org/pub/ HTTP/1.1\r\nHost: www.example.org\r\n\r\n"), Server(OK2)],
        &["1 GET http://www.example.org/pub/ none:0 > 200 content-length:2 complete"],
    ),
    case(
        "§3.2.3: authority-form",
        &[
            Client(b"CONNECT www.example.com:80 HTTP/1.1\r\nHost: www.example.com\r\n\r\n"),
            Server(b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno"),
        ],
        &["1 CONNECT www.example.com:80 none:0 > 407 content-length:2 complete"],
    ),
    case(
        "§3.2.4: asterisk-form",
        &[
            Client(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"),
            Server(b"HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n"),
        ],
        &["1 OPTIONS * none:0 > 204 none:0 complete"],
    ),
    case(
        "§3: bytes that are no URI are kept as they are",
        &[Client(b"GET /\xff\\\x01\" HTTP/1.1\r\nHost: h\r\n\r\n"), Server(OK2)],
        &["1 GET /\\xff\\\\\\x01\\\" none:0 > 200 content-length:2 complete"],
    ),
    case(
        "§3.1: any token is a method",
        &[Client(b"!#$%&'*+-.^_`|~9 /a HTTP/1.1\r\nHost: h\r\n\r\n"), Server(OK2)],
        &["1 !#$%&\\'*+-.^_`|~9 /a none:0 > 200 content-length:2 complete"],
    ),
];

#[test]
fn host_is_the_targets_authority_else_the_field() {
    for (request, host) in [
        (&b"GET / HTTP/1.1\r\nHost: h:81\r\n\r\n"[..], Some(&b"h:81"[..])),
        (b"GET / HTTP/1.0\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Some(b"")),
        // §3.2.2: the field is ignored.
        (b"GET http://a.example:8080/x?y=http://b/ HTTP/1.1\r\nHost: other\r\n\r\n", Some(b"a.example:8080")),
        (b"GET http://a.example HTTP/1.0\r\n\r\n", Some(b"a.example")),
        (b"GET HTTP://[::1]:80?q HTTP/1.1\r\nHost: other\r\n\r\n", Some(b"[::1]:80")),
        // RFC 9110 §4.2.4: userinfo is no part of it.
        (b"GET http://user:secret@a.example/@ HTTP/1.1\r\nHost: other\r\n\r\n", Some(b"a.example")),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: other\r\n\r\n", Some(b"a.example:443")),
        (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", Some(b"h")),
        (b"GET /http://a/ HTTP/1.1\r\nHost: h\r\n\r\n", Some(b"h")),
        (b"GET urn:x:y HTTP/1.1\r\nHost: h\r\n\r\n", Some(b"h")),
    ] {
        let steps = vec![Client(request.to_vec().leak()), Server(OK2)].leak();
        let wire = case("", steps, &[]).play(None);
        let seen = wire.exchanges()[0].request.as_ref().unwrap().host.as_deref();
        assert_eq!(seen, host, "{}", request.escape_ascii());
    }
}
