use super::*;
use crate::emit::time::Timestamp;
use proptest::prelude::*;

const NEW: Kernel =
    Kernel { tw_counts_begins: true, shows_resets_without_socket: true, follows_time_wait: true };
const OLD: Kernel =
    Kernel { tw_counts_begins: false, shows_resets_without_socket: false, follows_time_wait: true };

/// A kernel whose counters stood at these numbers when the tracer started.
fn base() -> Counters {
    Counters::parse(include_str!("samples/6.18.txt"))
}

/// The same after `ours` happened.
fn after(ours: &Ours) -> Counters {
    let base = base();
    let plus = |counter: Option<u64>, more: u64| counter.map(|counter| counter + more);
    Counters {
        active_opens: plus(base.active_opens, ours.active_opens),
        passive_opens: plus(base.passive_opens, ours.passive_opens),
        attempt_fails: plus(base.attempt_fails, ours.attempt_fails),
        estab_resets: plus(base.estab_resets, ours.estab_resets),
        out_rsts: plus(base.out_rsts, ours.out_rsts),
        retrans_segs: plus(base.retrans_segs, ours.retrans_segs),
        retrans_fails: base.retrans_fails,
        time_waits: plus(base.time_waits, ours.time_wait_begun),
        time_waits_recycled: plus(base.time_waits_recycled, ours.time_wait_recycled),
        time_waits_now: Some(ours.time_wait_now),
    }
}

/// A reading while nothing happens.
fn quiet(counters: Counters, ours: Ours) -> Reading {
    Reading { before: counters, ours, after: counters }
}

/// The tracer's totals do not begin at 0: what it saw before the baseline was read does not count.
fn begun(kernel: Kernel) -> SelfCheck {
    let ours = Ours { active_opens: 2, time_wait_now: 7069, ..Ours::default() };
    SelfCheck::start_at(kernel, quiet(base(), ours))
}

fn some() -> Ours {
    Ours {
        active_opens: 7,
        passive_opens: 5,
        attempt_fails: 1,
        estab_resets: 2,
        out_rsts: 3,
        retrans_segs: 4,
        time_wait_begun: 6,
        time_wait_expired: 1,
        time_wait_recycled: 2,
        time_wait_now: 7072,
        lost: 0,
    }
}

/// The kernel's view of [`some`].
fn agreed() -> Counters {
    after(&Ours { active_opens: some().active_opens - 2, ..some() })
}

fn names(outcome: &Outcome) -> Vec<&'static str> {
    outcome.differences.iter().map(|difference| difference.counter).collect()
}

#[test]
fn equal_totals_agree() {
    let mut check = begun(NEW);
    let outcome = check.check_at(quiet(agreed(), some()), true);
    assert_eq!(names(&outcome), <[&str; 0]>::default());
    let expected = json!({
        "kernel_counter": "Tcp ActiveOpens",
        "agrees": true,
        "interval": {"ours": 5, "kernel": 5},
        "total": {"ours": 5, "kernel": 5},
    });
    assert_eq!(outcome.report["counters"]["active_opens"], expected);
    assert_eq!(outcome.report["time_wait_counter"], "begins");
    assert_eq!(outcome.report["counters"]["time_wait_begun"]["total"], json!({"ours": 6, "kernel": 6}));
    let now = &outcome.report["counters"]["time_wait_now"];
    assert_eq!(now["now"], json!({"ours": 7072, "kernel": 7072}));
    for (name, counter) in outcome.report["counters"].as_object().unwrap() {
        assert_eq!(counter["agrees"], true, "{name}");
    }
}

#[test]
fn the_interval_is_since_the_previous_check() {
    let mut check = begun(NEW);
    check.check_at(quiet(agreed(), some()), false);
    let more = Ours { passive_opens: 9, ..some() };
    let counters = Counters { passive_opens: base().passive_opens.map(|opens| opens + 9), ..agreed() };
    let outcome = check.check_at(quiet(counters, more), false);
    let passive = &outcome.report["counters"]["passive_opens"];
    assert_eq!(passive["interval"], json!({"ours": 4, "kernel": 4}));
    assert_eq!(passive["total"], json!({"ours": 9, "kernel": 9}));
}

#[test]
fn before_5_17_expiries_are_counted() {
    let mut check = begun(OLD);
    let counters = Counters { time_waits: base().time_waits.map(|count| count + 1), ..agreed() };
    let outcome = check.check_at(quiet(counters, some()), true);
    assert_eq!(names(&outcome), <[&str; 0]>::default());
    assert_eq!(outcome.report["time_wait_counter"], "expiries");
    assert_eq!(outcome.report["counters"]["time_wait_expired"]["total"], json!({"ours": 1, "kernel": 1}));
    assert!(outcome.report["counters"].get("time_wait_begun").is_none());
}

#[test]
fn a_difference_is_told_when_it_persists() {
    let ours = Ours { estab_resets: 1, ..some() };
    let mut check = begun(NEW);
    let first = check.check_at(quiet(agreed(), ours), false);
    assert_eq!(names(&first), <[&str; 0]>::default());
    assert_eq!(first.report["counters"]["estab_resets"]["agrees"], false);
    let second = check.check_at(quiet(agreed(), ours), false);
    let expected = Difference {
        netns: None,
        counter: "estab_resets",
        kernel_counter: "Tcp EstabResets",
        what: "connections aborted",
        ours: 1,
        kernel: 2,
        certain: 1,
    };
    assert_eq!(second.differences, [expected]);
    // Once is enough, but the end says it again.
    let third = check.check_at(quiet(agreed(), ours), false);
    assert_eq!(names(&third), <[&str; 0]>::default());
    let last = check.check_at(quiet(agreed(), ours), true);
    assert_eq!(last.differences, [expected]);
}

#[test]
fn what_was_in_flight_is_no_difference() {
    let mut check = begun(NEW);
    for missing in [3, 2, 0, 2, 1, 0] {
        let ours = Ours { passive_opens: some().passive_opens - missing, ..some() };
        assert_eq!(names(&check.check_at(quiet(agreed(), ours), false)), <[&str; 0]>::default());
    }
    // Neither is one that changes sides.
    for passive_opens in [4, 6, 4, 6] {
        let ours = Ours { passive_opens, ..some() };
        assert_eq!(names(&check.check_at(quiet(agreed(), ours), false)), <[&str; 0]>::default());
    }
}

#[test]
fn a_growing_difference_is_told_when_it_has_doubled() {
    let mut check = begun(NEW);
    let told: Vec<u64> = (1..=20)
        .filter_map(|missing| {
            let counters = after(&Ours { active_opens: 5, passive_opens: 5 + missing, ..some() });
            let outcome = check.check_at(quiet(counters, some()), false);
            outcome.differences.first().map(|difference| difference.certain)
        })
        .collect();
    assert_eq!(told, [1, 2, 4, 8, 16]);
}

#[test]
fn traffic_during_the_reading_is_allowed_for() {
    let mut check = begun(NEW);
    let busy = |seen| Reading {
        before: agreed(),
        ours: Ours { passive_opens: seen, time_wait_now: 7080, ..some() },
        after: Counters {
            passive_opens: agreed().passive_opens.map(|opens| opens + 10),
            time_waits_now: Some(7100),
            ..agreed()
        },
    };
    for seen in [5, 10, 15] {
        assert_eq!(names(&check.check_at(busy(seen), true)), <[&str; 0]>::default());
    }
    for (seen, certain) in [(4, 1), (16, 1), (1, 4)] {
        let outcome = check.check_at(busy(seen), true);
        assert_eq!(names(&outcome), ["passive_opens"]);
        assert_eq!(outcome.differences[0].certain, certain);
    }
}

#[test]
fn what_no_hook_shows_is_no_difference() {
    let kernel_has_more = Counters {
        attempt_fails: agreed().attempt_fails.map(|count| count + 5),
        out_rsts: agreed().out_rsts.map(|count| count + 5),
        retrans_segs: agreed().retrans_segs.map(|count| count + 5),
        retrans_fails: agreed().retrans_fails.map(|count| count + 5),
        ..agreed()
    };
    let kernel_has_more_in = |kernel| names(&begun(kernel).check_at(quiet(kernel_has_more, some()), true));
    assert_eq!(kernel_has_more_in(NEW), ["out_rsts"]);
    assert_eq!(kernel_has_more_in(OLD), ["time_wait_expired"]);
    let one_fail_less =
        Counters { retrans_fails: kernel_has_more.retrans_fails.map(|count| count - 1), ..kernel_has_more };
    assert_eq!(names(&begun(NEW).check_at(quiet(one_fail_less, some()), true)), ["out_rsts", "retrans_segs"]);
    // More than the kernel is one all the same.
    let ours = Ours { attempt_fails: 2, out_rsts: 4, retrans_segs: 5, time_wait_expired: 6, ..some() };
    assert_eq!(
        names(&begun(OLD).check_at(quiet(agreed(), ours), true)),
        ["attempt_fails", "out_rsts", "retrans_segs"]
    );
}

#[test]
fn counted_loss_explains_a_difference() {
    let ours = Ours { passive_opens: 3, lost: 1, ..some() };
    let mut check = begun(NEW);
    for is_final in [false, false, true] {
        let outcome = check.check_at(quiet(agreed(), ours), is_final);
        assert_eq!(names(&outcome), <[&str; 0]>::default());
        assert_eq!(outcome.report["lost"], 1);
        assert_eq!(outcome.report["counters"]["passive_opens"]["agrees"], false);
        assert_eq!(outcome.report["counters"]["passive_opens"]["explained"], true);
        assert_eq!(outcome.report["counters"]["active_opens"].get("explained"), None);
    }
}

#[test]
fn a_counter_that_the_kernel_lacks_is_not_compared() {
    let mut check = SelfCheck::start_at(NEW, quiet(Counters::default(), Ours::default()));
    let outcome = check.check_at(quiet(Counters::default(), some()), true);
    assert_eq!(names(&outcome), <[&str; 0]>::default());
    let active = &outcome.report["counters"]["active_opens"];
    assert_eq!(active["agrees"], Value::Null);
    assert_eq!(active["total"], json!({"ours": 7, "kernel": null}));
}

#[test]
fn a_difference_becomes_a_finding() {
    let ours = Ours { passive_opens: 3, ..some() };
    let outcome = begun(NEW).check_at(quiet(agreed(), ours), true);
    let (first, last) = (Timestamp::from_unix_ns(1), Timestamp::from_unix_ns(2));
    let finding = outcome.differences[0].finding(first, last);
    assert_eq!((finding.kind, finding.severity, finding.count), ("selfcheck", "warning", 2));
    assert_eq!((finding.ts, finding.first_seen, finding.last_seen), (last, first, last));
    assert_eq!(
        finding.summary,
        "The tracer counted 3 passive opens in its network namespace and the kernel 5: at least 2 are missing, and no \
         loss that was counted explains it."
    );
    assert_eq!(finding.subject, json!({"counter": "passive_opens", "kernel_counter": "Tcp PassiveOpens"}));
    assert_eq!(finding.evidence, json!({"ours": 3, "kernel": 5, "at_least": 2}));
}

/// Numbers near the ends of the range as well.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..20_u64, Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()]
}

fn counters() -> impl Strategy<Value = Counters> {
    prop::array::uniform10(prop::option::of(number())).prop_map(|values| {
        let [
            active_opens,
            passive_opens,
            attempt_fails,
            estab_resets,
            out_rsts,
            retrans_segs,
            retrans_fails,
            time_waits,
            time_waits_recycled,
            time_waits_now,
        ] = values;
        Counters {
            active_opens,
            passive_opens,
            attempt_fails,
            estab_resets,
            out_rsts,
            retrans_segs,
            retrans_fails,
            time_waits,
            time_waits_recycled,
            time_waits_now,
        }
    })
}

proptest! {
    #[test]
    fn any_readings_are_survived(
        readings in prop::collection::vec((counters(), prop::array::uniform4(number()), counters()), 1..6),
        tw_counts_begins: bool,
        shows_resets_without_socket: bool,
    ) {
        let readings = readings.into_iter().map(|(before, [a, b, c, lost], after)| Reading {
            before,
            ours: Ours { active_opens: a, out_rsts: b, retrans_segs: b, time_wait_begun: c, time_wait_now: a, lost, ..Ours::default() },
            after,
        });
        let mut check: Option<SelfCheck> = None;
        let kernel = Kernel { tw_counts_begins, shows_resets_without_socket, follows_time_wait: true };
        for reading in readings {
            let check = check.get_or_insert_with(|| SelfCheck::start_at(kernel, reading));
            for difference in check.check_at(reading, false).differences {
                prop_assert_ne!(difference.certain, 0);
            }
        }
    }
}

/// One ends and another one begins between the two looks at the kernel's counters: in between there was one less.
#[test]
fn a_level_moves_by_what_the_kernel_counts() {
    let with_one_less = Ours { time_wait_now: some().time_wait_now - 1, ..some() };
    let begun_since = Counters { time_waits: agreed().time_waits.map(|count| count + 1), ..agreed() };
    for (after, agrees) in [(begun_since, true), (agreed(), false)] {
        let reading = Reading { before: agreed(), ours: with_one_less, after };
        let outcome = begun(NEW).check_at(reading, false);
        assert_eq!(outcome.report["counters"]["time_wait_now"]["agrees"], agrees);
    }
}
