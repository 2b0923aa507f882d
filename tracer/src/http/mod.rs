//! HTTP/1.x as a passive observer sees it: framing by RFC 9112, semantics by RFC 9110.
//!
//! ```text
//! Segment → stream (order, retransmissions, gaps) → head | framing | chunked (messages) → pairing → Exchange
//! ```
//!
//! The engine is a function of what it is given: no I/O, no clock. Offsets and times are the caller's. One
//! [`Flow`] follows one connection.
//!
//! # Contract
//!
//! - **No panic**, whatever the bytes, offsets and times are.
//! - **Bounded**: a flow holds at most one head ([`Config::head_max_bytes`]) and
//!   [`Config::reorder_max_bytes`] of early bytes for each direction, and [`Config::outstanding_max`]
//!   exchanges with [`Config::outstanding_max_bytes`] of heads ([`Config::held_max_bytes`] is the sum). An idle
//!   flow holds no buffers.
//! - **No guesses**: what was not seen is `None`; what had to be inferred has [`Exchange::exact`] false.
//!
//! # Captured, seen, missing
//!
//! A byte is *captured* (its value is known), *seen* (a record says that it passed) or *missing* (no record
//! yet). Content of known length may be seen or missing and its message is exact all the same. Heads, chunk
//! sizes and trailers have to be captured. Where such a byte is not, the engine waits, because a late or
//! retransmitted segment may bring it, until something shows that both ends have gone on: a response to the
//! request that is incomplete here, a new request after the response that is incomplete here, the end of the
//! connection, or too many bytes waiting behind the gap. Then the message is reported as far as it is known
//! and the direction is followed again from the next message that starts a turn.
//!
//! A message ends at the time of the segment that carried its last byte, even if earlier content arrives later.

mod chunked;
mod ending;
mod exchange;
mod flow;
mod framing;
mod head;
mod pairing;
mod parse;
mod persistence;
mod request;
mod response;
mod side;
mod start_line;
mod stream;

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scenarios;

pub use exchange::{Exchange, Field, Framing, KeepAlive, Outcome, Request, Response};
pub use flow::{Flow, Protocol, Summary};

/// Limits of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Largest message head followed, in bytes.
    pub head_max_bytes: u32,
    /// Most fields kept of a head. Fields beyond still decide framing.
    pub fields_max: u32,
    /// Most memory for bytes of one direction that cannot be used yet, in bytes.
    pub reorder_max_bytes: u32,
    /// Most requests waiting for their responses. A flow with more is followed no further.
    pub outstanding_max: u32,
    /// Most memory for the heads of those, in bytes. A flow with more is followed no further.
    pub outstanding_max_bytes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            head_max_bytes: 64 << 10,
            fields_max: 128,
            reorder_max_bytes: 256 << 10,
            outstanding_max: 1024,
            outstanding_max_bytes: 1 << 20,
        }
    }
}

impl Config {
    /// The most that one flow holds on the heap, in bytes.
    pub fn held_max_bytes(&self) -> usize {
        let [head, fields, reorder, outstanding, heads] = [
            self.head_max_bytes,
            self.fields_max,
            self.reorder_max_bytes,
            self.outstanding_max,
            self.outstanding_max_bytes,
        ]
        .map(|cap| cap as usize);
        // A buffer that grows has room for twice its bytes.
        let early = 2 * head + reorder;
        // The host may be there twice. A head that goes beyond the cap is the last one; its answer may follow.
        let kept = 2 * (head + fields * size_of::<Field>());
        2 * early + (outstanding + 1) * pairing::RUNNING_BYTES + heads + 4 * kept
    }
}

/// One of the two byte streams of a connection. Which is which is the caller's to say, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    AToB = 0,
    BToA = 1,
}

impl Direction {
    /// The opposite direction.
    pub fn other(self) -> Self {
        match self {
            Self::AToB => Self::BToA,
            Self::BToA => Self::AToB,
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// What the wire showed of one direction. Offsets count payload bytes from the first byte of the stream, or
/// from where observation began.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// When the segment passed, in nanoseconds of the caller's clock.
    pub time_ns: u64,
    /// Stream offset of the first payload byte.
    pub offset: u64,
    /// Payload bytes on the wire.
    pub len: u32,
    /// Stream offset of `data[0]`.
    pub data_offset: u64,
    /// The part of the payload that was captured, possibly none. What lies outside the payload is ignored.
    pub data: &'a [u8],
    /// FIN follows the payload.
    pub fin: bool,
}

/// What a flow has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// An exchange that is complete or can no longer be.
    Exchange(Box<Exchange>),
    /// Advice to the capture: bytes of this direction that need not be copied. Late or ignored advice does
    /// no harm.
    Skip { direction: Direction, mark: Mark },
}

/// Which bytes are not needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Nothing before this stream offset is wanted, from there on bytes are. `then_head`: a message head
    /// starts exactly there; otherwise it is the line end of a chunk and the next chunk's size.
    Until { offset: u64, then_head: bool },
    /// Bytes of this direction are not wanted any more. Its FIN still is, unless the flow left HTTP/1.x.
    Never,
}
