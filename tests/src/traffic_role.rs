//! Other processes: the running test program, started again to play one role.

use crate::{netns::Netns, process::Process, wait};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    env,
    fmt::Display,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{ChildStdin, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

/// The ignored test by which a program plays its roles.
const TEST: &str = "role";
const VARIABLE: &str = "TRAFFIC_ROLE";
/// Before each line of a role's own; the test harness writes lines too.
const MARK: &str = "> ";

/// A process in its role; killed when dropped.
#[derive(Debug)]
pub struct Role {
    pub process: Process,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Role {
    /// Starts the test program that is running again, in a role such as `client 127.0.0.1:80 10`.
    pub fn start(netns: &Netns, role: &str) -> Result<Self> {
        let program = env::current_exe()?;
        let mut command = netns.command(program.to_str().context("the program's path is not UTF-8")?);
        command.args([TEST, "--exact", "--ignored", "--nocapture", "--quiet"]).env(VARIABLE, role);
        let mut process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let stdin = process.child().stdin.take().context("no standard input")?;
        let stdout = process.child().stdout.take().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Some(said) = line.strip_prefix(MARK) else { continue };
                if sender.send(said.to_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, stdin, lines })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The next line that it says.
    pub fn hear(&self) -> Result<String> {
        self.lines.recv_timeout(wait::LOAD_LIMIT).context("a process ended, or said nothing")
    }

    pub fn tell(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.stdin, "{line}")?)
    }

    /// Waits until it says this.
    pub fn expect(&self, line: &str) -> Result<()> {
        let heard = self.hear()?;
        ensure!(heard == line, "`{line}` expected, heard `{heard}`");
        Ok(())
    }
}

/// In a program that was started for a role, plays it; the process has its name.
pub fn play(roles: impl FnOnce(&str, &[&str]) -> Result<()>) -> Result<()> {
    let Ok(role) = env::var(VARIABLE) else { return Ok(()) };
    let words: Vec<&str> = role.split(' ').collect();
    let [name, arguments @ ..] = words.as_slice() else { bail!("no role") };
    // The test harness runs this on a thread with a name of its own, which forked processes inherit.
    for file in ["/proc/self/comm", "/proc/thread-self/comm"] {
        fs::write(file, name)?;
    }
    roles(name, arguments)
}

/// Says a line to the test that started this process. One write, so that lines of several processes do not mix.
pub fn say(line: impl Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{MARK}{line}\n").as_bytes())?;
    Ok(out.flush()?)
}

/// The next line from the test that started this process; none when it wants no more.
pub fn told() -> Result<Option<String>> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end().to_owned()))
}

/// One end of a connection and its owner, as the owner itself or its parent tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub role: String,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub pid: u32,
    pub comm: String,
    pub exe: String,
}

impl Owned {
    /// Says that this process owns an end.
    pub fn say_mine(role: &str, stream: &TcpStream) -> Result<()> {
        let comm = fs::read_to_string("/proc/self/comm")?;
        let exe = fs::read_link("/proc/self/exe")?;
        Self::say(role, stream, std::process::id(), comm.trim_end(), &exe)
    }

    /// Says who will own an end.
    pub fn say(role: &str, stream: &TcpStream, pid: u32, comm: &str, exe: &Path) -> Result<()> {
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        say(format_args!("{role}\t{local}\t{remote}\t{pid}\t{comm}\t{}", exe.display()))
    }

    pub fn parse(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [role, local, remote, pid, comm, exe] = fields[..] else { bail!("no owner in `{line}`") };
        Ok(Self {
            role: role.to_owned(),
            local: local.parse()?,
            remote: remote.parse()?,
            pid: pid.parse()?,
            comm: comm.to_owned(),
            exe: exe.to_owned(),
        })
    }
}
