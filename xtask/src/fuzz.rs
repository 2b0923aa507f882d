//! `cargo xtask fuzz`: the fuzz targets (tracer/src/fuzz) on new inputs, each for some time.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use xtask::cmd;

/// One for each test of `tracer::fuzz`, by the same name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Target {
    /// One direction put back in order
    Stream,
    /// The framing of whole connections, up to the lines written
    Flow,
    /// Start lines and fields
    Head,
    /// The chunked coding
    Chunked,
    /// Records of the ring
    Decode,
    /// Any exchange as a line
    Emit,
    /// Capture files, compressed or not
    Capture,
    /// Headers of captured packets
    Packet,
    /// Any segments of any connections, up to the lines written
    Observer,
    /// Recordings of live runs
    Recording,
}

/// Runs one target, or all of them one after the other, for `seconds` each.
pub fn fuzz(root: &Path, target: Option<Target>, seconds: u64) -> Result<()> {
    for candidate in Target::value_variants() {
        if target.is_some_and(|target| target != *candidate) {
            continue;
        }
        let name =
            candidate.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        eprintln!("\n== {name}");
        let mut cargo = cmd::cargo(root);
        cargo.args(["test", "--quiet", "--profile", "fuzz", "--package", "tracer", "--lib", "--"]);
        cargo.args(["--exact", &format!("fuzz::{name}"), "--nocapture"]);
        cmd::run(cargo.env("TRACER_FUZZ_SECONDS", seconds.to_string()))?;
    }
    Ok(())
}
