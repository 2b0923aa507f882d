//! `sock:inet_sock_set_state`, the trace of `tcp_set_state`, and the end of the socket, `tcp:tcp_destroy_sock`.

use aya_ebpf::{
    EbpfContext, helpers::bpf_get_current_pid_tgid, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use tracer_ebpf::{
    Conn, StateRecord, TIME_UNSEEN, Tuple, conn_flag, kind, milestone, netns_count, owner_source, role, state,
};

use crate::{
    connections,
    fields::{Members, TcpSock},
    flows,
    globals::{
        CONNECTING, CONNS, config, count_in, debug, is_by_perf, now, opaque, running, tables_are_whole,
    },
    owner, ring, timewait,
    twice::{self, Twice},
};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let (sk, old, new) = arguments(&ctx);
    first(&ctx, sk, old, new)
}

#[inline(always)]
pub fn first<C: EbpfContext>(ctx: &C, sk: *const u8, old: u8, new: u8) -> i32 {
    if handle(ctx, sk, old, new) {
        twice::note(Twice::State, sk, change_of(old, new));
    }
    0
}

/// The same program again; see `twice`.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state_again(ctx: BtfTracePointContext) -> i32 {
    let (sk, old, new) = arguments(&ctx);
    let noted = twice::enter(Twice::State, sk, change_of(old, new));
    if !is_handled(sk, old, new, noted) {
        handle(&ctx, sk, old, new);
    }
    twice::leave(Twice::State);
    0
}

/// Whether the first program has handled a change, by the note and the table: if a connection is in the state that it left, a note
/// was another event's; if it is in the one that it reached, this event's note was lost. Where a task can be preempted between
/// the two (`perf`), it may go on much later or on another processor, without its note: what closes and is in no table was taken
/// out by the first. A function of its own, so that the verifier goes through what follows once.
#[inline(never)]
fn is_handled(sk: *const u8, old: u8, new: u8, noted: bool) -> bool {
    let Some(conn) = CONNS.get_ptr(&(sk as u64)) else {
        return noted || is_by_perf() && new == state::CLOSE;
    };
    // SAFETY: a live map value.
    let (at, reached) = unsafe { ((*conn).state, (*conn).states_len != 0) };
    let is_there = reached && at == if noted { old } else { new };
    is_there != noted
}

#[inline(always)]
fn arguments(ctx: &BtfTracePointContext) -> (*const u8, u8, u8) {
    (ctx.arg(0), ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8)
}

#[inline(always)]
fn handle<C: EbpfContext>(_ctx: &C, sk: *const u8, old: u8, new: u8) -> bool {
    // `close` after `shutdown` sets the state that is there already (`tcp_close_state`).
    if old == new || !running() {
        return false;
    }
    let Some(tp) = TcpSock::from_sock(sk) else { return false };
    debug!(_ctx, "a socket changes from state {} to {}", old, new);
    change(sk, tp, old, new);
    true
}

#[inline(always)]
fn change_of(old: u8, new: u8) -> u64 {
    u64::from(old) << 8 | u64::from(new)
}

#[inline(always)]
fn change(sk: *const u8, tp: TcpSock, old: u8, new: u8) -> Option<()> {
    let now_ns = now();
    count_change(tp, old, new);
    let conn = match (old, new) {
        (_, state::SYN_SENT) => connect(sk, tp, now_ns)?,
        (state::LISTEN, state::SYN_RECV) => connections::open(sk, tp, role::SERVER, now_ns)?,
        (_, state::LISTEN) => return listen(sk, tp, now_ns),
        _ => known(sk, tp, old, new, now_ns)?,
    };
    connections::push_state(conn, new, now_ns);
    conn.old_state = old;
    if new == state::ESTABLISHED {
        established(sk, tp, conn, now_ns)?;
    }
    if config!(events) != 0 {
        report(conn, now_ns);
    }
    if new == state::CLOSE {
        close(sk, tp, conn, now_ns);
    }
    Some(())
}

/// The entry of a socket that is beyond its first change. The kernel may have run no program for the change before this
/// one (see `twice`): what that was, this one tells.
#[inline(never)]
fn known(sk: *const u8, tp: TcpSock, old: u8, new: u8, now_ns: u64) -> Option<&'static mut Conn> {
    let conn = match CONNS.get_ptr_mut(&(sk as u64)) {
        // SAFETY: a live map value.
        Some(conn) => unsafe { &mut *conn },
        None => accepted_unseen(sk, tp, old, now_ns)?,
    };
    // No state comes twice (RFC 9293 §3.3.2): this change has been handled.
    if conn.state == new {
        return None;
    }
    if conn.state != old {
        connections::push_state_unseen(conn, old);
        if conn.flags & conn_flag::IDENTIFIED == 0 && old != state::SYN_RECV {
            established(sk, tp, conn, now_ns)?;
        }
    }
    Some(conn)
}

/// A connection that is in no table, though all were entered: its beginning was not seen. `connect` runs in a task, which
/// no other event interrupts; so this one was accepted.
#[inline(never)]
fn accepted_unseen(sk: *const u8, tp: TcpSock, old: u8, now_ns: u64) -> Option<&'static mut Conn> {
    // Who connected is what those filters ask of a client's connection, which is in no table because of it.
    if !tables_are_whole() || config!(filter_pids) != 0 || config!(filter_comms) != 0 {
        return None;
    }
    if matches!(old, state::CLOSE | state::LISTEN | state::SYN_SENT) {
        return None;
    }
    let mut tuple = Tuple::default();
    tp.tuple(&mut tuple);
    if !connections::wanted(&tuple) {
        return None;
    }
    let conn = connections::open(sk, tp, role::UNKNOWN, now_ns)?;
    connections::identify(tp, conn);
    count_in(conn.tuple.netns, conn.netns_cookie, netns_count::PASSIVE_OPENS, 1);
    connections::push_state_unseen(conn, old);
    conn.retrans_seen = tp.total_retrans();
    if old != state::SYN_RECV {
        flows::join(conn, tp.snd_nxt(), tp.rcv_nxt(), false, now_ns);
        connections::report(conn, milestone::ESTABLISHED, now_ns);
    }
    Some(conn)
}

/// The kernel's own counters of state changes (RFC 4022).
#[inline(always)]
fn count_change(tp: TcpSock, old: u8, new: u8) {
    let index = match (old, new) {
        // tcp_connect
        (_, state::SYN_SENT) => netns_count::ACTIVE_OPENS,
        // tcp_create_openreq_child
        (state::LISTEN, state::SYN_RECV) => netns_count::PASSIVE_OPENS,
        // tcp_set_state
        (state::ESTABLISHED | state::CLOSE_WAIT, state::CLOSE) => netns_count::ESTAB_RESETS,
        // tcp_done, which a refused or timed-out attempt ends in; giving up the socket does not (no error, or not
        // the network's).
        (state::SYN_SENT | state::SYN_RECV, state::CLOSE) if tp.error() != 0 => netns_count::ATTEMPT_FAILS,
        _ => return,
    };
    let (inode, cookie) = tp.netns();
    count_in(inode, cookie, index, 1);
    // A connect that found no free port sent no SYN.
    if old == state::SYN_SENT && new == state::CLOSE && tp.local_port() == 0 {
        count_in(inode, cookie, netns_count::ACTIVE_OPENS, u64::MAX);
    }
}

/// One `state` record.
#[inline(never)]
fn report(conn: &mut Conn, now_ns: u64) {
    let Some(slot) = ring::reserve::<StateRecord>(kind::STATE, 0, now_ns) else {
        conn.lost += 1;
        return;
    };
    // SAFETY: the slot's members.
    unsafe {
        (*slot.0).conn = conn.id;
        (*slot.0).tuple = conn.tuple;
        // A timeline that is full has no place for this change.
        (*slot.0).in_state_ns = if conn.flags & conn_flag::STATES_CUT != 0 {
            TIME_UNSEEN
        } else {
            conn.in_state_ns(opaque(u64::from(conn.states_len).wrapping_sub(2)) as usize)
        };
        (*slot.0).old_state = conn.old_state;
        (*slot.0).new_state = conn.state;
        (*slot.0).pad = [0; 6];
    }
    slot.submit(ring::wake_flags());
}

/// CLOSE→SYN_SENT runs in `connect`, so `current` is the owner. The local port may still be 0.
#[inline(never)]
fn connect(sk: *const u8, tp: TcpSock, now_ns: u64) -> Option<&'static mut Conn> {
    let conn = connections::open(sk, tp, role::CLIENT, now_ns)?;
    tp.tuple(&mut conn.tuple);
    owner::current(&mut conn.owner, owner_source::CONNECT);
    let task = bpf_get_current_pid_tgid();
    // Only TIME_WAIT's end by reuse is told from it: a task that does not fit is a cause not known.
    let _ = CONNECTING.insert(task, sk as u64, 0);
    // With port 0 the local port is still to be chosen, and may be one that a filter names: then ESTABLISHED or the
    // failure decides.
    if !connections::owner_wanted(&conn.owner)
        || conn.tuple.local_port != 0 && !connections::wanted(&conn.tuple)
    {
        connections::forget(sk);
        return None;
    }
    owner::introduce(&conn.owner, now_ns);
    Some(conn)
}

#[inline(never)]
fn established(sk: *const u8, tp: TcpSock, conn: &mut Conn, now_ns: u64) -> Option<()> {
    let retransmits = tp.total_retrans();
    if conn.role == role::SERVER {
        // tcp_create_openreq_child copies the request's count of SYN-ACK retransmissions.
        conn.synack_retrans = retransmits;
        conn.retrans_seen = retransmits;
    } else {
        connections::settle_retransmits(conn, retransmits);
    }
    connections::identify(tp, conn);
    if !connections::wanted(&conn.tuple) {
        connections::forget(sk);
        return None;
    }
    flows::join(conn, tp.write_seq(), tp.rcv_nxt(), true, now_ns);
    connections::report(conn, milestone::ESTABLISHED, now_ns);
    Some(())
}

/// CLOSE→LISTEN runs in `listen`: the owner of the listener is the answer for children nobody has read from yet.
#[inline(never)]
fn listen(sk: *const u8, tp: TcpSock, now_ns: u64) -> Option<()> {
    let conn = connections::open(sk, tp, role::LISTENER, now_ns)?;
    connections::identify(tp, conn);
    conn.state = state::LISTEN;
    owner::current(&mut conn.owner, owner_source::LISTEN);
    owner::introduce(&conn.owner, now_ns);
    connections::report(conn, milestone::LISTENING, now_ns);
    Some(())
}

#[inline(never)]
fn close(sk: *const u8, tp: TcpSock, conn: &mut Conn, now_ns: u64) {
    if conn.role == role::LISTENER {
        connections::finish(sk, conn, now_ns);
        return;
    }
    connections::refresh(tp, conn);
    if conn.flags & conn_flag::IDENTIFIED == 0 {
        // Never established: this is the first time that the tuple is complete, unless the connect failed for lack
        // of a port; the remote end is known either way.
        let remote = (conn.tuple.remote_addr, conn.tuple.remote_port);
        connections::identify(tp, conn);
        if conn.role == role::CLIENT {
            (conn.tuple.remote_addr, conn.tuple.remote_port) = remote;
        }
    }
    conn.closed_ns = now_ns;
    // Two segments may complete one handshake on two CPUs. The child that comes second is closed, without
    // `tcp_set_state`, and what it took over from the request is the first one's.
    if conn.role == role::SERVER && conn.old_state == state::SYN_RECV && conn.error == 0 && tp.is_bound() {
        conn.flags |= conn_flag::DUPLICATE;
        (conn.retrans, conn.synack_retrans) = (0, 0);
        connections::finish(sk, conn, now_ns);
        return;
    }
    // What a child in SYN_RECV has are the request's.
    if conn.role != role::SERVER || conn.old_state != state::SYN_RECV {
        connections::settle_retransmits(conn, conn.retrans);
    }
    let followed = timewait::followed();
    if followed && timewait::took_over(conn) {
        conn.flags |= conn_flag::MINI_SOCKET;
    } else if connections::reset_follows(tp, conn) {
        conn.flags |= conn_flag::CLOSE_PENDING;
        return;
    } else if conn.old_state == state::FIN_WAIT2 && conn.error == 0 && flows::has_more(conn, tp.rcv_nxt()) {
        // What acknowledged the orphan's FIN brought data (`tcp_rcv_state_process`, FIN_WAIT1); its RST comes after it.
        conn.flags |= conn_flag::RST_SENT | conn_flag::ABORTED_ON_DATA;
    } else if connections::becomes_mini_socket(conn) {
        conn.flags |= if followed { conn_flag::TIME_WAIT_OVERFLOW } else { conn_flag::MINI_SOCKET };
    }
    connections::finish(sk, conn, now_ns);
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn tcp_destroy_sock(ctx: BtfTracePointContext) -> i32 {
    destroyed(ctx.arg(0))
}

/// The same program again (see `twice`): it finds nothing left to do.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn tcp_destroy_sock_again(ctx: BtfTracePointContext) -> i32 {
    destroyed(ctx.arg(0))
}

#[inline(always)]
pub fn destroyed(sk: *const u8) -> i32 {
    if !running() {
        return 0;
    }
    if let Some(conn) = CONNS.get_ptr_mut(&(sk as u64)) {
        // SAFETY: a live map value.
        let conn = unsafe { &mut *conn };
        if conn.state != state::CLOSE && conn.role != role::LISTENER {
            conn.flags |= conn_flag::END_MISSED;
            connections::unseen(conn);
            if let Some(tp) = TcpSock::from_sock(sk) {
                connections::refresh(tp, conn);
                connections::settle_retransmits(conn, conn.retrans);
            }
        }
        connections::finish(sk, conn, now());
    }
    0
}
