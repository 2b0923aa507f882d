//! The connection table: entries are made at SYN_SENT, at the child's SYN_RECV or by the snapshot, carry all
//! totals, and leave with one record.

use aya_ebpf::maps::lpm_trie::Key;
use tracer_ebpf::{
    Conn, ConnRecord, MAX_STATES, TIME_UNSEEN, Tuple, conn_flag, counter, kind, milestone, netns_count, state,
};

use crate::{
    fields::{Members, TcpSock, is_mapped},
    flows,
    globals::{
        COMMS, CONNS, HOSTS, PIDS, UNSENT, ZERO_CONN, config, count, count_in, next_id, port_named,
        tables_are_full,
    },
    ring,
};

/// `enum sock_flags` (include/net/sock.h), unchanged since 2.6.
pub const SOCK_DEAD: u64 = 1 << 0;
pub const SOCK_DONE: u64 = 1 << 1;

/// A new entry for `sk`; one that is still there is a connection whose end was missed, and is reported as such.
#[inline(never)]
pub fn open(sk: *const u8, tp: TcpSock, role: u8, now_ns: u64) -> Option<&'static mut Conn> {
    let key = sk as u64;
    if let Some(stale) = CONNS.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        let stale = unsafe { &mut *stale };
        if stale.flags & conn_flag::CLOSE_PENDING == 0 {
            stale.lost += 1;
        }
        finish(sk, stale, now_ns);
    }
    if CONNS.insert(&key, &ZERO_CONN, 0).is_err() {
        count(counter::CONNS_FULL, 1);
        tables_are_full();
        return None;
    }
    // SAFETY: a live map value, just made; the socket's lock keeps others of its events away.
    let conn = unsafe { &mut *CONNS.get_ptr_mut(&key)? };
    conn.id = next_id(now_ns);
    conn.opened_ns = now_ns;
    conn.role = role;
    conn.family = tp.family() as u8;
    conn.min_rtt_us = u32::MAX;
    let (inode, cookie) = tp.netns();
    conn.tuple.netns = inode;
    conn.netns_cookie = cookie;
    count(counter::CONNS_OPENED, 1);
    Some(conn)
}

/// Takes cookie and both ends from the socket; right from ESTABLISHED on (up to 6.12 a child in SYN_RECV still
/// carries the listener's).
#[inline(always)]
pub fn identify(tp: TcpSock, conn: &mut Conn) {
    conn.cookie = tp.cookie();
    tp.tuple(&mut conn.tuple);
    conn.flags |= conn_flag::IDENTIFIED;
}

/// Appends to the timeline.
#[inline(always)]
pub fn push_state(conn: &mut Conn, new: u8, now_ns: u64) {
    push_state_at(conn, new, now_ns - conn.opened_ns);
}

/// As [`push_state`], for a state that is known by the change from it alone.
#[inline(always)]
pub fn push_state_unseen(conn: &mut Conn, new: u8) {
    push_state_at(conn, new, TIME_UNSEEN);
    unseen(conn);
}

/// An event of this connection turns out not to have been seen.
#[inline(always)]
pub fn unseen(conn: &mut Conn) {
    conn.lost += 1;
    count(counter::UNSEEN, 1);
}

#[inline(always)]
fn push_state_at(conn: &mut Conn, new: u8, at_ns: u64) {
    conn.old_state = conn.state;
    conn.state = new;
    let at = conn.states_len as usize;
    if at < MAX_STATES {
        conn.states[at] = at_ns << 8 | u64::from(new);
        conn.states_len += 1;
    } else {
        conn.flags |= conn_flag::STATES_CUT;
    }
}

/// Takes over errors, flags and totals.
#[inline(always)]
pub fn refresh(tp: impl Members, conn: &mut Conn) {
    conn.error = tp.error();
    if tp.flags() & SOCK_DONE != 0 {
        conn.flags |= conn_flag::FIN_RECEIVED;
    }
    if conn.cookie == 0 {
        conn.cookie = tp.known_cookie();
    }
    tp.totals(conn);
    conn.flags |= conn_flag::TOTALS_READ;
}

/// Holds the retransmissions that were seen against the socket's own count (`tcp_sock.total_retrans`), which goes with
/// the namespace's (`__tcp_retransmit_skb`).
#[inline(never)]
pub fn settle_retransmits(conn: &mut Conn, total: u32) {
    if total > conn.retrans_seen {
        let unseen_ones = u64::from(total - conn.retrans_seen);
        count_in(conn.tuple.netns, conn.netns_cookie, netns_count::RETRANS_SEGS, unseen_ones);
        conn.retrans_seen = total;
        unseen(conn);
    }
    // Before it is established, a client sends nothing but its SYN again.
    if conn.flags & conn_flag::IDENTIFIED == 0 && conn.syn_retrans < total {
        conn.syn_retrans = total;
    }
}

/// Writes a milestone; a failure is counted on the connection.
#[inline(never)]
pub fn report(conn: &mut Conn, what: u16, now_ns: u64) -> bool {
    let Some(slot) = ring::reserve::<ConnRecord>(kind::CONN, what, now_ns) else {
        conn.lost += 1;
        return false;
    };
    // SAFETY: one entry's size either way.
    unsafe { core::ptr::copy_nonoverlapping(conn, &raw mut (*slot.0).conn, 1) };
    slot.submit(ring::wake_flags());
    true
}

/// The connection is done: out of its flow, reported, out of the table.
#[inline(never)]
pub fn finish(sk: *const u8, conn: &mut Conn, now_ns: u64) {
    if conn.role == tracer_ebpf::role::LISTENER {
        report(conn, milestone::LISTENER_GONE, now_ns);
    } else if wanted(&conn.tuple) {
        if conn.closed_ns == 0 {
            conn.closed_ns = now_ns;
        }
        let mini = conn.flags & conn_flag::MINI_SOCKET != 0;
        flows::leave(conn, mini && conn.flags & conn_flag::FIN_RECEIVED == 0);
        // Totals live here: what the ring has no room for, the daemon collects from the map.
        if !report(conn, milestone::CLOSED, now_ns) && UNSENT.insert(&conn.id, &*conn, 0).is_err() {
            count(counter::CONNS_LOST, 1);
        }
    }
    forget(sk);
}

#[inline(always)]
pub fn forget(sk: *const u8) {
    if CONNS.remove(&(sk as u64)).is_ok() {
        count(counter::CONNS_CLOSED, 1);
    }
}

/// Whether the address and port filters let a complete tuple through.
#[inline(never)]
pub fn wanted(tuple: &Tuple) -> bool {
    (config!(filter_ports) == 0 || port_named(tuple.local_port) || port_named(tuple.remote_port))
        && (config!(filter_hosts) == 0 || host_named(tuple.local_addr) || host_named(tuple.remote_addr))
}

/// Whether `--host` covers an address. The trie's value is the prefix length: an IPv6 prefix that happens to cover the
/// mapped form of IPv4 (`::/0`) does not mean IPv4.
#[inline(always)]
pub fn host_named(addr: [u8; 16]) -> bool {
    let Some(prefix_len) = HOSTS.get(Key::new(128, addr)) else { return false };
    *prefix_len >= 96 || !is_mapped(addr)
}

/// Whether the process filters let a client socket of this owner through.
#[inline(always)]
pub fn owner_wanted(owner: &tracer_ebpf::Owner) -> bool {
    // SAFETY: only presence matters.
    unsafe {
        (config!(filter_pids) == 0 || PIDS.get(&owner.pid).is_some())
            && (config!(filter_comms) == 0 || COMMS.get(&owner.comm).is_some())
    }
}

/// Whether the reset that explains a change to CLOSE is still to come: `tcp_close` with unread data, `SO_LINGER` 0,
/// `tcp_disconnect` and a closing listener set the state first and send the RST after it.
#[inline(always)]
pub fn reset_follows(tp: TcpSock, conn: &Conn) -> bool {
    if conn.error != 0 || conn.flags & (conn_flag::RST_RECEIVED | conn_flag::RST_SENT) != 0 {
        return false;
    }
    match conn.old_state {
        state::ESTABLISHED | state::CLOSE_WAIT | state::SYN_RECV | state::FIN_WAIT1 => true,
        // An orphan (DEAD) or one that has the peer's FIN (DONE) goes to a mini-socket instead, if it may.
        state::FIN_WAIT2 => tp.flags() & (SOCK_DEAD | SOCK_DONE) == 0 || tp.linger2() < 0,
        _ => false,
    }
}

/// Whether a change to CLOSE is one that makes a mini-socket (`tcp_time_wait`).
#[inline(always)]
pub fn becomes_mini_socket(conn: &Conn) -> bool {
    conn.error == 0
        && conn.flags & (conn_flag::RST_RECEIVED | conn_flag::RST_SENT) == 0
        && (conn.old_state == state::FIN_WAIT2 || conn.old_state == state::CLOSING)
}
