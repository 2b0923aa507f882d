//! TIME_WAIT by the functions that a mini-socket passes through, where they can be probed: by `fentry`, else by `kprobe`.
//! All are entered from another file of the kernel or by address, but for `inet_twsk_kill`, so no compiler has inlined them.
//! (`net/ipv4/inet_timewait_sock.c`)

use aya_ebpf::{
    macros::{fentry, kprobe, map},
    maps::PerCpuArray,
    programs::{FEntryContext, ProbeContext},
};
use tracer_ebpf::time_wait;

use crate::{
    globals::{field, running},
    registers, timewait,
};

/// The mini-socket whose timer runs out on this CPU.
#[map]
static EXPIRING: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// `inet_twsk_hashdance`, since 6.11 `inet_twsk_hashdance_schedule`: all of it is filled in, and nobody else can find it yet.
#[fentry]
pub fn time_wait_begins(ctx: FEntryContext) -> i32 {
    begins(ctx.arg(0))
}

/// The same program again (see `twice`): a task that takes packets out of its backlog can be interrupted here.
#[fentry]
pub fn time_wait_begins_again(ctx: FEntryContext) -> i32 {
    begins(ctx.arg(0))
}

#[kprobe]
pub fn time_wait_begins_kprobe(ctx: ProbeContext) -> i32 {
    begins(registers::first(&ctx) as *const u8)
}

/// `__inet_twsk_schedule(tw, timeo, rearm)`
#[fentry]
pub fn time_wait_rearmed(ctx: FEntryContext) -> i32 {
    scheduled(ctx.arg(0), ctx.arg(2))
}

#[kprobe]
pub fn time_wait_rearmed_kprobe(ctx: ProbeContext) -> i32 {
    scheduled(registers::first(&ctx) as *const u8, registers::third(&ctx))
}

/// `tw_timer_handler`, which goes on to `inet_twsk_kill`.
#[fentry]
pub fn time_wait_expires(ctx: FEntryContext) -> i32 {
    expires(ctx.arg(0))
}

#[kprobe]
pub fn time_wait_expires_kprobe(ctx: ProbeContext) -> i32 {
    expires(registers::first(&ctx) as *const u8)
}

/// `inet_twsk_kill`, whatever the cause.
#[fentry]
pub fn time_wait_ends(ctx: FEntryContext) -> i32 {
    ends(ctx.arg(0))
}

#[kprobe]
pub fn time_wait_ends_kprobe(ctx: ProbeContext) -> i32 {
    ends(registers::first(&ctx) as *const u8)
}

#[inline(always)]
fn begins(tw: *const u8) -> i32 {
    if running() {
        timewait::started(tw);
    }
    0
}

#[inline(always)]
fn scheduled(tw: *const u8, rearm: u64) -> i32 {
    // A bool's register may hold anything above its lowest byte.
    if rearm as u8 != 0 && running() {
        timewait::rearmed(tw);
    }
    0
}

#[inline(always)]
fn expires(timer: *const u8) -> i32 {
    if running() {
        let tw = timer.wrapping_sub(field!(tw_timer) as usize);
        let _ = EXPIRING.set(0, tw as u64, 0);
    }
    0
}

#[inline(always)]
fn ends(tw: *const u8) -> i32 {
    if !running() {
        return 0;
    }
    let what = match EXPIRING.get_ptr_mut(0) {
        // SAFETY: this CPU's own.
        Some(expiring) if unsafe { *expiring } == tw as u64 => {
            // SAFETY: as above.
            unsafe { *expiring = 0 };
            time_wait::EXPIRED
        }
        _ => time_wait::CANCELLED,
    };
    timewait::look_whether_new(tw);
    timewait::stopped(tw, what);
    0
}
