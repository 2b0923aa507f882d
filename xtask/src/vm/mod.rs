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
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use xtask::packages;

use self::{
    kernels::{Kernel, Kernels},
    plan::Plan,
    programs::Programs,
    qemu::{Boot, Qemu},
    report::Report,
};

/// What runs unless others are named.
const STANDARD: [&str; 3] = ["5.10", "6.1", "6.12"];
/// These must be there; another one may be out of the archive.
const NEEDED: [&str; 2] = ["6.1", "6.12"];

/// In the cache: a folder for each kernel.
const RUNS: &str = "runs";

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
    /// Which tests, and by which hooks
    #[arg(long, value_enum, default_value_t = Plan::Whole)]
    plan: Plan,
    /// How many machines at a time, each of which keeps one CPU busy
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Write docs/compatibility.md, of the last run of all tests on each kernel
    #[arg(long)]
    docs: bool,
    /// Run only the tests with one of these in `PROGRAM NAME`
    #[arg(last = true)]
    filters: Vec<String>,
}

impl Options {
    /// A part of `cargo xtask test`.
    pub fn standard() -> Self {
        let processors = thread::available_parallelism().map_or(1, |count| count.get());
        Self {
            kernels: STANDARD.map(str::to_owned).to_vec(),
            repeat: plan::REPEAT,
            plan: Plan::Quick,
            jobs: processors.min(STANDARD.len()),
            docs: false,
            filters: Vec::new(),
        }
    }
}

/// Runs tests on every kernel, and fails at the end if one did.
pub fn vm(root: &Path, options: &Options) -> Result<()> {
    let begin = Instant::now();
    packages::install_missing()?;
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
    let tests = programs.tests(&options.filters, options.plan)?;
    let runs = options.plan.runs(&tests);
    let common = initramfs::common(&programs, &runs, options.repeat)?;
    let expected = runs.len();

    let whole = options.plan == Plan::Whole && options.filters.is_empty();
    let machine = Machine { qemu: &qemu, cache: &cache, common: &common, expected, whole };
    let results = at_once(options.jobs, &found, |(series, kernel)| machine.run(series, kernel))?;
    let failed: Vec<&str> = found
        .iter()
        .zip(&results)
        .filter(|(_, well)| !**well)
        .map(|((series, _), _)| series.as_str())
        .collect();
    if options.docs {
        compatibility::write(root, &cache.join(RUNS))?;
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

/// Does the work for every item, some of them at a time. The results are in the items' order.
fn at_once<T: Sync, R: Send>(
    jobs: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Relaxed)
                    && let Some(item) = items.get(index)
                {
                    let result = work(item);
                    results.lock().expect("no holder panics").push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no holder panics");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What all guests have in common.
struct Machine<'a> {
    qemu: &'a Qemu,
    cache: &'a Path,
    /// The part of the initramfs.
    common: &'a [u8],
    /// How many tests there are.
    expected: usize,
    /// Whether these are all.
    whole: bool,
}

impl Machine<'_> {
    /// Whether all tests passed.
    fn run(&self, series: &str, kernel: &Kernel) -> Result<bool> {
        let begin = Instant::now();
        eprintln!("== {series}: {}", kernel.release);
        let folder = self.cache.join(RUNS).join(series);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let [initramfs, console, report] =
            ["initramfs", "console.log", "report.log"].map(|name| folder.join(name));
        let archive = [self.common, &initramfs::modules(kernel)?].concat();
        fs::write(&initramfs, archive).with_context(|| format!("cannot write {}", initramfs.display()))?;
        let boot = Boot {
            image: &kernel.image,
            initramfs: &initramfs,
            console: &console,
            report: &report,
            silence: SILENCE,
        };
        let mut shown = 0;
        let end = self.qemu.run(&boot, |so_far| {
            let told = Report::parse(so_far);
            let ended: Vec<_> = told.outcomes.iter().filter(|outcome| outcome.has_ended()).collect();
            for outcome in &ended[shown..] {
                eprint!("{series:<5}{outcome}");
            }
            shown = ended.len();
        })?;
        if self.whole {
            compatibility::keep(&report)?;
        }
        let told = Report::parse(&qemu::read(&report)?);
        let trouble = told.trouble(&end, &qemu::read(&console)?);
        for trouble in &trouble {
            eprintln!("{series}: {trouble}");
        }
        let passed = told.outcomes.iter().filter(|outcome| outcome.passed()).count();
        let well = trouble.is_empty() && passed == self.expected;
        let seconds = begin.elapsed().as_secs();
        eprintln!("== {series}: {passed} of {} tests passed in {seconds} s", self.expected);
        if !well {
            eprintln!("{series}: the console is in {}", console.display());
        }
        Ok(well)
    }
}
