//! The flow table: what the classifier knows of one connection's segments, both directions.

use crate::{Tuple, contract};

/// Both ends in canonical order, so that either direction's segments find the same flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Network namespace cookie.
    pub netns_cookie: u64,
    /// The smaller (address, port), compared as four native words and the port.
    pub a_addr: [u32; 4],
    pub b_addr: [u32; 4],
    pub a_port: u16,
    pub b_port: u16,
    pub pad: u32,
}

impl FlowKey {
    /// The key of a segment's flow, and the direction (0: a to b) in which its source is the sender.
    #[inline(always)]
    pub fn new(netns_cookie: u64, source: ([u32; 4], u16), destination: ([u32; 4], u16)) -> (Self, usize) {
        let forward = precedes(&source, &destination);
        let (a, b) = if forward { (&source, &destination) } else { (&destination, &source) };
        let key = Self { netns_cookie, a_addr: a.0, b_addr: b.0, a_port: a.1, b_port: b.1, pad: 0 };
        (key, usize::from(!forward))
    }

    /// The key of a connection's flow, and the direction in which the local end sends.
    #[inline(always)]
    pub fn of(netns_cookie: u64, tuple: &Tuple) -> (Self, usize) {
        let local = (words(tuple.local_addr), tuple.local_port);
        Self::new(netns_cookie, local, (words(tuple.remote_addr), tuple.remote_port))
    }
}

#[inline(always)]
fn words(addr: [u8; 16]) -> [u32; 4] {
    // SAFETY: 16 bytes either way.
    unsafe { core::mem::transmute(addr) }
}

#[inline(always)]
fn precedes(a: &([u32; 4], u16), b: &([u32; 4], u16)) -> bool {
    if a.0[0] != b.0[0] {
        return a.0[0] < b.0[0];
    }
    if a.0[1] != b.0[1] {
        return a.0[1] < b.0[1];
    }
    if a.0[2] != b.0[2] {
        return a.0[2] < b.0[2];
    }
    if a.0[3] != b.0[3] {
        return a.0[3] < b.0[3];
    }
    a.1 < b.1
}

/// What the classifier does with payload of one direction.
pub mod mode {
    /// A message head is expected next.
    pub const START: u8 = 0;
    /// Nothing before the mark is wanted; a head is expected at it.
    pub const BODY: u8 = 1;
    /// Framing is the daemon's: copy within the budget, listen to its marks.
    pub const FEEDBACK: u8 = 2;
    /// Nothing more is wanted.
    pub const IGNORE: u8 = 3;
    /// Nothing before the mark is wanted; there a chunk's content ends, and the next chunk's size follows.
    pub const CHUNK: u8 = 4;
}

/// Bytes copied in one direction without a turn of direction or a mark from the daemon.
pub const COPY_BUDGET: u32 = 1024 * 1024;

/// Bytes of it that may be used before the daemon is woken.
pub const COPY_QUIETLY: u32 = 32 * 1024;

/// Bytes of a chunk's line kept from one segment to the next; a power of two.
pub const CARRY: usize = 16;

/// One direction of a [`Flow`]. Offsets count payload bytes from `base_seq`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowDir {
    /// Highest offset seen, exclusive.
    pub next: u64,
    /// Nothing before this offset is wanted.
    pub mark: u64,
    /// When `next` last moved.
    pub time_ns: u64,
    /// Sequence number of offset 0.
    pub base_seq: u32,
    /// Bytes that may still be copied before the next turn or mark.
    pub budget: u32,
    /// Payload segments whose record did not reach the ring.
    pub lost: u32,
    /// One of [`mode`].
    pub mode: u8,
    /// `base_seq` is set.
    pub known: u8,
    /// Bytes before `next` are missing (loss or reordering on the path).
    pub hole: u8,
    pub fin: u8,
    /// Keep-alive probes: segments without payload at `next - 1`.
    pub probes: u32,
    /// Times that the sender closed its window.
    pub zero_windows: u32,
    pub window_closed: u8,
    /// An RST was seen.
    pub rst: u8,
    /// Bytes of `carry`.
    pub carried: u8,
    /// The next chunk is the body's first: no line end is before its size.
    pub first_chunk: u8,
    pub pad: [u8; 4],
    /// Beginning of a chunk's line that the segment did not hold the end of.
    pub carry: [u64; CARRY / 8],
}

/// One connection's segments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    pub id: u64,
    /// Connection whose mini-socket waits for the peer's FIN (orphaned FIN_WAIT2), 0 for none.
    pub fin_awaited_by: u64,
    /// Sockets on this host that it belongs to: 2 on loopback.
    pub ends: u32,
    /// Direction of the last new payload: 0, 1, or 2 for none yet.
    pub last_dir: u8,
    /// Direction of the FIN that `fin_awaited_by` waits for.
    pub fin_dir: u8,
    /// Seen from the handshake on.
    pub from_start: u8,
    /// Answers outstanding to HEAD requests make Content-Length meaningless: the daemon frames.
    pub head_seen: u8,
    /// The classifier saw a segment of it.
    pub seen: u8,
    /// Requests may have been sent before the answers to older ones were there.
    pub pipelined: u8,
    /// The last request was a CONNECT.
    pub connect: u8,
    pub pad: [u8; 5],
    pub dirs: [FlowDir; 2],
}

impl Flow {
    const ZERO_DIR: FlowDir = FlowDir {
        next: 0,
        mark: 0,
        time_ns: 0,
        base_seq: 0,
        budget: 0,
        lost: 0,
        mode: 0,
        known: 0,
        hole: 0,
        fin: 0,
        probes: 0,
        zero_windows: 0,
        window_closed: 0,
        rst: 0,
        carried: 0,
        first_chunk: 0,
        pad: [0; 4],
        carry: [0; CARRY / 8],
    };
    pub const ZERO: Self = Self {
        id: 0,
        fin_awaited_by: 0,
        ends: 0,
        last_dir: 0,
        fin_dir: 0,
        from_start: 0,
        head_seen: 0,
        seen: 0,
        pipelined: 0,
        connect: 0,
        pad: [0; 5],
        dirs: [Self::ZERO_DIR; 2],
    };
}

/// Key of `MARKS`, the daemon's word on what it still wants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MarkKey {
    pub flow: u64,
    pub dir: u64,
}

/// The daemon's word: nothing before `offset` is wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    /// `u64::MAX`: nothing more at all.
    pub offset: u64,
    /// A message head is at `offset` (1), or something else that the daemon must see (0).
    pub head: u64,
}

contract!(FlowKey = 48, FlowDir = 72, Flow = 176, MarkKey = 16, Mark = 16);
