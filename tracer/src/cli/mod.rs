//! The command line: `tracer [trace] [options]`, `tracer check`, `tracer schema`.

mod values;

use crate::emit::headers::HeaderPolicy;
use crate::filter::{Filter, canonical_net};
use crate::kernel::Capture;
use clap::{ArgAction, Args, Parser, Subcommand};
use ipnet::IpNet;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
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
    /// Say what this kernel and these privileges allow, and what would be missing; attaches nothing
    Check(CheckArgs),
    /// Print the JSON Schema of one output line
    Schema,
}

/// Options of `tracer check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
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
    /// `cgroup` sees HTTP in every network namespace, containers included. `tc` sees the interfaces of the tracer's own
    /// namespace only, and is what --interface chooses.
    #[arg(long, value_enum, value_name = "WHERE", hide_possible_values = true, help_heading = "What to see")]
    pub capture: Option<Capture>,

    /// Only connections with this port at either end (repeatable)
    #[arg(long = "port", value_name = "PORT", value_parser = values::port)]
    #[arg(value_delimiter = ',', help_heading = "What to see")]
    pub ports: Vec<u16>,

    /// Only connections with this address or network at either end, such as 10.0.0.1 or fe80::/10 (repeatable)
    #[arg(long = "host", value_name = "ADDR[/BITS]", value_parser = values::host)]
    #[arg(value_delimiter = ',', help_heading = "What to see")]
    pub hosts: Vec<IpNet>,

    /// Only connections of this process (repeatable)
    #[arg(long = "pid", value_name = "PID", value_parser = values::pid)]
    #[arg(value_delimiter = ',', help_heading = "What to see")]
    pub pids: Vec<u32>,

    /// Only connections of processes with this name; 15 bytes count (repeatable)
    #[arg(long = "comm", value_name = "NAME", value_parser = values::comm, help_heading = "What to see")]
    pub comms: Vec<String>,

    /// Also write a line for each change of state, retransmission and reset
    #[arg(long, help_heading = "What to write")]
    pub events: bool,

    /// No HTTP: copy no payload, write connections only
    #[arg(long, help_heading = "What to write")]
    #[arg(conflicts_with_all = ["headers", "redact_headers", "redact_query"])]
    pub no_http: bool,

    /// Also write these header fields, or `all`; credentials must be named [default: framing and persistence]
    ///
    /// By default only the fields that decide framing and persistence are written, such as Connection and
    /// Content-Length; the list adds to them. Values of Authorization, Proxy-Authorization, Cookie and Set-Cookie are
    /// written only when the list names them: with `all` they read [redacted].
    #[arg(long, value_name = "LIST|all", value_parser = values::header, value_delimiter = ',')]
    #[arg(help_heading = "What to write")]
    pub headers: Vec<String>,

    /// Treat these header fields as credentials too: never write their values
    #[arg(long = "redact-header", value_name = "LIST", value_parser = values::secret_header, value_delimiter = ',')]
    #[arg(help_heading = "What to write")]
    pub redact_headers: Vec<String>,

    /// Write ?[redacted] for the query of request targets, and of Referer, Location and Content-Location
    #[arg(long, help_heading = "What to write")]
    pub redact_query: bool,

    /// Write to this file instead of standard output, adding to what it holds
    ///
    /// Nothing that was there is lost: lines are added at the end. A new file can be read by its owner only. `-` is
    /// standard output.
    #[arg(short, long, value_name = "FILE", help_heading = "What to write")]
    pub output: Option<PathBuf>,

    /// A `stats` line this often, such as 10s or 1m; 0 for one at the end only
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::interval)]
    #[arg(help_heading = "What to write")]
    pub stats_interval: Duration,

    /// Stop after this time, such as 10 (seconds), 10s, 5m or 1h
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "When to stop")]
    pub duration: Option<Duration>,

    /// Stop after this many `conn` and `http` lines, counted together
    #[arg(long, value_name = "N", value_parser = values::count, help_heading = "When to stop")]
    pub count: Option<NonZeroU64>,

    /// Buffer between kernel and daemon, such as 8M; rounded up to a power of two
    #[arg(long, value_name = "BYTES", default_value = "8M", value_parser = values::ring_size)]
    #[arg(help_heading = "Limits")]
    pub ring_size: u32,

    /// Most connections followed at once
    #[arg(long, value_name = "N", default_value_t = 262_144, value_parser = values::max_connections)]
    #[arg(help_heading = "Limits")]
    pub max_connections: u32,

    /// Say more on standard error; -vv says still more
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

impl TraceArgs {
    /// Where to capture; an interface is the classifier's to watch.
    pub fn capture(&self) -> Option<Capture> {
        self.capture.or((!self.interfaces.is_empty()).then_some(Capture::Tc))
    }

    /// The connections to see.
    pub fn filter(&self) -> Filter {
        Filter {
            ports: self.ports.clone(),
            hosts: self.hosts.iter().copied().map(canonical_net).collect(),
            pids: self.pids.clone(),
            comms: self.comms.clone(),
        }
    }

    /// The header fields to write.
    pub fn header_policy(&self) -> HeaderPolicy {
        HeaderPolicy::new(&self.headers, &self.redact_headers, self.redact_query)
    }

    /// The file to write to; none for standard output.
    pub fn output_file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }
}

#[cfg(test)]
mod tests;
