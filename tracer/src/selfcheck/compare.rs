//! One of our totals against one counter of the kernel.

use super::{
    Reading,
    laws::{Hidden, Law},
};
use serde_json::{Value, json};

/// Ours and the kernel's, for the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub ours: u64,
    /// `None` when this kernel does not have the counter.
    pub kernel: Option<u64>,
}

/// What one reading shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Since the previous check; a number at a moment has none.
    pub interval: Option<Pair>,
    /// Since the start.
    pub total: Pair,
    /// How far ours is outside what the kernel allows: less than 0 when events are missing. `None` when the kernel lacks
    /// the counter.
    pub deviation: Option<i128>,
}

pub(super) fn compare(law: &Law, start: &Reading, last: &Reading, now: &Reading) -> Comparison {
    if let Some(moves) = law.moves {
        let (ours, before, after) =
            ((law.ours)(&now.ours), (law.kernel)(&now.before), (law.kernel)(&now.after));
        // It may have gone up and down while we looked.
        let moved = grown(moves, &now.before, &now.after).unwrap_or(0);
        let range = before.zip(after).map(|(before, after)| {
            (before.min(after).saturating_sub(moved), before.max(after).saturating_add(moved))
        });
        return Comparison {
            interval: None,
            total: Pair { ours, kernel: after },
            deviation: range.map(|range| outside(ours, range)),
        };
    }
    let since = |from: &Reading| Pair {
        ours: (law.ours)(&now.ours).saturating_sub((law.ours)(&from.ours)),
        kernel: grown(law.kernel, &from.after, &now.after),
    };
    let total = since(start);
    // The least and the most that the kernel can have counted while we did.
    let least = grown(law.kernel, &start.after, &now.before);
    let most = grown(law.kernel, &start.before, &now.after);
    let least = match law.hidden {
        Hidden::None => least,
        // Without the counter we cannot tell.
        Hidden::UpTo(hidden) => grown(hidden, &start.before, &now.after)
            .map_or(least.and(Some(0)), |hidden| least.map(|least| least.saturating_sub(hidden))),
        Hidden::Any => least.and(Some(0)),
    };
    Comparison {
        interval: Some(since(last)),
        total,
        deviation: least.zip(most).map(|range| outside(total.ours, range)),
    }
}

fn grown(
    counter: fn(&super::Counters) -> Option<u64>,
    from: &super::Counters,
    to: &super::Counters,
) -> Option<u64> {
    Some(counter(to)?.saturating_sub(counter(from)?))
}

fn outside(ours: u64, (least, most): (u64, u64)) -> i128 {
    let ours = i128::from(ours);
    ours - ours.clamp(least.into(), i128::from(most).max(least.into()))
}

impl Comparison {
    /// Its part of the report.
    pub fn report(&self, law: &Law, is_explained: bool) -> Value {
        let pair = |pair: &Pair| json!({"ours": pair.ours, "kernel": pair.kernel});
        let mut report = json!({
            "kernel_counter": law.kernel_counter,
            "agrees": self.deviation.map(|deviation| deviation == 0),
        });
        match &self.interval {
            None => report["now"] = pair(&self.total),
            Some(interval) => {
                report["interval"] = pair(interval);
                report["total"] = pair(&self.total);
            }
        }
        if !matches!(law.hidden, Hidden::None) {
            // No hook shows all that the kernel counts here.
            report["kernel_counts_more"] = true.into();
        }
        if is_explained && self.deviation.is_some_and(|deviation| deviation != 0) {
            report["explained"] = true.into();
        }
        report
    }
}

/// What the readings so far say about one law.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The previous reading's deviation.
    last: i128,
    /// The deviation last told.
    told: i128,
}

impl Standing {
    /// Takes a reading in; returns how many events of difference are to be told, if any.
    pub fn news(&mut self, deviation: i128, is_final: bool, is_explained: bool) -> Option<u64> {
        let persists = deviation.signum() == self.last.signum() && deviation.abs() >= self.last.abs();
        // While traffic goes on, what both readings have is certain.
        let certain = if is_final { deviation } else { self.last };
        self.last = deviation;
        if deviation == 0 || is_explained || !(persists || is_final) {
            return None;
        }
        let has_doubled = certain.signum() != self.told.signum() || certain.abs() / 2 >= self.told.abs();
        if !is_final && !has_doubled {
            return None;
        }
        self.told = certain;
        u64::try_from(certain.abs()).ok()
    }
}
