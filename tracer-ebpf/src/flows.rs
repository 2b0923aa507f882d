//! The flow table: made when a connection is established (or by its first payload), shared by both ends on
//! loopback, gone with the last of them.

use tracer_ebpf::{COPY_BUDGET, Conn, Flow, FlowDir, FlowKey, conn_flag, counter};

use crate::globals::{FLOWS, ZERO_FLOW, count, next_id};

/// A direction is seen for the first time: `seq` is its offset 0.
#[inline(always)]
pub fn start(dir: &mut FlowDir, seq: u32) {
    dir.base_seq = seq;
    dir.known = 1;
    dir.budget = COPY_BUDGET;
}

/// A new flow, in place of whatever is there; `None` when the table is full.
#[inline(always)]
pub fn create(key: &FlowKey, from_start: bool, now_ns: u64) -> Option<*mut Flow> {
    if FLOWS.insert(key, &ZERO_FLOW, 0).is_err() {
        count(counter::FLOWS_FULL, 1);
        return None;
    }
    count(counter::FLOWS_OPENED, 1);
    let flow = FLOWS.get_ptr_mut(key)?;
    // SAFETY: a live map value.
    unsafe {
        (*flow).id = next_id(now_ns);
        (*flow).last_dir = 2;
        (*flow).from_start = u8::from(from_start);
    }
    Some(flow)
}

/// Joins an established connection to its flow. `local_seq` and `remote_seq` are the next sequence numbers of either
/// direction: they tell the other end's flow of the same connection from a leftover of an older one.
#[inline(never)]
pub fn join(conn: &mut Conn, local_seq: u32, remote_seq: u32, from_start: bool, now_ns: u64) {
    let (key, local) = FlowKey::of(conn.netns_cookie, &conn.tuple);
    if let Some(flow) = FLOWS.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        let flow = unsafe { &mut *flow };
        let (ours, theirs) = split(flow, local);
        let same = fits(ours, local_seq) && fits(theirs, remote_seq);
        if same || !from_start {
            if from_start {
                flow.from_start = 1;
                let (ours, theirs) = split(flow, local);
                if ours.known == 0 {
                    start(ours, local_seq);
                }
                if theirs.known == 0 {
                    start(theirs, remote_seq);
                }
            }
            flow.ends += 1;
            conn.flow = flow.id;
            return;
        }
        let _ = FLOWS.remove(&key);
        count(counter::FLOWS_CLOSED, 1);
    }
    let Some(flow) = create(&key, from_start, now_ns) else {
        conn.lost += 1;
        return;
    };
    // SAFETY: a live map value.
    let flow = unsafe { &mut *flow };
    flow.ends = 1;
    let (ours, theirs) = split(flow, local);
    start(ours, local_seq);
    start(theirs, remote_seq);
    conn.flow = flow.id;
}

/// Whether a direction can be the one whose next sequence number is `seq`: not seen yet, at its start, or (data in
/// the SYN) just behind what was seen.
#[inline(always)]
fn fits(dir: &FlowDir, seq: u32) -> bool {
    dir.known == 0 || dir.base_seq == seq || dir.base_seq.wrapping_add(dir.next as u32) == seq
}

/// (direction `local`, the other one)
#[inline(always)]
fn split(flow: &mut Flow, local: usize) -> (&mut FlowDir, &mut FlowDir) {
    let [a, b] = &mut flow.dirs;
    if local == 0 { (a, b) } else { (b, a) }
}

/// Takes a finished connection out of its flow. `await_fin`: its mini-socket still waits for the peer's FIN, so the
/// flow stays to see it.
#[inline(never)]
pub fn leave(conn: &mut Conn, await_fin: bool) {
    if conn.flow == 0 {
        return;
    }
    let (key, local) = FlowKey::of(conn.netns_cookie, &conn.tuple);
    let Some(flow) = FLOWS.get_ptr_mut(&key) else { return };
    // SAFETY: a live map value.
    let flow = unsafe { &mut *flow };
    if flow.id != conn.flow {
        return;
    }
    conn.lost += flow.dirs[0].lost + flow.dirs[1].lost;
    if flow.seen != 0 {
        conn.flags |= conn_flag::SEGMENTS_SEEN;
    }
    let (ours, theirs) = split(flow, local);
    (conn.probes_sent, conn.probes_received) = (ours.probes, theirs.probes);
    (conn.zero_windows_sent, conn.zero_windows_received) = (ours.zero_windows, theirs.zero_windows);
    flow.ends = flow.ends.saturating_sub(1);
    if await_fin {
        flow.fin_awaited_by = conn.id;
        flow.fin_dir = 1 - local as u8;
    } else if flow.ends == 0 && flow.fin_awaited_by == 0 {
        remove(&key);
    }
}

/// Whether the peer was seen to send payload beyond what the socket has received.
#[inline(never)]
pub fn has_more(conn: &Conn, rcv_nxt: u32) -> bool {
    let (key, local) = FlowKey::of(conn.netns_cookie, &conn.tuple);
    let Some(flow) = FLOWS.get_ptr_mut(key) else { return false };
    // SAFETY: a live map value.
    let flow = unsafe { &mut *flow };
    let (_, theirs) = split(flow, local);
    let sent = theirs.base_seq.wrapping_add(theirs.next as u32);
    theirs.known != 0 && sent.wrapping_sub(rcv_nxt) as i32 > 0
}

/// Whether the classifier watches a connection's segments and saw no RST from its peer.
#[inline(never)]
pub fn no_reset_came(conn: &Conn) -> bool {
    let (key, local) = FlowKey::of(conn.netns_cookie, &conn.tuple);
    let Some(flow) = FLOWS.get_ptr_mut(key) else { return false };
    // SAFETY: a live map value.
    let flow = unsafe { &mut *flow };
    let seen = flow.id == conn.flow && flow.seen != 0;
    let (_, theirs) = split(flow, local);
    seen && theirs.rst == 0
}

#[inline(always)]
pub fn remove(key: &FlowKey) {
    if FLOWS.remove(key).is_ok() {
        count(counter::FLOWS_CLOSED, 1);
    }
}
