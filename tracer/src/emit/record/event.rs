//! `state`, `retransmit`, `reset`: raw events of a connection, written with `--events`.

use super::value::{ConnId, Micros, Tuple};
use crate::emit::time::Timestamp;
use serde::Serialize;

/// A change of state.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename = "state")]
pub struct StateEvent {
    /// When it changed.
    pub ts: Timestamp,
    /// The connection; null when the tracer does not follow it.
    pub conn: Option<ConnId>,
    /// Inode of the network namespace; null when it is not known.
    pub netns: Option<u64>,
    /// Addresses and ports.
    #[serde(flatten)]
    pub tuple: Tuple,
    /// RFC 9293 name.
    pub old_state: &'static str,
    /// RFC 9293 name.
    pub new_state: &'static str,
    /// Time spent in the old state.
    pub in_state_us: Option<Micros>,
}

/// A segment sent again.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename = "retransmit")]
pub struct RetransmitEvent {
    /// When it was sent again.
    pub ts: Timestamp,
    /// The connection; null when the tracer does not follow it.
    pub conn: Option<ConnId>,
    /// Inode of the network namespace; null when it is not known.
    pub netns: Option<u64>,
    /// Addresses and ports.
    #[serde(flatten)]
    pub tuple: Tuple,
    /// `data`, `syn`, `synack` or `fin`.
    pub kind: &'static str,
    /// State of the socket, RFC 9293 name.
    pub state: Option<&'static str>,
    /// Segments of the network's size.
    pub segments: Option<u64>,
    /// Payload.
    pub bytes: Option<u64>,
}

/// A reset sent or received.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename = "reset")]
pub struct ResetEvent<'a> {
    /// When it was sent or received.
    pub ts: Timestamp,
    /// The connection; null when it belongs to none.
    pub conn: Option<ConnId>,
    /// Inode of the network namespace; null when it is not known.
    pub netns: Option<u64>,
    /// Addresses and ports.
    #[serde(flatten)]
    pub tuple: Tuple,
    /// `sent` or `received`.
    pub direction: &'static str,
    /// State of the socket, RFC 9293 name; null when there was no socket.
    pub state: Option<&'static str>,
    /// The kernel's reason, from 6.11 on and only for resets sent.
    pub reason: Option<&'a str>,
}
