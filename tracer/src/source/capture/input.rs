//! Bytes of a capture: a file, standard input or anything else that can be read, compressed by gzip or not.
//!
//! One buffer; what is asked for is a slice of it. Reading stops as soon as enough is there, so a live source is
//! followed packet by packet.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, ErrorKind, Read},
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use super::error::Problem;

const BUFFER_BYTES: usize = 256 << 10;
/// Compressed bytes unpacked at a time: at damage, the decoder keeps what it has of those that it was given with it.
pub(super) const PACKED_BYTES: usize = 512;
/// RFC 1952 §2.3.1.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// How often a source that is silent is left to ask whether to go on.
const POLL_MS: libc::c_int = 100;

/// Asked while a live source is silent: whether to stop reading.
pub type Stop = Box<dyn Fn() -> bool>;

/// The bytes that come next.
pub struct Input {
    source: Box<dyn Read>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    offset: u64,
    at_end: bool,
}

impl Input {
    /// Opens a file by its path; `-` is standard input.
    pub fn open(path: &Path, stop: Stop) -> Result<Self, Problem> {
        if path == Path::new("-") {
            return Self::new(Box::new(Live { source: io::stdin(), stop }));
        }
        let file = File::open(path).map_err(Problem::Open)?;
        let metadata = file.metadata().map_err(Problem::Open)?;
        if metadata.is_dir() {
            return Err(Problem::Directory);
        }
        if metadata.is_file() {
            return Self::new(Box::new(file));
        }
        Self::new(Box::new(Live { source: file, stop }))
    }

    /// Any bytes.
    pub fn new(source: Box<dyn Read>) -> Result<Self, Problem> {
        let mut plain =
            Self { source, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, offset: 0, at_end: false };
        if plain.fill(GZIP_MAGIC.len()).map_err(Problem::read)? != GZIP_MAGIC {
            return Ok(plain);
        }
        let Self { source, buffer, start, end, .. } = plain;
        let head = Cursor::new(buffer[start..end].to_vec());
        let packed = BufReader::with_capacity(BUFFER_BYTES, head.chain(source));
        let source = Box::new(MultiGzDecoder::new(BufReader::with_capacity(PACKED_BYTES, packed)));
        Ok(Self { source, buffer, start: 0, end: 0, offset: 0, at_end: false })
    }

    /// The next `len` bytes, which stay; fewer when the input ends before.
    pub fn fill(&mut self, len: usize) -> io::Result<&[u8]> {
        if self.end - self.start < len {
            self.read(len)?;
        }
        Ok(&self.buffer[self.start..self.end.min(self.start + len)])
    }

    #[cold]
    fn read(&mut self, len: usize) -> io::Result<()> {
        if self.buffer.len() - self.start < len {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < len {
                self.buffer.resize(len, 0);
            }
        }
        while self.end - self.start < len && !self.at_end {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.at_end = true,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next `len` bytes, or none of them when the input ends before; for bytes that `fill` has shown to be there.
    pub fn peek(&self, len: usize) -> &[u8] {
        self.buffer[self.start..self.end].get(..len).unwrap_or_default()
    }

    /// Goes on behind the next `len` bytes, which `fill` has shown.
    pub fn skip(&mut self, len: usize) {
        let len = len.min(self.end - self.start);
        self.start += len;
        self.offset += len as u64;
    }

    /// Bytes of memory in use.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// How many bytes came before those that come next.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// A source that may be silent for long: its end may be decided meanwhile.
struct Live<S> {
    source: S,
    stop: Stop,
}

impl<S: Read + AsFd> Read for Live<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut fd = libc::pollfd { fd: self.source.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        loop {
            // SAFETY: one valid pollfd, whose descriptor the source owns.
            let ready = unsafe { libc::poll(&raw mut fd, 1, POLL_MS) };
            if ready > 0 {
                return self.source.read(buffer);
            }
            if (self.stop)() {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    /// Gives its bytes one at a time.
    struct Slow(Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(1);
            self.0.read(&mut buffer[..len])
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 % 251) as u8).collect()
    }

    fn all(mut input: Input, step: usize) -> Vec<u8> {
        let mut read = Vec::new();
        loop {
            let part = input.fill(step).unwrap().to_vec();
            assert_eq!(input.offset(), read.len() as u64);
            input.skip(part.len());
            read.extend_from_slice(&part);
            if part.len() < step {
                return read;
            }
        }
    }

    #[test]
    fn any_step_gives_all_bytes() {
        let bytes = bytes(3 * BUFFER_BYTES + 17);
        for step in [1000, BUFFER_BYTES - 1, BUFFER_BYTES, 2 * BUFFER_BYTES + 3] {
            assert!(all(Input::new(Box::new(Cursor::new(bytes.clone()))).unwrap(), step) == bytes, "{step}");
        }
    }

    #[test]
    fn gzip_is_recognised_also_in_small_pieces_and_several_members() {
        let bytes = bytes(100_000);
        let mut packed = Vec::new();
        for part in bytes.chunks(60_000) {
            let mut encoder = GzEncoder::new(&mut packed, Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap();
        }
        assert!(all(Input::new(Box::new(Slow(Cursor::new(packed)))).unwrap(), 999) == bytes);
    }

    #[test]
    fn only_what_is_asked_for_is_waited_for() {
        let mut input = Input::new(Box::new(Slow(Cursor::new(bytes(100))))).unwrap();
        assert_eq!(input.fill(10).unwrap().len(), 10);
        assert_eq!(input.end, 10, "a live source would not have more yet");
        assert_eq!((input.peek(10).len(), input.peek(11).len()), (10, 0));
    }
}
