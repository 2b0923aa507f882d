//! Child processes that never outlive the test and never keep it waiting.

use crate::wait;
use anyhow::{Context as _, Result, ensure};
use std::{
    io,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = format!("{command:?}");
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal such as `libc::SIGINT`.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        // SAFETY: no memory is involved. The child was not reaped, so the pid is still its own.
        let status = unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        ensure!(status == 0, "cannot send signal {signal} to {}: {}", self.name, io::Error::last_os_error());
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let Self { name, child } = self;
        wait::until(&format!("the end of {name}"), limit, || Ok(child.try_wait()?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Nothing is left to do about a process that cannot be killed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a program to its end and collects what it writes.
pub fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    let name = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let pid = child.id().cast_signed();
    let (sender, receiver) = mpsc::channel();
    let waiter = thread::spawn(move || sender.send(child.wait_with_output()));
    let limit = wait::patient(limit);
    let result = receiver.recv_timeout(limit);
    if result.is_err() {
        // SAFETY: no memory is involved. The waiter has not reaped the child, so the pid is still its own.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    // The child has ended, so the waiter ends too; what it could not send is no longer wanted.
    let _ = waiter.join();
    let output = result.with_context(|| format!("{name} did not end within {} s", limit.as_secs()))?;
    output.with_context(|| format!("cannot read the output of {name}"))
}

/// As [`output`]; its standard output, when it succeeds.
pub fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let output = output(command, limit)?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    Ok(out.into_owned())
}
