//! Carries finished lines to the output on a thread of its own.
//!
//! Callers never wait unless they ask to: a line that finds the queue full is dropped and counted. Lines reach the output whole, in order,
//! within [`LINGER`] plus the time that the reader takes. Every lock is held for a copy of one line at most.

mod target;
mod thread;

pub use target::{OpenError, Target};

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};
use tokio::sync::watch;

/// Default bound of the queue.
pub const QUEUE_BYTES: usize = 32 << 20;
/// Beyond the bound, for the few lines that report loss.
const RESERVE_BYTES: usize = 1 << 20;
/// A first line waits this long for company, so that many lines share a write.
pub const LINGER: Duration = Duration::from_millis(25);
/// That much is written at once without waiting.
const BATCH_BYTES: usize = 64 << 10;

/// Why writing ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The reader of a pipe or socket went away: a quiet end.
    ReaderGone,
    /// Writing failed; says what to do about it.
    Failed(String),
}

/// What became of the lines. Bytes include line ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of whole lines written.
    pub bytes: u64,
    /// Lines written.
    pub lines: u64,
    /// Lines dropped: the queue was full, writing had ended, or time ran out at the end.
    pub dropped_lines: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
}

/// The queue and its writing thread.
pub struct Sink {
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<Ended>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something to write, or closing.
    ready: Condvar,
    /// The queue was taken, or the thread has stopped.
    taken: Condvar,
    /// The thread has stopped.
    stopped: Condvar,
    limit_bytes: usize,
    /// Taken from the queue and not yet written.
    in_flight_bytes: AtomicUsize,
    written_bytes: AtomicU64,
    written_lines: AtomicU64,
    /// Stop at the next line end instead of waiting for the reader.
    abandon: AtomicBool,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    accepted_bytes: u64,
    accepted_lines: u64,
    refused_bytes: u64,
    refused_lines: u64,
    closing: bool,
    /// Set by the thread when it writes no more.
    stopped: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that holds the lock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// Starts the writing thread; at most `limit_bytes` wait at any time.
    pub fn start(target: Target, limit_bytes: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            taken: Condvar::new(),
            stopped: Condvar::new(),
            limit_bytes,
            in_flight_bytes: AtomicUsize::new(0),
            written_bytes: AtomicU64::new(0),
            written_lines: AtomicU64::new(0),
            abandon: AtomicBool::new(false),
        });
        let (report, ended) = watch::channel(None);
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || thread::run(&theirs, target, &report))?;
        Ok(Self { shared, ended })
    }

    /// Queues one JSON text, without its line end; false when it was dropped.
    pub fn send(&self, json: &[u8]) -> bool {
        self.push(json, self.shared.limit_bytes)
    }

    /// Queues a line that reports loss, for which some room is kept when the queue is full.
    pub fn send_reserved(&self, json: &[u8]) -> bool {
        self.push(json, self.shared.limit_bytes.saturating_add(RESERVE_BYTES))
    }

    fn push(&self, json: &[u8], limit_bytes: usize) -> bool {
        let size = json.len() + 1;
        let mut queue = self.shared.lock();
        let waiting = queue.bytes.len() + self.shared.in_flight_bytes.load(Relaxed);
        if queue.stopped || waiting.saturating_add(size) > limit_bytes {
            queue.refused_lines += 1;
            queue.refused_bytes += size as u64;
            return false;
        }
        let before = queue.bytes.len();
        queue.bytes.extend_from_slice(json);
        queue.bytes.push(b'\n');
        queue.accepted_lines += 1;
        queue.accepted_bytes += size as u64;
        let wake = before == 0 || before < BATCH_BYTES && queue.bytes.len() >= BATCH_BYTES;
        drop(queue);
        if wake {
            self.shared.ready.notify_one();
        }
        true
    }

    /// Waits until there is room for many lines, or writing has ended: for callers whose source can wait.
    pub fn wait_for_room(&self) {
        let queue = self.shared.lock();
        let full = |queue: &mut Queue| self.is_full(queue);
        drop(self.shared.taken.wait_while(queue, full).unwrap_or_else(PoisonError::into_inner));
    }

    /// As [`Self::wait_for_room`], but no longer than this; false when there is no room yet.
    pub fn wait_for_room_for(&self, limit: Duration) -> bool {
        let queue = self.shared.lock();
        let full = |queue: &mut Queue| self.is_full(queue);
        match self.shared.taken.wait_timeout_while(queue, limit, full) {
            Ok((_, result)) => !result.timed_out(),
            Err(_) => false,
        }
    }

    fn is_full(&self, queue: &Queue) -> bool {
        !queue.stopped && queue.bytes.len() >= self.shared.limit_bytes / 4
    }

    /// Counts a line that could not even be made.
    pub(super) fn count_dropped(&self, bytes: usize) {
        let mut queue = self.shared.lock();
        queue.refused_lines += 1;
        queue.refused_bytes += bytes as u64;
    }

    /// Why writing ended early, if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    /// Ready when writing ended early; pending for ever otherwise.
    pub fn until_ended(&self) -> impl Future<Output = Ended> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            if let Ok(reason) = ended.wait_for(Option::is_some).await
                && let Some(reason) = reason.clone()
            {
                return reason;
            }
            std::future::pending().await
        }
    }

    /// What was written and dropped so far; lines that wait are neither.
    pub fn totals(&self) -> Totals {
        let queue = self.shared.lock();
        let (bytes, lines) =
            (self.shared.written_bytes.load(Relaxed), self.shared.written_lines.load(Relaxed));
        let (mut dropped_lines, mut dropped_bytes) = (queue.refused_lines, queue.refused_bytes);
        if queue.stopped || self.shared.abandon.load(Relaxed) {
            dropped_lines += queue.accepted_lines.saturating_sub(lines);
            dropped_bytes += queue.accepted_bytes.saturating_sub(bytes);
        }
        Totals { bytes, lines, dropped_lines, dropped_bytes }
    }

    /// Writes what waits and stops the thread. After `limit` what is left is dropped: the reader may be stuck.
    pub fn finish(self, limit: Duration) -> Totals {
        self.close(limit);
        self.totals()
    }

    fn close(&self, limit: Duration) {
        /// For the thread to notice; it looks several times a second.
        const GRACE: Duration = Duration::from_millis(300);
        let mut queue = self.shared.lock();
        if queue.closing {
            return;
        }
        queue.closing = true;
        self.shared.ready.notify_one();
        for time in [limit, GRACE] {
            queue = match self.shared.stopped.wait_timeout_while(queue, time, |queue| !queue.stopped) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            };
            if queue.stopped {
                return;
            }
            self.shared.abandon.store(true, Relaxed);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // On the way out of an error: what is queued may be what explains it.
        self.close(Duration::from_secs(1));
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("totals", &self.totals()).field("ended", &self.ended()).finish()
    }
}

#[cfg(test)]
mod tests;
