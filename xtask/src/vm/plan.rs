//! Which tests run in guests, and the programs that they call.

/// Integration tests (files of `tests/tests`) that need no server from outside of this repository.
pub const TESTS: [&str; 17] = [
    "verifier",
    "hooks",
    "missing_pieces",
    "missing_privileges",
    "lifecycle_close",
    "lifecycle_open",
    "lifecycle_orphan",
    "lifecycle_reset",
    "lifecycle_timeout",
    "lifecycle_time_wait",
    "time_wait_counts",
    "retransmit",
    "owners",
    "selfcheck",
    "unseen",
    "not_http",
    "record",
];

/// Those of `--quick`: some minutes for each kernel.
pub const QUICK: [&str; 10] = [
    "verifier",
    "hooks",
    "lifecycle_close",
    "lifecycle_open",
    "lifecycle_reset",
    "lifecycle_time_wait",
    "retransmit",
    "owners",
    "selfcheck",
    "unseen",
];

/// Not among them: it waits for the end of a TIME_WAIT.
pub const LONG: [&str; 1] = ["expired"];

/// Each kind of hooks in turn, of which the tracer takes the first one that works unless it is told which.
const EACH: [&str; 3] = ["fentry", "kprobe", "tracepoint"];
/// Tracers by all kinds beside each other, which must tell the same.
const BESIDE: [&str; 1] = ["fentry,kprobe,tracepoint"];

/// Which tests are run by which kinds of hooks, by the beginning of `PROGRAM NAME`; the others take the best one.
const BY_HOOKS: [(&str, &[&str]); 4] =
    [("lifecycle_", &BESIDE), ("owners ", &EACH), ("selfcheck ", &EACH), ("time_wait_counts ", &EACH)];
/// With `--quick`, these are run so as well.
const QUICK_BY_HOOKS: [(&str, &[&str]); 3] = [
    ("lifecycle_time_wait reset", &BESIDE),
    ("lifecycle_time_wait reused_by_connect", &BESIDE),
    ("owners ", &EACH),
];

/// One run of a test.
pub struct Run<'a> {
    /// `None`: the best ones.
    pub hooks: Option<&'static str>,
    pub program: &'a str,
    pub test: &'a str,
}

/// All runs of some tests, given by program and name.
pub fn runs(tests: &[(String, String)], quick: bool) -> Vec<Run<'_>> {
    let table: &[(&str, &[&str])] = if quick { &QUICK_BY_HOOKS } else { &BY_HOOKS };
    let mut runs = Vec::new();
    for (program, test) in tests {
        let full = format!("{program} {test}");
        let kinds = table.iter().find(|(beginning, _)| full.starts_with(beginning)).map(|(_, kinds)| *kinds);
        if quick || kinds.is_none() {
            runs.push(Run { hooks: None, program, test });
        }
        for kind in kinds.into_iter().flatten() {
            runs.push(Run { hooks: Some(kind), program, test });
        }
    }
    runs
}

/// Programs that these tests start.
pub const PROGRAMS: [&str; 13] = [
    "sh", "sleep", "cat", "ip", "ss", "nsenter", "nft", "bpftool", "tc", "mount", "umount", "setpriv",
    "unshare",
];

/// How often a scenario is played: a guest is some twenty times slower than its host.
pub const REPEAT: usize = 2;

/// By what the limits of time of the tests are multiplied.
pub const PATIENCE: u32 = 6;

/// How the tests' processes are set up.
pub const ENVIRONMENT: [(&str, &str); 3] =
    [("TRACER_BIN", super::initramfs::TRACER), ("PATH", "/usr/sbin:/usr/bin"), ("HOME", "/")];
