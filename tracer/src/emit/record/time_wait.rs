//! `time_wait`: one TIME_WAIT that ended, and why it did.

use super::value::{ConnId, Micros, Process, Tuple};
use crate::emit::time::Timestamp;
use serde::Serialize;

/// The kernel keeps a closed connection's addresses for 60 s, so that its late segments are known for what they are
/// (RFC 9293 §3.6.1).
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "time_wait")]
pub struct TimeWait<'a> {
    /// When it ended.
    pub ts: Timestamp,
    /// The connection it came from; null when that was done before the tracer started.
    pub conn: Option<ConnId>,
    /// Inode number of the network namespace, as in `/proc/PID/ns/net`.
    pub netns: Option<u64>,
    /// Addresses and ports.
    #[serde(flatten)]
    pub tuple: Tuple,
    /// The owner of the connection's socket; a TIME_WAIT itself has none.
    pub process: Option<Process<'a>>,
    /// When it began; null when that was before the tracer.
    pub began: Option<Timestamp>,
    /// When it ended.
    pub ended: Timestamp,
    /// From `began` to `ended`.
    pub duration_us: Option<Micros>,
    /// `expired`, `reused`, `reset`, `overflow`, `killed`, `namespace_exit` or `unknown`.
    pub end: &'static str,
    /// `observed` or `inferred`.
    pub end_source: &'static str,
    /// What took the addresses over: a local `connect` (`tcp_tw_reuse`), or a `syn` from the other end.
    pub reused_by: Option<&'static str>,
    /// Who closed the connection first: `local`, `remote` or `both`.
    pub closer: Option<&'static str>,
    /// HTTP requests that the connection carried.
    pub requests: Option<u64>,
    /// Why it came about, in the words of findings.
    pub cause: Option<&'a str>,
    /// It began before the tracer started.
    pub preexisting: bool,
}
