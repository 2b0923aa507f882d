//! Lossless text for bytes that came from the network.
//!
//! The rule, which `unescape` reverses: valid UTF-8 stays as it is, a backslash becomes `\\`, and each byte that
//! is not part of valid UTF-8 becomes `\xHH` with two lower-case hexadecimal digits. JSON escaping comes on top
//! of that, so control characters appear as `\u0000` and a network backslash appears as `\\\\` in the line.

use serde::{Serialize, Serializer};
use std::borrow::Cow;

/// Bytes from the network, or from a process that may name itself as it likes, written by the rule of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> From<&'a [u8]> for Text<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(self.0))
    }
}

/// The bytes as text; nothing is copied when they are UTF-8 without a backslash.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&b'\\') => Cow::Borrowed(text),
        _ => Cow::Owned(escape_each(bytes)),
    }
}

fn escape_each(bytes: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() + bytes.len() / 4 + 8);
    for chunk in bytes.utf8_chunks() {
        for (index, part) in chunk.valid().split('\\').enumerate() {
            if index > 0 {
                out.push_str(r"\\");
            }
            out.push_str(part);
        }
        for byte in chunk.invalid() {
            out.push_str(r"\x");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 0xf)]));
        }
    }
    out
}

/// The bytes that [`escape`] was given. A backslash that starts no escape of ours stands for itself.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [b'\\', tail @ ..]) => {
                out.push(b'\\');
                rest = tail;
            }
            (b'\\', [b'x', high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = tail;
                }
                _ => {
                    out.push(first);
                    rest = after;
                }
            },
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(escape("GET /käse".as_bytes()), Cow::Borrowed("GET /käse")));
        assert!(matches!(escape(b""), Cow::Borrowed("")));
    }

    #[test]
    fn backslashes_and_stray_bytes_are_escaped() {
        assert_eq!(escape(br"C:\x41"), r"C:\\x41");
        assert_eq!(escape(b"a\xff\\\xc3("), r"a\xff\\\xc3(");
        // A surrogate and an overlong form are no UTF-8.
        assert_eq!(escape(b"\xed\xa0\x80\xc0\x80"), r"\xed\xa0\x80\xc0\x80");
    }

    #[test]
    fn control_characters_are_left_to_json() {
        assert_eq!(escape(b"a\0\r\n\t\x7f"), "a\0\r\n\t\x7f");
        assert_eq!(serde_json::to_string(&Text(b"a\0\"\n")).unwrap(), r#""a\u0000\"\n""#);
    }

    #[test]
    fn foreign_backslashes_stand_for_themselves() {
        assert_eq!(unescape(r"\q\x4\xZZ\"), br"\q\x4\xZZ\");
    }

    proptest! {
        #[test]
        fn every_byte_string_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(unescape(&escape(&bytes)), bytes);
        }

        #[test]
        fn escape_alphabet_comes_back(bytes in r"[\\x0-9a-fA-F\x80-\xff]{0,40}") {
            prop_assert_eq!(unescape(&escape(bytes.as_bytes())), bytes.as_bytes());
        }

        #[test]
        fn every_byte_string_is_valid_json_on_one_line(bytes: Vec<u8>) {
            let json = serde_json::to_string(&Text(&bytes)).unwrap();
            prop_assert!(!json.bytes().any(|byte| byte < 0x20));
            let read: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(unescape(&read), bytes);
        }
    }
}
