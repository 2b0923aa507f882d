//! What is wrong with a capture file: which file, at which packet and byte, why, and what to do.

use std::io;

use super::MAX_PACKET_BYTES;
use crate::source::packet::LinkType;

/// A file that cannot be read on. What was read before it stays valid.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}: {problem}", place(item, *.number, *.offset))]
pub struct CaptureError {
    pub file: String,
    /// `packet`, or what else the file consists of.
    pub item: &'static str,
    /// Its number in the file, from 1; `None` before the first one is reached.
    pub number: Option<u64>,
    /// Where in the file (uncompressed) what is wrong begins.
    pub offset: u64,
    #[source]
    pub problem: Problem,
}

impl CaptureError {
    /// Whether no more is wrong than that the input has ended: that is no wonder where its end was asked for.
    pub fn is_end(&self) -> bool {
        matches!(self.problem, Problem::Empty | Problem::Truncated { .. })
    }
}

/// The reason.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("cannot be opened: {0}; give a file that this user may read, or `-` for standard input")]
    Open(#[source] io::Error),
    #[error("this is a directory; give capture files, or `-` for standard input")]
    Directory,
    #[error("the file is empty, without even a file header: what wrote it may still hold all of it back")]
    Empty,
    #[error(
        "begins with {0:02x?}, which is neither pcap nor pcapng nor a recording, also not compressed by gzip; \
         `tcpdump -w FILE` and `dumpcap -w FILE` write such files"
    )]
    NotACapture(Vec<u8>),
    #[error(
        "this is a pcap file with longer packet headers (magic number a1b2cd34), which is not read; convert it with \
         `editcap -F pcapng IN OUT`"
    )]
    ModifiedPcap,
    #[error("is of version {0}.{1} of its format, which is not known; convert it with `editcap IN OUT`")]
    Version(u16, u16),
    #[error("the file ends inside of {what}: of its {need} bytes, {have} are there")]
    Truncated { what: &'static str, need: usize, have: usize },
    #[error(
        "{what} claims to be {len} bytes long, which cannot be (a packet has at most {MAX_PACKET_BYTES}): the file is \
         damaged here"
    )]
    Length { what: &'static str, len: u64 },
    #[error("{what}: the file is damaged here")]
    Damaged { what: &'static str },
    #[error(
        "its packets are of link type {}, which is not read; capture on an Ethernet, loopback, tunnel or `any` \
         interface",
        .0.0
    )]
    LinkType(LinkType),
    #[error(
        "was recorded with {what} {theirs} of the tracer's own format, this tracer reads {ours}: read it with the \
         tracer that has recorded it"
    )]
    Recording { what: &'static str, theirs: u32, ours: u32 },
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
}

impl Problem {
    /// Reading failed; an end inside of compressed data is one, too.
    pub fn read(error: io::Error) -> Self {
        Self::Read(error)
    }
}

fn place(item: &str, number: Option<u64>, offset: u64) -> String {
    match number {
        Some(number) => format!(": {item} {number}, at byte {offset}"),
        None if offset > 0 => format!(": at byte {offset}"),
        None => String::new(),
    }
}
