//! Which tests run in guests, and the programs that they call.

/// Integration tests (files of `tests/tests`) that need no server from outside of this repository.
pub const TESTS: [&str; 18] = [
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
    "cookies",
    "not_http",
    "record",
];

/// The most telling ones: some minutes for each kernel. Without a test's name, all of a program.
const QUICK: [&str; 17] = [
    "verifier",
    "hooks kinds_tell_the_same",
    "lifecycle_close client_closes_first",
    "lifecycle_close fins_that_cross",
    "lifecycle_open fast_open",
    "lifecycle_open refused",
    "lifecycle_reset by_the_client",
    "lifecycle_reset unread_data",
    "lifecycle_time_wait namespace_exit",
    "lifecycle_time_wait overflow",
    "lifecycle_time_wait reset",
    "lifecycle_time_wait reused_by_a_syn",
    "retransmit",
    "owners",
    "selfcheck",
    "unseen a_state_in_between",
    "unseen a_time_wait",
];

/// Each kind of hooks in turn, of which the tracer takes the first one that works unless it is told which.
const EACH: [&str; 3] = ["fentry", "kprobe", "tracepoint"];
/// Tracers by all kinds beside each other.
const ALL: &str = "fentry,kprobe,tracepoint";

/// The tests that are run by each kind of hooks, where all are run; the others take the best one. (With [`Plan::Quick`], `hooks`
/// compares the kinds.)
const BY_EACH: [&str; 3] = ["owners", "selfcheck", "time_wait_counts"];
/// What those are called that can have several tracers beside each other, which must tell the same.
const BESIDE: &str = "lifecycle_";

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
            Self::Quick => {
                let full = format!("{program} {test}");
                QUICK.iter().any(|quick| [program, &full].contains(quick))
            }
            Self::Beside => program.starts_with(BESIDE),
        }
    }

    /// All runs of some tests, given by program and name.
    pub fn runs(self, tests: &[(String, String)]) -> Vec<Run<'_>> {
        let mut runs = Vec::new();
        for (program, test) in tests {
            let kinds: &[&'static str] = match self {
                Self::Beside => &[ALL],
                Self::Whole if BY_EACH.contains(&program.as_str()) => &EACH,
                _ => &[],
            };
            runs.extend(kinds.iter().map(|kind| Run { hooks: Some(kind), program, test }));
            if kinds.is_empty() {
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
