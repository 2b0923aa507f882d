//! Which tests run in guests, and the programs that they call.

/// Integration tests (files of `tests/tests`) that need no server from outside of this repository.
pub const TESTS: [&str; 14] = [
    "verifier",
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

/// Those of `--quick`: what `cargo xtask test` has time for.
pub const QUICK: [&str; 9] = [
    "verifier",
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

/// Programs that these tests start.
pub const PROGRAMS: [&str; 9] = ["sh", "sleep", "cat", "ip", "ss", "nsenter", "nft", "bpftool", "tc"];

/// How often a scenario is played: a guest is some twenty times slower than its host.
pub const REPEAT: usize = 2;

/// By what the limits of time of the tests are multiplied.
pub const PATIENCE: u32 = 6;

/// How the tests' processes are set up.
pub const ENVIRONMENT: [(&str, &str); 3] =
    [("TRACER_BIN", super::initramfs::TRACER), ("PATH", "/usr/sbin:/usr/bin"), ("HOME", "/")];
