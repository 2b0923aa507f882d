//! What is known of one direction: its stream and where in a message it is.

use super::framing::Body;
use super::head::Scan;
use super::stream::Stream;

/// Where in its messages a direction is.
#[derive(Debug)]
pub(super) enum State {
    /// Between messages.
    Boundary,
    /// In a head that did not come in one piece.
    Head(Box<PartialHead>),
    Body(Body),
    /// Behind a CONNECT request: what follows is the tunnel's or, when that is refused, a request.
    Hold,
    /// Framing is lost. `open`: inside a message whose end is to be inferred. `turn`: the next segment may
    /// start a message.
    Lost {
        open: bool,
        turn: bool,
    },
    /// The stream ended.
    Closed,
}

/// The beginning of a head.
#[derive(Debug)]
pub(super) struct PartialHead {
    pub bytes: Vec<u8>,
    pub scan: Scan,
    /// Time of its first byte.
    pub first_ns: Option<u64>,
    /// An exchange was still running at its first byte.
    pub pipelined: bool,
    /// The start line is complete and valid.
    pub line_valid: bool,
    /// It is a request and has its place in the queue.
    pub begun: bool,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Side {
    pub stream: Stream,
    pub state: State,
    /// Highest offset that a mark was given for.
    pub marked: u64,
    /// [`Mark::Never`](super::Mark::Never) was given.
    pub never: bool,
    /// Bytes of this direction are being consumed; what that causes must not consume more of them.
    pub busy: bool,
    /// The message boundary is presumed, until a valid start line confirms it.
    pub tentative: bool,
    /// The message that starts here follows bytes of which there is no record.
    pub after_hole: bool,
}

impl Side {
    pub(super) fn new(from_start: bool) -> Self {
        let state = if from_start { State::Boundary } else { State::Lost { open: false, turn: true } };
        Self {
            stream: Stream::default(),
            state,
            marked: 0,
            never: false,
            busy: false,
            tentative: !from_start,
            after_hole: false,
        }
    }

    /// Bytes that may pass without any record of them.
    pub(super) fn may_miss(&self) -> u64 {
        match &self.state {
            State::Body(body) => body.opaque_before_end(),
            State::Lost { .. } | State::Closed => u64::MAX,
            _ => 0,
        }
    }

    /// Waits for bytes though later ones are there.
    pub(super) fn is_blocked(&self) -> bool {
        !self.stream.is_empty() && !matches!(self.state, State::Hold | State::Closed)
    }

    /// Memory held for bytes that cannot be used yet.
    pub(super) fn held_bytes(&self) -> usize {
        let head = if let State::Head(head) = &self.state { head.bytes.capacity() } else { 0 };
        self.stream.cost_bytes() + head
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost { .. })
    }
}
