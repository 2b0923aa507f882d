//! A daemon whose output is too long to be kept: its lines are counted as they come.

use crate::{netns::Netns, process::Process, tracer, traffic_net, wait};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    io::{self, BufRead as _, BufReader},
    process::ChildStdout,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

/// Records kept for the message of a failed check.
const MAX_ODD: usize = 4;

/// What was written so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// `conn` records of the namespace: all, those that are whole, those of sockets still open.
    pub conns: usize,
    pub complete: usize,
    pub open: usize,
    /// Some of those that are not whole.
    pub odd: Vec<String>,
    /// The newest `stats`.
    pub stats: Value,
    started: bool,
}

impl Tally {
    /// The value at a JSON pointer into the newest `stats`.
    pub fn stat(&self, path: &str) -> Option<u64> {
        self.stats.pointer(path)?.as_u64()
    }
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Counted {
    process: Process,
    tally: Arc<Mutex<Tally>>,
    reader: JoinHandle<io::Result<()>>,
}

impl Counted {
    pub fn start(netns: &Netns, args: &[&str]) -> Result<Self> {
        let mut command = tracer::command(netns, args)?;
        command.stderr(io::stderr());
        let mut process = Process::spawn(&mut command)?;
        traffic_net::widen_output(process.pid())?;
        let stdout = process.child().stdout.take().context("no standard output")?;
        let tally = Arc::<Mutex<Tally>>::default();
        let theirs = Arc::clone(&tally);
        let own = format!("\"netns\":{},", netns.inode());
        let reader = thread::spawn(move || read(stdout, &theirs, &own));
        let counted = Self { process, tally, reader };
        counted.wait_for("the `start` line", |tally| tally.started.then_some(()))?;
        Ok(counted)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until the tally has the answer.
    pub fn wait_for<T>(&self, what: &str, ask: impl Fn(&Tally) -> Option<T>) -> Result<T> {
        wait::until(what, wait::LOAD_LIMIT, || Ok(ask(&lock(&self.tally))))
            .with_context(|| format!("{:?}", lock(&self.tally)))
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(mut self) -> Result<Tally> {
        self.process.signal(libc::SIGINT)?;
        let status = self.process.wait(wait::LOAD_LIMIT)?;
        ensure!(status.success(), "after SIGINT: {status}");
        self.reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(lock(&self.tally).clone())
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Millions of lines: only the few that are not `conn` are parsed.
fn read(stdout: ChildStdout, tally: &Mutex<Tally>, own: &str) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 20, stdout);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let mut tally = lock(tally);
        tally.started = true;
        if line.starts_with("{\"type\":\"conn\"") {
            if line.contains(own) {
                tally.conns += 1;
                let is_complete = line.contains("\"complete\":true");
                tally.complete += usize::from(is_complete);
                if !is_complete && tally.odd.len() < MAX_ODD {
                    tally.odd.push(line.clone());
                }
                tally.open += usize::from(line.contains("\"open\":true"));
            }
        } else if line.starts_with("{\"type\":\"stats\"") {
            tally.stats = serde_json::from_str(&line)?;
        }
        line.clear();
    }
    Ok(())
}
