//! The command line: `tracer [trace] [options]`, `tracer record FILE`, `tracer read FILE...`, `tracer check`, `tracer schema`.

mod common;
mod values;

pub use common::{CommonArgs, Shown};

use crate::filter::Filter;
use crate::kernel::{Capture, Tier};
use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

const ABOUT: &str = "Watches TCP in the kernel and writes a JSON line for each connection and HTTP exchange";

const LONG_ABOUT: &str = "\
Watches TCP in the kernel and writes a JSON line for each connection and HTTP exchange.

Every line on standard output is one JSON object with `type` and `ts`: a `start` line, then `conn` when a
socket is done, `http` when an exchange is done, and `stats` now and then. `tracer schema` describes
every field. Messages for people go to standard error. Stop with Ctrl-C.

Needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; `tracer check` says what this machine allows.
`tracer` alone is `tracer trace`.";

const EXAMPLES: &str = "\
Examples:
  What is slow on port 8080: exchanges of more than half a second
      sudo tracer --port 8080 | jq -c 'select(.type == \"http\" and .duration_us > 500000)
          | {ms: (.duration_us / 1000), url: .request.target, status: .response.status}'
  Who closes connections first, and how, for 30 seconds
      sudo tracer --no-http --duration 30s | jq -r 'select(.type == \"conn\")
          | \"\\(.process.comm) \\(.close.by) \\(.close.how)\"' | sort | uniq -c | sort -rn
  Which programs open a new connection for every request
      sudo tracer --duration 1m | jq -c 'select(.type == \"conn\" and .http.requests == 1)
          | [.process.comm, .remote.addr, .remote.port]' | sort | uniq -c
  Retransmissions and resets as they happen
      sudo tracer --events | jq -c 'select(.type == \"retransmit\" or .type == \"reset\")'
  One network, kept in a file
      sudo tracer --host 10.0.0.0/8 -o trace.jsonl

Exit status: 0 done (also when the reader of the output went away), 1 failed, 2 wrong usage.";

const READ_ABOUT: &str = "\
Reads capture files (pcap, pcapng) instead of the kernel and writes the same records; needs no privileges.

Several files are read in the order given, as one timeline. A connection is told once, as its client's end sees it: \
`local` is who sent the SYN. Of connections older than the capture, `role` is unknown, and `local` is who sends an \
HTTP request, else who does not send a response, else the end with the higher port. What only a kernel knows is null: \
process, namespace, round-trip times.";

const READ_EXAMPLES: &str = "\
Examples:
  Who closed which connections, and how
      tracer read capture.pcapng | jq -c 'select(.type == \"conn\")
          | [.remote.addr, .remote.port, .close.by, .close.how]'
  Exchanges of more than half a second, from rotated captures
      tracer read 1.pcap.gz 2.pcap.gz | jq -c 'select(.type == \"http\" and .duration_us > 500000)
          | {ms: (.duration_us / 1000), url: .request.target, status: .response.status}'
  Another machine's traffic, as it happens
      ssh host tcpdump -i any -U -w - tcp port 8080 | tracer read -

Exit status: 0 done (also when the reader of the output went away), 1 a file could not be read to its
end (what came before is written all the same), 2 wrong usage.";

const RECORD_ABOUT: &str = "\
Watches as `trace` does, and keeps everything that the kernel side reports in a file, from which `tracer read` makes the \
same records again: with other filters or headers, on another machine, without privileges.

With --output also writes the records themselves. The file can be read by its owner only: it has the heads of all \
messages as they were, credentials included.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "tracer", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    trace: TraceArgs,
}

impl Cli {
    /// What to do; `trace` when no command was named.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Trace(Box::new(self.trace)))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch and write (the default)
    #[command(after_help = EXAMPLES)]
    Trace(Box<TraceArgs>),
    /// Watch as `trace` does, and keep everything in a file, from which `read` makes the same records again
    #[command(long_about = RECORD_ABOUT)]
    Record(Box<RecordArgs>),
    /// Read capture files (pcap, pcapng) instead of the kernel and write the same records; needs no privileges
    #[command(after_help = READ_EXAMPLES, long_about = READ_ABOUT)]
    Read(Box<ReadArgs>),
    /// Say what this kernel and these privileges allow, and what would be missing; attaches nothing
    Check(CheckArgs),
    /// Print the JSON Schema of one output line
    Schema,
}

/// Options of `tracer check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// As for `trace`
    #[arg(long, value_enum, value_name = "KIND")]
    pub hooks: Option<Tier>,

    /// Say more on standard error; -vv says still more
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// Options of `tracer trace`.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// Only segments on this interface (repeatable) [default: all]
    ///
    /// That is `--capture tc`.
    #[arg(short, long = "interface", value_name = "NAME", value_parser = values::interface)]
    #[arg(conflicts_with = "capture")]
    #[arg(value_delimiter = ',', help_heading = "What to see")]
    pub interfaces: Vec<String>,

    /// Where segments are captured [default: cgroup, or tc where that cannot be]
    ///
    /// `cgroup` reads segments where sockets send and receive them, in every network namespace from its first moment on.
    /// `tc` reads them on the interfaces of every namespace: a new one is found when a connection is in it, so its first
    /// exchange may be missed; and it keeps CAP_SYS_ADMIN, to enter them.
    #[arg(long, value_enum, value_name = "WHERE", hide_possible_values = true, help_heading = "What to see")]
    pub capture: Option<Capture>,

    /// Only this kind of hooks for TIME_WAIT and accepted sockets [default: the best that this kernel allows]
    ///
    /// For tests, and for trouble: what is written is the same, but for who owns a socket that a process accepted and none
    /// has used. With `tracepoint` the kernel runs a program for every timer of the machine.
    #[arg(long, value_enum, value_name = "KIND", help_heading = "What to see")]
    pub hooks: Option<Tier>,

    #[command(flatten)]
    pub common: CommonArgs,

    /// Only connections of this process (repeatable)
    #[arg(long = "pid", value_name = "PID", value_parser = values::pid)]
    #[arg(value_delimiter = ',', help_heading = "What to see")]
    pub pids: Vec<u32>,

    /// Only connections of processes with this name; 15 bytes count (repeatable)
    #[arg(long = "comm", value_name = "NAME", value_parser = values::comm, help_heading = "What to see")]
    pub comms: Vec<String>,

    /// A `stats` line this often, such as 10s or 1m; 0 for one at the end only
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::interval)]
    #[arg(help_heading = "What to write")]
    pub stats_interval: Duration,

    /// Stop after this time, such as 10 (seconds), 10s, 5m or 1h
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "When to stop")]
    pub duration: Option<Duration>,

    /// Buffer between kernel and daemon, such as 8M; rounded up to a power of two
    ///
    /// [default: 8M, and for more than 262144 connections in proportion up to 64M]
    #[arg(long, value_name = "BYTES", value_parser = values::ring_size)]
    #[arg(help_heading = "Limits")]
    pub ring_size: Option<u32>,
}

impl TraceArgs {
    /// Bytes between kernel and daemon. Growing tables and looking through them keep the daemon from reading for a moment,
    /// the longer the more connections there are.
    pub fn ring_bytes(&self) -> u32 {
        const FOR_ONE_TABLE: u32 = 8 << 20;
        const ONE_TABLE: u32 = 262_144;
        let tables = self.common.max_connections.div_ceil(ONE_TABLE).clamp(1, 8);
        self.ring_size.unwrap_or(FOR_ONE_TABLE * tables.next_power_of_two())
    }

    /// Where to capture; an interface is the classifier's to watch.
    pub fn capture(&self) -> Option<Capture> {
        self.capture.or((!self.interfaces.is_empty()).then_some(Capture::Tc))
    }

    /// The connections to see.
    pub fn filter(&self) -> Filter {
        Filter { pids: self.pids.clone(), comms: self.comms.clone(), ..self.common.filter() }
    }
}

/// Options of `tracer record`.
#[derive(Args, Debug)]
pub struct RecordArgs {
    /// A new file for the recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Options of `tracer read`.
#[derive(Args, Debug)]
pub struct ReadArgs {
    /// Capture files, in the order of their time: pcap or pcapng, compressed by gzip or not; or recordings; `-` is
    /// standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[cfg(test)]
mod tests;
