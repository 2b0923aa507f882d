//! `tcp:tcp_retransmit_skb` and `tcp:tcp_retransmit_synack`.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tracer_ebpf::{MAX_SYN_TIMES, MISSING, RetransmitRecord, Tuple, kind, netns_count, state};

use crate::{
    connections,
    fields::{AF_INET6, TcpSock, load, mapped},
    globals::{CONNS, config, count_in, field, now, running},
    ring,
    twice::{self, Twice},
};

/// Up to 6.16: (sk, skb), and only what was sent.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    first(ctx.arg(0), ctx.arg(1), 0)
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb_again(ctx: BtfTracePointContext) -> i32 {
    second(ctx.arg(0), ctx.arg(1), 0)
}

/// From 6.17 on: (sk, skb, err), also for what could not be sent.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb_err(ctx: BtfTracePointContext) -> i32 {
    first(ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb_err_again(ctx: BtfTracePointContext) -> i32 {
    second(ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
pub fn first(sk: *const u8, skb: *const u8, err: i32) -> i32 {
    retransmitted(sk, skb, err);
    twice::note(Twice::Retransmit, skb, 0);
    0
}

/// See `twice`.
#[inline(always)]
fn second(sk: *const u8, skb: *const u8, err: i32) -> i32 {
    if !twice::enter(Twice::Retransmit, skb, 0) {
        retransmitted(sk, skb, err);
    }
    twice::leave(Twice::Retransmit);
    0
}

/// Segments and bytes are read from `tcp_sock` at the end; what only this tracepoint tells is which were SYNs. The kernel
/// counts what the layers below refused as well (`err`), but that is no `retransmit` record.
#[inline(always)]
fn retransmitted(sk: *const u8, skb: *const u8, err: i32) -> i32 {
    if !running() {
        return 0;
    }
    let segments = count_segments(sk, skb);
    let Some(conn) = CONNS.get_ptr_mut(&(sk as u64)) else { return 0 };
    // SAFETY: a live map value.
    let conn = unsafe { &mut *conn };
    conn.retrans_seen += u32::from(segments);
    if conn.state == state::SYN_SENT {
        let at = conn.syn_retrans as usize;
        if at < MAX_SYN_TIMES {
            conn.syn_at_us[at] = ((now() - conn.opened_ns) / 1000) as u32;
        }
        conn.syn_retrans += 1;
    }
    if (config!(events) != 0 || conn.flow != 0) && err == 0 && !report(conn.id, &conn.tuple, conn.state) {
        conn.lost += 1;
    }
    0
}

/// `__tcp_retransmit_skb` counts every segment of a super-packet.
#[inline(always)]
fn count_segments(sk: *const u8, skb: *const u8) -> u16 {
    let Some(tp) = TcpSock::from_sock(sk) else { return 0 };
    let at = field!(skb_gso_segs);
    let segments = if at == MISSING { 1 } else { load::<u16>(skb, at) };
    let (inode, cookie) = tp.netns();
    count_in(inode, cookie, netns_count::RETRANS_SEGS, u64::from(segments));
    segments
}

/// The connection does not exist yet; its count comes with the child socket. `sk` is the listener.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    answered_again(ctx.arg(0), ctx.arg(1))
}

#[inline(always)]
pub fn first_synack(listener: *const u8, request: *const u8) -> i32 {
    answered_again(listener, request);
    twice::note(Twice::SynAck, request, 0);
    0
}

/// Behind [`first_synack`] only.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn tcp_retransmit_synack_again(ctx: BtfTracePointContext) -> i32 {
    let (listener, request) = (ctx.arg(0), ctx.arg(1));
    if !twice::enter(Twice::SynAck, request, 0) {
        answered_again(listener, request);
    }
    twice::leave(Twice::SynAck);
    0
}

#[inline(always)]
fn answered_again(listener: *const u8, request: *const u8) -> i32 {
    let Some(tp) = TcpSock::from_sock(listener).filter(|_| running()) else { return 0 };
    let (inode, cookie) = tp.netns();
    count_in(inode, cookie, netns_count::RETRANS_SEGS, 1);
    if config!(events) == 0 {
        return 0;
    }
    let mut tuple = Tuple { netns: inode, ..Tuple::default() };
    // A request sock begins with the `sock_common` of the connection to be; `skc_num` is its local port.
    tuple.local_port = load(request, field!(skc_num));
    tuple.remote_port = u16::from_be(load(request, field!(skc_dport)));
    if load::<u16>(request, field!(skc_family)) == AF_INET6 {
        tuple.local_addr = load(request, field!(skc_v6_rcv_saddr));
        tuple.remote_addr = load(request, field!(skc_v6_daddr));
    } else {
        tuple.local_addr = mapped(load(request, field!(skc_rcv_saddr)));
        tuple.remote_addr = mapped(load(request, field!(skc_daddr)));
    }
    if connections::wanted(&tuple) {
        report(0, &tuple, state::NEW_SYN_RECV);
    }
    0
}

/// One `retransmit` record; false when it was lost.
#[inline(always)]
fn report(conn: u64, tuple: &Tuple, at: u8) -> bool {
    let Some(slot) = ring::reserve::<RetransmitRecord>(kind::RETRANSMIT, 0, now()) else { return false };
    // SAFETY: the slot's members.
    unsafe {
        (*slot.0).conn = conn;
        (*slot.0).tuple = *tuple;
        (*slot.0).state = at;
        (*slot.0).synack = u8::from(at == state::NEW_SYN_RECV);
        (*slot.0).pad = [0; 6];
    }
    slot.submit(ring::wake_flags());
    true
}
