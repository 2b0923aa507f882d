//! Ring records. Each begins with a [`Header`]; `kind` decides what follows.

use crate::{Conn, Owner, Tuple, contract};

/// Values of [`Header::kind`].
pub mod kind {
    /// [`super::ConnRecord`]: a connection reached a milestone.
    pub const CONN: u16 = 1;
    /// [`super::OwnerRecord`]: the owner of a connection became known.
    pub const OWNER: u16 = 2;
    /// [`super::ProcessRecord`]: a process is seen for the first time.
    pub const PROCESS: u16 = 3;
    /// [`super::SegmentRecord`], followed by the copied bytes.
    pub const SEGMENT: u16 = 4;
    /// [`super::StateRecord`]: one state change.
    pub const STATE: u16 = 5;
    /// [`super::RetransmitRecord`].
    pub const RETRANSMIT: u16 = 6;
    /// [`super::ResetRecord`].
    pub const RESET: u16 = 7;
    /// [`super::TimeWaitRecord`]: something happened to a mini-socket.
    pub const TIME_WAIT: u16 = 8;
    /// [`super::ShownRecord`]: a segment's header.
    pub const SHOWN: u16 = 9;
    /// Number of kinds, 0 included.
    pub const COUNT: usize = 10;
}

/// Values of [`ConnRecord`]'s `header.detail`.
pub mod milestone {
    pub const ESTABLISHED: u16 = 1;
    /// Found by the snapshot at start.
    pub const PREEXISTING: u16 = 2;
    /// The socket is done.
    pub const CLOSED: u16 = 3;
    pub const LISTENING: u16 = 4;
    pub const LISTENER_GONE: u16 = 5;
}

/// Start of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub kind: u16,
    pub detail: u16,
    pub pad: u32,
    pub time_ns: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ConnRecord {
    pub header: Header,
    pub conn: Conn,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OwnerRecord {
    pub header: Header,
    pub conn: u64,
    pub owner: Owner,
}

/// Bytes of a path's names; a power of two, so that a mask bounds an index.
pub const PATH_BYTES: usize = 512;
/// Bytes of one name, its NUL included; a longer one is cut (`NAME_MAX` is 255).
pub const NAME_BYTES: usize = 256;

/// A path: its names, each with a NUL, the last one first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Bytes of `names` in use.
    pub len: u32,
    /// 1: these are all of them.
    pub known: u32,
    pub names: [u8; PATH_BYTES + NAME_BYTES],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProcessRecord {
    pub header: Header,
    pub owner: Owner,
    pub executable: Path,
    /// Below the root of the v2 hierarchy.
    pub control_group: Path,
}

/// TCP header flags as in byte 13 of the header.
pub mod tcp_flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

/// A segment, or a part of one: `copied` bytes follow, the first of them at stream offset `data_offset`.
///
/// A segment that needs several records is cut into parts: `offset` and `len` are the part's, and `flags` has FIN on
/// the last one only. What is not copied of a part was seen and is not wanted, or over the budget.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SegmentRecord {
    pub header: Header,
    pub flow: u64,
    /// Stream offset of the segment's first payload byte.
    pub offset: u64,
    pub data_offset: u64,
    /// The other direction's progress: highest offset seen and when.
    pub peer_next: u64,
    pub peer_time_ns: u64,
    pub len: u32,
    pub copied: u32,
    pub seq: u32,
    /// Records of this direction lost so far.
    pub lost: u32,
    pub dir: u8,
    /// [`tcp_flag`] bits.
    pub flags: u8,
    pub from_start: u8,
    pub pad: u8,
    /// Where it was seen.
    pub ifindex: u32,
    /// Canonical ends as in [`crate::FlowKey`].
    pub a_addr: [u32; 4],
    pub b_addr: [u32; 4],
    pub a_port: u16,
    pub b_port: u16,
    pub pad2: u32,
    pub netns_cookie: u64,
}

/// Most bytes of TCP options (RFC 9293 §3.1).
pub const OPTIONS_BYTES: usize = 40;

/// One segment's header, asked for with `--segments`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ShownRecord {
    pub header: Header,
    /// [`Conn::id`] of the socket that sent or received it, 0 when that is not known (a listener's, for one).
    pub conn: u64,
    /// Ends as that socket has them.
    pub tuple: Tuple,
    pub seq: u32,
    pub ack: u32,
    /// Payload bytes; of a super-packet all of them.
    pub len: u32,
    pub ifindex: u32,
    /// As in the header: unscaled.
    pub window: u16,
    /// Bytes 12 and 13 of the header: data offset, reserved bits and flags.
    pub flags: u16,
    /// 1: sent by the socket.
    pub sent: u8,
    pub options_len: u8,
    pub pad: [u8; 2],
    pub options: [u8; OPTIONS_BYTES],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StateRecord {
    pub header: Header,
    pub conn: u64,
    pub tuple: Tuple,
    /// As [`Conn::in_state_ns`], of the old state.
    pub in_state_ns: u64,
    pub old_state: u8,
    pub new_state: u8,
    pub pad: [u8; 6],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RetransmitRecord {
    pub header: Header,
    /// 0 when the connection does not exist yet (SYN-ACK).
    pub conn: u64,
    pub tuple: Tuple,
    pub state: u8,
    /// 1: SYN-ACK.
    pub synack: u8,
    pub pad: [u8; 6],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ResetRecord {
    pub header: Header,
    pub conn: u64,
    pub tuple: Tuple,
    /// `enum sk_rst_reason` (6.11+), `u32::MAX` when the kernel does not say.
    pub reason: u32,
    /// 1: sent, 0: received.
    pub sent: u8,
    pub state: u8,
    pub pad: [u8; 2],
}

/// Values of [`TimeWaitRecord`]'s `header.detail`.
pub mod time_wait {
    /// An orphaned FIN_WAIT2 received the peer's FIN, as the classifier saw it.
    pub const FIN_ARRIVED: u16 = 1;
    /// The timer ran out.
    pub const EXPIRED: u16 = 2;
    /// The timer was taken down: the end, unless `REARMED` follows at once.
    pub const CANCELLED: u16 = 3;
    /// The timer started anew, and so did the time.
    pub const REARMED: u16 = 4;
    /// It is in TIME_WAIT and was in FIN_WAIT2; when the FIN came is not known.
    pub const FIN_FOUND: u16 = 5;
}

/// Values of [`TimeWaitRecord::cause`].
pub mod end_cause {
    pub const UNKNOWN: u8 = 0;
    /// A connecting socket took the ends over (`tcp_twsk_unique`, `net.ipv4.tcp_tw_reuse`).
    pub const REUSED_BY_CONNECT: u8 = 1;
    /// A SYN arrived that a new connection can begin with (RFC 6191).
    pub const REUSED_BY_SYN: u8 = 2;
    /// An RST arrived (RFC 1337 and `net.ipv4.tcp_rfc1337`).
    pub const RESET: u8 = 3;
    /// A kernel worker took it down with its namespace.
    pub const NAMESPACE_EXIT: u8 = 4;
    /// None of these, in a namespace whose segments we see.
    pub const KILLED: u8 = 5;
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TimeWaitRecord {
    pub header: Header,
    /// [`Conn::id`], 0 when it is not known.
    pub conn: u64,
    /// When the mini-socket was made; 0: before the tracer.
    pub began_ns: u64,
    pub tuple: Tuple,
    /// `tw_substate`: 5 FIN_WAIT2, 6 TIME_WAIT.
    pub substate: u8,
    /// One of [`end_cause`].
    pub cause: u8,
    pub family: u8,
    /// It answered a segment with an RST, for this reason.
    pub rst_sent: u8,
    pub reset_reason: u32,
}

/// Index into `RUNNING`: what is going on.
pub mod running {
    /// 1: all programs are attached and none is being detached.
    pub const PROGRAMS: u32 = 0;
    /// One of [`super::tables`].
    pub const TABLES: u32 = 1;
    /// 1: programs are attached that tell of TIME_WAIT.
    pub const TIME_WAIT: u32 = 2;
    pub const COUNT: u32 = 3;
}

/// What the tables of connections and of TIME_WAIT hold.
pub mod tables {
    /// Not yet what was there before the tracer.
    pub const BEGUN: u32 = 0;
    /// All that there is.
    pub const WHOLE: u32 = 1;
    /// Something found no room.
    pub const FULL: u32 = 2;
}

/// Index into the per-CPU `COUNTERS`.
pub mod counter {
    use super::kind;
    /// Records written to the ring, by [`kind`]: `RECORDS + kind`.
    pub const RECORDS: u32 = 0;
    /// Records that found the ring full, by [`kind`].
    pub const LOST: u32 = kind::COUNT as u32;
    const NEXT: u32 = 2 * kind::COUNT as u32;
    pub const CONNS_FULL: u32 = NEXT;
    pub const FLOWS_FULL: u32 = NEXT + 1;
    /// TCP segments that the classifier looked at.
    pub const SEGMENTS: u32 = NEXT + 2;
    /// Payload bytes in them.
    pub const BYTES: u32 = NEXT + 3;
    pub const BYTES_COPIED: u32 = NEXT + 4;
    /// Payload that the framing may have needed but the copy budget did not allow.
    pub const BYTES_OVER_BUDGET: u32 = NEXT + 5;
    pub const CONNS_OPENED: u32 = NEXT + 6;
    pub const CONNS_CLOSED: u32 = NEXT + 7;
    pub const FLOWS_OPENED: u32 = NEXT + 8;
    pub const FLOWS_CLOSED: u32 = NEXT + 9;
    /// `CLOSED` records that found neither ring nor `UNSENT` with room.
    pub const CONNS_LOST: u32 = NEXT + 10;
    /// TIME_WAIT mini-sockets that did not fit.
    pub const TIME_WAITS_FULL: u32 = NEXT + 11;
    /// Mini-sockets begun and ended, and found at start, in all namespaces.
    pub const TIME_WAITS_BEGUN: u32 = NEXT + 12;
    pub const TIME_WAITS_ENDED: u32 = NEXT + 13;
    pub const TIME_WAITS_FOUND: u32 = NEXT + 14;
    /// Network namespaces whose counts did not fit.
    pub const NETNS_FULL: u32 = NEXT + 15;
    /// Events that no program saw, found out by what came after them.
    pub const UNSEEN: u32 = NEXT + 16;
    pub const COUNT: u32 = NEXT + 17;
}

/// Index into [`NetnsCounts::counts`]: what the kernel counts by network namespace (RFC 4022 names), as we see it.
pub mod netns_count {
    pub const ACTIVE_OPENS: usize = 0;
    pub const PASSIVE_OPENS: usize = 1;
    pub const ATTEMPT_FAILS: usize = 2;
    pub const ESTAB_RESETS: usize = 3;
    pub const OUT_RSTS: usize = 4;
    pub const RETRANS_SEGS: usize = 5;
    pub const TIME_WAITS_BEGUN: usize = 6;
    pub const TIME_WAITS_ENDED: usize = 7;
    pub const TIME_WAITS_FOUND: usize = 8;
    pub const TIME_WAITS_RECYCLED: usize = 9;
    pub const TIME_WAITS_EXPIRED: usize = 10;
    pub const COUNT: usize = 11;
}

/// Counts of one network namespace since the start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetnsCounts {
    /// The namespace's cookie, 0 while unknown: inodes are used again.
    pub cookie: u64,
    pub counts: [u64; netns_count::COUNT],
}

/// Network namespaces that are counted at once.
pub const MAX_NETNS: u32 = 4096;

contract!(
    Header = 16,
    ConnRecord = 352,
    OwnerRecord = 64,
    ProcessRecord = 1608,
    SegmentRecord = 128,
    ShownRecord = 128,
    StateRecord = 80,
    RetransmitRecord = 72,
    ResetRecord = 72,
    TimeWaitRecord = 80,
    NetnsCounts = 96,
);
