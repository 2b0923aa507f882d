//! `stats`: what the tracer itself did, lost and cost.

use super::value::Map;
use crate::emit::time::Timestamp;
use serde::Serialize;

/// Counts since the start of the run.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename = "stats")]
pub struct Stats<'a> {
    /// When the counts were read.
    pub ts: Timestamp,
    /// This is the last one.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Time since the previous `stats`, or since the start, in seconds.
    pub interval_s: f64,
    /// Events received from the kernel, by kind.
    pub events: Map<'a, u64>,
    /// Events and records lost, by place; a place with 0 is listed too.
    pub lost: Map<'a, u64>,
    /// The daemon's and the kernel's tables, by name.
    pub tables: Map<'a, Table>,
    /// Segments and what was copied of them.
    pub segments: Segments,
    /// What was read; null on the live kernel.
    pub capture: Option<Capture<'a>>,
    /// Written to the output.
    pub output_bytes: u64,
    /// Written to the output.
    pub output_lines: u64,
    /// Processor time of the daemon.
    pub cpu: Cpu,
    /// Our totals beside the kernel's own counters.
    pub selfcheck: Option<&'a serde_json::Value>,
}

/// How full a bounded table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Entries now; null when counting them is not possible.
    pub entries: Option<u64>,
    /// Most entries it may hold.
    pub capacity: Option<u64>,
    /// Entries removed early to make room, since the start.
    pub evictions: u64,
}

/// Segments that passed the hooks, either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Segments {
    /// Segments seen.
    pub seen: Option<u64>,
    /// Their payload.
    pub bytes_seen: Option<u64>,
    /// Segments copied to the daemon, wholly or in part.
    pub copied: Option<u64>,
    /// Payload copied.
    pub bytes_copied: Option<u64>,
}

/// Packets of capture files.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Capture<'a> {
    /// Files read to their end or to what was wrong with them.
    pub files: u64,
    /// Files that could not be read to their end.
    pub damaged_files: u64,
    /// Packets read.
    pub packets: u64,
    /// Their bytes on the wire.
    pub packet_bytes: u64,
    /// Packets of which nothing was used, by reason.
    pub skipped: Map<'a, u64>,
}

/// Processor time since the start, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// In user space.
    pub user_s: f64,
    /// In the kernel on the daemon's behalf; the programs at the hooks run on account of others.
    pub system_s: f64,
}
