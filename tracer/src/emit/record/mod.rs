//! The records of schema 1. One struct is one line; its fields are written in their order here.
//!
//! Absent knowledge is `None` and written as `null`, never as 0. Words of a closed set (`role`, `how`, `outcome`, …) come
//! from the modules that decide them; the schema lists them.

mod conn;
mod event;
mod finding;
mod http;
mod segment;
mod start;
mod stats;
mod time_wait;
mod value;

pub use conn::{
    Close, Conn, HttpSummary, KeepaliveProbes, Retransmits, RetransmitsReceived, Rtt, SegmentTotals, StateAt,
    ZeroWindows,
};
pub use event::{ResetEvent, RetransmitEvent, StateEvent};
pub use finding::Finding;
pub use http::{Http, KeepAlive, Request, Response, Timeline};
pub use segment::{Segment, SegmentOptions};
pub use start::{Hook, Start};
pub use stats::{Capture, Cpu, Segments, Stats, Table};
pub use time_wait::TimeWait;
pub use value::{Addr, ConnId, Cookie, Family, Map, Micros, Process, Tuple};

/// Version of the output contract, `schema` in the `start` record.
pub const SCHEMA_VERSION: u32 = 1;

#[cfg(test)]
pub(crate) mod samples;
