//! `start`: the first line, written when every hook is attached.

use super::value::Map;
use crate::emit::{text::Text, time::Timestamp};
use crate::filter::Filter;
use serde::Serialize;

/// What runs, where, and what it can see.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "start")]
pub struct Start<'a> {
    /// When the last hook was attached.
    pub ts: Timestamp,
    /// [`super::SCHEMA_VERSION`].
    pub schema: u32,
    /// Version of the tracer.
    pub tracer: &'a str,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: Text<'a>,
    /// Host name, as `uname -n` prints it.
    pub hostname: Text<'a>,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<Text<'a>>,
    /// Each wanted hook, attached or not.
    pub hooks: &'a [Hook<'a>],
    /// Where segments are captured: `cgroup` or `tc`; null for files.
    pub capture: Option<&'static str>,
    /// Names of the interfaces whose segments are seen.
    pub interfaces: &'a [Text<'a>],
    /// Capture files that are read instead, in order; empty on the live kernel.
    pub files: &'a [Text<'a>],
    /// What the user chose to see.
    pub filters: &'a Filter,
    /// Limits of this run by name: sizes of the tables in entries, of buffers in bytes (names end in `_bytes`).
    pub limits: Map<'a, u64>,
}

/// One place in the kernel that the tracer listens at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook<'a> {
    /// The kernel's name for the place, such as `sock:inet_sock_set_state`.
    pub hook: &'a str,
    /// How it is attached, such as `tp_btf`, `tracepoint`, `fexit`, `tcx`, `clsact`.
    pub way: Option<&'a str>,
    /// Whether it is attached.
    pub attached: bool,
    /// Why it is not attached, or not in the best way.
    pub reason: Option<&'a str>,
    /// What the output lacks because of that.
    pub lost: Option<&'a str>,
}
