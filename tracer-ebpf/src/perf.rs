//! The tracepoints once more, by perf: for kernels (since 7.0) where a task can be preempted in a `tp_btf` program. For as long
//! as it waits for its turn, the kernel skips that program for everybody else on its CPU (`prog->active`). Perf's programs are
//! never preempted. What they miss interrupts one of them: then the `tp_btf` program, which runs second and has little to do
//! as a rule, is the one that tells (`twice`).
//!
//! The daemon has compared the offsets with the kernel's `format` files.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{owner, reset, retransmit, state};

/// A member of the event's record; nothing where it cannot be read, which no kernel refuses.
#[inline(always)]
fn at<T: Default>(ctx: &TracePointContext, offset: usize) -> T {
    // SAFETY: integers and addresses, of which any bytes are valid.
    unsafe { ctx.read_at(offset) }.unwrap_or_default()
}

#[inline(always)]
fn address(ctx: &TracePointContext, offset: usize) -> *const u8 {
    at::<u64>(ctx, offset) as *const u8
}

#[tracepoint]
pub fn inet_sock_set_state_perf(ctx: TracePointContext) -> i32 {
    state::first(&ctx, address(&ctx, 8), at::<u32>(&ctx, 16) as u8, at::<u32>(&ctx, 20) as u8)
}

#[tracepoint]
pub fn tcp_destroy_sock_perf(ctx: TracePointContext) -> i32 {
    state::destroyed(address(&ctx, 8))
}

#[tracepoint]
pub fn tcp_retransmit_skb_perf(ctx: TracePointContext) -> i32 {
    retransmit::first(address(&ctx, 16), address(&ctx, 8), at(&ctx, 76))
}

#[tracepoint]
pub fn tcp_retransmit_synack_perf(ctx: TracePointContext) -> i32 {
    retransmit::first_synack(address(&ctx, 8), address(&ctx, 16))
}

#[tracepoint]
pub fn tcp_send_reset_perf(ctx: TracePointContext) -> i32 {
    reset::first(address(&ctx, 16), address(&ctx, 8), at(&ctx, 28))
}

#[tracepoint]
pub fn tcp_receive_reset_perf(ctx: TracePointContext) -> i32 {
    reset::first_received(address(&ctx, 8))
}

#[tracepoint]
pub fn sock_recv_length_perf(ctx: TracePointContext) -> i32 {
    owner::used(address(&ctx, 8))
}

#[tracepoint]
pub fn sock_send_length_perf(ctx: TracePointContext) -> i32 {
    owner::used(address(&ctx, 8))
}
