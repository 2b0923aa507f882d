//! `conn`: the life of one local TCP socket, written when it is done.

use super::value::{ConnId, Cookie, Micros, Process, Tuple};
use crate::emit::time::Timestamp;
use serde::Serialize;

/// One local socket. A connection within the host has two, which name each other in `peer`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "conn")]
pub struct Conn<'a> {
    /// When the socket was done: closed, or gone to TIME_WAIT.
    pub ts: Timestamp,
    /// This socket's end of the connection.
    pub id: ConnId,
    /// The other end, when it is on this host too.
    pub peer: Option<ConnId>,
    /// The kernel's cookie of the socket.
    pub cookie: Option<Cookie>,
    /// Inode number of the network namespace, as in `/proc/PID/ns/net`.
    pub netns: Option<u64>,
    /// Addresses and ports.
    #[serde(flatten)]
    pub tuple: Tuple,
    /// `client`, `server` or `unknown`.
    pub role: &'static str,
    /// The owner.
    pub process: Option<Process<'a>>,
    /// What the payload is: `http/1`, `http/2`, `tls`, …; null when there was none or it was not recognised.
    pub protocol: Option<&'static str>,
    /// When the socket left CLOSE; null when that was before the tracer.
    pub opened: Option<Timestamp>,
    /// When it reached ESTABLISHED; null when it never did or did before the tracer.
    pub established: Option<Timestamp>,
    /// When it was done.
    pub closed: Option<Timestamp>,
    /// It was open before the tracer started.
    pub preexisting: bool,
    /// It was still open when the run ended: what follows is how far it had come.
    pub open: bool,
    /// From where every `at_us` counts: `opened`, or when the tracer first saw the socket.
    pub first_seen: Timestamp,
    /// From `opened` to `closed`.
    pub duration_us: Option<Micros>,
    /// From the SYN to ESTABLISHED, as this socket saw it.
    pub handshake_us: Option<Micros>,
    /// The states it went through, in order.
    pub states: &'a [StateAt],
    /// Who ended it first, and how.
    pub close: Close<'a>,
    /// Payload sent, each byte once.
    pub bytes_sent: Option<u64>,
    /// Payload received, each byte once.
    pub bytes_received: Option<u64>,
    /// Segments either way, those without payload included.
    pub segments: SegmentTotals,
    /// What this socket sent again.
    pub retransmits: Retransmits<'a>,
    /// What the other end sent again; null where no capture tells.
    pub retransmits_received: Option<RetransmitsReceived>,
    /// Round-trip times as the kernel measured them.
    pub rtt_us: Rtt,
    /// TCP keep-alive probes (RFC 9293 §3.8.4).
    pub keepalive_probes: KeepaliveProbes,
    /// Times that a receiver had no room (RFC 9293 §3.8.6.1).
    pub zero_windows: ZeroWindows,
    /// The exchanges it carried; null when none.
    pub http: Option<HttpSummary>,
    /// Whether it went to TIME_WAIT.
    pub time_wait: Option<bool>,
    /// False when an event that belongs to it may have been lost.
    pub complete: bool,
    /// How many events were lost; null when the number is not known.
    pub lost: Option<u64>,
}

/// A state and the moment it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StateAt {
    /// RFC 9293 name, such as `FIN_WAIT2`.
    pub state: &'static str,
    /// Since `first_seen`; null for a state that began before the tracer.
    pub at_us: Option<Micros>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Close<'a> {
    /// `local`, `remote` or `both`.
    pub by: Option<&'static str>,
    /// `fin`, `rst_sent`, `rst_received`, `refused`, `timeout`, `unreachable`, ….
    pub how: Option<&'static str>,
    /// The kernel's reason, where it gives one.
    pub reason: Option<&'a str>,
    /// Since `first_seen`.
    pub at_us: Option<Micros>,
}

/// Segments and payload sent more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Retransmits<'a> {
    /// All of them, of which the next two are part (`tcp_sock.total_retrans`).
    pub segments: Option<u64>,
    /// SYN segments.
    pub syn: Option<u64>,
    /// When each of the first of them was sent, since `first_seen`: their back-off.
    pub syn_at_us: &'a [Micros],
    /// SYN-ACK segments.
    pub synack: Option<u64>,
    /// Payload.
    pub bytes: Option<u64>,
}

/// Segments that arrived more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RetransmitsReceived {
    /// Those with payload or FIN.
    pub segments: u64,
    /// Their payload that had been seen before.
    pub bytes: u64,
}

/// Round-trip times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rtt {
    /// The kernel's windowed minimum.
    pub min: Option<Micros>,
    /// The smoothed time (RFC 6298).
    pub smoothed: Option<Micros>,
}

/// Keep-alive probes seen on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeepaliveProbes {
    /// By this host.
    pub sent: Option<u64>,
    /// From the other end.
    pub received: Option<u64>,
}

/// Segments as the kernel counts them (`tcp_sock.segs_out`, `segs_in`; RFC 4898).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SegmentTotals {
    /// By this socket, retransmissions included.
    pub sent: Option<u64>,
    /// By this socket's peer.
    pub received: Option<u64>,
}

/// Episodes of a closed receive window: from the segment that announced 0 to the one that opened it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ZeroWindows {
    /// Announced by this host.
    pub sent: Option<u64>,
    /// Announced by the other end.
    pub received: Option<u64>,
}

/// The HTTP exchanges of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HttpSummary {
    /// Requests seen.
    pub requests: u64,
    /// Final responses seen.
    pub responses: u64,
    /// Longest silence between two exchanges; null when there was but one.
    pub idle_max_us: Option<Micros>,
    /// Silence between the end of the last exchange and that of the connection (`close.at_us`); null when it is still
    /// open, or an exchange was still running.
    pub idle_at_close_us: Option<Micros>,
    /// More than one request was carried.
    pub reuse: bool,
}
