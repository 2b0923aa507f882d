//! Options of every command that writes records.

use super::values;
use crate::emit::headers::HeaderPolicy;
use crate::filter::{Filter, canonical_net};
use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

/// Segments that have a line of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    /// With SYN, FIN or RST
    Control,
    /// Every one
    All,
}

/// What to see, what to write and when to stop.
#[derive(Args, Debug)]
pub struct CommonArgs {
    /// Only connections with this port at either end (repeatable)
    #[arg(long = "port", value_name = "PORT", value_parser = values::port)]
    #[arg(value_delimiter = ',', help_heading = "What to see")]
    pub ports: Vec<u16>,

    /// Only connections with this address or network at either end, such as 10.0.0.1 or fe80::/10 (repeatable)
    #[arg(long = "host", value_name = "ADDR[/BITS]", value_parser = values::host)]
    #[arg(value_delimiter = ',', help_heading = "What to see")]
    pub hosts: Vec<IpNet>,

    /// Also write a line for each change of state, retransmission and reset
    #[arg(long, help_heading = "What to write")]
    pub events: bool,

    /// Also write a line for each TCP segment: `control`, those with SYN, FIN or RST, or `all`
    #[arg(
        long,
        value_enum,
        value_name = "control|all",
        hide_possible_values = true,
        help_heading = "What to write"
    )]
    pub segments: Option<Shown>,

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

    /// Stop after this many `conn` and `http` lines, counted together
    #[arg(long, value_name = "N", value_parser = values::count, help_heading = "When to stop")]
    pub count: Option<NonZeroU64>,

    /// Most connections followed at once
    #[arg(long, value_name = "N", default_value_t = 262_144, value_parser = values::max_connections)]
    #[arg(help_heading = "Limits")]
    pub max_connections: u32,

    /// Say more on standard error; -vv says still more
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

impl CommonArgs {
    /// The connections to see.
    pub fn filter(&self) -> Filter {
        Filter {
            ports: self.ports.clone(),
            hosts: self.hosts.iter().copied().map(canonical_net).collect(),
            ..Filter::default()
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

    /// Most `conn` and `http` lines.
    pub fn limit(&self) -> u64 {
        self.count.map_or(u64::MAX, NonZeroU64::get)
    }
}
