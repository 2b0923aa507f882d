//! What the running kernel does not offer, as the tracer itself tells it: a test whose promise depends on that asserts
//! less there, and says so.

use crate::{records::Records, tracer::Run};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    env,
    fs::{self, OpenOptions},
    io::Write as _,
};

/// Where a guest's first process wants to be told (`tests/src/bin/guest.rs`).
const NOTES_VARIABLE: &str = "TRACER_NOTES";

/// Says what a test does not ask for on this kernel.
pub fn note(text: &str) {
    println!("note: {text}");
    if let Some(path) = env::var_os(NOTES_VARIABLE)
        && let Ok(mut notes) = OpenOptions::new().append(true).open(path)
    {
        // A note that is lost is still in the test's output.
        let _ = writeln!(notes, "note {text}");
    }
}

/// Whether this is an emulated machine whose first process is ours.
pub fn in_a_guest() -> bool {
    env::var_os(NOTES_VARIABLE).is_some()
}

/// The running kernel's version: major and minor.
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether `TW` and `TWKilled` count TIME_WAITs that begin; before 5.19 they count those that expire.
pub fn counts_time_waits_that_begin() -> bool {
    let counts = kernel() >= (5, 19);
    if !counts {
        note("TcpExtTW counts what expires: not compared with what began");
    }
    counts
}

impl Records {
    /// What `start` says of a hook.
    pub fn hook(&self, name: &str) -> Result<Value> {
        let start = self.of("start").next().context("no `start`")?;
        let mut hooks = start.at("/hooks").as_array().into_iter().flatten();
        let found = hooks.find(|hook| hook["hook"] == name).cloned();
        found.with_context(|| format!("no hook {name} in {start:?}"))
    }

    /// Whether the run told in its `start` line that it goes without a hook, such as `sock:sock_recv_length`. Then `less`
    /// is what the test does not ask for.
    pub fn lack(&self, hook: &str, less: &str) -> bool {
        let missing = self.hook(hook).is_ok_and(|found| found["attached"] == false);
        if missing {
            note(&format!("without {hook}: {less}"));
        }
        missing
    }
}

impl Run {
    /// Checks that it told of a missing hook why it is missing and what is lost, to programs and to people.
    pub fn check_missing(&self, name: &str, reason: &str) -> Result<()> {
        let hook = self.records.hook(name)?;
        let [why, lost] = ["reason", "lost"].map(|part| hook[part].as_str().unwrap_or_default());
        ensure!(hook["attached"] == false && why.contains(reason) && !lost.is_empty(), "{hook}");
        let line = format!("{name} is not attached ({why}); not known for that: {lost}");
        ensure!(self.stderr.contains(&line), "`{line}` is not in:\n{}", self.stderr);
        Ok(())
    }
}
