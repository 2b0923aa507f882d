//! The first process of a guest (`cargo xtask vm`): mounts what tests expect of a machine, loads its modules, runs the
//! tests of its plan one by one, and reports each on the second serial port. What they print is on the first one.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    ptr, thread,
    time::{Duration, Instant},
};
use tests::tracer::HOOKS_VARIABLE;

/// How long one test may run.
const LIMIT: Duration = Duration::from_secs(400);

/// `isa-debug-exit`: what is written there ends the machine.
const EXIT_PORT: u16 = 0xf4;

const REPORT: &str = "/dev/ttyS1";

/// Source, place, type.
const MOUNTS: [(&str, &str, &str); 9] = [
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("tmpfs", "/run", "tmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2"),
    ("bpf", "/sys/fs/bpf", "bpf"),
    ("debugfs", "/sys/kernel/debug", "debugfs"),
    ("tracefs", "/sys/kernel/tracing", "tracefs"),
];

fn main() {
    let code = match run() {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("the guest's first process: {error:#}");
            2
        }
    };
    power_off(code);
}

/// Whether all tests passed.
fn run() -> Result<bool> {
    for (source, place, kind) in MOUNTS {
        mount(source, place, kind).with_context(|| format!("cannot mount {place}"))?;
    }
    std::os::unix::fs::symlink("/proc/self/fd", "/dev/fd").context("/dev/fd")?;
    raw(&OpenOptions::new().write(true).open(REPORT)?)?;
    let mut report = Report(OpenOptions::new().write(true).open(REPORT).context(REPORT)?);
    report.line(&format!("release {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()))?;
    let mut modules: Vec<_> =
        fs::read_dir("/modules")?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    modules.sort();
    for module in modules {
        load(&module).with_context(|| format!("cannot load {}", module.display()))?;
    }

    let plan = fs::read_to_string("/plan").context("/plan")?;
    let words = || plan.lines().filter_map(|line| line.split_once(' '));
    let environment: Vec<(&str, &str)> =
        words().filter(|(word, _)| *word == "env").filter_map(|(_, rest)| rest.split_once(' ')).collect();
    hooks(&environment, &mut report)?;
    let mut guest = Guest { environment, report, attaches: BTreeMap::new() };
    let mut passed = true;
    for (word, rest) in words() {
        passed &= match word {
            "test" => guest.test(None, rest)?,
            "test-by" => {
                let (hooks, rest) = rest.split_once(' ').context("no kind of hooks")?;
                guest.test(Some(hooks), rest)?
            }
            _ => true,
        };
    }
    guest.report.line("complete")?;
    Ok(passed)
}

/// What tests run in.
struct Guest<'a> {
    environment: Vec<(&'a str, &'a str)>,
    report: Report,
    /// Whether a kind of hooks attaches here, once that was asked.
    attaches: BTreeMap<&'a str, bool>,
}

impl<'a> Guest<'a> {
    /// Runs `PROGRAM NAME`, with those of the named kinds of hooks that are to be had; whether it passed.
    fn test(&mut self, hooks: Option<&'a str>, test: &str) -> Result<bool> {
        let (program, test) = test.split_once(' ').context("a test without a name")?;
        let file = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
        let name = hooks.map_or(format!("{file} {test}"), |hooks| format!("{file} {test} ({hooks})"));
        println!("==== {name}");
        self.report.line(&format!("begin {name}"))?;
        let begin = Instant::now();
        let mut command = Command::new(program);
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env_clear().envs(self.environment.iter().copied()).env("TRACER_NOTES", REPORT);
        let attached = self.attached(hooks)?;
        let result = match attached.as_deref() {
            Some("") => "ok".to_owned(),
            Some(kinds) => outcome(command.env(HOOKS_VARIABLE, kinds)),
            None => outcome(&mut command),
        };
        println!("==== {name}: {result}");
        self.report.line(&format!("end {result} {}", begin.elapsed().as_millis()))?;
        Ok(result == "ok")
    }

    /// Those of some kinds of hooks that attach; the others are noted.
    fn attached(&mut self, kinds: Option<&'a str>) -> Result<Option<String>> {
        let Some(kinds) = kinds else { return Ok(None) };
        let mut attached = Vec::new();
        for kind in kinds.split(',') {
            if self.attaches(kind)? {
                attached.push(kind);
            } else {
                self.report.line(&format!("note not run with --hooks {kind}, which does not attach here"))?;
            }
        }
        Ok(Some(attached.join(",")))
    }

    fn attaches(&mut self, kind: &'a str) -> Result<bool> {
        if let Some(attaches) = self.attaches.get(kind) {
            return Ok(*attaches);
        }
        let check = tracer(&self.environment)?.args(["check", "--hooks", kind]).status();
        let attaches = check.context("cannot start tracer")?.success();
        self.attaches.insert(kind, attaches);
        Ok(attaches)
    }
}

/// The daemon's binary.
fn tracer(environment: &[(&str, &str)]) -> Result<Command> {
    let path = environment.iter().find(|(name, _)| *name == "TRACER_BIN").context("no TRACER_BIN")?.1;
    Ok(Command::new(path))
}

struct Report(File);

impl Report {
    fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.0, "{text}")?;
        // SAFETY: an open descriptor. Waits until the port has sent everything: the machine may end next.
        unsafe { libc::tcdrain(self.0.as_raw_fd()) };
        Ok(())
    }
}

/// How each hook is attached on this kernel: `hook NAME`, way, reason and what is lost, with tabs between.
fn hooks(environment: &[(&str, &str)], report: &mut Report) -> Result<()> {
    Command::new("ip").args(["link", "set", "lo", "up"]).envs(environment.iter().copied()).status()?;
    let told = tracer(environment)?.args(["--duration", "1s"]).stdin(Stdio::null()).output();
    let told = told.context("cannot start tracer")?;
    io::stderr().write_all(&told.stderr)?;
    let start = told.stdout.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let start: Value = serde_json::from_slice(start).unwrap_or_default();
    for hook in start["hooks"].as_array().into_iter().flatten() {
        let text = |name: &str| hook[name].as_str().unwrap_or_default().to_owned();
        let [name, way, reason, lost] = ["hook", "way", "reason", "lost"].map(text);
        report.line(&format!("hook {name}\t{way}\t{reason}\t{lost}"))?;
    }
    Ok(())
}

/// Runs a test and ends what it leaves behind.
fn outcome(command: &mut Command) -> String {
    // In a session of its own, which tells its processes from the others.
    // SAFETY: setsid may be called between fork and exec.
    unsafe { command.pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }) };
    let mut child = match command.stdin(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => return format!("not started: {error}"),
    };
    let result = wait(&mut child);
    // SAFETY: no memory is involved; -1 is every process but this one, and those are the test's.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), 0) } > 0 {}
    result
}

fn wait(child: &mut Child) -> String {
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return "ok".to_owned(),
            Ok(Some(_)) => return "FAILED".to_owned(),
            Ok(None) if begin.elapsed() > LIMIT => return format!("not done in {} s", LIMIT.as_secs()),
            Ok(None) => thread::sleep(Duration::from_millis(50)),
            Err(error) => return format!("not waited for: {error}"),
        }
    }
}

fn mount(source: &str, place: &str, kind: &str) -> Result<()> {
    if !Path::new(place).is_dir() {
        fs::create_dir_all(place)?;
    }
    let [source, place, kind] = [source, place, kind].map(CString::new);
    let (source, place, kind) = (source?, place?, kind?);
    // SAFETY: three terminated strings, and no data.
    let status = unsafe { libc::mount(source.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
    ensure!(status == 0, "{}", io::Error::last_os_error());
    Ok(())
}

fn load(module: &Path) -> Result<()> {
    let file = File::open(module)?;
    // SAFETY: an open descriptor and a terminated string.
    let status = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    ensure!(status == 0, "{}", io::Error::last_os_error());
    Ok(())
}

/// A serial port that changes nothing of what is written to it.
fn raw(port: &File) -> Result<()> {
    // SAFETY: an open descriptor and a structure that the calls fill in and read.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        ensure!(libc::tcgetattr(port.as_raw_fd(), &mut settings) == 0, "{}", io::Error::last_os_error());
        libc::cfmakeraw(&mut settings);
        ensure!(
            libc::tcsetattr(port.as_raw_fd(), libc::TCSANOW, &settings) == 0,
            "{}",
            io::Error::last_os_error()
        );
    }
    Ok(())
}

/// Ends the machine with a code for whoever started it.
fn power_off(code: u8) -> ! {
    // SAFETY: no memory is involved. The port is the emulator's own.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        if libc::ioperm(EXIT_PORT.into(), 1, 1) == 0 {
            std::arch::asm!("out dx, al", in("dx") EXIT_PORT, in("al") code, options(nomem, nostack));
        }
    }
    let _ = (EXIT_PORT, code);
    loop {
        // SAFETY: no memory is involved.
        unsafe { libc::reboot(libc::RB_POWER_OFF) };
        thread::sleep(Duration::from_secs(1));
    }
}
