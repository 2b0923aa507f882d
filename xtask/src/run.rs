//! `cargo xtask run`: the daemon, built and started as root.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use xtask::cmd;

/// Becomes tracer: its output, its exit status and a Ctrl-C are its own.
pub fn run(root: &Path, args: &[OsString]) -> Result<()> {
    // First, so that nobody waits for a build only to read that.
    let is_root = cmd::is_root()?;
    cmd::as_root("tracer")?;
    let tracer = build(root)?;
    if !is_root {
        eprintln!("starting {} with sudo", tracer.display());
    }
    let error = cmd::as_root(&tracer)?.args(args).exec();
    Err(error).with_context(|| format!("cannot start {}", tracer.display()))
}

/// Builds the daemon for release.
pub fn build(root: &Path) -> Result<PathBuf> {
    built(cmd::cargo(root).args(["build", "--release"]))
}

/// Builds the daemon as this `cargo build` would. Cargo itself tells where it put it, whatever the user's settings.
pub fn built(cargo: &mut Command) -> Result<PathBuf> {
    cargo.args(["--package", "tracer", "--bin", "tracer", "--message-format=json-render-diagnostics"]);
    let messages = cmd::output(cargo.stderr(Stdio::inherit()))?;
    let executable = executable(&messages).context("cargo did not say where it put tracer")?;
    Ok(executable.into())
}

/// The path in `"executable":"…"`; null in the messages about libraries.
fn executable(messages: &str) -> Option<&str> {
    let (_, rest) = messages.split_once("\"executable\":\"")?;
    Some(rest.split_once('"')?.0)
}

#[cfg(test)]
mod tests {
    use super::executable;

    #[test]
    fn executable_is_found_among_the_messages() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"executable\":null,\"fresh\":true}\n",
            "{\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/tracer\",\"fresh\":false}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(executable(messages), Some("/t/release/tracer"));
        assert_eq!(executable("{\"executable\":null}"), None);
    }
}
