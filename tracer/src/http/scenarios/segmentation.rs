//! The way of the bytes into segments is none of the messages' business: every case again, cut, repeated, overlapping
//! and out of order.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::Step::{ClientFin, ClientMissing, ClientSeen, ServerFin, ServerMissing, ServerSeen};
use super::wire::{C, Step, Wire, full};
use super::{Case, cases};
use crate::http::Direction;

/// Parts of a step's payload, as (from, to), in the order in which they pass.
type Parts = Vec<(usize, usize)>;

/// How a case is put on the wire.
struct Way<'a> {
    /// The parts of the step at this index.
    parts: &'a mut dyn FnMut(usize, &[u8]) -> Parts,
    /// A FIN goes with the data before it.
    fin_with_data: bool,
    /// After each step, the one before it is sent again.
    repeat_before: bool,
}

fn in_order(parts: &mut dyn FnMut(usize, &[u8]) -> Parts) -> Way<'_> {
    Way { parts, fin_with_data: false, repeat_before: false }
}

/// Every exchange in full, and what the connection carries.
fn played(case: &Case, client: Option<Direction>, way: &mut Way<'_>) -> (Vec<String>, String) {
    let mut wire = Wire::new(client, case.from_start);
    let mut before: Option<(Direction, u64, &[u8])> = None;
    let mut steps = case.steps.iter().enumerate().peekable();
    while let Some((index, step)) = steps.next() {
        let Some((direction, data)) = step.captured() else {
            wire.step(*step);
            continue;
        };
        let own_fin = |step: &Step| *step == if direction == C { ClientFin } else { ServerFin };
        let fin = way.fin_with_data && steps.next_if(|(_, next)| own_fin(next)).is_some();
        let base = wire.at[direction.index()];
        let parts = (way.parts)(index, data);
        for &(from, to) in &parts {
            let part = &data[from..to];
            wire.at(direction, base + from as u64, part.len() as u32, part, fin && to == data.len());
        }
        wire.at[direction.index()] += data.len() as u64;
        if let Some((direction, offset, data)) = before.replace((direction, base, data))
            && way.repeat_before
        {
            wire.at(direction, offset, data.len() as u32, data, false);
        }
    }
    wire.flow.close(wire.now_ns, &mut wire.out);
    assert_eq!(wire.flow.held_bytes(), 0);
    (wire.exchanges().into_iter().map(full).collect(), format!("{:?}", wire.flow.protocol()))
}

fn whole(_: usize, data: &[u8]) -> Parts {
    vec![(0, data.len())]
}

fn plain(case: &Case, client: Option<Direction>) -> (Vec<String>, String) {
    played(case, client, &mut in_order(&mut whole))
}

/// Nothing of it is lost: then order does not matter either.
fn is_all_captured(case: &Case) -> bool {
    let captured =
        |step: &Step| !matches!(step, ClientSeen(_) | ServerSeen(_) | ClientMissing(_) | ServerMissing(_));
    case.from_start && case.steps.iter().all(captured)
}

/// Steps at which the direction's framing is lost. There the first segment decides whether a message begins, so that
/// order does matter.
fn unframed(case: &Case, client: Option<Direction>) -> Vec<bool> {
    let mut wire = Wire::new(client, case.from_start);
    let lost = |step: &Step| {
        let lost = step.captured().is_some_and(|(direction, _)| wire.flow.sides[direction.index()].is_lost());
        wire.step(*step);
        lost
    };
    case.steps.iter().map(lost).collect()
}

fn variants(mut visit: impl FnMut(&Case, Option<Direction>)) {
    for case in cases() {
        for client in [Some(C), None] {
            visit(case, client);
        }
    }
}

#[test]
fn every_split_point() {
    variants(|case, client| {
        let expected = plain(case, client);
        let (ordered, lost) = (!is_all_captured(case), unframed(case, client));
        for (cut, step) in case.steps.iter().enumerate() {
            let len = step.captured().map_or(0, |(_, data)| data.len());
            for at in 1..len {
                let mut ways: Vec<Parts> = vec![
                    vec![(0, at), (at, len)],
                    // All of it again.
                    vec![(0, at), (0, at), (at, len), (0, len)],
                    // Overlapping.
                    vec![(0, (at + 3).min(len)), (at.saturating_sub(3), len)],
                ];
                if !ordered && !lost[cut] {
                    ways.push(vec![(at, len), (0, at)]);
                    ways.push(vec![(at, len), (at, len), (0, (at + 3).min(len))]);
                }
                for parts in ways {
                    let mut way =
                        |index, data: &[u8]| if index == cut { parts.clone() } else { whole(index, data) };
                    let got = played(case, client, &mut in_order(&mut way));
                    assert_eq!(got, expected, "{}: step {cut} as {parts:?}, client {client:?}", case.clause);
                }
            }
        }
    });
}

#[test]
fn one_byte_at_a_time() {
    variants(|case, client| {
        let mut single = |_, data: &[u8]| (0..data.len()).map(|at| (at, at + 1)).collect();
        let got = played(case, client, &mut in_order(&mut single));
        assert_eq!(got, plain(case, client), "{}, client {client:?}", case.clause);
    });
}

#[test]
fn one_byte_at_a_time_and_each_of_them_twice() {
    variants(|case, client| {
        let mut double = |_, data: &[u8]| (0..data.len()).flat_map(|at| [(at, at + 1); 2]).collect();
        let got = played(case, client, &mut in_order(&mut double));
        assert_eq!(got, plain(case, client), "{}, client {client:?}", case.clause);
    });
}

#[test]
fn backwards_byte_by_byte() {
    variants(|case, client| {
        if !is_all_captured(case) {
            return;
        }
        let lost = unframed(case, client);
        let mut back = |index: usize, data: &[u8]| {
            if lost[index] {
                whole(index, data)
            } else {
                (0..data.len()).rev().map(|at| (at, at + 1)).collect()
            }
        };
        let got = played(case, client, &mut in_order(&mut back));
        assert_eq!(got, plain(case, client), "{}, client {client:?}", case.clause);
    });
}

#[test]
fn fins_with_data() {
    variants(|case, client| {
        let way = &mut Way { parts: &mut whole, fin_with_data: true, repeat_before: false };
        assert_eq!(played(case, client, way), plain(case, client), "{}, client {client:?}", case.clause);
    });
}

#[test]
fn late_copies_behind_the_other_sides_bytes() {
    variants(|case, client| {
        let way = &mut Way { parts: &mut whole, fin_with_data: false, repeat_before: true };
        assert_eq!(played(case, client, way), plain(case, client), "{}, client {client:?}", case.clause);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// All of it together, at random.
    #[test]
    fn any_way(
        which in any::<Index>(),
        size in 1..40usize,
        copies in vec((any::<Index>(), any::<Index>()), 0..6),
        moves in vec((any::<Index>(), any::<Index>()), 0..12),
        (known, fin_with_data, repeat_before) in any::<(bool, bool, bool)>(),
    ) {
        let all: Vec<&Case> = cases().filter(|case| is_all_captured(case)).collect();
        let case = which.get(&all);
        let client = known.then_some(C);
        let lost = unframed(case, client);
        let mut parts = |index: usize, data: &[u8]| {
            let len = data.len();
            let mut parts: Parts = (0..len).step_by(size).map(|at| (at, (at + size).min(len))).collect();
            for (from, to) in &copies {
                let (from, to) = (from.index(len), to.index(len));
                parts.push((from.min(to), from.max(to) + 1));
            }
            if !lost[index] {
                for (from, to) in &moves {
                    let (from, to) = (from.index(parts.len()), to.index(parts.len()));
                    parts.swap(from, to);
                }
            }
            parts
        };
        let way = &mut Way { parts: &mut parts, fin_with_data: fin_with_data && moves.is_empty(), repeat_before };
        let got = played(case, client, way);
        prop_assert_eq!(got, plain(case, client), "{}", case.clause);
    }
}
