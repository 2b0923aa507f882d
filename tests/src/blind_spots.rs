//! Moments in which no BPF program can see what TCP does. Where process 1 is a supervisor that the machine's owner keeps
//! out of its guests' sight, the kernel may run no tracing program while one of that process's threads is current; so
//! what a softirq does that interrupts one of them is in nobody's BPF, whoever traces. The kernel's own trace has it, and
//! says when that happened.

use crate::{lacking::in_a_guest, process, records::Record, scratch::unique_name, wait};
use anyhow::{Context as _, Result};
use std::{collections::BTreeSet, env, fmt, fs, path::PathBuf, process::Command};

/// Each some seconds long; a blind spot is met once in some ten of them.
const TRIES: usize = 5;

/// What the tracer follows, and what else must be true of it.
const EVENTS: [(&str, &str); 7] = [
    ("sock/inet_sock_set_state", ""),
    ("tcp/tcp_destroy_sock", ""),
    ("tcp/tcp_receive_reset", ""),
    ("tcp/tcp_retransmit_skb", ""),
    ("tcp/tcp_retransmit_synack", ""),
    ("tcp/tcp_send_reset", ""),
    ("timer/timer_expire_entry", " && function.function == tw_timer_handler"),
];

/// What was told wrongly, and of which connections, by ports.
#[derive(Debug)]
pub struct Wrong {
    pub what: String,
    pub ports: BTreeSet<u16>,
}

impl Wrong {
    pub fn of(conns: &[Record], what: String) -> Self {
        let ends = conns.iter().flat_map(|conn| ["/local/port", "/remote/port"].map(|end| conn.count(end)));
        Self { what, ports: ends.flatten().filter_map(|port| u16::try_from(port).ok()).collect() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Wrong {}

/// Does something and checks what the tracer told of it. When that is wrong and the kernel's trace has events from a
/// blind spot, it is all done again, and the test's output says so. Where connections were told wrongly ([`Wrong`]), each
/// of them must be one of those events'.
pub fn outside_blind_spots<T>(mut test: impl FnMut() -> Result<T>) -> Result<T> {
    for tried in 1.. {
        let witness = Witness::new()?;
        let error = match test() {
            Ok(told) => return Ok(told),
            Err(error) => error,
        };
        let unseen = witness.as_ref().map_or_else(|| Ok(String::new()), Witness::events)?;
        if tried == TRIES || !explain(&unseen, &error) {
            return Err(
                error.context(format!("try {tried}, events in a blind spot: {}", unseen.lines().count()))
            );
        }
        println!(
            "done again, for the kernel may have kept this from every BPF program:\n{unseen}{error:#}\n"
        );
    }
    unreachable!("the last try returns")
}

/// Whether events that no program saw can be why something was told wrongly.
fn explain(unseen: &str, error: &anyhow::Error) -> bool {
    let ports: BTreeSet<u16> = unseen.split_whitespace().filter_map(port).collect();
    // The end of a TIME_WAIT shows no port.
    let any = unseen.contains("timer_expire_entry");
    match error.downcast_ref::<Wrong>() {
        Some(wrong) if !any => !wrong.ports.is_empty() && wrong.ports.is_subset(&ports),
        _ => !unseen.is_empty(),
    }
}

/// In `sport=1`, `dport=1`, `src=1.2.3.4:1` or `dest=[::1]:1`.
fn port(word: &str) -> Option<u16> {
    let (name, value) = word.split_once('=')?;
    match name {
        "sport" | "dport" => value.parse().ok(),
        "src" | "dest" => value.rsplit_once(':')?.1.parse().ok(),
        _ => None,
    }
}

/// An own buffer of the kernel's trace (`Documentation/trace/ftrace.rst`).
struct Witness {
    /// Where tracefs is mounted for it.
    mount: PathBuf,
    buffer: PathBuf,
}

impl Witness {
    /// `None` on a kernel that has no trace to read, and in an emulated machine, whose process 1 is ours.
    fn new() -> Result<Option<Self>> {
        if in_a_guest() || !fs::read_to_string("/proc/filesystems")?.contains("tracefs") {
            return Ok(None);
        }
        let mount = env::temp_dir().join(unique_name());
        fs::create_dir(&mount).with_context(|| format!("cannot make {}", mount.display()))?;
        let buffer = mount.join("instances").join(unique_name());
        let witness = Self { mount, buffer };
        let mut command = Command::new("mount");
        process::run(command.args(["-t", "tracefs", "tracefs"]).arg(&witness.mount), wait::LIMIT)?;
        fs::create_dir(&witness.buffer).context("cannot make a buffer of the kernel's trace")?;
        let guarded = threads_of_process_1()?;
        for (event, and) in EVENTS {
            let folder = witness.buffer.join("events").join(event);
            // What this kernel does not have, or cannot filter so, is not watched.
            if fs::write(folder.join("filter"), format!("({guarded}){and}")).is_ok() {
                fs::write(folder.join("enable"), "1").with_context(|| format!("cannot trace {event}"))?;
            }
        }
        Ok(Some(witness))
    }

    /// One line each.
    fn events(&self) -> Result<String> {
        let path = self.buffer.join("trace");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // What fails here leaves an empty folder, and goes with the machine.
        let _ = fs::remove_dir(&self.buffer);
        let _ = process::run(Command::new("umount").arg(&self.mount), wait::LIMIT);
        let _ = fs::remove_dir(&self.mount);
    }
}

/// A filter of the kernel's trace.
fn threads_of_process_1() -> Result<String> {
    let mut threads = Vec::new();
    for thread in fs::read_dir("/proc/1/task")? {
        threads.push(format!("common_pid == {}", thread?.file_name().to_string_lossy()));
    }
    Ok(threads.join(" || "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_hidden_is_excused() {
        let unseen = " x-1 [0] ..s. 1.5: inet_sock_set_state: family=AF_INET sport=40000 dport=80 saddr=10.0.0.1\n \
                      x-1 [0] ..s. 1.6: tcp_send_reset: skbaddr=0 src=[::1]:81 dest=[::1]:40001 TCP_CLOSE\n";
        let wrong = |ports: &[u16]| {
            anyhow::Error::from(Wrong { what: String::new(), ports: ports.iter().copied().collect() })
                .context("behind a context")
        };
        assert!(explain(unseen, &wrong(&[80, 40000])) && explain(unseen, &wrong(&[81, 40001])));
        assert!(!explain(unseen, &wrong(&[80, 40002])) && !explain(unseen, &wrong(&[])));
        assert!(explain(unseen, &anyhow::anyhow!("a total")) && !explain("", &anyhow::anyhow!("a total")));
        assert!(!explain("", &wrong(&[80])));
        assert!(explain("timer_expire_entry: timer=0 function=tw_timer_handler", &wrong(&[80])));
    }
}
