//! What the kernel does with traffic in a namespace: loss, settings, sockets that are left.

use crate::{netns::Netns, wait};
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    thread,
};

/// Drops this part of what arrives on an interface, at random.
pub fn lose(netns: &Netns, interface: &str, percent: u32) -> Result<()> {
    netns.run("nft", &["add", "table", "inet", "loss"])?;
    let hook = "{ type filter hook prerouting priority -300; }";
    netns.run("nft", &["add", "chain", "inet", "loss", "arrivals", hook])?;
    let rule = format!("iifname {interface} numgen random mod 100 < {percent} drop");
    netns.run("nft", &["add", "rule", "inet", "loss", "arrivals", &rule])?;
    Ok(())
}

/// Sets a kernel parameter of the namespace, such as `ipv4/tcp_tw_reuse`.
pub fn set(netns: &Netns, name: &str, value: &str) -> Result<()> {
    let file = format!("/proc/sys/net/{name}");
    netns.enter(|| fs::write(&file, value).with_context(|| format!("cannot write {file}")))
}

/// An IPv4 loopback address that no other test program uses at this time.
pub fn loopback(last: u8) -> Ipv4Addr {
    let [high, low] = own_number();
    Ipv4Addr::new(127, high, low, last)
}

/// As [`loopback`], for IPv6; assigned to the namespace's loopback interface.
pub fn loopback_v6(netns: &Netns) -> Result<IpAddr> {
    let number = u16::from_be_bytes(own_number());
    let address = Ipv6Addr::new(0xfd00, 0, 0, number, 0, 0, 0, 1);
    netns.run("ip", &["address", "add", &format!("{address}/128"), "dev", "lo", "nodad"])?;
    Ok(address.into())
}

/// Two bytes of the process's number; the first one is never 0.
fn own_number() -> [u8; 2] {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    [high | 0x80, low]
}

/// A figure of `/proc/net/sockstat`, such as `tw`.
pub fn sockstat(netns: &Netns, name: &str) -> Result<usize> {
    netns.enter(|| of_this_thread("sockstat", "TCP:", name))
}

fn of_this_thread(file: &str, line: &str, name: &str) -> Result<usize> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
    let line = text.lines().find_map(|found| found.strip_prefix(line));
    let mut words = line.into_iter().flat_map(str::split_ascii_whitespace);
    let found = words.find(|word| *word == name).and_then(|_| words.next()?.parse().ok());
    found.with_context(|| format!("no {name} in {file}:\n{text}"))
}

/// `sockstat tw` of all namespaces that a thread or a name holds.
pub fn time_waits_of_all() -> Result<usize> {
    let mut seen = BTreeSet::new();
    let mut sum = 0;
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    let own = fs::read_dir("/proc")?.flatten().map(|entry| entry.path().join("ns/net"));
    for path in named.chain(own) {
        // Processes end, and names go, while this looks at them.
        let Ok(file) = File::open(&path) else { continue };
        let metadata = file.metadata()?;
        if seen.insert((metadata.dev(), metadata.ino())) {
            sum += time_waits_of(&file).unwrap_or(0);
        }
    }
    Ok(sum)
}

fn time_waits_of(namespace: &File) -> Result<usize> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: the descriptor is open, and only the calling thread changes its namespace.
            let status = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            ensure!(status == 0, "no network namespace: {}", io::Error::last_os_error());
            of_this_thread("sockstat", "TCP:", "tw")
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Waits until the namespace has no TCP socket any more, but for those in TIME_WAIT.
pub fn wait_until_done(netns: &Netns) -> Result<()> {
    wait::until("the end of all sockets", wait::LIMIT * 3, || {
        let left = netns.enter(|| {
            Ok(of_this_thread("sockstat", "TCP:", "inuse")? + of_this_thread("sockstat6", "TCP6:", "inuse")?)
        })?;
        Ok((left == 0).then_some(()))
    })
}

/// Lets the daemon's standard output hold a MiB: a reader that shares two processors with a load is woken late.
pub fn widen_output(pid: u32) -> Result<()> {
    const ROOM: libc::c_int = 1 << 20;
    let pipe = File::options().write(true).open(format!("/proc/{pid}/fd/1"))?;
    // SAFETY: the descriptor is open; no memory is involved.
    let status = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, ROOM) };
    ensure!(status >= ROOM, "no wider pipe: {}", io::Error::last_os_error());
    Ok(())
}
