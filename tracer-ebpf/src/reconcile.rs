//! What the tables hold, held against the kernel's memory: from time to time, and at the end of a run.
//!
//! Connections whose end was missed: the kernel does not run a tracing program that it interrupted in the middle on the
//! same CPU (`prog->active`, `__bpf_trace_run`), so once in a long while one is skipped: its socket stays in the table.
//! From time to time each entry is held against its socket.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_for_each_map_elem;
use tracer_ebpf::{Conn, TimeWait, Tuple, conn_flag, state};

use crate::{
    connections,
    fields::{Members, Untyped, load, probe},
    globals::{CONNS, TIME_WAITS, field, now},
    timewait,
};

/// An entry may give way to another one while it is looked at; that one is younger than this.
const SETTLED_NS: u64 = 1_000_000_000;

/// A socket that is in CLOSE goes soon.
const CLOSED_NS: u64 = 60_000_000_000;

/// An iterator only to be called: its last call, which has no socket, comes once for each reading.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn reconcile(ctx: *mut c_void) -> i32 {
    let sk: *const u8 = load(ctx.cast::<u8>().cast_const(), 8);
    if sk.is_null() {
        // SAFETY: the map pointer is the table's own, and the callback has the shape that the helper wants.
        unsafe {
            let table = (&raw const CONNS).cast_mut().cast();
            bpf_for_each_map_elem(table, compare as *mut c_void, core::ptr::null_mut(), 0);
            let table = (&raw const TIME_WAITS).cast_mut().cast();
            bpf_for_each_map_elem(table, compare_mini_socket as *mut c_void, core::ptr::null_mut(), 0);
        }
    }
    0
}

/// As [`reconcile`]: brings the totals of open connections up to date, those of every namespace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn current_totals(ctx: *mut c_void) -> i32 {
    let sk: *const u8 = load(ctx.cast::<u8>().cast_const(), 8);
    if sk.is_null() {
        // SAFETY: as above.
        unsafe {
            let table = (&raw const CONNS).cast_mut().cast();
            bpf_for_each_map_elem(table, read_totals as *mut c_void, core::ptr::null_mut(), 0);
        }
    }
    0
}

extern "C" fn read_totals(
    _table: *mut c_void,
    key: *const u64,
    conn: *mut Conn,
    _context: *mut c_void,
) -> i64 {
    // SAFETY: key and value of a live map entry.
    let (sk, conn) = unsafe { (*key as *const u8, &mut *conn) };
    if conn.state == state::SYN_SENT {
        // Its port was chosen after its first change of state.
        conn.tuple.local_port = Untyped(sk).local_port();
    }
    if conn.flags & conn_flag::IDENTIFIED != 0 && timewait::is_at(sk, &conn.tuple, conn.cookie) {
        connections::refresh(Untyped(sk), conn);
    }
    0
}

/// An orphaned FIN_WAIT2 whose FIN has come: that changes nothing but the mini-socket's own state, unless its timer moves.
/// And one that is gone without its end having been seen.
extern "C" fn compare_mini_socket(
    _table: *mut c_void,
    key: *const Tuple,
    known: *mut TimeWait,
    _context: *mut c_void,
) -> i64 {
    // SAFETY: key and value of a live map entry.
    let (tuple, known) = unsafe { (&*key, &mut *known) };
    if known.awaits_fin != 0 {
        timewait::look_for_fin(tuple, known);
    }
    timewait::look_whether_gone(tuple, known, now());
    0
}

/// A socket that is gone has another one at its address, or is still in CLOSE there, or is not memory any more. That
/// it changes to CLOSE is told before it does (`inet_sk_set_state`). There it has no port any more (`inet_put_port`), so
/// without a cookie nothing tells it from another one.
extern "C" fn compare(_table: *mut c_void, key: *const u64, conn: *mut Conn, _context: *mut c_void) -> i64 {
    // SAFETY: key and value of a live map entry.
    let (sk, conn) = unsafe { (*key as *const u8, &mut *conn) };
    let now_ns = now();
    if conn.flags & conn_flag::IDENTIFIED == 0 {
        return 0;
    }
    let id = conn.id;
    let at: u8 = probe(sk, field!(skc_state)).unwrap_or(state::CLOSE);
    let has_identity = at != state::CLOSE || conn.cookie != 0;
    let is_gone = has_identity && !timewait::is_at(sk, &conn.tuple, conn.cookie)
        || at == state::CLOSE && conn.state != state::CLOSE;
    let age_ns = now_ns.saturating_sub(conn.opened_ns);
    if conn.id == id && (is_gone && age_ns > SETTLED_NS || at == state::CLOSE && age_ns > CLOSED_NS) {
        conn.flags |= conn_flag::END_MISSED;
        connections::unseen(conn);
        connections::finish(sk, conn, now_ns);
    }
    0
}
