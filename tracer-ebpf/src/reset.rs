//! `tcp:tcp_send_reset` (with the kernel's reason from 6.11 on) and `tcp:tcp_receive_reset`.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tracer_ebpf::{Conn, MISSING, ResetRecord, conn_flag, counter, kind, state};

use crate::{
    connections,
    fields::{load, probe},
    flows,
    globals::{CONNS, config, count_own, field, now},
    ring, timewait,
};

/// Reason of a kernel that gives none.
const NO_REASON: u32 = u32::MAX;

/// Up to 6.10: (sk, skb).
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    sent(ctx.arg(0), ctx.arg(1), NO_REASON)
}

/// From 6.11 on: (sk, skb, reason).
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset_reason(ctx: BtfTracePointContext) -> i32 {
    sent(ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

/// `sk` is null, or a listener or mini-socket, when the reset answers a segment that fits no connection.
#[inline(always)]
fn sent(sk: *const u8, skb: *const u8, reason: u32) -> i32 {
    count_own(namespace(sk, skb), counter::OUT_RSTS, 1);
    let Some(conn) = CONNS.get_ptr_mut(sk as u64) else {
        if !sk.is_null() && load::<u8>(sk, field!(skc_state)) == state::TIME_WAIT && timewait::followed() {
            timewait::reset_sent(sk, if reason == NO_REASON { 0 } else { reason });
        }
        return 0;
    };
    // SAFETY: a live map value.
    let conn = unsafe { &mut *conn };
    if conn.role == tracer_ebpf::role::LISTENER {
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
    let sk: *const u8 = ctx.arg(0);
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
    let Some(slot) = ring::reserve::<ResetRecord>(kind::RESET, 0, now()) else {
        conn.lost += 1;
        return;
    };
    // SAFETY: the slot's members.
    unsafe {
        (*slot.0).conn = conn.id;
        (*slot.0).tuple = conn.tuple;
        (*slot.0).reason = reason;
        (*slot.0).sent = u8::from(sent);
        (*slot.0).state = conn.state;
        (*slot.0).pad = [0; 2];
    }
    slot.submit(ring::wake_flags());
}
