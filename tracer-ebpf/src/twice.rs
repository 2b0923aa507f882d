//! Programs that run twice. The kernel does not run a tracing program inside of itself (`prog->active`): when a softirq
//! interrupts one in a task and brings another event of its kind, that is skipped. So there are two of the programs that
//! must miss little; the second one sees what the first could not, and takes away a note of what it did see.

use aya_ebpf::{macros::map, maps::PerCpuArray};

use crate::globals::{is_by_perf, now};

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

/// Places for notes: some sets of a few.
const SETS: usize = 16;
const PLACES: usize = 4;

#[repr(C)]
struct Notes {
    /// By [`Twice`]: the second program is running here, so there will be none for what interrupts it.
    second_runs: [u64; 5],
    /// A subject on its way to being a number: the verifier lets nobody calculate with an address.
    number: u64,
    sets: [[Note; PLACES]; SETS],
}

#[map]
static NOTES: PerCpuArray<Notes> = PerCpuArray::with_max_entries(1, 0);

/// A note that is older was left for a second program that did not run: one interrupted just as it began or ended. In between
/// a task may be preempted, and a virtual machine's processor be away.
const STALE_NS: u64 = 2_000_000_000;

#[inline(always)]
fn notes() -> Option<&'static mut Notes> {
    // SAFETY: this CPU's own.
    NOTES.get_ptr_mut(0).map(|notes| unsafe { &mut *notes })
}

/// Where notes of a subject are.
#[inline(always)]
fn set(notes: &mut Notes, subject: u64) -> &mut [Note; PLACES] {
    // SAFETY: a live map value's member.
    let number = unsafe {
        let number = &raw mut notes.number;
        number.write_volatile(subject);
        number.read_volatile()
    };
    &mut notes.sets[(number >> 7 ^ number >> 12) as usize & (SETS - 1)]
}

/// Leaves a note on this CPU for the second program, if that is to run. Both run for one event before another event of the
/// same subject is traced. In between there may be others', of a softirq, or where a task can be preempted (`perf`) of
/// another task: whether the second program is running says nothing there.
#[inline(always)]
pub fn note(kind: Twice, subject: *const u8, change: u64) {
    let Some(notes) = notes() else { return };
    if notes.second_runs[kind as usize] != 0 && !is_by_perf() {
        return;
    }
    let (subject, time_ns) = (subject as u64, now());
    let note = Note { subject, what: what(kind, change), time_ns };
    let set = set(notes, subject);
    let mut is_left = false;
    for place in set.iter_mut() {
        let is_free = place.what == 0 || time_ns - place.time_ns > STALE_NS;
        if !is_left && (is_free || place.subject == subject) {
            *place = note;
            is_left = true;
        } else if place.subject == subject {
            // Its second program did not run.
            place.what = 0;
        }
    }
    if !is_left {
        set[0] = note;
    }
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
    for place in set(notes, subject as u64).iter_mut() {
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
