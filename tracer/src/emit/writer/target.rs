//! Where lines go: standard output or a file, and how to write to it without being held up for ever.

use anyhow::Context as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An open output.
#[derive(Debug)]
pub struct Target {
    file: File,
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A regular file given by path, and how long it should be now: its end is ours to repair.
    Appended { len: u64 },
    /// A regular file that someone else opened.
    Regular,
    /// A pipe, socket, terminal or other device; its reader may be slow or go away.
    Stream,
}

/// An output file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {} for writing; give another file with --output", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// Room in a pipe for a reader that is held up for a moment: the most that an ordinary user may ask for
/// (`fs.pipe-max-size`), 16 times the default.
const PIPE_BYTES: libc::c_int = 1 << 20;

/// Widens a pipe. Where that is refused, or it is none, it stays as it is.
fn widen(file: &File) {
    // SAFETY: the descriptor is the file's own.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
}

impl Target {
    /// Standard output.
    pub fn stdout() -> io::Result<Self> {
        let target = Self::from_fd(io::stdout().as_fd().try_clone_to_owned()?, "standard output")?;
        widen(&target.file);
        Ok(target)
    }

    /// A descriptor that is already open; `name` stands in error messages.
    pub fn from_fd(fd: OwnedFd, name: &str) -> io::Result<Self> {
        let file = File::from(fd);
        let kind = if file.metadata()?.is_file() { Kind::Regular } else { Kind::Stream };
        Ok(Self { file, name: name.to_owned(), kind })
    }

    /// The file that the user gave, else standard output.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn of(path: Option<&Path>) -> anyhow::Result<Self> {
        match path {
            Some(path) => Ok(Self::append(path)?),
            None => Self::stdout().context("cannot write to standard output"),
        }
    }

    /// A file by its path. Lines are added to an existing one; a new one is for its owner only, since it tells of
    /// everybody's traffic.
    pub fn append(path: &Path) -> Result<Self, OpenError> {
        Self::open(path).map_err(|source| OpenError { path: path.to_owned(), source })
    }

    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let metadata = file.metadata()?;
        let mut kind = Kind::Stream;
        if metadata.is_file() {
            let mut len = metadata.len();
            if len > 0 && !ends_a_line(path)? {
                // A line that was cut short must not swallow our first one.
                file.write_all(b"\n")?;
                len += 1;
            }
            kind = Kind::Appended { len };
        }
        Ok(Self { file, name: path.display().to_string(), kind })
    }

    /// For error messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The most bytes to hand over at once, so that [`Target::write`] does not block for long.
    ///
    /// A pipe that polls writable has a free page, so it takes up to `PIPE_BUF` bytes at once and whole
    /// (pipe(7); `pipe_poll()` and `pipe_write()` in fs/pipe.c).
    pub(super) fn chunk_bytes(&self) -> usize {
        match self.kind {
            Kind::Stream => libc::PIPE_BUF,
            Kind::Appended { .. } | Kind::Regular => 1 << 20,
        }
    }

    /// Whether a write would go on without waiting, within `limit`. An error at the other end counts: the write tells.
    pub(super) fn writable(&self, limit: Duration) -> bool {
        self.kind != Kind::Stream || self.poll(libc::POLLOUT, limit) != 0
    }

    /// Whether nobody can read any more, found out without writing.
    pub(super) fn reader_gone(&self) -> bool {
        let gone = libc::POLLERR | libc::POLLHUP;
        self.kind == Kind::Stream && self.poll(0, Duration::ZERO) & gone != 0
    }

    fn poll(&self, events: i16, limit: Duration) -> i16 {
        let mut fd = libc::pollfd { fd: self.file.as_raw_fd(), events, revents: 0 };
        let limit_ms = limit.as_millis().try_into().unwrap_or(i32::MAX);
        // SAFETY: `fd` is one valid pollfd for the time of the call, and its descriptor is open as `self` owns it.
        let ready = unsafe { libc::poll(&raw mut fd, 1, limit_ms) };
        if ready > 0 { fd.revents } else { 0 }
    }

    /// One write; the number of bytes taken.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.file.write(bytes)?;
        if let Kind::Appended { len } = &mut self.kind {
            *len += taken as u64;
        }
        Ok(taken)
    }

    /// Takes back the last `bytes` written, the beginning of a line that could not be finished, where that is safe: in
    /// a file of ours that nobody else has lengthened.
    pub(super) fn take_back(&mut self, bytes: u64) {
        if let Kind::Appended { len } = self.kind
            && bytes > 0
            && self.file.metadata().is_ok_and(|now| now.len() == len)
            && self.file.set_len(len.saturating_sub(bytes)).is_ok()
        {
            self.kind = Kind::Appended { len: len.saturating_sub(bytes) };
        }
    }
}

fn ends_a_line(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
