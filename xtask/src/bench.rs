//! `cargo xtask bench`: how fast, on this machine. What the figures mean is in docs/benchmarks.md.

use std::{ffi::OsString, path::Path};

use anyhow::Result;
use clap::ValueEnum;
use xtask::cmd;

use crate::{bench_read, run};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Bench {
    /// The HTTP engine, from memory
    Engine,
    /// The whole tracer beside a busy server, by where it captures; as root
    Capture,
    /// `tracer read` beside tshark and tcpflow, on a capture of 1 GiB
    Read,
}

impl Bench {
    fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Capture => "capture",
            Self::Read => "read",
        }
    }
}

/// Runs one benchmark, or all.
pub fn bench(root: &Path, which: Option<Bench>, args: &[OsString]) -> Result<()> {
    for bench in Bench::value_variants().iter().filter(|bench| which.is_none_or(|which| which == **bench)) {
        if *bench == Bench::Read {
            bench_read::bench(root)?;
            continue;
        }
        let mut cargo = cmd::cargo(root);
        let package = if *bench == Bench::Engine { "tracer" } else { "tests" };
        cargo.args(["bench", "--package", package, "--bench", bench.name(), "--"]).args(args);
        cargo.env("TRACER_BIN", run::build(root)?);
        cmd::run(&mut cargo)?;
    }
    Ok(())
}
