//! Where a segment's record is put together. At a cgroup's hooks a softirq may interrupt a task's program, and another task
//! may take its place, so each CPU has a few places, and whoever comes takes one that is free.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{macros::map, maps::PerCpuArray};
use tracer_ebpf::SegmentRecord;

use crate::{head::Found, payload::Work};

/// Payload bytes of one record at most; a power of two, so that a mask bounds an index.
pub const CHUNK: usize = 4096;
/// Room behind, so that an 8-byte load at any masked index, or 8 past it, stays inside.
pub const SLACK: usize = 16;

/// A task, a softirq that interrupts it, and two tasks more.
const PLACES: u32 = 4;

#[repr(C)]
pub struct Scratch {
    pub record: SegmentRecord,
    pub data: [u8; CHUNK + SLACK],
    pub found: Found,
    pub work: Work,
    /// How many want it: its owner is who found itself alone.
    users: u64,
}

#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(PLACES, 0);

/// A place that is ours until [`Place::release`].
pub struct Place {
    scratch: *mut Scratch,
    pub index: u32,
}

/// Takes a free place; `None` when there is none.
#[inline(always)]
pub fn acquire() -> Option<Place> {
    for index in 0..PLACES {
        let scratch = SCRATCH.get_ptr_mut(index)?;
        // Two that add at the same time both see 2 and go on: better no owner than two.
        if change(scratch, 1) == 1 {
            return Some(Place { scratch, index });
        }
        change(scratch, u64::MAX);
    }
    None
}

/// Adds to the number of users; what it is then.
#[inline(always)]
fn change(scratch: *mut Scratch, by: u64) -> u64 {
    // SAFETY: a member of a live map value. (An addition that returns the value would need 5.12.)
    unsafe {
        let users = &raw mut (*scratch).users;
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(users, by);
        users.read_volatile()
    }
}

impl Place {
    #[inline(always)]
    pub fn get(&mut self) -> &mut Scratch {
        // SAFETY: a live map value, and ours alone.
        unsafe { &mut *self.scratch }
    }

    #[inline(always)]
    pub fn release(self) {
        change(self.scratch, u64::MAX);
    }
}
