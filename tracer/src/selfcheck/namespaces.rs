//! The check for each network namespace: the tracer's own, and every other one that a process is in.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::netns;

use super::{
    Counters, Kernel, Ours, Outcome, Reading, SelfCheck,
    counters::{AFTER, BEFORE, Files},
};

/// Most other namespaces checked; the rest is counted in the report.
const MAX_OTHERS: usize = 256;

/// A namespace and a process that is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    netns: u32,
    pid: u32,
}

/// The kernel's counters, read ahead of ours.
#[derive(Debug)]
pub struct Ahead {
    own: Counters,
    others: Vec<(Place, Counters)>,
    unchecked: usize,
}

impl Ahead {
    /// Reads those of every namespace that a process is in.
    pub fn read() -> Self {
        let mut others = netns::of_processes();
        others.remove(&netns::own());
        let unchecked = others.len().saturating_sub(MAX_OTHERS);
        let places = others.into_iter().map(|(netns, pid)| Place { netns, pid }).take(MAX_OTHERS);
        let others = places.filter_map(|place| Some((place, place.counters(BEFORE)?))).collect();
        Self { own: Counters::read(BEFORE), others, unchecked }
    }
}

impl Place {
    /// `None` when the process is gone, or in another namespace by now.
    fn counters(self, files: Files) -> Option<Counters> {
        let pid = self.pid.to_string();
        let counters = Counters::read_of(&pid, files);
        (netns::of(&pid) == Some(self.netns)).then_some(counters)
    }
}

/// What we counted in one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// 0: not known. Inodes of namespaces are used again, cookies are not.
    pub cookie: u64,
    pub ours: Ours,
}

/// The comparisons over a run.
pub struct Namespaces {
    kernel: Kernel,
    own_netns: u32,
    own: SelfCheck,
    others: HashMap<u32, Other>,
}

struct Other {
    cookie: u64,
    last: Counters,
    check: SelfCheck,
}

impl Namespaces {
    /// Begins when all hooks are attached. `ahead` was read before `counted` is asked what we counted in a namespace.
    pub fn start(kernel: Kernel, ahead: Ahead, counted: impl Fn(u32) -> Counted) -> Self {
        let own_netns = netns::own();
        let own = Reading { before: ahead.own, ours: counted(own_netns).ours, after: Counters::read(AFTER) };
        let mut namespaces =
            Self { kernel, own_netns, own: SelfCheck::start_at(kernel, own), others: HashMap::new() };
        namespaces.check_others(ahead.others, counted, false);
        namespaces
    }

    /// Compares. While traffic goes on, a difference is told when two checks in a row have it, and again each time that
    /// it has doubled; the last check tells every one. `ahead` was read before `counted` is asked, which has all that
    /// waited in the ring.
    pub fn check(&mut self, ahead: Ahead, counted: impl Fn(u32) -> Counted, is_final: bool) -> Outcome {
        let ours = counted(self.own_netns).ours;
        let own = Reading { before: ahead.own, ours, after: Counters::read(AFTER) };
        let mut outcome = self.own.check_at(own, is_final);
        let (shown, differences) = self.check_others(ahead.others, counted, is_final);
        outcome.report["netns"] = self.own_netns.into();
        outcome.report["others"] = shown;
        outcome.report["unchecked_namespaces"] = ahead.unchecked.into();
        outcome.differences.extend(differences);
        outcome
    }

    fn check_others(
        &mut self,
        ahead: Vec<(Place, Counters)>,
        counted: impl Fn(u32) -> Counted,
        is_final: bool,
    ) -> (Value, Vec<super::Difference>) {
        let mut shown = Vec::new();
        let mut differences = Vec::new();
        let mut known = std::mem::take(&mut self.others);
        for (place, before) in ahead {
            let Counted { cookie, ours } = counted(place.netns);
            let Some(after) = place.counters(AFTER) else { continue };
            let reading = Reading { before, ours, after };
            let same = |other: &Other| {
                (other.cookie == 0 || other.cookie == cookie) && !before.is_younger_than(&other.last)
            };
            let Some(mut other) = known.remove(&place.netns).filter(same) else {
                let check = SelfCheck::start_at(self.kernel, reading);
                self.others.insert(place.netns, Other { cookie, last: after, check });
                continue;
            };
            let outcome = other.check.check_at(reading, is_final);
            if outcome.is_active() {
                shown.push(json!({"netns": place.netns, "counters": outcome.report["counters"]}));
            }
            differences.extend(
                outcome
                    .differences
                    .into_iter()
                    .map(|difference| super::Difference { netns: Some(place.netns), ..difference }),
            );
            self.others.insert(place.netns, Other { cookie, last: after, ..other });
        }
        (shown.into(), differences)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_has_a_process() {
        let own = netns::own();
        let place = Place { netns: own, pid: netns::of_processes()[&own] };
        assert!(place.counters(AFTER).is_some_and(|counters| counters.active_opens.is_some()));
        assert_eq!(Place { netns: own + 1, ..place }.counters(AFTER), None);
    }
}
