//! How messages, directions and connections end: in order, cut short, or in bytes that were not captured.

use super::exchange::Outcome;
use super::flow::{Flow, Protocol};
use super::framing::Body;
use super::pairing::{Cut, Phase, Running};
use super::side::{PartialHead, State};
use super::start_line;
use super::{Direction, Output};

impl Flow {
    pub(super) fn body_complete(
        &mut self,
        direction: Direction,
        content: u64,
        time_ns: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        if time_ns.is_none() {
            self.inexact(direction);
        }
        if self.client == Some(direction) {
            self.request_over(direction, Some(content), time_ns, out);
        } else {
            self.response_over(direction, Some(content), time_ns, out);
        }
    }

    /// Something about the message that this direction is in had to be inferred.
    fn inexact(&mut self, direction: Direction) {
        let running = if self.client == Some(direction) {
            self.requesting()
        } else {
            self.open().and_then(|index| self.queue.get_mut(index))
        };
        if let Some(running) = running {
            running.exchange.exact = false;
        }
    }

    pub(super) fn body_malformed(
        &mut self,
        direction: Direction,
        reason: &'static str,
        out: &mut Vec<Output>,
    ) {
        if self.client == Some(direction) {
            self.request_malformed(direction, reason, out);
        } else {
            self.response_malformed(direction, reason, out);
        }
    }

    pub(super) fn head_too_large(&mut self, direction: Direction, head: &PartialHead, out: &mut Vec<Output>) {
        if !head.line_valid {
            self.line_too_long(direction, head, out);
        } else if self.client == Some(direction) {
            self.note_partial_request(direction, head, out);
        } else {
            self.note_partial_response(direction, head, out);
        }
        if !self.over {
            self.body_malformed(direction, "head too large", out);
        }
    }

    /// A request line goes beyond the cap: its place is taken, for the answer, which will be 414 (RFC 9112 §3).
    fn line_too_long(&mut self, direction: Direction, head: &PartialHead, out: &mut Vec<Output>) {
        self.client = Some(direction);
        self.protocol = Protocol::Http1;
        if !head.begun {
            self.begin_request(direction, head.first_ns, head.pipelined, out);
        }
        self.summary.requests += u64::from(!self.over);
        self.inexact(direction);
    }

    /// Takes down what came of a request head, provided that it is one.
    fn note_partial_request(&mut self, direction: Direction, head: &PartialHead, out: &mut Vec<Output>) {
        let request = self.can_start(direction, &head.bytes) && !self.sides[direction.index()].tentative;
        if !head.begun && self.protocol == Protocol::Http1 && request {
            self.begin_request(direction, head.first_ns, head.pipelined, out);
        }
        if head.line_valid {
            self.note_request(&head.bytes);
        }
    }

    fn note_partial_response(&mut self, direction: Direction, head: &PartialHead, out: &mut Vec<Output>) {
        let interim = start_line::status_line(start_line::first_line(&head.bytes).0)
            .is_ok_and(|line| line.status < 200);
        if !head.line_valid || interim {
            return;
        }
        self.turn_to_response(direction.other(), out);
        if !self.over {
            self.note_response(head.first_ns, &head.bytes);
        }
    }

    /// Framing of a direction ends here: bytes that decide it did not come.
    pub(super) fn lose(&mut self, direction: Direction, out: &mut Vec<Output>) {
        let side = &mut self.sides[direction.index()];
        let state = std::mem::replace(&mut side.state, State::Lost { open: false, turn: false });
        side.stream.abandon();
        let mut open = matches!(state, State::Body(_));
        match state {
            State::Head(head) if self.client == Some(direction) => {
                self.note_partial_request(direction, &head, out);
                self.inexact(direction);
                self.request_over(direction, None, None, out);
            }
            State::Head(head) => {
                self.note_partial_response(direction, &head, out);
                self.inexact(direction);
                open = self.open().is_some();
            }
            _ => {}
        }
        if !self.over {
            self.sides[direction.index()].state = State::Lost { open, turn: false };
        }
    }

    /// The message whose framing was lost ended with the last bytes seen, as the other direction shows.
    pub(super) fn infer_end(&mut self, direction: Direction, out: &mut Vec<Output>) {
        let seen_ns = Some(self.sides[direction.index()].stream.seen_ns);
        self.inexact(direction);
        if self.client == Some(direction) {
            self.request_over(direction, None, seen_ns, out);
        } else {
            self.response_over(direction, None, seen_ns, out);
        }
        self.sides[direction.index()].state = State::Lost { open: false, turn: true };
    }

    /// A direction ends, inside a message or between two.
    pub(super) fn cut(&mut self, direction: Direction, cut: Cut, out: &mut Vec<Output>) {
        let side = &mut self.sides[direction.index()];
        let state = std::mem::replace(&mut side.state, State::Closed);
        // Over without FIN or reset: what showed the end was not captured.
        let unexplained = cut == Cut::Close && matches!(state, State::Head(_) | State::Body(_));
        if self.client == Some(direction) {
            self.cut_request(direction, state, unexplained, out);
        } else if self.client.is_some() {
            self.cut_response(direction, state, cut, out);
            if unexplained {
                self.inexact(direction);
            }
        }
        if !self.over {
            self.sides[direction.index()].state = State::Closed;
        }
    }

    fn cut_request(&mut self, direction: Direction, state: State, unexplained: bool, out: &mut Vec<Output>) {
        match &state {
            State::Head(head) => self.note_partial_request(direction, head, out),
            State::Body(body) => {
                let content = body.content();
                if let Some(request) = self.requesting().and_then(|running| running.exchange.request.as_mut())
                {
                    request.body_bytes = Some(content);
                }
            }
            State::Lost { open: true, .. } => self.inexact(direction),
            _ => {}
        }
        if let Some(running) = self.requesting() {
            running.exchange.exact &= !unexplained;
            running.request_over = true;
            running.request_cut = true;
        }
    }

    fn cut_response(&mut self, direction: Direction, state: State, cut: Cut, out: &mut Vec<Output>) {
        let stream = &self.sides[direction.index()].stream;
        // The FIN's own record is no record of the bytes before it.
        let whole = stream.fin.is_some_and(|(end, _)| end == stream.seen_end);
        let seen_ns = whole.then_some(stream.seen_ns);
        // Had its request been a HEAD, this was no content but the answers to those behind it.
        if matches!(state, State::Body(_)) && self.is_method_unknown(direction) {
            self.queue.iter_mut().for_each(|running| running.exchange.exact = false);
        }
        match state {
            State::Head(head) => self.note_partial_response(direction, &head, out),
            // RFC 9112 §8: complete if the connection was closed in order.
            State::Body(body @ Body::UntilClose { .. }) if cut == Cut::Fin => {
                self.response_over(direction, Some(body.content()), seen_ns, out);
            }
            State::Body(body) => {
                let open = self.open().and_then(|index| self.queue.get_mut(index));
                if let Some(response) = open.and_then(|running| running.exchange.response.as_mut()) {
                    response.body_bytes = Some(body.content());
                }
            }
            State::Lost { open, turn } => {
                if open && cut != Cut::Reset {
                    self.infer_end(direction, out);
                }
                // What is awaited may have been among the bytes passed over.
                if open || !turn {
                    self.queue.iter_mut().for_each(|running| running.exchange.exact = false);
                }
            }
            _ => {}
        }
        if cut != Cut::Fin || self.over {
            return;
        }
        // No response can come any more. A request still on its way, or behind, awaits the connection's end.
        while let Some(running) = self.queue.front() {
            if running.phase == Phase::Done || running.phase == Phase::Awaited && !running.request_over {
                break;
            }
            self.emit(0, running.outcome(cut), out);
        }
    }

    /// The connection ends.
    pub(super) fn end(&mut self, cut: Cut, out: &mut Vec<Output>) {
        self.name_by_what_there_is();
        if let Some(client) = self.client {
            for direction in [client, client.other()] {
                self.give_up(direction, out);
                if !self.over && !matches!(self.sides[direction.index()].state, State::Closed) {
                    self.cut(direction, cut, out);
                }
            }
            while let Some(running) = self.queue.front() {
                self.emit(0, running.outcome(cut), out);
            }
        }
        self.stop();
    }

    /// The connection carries something else from here on; what runs cannot be completed.
    pub(super) fn leave(&mut self, protocol: Protocol, reason: &'static str, out: &mut Vec<Output>) {
        while let Some(running) = self.queue.front_mut() {
            if running.phase != Phase::Done {
                running.malformed = true;
                running.note(Some(reason));
            }
            running.exchange.exact &= running.request_over;
            self.emit(0, Outcome::Complete, out);
        }
        self.protocol = protocol;
        self.stop();
        self.never(Direction::AToB, out);
        self.never(Direction::BToA, out);
    }

    /// First bytes that were too few to name a protocol are all there will be.
    fn name_by_what_there_is(&mut self) {
        for direction in [Direction::AToB, Direction::BToA] {
            if self.protocol == Protocol::Unknown
                && let State::Head(head) = &self.sides[direction.index()].state
                && !self.can_start(direction, &head.bytes)
            {
                self.protocol = Protocol::Other;
            }
        }
    }

    fn stop(&mut self) {
        self.over = true;
        for side in &mut self.sides {
            side.state = State::Closed;
            side.stream.abandon();
        }
    }

    /// Takes an exchange out of the queue and hands it out.
    pub(super) fn emit(&mut self, index: usize, outcome: Outcome, out: &mut Vec<Output>) {
        let Some(mut running) = self.queue.remove(index) else { return };
        // More of its request was sent than has come.
        let unseen = |client: Direction| self.sides[client.index()].stream.hole().is_some();
        running.exchange.exact &= running.request_over || !self.client.is_some_and(unseen);
        let Running { mut exchange, malformed, heads_bytes, .. } = running;
        self.heads_bytes -= heads_bytes;
        exchange.outcome = if malformed { Outcome::Malformed } else { outcome };
        exchange.exact &= self.pairing_exact;
        let last_ns = match exchange.outcome {
            Outcome::NoResponse => exchange.request_end_ns,
            _ => exchange.response_end_ns,
        };
        // An unknown end must not make the silence behind it longer than it was.
        self.summary.last_end_ns =
            last_ns.and_then(|_| last_ns.max(exchange.request_end_ns).max(self.summary.last_end_ns));
        out.push(Output::Exchange(exchange));
        if self.queue.is_empty() && self.queue.capacity() > 4 {
            self.queue = std::collections::VecDeque::new();
        }
    }
}
