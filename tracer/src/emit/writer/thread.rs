//! The writing thread: waits for lines, takes them all, writes them.

use super::{BATCH_BYTES, Ended, LINGER, Queue, Shared, Target};
use std::io::{self, ErrorKind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;

/// How often an idle thread looks whether its reader is still there.
const READER_CHECK: Duration = Duration::from_millis(500);
/// How often a thread that waits for its reader looks whether it should give up.
const ABANDON_CHECK: Duration = Duration::from_millis(100);
/// A buffer larger than this is given back after a burst.
const KEEP_BYTES: usize = 1 << 20;

/// Runs until the queue is closed and empty, or writing fails.
pub(super) fn run(shared: &Shared, mut target: Target, report: &watch::Sender<Option<Ended>>) {
    let mut batch = Vec::new();
    let ended = loop {
        match next_batch(shared, &target, &mut batch) {
            Next::Batch => {}
            Next::Closed => break None,
            Next::ReaderGone => break Some(Ended::ReaderGone),
        }
        match write_batch(shared, &mut target, &batch) {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => break Some(explain(&error, target.name())),
        }
        batch.clear();
        if batch.capacity() > KEEP_BYTES {
            batch = Vec::new();
        }
    };
    // Closed before anyone is told that writing is over.
    drop(target);
    let mut queue = shared.lock();
    queue.stopped = true;
    queue.bytes = Vec::new();
    drop(queue);
    shared.taken.notify_all();
    if ended.is_some() {
        report.send_replace(ended);
    }
    shared.stopped.notify_all();
}

enum Next {
    Batch,
    Closed,
    ReaderGone,
}

/// Waits for lines and takes them all, leaving the empty `batch` to be filled next.
fn next_batch(shared: &Shared, target: &Target, batch: &mut Vec<u8>) -> Next {
    let wait = |queue, time, more: fn(&mut Queue) -> bool| {
        shared.ready.wait_timeout_while(queue, time, more).unwrap_or_else(PoisonError::into_inner).0
    };
    let mut queue = shared.lock();
    while queue.bytes.is_empty() {
        if queue.closing {
            return Next::Closed;
        }
        queue = wait(queue, READER_CHECK, |queue| queue.bytes.is_empty() && !queue.closing);
        if queue.bytes.is_empty() {
            drop(queue);
            if target.reader_gone() {
                return Next::ReaderGone;
            }
            queue = shared.lock();
        }
    }
    queue = wait(queue, LINGER, |queue| queue.bytes.len() < BATCH_BYTES && !queue.closing);
    std::mem::swap(batch, &mut queue.bytes);
    shared.in_flight_bytes.store(batch.len(), Relaxed);
    shared.taken.notify_all();
    Next::Batch
}

/// Writes whole lines; false when told to give up before all were written.
fn write_batch(shared: &Shared, target: &mut Target, batch: &[u8]) -> io::Result<bool> {
    let mut rest = batch;
    // Bytes of the line that is begun and not finished.
    let mut begun = 0;
    while !rest.is_empty() {
        let writable = target.writable(ABANDON_CHECK);
        if shared.abandon.load(Relaxed) && (begun == 0 || !writable) {
            return Ok(false);
        }
        if !writable {
            continue;
        }
        let chunk = &rest[..chunk_len(rest, target.chunk_bytes())];
        let taken = match target.write(chunk) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // The descriptor may be shared with someone who set it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if shared.abandon.load(Relaxed) {
                    return Ok(false);
                }
                std::thread::sleep(LINGER);
                continue;
            }
            Err(error) => {
                target.take_back(begun);
                return Err(error);
            }
        };
        begun = count(shared, &rest[..taken], begun);
        rest = &rest[taken..];
    }
    Ok(true)
}

/// How much of `rest` to hand over: up to `most` bytes, ending at a line end if one is in reach.
fn chunk_len(rest: &[u8], most: usize) -> usize {
    if rest.len() <= most {
        return rest.len();
    }
    rest[..most].iter().rposition(|&byte| byte == b'\n').map_or(most, |end| end + 1)
}

/// Accounts for bytes just written; returns those of an unfinished line.
fn count(shared: &Shared, written: &[u8], begun: u64) -> u64 {
    shared.in_flight_bytes.fetch_sub(written.len(), Relaxed);
    let all = begun + written.len() as u64;
    let Some(end) = written.iter().rposition(|&byte| byte == b'\n') else { return all };
    let unfinished = (written.len() - end - 1) as u64;
    let lines = written.iter().filter(|&&byte| byte == b'\n').count();
    shared.written_lines.fetch_add(lines as u64, Relaxed);
    shared.written_bytes.fetch_add(all - unfinished, Relaxed);
    unfinished
}

fn explain(error: &io::Error, name: &str) -> Ended {
    if error.kind() == ErrorKind::BrokenPipe || error.kind() == ErrorKind::ConnectionReset {
        return Ended::ReaderGone;
    }
    let remedy = match error.kind() {
        ErrorKind::StorageFull => "free some space, or write to another file system with --output",
        ErrorKind::QuotaExceeded => "free some of your quota, or write to another file system with --output",
        ErrorKind::FileTooLarge => "raise the limit (`ulimit -f`), or start a new file with --output",
        _ => "give another place with --output",
    };
    Ended::Failed(format!("cannot write to {name}: {error}; {remedy}"))
}
