//! Programs that run twice. The kernel does not run a tracing program inside of itself (`prog->active`): when a softirq
//! interrupts one in a task and brings another event of its kind, that is skipped. So there are two of the programs that
//! must miss little; the second one sees what the first could not, and takes away a note of what it did see.

use aya_ebpf::{macros::map, maps::PerCpuArray};

use crate::globals::now;

/// What runs twice and is not told by a table.
#[derive(Clone, Copy)]
pub enum Twice {
    State,
    Reset,
    Retransmit,
    SynAck,
    ResetReceived,
}

/// An event that was handled.
#[repr(C)]
#[derive(Clone, Copy)]
struct Note {
    /// Address of the socket or segment.
    subject: u64,
    /// 0: a free place.
    what: u64,
    time_ns: u64,
}

#[repr(C)]
struct Notes {
    /// By [`Twice`]: the second program is running here, so there will be none for what interrupts it.
    second_runs: [u64; 5],
    places: [Note; 8],
}

#[map]
static NOTES: PerCpuArray<Notes> = PerCpuArray::with_max_entries(1, 0);

/// A note that is older was left for a second program that did not run: one interrupted just as it began or ended.
const STALE_NS: u64 = 100_000_000;

#[inline(always)]
fn notes() -> Option<&'static mut Notes> {
    // SAFETY: this CPU's own.
    NOTES.get_ptr_mut(0).map(|notes| unsafe { &mut *notes })
}

/// Leaves a note on this CPU for the second program, if that is to run. Both run for one event before any other event is
/// traced here, but for those of a softirq in between, whose notes are taken away by their own second program.
#[inline(always)]
pub fn note(kind: Twice, subject: *const u8, change: u64) {
    let Some(notes) = notes() else { return };
    if notes.second_runs[kind as usize] != 0 {
        return;
    }
    let time_ns = now();
    let note = Note { subject: subject as u64, what: what(kind, change), time_ns };
    for place in notes.places.iter_mut() {
        if place.what == 0 || time_ns - place.time_ns > STALE_NS {
            *place = note;
            return;
        }
    }
    // None of them was taken away: their second programs will not run any more.
    notes.places[0] = note;
}

/// Of what a note is; not 0.
#[inline(always)]
fn what(kind: Twice, change: u64) -> u64 {
    (kind as u64 + 1) << 16 | change
}

/// In the second program: whether the first one has handled this event. [`leave`] follows.
#[inline(always)]
pub fn enter(kind: Twice, subject: *const u8, change: u64) -> bool {
    let Some(notes) = notes() else { return true };
    notes.second_runs[kind as usize] = 1;
    let now_ns = now();
    for place in notes.places.iter_mut() {
        if place.what == what(kind, change) && place.subject == subject as u64 {
            place.what = 0;
            return now_ns - place.time_ns <= STALE_NS;
        }
    }
    false
}

/// The second program is about to end.
#[inline(always)]
pub fn leave(kind: Twice) {
    if let Some(notes) = notes() {
        notes.second_runs[kind as usize] = 0;
    }
}
