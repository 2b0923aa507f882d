//! TIME_WAIT: a mini-socket takes over from the socket (`tcp_time_wait`). What `mini_sockets` or `timers` see of it is told
//! here, the same whichever of them is attached. (`net/ipv4/inet_timewait_sock.c`)
//!
//! What runs twice (see `twice`) is told by the table that all is done.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use tracer_ebpf::{
    Conn, MISSING, TimeWait, TimeWaitRecord, Tuple, conn_flag, counter, end_cause, kind, netns_count, state,
    tcp_flag, time_wait,
};

use crate::{
    fields::{AF_INET6, mapped, probe},
    globals::{
        CONNECTING, CONNS, TIME_WAITS, config, count, count_in, field, now, tables_are_full,
        tables_are_whole, time_wait_is_followed,
    },
    ring,
};

/// References to a mini-socket that its own tables and timer hold (`inet_twsk_hashdance`): with more, somebody is working on it.
/// Who arms the timer of one that is known then does it once more; a new one may be found by another CPU just before its timer
/// is armed for the first time.
const OWN_REFERENCES: u32 = 3;

/// A mini-socket has no references of its own until it is in the tables (`inet_twsk_hashdance`).
const SETTLED_NS: u64 = 1_000_000_000;

/// How long after a SYN or RST an end is still its work: the classifier and the stack see it in the same run, or on
/// loopback with the backlog between. A virtual machine's processor may be away in between.
const HINT_NS: u64 = 40_000_000;

/// Both ends of a mini-socket, which begins with a `sock_common`. Returns its address family.
#[inline(always)]
fn identify(tw: *const u8, tuple: &mut Tuple) -> Option<u8> {
    let family: u16 = probe(tw, field!(skc_family))?;
    tuple.local_port = probe(tw, field!(skc_num))?;
    tuple.remote_port = u16::from_be(probe(tw, field!(skc_dport))?);
    if family == AF_INET6 {
        tuple.local_addr = probe(tw, field!(skc_v6_rcv_saddr))?;
        tuple.remote_addr = probe(tw, field!(skc_v6_daddr))?;
    } else {
        tuple.local_addr = mapped(probe(tw, field!(skc_rcv_saddr))?);
        tuple.remote_addr = mapped(probe(tw, field!(skc_daddr))?);
    }
    let net: u64 = probe(tw, field!(skc_net))?;
    tuple.netns = probe(net as *const u8, field!(net_inum))?;
    Some(family as u8)
}

/// Whether what a table knows, a socket or mini-socket, is still at its address. A cookie is 0 until somebody asks for it
/// (`sock_gen_cookie`, as `ss` does): one that was not known may be there by now, and both ends have to tell. A listener
/// that was not bound before has got its port since (`inet_csk_listen_start`).
#[inline(never)]
pub fn is_at(sk: *const u8, tuple: &Tuple, cookie: u64) -> bool {
    if cookie != 0 {
        return probe(sk, field!(skc_cookie)) == Some(cookie);
    }
    let mut found = Tuple::default();
    let is_socket = identify(sk, &mut found).is_some();
    found.local_port *= u16::from(tuple.local_port != 0);
    is_socket && found == *tuple
}

/// A mini-socket begins, or its timer is armed once more.
#[inline(never)]
pub fn started(tw: *const u8) -> Option<()> {
    let mut tuple = Tuple::default();
    let family = identify(tw, &mut tuple)?;
    let references: u32 = probe(tw, field!(skc_refcnt))?;
    let cookie = probe(tw, field!(skc_cookie))?;
    if let Some(known) = TIME_WAITS.get_ptr_mut(&tuple) {
        // SAFETY: a live map value.
        let known = unsafe { &mut *known };
        let is_same = known.tw == tw as u64 && (known.cookie == 0 || known.cookie == cookie);
        if known.cancelled_ns == 0 {
            if is_same {
                return Some(());
            }
            ended_unseen(&tuple);
        } else if is_same && references > OWN_REFERENCES {
            known.cancelled_ns = 0;
            count(counter::TIME_WAITS_ENDED, u64::MAX);
            count_in(tuple.netns, 0, netns_count::TIME_WAITS_ENDED, u64::MAX);
            report(tw, &tuple, known, time_wait::REARMED, end_cause::UNKNOWN);
            return Some(());
        }
    }
    let began = TimeWait { cookie, tw: tw as u64, began_ns: now(), family, ..TimeWait::default() };
    count(counter::TIME_WAITS_BEGUN, 1);
    count_in(tuple.netns, 0, netns_count::TIME_WAITS_BEGUN, 1);
    if TIME_WAITS.insert(&tuple, &began, 0).is_err() {
        count(counter::TIME_WAITS_FULL, 1);
        tables_are_full();
    }
    Some(())
}

/// Its timer is set anew, without being taken down: the peer's FIN came, or something that it had sent before.
#[inline(never)]
pub fn rearmed(tw: *const u8) -> Option<()> {
    let mut tuple = Tuple::default();
    identify(tw, &mut tuple)?;
    let known = TIME_WAITS.get_ptr_mut(&tuple)?;
    // SAFETY: a live map value.
    let known = unsafe { &mut *known };
    if known.tw == tw as u64 && known.cancelled_ns == 0 {
        report(tw, &tuple, known, time_wait::REARMED, end_cause::UNKNOWN);
    }
    Some(())
}

/// One that was there before the tracer.
#[inline(never)]
pub fn found(tw: *const u8) -> Option<()> {
    let mut tuple = Tuple::default();
    let family = identify(tw, &mut tuple)?;
    if TIME_WAITS.get_ptr(&tuple).is_some() {
        return None;
    }
    let found =
        TimeWait { cookie: probe(tw, field!(skc_cookie))?, tw: tw as u64, family, ..TimeWait::default() };
    if TIME_WAITS.insert(&tuple, &found, 0).is_err() {
        count(counter::TIME_WAITS_FULL, 1);
        tables_are_full();
        return None;
    }
    count(counter::TIME_WAITS_FOUND, 1);
    count_in(tuple.netns, 0, netns_count::TIME_WAITS_FOUND, 1);
    Some(())
}

/// A mini-socket ends; or its timer is taken down, which may be only to arm it once more.
#[inline(never)]
pub fn stopped(tw: *const u8, what: u16) -> Option<()> {
    let mut tuple = Tuple::default();
    identify(tw, &mut tuple)?;
    let known = TIME_WAITS.get_ptr_mut(&tuple)?;
    // SAFETY: a live map value.
    let known = unsafe { &mut *known };
    if known.tw != tw as u64 || what == time_wait::CANCELLED && known.cancelled_ns != 0 {
        return None;
    }
    // A timer that runs out is taken down first, which is traced as a cancellation (`expire_timers`).
    if known.cancelled_ns == 0 {
        count(counter::TIME_WAITS_ENDED, 1);
        count_in(tuple.netns, 0, netns_count::TIME_WAITS_ENDED, 1);
    }
    let now_ns = now();
    if what == time_wait::EXPIRED {
        count_in(tuple.netns, 0, netns_count::TIME_WAITS_EXPIRED, 1);
        report(tw, &tuple, known, what, end_cause::UNKNOWN);
        let _ = TIME_WAITS.remove(&tuple);
        return Some(());
    }
    known.cancelled_ns = now_ns;
    let cause = cause(&tuple, known, now_ns);
    if cause == end_cause::REUSED_BY_CONNECT {
        count_in(tuple.netns, 0, netns_count::TIME_WAITS_RECYCLED, 1);
    }
    report(tw, &tuple, known, what, cause);
    Some(())
}

/// One that ends and is in no table, though all were entered: its beginning was not seen. For the first event that
/// tells of an end.
#[inline(never)]
pub fn look_whether_new(tw: *const u8) -> Option<()> {
    let mut tuple = Tuple::default();
    let family = identify(tw, &mut tuple)?;
    if !tables_are_whole() || TIME_WAITS.get_ptr(&tuple).is_some() {
        return None;
    }
    let began =
        TimeWait { cookie: probe(tw, field!(skc_cookie))?, tw: tw as u64, family, ..TimeWait::default() };
    TIME_WAITS.insert(&tuple, &began, 0).ok()?;
    count(counter::UNSEEN, 1);
    count(counter::TIME_WAITS_BEGUN, 1);
    count_in(tuple.netns, 0, netns_count::TIME_WAITS_BEGUN, 1);
    Some(())
}

#[inline(always)]
fn ended_unseen(tuple: &Tuple) {
    count(counter::UNSEEN, 1);
    count(counter::TIME_WAITS_ENDED, 1);
    count_in(tuple.netns, 0, netns_count::TIME_WAITS_ENDED, 1);
}

/// Reports an entry whose mini-socket is gone: freed, or another one is at its address.
#[inline(never)]
pub fn look_whether_gone(tuple: &Tuple, known: &mut TimeWait, now_ns: u64) {
    let tw = known.tw as *const u8;
    let references: u32 = probe(tw, field!(skc_refcnt)).unwrap_or(0);
    let is_gone = references == 0 || !is_at(tw, tuple, known.cookie);
    // Read last: an entry that took the place of the one that was compared is young.
    if is_gone && known.cancelled_ns == 0 && now_ns.saturating_sub(known.began_ns) > SETTLED_NS {
        ended_unseen(tuple);
        known.cancelled_ns = now_ns;
        report(tw, tuple, known, time_wait::CANCELLED, end_cause::UNKNOWN);
    }
}

/// Why a timer is taken down, from what else is known at this moment.
#[inline(always)]
fn cause(tuple: &Tuple, known: &TimeWait, now_ns: u64) -> u8 {
    if known.hint != 0 && now_ns - known.hint_ns < HINT_NS {
        return if known.hint == tcp_flag::SYN { end_cause::REUSED_BY_SYN } else { end_cause::RESET };
    }
    let task = bpf_get_current_pid_tgid();
    // SAFETY: read at once.
    if let Some(sk) = unsafe { CONNECTING.get(&task) }
        && let Some(conn) = CONNS.get_ptr(sk)
    {
        // SAFETY: a live map value.
        let conn = unsafe { &*conn };
        if conn.state == state::SYN_SENT
            && conn.tuple.remote_port == tuple.remote_port
            && conn.tuple.remote_addr == tuple.remote_addr
        {
            return end_cause::REUSED_BY_CONNECT;
        }
    }
    let comm = bpf_get_current_comm().unwrap_or_default();
    if comm[0] == b'k' && comm[1] == b'w' && comm[2] == b'o' && comm[3] == b'r' && comm[4] == b'k' {
        return end_cause::NAMESPACE_EXIT;
    }
    if tuple.netns == config!(netns) { end_cause::KILLED } else { end_cause::UNKNOWN }
}

/// One `TIME_WAIT` record; false when it was lost.
#[inline(always)]
fn report(tw: *const u8, tuple: &Tuple, known: &TimeWait, what: u16, cause: u8) -> bool {
    let substate = probe::<u8>(tw, field!(tw_substate)).unwrap_or(0);
    let Some(slot) = ring::reserve::<TimeWaitRecord>(kind::TIME_WAIT, what, now()) else { return false };
    // SAFETY: the slot's members.
    unsafe {
        (*slot.0).conn = known.conn;
        (*slot.0).began_ns = known.began_ns;
        (*slot.0).tuple = *tuple;
        (*slot.0).substate = substate;
        (*slot.0).cause = cause;
        (*slot.0).family = known.family;
        (*slot.0).rst_sent = known.rst_sent;
        (*slot.0).reset_reason = known.reset_reason;
    }
    slot.submit(ring::wake_flags());
    true
}

/// Whether TIME_WAIT is followed on this kernel.
#[inline(always)]
pub fn followed() -> bool {
    field!(skc_cookie) != MISSING && time_wait_is_followed()
}

/// Whether a mini-socket took over from this socket: then it was made just before the socket's change to CLOSE.
#[inline(never)]
pub fn took_over(conn: &Conn) -> bool {
    let Some(known) = TIME_WAITS.get_ptr_mut(&conn.tuple) else { return false };
    // SAFETY: a live map value.
    let known = unsafe { &mut *known };
    // Without cookies: no other socket has had these ends since.
    let began_since = known.cookie != 0 || known.conn == 0 && known.began_ns > conn.opened_ns;
    if known.cookie != conn.cookie || !began_since {
        return false;
    }
    known.conn = conn.id;
    known.awaits_fin = u8::from(conn.flags & conn_flag::FIN_RECEIVED == 0);
    true
}

/// Reports that a mini-socket went on from FIN_WAIT2 to TIME_WAIT, if it did.
#[inline(never)]
pub fn look_for_fin(tuple: &Tuple, known: &mut TimeWait) {
    let tw = known.tw as *const u8;
    let substate = probe::<u8>(tw, field!(tw_substate)).unwrap_or(0);
    if known.cancelled_ns == 0 && substate == state::TIME_WAIT && is_at(tw, tuple, known.cookie) {
        // What finds no room in the ring is found again.
        known.awaits_fin = u8::from(!report(tw, tuple, known, time_wait::FIN_FOUND, end_cause::UNKNOWN));
    }
}

/// A SYN or RST arrived for these ends.
#[inline(never)]
pub fn hint(tuple: &Tuple, flags: u8, now_ns: u64) {
    if let Some(known) = TIME_WAITS.get_ptr_mut(tuple) {
        // SAFETY: a live map value.
        unsafe {
            (*known).hint = flags & (tcp_flag::SYN | tcp_flag::RST);
            (*known).hint_ns = now_ns;
        }
    }
}

/// An RST of these ends leaves while a mini-socket holds them: it is its answer.
#[inline(never)]
pub fn reset_left(tuple: &Tuple) {
    if let Some(known) = TIME_WAITS.get_ptr_mut(tuple) {
        // SAFETY: a live map value.
        let known = unsafe { &mut *known };
        if known.cancelled_ns == 0 {
            known.rst_sent = 1;
        }
    }
}

/// The mini-socket answered a segment with an RST (`TCP_TW_RST`); an orphaned FIN_WAIT2 then ends.
#[inline(never)]
pub fn reset_sent(tw: *const u8, reason: u32) -> Option<()> {
    let mut tuple = Tuple::default();
    identify(tw, &mut tuple)?;
    let known = TIME_WAITS.get_ptr_mut(&tuple)?;
    // SAFETY: a live map value.
    unsafe {
        (*known).rst_sent = 1;
        (*known).reset_reason = reason;
    }
    Some(())
}
