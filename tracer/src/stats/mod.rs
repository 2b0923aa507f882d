//! `stats` records: what the tracer itself did, lost and cost, all since its start.

pub mod read;

use nix::sys::resource::{UsageWho, getrusage};
use tracer_ebpf::{NetnsCounts, counter, kind, netns_count};

use crate::{
    emit::{
        record::{self, Cpu, Map, Segments, Table},
        time::Timestamp,
    },
    kernel::{Options, Tables},
    report::Report,
    selfcheck::{self, Ahead, Counted, Namespaces, Ours, Outcome},
    start,
    trace::Live,
};

const KINDS: [(&str, u16); 9] = [
    ("conn", kind::CONN),
    ("owner", kind::OWNER),
    ("process", kind::PROCESS),
    ("segment", kind::SEGMENT),
    ("state", kind::STATE),
    ("retransmit", kind::RETRANSMIT),
    ("reset", kind::RESET),
    ("time_wait", kind::TIME_WAIT),
    ("shown", kind::SHOWN),
];

/// Writes the records.
pub struct Stats {
    last_ns: u64,
    max_connections: u64,
    selfcheck: Namespaces,
    started: Timestamp,
}

impl Stats {
    /// Begins when all hooks are attached.
    pub fn new(options: &Options, kernel: selfcheck::Kernel, live: &Live) -> Self {
        let ahead = Ahead::read();
        Self {
            last_ns: start::monotonic_ns(),
            max_connections: options.max_connections.into(),
            selfcheck: Namespaces::start(kernel, ahead, |netns| counted(&live.tables, netns)),
            started: start::now(),
        }
    }

    /// Writes a record while the run goes on, and what it finds amiss.
    pub fn write(&mut self, report: &mut Report<'_>, live: &Live) {
        let ahead = Ahead::read();
        let outcome = self.selfcheck.check(ahead, |netns| counted(&live.tables, netns), false);
        self.write_record(report, live, &outcome, false);
    }

    /// Writes the last record. `ahead`: the kernel's counters ahead of detaching.
    pub fn write_final(&mut self, report: &mut Report<'_>, live: &Live, ahead: Ahead) {
        let outcome = self.selfcheck.check(ahead, |netns| counted(&live.tables, netns), true);
        self.write_record(report, live, &outcome, true);
    }

    fn write_record(&mut self, report: &mut Report<'_>, live: &Live, outcome: &Outcome, is_final: bool) {
        for difference in &outcome.differences {
            report.lines.write(&difference.finding(self.started, start::now()));
        }
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
                ("programs_missed", live.missed + get(counter::UNSEEN)),
                ("time_waits_full", get(counter::TIME_WAITS_FULL)),
                ("namespaces_full", get(counter::NETNS_FULL)),
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
                ("time_wait", table(live_time_waits(&counters))),
                ("listening_ports", table(sizes.listeners as u64)),
            ]),
            segments: Segments {
                seen: Some(get(counter::SEGMENTS)),
                bytes_seen: Some(get(counter::BYTES)),
                copied: Some(get(counter::RECORDS + u32::from(kind::SEGMENT))),
                bytes_copied: Some(get(counter::BYTES_COPIED)),
            },
            capture: None,
            output_bytes: totals.bytes,
            output_lines: totals.lines,
            cpu: cpu(),
            selfcheck: Some(&outcome.report),
        });
        self.last_ns = now_ns;
    }
}

type Totals = [u64; counter::COUNT as usize];

/// Mini-sockets that exist now, in all namespaces.
fn live_time_waits(counters: &Totals) -> u64 {
    let get = |index: u32| counters[index as usize];
    (get(counter::TIME_WAITS_BEGUN) + get(counter::TIME_WAITS_FOUND))
        .saturating_sub(get(counter::TIME_WAITS_ENDED))
}

/// Our totals of one namespace. They are counted in the kernel as things happen, so a full ring takes nothing away.
fn counted(tables: &Tables, netns: u32) -> Counted {
    let NetnsCounts { cookie, counts } = tables.netns_counts(netns);
    let totals = tables.counters();
    let get = |index: usize| counts[index];
    let began = get(netns_count::TIME_WAITS_BEGUN) + get(netns_count::TIME_WAITS_FOUND);
    let ours = Ours {
        active_opens: get(netns_count::ACTIVE_OPENS),
        passive_opens: get(netns_count::PASSIVE_OPENS),
        attempt_fails: get(netns_count::ATTEMPT_FAILS),
        estab_resets: get(netns_count::ESTAB_RESETS),
        out_rsts: get(netns_count::OUT_RSTS),
        retrans_segs: get(netns_count::RETRANS_SEGS),
        time_wait_begun: get(netns_count::TIME_WAITS_BEGUN),
        time_wait_expired: get(netns_count::TIME_WAITS_EXPIRED),
        time_wait_recycled: get(netns_count::TIME_WAITS_RECYCLED),
        time_wait_now: began.saturating_sub(get(netns_count::TIME_WAITS_ENDED)),
        lost: totals[counter::TIME_WAITS_FULL as usize] + totals[counter::NETNS_FULL as usize],
    };
    Counted { cookie, ours }
}

/// CPU time of this process; that of the kernel programs is part of the traced processes' own.
fn cpu() -> Cpu {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| Cpu { user_s: seconds(usage.user_time()), system_s: seconds(usage.system_time()) })
        .unwrap_or_default()
}
