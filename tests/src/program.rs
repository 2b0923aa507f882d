//! Servers and clients of the test set-up that say what they did.

use crate::{go, netns::Netns, process, process::Process, said::Said, scratch::Scratch, wait};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

/// A Python program of `tests/programs`.
pub fn python(netns: &Netns, name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name);
    let mut command = netns.command("python3");
    // No files beside the sources.
    command.arg("-uB").arg(path);
    command
}

/// A Go program of `tests/programs`.
pub fn go(netns: &Netns, name: &str) -> Result<Command> {
    Ok(netns.command(&go::build(name, name)?))
}

/// Runs a client to its end; what it says.
pub fn client(command: &mut Command) -> Result<Vec<Said>> {
    Said::parse_all(&process::run(command, wait::LOAD_LIMIT)?)
}

/// A server that writes a line for each exchange; killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    scratch: Scratch,
}

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(netns: &Netns, command: &mut Command, port: u16) -> Result<Self> {
        let scratch = Scratch::new()?;
        command.stdin(Stdio::null());
        command.stdout(File::create(scratch.file("out"))?).stderr(File::create(scratch.file("err"))?);
        let server = Self { process: Process::spawn(command)?, scratch };
        netns.wait_for_listener(port).with_context(|| server.read("err"))?;
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.scratch.file(name)).unwrap_or_default()
    }

    /// Waits until it has told of this many exchanges.
    pub fn wait_for(&self, count: usize) -> Result<()> {
        wait::until(&format!("{count} lines of a server"), wait::LIMIT, || {
            let text = self.read("out");
            Ok((text.ends_with('\n') && Said::parse_all(&text)?.len() >= count).then_some(()))
        })
        .with_context(|| format!("{}\n{}", self.read("out"), self.read("err")))
    }

    /// Ends it, when it has told of this many exchanges; what it said, and the lines in which it did.
    pub fn finish(mut self, count: usize) -> Result<(Vec<Said>, Vec<String>)> {
        if count > 0 {
            self.wait_for(count)?;
        }
        self.process.signal(libc::SIGTERM)?;
        self.process.wait(wait::LIMIT)?;
        let text = self.read("out");
        let said = Said::parse_all(&text)?;
        ensure!(said.len() == count, "{count} exchanges: {said:?}");
        Ok((said, Said::lines(&text).map(str::to_owned).collect()))
    }
}
