//! The tracepoints once more, by perf: for kernels (7.3, not 6.18) where a task can be preempted in a `tp_btf` program. For as long
//! as it waits for its turn, the kernel skips that program for everybody else on its CPU (`prog->active`). Perf's programs are
//! never preempted. What they miss interrupts one of them: then the `tp_btf` program, which runs second and has little to do
//! as a rule, is the one that tells (`twice`).
//!
//! The daemon has compared the offsets with the kernel's `format` files.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{fields::cast, globals::config, owner, reset, retransmit, state};

/// A member of the event's record; nothing where it cannot be read, which no kernel refuses.
#[inline(always)]
fn at<T: Default>(ctx: &TracePointContext, offset: usize) -> T {
    // SAFETY: integers and addresses, of which any bytes are valid.
    unsafe { ctx.read_at(offset) }.unwrap_or_default()
}

/// An address, as one of a structure; it may be null.
macro_rules! address {
    ($ctx:ident, $offset:literal, $kind:ident) => {
        cast(at::<u64>(&$ctx, $offset) as *const u8, config!($kind))
    };
}

#[tracepoint]
pub fn inet_sock_set_state_perf(ctx: TracePointContext) -> i32 {
    state::first(&ctx, address!(ctx, 8, tcp_sock_type), at::<u32>(&ctx, 16) as u8, at::<u32>(&ctx, 20) as u8)
}

#[tracepoint]
pub fn tcp_destroy_sock_perf(ctx: TracePointContext) -> i32 {
    state::destroyed(address!(ctx, 8, tcp_sock_type))
}

#[tracepoint]
pub fn tcp_retransmit_skb_perf(ctx: TracePointContext) -> i32 {
    retransmit::first(address!(ctx, 16, tcp_sock_type), address!(ctx, 8, sk_buff_type), at(&ctx, 76))
}

#[tracepoint]
pub fn tcp_retransmit_synack_perf(ctx: TracePointContext) -> i32 {
    retransmit::first_synack(address!(ctx, 8, tcp_sock_type), address!(ctx, 16, request_sock_type))
}

#[tracepoint]
pub fn tcp_send_reset_perf(ctx: TracePointContext) -> i32 {
    reset::first(address!(ctx, 16, tcp_sock_type), address!(ctx, 8, sk_buff_type), at(&ctx, 28))
}

#[tracepoint]
pub fn tcp_receive_reset_perf(ctx: TracePointContext) -> i32 {
    reset::first_received(address!(ctx, 8, tcp_sock_type))
}

#[tracepoint]
pub fn sock_recv_length_perf(ctx: TracePointContext) -> i32 {
    owner::used(address!(ctx, 8, tcp_sock_type))
}

#[tracepoint]
pub fn sock_send_length_perf(ctx: TracePointContext) -> i32 {
    owner::used(address!(ctx, 8, tcp_sock_type))
}
