//! `tcp:tcp_send_reset` (with the kernel's reason from 6.11 on) and `tcp:tcp_receive_reset`.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tracer_ebpf::{Conn, MISSING, ResetRecord, Tuple, conn_flag, kind, netns_count, state};

use crate::{
    connections,
    fields::{load, mapped, probe},
    flows,
    globals::{CONNS, config, count_in, field, now, running},
    ring, timewait,
    twice::{self, Twice},
};

/// Reason of a kernel that gives none.
const NO_REASON: u32 = u32::MAX;

/// Up to 6.10: (sk, skb).
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    first(ctx.arg(0), ctx.arg(1), NO_REASON)
}

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset_again(ctx: BtfTracePointContext) -> i32 {
    second(ctx.arg(0), ctx.arg(1), NO_REASON)
}

/// From 6.11 on: (sk, skb, reason).
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset_reason(ctx: BtfTracePointContext) -> i32 {
    first(ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset_reason_again(ctx: BtfTracePointContext) -> i32 {
    second(ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

/// An active reset has a socket, an answer a segment.
#[inline(always)]
fn subject(sk: *const u8, skb: *const u8) -> *const u8 {
    if skb.is_null() { sk } else { skb }
}

#[inline(always)]
pub fn first(sk: *const u8, skb: *const u8, reason: u32) -> i32 {
    sent(sk, skb, reason);
    twice::note(Twice::Reset, subject(sk, skb), 0);
    0
}

/// See `twice`.
#[inline(always)]
fn second(sk: *const u8, skb: *const u8, reason: u32) -> i32 {
    if !twice::enter(Twice::Reset, subject(sk, skb), 0) {
        sent(sk, skb, reason);
    }
    twice::leave(Twice::Reset);
    0
}

/// `sk` is null, or a listener or mini-socket, when the reset answers a segment that fits no connection.
#[inline(always)]
fn sent(sk: *const u8, skb: *const u8, reason: u32) -> i32 {
    if !running() {
        return 0;
    }
    count_in(namespace(sk, skb), 0, netns_count::OUT_RSTS, 1);
    let Some(conn) = CONNS.get_ptr_mut(sk as u64) else {
        if !sk.is_null() && load::<u8>(sk, field!(skc_state)) == state::TIME_WAIT && timewait::followed() {
            timewait::reset_sent(sk, if reason == NO_REASON { 0 } else { reason });
        }
        without_socket(sk, skb, reason);
        return 0;
    };
    // SAFETY: a live map value.
    let conn = unsafe { &mut *conn };
    if conn.role == tracer_ebpf::role::LISTENER {
        without_socket(sk, skb, reason);
        return 0;
    }
    conn.flags |= conn_flag::RST_SENT;
    if reason != NO_REASON {
        conn.reset_reason = reason;
    }
    record(conn, true, reason);
    if conn.flags & conn_flag::CLOSE_PENDING != 0 {
        connections::finish(sk, conn, now());
    }
    0
}

/// A `reset` record for a segment that fits no connection here: its ends are read from the segment.
#[inline(never)]
fn without_socket(sk: *const u8, skb: *const u8, reason: u32) -> Option<()> {
    let members = [field!(skb_head), field!(skb_network_header), field!(skb_transport_header)];
    if config!(events) == 0 || skb.is_null() || members.contains(&MISSING) {
        return None;
    }
    let head: u64 = load(skb, members[0]);
    let ip = (head + u64::from(load::<u16>(skb, members[1]))) as *const u8;
    let tcp = (head + u64::from(load::<u16>(skb, members[2]))) as *const u8;
    let mut tuple = Tuple { netns: namespace(sk, skb), ..Tuple::default() };
    if probe::<u8>(ip, 0)? >> 4 == 4 {
        tuple.remote_addr = mapped(probe(ip, 12)?);
        tuple.local_addr = mapped(probe(ip, 16)?);
    } else {
        tuple.remote_addr = probe(ip, 8)?;
        tuple.local_addr = probe(ip, 24)?;
    }
    tuple.remote_port = u16::from_be(probe(tcp, 0)?);
    tuple.local_port = u16::from_be(probe(tcp, 2)?);
    if connections::wanted(&tuple) {
        write(0, &tuple, true, reason, state::CLOSE);
    }
    Some(())
}

/// The network namespace (inode) that a reset is sent in: the socket's, or without one that of the device that the
/// segment came in on. 0 when neither tells.
#[inline(always)]
fn namespace(sk: *const u8, skb: *const u8) -> u32 {
    let net: u64 = if !sk.is_null() {
        load(sk, field!(skc_net))
    } else if !skb.is_null() && field!(skb_dev) != MISSING && field!(dev_net) != MISSING {
        let dev: u64 = load(skb, field!(skb_dev));
        probe(dev as *const u8, field!(dev_net)).unwrap_or(0)
    } else {
        0
    };
    probe(net as *const u8, field!(net_inum)).unwrap_or(0)
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    received(ctx.arg(0))
}

#[inline(always)]
pub fn first_received(sk: *const u8) -> i32 {
    received(sk);
    twice::note(Twice::ResetReceived, sk, 0);
    0
}

/// Behind [`first_received`] only.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset_again(ctx: BtfTracePointContext) -> i32 {
    let sk = ctx.arg(0);
    if !twice::enter(Twice::ResetReceived, sk, 0) {
        received(sk);
    }
    twice::leave(Twice::ResetReceived);
    0
}

#[inline(always)]
fn received(sk: *const u8) -> i32 {
    let Some(conn) = CONNS.get_ptr_mut(&(sk as u64)) else { return 0 };
    // SAFETY: a live map value.
    let conn = unsafe { &mut *conn };
    // `tcp_reset` traces this also where it only ends an orphan for which data came: nothing was received then, and the
    // RST that goes out comes after the socket.
    let orphan = conn.state == state::FIN_WAIT1 || conn.state == state::FIN_WAIT2;
    if orphan && flows::no_reset_came(conn) {
        conn.flags |= conn_flag::RST_SENT | conn_flag::ABORTED_ON_DATA;
        return 0;
    }
    conn.flags |= conn_flag::RST_RECEIVED;
    record(conn, false, NO_REASON);
    0
}

#[inline(always)]
fn record(conn: &mut Conn, sent: bool, reason: u32) {
    if config!(events) == 0 {
        return;
    }
    if !write(conn.id, &conn.tuple, sent, reason, conn.state) {
        conn.lost += 1;
    }
}

/// One `reset` record; false when it was lost.
#[inline(always)]
fn write(conn: u64, tuple: &Tuple, sent: bool, reason: u32, at: u8) -> bool {
    let Some(slot) = ring::reserve::<ResetRecord>(kind::RESET, 0, now()) else { return false };
    // SAFETY: the slot's members.
    unsafe {
        (*slot.0).conn = conn;
        (*slot.0).tuple = *tuple;
        (*slot.0).reason = reason;
        (*slot.0).sent = u8::from(sent);
        (*slot.0).state = at;
        (*slot.0).pad = [0; 2];
    }
    slot.submit(ring::wake_flags());
    true
}
