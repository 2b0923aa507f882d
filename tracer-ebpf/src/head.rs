//! A look at a message head, to know where the next one begins without asking the daemon.
//!
//! It only saves copies: the daemon frames messages by itself from the bytes it gets. So anything unusual is
//! [`Next::Unknown`], after which all is copied (within the budget) until the daemon says what it does not need.

use crate::globals::CHUNK;

/// What follows a head (RFC 9112 §6.3).
pub enum Next {
    /// The next message at once.
    Message,
    /// Content of this many bytes, then the next message.
    Body(u64),
    Unknown,
}

pub struct Head {
    /// Just past the head's empty line; 0 with `Next::Unknown`.
    pub end: u32,
    pub next: Next,
    /// A HEAD request: the answer's Content-Length is not that of its body.
    pub head_request: bool,
}

#[inline(always)]
pub fn scan(_data: &[u8; CHUNK], _size: u32, _head_seen: bool) -> Head {
    Head { end: 0, next: Next::Unknown, head_request: false }
}
