//! `cargo xtask test`: every check of the project, from a fresh clone on.

use std::{env, path::Path, time::Instant};

use anyhow::{Context as _, Result};
use xtask::{cmd, object, packages, toolchain};

use crate::{aarch64, run, vm};

/// Newer ones may need a newer compiler than the pinned one.
const CARGO_DENY: &str = "cargo-deny@0.20.2";

/// Stops at the first step that fails.
pub fn test(root: &Path, filter: Option<&str>) -> Result<()> {
    let begin = Instant::now();
    step("programs for the tests", packages::install_missing)?;
    step("tool chain for the kernel object", || toolchain::setup(root))?;
    if filter.is_none() {
        step("format", || cargo(root, &["fmt", "--all", "--check"]))?;
        step("clippy", || {
            cargo(root, &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
        })?;
        step("clippy of the kernel programs", || object::clippy(root))?;
        step("licences and sources of dependencies", || deny(root))?;
        step("kernel object = its sources", || object::build_or_check(root, true))?;
    }
    step("unit tests", || {
        let mut args = vec!["test", "--workspace", "--exclude", "tests"];
        args.extend(filter.map(|filter| ["--", filter]).into_iter().flatten());
        cargo(root, &args)
    })?;
    let aarch64 = step("daemon for aarch64", || aarch64::build(root))?;
    step("integration tests", || integration_tests(root, &aarch64, filter))?;
    if filter.is_none() {
        step("integration tests on other kernels", || vm::vm(root, &vm::Options::standard()))?;
    }
    eprintln!("\n== all passed in {} s", begin.elapsed().as_secs());
    Ok(())
}

fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("\n== {name}");
    let begin = Instant::now();
    let result = work().with_context(|| format!("step `{name}` failed"))?;
    eprintln!("== {name}: {} s", begin.elapsed().as_secs());
    Ok(result)
}

fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    cmd::run(cmd::cargo(root).args(args))
}

/// Advisories are left out: they come from a server, and would let the same commit pass today and fail tomorrow.
fn deny(root: &Path) -> Result<()> {
    if cmd::output(cmd::cargo(root).args(["deny", "--version"])).is_err() {
        eprintln!("{CARGO_DENY}: installing; this takes minutes");
        cmd::run(cmd::pinned(root, "cargo")?.args(["install", "--quiet", "--locked", CARGO_DENY]))
            .with_context(|| format!("by hand: `cargo install --locked {CARGO_DENY}`"))?;
    }
    cargo(root, &["deny", "--locked", "check", "bans", "licenses", "sources"])
}

/// As root, one at a time: they share the machine's kernel.
fn integration_tests(root: &Path, aarch64: &Path, filter: Option<&str>) -> Result<()> {
    let tracer = run::build(root)?;
    let mut cargo = cmd::cargo(root);
    cargo.args(["test", "--package", "tests"]);
    cargo.env("TRACER_BIN", &tracer).env("TRACER_BIN_AARCH64", aarch64);
    if !cmd::is_root()? {
        // Built as the user, run as root; sudo would reset PATH even where it keeps the rest.
        cmd::as_root("the integration tests")?;
        let path = format!("PATH={}", env::var("PATH").context("PATH is not set, or not UTF-8")?);
        cargo.args([
            "--config",
            &format!("target.'cfg(all())'.runner=['sudo', '--preserve-env', 'env', '{path}']"),
        ]);
    }
    cargo.args(["--", "--test-threads=1"]).args(filter);
    cmd::run(&mut cargo)
}
