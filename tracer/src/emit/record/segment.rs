//! `segment`: a TCP segment's header, written with `--segments`.

use super::value::{ConnId, Tuple};
use crate::emit::time::Timestamp;
use serde::Serialize;

/// One segment, as one of its sockets saw it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename = "segment")]
pub struct Segment<'a> {
    /// When it passed.
    pub ts: Timestamp,
    /// The connection; null when it belongs to none that is known.
    pub conn: Option<ConnId>,
    /// Inode of the network namespace; null when it is not known.
    pub netns: Option<u64>,
    /// Addresses and ports.
    #[serde(flatten)]
    pub tuple: Tuple,
    /// `sent` or `received`, by the local end.
    pub direction: &'static str,
    /// Names of RFC 9293 §3.1, and RFC 9768's AE.
    pub flags: &'a [&'static str],
    /// Sequence number, as on the wire.
    pub seq: u32,
    /// Acknowledgment number, as on the wire; null without ACK.
    pub ack: Option<u32>,
    /// Counted from the sender's SYN, which is 0; null when that was not seen.
    pub seq_relative: Option<u32>,
    /// Counted from the other side's SYN.
    pub ack_relative: Option<u32>,
    /// Payload; of a super-packet all of it.
    pub payload_bytes: u32,
    /// As in the header.
    pub window: u16,
    /// Scaled; null when the scale is not known.
    pub window_bytes: Option<u32>,
    /// Options.
    pub options: SegmentOptions<'a>,
}

/// Options of a segment; null where absent.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct SegmentOptions<'a> {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Power of two by which this sender's windows are scaled.
    pub window_scale: Option<u8>,
    /// Selective acknowledgments may be sent.
    pub sack_permitted: bool,
    /// Left and right edges, as on the wire.
    pub sack: &'a [(u32, u32)],
    /// The sender's clock.
    pub timestamp: Option<u32>,
    /// What it echoes of the other one's.
    pub timestamp_echo: Option<u32>,
}
