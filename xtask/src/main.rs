mod aarch64;
mod bench;
mod bench_read;
mod fuzz;
mod run;
mod test;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use xtask::{cmd, object, toolchain};

/// Every chore of the project.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    /// Install what building the kernel object needs: the source of `core`, and bpf-linker
    Setup,
    /// Build the kernel object and write the committed copy (tracer-ebpf/tracer.bpf.o)
    BuildEbpf {
        /// Compare with the committed copy instead, byte for byte; fail if it differs
        #[arg(long)]
        check: bool,
    },
    /// Build the daemon and run it as root
    Run {
        /// What to pass on to tracer
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run every check and test; installs what they need
    Test {
        /// Run only the tests with this in their name, and none of the other checks
        #[arg(last = true)]
        filter: Option<String>,
    },
    /// Run the integration tests on other kernels, in emulated machines
    Vm(vm::Options),
    /// Feed parsers and engine with inputs that nobody thought of
    Fuzz {
        /// What to fuzz; everything, one after the other, when left out
        target: Option<fuzz::Target>,
        /// How long each
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Measure (docs/benchmarks.md)
    Bench {
        /// Which benchmark; all when left out
        which: Option<bench::Bench>,
        /// What to pass on to criterion, such as a filter
        #[arg(last = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match carry_out(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Not returned from `main`: that would print a stack of this program where RUST_BACKTRACE is set.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> Result<()> {
    let root = cmd::root()?;
    match command {
        Command::Setup => toolchain::setup(&root),
        Command::BuildEbpf { check } => object::build_or_check(&root, check),
        Command::Run { args } => run::run(&root, &args),
        Command::Test { filter } => test::test(&root, filter.as_deref()),
        Command::Vm(options) => vm::vm(&root, &options),
        Command::Fuzz { target, seconds } => fuzz::fuzz(&root, target, seconds),
        Command::Bench { which, args } => bench::bench(&root, which, &args),
    }
}
