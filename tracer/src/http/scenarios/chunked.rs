//! The chunked transfer coding in both directions (RFC 9112 §7.1).

use super::Step::*;
use super::{Case, GET, OK2, SECOND, case};

pub(super) const CASES: &[Case] = &[
    case(
        "§7.1: chunked response; framing is not counted as content",
        &[
            Client(GET),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &["1 GET /a none:0 > 200 chunked:11 complete", SECOND],
    ),
    case(
        "§7.1: chunked request",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            Client(b"a\r\n0123456789\r\n0\r\n\r\n"),
            Server(OK2),
            Client(GET),
            Server(OK2),
        ],
        &["1 POST / chunked:13 > 200 content-length:2 complete", SECOND],
    ),
    case(
        "§7.1.1: chunk extensions are passed over, quoted ones too",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Client(b"3;a=b;c=\"d;e\"\r\nabc\r\n1 ; f\r\nx\r\n0;last\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;sig=1\r\nok\r\n0;sig=2\r\n\r\n"),
        ],
        &["1 POST / chunked:4 > 200 chunked:2 complete"],
    ),
    case(
        "§7.1.2: trailer fields end the content, they frame nothing",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n"),
            Client(b"1\r\nx\r\n0\r\nA: b\r\nContent-Length: 500\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nChecksum: 1\r\nB: 2\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &["1 POST / chunked:1 > 200 chunked:1 complete", SECOND],
    ),
    case(
        "§7.1: sizes are hexadecimal in either case, with leading zeros",
        &[
            Client(GET),
            Server(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n00a\r\n0123456789\r\nB\r\n0123456789a\r\n000\r\n\r\n",
            ),
        ],
        &["1 GET /a none:0 > 200 chunked:21 complete"],
    ),
    case(
        "§7.1: chunk data may hold line ends and what looks like chunks",
        &[
            Client(GET),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n"),
        ],
        &["1 GET /a none:0 > 200 chunked:7 complete"],
    ),
    case(
        "§6.1: chunked as the last of several codings frames, in one field or in two",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
            Server(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            ),
        ],
        &["1 POST / chunked:1 > 200 chunked:1 complete"],
    ),
    case(
        "§6.3: Transfer-Encoding overrides Content-Length, which is told",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &[
            "1 POST / chunked:0 > 200 chunked:1 complete (both Transfer-Encoding and Content-Length)",
            SECOND,
        ],
    ),
    case(
        "§6.1: chunked in HTTP/1.0 frames, and is told",
        &[
            Client(GET),
            Server(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        ],
        &["1 GET /a none:0 > 200 chunked:1 complete (Transfer-Encoding in HTTP/1.0)"],
    ),
    case(
        "§2.2: bare LF ends the lines of chunks as well",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2;x\nok\n0\nA: b\n\n"), Close],
        &["1 GET /a none:0 > 200 chunked:2 complete"],
    ),
    case(
        "§8: chunked without its last chunk is incomplete, whatever ends it",
        &[
            Client(GET),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
            ServerFin,
            ClientFin,
            Close,
        ],
        &["1 GET /a none:0 > 200 chunked:3 truncated"],
    ),
    case(
        "§8: nor is it complete without the empty line behind the last chunk",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"), ServerFin],
        &["1 GET /a none:0 > 200 chunked:1 truncated"],
    ),
    case(
        "§7.1: a size that is none",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Close],
        &["1 GET /a none:0 > 200 chunked:? malformed (chunk size missing)"],
    ),
    case(
        "§7.1: a size behind which something else stands",
        &[Client(GET), Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5x\r\n"), Close],
        &["1 GET /a none:0 > 200 chunked:? malformed (chunk size not hexadecimal)"],
    ),
    case(
        "§7.1: a size of more than 64 bits",
        &[
            Client(GET),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n"),
            Close,
        ],
        &["1 GET /a none:0 > 200 chunked:? malformed (chunk size too large)"],
    ),
    case(
        "§7.1: chunk data longer than its size; the next turn is followed again",
        &[
            Client(GET),
            Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n"),
            Client(GET),
            Server(OK2),
        ],
        &["1 GET /a none:0 > 200 chunked:? malformed (chunk data longer than its size)", SECOND],
    ),
    case(
        "§7.1: a broken chunk of a request, answered by 400",
        &[
            Client(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n"),
            Server(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            ServerFin,
            ClientFin,
            Close,
        ],
        &["1 POST / chunked:? > 400 content-length:0 malformed (chunk size missing)"],
    ),
];
