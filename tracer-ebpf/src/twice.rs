//! Programs that run twice. The kernel does not run a tracing program inside of itself (`prog->active`): when a softirq
//! interrupts one in a task and brings another event of its kind, that is skipped. So there are two of the programs that
//! must miss nothing; the second one sees what the first could not, and takes away a note of what it did see.

use crate::globals::{NOTES, Note, now};

/// What a note of a program is about, beyond state changes (two states, each below 256).
pub const RESET: u64 = 1 << 16;
pub const RETRANSMIT: u64 = 2 << 16;

/// A note that is older was left inside of the second program, and nobody takes it away.
const STALE_NS: u64 = 100_000_000;

/// Leaves a note on this CPU, in the first free place. Both programs run for one event before any other event is traced
/// here, but for those of a softirq in between, which take their own notes away. `what` is not 0.
#[inline(always)]
pub fn note(subject: *const u8, what: u64) {
    let Some(notes) = NOTES.get_ptr_mut(0) else { return };
    let time_ns = now();
    // SAFETY: this CPU's own.
    for place in unsafe { &mut *notes }.iter_mut() {
        if place.what == 0 || time_ns - place.time_ns > STALE_NS {
            *place = Note { subject: subject as u64, what, time_ns };
            return;
        }
    }
}

/// Whether the first program has handled this event.
#[inline(always)]
pub fn take_note(subject: *const u8, what: u64) -> bool {
    let Some(notes) = NOTES.get_ptr_mut(0) else { return true };
    // SAFETY: this CPU's own.
    for place in unsafe { &mut *notes }.iter_mut() {
        if place.what == what && place.subject == subject as u64 {
            place.what = 0;
            return true;
        }
    }
    false
}
