//! Which payload is wanted, and copying it: message heads and chunk sizes, not content.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use tracer_ebpf::{
    CARRY, COPY_BUDGET, COPY_QUIETLY, FlowDir, MarkKey, SegmentRecord, counter, mode, tcp_flag,
};

use crate::{
    globals::{MARKS, count, opaque, size_up_to},
    head::{self, next},
    ring,
    scratch::{CHUNK, Place, SCRATCH, Scratch},
};

/// Pieces of the largest segment: two of loopback's 64 KiB (`tcp_tso_autosize`); BIG TCP's may be larger, and what is
/// beyond counts as over the budget.
const MAX_PIECES: u32 = 32;
const MAX_COPY: u32 = MAX_PIECES * CHUNK as u32;

/// Chunks (RFC 9112 §7.1) stepped through in one segment; of what is behind them all is copied.
const MAX_CHUNKS: u32 = 128;

/// Bytes in which the line between two chunks has to end.
const LINE: u32 = 32;

/// Bytes that the daemon needs to name a protocol that is not HTTP/1.
const NAMING: u32 = 64;

/// Which part of a segment to copy: `copy` bytes from stream offset `from` on. `from` is `u64::MAX` when not even a
/// record is wanted.
#[derive(Clone, Copy)]
pub struct Plan {
    pub from: u64,
    pub copy: u32,
}

impl Plan {
    pub const NOTHING: Self = Self { from: u64::MAX, copy: 0 };
}

/// The other side has sent: what comes now begins a message.
#[inline(always)]
pub fn turn(dir: &mut FlowDir) {
    dir.budget = COPY_BUDGET;
    dir.hole = 0;
    if dir.mode == mode::FEEDBACK {
        dir.mode = mode::START;
    }
}

/// How much of this can be copied.
#[inline(always)]
fn within_budget(dir: &FlowDir, size: u32) -> u32 {
    let most = if dir.budget < MAX_COPY { dir.budget } else { MAX_COPY };
    if size > most { most } else { size }
}

/// Bytes are missing before this segment. Within content that does not matter.
#[inline(always)]
pub fn notice_hole(dir: &mut FlowDir, offset: u64, end: u64) {
    let within = (dir.mode == mode::BODY || dir.mode == mode::CHUNK) && end <= dir.mark;
    if offset > dir.next && dir.mode != mode::IGNORE && !within {
        dir.hole = 1;
        dir.mode = mode::FEEDBACK;
    }
}

/// Applies the direction's mode and the daemon's marks.
#[inline(always)]
pub fn wanted(dir: &mut FlowDir, flow: u64, index: usize, offset: u64, end: u64) -> Plan {
    let mut from = offset;
    if dir.mode == mode::IGNORE {
        return Plan::NOTHING;
    }
    if dir.mode == mode::CHUNK {
        if end <= dir.mark {
            return Plan::NOTHING;
        }
        if dir.mark > from {
            from = dir.mark;
        }
        return Plan { from, copy: (end - from) as u32 };
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
            // The line end of a chunk is there, and the size of the next one.
            (dir.mode, dir.mark, dir.carried, dir.first_chunk) =
                (if head != 0 { mode::BODY } else { mode::CHUNK }, until, 0, 0);
            if end < until || end == until && head == 0 {
                return Plan::NOTHING;
            }
            if head != 0 {
                dir.mode = mode::START;
            }
            from = until;
        }
    }
    let rest = (end - from) as u32;
    let copy = within_budget(dir, rest);
    if copy < rest && dir.mode != mode::CHUNK {
        count(counter::BYTES_OVER_BUDGET, u64::from(rest - copy));
    }
    if copy == 0 && rest > 0 {
        return Plan::NOTHING;
    }
    Plan { from, copy }
}

/// What the functions below work on. It is in memory and each of them is global, so that the verifier looks at each once
/// and not for each way to get there.
#[repr(C)]
pub struct Work {
    /// With a stream offset it adds up to that byte's place in the packet.
    pub base: u64,
    /// What is left to do: `copy` bytes from here on.
    pub from: u64,
    /// Stream offset behind the segment.
    pub end: u64,
    pub copy: u32,
    /// As [`tracer_ebpf::Flow`]'s.
    pub head_seen: u8,
    pub pipelined: u8,
    /// The other side had sent before this.
    pub turned: u8,
    /// It begins with a request: only then the two above are to be put back.
    pub is_request: u8,
    /// As [`tracer_ebpf::Flow`]'s.
    pub connect: u8,
    /// Nothing is wanted any more, in either direction.
    pub tunnel: u8,
    pub pad: [u8; 6],
    /// A copy of the flow's, to be put back.
    pub dir: FlowDir,
}

/// Copies what [`Work`] says.
#[inline(always)]
pub fn copy_payload(skb: *mut __sk_buff, place: &mut Place) {
    // SAFETY: a live map value, and its taker's alone.
    let mode = |place: &mut Place| unsafe { (&raw const place.get().work.dir.mode).read_volatile() };
    let left = mode(place) != mode::START || copy_head(skb, place.index) != 0;
    let left = left && (mode(place) != mode::CHUNK || copy_chunks(skb, place.index) != 0);
    if left {
        copy_pieces(skb, place.index);
    }
}

/// Looks at the message head that begins here. Returns 1 when more is left to do.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_head(skb: *mut __sk_buff, place: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(place) else { return 0 };
    // SAFETY: a live map value, and its taker's alone.
    let scratch = unsafe { &mut *scratch };
    let (from, end) = (scratch.work.from, scratch.work.end);
    let copy = scratch.work.copy;
    let size = if copy > CHUNK as u32 { CHUNK as u32 } else { copy };
    if !read(skb, scratch, 0, from, size) {
        return 0;
    }
    let work = &scratch.work;
    let mut asked = if work.head_seen != 0 { head::HEAD } else { 0 };
    if work.connect != 0 && work.pipelined == 0 {
        asked |= head::CONNECT;
    }
    let next = head::scan_head(size, asked, place);
    let head_len = scratch.found.end;
    let head_end = from + u64::from(head_len);
    let mark = head_end + scratch.found.length;
    if !head::is_response(scratch) {
        let is_last = match next {
            next::BODY => mark >= end,
            next::MESSAGE => head_end == end,
            next::CHUNKS => true,
            _ => false,
        };
        let is_head = u8::from(head::is_head_request(scratch));
        let connect = u8::from(head::is_connect_request(scratch));
        let work = &mut scratch.work;
        (work.is_request, work.connect) = (1, connect);
        work.pipelined |= u8::from(work.turned == 0 || !is_last);
        // Who sends one request at a time has the answer to the last one.
        work.head_seen = if work.pipelined == 0 { is_head } else { work.head_seen | is_head };
    }
    match next {
        // At the end of this segment, or past it; else another message follows, and all is copied.
        next::BODY if mark >= end => {
            scratch.work.dir.mark = mark;
            if mark > end {
                scratch.work.dir.mode = mode::BODY;
            }
            part(scratch, from, head_len, end);
            0
        }
        next::BODY | next::MESSAGE => 1,
        next::TUNNEL => {
            (scratch.work.dir.mode, scratch.work.tunnel) = (mode::IGNORE, 1);
            part(scratch, from, head_len, end);
            0
        }
        next::CHUNKS => {
            let dir = &mut scratch.work.dir;
            (dir.mode, dir.mark, dir.carried, dir.first_chunk) = (mode::CHUNK, head_end, 0, 1);
            part(scratch, from, head_len, head_end);
            scratch.work.from = head_end;
            u32::from(head_end < end)
        }
        // The stream's first bytes tell: enough to name the protocol.
        next::OTHER if from == 0 && scratch.record.from_start != 0 => {
            scratch.work.dir.mode = mode::IGNORE;
            part(scratch, 0, if size > NAMING { NAMING } else { size }, end);
            0
        }
        _ => {
            scratch.work.dir.mode = mode::FEEDBACK;
            1
        }
    }
}

/// Steps from chunk to chunk; only the lines between them are copied. Returns 1 when what is left cannot be stepped
/// through.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_chunks(skb: *mut __sk_buff, place: u32) -> u32 {
    for _ in 0..MAX_CHUNKS {
        match copy_chunk(skb, place) {
            step::NEXT => {}
            step::DONE => return 0,
            _ => return 1,
        }
    }
    give_up(place)
}

/// What a look at one chunk's line came to.
mod step {
    pub const DONE: u32 = 0;
    pub const NEXT: u32 = 1;
    pub const LEFT: u32 = 2;
}

/// One chunk's line. Returns one of [`step`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_chunk(skb: *mut __sk_buff, place: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(place) else { return step::DONE };
    // SAFETY: a live map value, and its taker's alone.
    let scratch = unsafe { &mut *scratch };
    let (from, end) = (scratch.work.from, scratch.work.end);
    // The line's beginning, which the segment before had, is put before the rest of it.
    let carried = u32::from(scratch.work.dir.carried) & (CARRY as u32 - 1);
    let left = end.wrapping_sub(from);
    let size = if left > u64::from(LINE) { LINE } else { left as u32 };
    let first = u32::from(scratch.work.dir.first_chunk);
    take_carried(scratch);
    let next = if read(skb, scratch, carried, from, size) {
        head::scan_chunk(carried + size, first, place)
    } else {
        next::UNKNOWN
    };
    let line_at = from - u64::from(carried);
    let line_len = scratch.found.end;
    let line_end = line_at + u64::from(line_len);
    match next {
        next::BODY => {
            let next_line = line_end + scratch.found.length;
            let dir = &mut scratch.work.dir;
            (dir.carried, dir.first_chunk, dir.mark) = (0, 0, next_line);
            dir.budget = COPY_BUDGET;
            part(scratch, line_at, line_len, if next_line < end { next_line } else { end });
            scratch.work.from = next_line;
            if next_line < end { step::NEXT } else { step::DONE }
        }
        // The last chunk, without trailers: a message may follow.
        next::MESSAGE => {
            let dir = &mut scratch.work.dir;
            (dir.carried, dir.mode) = (0, mode::START);
            part(scratch, line_at, line_len, line_end);
            if line_end >= end {
                return step::DONE;
            }
            scratch.work.from = line_end;
            give_up(place);
            step::LEFT
        }
        // The line goes on in the next segment.
        next::MORE if u64::from(size) == left && carried + size < CARRY as u32 => {
            keep_carried(scratch, carried + size);
            scratch.work.dir.mark = end;
            part(scratch, line_at, carried + size, end);
            step::DONE
        }
        _ => {
            give_up(place);
            step::LEFT
        }
    }
}

/// All from here on is the daemon's, within the budget. Returns 1.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn give_up(place: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(place) else { return 1 };
    // SAFETY: a live map value, and its taker's alone.
    let work = unsafe { &mut (*scratch).work };
    (work.dir.carried, work.dir.mode) = (0, mode::FEEDBACK);
    let left = work.end.wrapping_sub(work.from) as u32;
    work.copy = within_budget(&work.dir, left);
    if work.copy < left {
        count(counter::BYTES_OVER_BUDGET, u64::from(left - work.copy));
    }
    1
}

/// Puts the line's beginning where the line is looked at.
#[inline(always)]
fn take_carried(scratch: &mut Scratch) {
    let data = scratch.data.as_mut_ptr().cast::<[u64; CARRY / 8]>();
    // SAFETY: the buffer is longer.
    unsafe { data.write_unaligned(scratch.work.dir.carry) };
}

#[inline(always)]
fn keep_carried(scratch: &mut Scratch, len: u32) {
    let data = scratch.data.as_ptr().cast::<[u64; CARRY / 8]>();
    // SAFETY: the buffer is longer.
    scratch.work.dir.carry = unsafe { data.read_unaligned() };
    scratch.work.dir.carried = len as u8;
}

/// Copies in pieces, one record each.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_pieces(skb: *mut __sk_buff, place: u32) -> u32 {
    for _ in 0..MAX_PIECES {
        if copy_piece(skb, place) == 0 {
            break;
        }
    }
    0
}

/// Returns 1 when more is left.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_piece(skb: *mut __sk_buff, place: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(place) else { return 0 };
    // SAFETY: a live map value, and its taker's alone.
    let scratch = unsafe { &mut *scratch };
    let (from, left, end) = (scratch.work.from, scratch.work.copy, scratch.work.end);
    let size = if left > CHUNK as u32 { CHUNK as u32 } else { left };
    if size != 0 && !read(skb, scratch, 0, from, size) {
        return 0;
    }
    let to = from + u64::from(size);
    let done = left == size;
    part(scratch, from, size, if done { end } else { to });
    (scratch.work.from, scratch.work.copy) = (to, left - size);
    u32::from(!done)
}

/// Writes the record of the next part of the segment, which goes to stream offset `to`. The first `copied` bytes of the
/// buffer are those from `from` on. What lies between was seen and is not wanted.
#[inline(always)]
fn part(scratch: &mut Scratch, from: u64, copied: u32, to: u64) {
    const LAST: u8 = tcp_flag::FIN | tcp_flag::RST;
    let Scratch { record, work, .. } = scratch;
    let flags = record.flags;
    record.data_offset = from;
    record.copied = copied;
    record.len = (to - record.offset) as u32;
    if to < work.end {
        record.flags &= !LAST;
    }
    work.dir.budget = work.dir.budget.saturating_sub(copied);
    // The framing depends on the daemon: let it catch up before the budget is gone.
    let wake = if work.dir.mode == mode::FEEDBACK && work.dir.budget < COPY_BUDGET - COPY_QUIETLY {
        ring::WAKE_NOW
    } else {
        ring::wake_flags()
    };
    if !write(scratch, copied, wake) {
        scratch.work.dir.lost += 1;
    }
    scratch.record.offset = to;
    scratch.record.flags = flags;
}

/// Fills the buffer from index `to` (below [`CARRY`]) on with `size` bytes (1 to [`CHUNK`]) of the packet, from stream
/// offset `from` on.
#[inline(always)]
fn read(skb: *mut __sk_buff, scratch: &mut Scratch, to: u32, from: u64, size: u32) -> bool {
    let Some(size) = size_up_to(size.into(), CHUNK as u64) else { return false };
    let to = (opaque(to.into()) & (CARRY as u64 - 1)) as usize;
    let at = scratch.work.base.wrapping_add(from) as u32;
    // SAFETY: `size` is within the buffer, and the slack behind it holds what is carried.
    unsafe {
        let data = scratch.data.as_mut_ptr().add(to);
        bpf_skb_load_bytes(skb.cast(), at, data.cast(), size as u32) == 0
    }
}

/// Writes the record with `size` bytes of data behind it; false when it was lost.
#[inline(always)]
pub fn write(scratch: &Scratch, size: u32, flags: u64) -> bool {
    let size = opaque(size.into());
    let size = if size > CHUNK as u64 { CHUNK as u64 } else { size };
    // SAFETY: the data follows the record in `Scratch`.
    let written = unsafe {
        let record = &raw const scratch.record;
        ring::write(record.cast(), size_of::<SegmentRecord>() as u64 + size, flags)
    };
    if written {
        count(counter::BYTES_COPIED, size);
    }
    written
}
