//! Segments, wherever they are captured: they keep the flow table, and what HTTP framing needs of them is copied.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_tuple},
    helpers::{bpf_sk_release, bpf_skb_load_bytes, bpf_skc_lookup_tcp},
};
use tracer_ebpf::{
    COPY_BUDGET, COPY_QUIETLY, Flow, FlowDir, FlowKey, Header, MarkKey, SegmentRecord, TimeWaitRecord, Tuple,
    counter, kind, mode, state, tcp_flag, time_wait,
};

use crate::{
    connections, flows,
    globals::{FLOWS, MARKS, config, count, now, opaque},
    head::{self, next},
    headers::Seen,
    ring,
    scratch::{self, CHUNK, Scratch},
};

/// Chunks of the largest segment (64 KiB; BIG TCP's may be larger, and what is beyond counts as over the budget).
const MAX_CHUNKS: u32 = 16;

/// Bytes that the daemon needs to name a protocol that is not HTTP/1.
const NAMING: u32 = 64;

/// A network namespace.
#[derive(Clone, Copy)]
pub struct Netns {
    pub inode: u32,
    pub cookie: u64,
}

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
        None => create(skb, seen, netns.inode, &key, now_ns)?,
    };
    // SAFETY: a live map value. Two CPUs may work on one flow, each on its own direction.
    let flow = unsafe { &mut *flow };
    flow.seen = 1;
    if seen.len == 0 && seen.flags & (tcp_flag::FIN | tcp_flag::RST | tcp_flag::SYN) == 0 {
        if dir == 0 {
            acknowledgement::<0>(flow, seen)
        } else {
            acknowledgement::<1>(flow, seen)
        };
        return None;
    }
    await_fin(flow, &key, dir, seen, now_ns);
    if dir == 0 {
        direction::<0>(skb, flow, &key, seen, now_ns)
    } else {
        direction::<1>(skb, flow, &key, seen, now_ns)
    }
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
/// or the connection is older than the tracer. Forwarded traffic has no socket here and gets none.
#[inline(always)]
fn create(skb: *mut __sk_buff, seen: &Seen, netns: u32, key: &FlowKey, now_ns: u64) -> Option<*mut Flow> {
    if seen.len == 0 || config!(payload) == 0 {
        return None;
    }
    if !connections::wanted(&seen.as_receiver(netns))
        || !(has_socket(skb, seen, false) || has_socket(skb, seen, true))
    {
        return None;
    }
    flows::create(key, seen.flags & tcp_flag::SYN != 0, now_ns)
}

/// Whether a socket of this namespace is the segment's receiver (or its sender).
#[inline(always)]
fn has_socket(skb: *mut __sk_buff, seen: &Seen, sender: bool) -> bool {
    const CURRENT_NETNS: u64 = -1i32 as u64;
    let (from, from_port, to, to_port) = if sender {
        (&seen.destination, seen.destination_port, &seen.source, seen.source_port)
    } else {
        (&seen.source, seen.source_port, &seen.destination, seen.destination_port)
    };
    // SAFETY: plain integers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if from[2] == 0xffff_u32.to_be() && from[0] == 0 && from[1] == 0 {
        // SAFETY: all members are plain integers.
        let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        (v4.saddr, v4.sport, v4.daddr, v4.dport) = (from[3], from_port.to_be(), to[3], to_port.to_be());
        size_of_val(v4)
    } else {
        // SAFETY: as above.
        let v6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        (v6.saddr, v6.sport, v6.daddr, v6.dport) = (*from, from_port.to_be(), *to, to_port.to_be());
        size_of_val(v6)
    };
    // SAFETY: the tuple is initialised for `size` bytes; a socket found is released.
    unsafe {
        let sk = bpf_skc_lookup_tcp(skb.cast(), &mut tuple, size as u32, CURRENT_NETNS, 0);
        if sk.is_null() {
            return false;
        }
        let found = (*sk).state;
        bpf_sk_release(sk.cast());
        found != u32::from(state::TIME_WAIT) && found != u32::from(state::LISTEN)
    }
}

/// The orphaned FIN_WAIT2 of `fin_awaited_by` received its FIN: TIME_WAIT begins.
#[inline(always)]
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
fn acknowledgement<const DIR: usize>(flow: &mut Flow, seen: &Seen) {
    let dir = &mut flow.dirs[DIR];
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

/// One direction's next segment: what of it is new, and what of that is wanted.
#[inline(always)]
fn direction<const DIR: usize>(
    skb: *mut __sk_buff,
    flow: &mut Flow,
    key: &FlowKey,
    seen: &Seen,
    now_ns: u64,
) -> Option<()> {
    let peer = flow.dirs[1 - DIR];
    let id = flow.id;
    let turned = flow.last_dir != DIR as u8;
    let head_seen = flow.head_seen != 0;
    let from_start = flow.from_start;
    let dir = &mut flow.dirs[DIR];
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
    let last = seen.flags & (tcp_flag::FIN | tcp_flag::RST) != 0;
    // Older than where this flow's record begins.
    if (offset as i64) < 0 {
        return None;
    }
    let new_fin = seen.flags & tcp_flag::FIN != 0 && dir.fin == 0;
    if seen.flags & tcp_flag::FIN != 0 {
        dir.fin = 1;
    }
    let repeated = end <= dir.next && dir.hole == 0;
    let mut plan = Plan { from: offset, copy: 0 };
    if seen.len > 0 && !repeated {
        if turned {
            flow.last_dir = DIR as u8;
            dir.budget = COPY_BUDGET;
            dir.hole = 0;
            if dir.mode == mode::FEEDBACK {
                dir.mode = mode::START;
            }
        }
        if offset > dir.next && dir.mode != mode::IGNORE && !(dir.mode == mode::BODY && end <= dir.mark) {
            dir.hole = 1;
            dir.mode = mode::FEEDBACK;
        }
        if end > dir.next {
            dir.next = end;
            dir.time_ns = now_ns;
        }
        plan = if config!(payload) == 0 { Plan::NOTHING } else { wanted(dir, id, DIR, offset, end) };
    } else {
        plan.copy = 0;
        if !(new_fin || seen.flags & tcp_flag::RST != 0) {
            return None;
        }
    }
    if plan.from == u64::MAX && !last {
        return None;
    }
    let Some(mut place) = scratch::acquire() else {
        dir.lost += 1;
        return None;
    };
    let scratch = place.get();
    scratch.record = SegmentRecord {
        header: Header { kind: kind::SEGMENT, detail: 0, pad: 0, time_ns: now_ns },
        flow: id,
        offset,
        data_offset: offset,
        peer_next: peer.next,
        peer_time_ns: peer.time_ns,
        len: if repeated { 0 } else { seen.len },
        copied: 0,
        seq: seen.seq,
        lost: dir.lost,
        dir: DIR as u8,
        flags: seen.flags,
        from_start,
        pad: 0,
        // SAFETY: the context's own field.
        ifindex: unsafe { (*skb).ifindex },
        a_addr: key.a_addr,
        b_addr: key.b_addr,
        a_port: key.a_port,
        b_port: key.b_port,
        pad2: 0,
        netns_cookie: key.netns_cookie,
    };
    if repeated {
        // Only the FIN or RST of it is new; its place is the end.
        scratch.record.offset = end;
        scratch.record.data_offset = end;
    }
    if plan.copy == 0 || plan.from == u64::MAX {
        write(scratch, dir, 0, ring::wake_flags());
    } else if let Some(link_len) = link_len(skb, &seen.ip) {
        let at = link_len + seen.payload_at + (plan.from - offset) as u32;
        if copy(skb, &mut place, dir, at, plan, end, head_seen) == Some(true) {
            flow.head_seen = 1;
        }
    }
    place.release();
    Some(())
}

/// Which part of a segment to copy: `copy` bytes from stream offset `from` on. `from` is `u64::MAX` when not even a
/// record is wanted.
#[derive(Clone, Copy)]
struct Plan {
    from: u64,
    copy: u32,
}

impl Plan {
    const NOTHING: Self = Self { from: u64::MAX, copy: 0 };
}

/// Applies the direction's mode and the daemon's marks.
#[inline(always)]
fn wanted(dir: &mut FlowDir, flow: u64, index: usize, offset: u64, end: u64) -> Plan {
    let mut from = offset;
    if dir.mode == mode::IGNORE {
        return Plan::NOTHING;
    }
    if dir.mode == mode::BODY {
        if end < dir.mark {
            return Plan::NOTHING;
        }
        dir.mode = mode::START;
        if end == dir.mark {
            // Nothing to copy, but this is when the body ended.
            return Plan { from, copy: 0 };
        }
        if dir.mark > from {
            from = dir.mark;
        }
    }
    // SAFETY: read at once.
    if let Some(mark) = unsafe { MARKS.get(&MarkKey { flow, dir: index as u64 }) } {
        let (until, head) = (mark.offset, mark.head);
        if until == u64::MAX {
            dir.mode = mode::IGNORE;
            return Plan::NOTHING;
        }
        if until > from {
            dir.budget = COPY_BUDGET;
            if end < until {
                return Plan::NOTHING;
            }
            dir.mode = if head != 0 { mode::START } else { mode::FEEDBACK };
            from = until;
        }
    }
    let rest = (end - from) as u32;
    let most = if dir.budget < MAX_CHUNKS * CHUNK as u32 { dir.budget } else { MAX_CHUNKS * CHUNK as u32 };
    let copy = if rest > most { most } else { rest };
    if copy < rest {
        count(counter::BYTES_OVER_BUDGET, u64::from(rest - copy));
    }
    if copy == 0 && rest > 0 {
        return Plan::NOTHING;
    }
    Plan { from, copy }
}

/// Copies in chunks, one record each. Returns whether a HEAD request was seen.
#[inline(always)]
fn copy(
    skb: *mut __sk_buff,
    place: &mut scratch::Place,
    dir: &mut FlowDir,
    at: u32,
    plan: Plan,
    end: u64,
    head_seen: bool,
) -> Option<bool> {
    let index = place.index;
    let scratch = place.get();
    let flags = scratch.record.flags;
    let mut at = at;
    let mut left = plan.copy;
    let mut data_offset = plan.from;
    let mut saw_head_request = false;
    for chunk in 0..MAX_CHUNKS {
        let mut size = if left > CHUNK as u32 { CHUNK as u32 } else { left };
        if !read_chunk(skb, scratch, at, size) {
            return None;
        }
        if chunk == 0 && dir.mode == mode::START {
            saw_head_request = head::is_head_request(scratch);
            let next = head::scan_head(size, u32::from(head_seen), index);
            let mark = data_offset + u64::from(scratch.found.end) + scratch.found.length;
            match next {
                // At the end of this segment, or past it; else another message follows, and all is copied.
                next::BODY if mark >= end => {
                    dir.mark = mark;
                    if mark > end {
                        dir.mode = mode::BODY;
                    }
                    size = scratch.found.end;
                    left = size;
                }
                next::BODY | next::MESSAGE => {}
                // The stream's first bytes tell: enough to name the protocol.
                next::OTHER if data_offset == 0 && scratch.record.from_start != 0 => {
                    dir.mode = mode::IGNORE;
                    size = if size > NAMING { NAMING } else { size };
                    left = size;
                }
                _ => dir.mode = mode::FEEDBACK,
            }
        }
        let part_end = data_offset + u64::from(size);
        left = left.saturating_sub(size);
        let done = left == 0;
        let record = &mut scratch.record;
        record.data_offset = data_offset;
        record.copied = size;
        record.len = (if done { end } else { part_end } - record.offset) as u32;
        record.flags = if done { flags } else { flags & !(tcp_flag::FIN | tcp_flag::RST) };
        dir.budget = dir.budget.saturating_sub(size);
        // The framing depends on the daemon: let it catch up before the budget is gone.
        let flags = if dir.mode == mode::FEEDBACK && dir.budget < COPY_BUDGET - COPY_QUIETLY {
            ring::WAKE_NOW
        } else {
            ring::wake_flags()
        };
        write(scratch, dir, size, flags);
        if done {
            break;
        }
        scratch.record.offset = part_end;
        data_offset = part_end;
        at += size;
    }
    Some(saw_head_request)
}

/// Fills `scratch.data` with `size` bytes of the packet (1 to `CHUNK`).
#[inline(always)]
fn read_chunk(skb: *mut __sk_buff, scratch: &mut Scratch, at: u32, size: u32) -> bool {
    let size = opaque(size.into());
    if size == 0 || size > CHUNK as u64 {
        return false;
    }
    // SAFETY: `size` is within the buffer.
    unsafe { bpf_skb_load_bytes(skb.cast(), at, scratch.data.as_mut_ptr().cast(), size as u32) == 0 }
}

/// Writes the record in `scratch` with `size` bytes of data behind it.
#[inline(always)]
fn write(scratch: &Scratch, dir: &mut FlowDir, size: u32, flags: u64) {
    let size = opaque(size.into());
    let size = if size > CHUNK as u64 { CHUNK as u64 } else { size };
    // SAFETY: the data follows the record in `Scratch`.
    let written = unsafe {
        ring::write((&raw const scratch.record).cast(), size_of::<SegmentRecord>() as u64 + size, flags)
    };
    if written {
        count(counter::BYTES_COPIED, size);
    } else {
        dir.lost += 1;
    }
}
