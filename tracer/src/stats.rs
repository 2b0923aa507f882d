//! `stats` records: what the tracer itself did, lost and cost, all since its start.

use nix::sys::resource::{UsageWho, getrusage};
use tracer_ebpf::{counter, kind};

use crate::{
    emit::record::{self, Cpu, Map, Segments, Table},
    kernel::Options,
    report::Report,
    start,
    trace::Live,
};

const KINDS: [(&str, u16); 8] = [
    ("conn", kind::CONN),
    ("owner", kind::OWNER),
    ("process", kind::PROCESS),
    ("segment", kind::SEGMENT),
    ("state", kind::STATE),
    ("retransmit", kind::RETRANSMIT),
    ("reset", kind::RESET),
    ("time_wait", kind::TIME_WAIT),
];

/// Writes the records.
#[derive(Debug)]
pub struct Stats {
    last_ns: u64,
    max_connections: u64,
}

impl Stats {
    pub fn new(options: &Options) -> Self {
        Self { last_ns: start::monotonic_ns(), max_connections: options.max_connections.into() }
    }

    pub fn write(&mut self, report: &mut Report<'_>, live: &Live, is_final: bool) {
        let counters = live.tables.counters();
        let get = |index: u32| counters[index as usize];
        let events: Vec<(&str, u64)> =
            KINDS.iter().map(|(name, kind)| (*name, get(counter::RECORDS + u32::from(*kind)))).collect();
        let ring_lost = KINDS.iter().map(|(_, kind)| get(counter::LOST + u32::from(*kind))).sum();
        let losses = live.tracker.losses();
        let sizes = live.tracker.sizes();
        let totals = report.lines.totals();
        let now_ns = start::monotonic_ns();
        let open = |opened: u32, closed: u32| get(opened).saturating_sub(get(closed));
        let table = |entries: u64| Table {
            entries: Some(entries),
            capacity: Some(self.max_connections),
            evictions: 0,
        };
        report.lines.write_reserved(&record::Stats {
            ts: start::now(),
            is_final,
            interval_s: (now_ns - self.last_ns) as f64 / 1e9,
            events: Map(&events),
            lost: Map(&[
                ("ring", ring_lost),
                ("connections_full", get(counter::CONNS_FULL) + losses.connections_full),
                ("flows_full", get(counter::FLOWS_FULL) + losses.flows_full),
                ("connections_unsent", get(counter::CONNS_LOST)),
                ("bytes_over_budget", get(counter::BYTES_OVER_BUDGET)),
                ("unclaimed_exchanges", losses.unclaimed_exchanges),
                ("undecodable", live.undecodable),
                ("output", totals.dropped_lines),
            ]),
            tables: Map(&[
                ("kernel_connections", table(open(counter::CONNS_OPENED, counter::CONNS_CLOSED))),
                ("kernel_flows", table(open(counter::FLOWS_OPENED, counter::FLOWS_CLOSED))),
                ("connections", table(sizes.connections as u64)),
                ("flows", table(sizes.flows as u64)),
                ("awaiting_fin", table(sizes.awaiting_fin as u64)),
                ("listening_ports", table(sizes.listeners as u64)),
            ]),
            segments: Segments {
                seen: Some(get(counter::SEGMENTS)),
                bytes_seen: Some(get(counter::BYTES)),
                copied: Some(get(counter::RECORDS + u32::from(kind::SEGMENT))),
                bytes_copied: Some(get(counter::BYTES_COPIED)),
            },
            output_bytes: totals.bytes,
            output_lines: totals.lines,
            cpu: cpu(),
            selfcheck: None,
        });
        self.last_ns = now_ns;
    }
}

/// CPU time of this process; that of the kernel programs is part of the traced processes' own.
fn cpu() -> Cpu {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| Cpu { user_s: seconds(usage.user_time()), system_s: seconds(usage.system_time()) })
        .unwrap_or_default()
}
