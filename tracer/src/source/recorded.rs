//! Recordings: the live source's events in a file, with all else that decided what was written.
//!
//! A file is [`MAGIC`], the version, and entries: kind (1 byte), length (4 bytes), content. The first entry is the
//! [`Header`] as JSON. Integers are little endian; ring records are as the kernel wrote them, so they are bound to its
//! [`ABI_VERSION`], which the header has.
//!
//! What handling an event has asked of the outside (a process's executable) comes before the event, so that reading
//! in order answers the same.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tracer_ebpf::{ABI_VERSION, Conn, Owner};

use super::capture::{Input, Problem, whole};
use crate::{
    filter::Filter,
    track::{ProcessInfo, Processes},
};

/// No text, and no other format.
pub const MAGIC: [u8; 8] = *b"\x89TRACER\n";
const VERSION: u32 = 1;
const ENTRY_HEAD_BYTES: usize = 5;
/// More than any entry needs.
const MAX_ENTRY_BYTES: usize = 16 << 20;

/// Kinds of entries. Those that say when begin with that time, CLOCK_MONOTONIC ns.
mod entry {
    pub const HEADER: u8 = 0;
    /// When it was handled, and the ring record.
    pub const RECORD: u8 = 1;
    /// When it was handled, and a finished connection that had found the ring full.
    pub const UNSENT: u8 = 2;
    /// Newer totals of an open connection.
    pub const REFRESH: u8 = 3;
    /// A process, as JSON.
    pub const PROCESS: u8 = 4;
    /// Time passed.
    pub const TICK: u8 = 5;
    /// The run ended.
    pub const END: u8 = 6;
}

/// How the run was set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the tracer that recorded it.
    pub tracer: String,
    pub abi: u32,
    pub kernel: String,
    pub hostname: String,
    /// Wall clock minus CLOCK_MONOTONIC.
    pub clock_offset_ns: i64,
    /// `enum sk_rst_reason` of that kernel.
    pub reset_reasons: Vec<(u32, String)>,
    pub filter: Filter,
    pub http: bool,
    pub max_connections: u32,
}

/// A process that handling an event has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub pid: u32,
    pub start_ns: u64,
    pub info: Option<ProcessInfo>,
}

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    out: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Recorder {
    /// Makes the file, for its owner only: it has heads of everybody's messages, credentials included.
    ///
    /// # Errors
    /// It cannot be made, or is there already.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.with_context(|| {
            format!(
                "cannot make {}; give the name of a new file in a folder that can be written",
                path.display()
            )
        })?;
        let mut recorder =
            Self { path: path.to_owned(), out: BufWriter::with_capacity(1 << 20, file), failed: None };
        recorder.write(&[&MAGIC, &VERSION.to_le_bytes()]);
        Ok(recorder)
    }

    pub fn header(&mut self, header: &Header) {
        self.json(entry::HEADER, header);
    }

    pub fn record(&mut self, now_ns: u64, record: &[u8]) {
        self.entry(entry::RECORD, &[&now_ns.to_le_bytes(), record]);
    }

    pub fn unsent(&mut self, now_ns: u64, conn: &Conn) {
        self.entry(entry::UNSENT, &[&now_ns.to_le_bytes(), bytes_of(conn)]);
    }

    pub fn refresh(&mut self, conn: &Conn) {
        self.entry(entry::REFRESH, &[bytes_of(conn)]);
    }

    pub fn asked(&mut self, asked: &Asked) {
        self.json(entry::PROCESS, asked);
    }

    pub fn tick(&mut self, now_ns: u64) {
        self.entry(entry::TICK, &[&now_ns.to_le_bytes()]);
    }

    pub fn end(&mut self, now_ns: u64) {
        self.entry(entry::END, &[&now_ns.to_le_bytes()]);
    }

    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// The file could not be written, now or earlier.
    pub fn finish(mut self) -> Result<()> {
        let result = match self.failed.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        };
        result.with_context(|| {
            format!("cannot write to {}; free some space, or record to another file", self.path.display())
        })
    }

    fn json(&mut self, kind: u8, value: &impl Serialize) {
        match serde_json::to_vec(value) {
            Ok(json) => self.entry(kind, &[&json]),
            Err(error) => self.failed = Some(error.into()),
        }
    }

    fn entry(&mut self, kind: u8, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.write(&[&[kind], &(len as u32).to_le_bytes()]);
        self.write(parts);
    }

    fn write(&mut self, parts: &[&[u8]]) {
        for part in parts {
            if self.failed.is_none()
                && let Err(error) = self.out.write_all(part)
            {
                self.failed = Some(error);
            }
        }
    }
}

fn bytes_of<T: aya::Pod>(value: &T) -> &[u8] {
    // SAFETY: `Pod` types have no padding, so all bytes are initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// One entry of a recording.
#[derive(Debug)]
pub enum Entry<'a> {
    Record { now_ns: u64, record: &'a [u8] },
    Unsent { now_ns: u64, conn: Box<Conn> },
    Refresh(Box<Conn>),
    Process(Asked),
    Tick { now_ns: u64 },
    End { now_ns: u64 },
}

/// Reads a recording.
pub struct Recording {
    input: Input,
    given: usize,
}

impl Recording {
    /// Whether a recording begins here.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn is_one(input: &mut Input) -> io::Result<bool> {
        Ok(input.fill(MAGIC.len())? == MAGIC)
    }

    /// Begins to read.
    ///
    /// # Errors
    /// It is of another version, or damaged.
    pub fn open(mut input: Input) -> Result<(Self, Header), (u64, Problem)> {
        let header = begin(&mut input);
        match header {
            Ok((given, header)) => Ok((Self { input, given }, header)),
            Err(problem) => Err((input.offset(), problem)),
        }
    }

    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// Bytes of memory in use.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.input.held()
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// The recording is damaged or cannot be read.
    pub fn entry(&mut self) -> Result<Option<Entry<'_>>, Problem> {
        const WRONG: Problem =
            Problem::Damaged { what: "an entry has not the length or kind that it should have" };
        self.input.skip(std::mem::take(&mut self.given));
        if self.input.fill(1).map_err(Problem::read)?.is_empty() {
            return Ok(None);
        }
        let (kind, len) = head(&mut self.input)?;
        self.given = ENTRY_HEAD_BYTES + len;
        let content = &self.input.peek(self.given)[ENTRY_HEAD_BYTES..];
        let timed = || {
            let (time, rest) = content.split_first_chunk::<8>()?;
            Some((u64::from_le_bytes(*time), rest))
        };
        let conn = |bytes: &[u8]| super::read::<Conn>(bytes).map(Box::new);
        let entry = match kind {
            entry::RECORD => timed().map(|(now_ns, record)| Entry::Record { now_ns, record }),
            entry::UNSENT => {
                timed().and_then(|(now_ns, rest)| Some(Entry::Unsent { now_ns, conn: conn(rest)? }))
            }
            entry::REFRESH => conn(content).map(Entry::Refresh),
            entry::PROCESS => serde_json::from_slice(content).ok().map(Entry::Process),
            entry::TICK => timed().map(|(now_ns, _)| Entry::Tick { now_ns }),
            entry::END => timed().map(|(now_ns, _)| Entry::End { now_ns }),
            _ => None,
        };
        entry.map(Some).ok_or(WRONG)
    }
}

/// Kind and length of the entry at the front, all of which is there.
fn head(input: &mut Input) -> Result<(u8, usize), Problem> {
    let head = whole(input, "an entry's head", ENTRY_HEAD_BYTES)?;
    let (kind, len) = (head[0], u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize);
    if len > MAX_ENTRY_BYTES {
        return Err(Problem::Length { what: "the entry", len: len as u64 });
    }
    whole(input, "an entry", ENTRY_HEAD_BYTES + len)?;
    Ok((kind, len))
}

fn begin(input: &mut Input) -> Result<(usize, Header), Problem> {
    const START_BYTES: usize = MAGIC.len() + 4;
    let start = whole(input, "the file header", START_BYTES)?;
    let version = u32::from_le_bytes([start[8], start[9], start[10], start[11]]);
    if version != VERSION {
        return Err(Problem::Recording { what: "version", theirs: version, ours: VERSION });
    }
    input.skip(START_BYTES);
    let (kind, len) = head(input)?;
    let content = &input.peek(ENTRY_HEAD_BYTES + len)[ENTRY_HEAD_BYTES..];
    let header: Option<Header> = serde_json::from_slice(content).ok();
    let Some(header) = header.filter(|_| kind == entry::HEADER) else {
        return Err(Problem::Damaged { what: "the recording's header cannot be understood" });
    };
    if header.abi != ABI_VERSION {
        return Err(Problem::Recording { what: "contract", theirs: header.abi, ours: ABI_VERSION });
    }
    Ok((ENTRY_HEAD_BYTES + len, header))
}

/// Processes as they were when the recording asked.
#[derive(Debug, Default)]
pub struct RecordedProcesses(HashMap<(u32, u64), Option<Arc<ProcessInfo>>>);

impl RecordedProcesses {
    pub fn learn(&mut self, asked: Asked) {
        self.0.insert((asked.pid, asked.start_ns), asked.info.map(Arc::new));
    }
}

impl Processes for RecordedProcesses {
    fn info(&mut self, owner: &Owner) -> Option<Arc<ProcessInfo>> {
        self.0.get(&(owner.pid, owner.start_ns)).cloned().flatten()
    }
}
