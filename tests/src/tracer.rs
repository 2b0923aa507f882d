//! The daemon under test.

use crate::{
    bpf,
    netns::Netns,
    process::Process,
    records::{Line, Records},
    scratch::Scratch,
    wait,
};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::SystemTime,
};

/// Where the daemon's binary is.
pub fn binary() -> Result<PathBuf> {
    named_by("TRACER_BIN")
}

/// Where the one for aarch64 is.
pub fn aarch64_binary() -> Result<PathBuf> {
    named_by("TRACER_BIN_AARCH64")
}

fn named_by(variable: &str) -> Result<PathBuf> {
    let path = env::var_os(variable).map(PathBuf::from);
    let path = path.with_context(|| {
        format!("{variable} must name the tracer's binary; `cargo xtask test` builds and names it")
    })?;
    ensure!(path.is_file(), "{variable} names {}, which is no file", path.display());
    Ok(path)
}

/// A copy of it where every user can read it.
pub fn copy(scratch: &Scratch) -> Result<PathBuf> {
    let copy = scratch.file("tracer");
    fs::copy(binary()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

/// The kinds of hooks to test (`--hooks`), with commas between, where it is not to be the best one alone.
pub const HOOKS_VARIABLE: &str = "TRACER_HOOKS";

/// A kind of hooks, or the best.
type Kind = Option<String>;

fn kinds() -> Vec<Kind> {
    let kinds = env::var(HOOKS_VARIABLE).ok();
    kinds.map_or_else(|| vec![None], |kinds| kinds.split(',').map(|kind| Some(kind.to_owned())).collect())
}

/// The daemon's command line, to be run inside a namespace.
pub fn command(netns: &Netns, args: &[&str]) -> Result<Command> {
    command_by(netns, &[], &binary()?, args)
}

/// The same with a copy of the daemon that another program starts, such as `unshare --mount --`.
pub fn command_by(netns: &Netns, by: &[&str], binary: &Path, args: &[&str]) -> Result<Command> {
    command_of(&kinds()[0], netns, by, binary, args)
}

fn command_of(kind: &Kind, netns: &Netns, by: &[&str], binary: &Path, args: &[&str]) -> Result<Command> {
    let binary = binary.to_str().context("the tracer's path is not UTF-8")?;
    let mut words = by.iter().copied().chain([binary]);
    let mut command = netns.command(words.next().unwrap_or(binary));
    command.args(words);
    if let Some(kind) = kind {
        command.arg("--hooks").arg(kind);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Tracer {
    process: Process,
    shared: Arc<Shared>,
    out: JoinHandle<()>,
    err: JoinHandle<String>,
}

/// A daemon that has ended.
#[derive(Debug)]
pub struct Run {
    pub records: Records,
    pub status: ExitStatus,
    pub stderr: String,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Not looked at yet: the reader must be fast.
    unread: Vec<(SystemTime, Vec<u8>)>,
    records: Records,
    paused: bool,
    ended: bool,
}

impl State {
    /// The records so far; an error when a line is not valid.
    fn records(&mut self) -> Result<&Records> {
        for (arrived, line) in self.unread.drain(..) {
            self.records.0.push(Line::parse(arrived, line).context("an output line is not valid")?);
        }
        Ok(&self.records)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Tracer {
    /// Starts the daemon inside a namespace and waits until it sees everything.
    pub fn start(netns: &Netns, args: &[&str]) -> Result<Self> {
        Self::start_by(&mut command(netns, args)?)
    }

    /// One for each kind of hooks to test, beside each other.
    pub fn start_each(netns: &Netns, args: &[&str]) -> Result<Vec<Self>> {
        let binary = binary()?;
        kinds().iter().map(|kind| Self::start_by(&mut command_of(kind, netns, &[], &binary, args)?)).collect()
    }

    /// As [`Self::start`], by a command line such as [`command_by`] gives.
    pub fn start_by(command: &mut Command) -> Result<Self> {
        let mut process = Process::spawn(command)?;
        let stdout = process.child().stdout.take().context("no standard output")?;
        let stderr = process.child().stderr.take().context("no standard error")?;
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let out = thread::spawn(move || read_lines(stdout, &theirs));
        let err = thread::spawn(move || read_text(stderr));
        let mut tracer = Self { process, shared, out, err };
        let started = tracer.wait_for("the `start` line", |records| (!records.0.is_empty()).then_some(()));
        if let Err(error) = started {
            tracer.process.signal(libc::SIGKILL)?;
            let run = tracer.collect()?;
            bail!("{error:#}; it wrote to standard error:\n{}", run.stderr);
        }
        Ok(tracer)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        self.process.signal(signal)
    }

    /// Stops reading its output, as a slow reader would, or goes on with it.
    pub fn pause_reading(&self, paused: bool) {
        self.shared.change(|state| state.paused = paused);
    }

    /// Waits until the records so far have the answer.
    pub fn wait_for<T>(&mut self, what: &str, mut ask: impl FnMut(&Records) -> Option<T>) -> Result<T> {
        let mut asked_at = 0;
        let answer = wait::until(what, wait::LIMIT, || {
            let mut state = self.shared.lock();
            let ended = state.ended;
            let records = state.records()?;
            if records.0.len() == asked_at {
                ensure!(!ended, "tracer ended while the test waited for {what}");
                return Ok(None);
            }
            asked_at = records.0.len();
            Ok(ask(records))
        });
        answer.map_err(|error| {
            let state = self.shared.lock();
            let last: Vec<&str> =
                state.records.0.iter().rev().take(40).rev().map(|line| line.text.as_str()).collect();
            anyhow!("{error:#}; the last records:\n{}", last.concat())
        })
    }

    /// Waits until a filter is attached to an interface that came after the start.
    pub fn wait_for_interface(&self, name: &str, netns: &Netns) -> Result<()> {
        wait::until(&format!("a filter on {name}"), wait::LIMIT, || {
            Ok((!bpf::attached(netns, name)?.is_empty()).then_some(()))
        })
    }

    /// Ends it as Ctrl-C does. It must have nothing to complain about.
    pub fn stop(self) -> Result<Run> {
        let run = self.end(libc::SIGINT)?;
        ensure!(run.status.code() == Some(0), "after SIGINT: {}; stderr:\n{}", run.status, run.stderr);
        Ok(run)
    }

    /// Ends it by a signal.
    pub fn end(self, signal: libc::c_int) -> Result<Run> {
        self.process.signal(signal)?;
        self.collect()
    }

    /// Waits until it ends of itself.
    pub fn collect(self) -> Result<Run> {
        let Self { mut process, shared, out, err } = self;
        shared.change(|state| state.paused = false);
        let status = process.wait(wait::LIMIT * 3)?;
        let panicked = "a reading thread panicked";
        out.join().map_err(|_| io::Error::other(panicked))?;
        let stderr = err.join().map_err(|_| io::Error::other(panicked))?;
        let mut state = shared.lock();
        state.records()?;
        ensure!(!stderr.contains("panicked"), "tracer panicked:\n{stderr}");
        Ok(Run { records: std::mem::take(&mut state.records), status, stderr })
    }
}

fn read_lines(stdout: ChildStdout, shared: &Shared) {
    let mut reader = BufReader::new(stdout);
    loop {
        let state = shared.lock();
        drop(shared.changed.wait_while(state, |state| state.paused).unwrap_or_else(PoisonError::into_inner));
        let mut bytes = Vec::new();
        let read = reader.read_until(b'\n', &mut bytes);
        if !matches!(read, Ok(1..)) {
            return shared.change(|state| state.ended = true);
        }
        let arrived = SystemTime::now();
        shared.change(|state| state.unread.push((arrived, bytes)));
    }
}

fn read_text(mut stderr: impl Read) -> String {
    let mut bytes = Vec::new();
    // What came before an error is what counts.
    let _ = stderr.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
