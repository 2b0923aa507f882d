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

/// Kinds of hooks that the tracer takes when it is told to, though a better one works on most kernels.
const OTHER_HOOKS: [&str; 2] = ["kprobe", "tracepoint"];

/// The tests whose records come by other hooks then, by the beginning of `PROGRAM NAME`.
const BY_OTHER_HOOKS: [&str; 4] = ["lifecycle_", "owners ", "selfcheck ", "time_wait_counts "];
/// And those of `--quick`; `hooks` compares more.
const QUICK_BY_OTHER_HOOKS: [&str; 3] =
    ["lifecycle_time_wait reset", "lifecycle_time_wait reused_by_connect", "owners "];

/// Kind of hooks, program and name of each test that is run again.
pub fn by_other_hooks(tests: &[(String, String)], quick: bool) -> Vec<(&'static str, &str, &str)> {
    let wanted: &[&str] = if quick { &QUICK_BY_OTHER_HOOKS } else { &BY_OTHER_HOOKS };
    let again = |(program, name): &&(String, String)| {
        let full = format!("{program} {name}");
        wanted.iter().any(|wanted| full.starts_with(wanted))
    };
    let with = |hooks| {
        tests.iter().filter(again).map(move |(program, name)| (hooks, program.as_str(), name.as_str()))
    };
    OTHER_HOOKS.into_iter().flat_map(with).collect()
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
