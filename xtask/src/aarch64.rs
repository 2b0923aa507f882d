//! The daemon for aarch64, built on x86-64; the tests run it in QEMU's user mode.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use xtask::cmd;

use crate::run;

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// It needs no libraries of that architecture where it runs.
const FLAGS: &str = "-Ctarget-feature=+crt-static";

/// Without optimization or debug information: it is to be built soon, not to be fast.
pub fn build(root: &Path) -> Result<PathBuf> {
    let mut cargo = cmd::cargo(root);
    cargo.args(["build", "--target", TARGET]);
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    cargo.env("RUSTFLAGS", FLAGS).env("CARGO_PROFILE_DEV_DEBUG", "none");
    if !has_standard_library(root)? {
        eprintln!("building the standard library for {TARGET} from rust-src, which takes a minute more");
        cargo.arg("-Zbuild-std").env("RUSTC_BOOTSTRAP", "1");
    }
    run::built(&mut cargo).with_context(|| {
        format!(
            "cannot build the daemon for {TARGET}; it takes gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and \
             `rustup target add {TARGET}`"
        )
    })
}

/// Whether it is there, be it only now.
fn has_standard_library(root: &Path) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    let folder = cmd::output(rustc.current_dir(root).args(["--print", "target-libdir", "--target", TARGET]))?;
    let is_there = || Path::new(folder.trim_end()).exists();
    if !is_there() {
        let mut rustup = Command::new("rustup");
        if let Err(error) = cmd::output(rustup.current_dir(root).args(["target", "add", TARGET])) {
            // It prints its reason first, and, in a crash, a long trace after it.
            let reason = format!("{error:#}").lines().take(6).collect::<Vec<_>>().join("\n    ");
            eprintln!("the standard library for {TARGET} is not to be had from rustup: {reason}");
        }
    }
    Ok(is_there())
}
