//! A run of the daemon that has to fail, and what it says then.

use anyhow::{Result, ensure};
use std::process::Output;

/// The exit status, and a message that names what is wrong and no more than a person wants to read.
pub fn check(output: &Output, code: i32, named: &[&str]) -> Result<()> {
    const MOST_LINES: usize = 12;
    let stderr = String::from_utf8(output.stderr.clone())?;
    ensure!(output.status.code() == Some(code), "{}, not {code}; stderr:\n{stderr}", output.status);
    for named in named {
        ensure!(stderr.contains(named), "`{named}` is not named:\n{stderr}");
    }
    let lines = stderr.lines().count();
    ensure!((1..=MOST_LINES).contains(&lines), "{lines} lines of stderr:\n{stderr}");
    for word in ["panicked", "backtrace", "RUST_BACKTRACE", "Os {", "stack"] {
        ensure!(!stderr.contains(word), "stderr speaks of `{word}`:\n{stderr}");
    }
    Ok(())
}

/// As [`check`], of what cannot be done: the message is one line, and there are no records.
pub fn check_one_line(output: &Output, named: &[&str]) -> Result<()> {
    check(output, 1, named)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(stderr.lines().count() == 1, "more than one line:\n{stderr}");
    ensure!(output.stdout.is_empty(), "no records are expected");
    Ok(())
}
