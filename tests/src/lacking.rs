//! What the running kernel does not offer, as the tracer itself tells it: a test whose promise depends on that asserts
//! less there, and says so.

use crate::records::Records;
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
    /// Whether the run told in its `start` line that it goes without a hook, such as `sock:sock_recv_length`. Then `less`
    /// is what the test does not ask for.
    pub fn lack(&self, hook: &str, less: &str) -> bool {
        let start = self.of("start").next();
        let hooks = start.as_ref().and_then(|start| start.at("/hooks").as_array());
        let mut hooks = hooks.into_iter().flatten();
        let missing = hooks.any(|found| found["hook"] == hook && found["attached"] == false);
        if missing {
            note(&format!("without {hook}: {less}"));
        }
        missing
    }
}
