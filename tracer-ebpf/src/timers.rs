//! TIME_WAIT by tracepoints, where functions cannot be probed (`mini_sockets`). A mini-socket lives exactly as long as its
//! timer is armed, and timers are traced: `timer:timer_start` begins it, `timer:timer_expire_entry` and
//! `timer:timer_cancel` end it. (`net/ipv4/inet_timewait_sock.c`: `inet_twsk_schedule`, `tw_timer_handler`,
//! `inet_twsk_deschedule_put`.) The price is a look at every timer of the machine.
//!
//! Each program runs twice (see `twice`).

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use tracer_ebpf::time_wait;

use crate::{
    fields::load,
    globals::{config, field, running},
    timewait,
};

#[btf_tracepoint(function = "timer_start")]
pub fn timer_start(ctx: BtfTracePointContext) -> i32 {
    if let Some(tw) = mini_socket(ctx.arg(0)) {
        timewait::started(tw);
    }
    0
}

#[btf_tracepoint(function = "timer_start")]
pub fn timer_start_again(ctx: BtfTracePointContext) -> i32 {
    if let Some(tw) = mini_socket(ctx.arg(0)) {
        timewait::started(tw);
    }
    0
}

#[btf_tracepoint(function = "timer_cancel")]
pub fn timer_cancel(ctx: BtfTracePointContext) -> i32 {
    if let Some(tw) = mini_socket(ctx.arg(0)) {
        timewait::look_whether_new(tw);
        timewait::stopped(tw, time_wait::CANCELLED);
    }
    0
}

#[btf_tracepoint(function = "timer_cancel")]
pub fn timer_cancel_again(ctx: BtfTracePointContext) -> i32 {
    if let Some(tw) = mini_socket(ctx.arg(0)) {
        timewait::stopped(tw, time_wait::CANCELLED);
    }
    0
}

#[btf_tracepoint(function = "timer_expire_entry")]
pub fn timer_expire_entry(ctx: BtfTracePointContext) -> i32 {
    if let Some(tw) = mini_socket(ctx.arg(0)) {
        timewait::stopped(tw, time_wait::EXPIRED);
    }
    0
}

#[btf_tracepoint(function = "timer_expire_entry")]
pub fn timer_expire_entry_again(ctx: BtfTracePointContext) -> i32 {
    if let Some(tw) = mini_socket(ctx.arg(0)) {
        timewait::stopped(tw, time_wait::EXPIRED);
    }
    0
}

/// The mini-socket that a timer belongs to, when it is one's.
#[inline(always)]
fn mini_socket(timer: *const u8) -> Option<*const u8> {
    let function: u64 = load(timer, field!(timer_function));
    (function == config!(tw_timer_handler) && running())
        .then(|| timer.wrapping_sub(field!(tw_timer) as usize))
}
