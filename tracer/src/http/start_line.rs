//! The first line of a message: request line or status line (RFC 9112 §3, §4), and what its first bytes tell
//! before it is whole.

use memchr::{memchr, memrchr};

/// Longest method believed to be one. The longest registered has 17 bytes.
const METHOD_MAX_BYTES: usize = 64;

/// The first line of a head, without its line end, and where the rest begins.
pub(super) fn first_line(bytes: &[u8]) -> (&[u8], usize) {
    let end = memchr(b'\n', bytes);
    (strip_cr(&bytes[..end.unwrap_or(bytes.len())]), end.map_or(bytes.len(), |end| end + 1))
}

/// What the first bytes of a message can still become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Prefix {
    Request,
    Response,
    /// Too short to tell, either is possible.
    Either,
    Neither,
}

/// Judges the first bytes of what may be a message.
pub(super) fn prefix(bytes: &[u8]) -> Prefix {
    const VERSION: &[u8] = b"HTTP/1.";
    let n = bytes.len().min(VERSION.len());
    if bytes[..n] == VERSION[..n] {
        return if n == VERSION.len() { Prefix::Response } else { Prefix::Either };
    }
    match bytes.iter().take(METHOD_MAX_BYTES + 1).position(|&byte| !is_token_byte(byte)) {
        Some(end) if end > 0 && bytes[end] == b' ' => Prefix::Request,
        Some(_) => Prefix::Neither,
        None if bytes.len() <= METHOD_MAX_BYTES => Prefix::Request,
        None => Prefix::Neither,
    }
}

/// These are the first bytes of a request, as far as can be told before its line is whole: a method in capitals, and a
/// target in one of its forms (RFC 9112 §3.1, §3.2).
pub(super) fn begins_request(bytes: &[u8]) -> bool {
    let Some(space) = memchr(b' ', &bytes[..bytes.len().min(METHOD_MAX_BYTES + 1)]) else { return false };
    let is_capital = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-';
    space > 0
        && bytes[..space].iter().all(is_capital)
        && bytes
            .get(space + 1)
            .is_some_and(|byte| matches!(byte, b'/' | b'*') || byte.is_ascii_alphanumeric())
}

/// The authority that a target gives (RFC 9112 §3.3): that of the absolute form without userinfo, or the whole
/// authority form. Then it overrides the Host field (§3.2.2).
pub(super) fn authority<'a>(line: &RequestLine<'a>) -> Option<&'a [u8]> {
    if line.method == b"CONNECT" {
        return Some(line.target);
    }
    let scheme = memchr(b':', line.target)?;
    if !line.target.first()?.is_ascii_alphabetic() || !is_scheme(&line.target[..scheme]) {
        return None;
    }
    let rest = line.target[scheme + 1..].strip_prefix(b"//")?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = &rest[..end];
    // RFC 9110 §4.2.4.
    Some(memrchr(b'@', authority).map_or(authority, |at| &authority[at + 1..]))
}

/// RFC 3986 §3.1, its first byte aside.
fn is_scheme(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Why a first line starts no HTTP/1.x message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotHttp1 {
    /// The connection preface of HTTP/2 (RFC 9113 §3.4).
    Http2,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestLine<'a> {
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub version: (u8, u8),
}

/// Parses a request line without its line end (RFC 9112 §3).
pub(super) fn request_line(line: &[u8]) -> Result<RequestLine<'_>, NotHttp1> {
    let line = line.trim_ascii_end();
    let first = memchr(b' ', line).ok_or(NotHttp1::Other)?;
    let last = memrchr(b' ', line).ok_or(NotHttp1::Other)?;
    let (method, version) = (&line[..first], &line[last + 1..]);
    let target = line.get(first + 1..last).unwrap_or_default().trim_ascii();
    if method == b"PRI" && target == b"*" && version == b"HTTP/2.0" {
        return Err(NotHttp1::Http2);
    }
    match self::version(version) {
        Some(version @ (1, _))
            if method.len() <= METHOD_MAX_BYTES && is_token(method) && !target.is_empty() =>
        {
            Ok(RequestLine { method, target, version })
        }
        _ => Err(NotHttp1::Other),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StatusLine<'a> {
    pub status: u16,
    pub reason: &'a [u8],
    pub version: (u8, u8),
}

/// Parses a status line without its line end (RFC 9112 §4). The space before an empty reason may be missing.
pub(super) fn status_line(line: &[u8]) -> Result<StatusLine<'_>, NotHttp1> {
    let line = line.trim_ascii_end();
    let parts = line.split_at_checked(8).and_then(|(name, rest)| {
        let version = version(name).filter(|&(major, _)| major == 1)?;
        let rest = rest.strip_prefix(b" ")?.trim_ascii_start();
        let (digits, reason) = rest.split_at_checked(3)?;
        let status = digits
            .iter()
            .try_fold(0, |n: u16, digit| digit.is_ascii_digit().then(|| n * 10 + u16::from(digit - b'0')))?;
        let reason = if reason.is_empty() { reason } else { reason.strip_prefix(b" ")? };
        (status >= 100).then_some(StatusLine { status, reason, version })
    });
    parts.ok_or(NotHttp1::Other)
}

fn version(bytes: &[u8]) -> Option<(u8, u8)> {
    match bytes.strip_prefix(b"HTTP/")? {
        [major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] => Some((major - b'0', minor - b'0')),
        _ => None,
    }
}

/// A line without the CR of its end; a bare LF ends a line as well (RFC 9112 §2.2).
pub(super) fn strip_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A `token` of RFC 9110 §5.6.2.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// Which bytes are a `tchar` of RFC 9110 §5.6.2.
const TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (bytes, expected) in [
            (&b""[..], Prefix::Either),
            (b"H", Prefix::Either),
            (b"HTTP/1", Prefix::Either),
            (b"HTTP/1.", Prefix::Response),
            (b"HTTP/1.1 200 OK", Prefix::Response),
            (b"HTTPX", Prefix::Request),
            (b"GET", Prefix::Request),
            (b"GET /", Prefix::Request),
            (b"SSH-2.0-x", Prefix::Request),
            (b"HTTP/2 200", Prefix::Neither),
            (b" GET", Prefix::Neither),
            (b"\x16\x03\x01", Prefix::Neither),
            (b"GET\t/", Prefix::Neither),
        ] {
            assert_eq!(prefix(bytes), expected, "{}", bytes.escape_ascii());
        }
        assert_eq!(prefix(&[b'A'; 65]), Prefix::Neither);
    }

    #[test]
    fn request_lines() {
        for (line, method, target, version) in [
            ("GET / HTTP/1.1", "GET", "/", (1, 1)),
            ("OPTIONS * HTTP/1.0", "OPTIONS", "*", (1, 0)),
            ("CONNECT a:1 HTTP/1.1", "CONNECT", "a:1", (1, 1)),
            ("GET http://a/b?c HTTP/1.1 ", "GET", "http://a/b?c", (1, 1)),
            ("x!  /a b  HTTP/1.9", "x!", "/a b", (1, 9)),
        ] {
            let expected = RequestLine { method: method.as_bytes(), target: target.as_bytes(), version };
            assert_eq!(request_line(line.as_bytes()), Ok(expected), "{line}");
        }
        for line in ["", "GET", "GET /", "GET HTTP/1.1", "GET  HTTP/1.1", "GET / HTTP/2.0", "GET / http/1.1"]
        {
            assert_eq!(request_line(line.as_bytes()), Err(NotHttp1::Other), "{line}");
        }
        for line in ["G(T / HTTP/1.1", " / HTTP/1.1", "GET / HTTP/1.11", "GET / HTTP/1", "GET / HTTP/0.9"] {
            assert_eq!(request_line(line.as_bytes()), Err(NotHttp1::Other), "{line}");
        }
        assert_eq!(request_line(b"PRI * HTTP/2.0"), Err(NotHttp1::Http2));
    }

    #[test]
    fn status_lines() {
        for (line, status, reason) in [
            ("HTTP/1.1 200 OK", 200, "OK"),
            ("HTTP/1.1 404 Not Found", 404, "Not Found"),
            ("HTTP/1.0 299 ", 299, ""),
            ("HTTP/1.1 999", 999, ""),
        ] {
            let parsed = status_line(line.as_bytes()).unwrap();
            assert_eq!((parsed.status, parsed.reason), (status, reason.as_bytes()), "{line}");
        }
        for line in
            ["HTTP/1.1", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 099", "HTTP/1.1200", "HTTP/2.0 200"]
        {
            assert!(status_line(line.as_bytes()).is_err(), "{line}");
        }
    }
}
