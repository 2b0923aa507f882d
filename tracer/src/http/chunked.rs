//! The chunked transfer coding (RFC 9112 §7.1), followed byte by byte without keeping any of them.

use memchr::memchr;

/// Longest chunk-size line accepted, extensions included.
const LINE_MAX_BYTES: u32 = 16 << 10;
/// Largest trailer section accepted.
const TRAILER_MAX_BYTES: u32 = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// At the first hex digit of a chunk size.
    SizeStart,
    Size,
    /// After the size, before the end of its line: whitespace and chunk extensions (§7.1.1).
    Extension,
    SizeCr,
    Data,
    /// After the data, at its CRLF.
    DataEnd,
    DataCr,
    /// In the trailer section (§7.1.2).
    Trailer,
    Done,
}

/// Where in a chunked body the stream is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Chunked {
    step: Step,
    /// Size being read, then content bytes of this chunk still to come.
    remaining: u64,
    content: u64,
    /// Bytes of the current size line, or of the trailer section.
    section: u32,
    /// Bytes of the current trailer line, and its first one.
    line: u32,
    line_first: u8,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { step: Step::SizeStart, remaining: 0, content: 0, section: 0, line: 0, line_first: 0 }
    }

    /// Content bytes passed so far, without framing.
    pub(super) fn content(&self) -> u64 {
        self.content
    }

    pub(super) fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// No byte of the body was consumed yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.step == Step::SizeStart && self.content == 0
    }

    /// Bytes that need not be looked at: what is left of the current chunk's data.
    pub(super) fn opaque(&self) -> u64 {
        if self.step == Step::Data { self.remaining } else { 0 }
    }

    /// Passes up to `len` content bytes that were not captured; returns how many could be.
    pub(super) fn skip(&mut self, len: u64) -> u64 {
        let n = len.min(self.opaque());
        if n > 0 {
            self.remaining -= n;
            self.content = self.content.saturating_add(n);
            if self.remaining == 0 {
                self.step = Step::DataEnd;
            }
        }
        n
    }

    /// Consumes bytes until the body ends or `data` does; returns how many were consumed.
    ///
    /// # Errors
    /// The rule that was broken; the decoder must not be used afterwards.
    pub(super) fn advance(&mut self, data: &[u8]) -> Result<usize, &'static str> {
        let mut at = 0;
        while let Some(&byte) = data.get(at) {
            match self.step {
                Step::SizeStart | Step::Size => {
                    self.count(1, LINE_MAX_BYTES, "chunk size line too long")?;
                    self.size_byte(byte)?;
                    at += 1;
                }
                Step::Extension => {
                    let rest = &data[at..];
                    let found = memchr(b'\n', rest);
                    let n = found.map_or(rest.len(), |i| i + 1);
                    self.count(n, LINE_MAX_BYTES, "chunk size line too long")?;
                    if found.is_some() {
                        self.size_end();
                    }
                    at += n;
                }
                Step::SizeCr => {
                    if byte != b'\n' {
                        return Err("CR without LF after chunk size");
                    }
                    self.size_end();
                    at += 1;
                }
                Step::Data => at += self.skip((data.len() - at) as u64) as usize,
                Step::DataEnd | Step::DataCr => {
                    self.step = match byte {
                        b'\n' => Step::SizeStart,
                        b'\r' if self.step == Step::DataEnd => Step::DataCr,
                        _ => return Err("chunk data longer than its size"),
                    };
                    at += 1;
                }
                Step::Trailer => at += self.trailer(&data[at..])?,
                Step::Done => break,
            }
        }
        Ok(at)
    }

    fn count(&mut self, n: usize, max: u32, reason: &'static str) -> Result<(), &'static str> {
        self.section = self.section.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        if self.section > max { Err(reason) } else { Ok(()) }
    }

    fn size_byte(&mut self, byte: u8) -> Result<(), &'static str> {
        if let Some(digit) = (byte as char).to_digit(16) {
            if self.remaining >> 60 != 0 {
                return Err("chunk size too large");
            }
            self.remaining = self.remaining << 4 | u64::from(digit);
            self.step = Step::Size;
            return Ok(());
        }
        if self.step == Step::SizeStart {
            return Err("chunk size missing");
        }
        match byte {
            b';' | b' ' | b'\t' => self.step = Step::Extension,
            b'\r' => self.step = Step::SizeCr,
            b'\n' => self.size_end(),
            _ => return Err("chunk size not hexadecimal"),
        }
        Ok(())
    }

    fn size_end(&mut self) {
        self.section = 0;
        self.line = 0;
        self.step = if self.remaining == 0 { Step::Trailer } else { Step::Data };
    }

    /// Trailer fields are passed over up to the empty line.
    fn trailer(&mut self, data: &[u8]) -> Result<usize, &'static str> {
        if self.line == 0 {
            self.line_first = data[0];
        }
        let found = memchr(b'\n', data);
        let n = found.map_or(data.len(), |i| i + 1);
        self.count(n, TRAILER_MAX_BYTES, "trailer section too large")?;
        let before_lf = self.line.saturating_add((n - usize::from(found.is_some())) as u32);
        if found.is_none() {
            self.line = before_lf;
        } else if before_lf == 0 || before_lf == 1 && self.line_first == b'\r' {
            self.step = Step::Done;
        } else {
            self.line = 0;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes: &[u8]) -> Result<(usize, u64, bool), &'static str> {
        let mut whole = Chunked::new();
        let result = whole.advance(bytes).map(|n| (n, whole.content(), whole.is_done()));
        // One byte at a time must say the same.
        let mut single = Chunked::new();
        let mut used = 0;
        let mut failed = None;
        for byte in bytes {
            match single.advance(std::slice::from_ref(byte)) {
                Ok(0) => break,
                Ok(n) => used += n,
                Err(reason) => {
                    failed = Some(reason);
                    break;
                }
            }
        }
        assert_eq!(failed.map_or(Ok((used, single.content(), single.is_done())), Err), result);
        result
    }

    #[test]
    fn accepted() {
        for (bytes, used, content) in [
            (&b"0\r\n\r\n"[..], 5, 0),
            (b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1", 15, 5),
            (b"5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n", 25, 5),
            (b"a \r\n0123456789\r\n000\r\n\r\n", 23, 10),
            (b"A\n0123456789\n0\n\n", 16, 10),
            (b"1\r\nx\r\n0\r\nChecksum: 1\r\nB: 2\r\n\r\n", 30, 1),
            (b"1\r\nx\r\n0\r\nA: 1\n\n", 15, 1),
        ] {
            assert_eq!(run(bytes), Ok((used, content, true)), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn unfinished() {
        for bytes in [&b"5"[..], b"5\r", b"5\r\nhell", b"5\r\nhello", b"5\r\nhello\r\n", b"0\r\n", b"0\r\n\r"]
        {
            assert_eq!(run(bytes).map(|(used, _, done)| (used, done)), Ok((bytes.len(), false)));
        }
    }

    #[test]
    fn refused() {
        for (bytes, reason) in [
            (&b"\r\n"[..], "chunk size missing"),
            (b"xyz\r\n", "chunk size missing"),
            (b"5x\r\n", "chunk size not hexadecimal"),
            (b"5\rx", "CR without LF after chunk size"),
            (b"11111111111111111\r\n", "chunk size too large"),
            (b"1\r\nxy\r\n", "chunk data longer than its size"),
            (b"1\r\nx\r\r", "chunk data longer than its size"),
        ] {
            assert_eq!(run(bytes), Err(reason), "{}", bytes.escape_ascii());
        }
        let mut long = b"5;".to_vec();
        long.resize(20 << 10, b'a');
        assert_eq!(run(&long), Err("chunk size line too long"));
        let mut zeros = vec![b'0'; 20 << 10];
        zeros.extend(b"\r\n");
        assert_eq!(run(&zeros), Err("chunk size line too long"));
        let mut trailer = b"0\r\n".to_vec();
        trailer.extend(b"a: b\r\n".repeat(11_000));
        assert_eq!(run(&trailer), Err("trailer section too large"));
    }

    #[test]
    fn data_may_pass_unseen() {
        let mut chunked = Chunked::new();
        assert_eq!(chunked.skip(10), 0, "a size line cannot");
        assert_eq!(chunked.advance(b"ffffffffffffffff\r\nab"), Ok(20));
        assert_eq!(chunked.opaque(), u64::MAX - 2);
        assert_eq!(chunked.skip(u64::MAX), u64::MAX - 2);
        assert_eq!(chunked.skip(1), 0);
        assert_eq!(chunked.advance(b"\r\n0\r\n\r\n"), Ok(7));
        assert!(chunked.is_done());
        assert_eq!(chunked.content(), u64::MAX);
    }
}
