//! The connection table: one entry for each TCP socket that is not a listener's request.

use crate::contract;

/// TCP states as the kernel numbers them (include/net/tcp_states.h).
pub mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
    pub const NEW_SYN_RECV: u8 = 12;
}

/// Who sent the SYN.
pub mod role {
    pub const UNKNOWN: u8 = 0;
    pub const CLIENT: u8 = 1;
    pub const SERVER: u8 = 2;
    pub const LISTENER: u8 = 3;
}

/// How an [`Owner`] is known; a larger value is better evidence.
pub mod owner_source {
    pub const NONE: u8 = 0;
    /// The task-file iterator found the socket in the process's file table.
    pub const FILE_TABLE: u8 = 1;
    /// `current` in `accept`: it may hand the socket on to another process.
    pub const ACCEPT: u8 = 2;
    /// `current` in the first `recvmsg`/`sendmsg` on the socket.
    pub const IO: u8 = 3;
    /// `current` in `connect`.
    pub const CONNECT: u8 = 4;
    /// `current` in `listen`.
    pub const LISTEN: u8 = 5;
}

/// Bits of [`Conn::flags`].
pub mod conn_flag {
    /// Open before the tracer started.
    pub const PREEXISTING: u16 = 1 << 0;
    /// A valid RST arrived (`tcp_receive_reset`).
    pub const RST_RECEIVED: u16 = 1 << 1;
    /// An RST was sent for it (`tcp_send_reset`).
    pub const RST_SENT: u16 = 1 << 2;
    /// `SOCK_DONE`: the peer's FIN was received in order.
    pub const FIN_RECEIVED: u16 = 1 << 3;
    /// The socket gave way to a mini-socket (`tcp_time_wait`): TIME_WAIT, or FIN_WAIT2 when `FIN_RECEIVED` is not set.
    pub const MINI_SOCKET: u16 = 1 << 4;
    /// The last state change ran in a task (not in softirq), where `current` is the actor.
    pub const CLOSED_BY_TASK: u16 = 1 << 5;
    /// The `CLOSED` record waits for the reset that the kernel is about to send.
    pub const CLOSE_PENDING: u16 = 1 << 6;
    /// The `CLOSED` record is out.
    pub const CLOSE_REPORTED: u16 = 1 << 7;
    /// Another child of the same request was first (`inet_ehash_nolisten`): it never was a connection of its own.
    pub const DUPLICATE: u16 = 1 << 8;
    /// The timeline had more changes than room.
    pub const STATES_CUT: u16 = 1 << 9;
    /// It should have gone to TIME_WAIT, but the kernel had no room (`tcp_max_tw_buckets`).
    pub const TIME_WAIT_OVERFLOW: u16 = 1 << 10;
    /// The classifier saw its segments, so what is counted from them is known.
    pub const SEGMENTS_SEEN: u16 = 1 << 11;
    /// The totals were read from the socket at least once, lately at its end or the run's.
    pub const TOTALS_READ: u16 = 1 << 12;
    /// Cookie and both ends were taken from the socket.
    pub const IDENTIFIED: u16 = 1 << 13;
    /// Its end was missed: the socket was found gone.
    pub const END_MISSED: u16 = 1 << 14;
    /// Data came for an orphan, which it answers with an RST (`tcp_rcv_state_process`, TCPAbortOnData).
    pub const ABORTED_ON_DATA: u16 = 1 << 15;
}

/// Both ends as one local socket sees them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub local_addr: [u8; 16],
    pub remote_addr: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
    /// Inode of the network namespace, as in `/proc/PID/ns/net`.
    pub netns: u32,
}

/// A process as the kernel side saw it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Start of the process, CLOCK_BOOTTIME ns; with `pid` its identity.
    pub start_ns: u64,
    /// cgroup v2 id.
    pub cgroup: u64,
    pub comm: [u8; 16],
    /// Thread group id; 0: no owner known.
    pub pid: u32,
    /// One of [`owner_source`].
    pub source: u8,
    pub pad: [u8; 3],
}

/// Room in the timeline. The longest regular life has 7 changes.
pub const MAX_STATES: usize = 10;

/// In [`Conn::states`], instead of the time of a change that no program saw.
pub const TIME_UNSEEN: u64 = u64::MAX >> 8;

/// SYN retransmissions whose time is kept; `tcp_syn_retries` is 6 by default.
pub const MAX_SYN_TIMES: usize = 8;

/// One connection: identity, timeline, totals.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Conn {
    /// Unique for the life of the programs, never 0.
    pub id: u64,
    /// Socket cookie as `ss -e` shows it (`sk:`), 0 while unknown.
    pub cookie: u64,
    /// Network namespace cookie.
    pub netns_cookie: u64,
    /// [`crate::Flow::id`] of the segments, 0 when there is none.
    pub flow: u64,
    /// First state change, or the snapshot for a pre-existing one.
    pub opened_ns: u64,
    /// 0 while open.
    pub closed_ns: u64,
    /// Payload bytes sent, retransmissions included (`tcp_sock.bytes_sent`).
    pub bytes_sent: u64,
    /// Payload bytes retransmitted (`tcp_sock.bytes_retrans`).
    pub bytes_retrans: u64,
    /// `tcp_sock.bytes_received`; counts the FIN as one byte when `FIN_RECEIVED`.
    pub bytes_received: u64,
    pub tuple: Tuple,
    pub owner: Owner,
    /// `tcp_sock.segs_in`, `segs_out`.
    pub segs_in: u32,
    pub segs_out: u32,
    /// `tcp_sock.total_retrans`, SYN and SYN-ACK included.
    pub retrans: u32,
    /// Those of them that a program saw, and SYN-ACKs, which are others' to see.
    pub retrans_seen: u32,
    pub syn_retrans: u32,
    pub synack_retrans: u32,
    /// Smoothed and minimum round-trip time in µs; 0 and `u32::MAX`: never measured.
    pub srtt_us: u32,
    pub min_rtt_us: u32,
    /// Records of this connection that did not reach the ring.
    pub lost: u32,
    /// `sk_rst_reason` of the reset sent (6.11+), 0 when unknown.
    pub reset_reason: u32,
    pub flags: u16,
    /// `sk_err` at the last state change: errno, 0 for none.
    pub error: u16,
    pub state: u8,
    /// State before `state`.
    pub old_state: u8,
    pub role: u8,
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u8,
    pub states_len: u32,
    /// Keep-alive probes (RFC 9293 §3.8.4) and episodes of a closed window, from the segments of either direction.
    pub probes_sent: u32,
    pub probes_received: u32,
    pub zero_windows_sent: u32,
    pub zero_windows_received: u32,
    pub pad: u32,
    /// When the first SYN retransmissions were sent, µs since opened; 0: not seen.
    pub syn_at_us: [u32; MAX_SYN_TIMES],
    /// `(ns since opened, or TIME_UNSEEN) << 8 | state`.
    pub states: [u64; MAX_STATES],
}

impl Conn {
    pub const ZERO: Self = Self {
        id: 0,
        cookie: 0,
        netns_cookie: 0,
        flow: 0,
        opened_ns: 0,
        closed_ns: 0,
        bytes_sent: 0,
        bytes_retrans: 0,
        bytes_received: 0,
        tuple: Tuple { local_addr: [0; 16], remote_addr: [0; 16], local_port: 0, remote_port: 0, netns: 0 },
        owner: Owner { start_ns: 0, cgroup: 0, comm: [0; 16], pid: 0, source: 0, pad: [0; 3] },
        segs_in: 0,
        segs_out: 0,
        retrans: 0,
        retrans_seen: 0,
        syn_retrans: 0,
        synack_retrans: 0,
        srtt_us: 0,
        min_rtt_us: 0,
        lost: 0,
        reset_reason: 0,
        flags: 0,
        error: 0,
        state: 0,
        old_state: 0,
        role: 0,
        family: 0,
        states_len: 0,
        probes_sent: 0,
        probes_received: 0,
        zero_windows_sent: 0,
        zero_windows_received: 0,
        pad: 0,
        syn_at_us: [0; MAX_SYN_TIMES],
        states: [0; MAX_STATES],
    };
}

impl Conn {
    /// How long it was in the state that the timeline has at `at`, in nanoseconds; [`TIME_UNSEEN`] when that has not ended,
    /// or one of the two changes was not seen.
    #[inline(always)]
    pub fn in_state_ns(&self, at: usize) -> u64 {
        // What is older than the tracer was in its first state before it was seen.
        if at >= MAX_STATES - 1 || at == 0 && self.flags & conn_flag::PREEXISTING != 0 {
            return TIME_UNSEEN;
        }
        let (began_ns, ended_ns) = (self.states[at] >> 8, self.states[at + 1] >> 8);
        if began_ns == TIME_UNSEEN || ended_ns == TIME_UNSEEN { TIME_UNSEEN } else { ended_ns - began_ns }
    }
}

/// A TIME_WAIT (or orphaned FIN_WAIT2) mini-socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeWait {
    /// [`Conn::id`] of the socket that it took over from; 0 when that is not known.
    pub conn: u64,
    /// Socket cookie, which the mini-socket inherits.
    pub cookie: u64,
    /// Its address.
    pub tw: u64,
    /// 0: before the tracer.
    pub began_ns: u64,
    /// When its timer was taken down; 0 while it runs. Either it is armed again at once, or this is the end.
    pub cancelled_ns: u64,
    /// When `hint` was seen.
    pub hint_ns: u64,
    /// [`crate::tcp_flag`] SYN or RST of a segment that arrived for it.
    pub hint: u8,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// It answered a segment with an RST.
    pub rst_sent: u8,
    /// It began as FIN_WAIT2, and is not known to be in TIME_WAIT.
    pub awaits_fin: u8,
    /// As [`Conn::reset_reason`].
    pub reset_reason: u32,
}

contract!(TimeWait = 56);
contract!(Tuple = 40, Owner = 40, Conn = 336);
