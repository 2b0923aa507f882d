//! The beginning of a run: the `start` record, and what people are told on stderr.

use std::fs;

use crate::{
    emit::{
        record::{self, Map},
        text::Text,
        time::Timestamp,
    },
    filter::Filter,
    kernel::{Capture, Hook},
    report::{Clock, Report},
};

/// CLOCK_MONOTONIC in nanoseconds, the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    clock_ns(nix::time::ClockId::CLOCK_MONOTONIC) as u64
}

fn wall_ns() -> i64 {
    clock_ns(nix::time::ClockId::CLOCK_REALTIME)
}

fn clock_ns(id: nix::time::ClockId) -> i64 {
    nix::time::clock_gettime(id).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// Both clocks, read as closely together as three tries allow.
pub fn clock() -> Clock {
    let reading = |_| {
        let before = monotonic_ns();
        let wall = wall_ns();
        let after = monotonic_ns();
        (after - before, Clock::new(wall, before + (after - before) / 2))
    };
    let readings = [0; 3].map(reading);
    readings.into_iter().min_by_key(|(width, _)| *width).map_or_else(|| Clock::new(0, 0), |(_, clock)| clock)
}

pub fn now() -> Timestamp {
    Timestamp::from_unix_ns(wall_ns())
}

/// How a run is set up: `files` are read instead of the live kernel, to which all else belongs.
#[derive(Clone, Copy, Default)]
pub struct Setup<'a> {
    pub hooks: &'a [Hook],
    pub capture: Option<Capture>,
    pub interfaces: &'a [Text<'a>],
    pub files: &'a [Text<'a>],
    pub limits: &'a [(&'a str, u64)],
}

/// Writes the first line.
pub fn write(report: &mut Report<'_>, setup: Setup<'_>, filter: &Filter) {
    let Setup { hooks, capture, interfaces, files, limits } = setup;
    let system = nix::sys::utsname::uname().ok();
    let name = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        system.as_ref().map(|system| part(system).as_encoded_bytes()).unwrap_or_default()
    };
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let hooks: Vec<record::Hook<'_>> = hooks
        .iter()
        .map(|hook| record::Hook {
            hook: &hook.name,
            way: hook.way,
            attached: hook.attached,
            reason: hook.reason.as_deref(),
            lost: hook.lost,
        })
        .collect();
    report.lines.write_reserved(&record::Start {
        ts: now(),
        schema: record::SCHEMA_VERSION,
        tracer: env!("CARGO_PKG_VERSION"),
        kernel: Text(name(|system| system.release())),
        hostname: Text(name(|system| system.nodename())),
        boot_id: boot_id.as_deref().map(|id| Text(id.trim().as_bytes())),
        hooks: &hooks,
        capture: capture.map(Capture::name),
        interfaces,
        files,
        filters: filter,
        limits: Map(limits),
    });
}

/// Tells on stderr what is missing, and with `-v` everything.
pub fn tell(hooks: &[Hook], verbose: u8) {
    for hook in hooks {
        match (&hook.reason, hook.lost) {
            (Some(reason), Some(lost)) => {
                eprintln!("tracer: {} is not attached ({reason}); not known for that: {lost}", hook.name);
            }
            _ if verbose > 0 => eprintln!("tracer: {} by {}", hook.name, hook.way.unwrap_or("nothing")),
            _ => {}
        }
    }
}
