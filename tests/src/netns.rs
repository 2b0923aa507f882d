//! Network namespaces.

use crate::{process, scratch, wait};
use anyhow::{Context as _, Result, anyhow, ensure};
use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    process::Command,
    thread,
};

/// A network namespace whose loopback interface is up; deleted when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
    inode: u64,
}

impl Netns {
    pub fn new() -> Result<Self> {
        let name = scratch::unique_name();
        process::run(Command::new("ip").args(["netns", "add", &name]), wait::LIMIT)
            .context("a network namespace is needed: run the tests as root")?;
        let open = || {
            let file = File::open(path(&name))?;
            let inode = file.metadata()?.ino();
            io::Result::Ok((file, inode))
        };
        let (file, inode) = open().with_context(|| format!("cannot open {}", path(&name).display()))?;
        let netns = Self { name, file, inode };
        netns.run("ip", &["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// The number by which the tracer names it.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The file that keeps it.
    pub fn path(&self) -> PathBuf {
        path(&self.name)
    }

    /// A program to be started inside.
    pub fn command(&self, program: &str) -> Command {
        // `ip netns exec` would mount another /sys, without the one for BPF in it.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", path(&self.name).display())).arg("--").arg(program);
        command
    }

    /// Runs a program inside to its end; what it wrote.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        process::run(self.command(program).args(args), wait::LIMIT)
    }

    /// Runs `work` on a thread that is inside: its sockets belong to this namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // SAFETY: the descriptor is open, and only the calling thread changes its namespace.
                let status = unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) };
                ensure!(status == 0, "cannot enter {}: {}", self.name, io::Error::last_os_error());
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Joins two namespaces by a pair of interfaces, named `veth0` in both.
    pub fn join(&self, address: &str, other: &Self, other_address: &str) -> Result<()> {
        let peer = ["peer", "name", "veth0", "netns", &other.name];
        let add = [&["link", "add", "veth0", "type", "veth"], &peer[..]].concat();
        self.run("ip", &add)?;
        for (netns, address) in [(self, address), (other, other_address)] {
            netns.run("ip", &["address", "add", address, "dev", "veth0"])?;
            netns.run("ip", &["link", "set", "veth0", "up"])?;
        }
        Ok(())
    }

    /// Waits until something listens on a port; makes no connection for it.
    pub fn wait_for_listener(&self, port: u16) -> Result<()> {
        wait::until(&format!("a listener on port {port}"), wait::LIMIT, || {
            let sockets = self.enter(|| {
                let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
                Ok(read("tcp")? + &read("tcp6")?)
            })?;
            Ok(sockets.lines().any(|line| is_listener(line, port)).then_some(()))
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let deleted = process::run(Command::new("ip").args(["netns", "delete", &self.name]), wait::LIMIT);
        if let Err(error) = deleted {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// A line of `/proc/net/tcp`: number, local address, remote address, state.
fn is_listener(line: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = fields.next().unwrap_or_default();
    local.ends_with(&format!(":{port:04X}")) && fields.nth(1) == Some(LISTEN)
}

/// The number in the output of a program, behind a label.
pub fn figure(text: &str, label: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.trim_start().strip_prefix(label));
    let value = value.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    value.ok_or_else(|| anyhow!("no figure behind `{label}` in\n{text}"))
}
