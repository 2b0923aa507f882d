//! Segments, wherever they are captured: they keep the flow table, and what HTTP framing needs of them is copied.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use tracer_ebpf::{
    Flow, FlowDir, FlowKey, Header, TimeWaitRecord, Tuple, counter, kind, mode, state, tcp_flag, time_wait,
};

use crate::{
    connections, flows,
    globals::{FLOWS, config, count, now, opaque},
    headers::Seen,
    payload::{self, Plan},
    ring, scratch,
    sockets::{self, Netns},
};

impl Seen {
    /// The key of its flow, and the direction.
    #[inline(always)]
    pub fn flow_key(&self, netns_cookie: u64) -> (FlowKey, usize) {
        let source = (self.source, self.source_port);
        FlowKey::new(netns_cookie, source, (self.destination, self.destination_port))
    }
}

/// Takes one segment in.
#[inline(always)]
pub fn take(skb: *mut __sk_buff, seen: &Seen, netns: Netns) -> Option<()> {
    count(counter::SEGMENTS, 1);
    if seen.len > 0 {
        count(counter::BYTES, u64::from(seen.len));
    }
    let now_ns = now();
    let (key, dir) = seen.flow_key(netns.cookie);
    let flow = match FLOWS.get_ptr_mut(&key) {
        Some(flow) => flow,
        None => create(skb, seen, netns.inode, &key),
    };
    if flow.is_null() {
        return None;
    }
    // SAFETY: a live map value. Two CPUs may work on one flow, each on its own direction.
    let flow = unsafe { &mut *flow };
    flow.seen = 1;
    if seen.len == 0 && seen.flags & (tcp_flag::FIN | tcp_flag::RST | tcp_flag::SYN) == 0 {
        acknowledgement(direction_of(flow, dir), seen);
        return None;
    }
    await_fin(flow, &key, dir, seen, now_ns);
    direction(skb, flow, &key, dir, seen, now_ns)
}

/// One direction of a flow. (The verifier takes any index in range, and so looks at what follows once, not twice.)
#[inline(always)]
fn direction_of(flow: &mut Flow, dir: usize) -> &mut FlowDir {
    let dir = opaque(dir as u64) & 1;
    // SAFETY: 0 or 1, of two.
    unsafe { &mut *flow.dirs.as_mut_ptr().add(dir as usize) }
}

/// Looks whether a segment is the FIN that an orphaned FIN_WAIT2 waits for.
#[inline(always)]
pub fn await_fin(flow: &mut Flow, key: &FlowKey, dir: usize, seen: &Seen, now_ns: u64) {
    if seen.flags & tcp_flag::FIN != 0 && flow.fin_awaited_by != 0 && flow.fin_dir == dir as u8 {
        fin_arrived(flow, key, now_ns);
    }
}

/// Bytes of link header before the network header. Payload is in fragments, which only `bpf_skb_load_bytes` reads, and
/// that counts from the link header: 14 bytes or none.
#[inline(always)]
fn link_len(skb: *mut __sk_buff, ip: &[u64; 2]) -> Option<u32> {
    const ETHERNET: u32 = 14;
    let same = |at: u32| {
        let mut start = [0u64; 2];
        // SAFETY: the helper fills the buffer or fails.
        let result = unsafe { bpf_skb_load_bytes(skb.cast(), at, start.as_mut_ptr().cast(), 16) };
        result == 0 && start[0] == ip[0] && start[1] == ip[1]
    };
    if same(ETHERNET) {
        Some(ETHERNET)
    } else if same(0) {
        Some(0)
    } else {
        None
    }
}

/// A flow for payload that no established connection announced: the handshake's last ACK was lost or carries data,
/// or the connection is older than the tracer. Forwarded traffic has no socket here and gets none (null).
#[inline(never)]
fn create(skb: *mut __sk_buff, seen: &Seen, netns: u32, key: &FlowKey) -> *mut Flow {
    let wanted = seen.len != 0
        && config!(payload) != 0
        && connections::wanted(&seen.as_receiver(netns))
        && (sockets::has(skb, seen, false) || sockets::has(skb, seen, true));
    if !wanted {
        return core::ptr::null_mut();
    }
    flows::create(key, seen.flags & tcp_flag::SYN != 0, now()).unwrap_or(core::ptr::null_mut())
}

/// The orphaned FIN_WAIT2 of `fin_awaited_by` received its FIN: TIME_WAIT begins.
#[inline(never)]
fn fin_arrived(flow: &mut Flow, key: &FlowKey, now_ns: u64) {
    if let Some(slot) = ring::reserve::<TimeWaitRecord>(kind::TIME_WAIT, time_wait::FIN_ARRIVED, now_ns) {
        // SAFETY: the slot's members.
        unsafe {
            (*slot.0).conn = flow.fin_awaited_by;
            (*slot.0).began_ns = now_ns;
            (*slot.0).tuple = Tuple::default();
            (*slot.0).substate = state::TIME_WAIT;
            (*slot.0).cause = 0;
            (*slot.0).family = 0;
            (*slot.0).rst_sent = 0;
            (*slot.0).reset_reason = 0;
        }
        slot.submit(ring::wake_flags());
    }
    flow.fin_awaited_by = 0;
    if flow.ends == 0 {
        flows::remove(key);
    }
}

/// A segment without payload: a keep-alive probe lies just before what was sent (`tcp_xmit_probe_skb`), and a window
/// of 0 stops the other side.
#[inline(always)]
fn acknowledgement(dir: &mut FlowDir, seen: &Seen) {
    if dir.known != 0
        && seen.seq == dir.base_seq.wrapping_add(dir.next as u32).wrapping_sub(1)
        && dir.fin == 0
    {
        dir.probes += 1;
    }
    window(dir, seen);
}

#[inline(always)]
fn window(dir: &mut FlowDir, seen: &Seen) {
    if seen.window == 0 {
        dir.zero_windows += u32::from(dir.window_closed == 0);
        dir.window_closed = 1;
    } else {
        dir.window_closed = 0;
    }
}

/// What a segment is to its direction.
struct Step {
    now_ns: u64,
    /// Stream offsets of its payload.
    offset: u64,
    end: u64,
    /// What of it is wanted, as in [`Plan`].
    from: u64,
    copy: u32,
    /// The direction's.
    index: u8,
    /// Nothing of its payload is new.
    repeated: bool,
    /// The other side had sent before it.
    turned: bool,
}

/// One direction's next segment: what of it is new, and what of that is wanted. Deciding and doing are functions of their
/// own, one after the other, so that they share their part of the 512-byte stack.
#[inline(always)]
fn direction(
    skb: *mut __sk_buff,
    flow: &mut Flow,
    key: &FlowKey,
    index: usize,
    seen: &Seen,
    now_ns: u64,
) -> Option<()> {
    let Plan { from, copy } = Plan::NOTHING;
    let index = index as u8;
    let mut step = Step { now_ns, offset: 0, end: 0, from, copy, index, repeated: false, turned: false };
    if !decide(flow, seen, &mut step) {
        return None;
    }
    report(skb, flow, key, seen, &step)
}

/// Keeps the direction's account; false when the segment is to have no record.
#[inline(never)]
fn decide(flow: &mut Flow, seen: &Seen, step: &mut Step) -> bool {
    let index = usize::from(step.index);
    let id = flow.id;
    step.turned = flow.last_dir != index as u8;
    let dir = direction_of(flow, index);
    if dir.known == 0 {
        flows::start(dir, seen.seq);
    }
    if seen.flags & tcp_flag::RST == 0 {
        window(dir, seen);
    } else {
        dir.rst = 1;
    }
    let expected = dir.base_seq.wrapping_add(dir.next as u32);
    let offset = (dir.next as i64 + i64::from(seen.seq.wrapping_sub(expected) as i32)) as u64;
    let end = offset.wrapping_add(u64::from(seen.len));
    (step.offset, step.end) = (offset, end);
    let last = seen.flags & (tcp_flag::FIN | tcp_flag::RST) != 0;
    // Older than where this flow's record begins.
    if (offset as i64) < 0 {
        return false;
    }
    let new_fin = seen.flags & tcp_flag::FIN != 0 && dir.fin == 0;
    if seen.flags & tcp_flag::FIN != 0 {
        dir.fin = 1;
    }
    step.repeated = end <= dir.next && dir.hole == 0;
    if seen.len > 0 && !step.repeated {
        if step.turned {
            flow.last_dir = index as u8;
        }
        let dir = direction_of(flow, index);
        if step.turned {
            payload::turn(dir);
        }
        payload::notice_hole(dir, offset, end);
        if end > dir.next {
            dir.next = end;
            dir.time_ns = step.now_ns;
        }
        if config!(payload) != 0 {
            Plan { from: step.from, copy: step.copy } = payload::wanted(dir, id, index, offset, end);
        }
    } else if !(new_fin || seen.flags & tcp_flag::RST != 0) {
        return false;
    }
    step.from != u64::MAX || last
}

/// Writes the segment's record, with what is wanted of its payload.
#[inline(never)]
fn report(skb: *mut __sk_buff, flow: &mut Flow, key: &FlowKey, seen: &Seen, step: &Step) -> Option<()> {
    let index = usize::from(step.index);
    let Some(mut place) = scratch::acquire() else {
        direction_of(flow, index).lost += 1;
        return None;
    };
    // Member by member: a whole record would be put together on the stack.
    let record = &mut place.get().record;
    record.header = Header { kind: kind::SEGMENT, detail: 0, pad: 0, time_ns: step.now_ns };
    record.flow = flow.id;
    record.from_start = flow.from_start;
    let peer = direction_of(flow, 1 - index);
    record.peer_next = peer.next;
    record.peer_time_ns = peer.time_ns;
    let dir = direction_of(flow, index);
    // Of a repeated segment only the FIN or RST is new; its place is the end.
    record.offset = if step.repeated { step.end } else { step.offset };
    record.data_offset = record.offset;
    record.len = if step.repeated { 0 } else { seen.len };
    record.copied = 0;
    record.seq = seen.seq;
    record.lost = dir.lost;
    record.dir = index as u8;
    record.flags = seen.flags;
    record.pad = 0;
    // SAFETY: the context's own field.
    record.ifindex = unsafe { (*skb).ifindex };
    record.a_addr = key.a_addr;
    record.b_addr = key.b_addr;
    record.a_port = key.a_port;
    record.b_port = key.b_port;
    record.pad2 = 0;
    record.netns_cookie = key.netns_cookie;
    if step.from == u64::MAX || step.copy == 0 {
        if !payload::write(place.get(), 0, ring::wake_flags()) {
            dir.lost += 1;
        }
    } else if let Some(link_len) = link_len(skb, &seen.ip) {
        let work = &mut place.get().work;
        work.base = u64::from(link_len + seen.payload_at).wrapping_sub(step.offset);
        work.from = step.from;
        work.end = step.end;
        work.copy = step.copy;
        work.dir = *dir;
        (work.head_seen, work.pipelined, work.turned) =
            (flow.head_seen, flow.pipelined, u8::from(step.turned));
        (work.is_request, work.connect, work.tunnel) = (0, flow.connect, 0);
        payload::copy_payload(skb, &mut place);
        let work = &place.get().work;
        *direction_of(flow, index) = work.dir;
        // Both directions may be at work.
        if work.is_request != 0 {
            (flow.head_seen, flow.pipelined, flow.connect) = (work.head_seen, work.pipelined, work.connect);
        }
        if work.tunnel != 0 {
            direction_of(flow, 1 - index).mode = mode::IGNORE;
        }
    }
    place.release();
    Some(())
}
