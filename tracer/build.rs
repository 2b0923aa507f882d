//! Gives the daemon its kernel object, in `TRACER_BPF_OBJECT`.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use xtask::{cmd, object};

fn main() -> ExitCode {
    match kernel_object() {
        Ok(object) => {
            println!("cargo:rustc-env=TRACER_BPF_OBJECT={}", object.display());
            ExitCode::SUCCESS
        }
        // Not returned from `main`: that would bury the reason under a stack where RUST_BACKTRACE is set.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn kernel_object() -> Result<PathBuf> {
    let root = cmd::root()?;
    for input in object::inputs(&root) {
        println!("cargo:rerun-if-changed={}", input.display());
    }
    let out_dir = env::var_os("OUT_DIR").context("cargo did not set OUT_DIR")?;
    let log = env::var_os("CARGO_FEATURE_EBPF_LOG").is_some();
    object::for_daemon(&root, Path::new(&out_dir), log)
}
