//! `cargo xtask vm`: the integration tests on other kernels, each in an emulated machine.

mod compatibility;
mod cpio;
mod initramfs;
mod kernels;
mod modules;
mod plan;
mod programs;
mod qemu;
mod report;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use self::{
    compatibility::Column,
    kernels::{Kernel, Kernels},
    programs::Programs,
    qemu::{Boot, Qemu},
    report::Report,
};

/// What `cargo xtask test` runs.
pub const STANDARD: [&str; 3] = ["5.10", "6.1", "6.12"];
/// These must be there; another one may be out of the archive.
const NEEDED: [&str; 2] = ["6.1", "6.12"];

/// Tests report before and after each of them; the slowest waits a minute for its TIME_WAITs.
const SILENCE: Duration = Duration::from_secs(420);

/// What to run, and where.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Series of kernels
    #[arg(long, value_delimiter = ',', default_values = STANDARD)]
    kernels: Vec<String>,
    /// How often each scenario is played
    #[arg(long, default_value_t = plan::REPEAT)]
    repeat: usize,
    /// Write docs/compatibility.md of this run
    #[arg(long)]
    docs: bool,
    /// Run only the tests with one of these in `PROGRAM NAME`
    #[arg(last = true)]
    filters: Vec<String>,
}

impl Options {
    /// What belongs to `cargo xtask test`.
    pub fn standard() -> Self {
        let kernels = STANDARD.map(str::to_owned).into();
        Self { kernels, repeat: plan::REPEAT, docs: false, filters: Vec::new() }
    }
}

/// Runs every test on every kernel, and fails at the end if one did.
pub fn vm(root: &Path, options: &Options) -> Result<()> {
    let begin = Instant::now();
    let cache = cache()?;
    let qemu = Qemu::find(&cache)?;
    let mut kernels = Kernels::new(&cache);
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for series in &options.kernels {
        match kernels.find(series) {
            Ok(kernel) => found.push((series, kernel)),
            Err(error) => {
                eprintln!("{series}: MISSING: {error:#}");
                missing.push(series.as_str());
            }
        }
    }
    let programs = Programs::build(root, &cache)?;
    let tests = programs.tests(&options.filters)?;
    let common = initramfs::common(&programs, &tests, options.repeat)?;
    let expected = tests.len() + plan::by_other_hooks(&tests).count();

    let mut failed = Vec::new();
    let mut reports = Vec::new();
    for (series, kernel) in &found {
        let (report, well) = run(&qemu, &cache, series, kernel, &common, expected)?;
        reports.push(report);
        if !well {
            failed.push(series.as_str());
        }
    }
    if options.docs {
        let columns: Vec<Column<'_>> =
            found.iter().zip(&reports).map(|((series, _), report)| Column { series, report }).collect();
        compatibility::write(root, &columns)?;
    }
    eprintln!("\n{expected} tests on {} kernels in {} s", found.len(), begin.elapsed().as_secs());
    if !missing.is_empty() {
        eprintln!("MISSING, not to be had from the archive: {}", missing.join(", "));
    }
    ensure!(failed.is_empty(), "tests failed on {}", failed.join(", "));
    let needed: Vec<&str> = missing.into_iter().filter(|series| NEEDED.contains(series)).collect();
    ensure!(needed.is_empty(), "kernels {} are needed", needed.join(", "));
    Ok(())
}

/// Beside what cargo builds. This program is in a folder of the target directory.
fn cache() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot tell where this program is")?;
    let target = program.ancestors().nth(2).context("this program is in no target directory")?;
    let cache = target.join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    Ok(cache)
}

/// What a kernel told, and whether all tests passed.
fn run(
    qemu: &Qemu,
    cache: &Path,
    series: &str,
    kernel: &Kernel,
    common: &[u8],
    expected: usize,
) -> Result<(Report, bool)> {
    let begin = Instant::now();
    eprintln!("\n== {series}: {}", kernel.release);
    let folder = cache.join("runs").join(series);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let [initramfs, console, report] =
        ["initramfs", "console.log", "report.log"].map(|name| folder.join(name));
    let archive = [common, &initramfs::modules(kernel)?].concat();
    fs::write(&initramfs, archive).with_context(|| format!("cannot write {}", initramfs.display()))?;
    let boot = Boot {
        image: &kernel.image,
        initramfs: &initramfs,
        console: &console,
        report: &report,
        silence: SILENCE,
    };
    let mut shown = 0;
    let end = qemu.run(&boot, |so_far| {
        let told = Report::parse(so_far);
        let ended: Vec<_> = told.outcomes.iter().filter(|outcome| outcome.has_ended()).collect();
        for outcome in &ended[shown..] {
            eprint!("{outcome}");
        }
        shown = ended.len();
    })?;
    let told = Report::parse(&qemu::read(&report)?);
    let trouble = told.trouble(&end, &qemu::read(&console)?);
    for trouble in &trouble {
        eprintln!("{trouble}");
    }
    let passed = told.outcomes.iter().filter(|outcome| outcome.passed()).count();
    let well = trouble.is_empty() && passed == expected;
    eprintln!("== {series}: {passed} of {expected} tests passed in {} s", begin.elapsed().as_secs());
    if !well {
        eprintln!("{series}: the console is in {}", console.display());
    }
    Ok((told, well))
}
