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

/// The most telling ones, by the beginning of `PROGRAM NAME`: some minutes for each kernel.
const QUICK: [&str; 21] = [
    "verifier ",
    "hooks ",
    "lifecycle_close client_closes_first",
    "lifecycle_close server_closes_first",
    "lifecycle_close fins_that_cross",
    "lifecycle_open fast_open",
    "lifecycle_open refused",
    "lifecycle_open syns_that_cross",
    "lifecycle_reset by_the_client",
    "lifecycle_reset killed_process",
    "lifecycle_reset unread_data",
    "lifecycle_time_wait namespace_exit",
    "lifecycle_time_wait older_than_the_tracer",
    "lifecycle_time_wait overflow",
    "lifecycle_time_wait reset",
    "lifecycle_time_wait reused_by_a_syn",
    "lifecycle_time_wait reused_by_connect",
    "retransmit ",
    "owners ",
    "selfcheck ",
    "unseen ",
];

/// Each kind of hooks in turn, of which the tracer takes the first one that works unless it is told which.
const EACH: [&str; 3] = ["fentry", "kprobe", "tracepoint"];
/// Tracers by all kinds beside each other.
const ALL: &str = "fentry,kprobe,tracepoint";

/// The tests that are run by each kind of hooks; the others take the best one.
const BY_EACH: [&str; 3] = ["owners ", "selfcheck ", "time_wait_counts "];
/// And of the quick ones, of which another one compares the kinds.
const QUICK_BY_EACH: [&str; 1] = ["owners "];
/// Those that can have several tracers beside each other, which must tell the same.
const BESIDE: [&str; 1] = ["lifecycle_"];

/// One run of a test.
pub struct Run<'a> {
    /// `None`: the best ones.
    pub hooks: Option<&'static str>,
    pub program: &'a str,
    pub test: &'a str,
}

/// How tests are chosen and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plan {
    /// All, the longer ones too
    Whole,
    /// The most telling ones
    Quick,
    /// Those that compare what tracers by all kinds of hooks tell of the same connections
    Beside,
}

impl Plan {
    pub fn has(self, program: &str, test: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::Quick => QUICK.iter().any(|quick| format!("{program} {test}").starts_with(quick)),
            Self::Beside => BESIDE.iter().any(|beginning| program.starts_with(beginning)),
        }
    }

    /// All runs of some tests, given by program and name.
    pub fn runs(self, tests: &[(String, String)]) -> Vec<Run<'_>> {
        let each: &[&str] = if self == Self::Whole { &BY_EACH } else { &QUICK_BY_EACH };
        let mut runs = Vec::new();
        for (program, test) in tests {
            let full = format!("{program} {test}");
            if self == Self::Beside {
                runs.push(Run { hooks: Some(ALL), program, test });
            } else if each.iter().any(|beginning| full.starts_with(beginning)) {
                runs.extend(EACH.map(|kind| Run { hooks: Some(kind), program, test }));
            } else {
                runs.push(Run { hooks: None, program, test });
            }
        }
        runs
    }
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
