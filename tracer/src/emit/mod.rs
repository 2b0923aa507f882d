//! What the tracer writes: one JSON object a line, read by `jq` and other programs.
//!
//! [`record`] holds the records, [`schema`] describes them, [`writer`] carries the lines out without ever holding up
//! the caller. Bytes from the network pass through [`text`], which loses none of them.

pub mod headers;
pub mod record;
pub mod schema;
pub mod text;
pub mod time;
pub mod writer;

use serde::Serialize;
use std::time::Duration;
use writer::{Ended, Sink, Totals};

/// Serialises records and hands them to the writer.
#[derive(Debug)]
pub struct Lines {
    sink: Sink,
    /// Reused for each record.
    line: Vec<u8>,
}

impl Lines {
    /// Lines for a sink that is already running.
    pub fn new(sink: Sink) -> Self {
        Self { sink, line: Vec::with_capacity(4096) }
    }

    /// Queues a record; false when it was dropped, which the totals count. Never blocks.
    pub fn write(&mut self, record: &impl Serialize) -> bool {
        self.serialise(record) && self.sink.send(&self.line)
    }

    /// Queues one of the few records that tell of loss and so must not fall to it (`start`, `stats`).
    pub fn write_reserved(&mut self, record: &impl Serialize) -> bool {
        self.serialise(record) && self.sink.send_reserved(&self.line)
    }

    /// Waits until there is room for more, or writing has ended.
    pub fn wait_for_room(&self) {
        self.sink.wait_for_room();
    }

    /// As [`Self::wait_for_room`], but no longer than this; false when there is no room yet.
    pub fn wait_for_room_for(&self, limit: Duration) -> bool {
        self.sink.wait_for_room_for(limit)
    }

    fn serialise(&mut self, record: &impl Serialize) -> bool {
        self.line.clear();
        let done = serde_json::to_writer(&mut self.line, record).is_ok();
        if !done {
            self.sink.count_dropped(self.line.len());
        }
        done
    }

    /// Why writing ended before [`Lines::finish`], if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.sink.ended()
    }

    /// A future that is ready when writing ended early; it borrows nothing.
    pub fn until_ended(&self) -> impl Future<Output = Ended> + Send + 'static {
        self.sink.until_ended()
    }

    /// What was written and dropped so far.
    pub fn totals(&self) -> Totals {
        self.sink.totals()
    }

    /// Writes what is queued, for no longer than `limit`, and stops the writer.
    pub fn finish(self, limit: Duration) -> Totals {
        self.sink.finish(limit)
    }
}
