//! Where a message's content ends (RFC 9112 §6), decided from the head and then followed.

use super::chunked::Chunked;
use super::exchange::Framing;
use super::head::{ContentLength, Facts, TransferEncoding};

/// The content of a message, and how much of it has passed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Body {
    None,
    Length { remaining: u64, total: u64 },
    Chunked(Chunked),
    UntilClose { content: u64 },
}

/// RFC 9112 §6.3 for a request. An error says that its end cannot be known.
pub(super) fn of_request(facts: &Facts) -> Result<Body, &'static str> {
    match (facts.transfer_encoding, facts.content_length) {
        (TransferEncoding::Chunked, _) => Ok(Body::Chunked(Chunked::new())),
        (TransferEncoding::Other, _) => Err("chunked is not the last transfer coding"),
        (TransferEncoding::Absent, length) => of_length(length, Body::None),
    }
}

/// RFC 9112 §6.3 for a final response; `method` of its request, if that is known. An error says that the end
/// cannot be known.
pub(super) fn of_response(method: Option<&[u8]>, status: u16, facts: &Facts) -> Result<Body, &'static str> {
    let tunnel = method == Some(b"CONNECT") && (200..300).contains(&status);
    if tunnel || method == Some(b"HEAD") || matches!(status, 100..200 | 204 | 304) {
        return Ok(Body::None);
    }
    match (facts.transfer_encoding, facts.content_length) {
        (TransferEncoding::Chunked, _) => Ok(Body::Chunked(Chunked::new())),
        (TransferEncoding::Other, _) => Ok(Body::UntilClose { content: 0 }),
        (TransferEncoding::Absent, length) => of_length(length, Body::UntilClose { content: 0 }),
    }
}

fn of_length(length: ContentLength, absent: Body) -> Result<Body, &'static str> {
    match length {
        ContentLength::Absent => Ok(absent),
        ContentLength::Bytes(total) => Ok(Body::Length { remaining: total, total }),
        ContentLength::Invalid(reason) => Err(reason),
    }
}

/// What a head says about framing that it must not say, though the end is known all the same.
pub(super) fn contradiction(version: (u8, u8), facts: &Facts) -> Option<&'static str> {
    if facts.transfer_encoding == TransferEncoding::Absent {
        None
    } else if facts.content_length != ContentLength::Absent {
        // §6.3: Transfer-Encoding overrides, and the sender may be smuggling.
        Some("both Transfer-Encoding and Content-Length")
    } else if version < (1, 1) {
        Some("Transfer-Encoding in HTTP/1.0")
    } else {
        None
    }
}

impl Body {
    /// Consumes bytes of the content until it ends or `data` does.
    ///
    /// # Errors
    /// The rule of the chunked coding that was broken.
    pub(super) fn advance(&mut self, data: &[u8]) -> Result<u64, &'static str> {
        match self {
            Self::Chunked(chunked) => chunked.advance(data).map(|n| n as u64),
            _ => Ok(self.skip(data.len() as u64)),
        }
    }

    /// Passes up to `len` bytes unread; returns how many this place of the content allows.
    pub(super) fn skip(&mut self, len: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Length { remaining, .. } => {
                let n = len.min(*remaining);
                *remaining -= n;
                n
            }
            Self::Chunked(chunked) => chunked.skip(len),
            Self::UntilClose { content } => {
                *content = content.saturating_add(len);
                len
            }
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::None => true,
            Self::Length { remaining, .. } => *remaining == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose { .. } => false,
        }
    }

    /// Bytes that can pass unread from here on.
    pub(super) fn opaque(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Length { remaining, .. } => *remaining,
            Self::Chunked(chunked) => chunked.opaque(),
            Self::UntilClose { .. } => u64::MAX,
        }
    }

    /// Bytes that can pass without any record of them, their message's last byte not among them.
    pub(super) fn opaque_before_end(&self) -> u64 {
        match self {
            Self::Length { remaining, .. } => remaining.saturating_sub(1),
            _ => self.opaque(),
        }
    }

    /// Content bytes passed so far.
    pub(super) fn content(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Length { remaining, total } => total - remaining,
            Self::Chunked(chunked) => chunked.content(),
            Self::UntilClose { content } => *content,
        }
    }

    /// Nothing of it has passed yet.
    pub(super) fn is_untouched(&self) -> bool {
        match self {
            Self::Chunked(chunked) => chunked.is_untouched(),
            _ => self.content() == 0,
        }
    }

    pub(super) fn framing(&self) -> Framing {
        match self {
            Self::None => Framing::None,
            Self::Length { .. } => Framing::ContentLength,
            Self::Chunked(_) => Framing::Chunked,
            Self::UntilClose { .. } => Framing::UntilClose,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(transfer_encoding: TransferEncoding, content_length: ContentLength) -> Facts {
        Facts { transfer_encoding, content_length, ..Facts::default() }
    }

    #[test]
    fn message_body_length() {
        use ContentLength as C;
        use Framing as F;
        use TransferEncoding as T;
        let bad = C::Invalid("invalid Content-Length");
        for (coding, length, request, response) in [
            (T::Absent, C::Absent, Some(F::None), Some(F::UntilClose)),
            (T::Absent, C::Bytes(5), Some(F::ContentLength), Some(F::ContentLength)),
            (T::Absent, bad, None, None),
            (T::Chunked, C::Absent, Some(F::Chunked), Some(F::Chunked)),
            (T::Chunked, C::Bytes(5), Some(F::Chunked), Some(F::Chunked)),
            (T::Chunked, bad, Some(F::Chunked), Some(F::Chunked)),
            (T::Other, C::Bytes(5), None, Some(F::UntilClose)),
        ] {
            let facts = facts(coding, length);
            assert_eq!(of_request(&facts).ok().map(|body| body.framing()), request, "{facts:?}");
            let got = of_response(Some(b"GET"), 200, &facts).ok().map(|body| body.framing());
            assert_eq!(got, response, "{facts:?}");
        }
    }

    #[test]
    fn responses_without_content() {
        let facts = facts(TransferEncoding::Chunked, ContentLength::Bytes(5));
        for (method, status, none) in [
            ("HEAD", 200, true),
            ("GET", 204, true),
            ("GET", 304, true),
            ("GET", 103, true),
            ("CONNECT", 200, true),
            ("CONNECT", 299, true),
            ("CONNECT", 407, false),
            ("GET", 205, false),
            ("head", 200, false),
        ] {
            let body = of_response(Some(method.as_bytes()), status, &facts).unwrap();
            assert_eq!(body == Body::None, none, "{method} {status}");
        }
    }

    #[test]
    fn contradictions() {
        use ContentLength as C;
        use TransferEncoding as T;
        assert_eq!(contradiction((1, 1), &facts(T::Absent, C::Bytes(1))), None);
        assert_eq!(contradiction((1, 1), &facts(T::Chunked, C::Absent)), None);
        assert!(contradiction((1, 1), &facts(T::Chunked, C::Bytes(1))).is_some());
        assert!(contradiction((1, 0), &facts(T::Chunked, C::Absent)).is_some());
    }
}
