//! The Go programs: a `net/http` server and a client on the default transport.

use crate::{netns::Netns, process, process::Process, wait};
use anyhow::{Context as _, Result, ensure};
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

/// The port of the server.
pub const PORT: u16 = 8090;
/// What it answers to `GET /hello`.
pub const BODY: &str = "hello from go\n";
/// Names of the binaries, which are those of the processes too.
pub const SERVER: &str = "hello-server";
pub const CLIENT: &str = "hello-client";

/// Compiling may include Go's own library.
const BUILD_LIMIT: Duration = Duration::from_secs(300);

/// The server, listening.
pub fn server(netns: &Netns) -> Result<Process> {
    let binary = build("server", SERVER)?;
    let address = format!("127.0.0.1:{PORT}");
    let mut command = netns.command(&binary);
    command.args(["-address", &address]).stdin(Stdio::null());
    let server = Process::spawn(&mut command)?;
    netns.wait_for_listener(PORT)?;
    Ok(server)
}

/// A client that makes `count` requests at once and then keeps its connections for a while.
#[derive(Debug)]
pub struct Client {
    pub process: Process,
    lines: Receiver<String>,
}

pub fn client(netns: &Netns, count: usize, idle: &str) -> Result<Client> {
    let binary = build("client", CLIENT)?;
    let address = format!("127.0.0.1:{PORT}");
    let mut command = netns.command(&binary);
    command.args(["-address", &address, "-count", &count.to_string(), "-idle", idle]);
    let mut process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let stdout = process.child().stdout.take().context("no standard output")?;
    Ok(Client { process, lines: lines(stdout) })
}

impl Client {
    /// Waits until it has read all responses.
    pub fn wait_until_idle(&self) -> Result<()> {
        loop {
            let line = self.lines.recv_timeout(wait::LIMIT).context("the Go client did not become idle")?;
            if line == "idle" {
                return Ok(());
            }
            ensure!(line == format!("200 {} bytes", BODY.len()), "the Go client read `{line}`");
        }
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Compiles a program of `tests/programs`; Go keeps what did not change.
pub fn build(program: &str, name: &str) -> Result<String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folder()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(program).join("main.go");
    let binary = folder.join(name);
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&binary).arg(&source).current_dir(&folder);
    go.env("GOCACHE", folder.join("cache")).env("GOPATH", folder.join("path"));
    go.envs([("CGO_ENABLED", "0"), ("GOPROXY", "off"), ("GOFLAGS", "")]);
    process::run(&mut go, BUILD_LIMIT)?;
    binary.into_os_string().into_string().ok().context("the target folder's path is not UTF-8")
}

/// Beside the test programs, in Cargo's target folder.
fn folder() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot tell where the test program is")?;
    let target =
        program.parent().and_then(Path::parent).context("the test program is in no target folder")?;
    let folder = target.join("go-programs");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
