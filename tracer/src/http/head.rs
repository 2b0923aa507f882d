//! Message heads: where they end, and their fields (RFC 9112 §2.2, §5).
//!
//! Lenient where §2.2 and §5 let a recipient be (bare LF, obs-fold, whitespace), and every leniency that a
//! server should have refused is named in [`Head::defect`].

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr2};

use super::exchange::Field;
use super::start_line::{is_token, strip_cr};

/// Longest name of an upgraded protocol that is kept.
const UPGRADE_MAX_BYTES: usize = 64;

/// Finds the end of a head: the position just behind its empty line. `scan` is kept between calls while
/// `bytes` grows, so that each byte is looked at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    line_start: usize,
    at: usize,
}

impl Scan {
    pub(super) fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(found) = bytes.get(self.at..).and_then(|rest| memchr(b'\n', rest)) {
            let newline = self.at + found;
            let line = &bytes[self.line_start..newline];
            self.at = newline + 1;
            self.line_start = self.at;
            if matches!(line, [] | [b'\r']) {
                return Some(self.at);
            }
        }
        self.at = bytes.len();
        None
    }

    /// The first line is complete.
    pub(super) fn has_line(&self) -> bool {
        self.line_start > 0
    }
}

/// Content-Length as all fields together give it (RFC 9110 §8.6, RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum ContentLength {
    #[default]
    Absent,
    Bytes(u64),
    Invalid(&'static str),
}

/// Transfer-Encoding as all fields together give it (RFC 9112 §6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum TransferEncoding {
    #[default]
    Absent,
    /// `chunked` is the last coding, and there only.
    Chunked,
    /// Other codings, or `chunked` elsewhere than at the end.
    Other,
}

/// What the fields say about framing and persistence, whether or not they are kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Facts {
    pub content_length: ContentLength,
    pub transfer_encoding: TransferEncoding,
    /// `chunked` was followed by another coding, so it cannot be trusted even if it comes again.
    pub chunked_not_last: bool,
    pub close: bool,
    pub keep_alive: bool,
    pub timeout_s: Option<u64>,
    pub max: Option<u64>,
    pub host: Option<Vec<u8>>,
    /// First protocol of the Upgrade field (RFC 9110 §7.8).
    pub upgrade: Option<String>,
}

/// The fields of a head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Head {
    pub fields: Vec<Field>,
    pub facts: Facts,
    /// The first rule that the fields broke and a recipient may tolerate.
    pub defect: Option<&'static str>,
}

/// Parses the field lines of a head, whole or cut short (RFC 9112 §5). `strict`: by the rules for servers,
/// who have to refuse what clients may repair.
pub(super) fn fields(bytes: &[u8], strict: bool, fields_max: usize) -> Head {
    let mut head = Head::default();
    let mut current: Option<(Range<usize>, Cow<'_, [u8]>)> = None;
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        let line_start = at;
        let line = strip_cr(&bytes[line_start..line_start + found]);
        at = line_start + found + 1;
        if matches!(line.first(), Some(b' ' | b'\t')) {
            match &mut current {
                // obs-fold (§5.2): no sender may, every recipient replaces it by a space.
                Some((_, value)) => {
                    note(&mut head.defect, "obsolete line folding");
                    let more = trim(line);
                    let value = value.to_mut();
                    value.push(b' ');
                    value.extend_from_slice(more);
                }
                // §2.2: such lines before the first field are passed over.
                None => note(&mut head.defect, "whitespace before the first field"),
            }
            continue;
        }
        if let Some((name, value)) = current.take() {
            head.keep(&bytes[name], &value, fields_max);
        }
        if line.is_empty() {
            break;
        }
        let Some(colon) = memchr(b':', line) else {
            note(&mut head.defect, "field line without colon");
            continue;
        };
        let name = line[..colon].trim_ascii_end();
        // §5.1: a server refuses this, a proxy removes it from a response.
        if strict && name.len() != colon {
            note(&mut head.defect, "whitespace before colon");
        }
        if !is_token(name) {
            note(&mut head.defect, "invalid field name");
            continue;
        }
        let value = trim(&line[colon + 1..]);
        if memchr2(0, b'\r', value).is_some() {
            note(&mut head.defect, "NUL or bare CR in field value");
        }
        current = Some((line_start..line_start + name.len(), Cow::Borrowed(value)));
    }
    if let Some((name, value)) = current {
        head.keep(&bytes[name], &value, fields_max);
    }
    head
}

/// Records a defect unless one is known already.
pub(super) fn note(defect: &mut Option<&'static str>, reason: &'static str) {
    defect.get_or_insert(reason);
}

impl Head {
    fn keep(&mut self, name: &[u8], value: &[u8], fields_max: usize) {
        // Fields beyond the cap still decide framing.
        self.facts.read(name, value, &mut self.defect);
        if self.fields.len() < fields_max {
            self.fields.push((name.to_vec(), value.to_vec()));
        }
    }
}

impl Facts {
    fn read(&mut self, name: &[u8], value: &[u8], defect: &mut Option<&'static str>) {
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            4 if is(b"Host") => match self.host {
                None => self.host = Some(value.to_vec()),
                // RFC 9112 §3.2: exactly one.
                Some(_) => note(defect, "more than one Host"),
            },
            7 if is(b"Upgrade") && self.upgrade.is_none() => {
                let first = list(value).next().unwrap_or_default();
                let known = first.len() <= UPGRADE_MAX_BYTES && first.iter().all(u8::is_ascii_graphic);
                self.upgrade = known.then(|| first.iter().map(|&byte| char::from(byte)).collect());
            }
            10 if is(b"Connection") => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            10 if is(b"Keep-Alive") => self.read_keep_alive(value),
            14 if is(b"Content-Length") => {
                self.content_length = list_strict(value).fold(self.content_length, |known, item| {
                    match (known, decimal(item)) {
                        (ContentLength::Invalid(_), _) => known,
                        (_, None) => ContentLength::Invalid("invalid Content-Length"),
                        (ContentLength::Bytes(one), Some(other)) if one != other => {
                            ContentLength::Invalid("contradictory Content-Length")
                        }
                        (_, Some(bytes)) => ContentLength::Bytes(bytes),
                    }
                });
            }
            17 if is(b"Transfer-Encoding") => {
                let mut any = false;
                for coding in list(value) {
                    any = true;
                    let chunked = coding.eq_ignore_ascii_case(b"chunked");
                    // `chunked` is applied once and last; anything behind it spoils the framing.
                    self.transfer_encoding = match self.transfer_encoding {
                        TransferEncoding::Chunked => {
                            note(defect, "coding after chunked");
                            self.chunked_not_last = true;
                            TransferEncoding::Other
                        }
                        _ if chunked && !self.chunked_not_last => TransferEncoding::Chunked,
                        _ => TransferEncoding::Other,
                    };
                }
                if !any && self.transfer_encoding == TransferEncoding::Absent {
                    note(defect, "empty Transfer-Encoding");
                    self.transfer_encoding = TransferEncoding::Other;
                }
            }
            _ => {}
        }
    }

    /// `timeout=5, max=100`; the last of each counts, what does not parse is passed over.
    fn read_keep_alive(&mut self, value: &[u8]) {
        for parameter in list(value) {
            let Some(equals) = memchr(b'=', parameter) else { continue };
            let (name, number) = (trim(&parameter[..equals]), trim(&parameter[equals + 1..]));
            if name.eq_ignore_ascii_case(b"timeout") {
                self.timeout_s = decimal(number).or(self.timeout_s);
            } else if name.eq_ignore_ascii_case(b"max") {
                self.max = decimal(number).or(self.max);
            }
        }
    }
}

/// The members of a comma-separated list, empty ones left out (RFC 9110 §5.6.1).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    list_strict(value).filter(|item| !item.is_empty())
}

fn list_strict(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim)
}

/// One or more digits, nothing else; `None` as well when it does not fit.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, byte| match byte {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Without optional whitespace at either end (RFC 9110 §5.6.3).
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> (Facts, Option<&'static str>) {
        let head = fields(text.as_bytes(), true, 128);
        (head.facts, head.defect)
    }

    #[test]
    fn end_is_found_wherever_the_bytes_are_split() {
        for text in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\nA: b\n\n", "G\r\n\n", "G\n\r\n"] {
            let mut bytes = text.as_bytes().to_vec();
            bytes.extend(b"more\r\n\r\n");
            assert_eq!(Scan::default().find_end(&bytes), Some(text.len()), "{text:?}");
            let mut scan = Scan::default();
            let found = (0..=bytes.len()).find_map(|n| scan.find_end(&bytes[..n]));
            assert_eq!(found, Some(text.len()), "{text:?}");
        }
        assert_eq!(Scan::default().find_end(b"GET / HTTP/1.1\r\nA: b\r\n\r"), None);
    }

    #[test]
    fn fields_are_kept_as_sent() {
        let head =
            fields(b"Host: a\r\nX:  b c \t\r\nX:\r\nFold: 1\r\n  2\r\n\t3\r\n\r\nNot: here\r\n", true, 128);
        let shown: Vec<(&str, &str)> = head
            .fields
            .iter()
            .map(|(name, value)| (str::from_utf8(name).unwrap(), str::from_utf8(value).unwrap()))
            .collect();
        assert_eq!(shown, [("Host", "a"), ("X", "b c"), ("X", ""), ("Fold", "1 2 3")]);
        let defect = Some("obsolete line folding");
        assert_eq!((head.facts.host.as_deref(), head.defect), (Some(&b"a"[..]), defect));
    }

    #[test]
    fn fields_beyond_the_cap_still_count() {
        let text = format!("{}Content-Length: 7\r\n\r\n", "A: b\r\n".repeat(200));
        let head = fields(text.as_bytes(), true, 128);
        assert_eq!((head.fields.len(), head.facts.content_length), (128, ContentLength::Bytes(7)));
    }

    #[test]
    fn defects_are_named() {
        for (text, reason) in [
            ("A : b\r\n\r\n", "whitespace before colon"),
            (" A: b\r\n\r\n", "whitespace before the first field"),
            ("A\r\n\r\n", "field line without colon"),
            (": b\r\n\r\n", "invalid field name"),
            ("A b: c\r\n\r\n", "invalid field name"),
            ("A: b\0c\r\n\r\n", "NUL or bare CR in field value"),
            ("A: b\rc\r\n\r\n", "NUL or bare CR in field value"),
            ("Host: a\r\nHost: a\r\n\r\n", "more than one Host"),
        ] {
            assert_eq!(facts(text).1, Some(reason), "{text:?}");
        }
        let response = fields(b"Content-Length : 5\r\n\r\n", false, 128);
        assert_eq!((response.defect, response.facts.content_length), (None, ContentLength::Bytes(5)));
    }

    #[test]
    fn content_length() {
        use ContentLength::{Absent, Bytes, Invalid};
        for (text, expected) in [
            ("\r\n", Absent),
            ("Content-Length: 5\r\n\r\n", Bytes(5)),
            ("content-length: 5, 5\r\nContent-Length: 005\r\n\r\n", Bytes(5)),
            ("Content-Length: 18446744073709551615\r\n\r\n", Bytes(u64::MAX)),
            ("Content-Length: 18446744073709551616\r\n\r\n", Invalid("invalid Content-Length")),
            ("Content-Length: 5, 6\r\n\r\n", Invalid("contradictory Content-Length")),
            ("Content-Length: 5\r\nContent-Length: 6\r\n\r\n", Invalid("contradictory Content-Length")),
            ("Content-Length: -1\r\n\r\n", Invalid("invalid Content-Length")),
            ("Content-Length: +1\r\n\r\n", Invalid("invalid Content-Length")),
            ("Content-Length: 1,\r\n\r\n", Invalid("invalid Content-Length")),
            ("Content-Length:\r\n\r\n", Invalid("invalid Content-Length")),
            ("Content-Length: 1\r\n 2\r\n\r\n", Invalid("invalid Content-Length")),
        ] {
            assert_eq!(facts(text).0.content_length, expected, "{text:?}");
        }
    }

    #[test]
    fn transfer_encoding() {
        use TransferEncoding::{Absent, Chunked, Other};
        for (value, expected) in [
            ("", Absent),
            ("Transfer-Encoding: chunked\r\n", Chunked),
            ("transfer-encoding: gzip, Chunked\r\n", Chunked),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Chunked),
            ("Transfer-Encoding: chunked, gzip\r\n", Other),
            ("Transfer-Encoding: chunked, chunked\r\n", Other),
            ("Transfer-Encoding: chunked, gzip, chunked\r\n", Other),
            ("Transfer-Encoding: identity\r\n", Other),
            ("Transfer-Encoding: \r\n", Other),
            ("Transfer-Encoding: xchunked\r\n", Other),
        ] {
            assert_eq!(facts(&format!("{value}\r\n")).0.transfer_encoding, expected, "{value:?}");
        }
    }

    #[test]
    fn connection_options() {
        let (facts, _) = facts(
            "Connection: Upgrade, CLOSE\r\nconnection: keep-alive\r\nUpgrade: websocket, b\r\nKeep-Alive: timeout=5, max = 100, x\r\n\r\n",
        );
        assert!(facts.close && facts.keep_alive);
        assert_eq!((facts.timeout_s, facts.max), (Some(5), Some(100)));
        assert_eq!(facts.upgrade.as_deref(), Some("websocket"));
    }
}
