//! Messages become exchanges: which response answers which request (RFC 9112 §9.3.2), and what becomes of
//! those that are never answered.

use super::exchange::{Exchange, Field, Outcome};
use super::flow::Flow;
use super::head;
use super::{Direction, Output};

/// Most statuses of interim responses kept for one exchange.
pub(super) const INFORMATIONAL_MAX: usize = 64;

/// What a running exchange costs beside its heads.
pub(super) const RUNNING_BYTES: usize =
    size_of::<Running>() + size_of::<Exchange>() + INFORMATIONAL_MAX * size_of::<u16>();

/// Where the response of an exchange is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Awaited,
    Open,
    Done,
}

/// An exchange that is not over.
#[derive(Debug)]
pub(super) struct Running {
    pub exchange: Box<Exchange>,
    pub phase: Phase,
    /// The request is over: complete, cut short or beyond following.
    pub request_over: bool,
    /// The request ended before it was complete.
    pub request_cut: bool,
    /// A message broke the rules so that its end is unknown.
    pub malformed: bool,
    /// Responses to requests that were not seen may come before its own.
    pub unsure: bool,
    /// Memory for its heads.
    pub heads_bytes: usize,
}

/// Why a direction ends where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    Fin,
    Close,
    Reset,
}

impl Running {
    pub(super) fn new(seq: u64) -> Self {
        let exchange = Box::new(Exchange { seq, exact: true, ..Exchange::default() });
        Self {
            exchange,
            phase: Phase::Awaited,
            request_over: false,
            request_cut: false,
            malformed: false,
            unsure: false,
            heads_bytes: 0,
        }
    }

    pub(super) fn note(&mut self, reason: Option<&'static str>) {
        if let Some(reason) = reason {
            head::note(&mut self.exchange.malformed_reason, reason);
        }
    }

    pub(super) fn method(&self) -> Option<&[u8]> {
        self.exchange.request.as_ref().map(|request| request.method.as_slice())
    }

    /// What it is if nothing more comes.
    pub(super) fn outcome(&self, cut: Cut) -> Outcome {
        match (self.phase, cut) {
            (Phase::Done, _) => Outcome::Complete,
            (_, Cut::Reset) => Outcome::Reset,
            (Phase::Awaited, _) if self.request_over && !self.request_cut => Outcome::NoResponse,
            _ => Outcome::Truncated,
        }
    }
}

impl Flow {
    /// Some response has not come to its end.
    pub(super) fn is_running(&self) -> bool {
        self.queue.back().is_some_and(|running| running.phase != Phase::Done)
    }

    /// The exchange whose request is on its way.
    pub(super) fn requesting(&mut self) -> Option<&mut Running> {
        self.queue.back_mut().filter(|running| !running.request_over)
    }

    /// Responses may have gone by unseen: the next one answers the last request, as it does where a client
    /// waits for its answers. Once it was seen to pipeline, no pairing on this connection is sure any more.
    pub(super) fn pass_over(&mut self, out: &mut Vec<Output>) {
        self.pairing_exact &= self.queue.is_empty() || !self.pipelines;
        while self.queue.len() > 1 {
            self.drop_front(out);
        }
        if let Some(last) = self.queue.front_mut() {
            last.exchange.exact = false;
        }
    }

    pub(super) fn drop_front(&mut self, out: &mut Vec<Output>) {
        let Some(running) = self.queue.front_mut() else { return };
        running.exchange.exact = false;
        let outcome = running.outcome(Cut::Close);
        self.emit(0, if outcome == Outcome::NoResponse { Outcome::Truncated } else { outcome }, out);
    }

    /// Counts the memory for a head of the exchange at `index`. One that was cut short counts again when all of it
    /// has come.
    pub(super) fn charge(&mut self, index: usize, line_bytes: usize, fields: &[Field]) {
        let text: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = line_bytes + text + size_of_val(fields);
        if let Some(running) = self.queue.get_mut(index) {
            running.heads_bytes += bytes;
            self.heads_bytes += bytes;
        }
    }

    pub(super) fn awaited(&self) -> Option<usize> {
        self.queue.iter().position(|running| running.phase == Phase::Awaited)
    }

    pub(super) fn open(&self) -> Option<usize> {
        self.queue.iter().position(|running| running.phase == Phase::Open)
    }

    /// This direction carries a response to a request that was not seen.
    pub(super) fn is_method_unknown(&self, direction: Direction) -> bool {
        self.client != Some(direction)
            && self
                .open()
                .and_then(|index| self.queue.get(index))
                .is_some_and(|running| running.method().is_none())
    }
}
