//! Writing records: every success and every failure is counted.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_ringbuf_output, bpf_ringbuf_query, bpf_ringbuf_reserve, bpf_ringbuf_submit},
};
use tracer_ebpf::{Header, counter};

use crate::globals::{RING, config, count};

/// A wake-up costs more than everything else about a record, so the daemon polls on a timer and is woken only
/// when much is waiting.
#[inline(always)]
pub fn wake_flags() -> u64 {
    // SAFETY: the map pointer is the ring's own.
    let waiting =
        unsafe { bpf_ringbuf_query((&raw const RING).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA)) };
    if waiting > config!(wake_bytes) { u64::from(BPF_RB_FORCE_WAKEUP) } else { u64::from(BPF_RB_NO_WAKEUP) }
}

/// Flags that wake the daemon at once.
pub const WAKE_NOW: u64 = BPF_RB_FORCE_WAKEUP as u64;

/// Writes `size` bytes that begin with a [`Header`]; false when the ring is full.
///
/// # Safety
/// `record` points to `size` readable bytes that the verifier can bound.
#[inline(always)]
pub unsafe fn write(record: *const Header, size: u64, flags: u64) -> bool {
    // SAFETY: the caller's promise; the kind is masked by the counters' own bound check.
    unsafe {
        let kind = u32::from((*record).kind);
        let written =
            bpf_ringbuf_output((&raw const RING).cast_mut().cast(), record.cast_mut().cast(), size, flags)
                == 0;
        count(if written { counter::RECORDS + kind } else { counter::LOST + kind }, 1);
        written
    }
}

/// Room for a record of fixed size, its header filled in; `None` when the ring is full.
#[inline(always)]
pub fn reserve<T>(kind: u16, detail: u16, time_ns: u64) -> Option<Slot<T>> {
    // SAFETY: the map pointer is the ring's own.
    let slot = unsafe { bpf_ringbuf_reserve((&raw const RING).cast_mut().cast(), size_of::<T>() as u64, 0) };
    if slot.is_null() {
        count(counter::LOST + u32::from(kind), 1);
        return None;
    }
    count(counter::RECORDS + u32::from(kind), 1);
    // SAFETY: `T` begins with a `Header`, and the slot has its size.
    unsafe { slot.cast::<Header>().write(Header { kind, detail, pad: 0, time_ns }) };
    Some(Slot(slot.cast()))
}

/// Room in the ring. Fill in every member past the header, then [`Slot::submit`].
#[must_use = "the verifier rejects a program that leaves a slot open"]
pub struct Slot<T>(pub *mut T);

impl<T> Slot<T> {
    #[inline(always)]
    pub fn submit(self, flags: u64) {
        // SAFETY: a reserved slot, submitted once.
        unsafe { bpf_ringbuf_submit(self.0.cast(), flags) }
    }
}
