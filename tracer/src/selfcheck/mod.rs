//! Our totals beside the kernel's own counters, for each network namespace.
//!
//! Neither side stands still while it is read, so the kernel's counters are read before ours and after: between the two
//! ours must lie. What is outside may still be on its way to us, so it is a difference when the next reading has it too.

mod compare;
mod counters;
mod finding;
mod laws;
mod namespaces;

pub use counters::Counters;
pub use namespaces::{Ahead, Counted, Namespaces};

use compare::Standing;
use laws::Law;
use serde_json::{Map, Value, json};

/// Our totals in one namespace; all but `time_wait_now` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    /// CLOSE to SYN_SENT, without those that found no free port.
    pub active_opens: u64,
    /// LISTEN to SYN_RECV.
    pub passive_opens: u64,
    /// SYN_SENT or SYN_RECV to CLOSE.
    pub attempt_fails: u64,
    /// ESTABLISHED or CLOSE_WAIT to CLOSE.
    pub estab_resets: u64,
    /// Resets sent.
    pub out_rsts: u64,
    /// Segments of the network's size sent again, SYN and SYN-ACK included.
    pub retrans_segs: u64,
    /// TIME_WAITs begun, FIN_WAIT2 without an owner included.
    pub time_wait_begun: u64,
    /// TIME_WAITs whose timer ran out.
    pub time_wait_expired: u64,
    /// TIME_WAITs that a `connect` took over.
    pub time_wait_recycled: u64,
    /// TIME_WAITs that exist now, those older than the tracer included.
    pub time_wait_now: u64,
    /// Everything counted as lost.
    pub lost: u64,
}

/// What the running kernel's counters mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `TW` and `TWKilled` count begins, not expiries: from 5.17 on, whose `inet_timewait_sock` has no `tw_kill`.
    pub tw_counts_begins: bool,
    /// `tcp_send_reset` shows resets that belong to no socket: from 6.10 on, where it also has a reason.
    pub shows_resets_without_socket: bool,
    /// TIME_WAIT is followed by its timer; without that our totals of it stay 0.
    pub follows_time_wait: bool,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// For `selfcheck` in `stats`.
    pub report: Value,
    /// What nothing explains.
    pub differences: Vec<Difference>,
}

impl Outcome {
    /// Whether anything was counted on either side.
    fn is_active(&self) -> bool {
        let counters = self.report["counters"].as_object();
        counters.into_iter().flatten().any(|(_, law)| {
            let figures = law.get("total").or(law.get("now"));
            figures
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .any(|(_, figure)| figure.as_u64() > Some(0))
        })
    }
}

/// Our total is not the kernel's, both since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `None`: the tracer's own.
    pub netns: Option<u32>,
    /// Name of our total, a field of [`Ours`].
    pub counter: &'static str,
    /// The kernel's name.
    pub kernel_counter: &'static str,
    /// What is counted.
    pub what: &'static str,
    pub ours: u64,
    pub kernel: u64,
    /// At least so many of the events that the two differ by are not just on their way.
    pub certain: u64,
}

/// All that one check reads.
#[derive(Clone, Copy, Debug)]
struct Reading {
    before: Counters,
    ours: Ours,
    after: Counters,
}

/// The comparison over a run, of one namespace.
struct SelfCheck {
    kernel: Kernel,
    laws: Vec<(Law, Standing)>,
    start: Reading,
    last: Reading,
}

impl SelfCheck {
    fn start_at(kernel: Kernel, start: Reading) -> Self {
        let laws = laws::of(kernel).map(|law| (law, Standing::default())).into();
        Self { kernel, laws, start, last: start }
    }

    fn check_at(&mut self, now: Reading, is_final: bool) -> Outcome {
        let Self { kernel, laws, start, last } = self;
        let is_explained = now.ours.lost > 0;
        let mut shown = Map::new();
        let mut differences = Vec::new();
        for (law, standing) in laws {
            let comparison = compare::compare(law, start, last, &now);
            let certain = standing.news(comparison.deviation.unwrap_or(0), is_final, is_explained);
            if let (Some(kernel), Some(certain)) = (comparison.total.kernel, certain) {
                let Law { counter, kernel_counter, what, .. } = *law;
                let ours = comparison.total.ours;
                differences.push(Difference {
                    netns: None,
                    counter,
                    kernel_counter,
                    what,
                    ours,
                    kernel,
                    certain,
                });
            }
            shown.insert(law.counter.to_owned(), comparison.report(law, is_explained));
        }
        *last = now;
        let report = json!({
            "time_wait_counter": if kernel.tw_counts_begins { "begins" } else { "expiries" },
            "lost": now.ours.lost,
            "counters": shown,
        });
        Outcome { report, differences }
    }
}

#[cfg(test)]
mod tests;
