//! Responses: each answers the oldest request without one (RFC 9112 §4, §6.3, §9.3.2), and some end HTTP.

use super::exchange::{Outcome, Response};
use super::flow::{Flow, Protocol};
use super::framing::{self, Body};
use super::head::{self, Facts, Head};
use super::pairing::{INFORMATIONAL_MAX, Phase, Running};
use super::persistence::persists;
use super::side::State;
use super::start_line;
use super::{Direction, Output};

impl Flow {
    /// A response head is whole.
    pub(super) fn response_head(
        &mut self,
        direction: Direction,
        first_ns: Option<u64>,
        bytes: &[u8],
        time_ns: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        let Ok(line) = start_line::status_line(start_line::first_line(bytes).0) else { return };
        let status = line.status;
        // RFC 9110 §15.2: interim responses precede the final one; 101 is final for HTTP/1.x.
        if (100..200).contains(&status) && status != 101 {
            if self.awaited().is_none() && !self.sides[direction.other().index()].busy {
                self.catch_up(direction.other(), out);
            }
            if let Some(running) = self.awaited().and_then(|index| self.queue.get_mut(index)) {
                let informational = &mut running.exchange.informational;
                if informational.len() < INFORMATIONAL_MAX {
                    informational.push(status);
                }
            }
            return;
        }
        self.turn_to_response(direction.other(), out);
        if self.over {
            return;
        }
        let Some((index, facts)) = self.note_response(first_ns, bytes) else { return };
        let Some(running) = self.queue.get_mut(index) else { return };
        let exchange = &mut running.exchange;
        let exact = exchange.exact;
        let version = exchange.response.as_ref().map_or((1, 1), |response| response.version);
        exchange.keep_alive.response = Some(persists(version, &facts));
        exchange.keep_alive.timeout_s = facts.timeout_s;
        exchange.keep_alive.max = facts.max;
        running.note(framing::contradiction(version, &facts));
        let connect = running.method() == Some(b"CONNECT");
        let body = framing::of_response(running.method(), status, &facts);
        if let Some(response) = &mut running.exchange.response {
            response.framing = body.as_ref().ok().map(Body::framing);
        }
        if status == 101 || connect && (200..300).contains(&status) {
            self.leave_http(index, status, facts, time_ns, out);
            return;
        }
        match body {
            Ok(body) if body.is_complete() => self.response_over(direction, Some(0), time_ns, out),
            Ok(body) => self.sides[direction.index()].state = State::Body(body),
            Err(reason) => self.response_malformed(direction, reason, out),
        }
        let client = direction.other();
        if connect && !self.over && matches!(self.sides[client.index()].state, State::Hold) {
            // Refused: what the client sent early is the next request after all. If this is the answer to it, all are off.
            self.pairing_exact &= exact;
            self.sides[client.index()].state = State::Boundary;
            self.drain(client, out);
        }
    }

    /// A final response shows that the request it answers is over, where its own bytes cannot.
    pub(super) fn turn_to_response(&mut self, client: Direction, out: &mut Vec<Output>) {
        let index = client.index();
        if self.sides[index].busy {
            return;
        }
        let answered = self.awaited().and_then(|index| self.queue.get(index));
        let concerned = answered.is_none_or(|running| !running.request_over);
        if concerned {
            self.catch_up(client, out);
        }
        if self.over {
            return;
        }
        let answered_none = self.awaited().is_none();
        let side = &mut self.sides[index];
        let tentative = side.tentative;
        match &mut side.state {
            State::Lost { open: true, .. } if concerned => self.infer_end(client, out),
            State::Lost { turn, .. } => *turn = true,
            State::Head(head) if tentative && !head.line_valid => {
                side.state = State::Lost { open: false, turn: true };
            }
            // An early answer, for example 400, is framed by the method seen so far.
            State::Head(head) if concerned && head.line_valid => {
                let bytes = std::mem::take(&mut head.bytes);
                self.note_request(&bytes);
                if let State::Head(head) = &mut self.sides[index].state {
                    head.bytes = bytes;
                }
            }
            // Or comes before the request line ends, for example 414, and takes the request's place for it.
            State::Head(head) if answered_none && !head.begun => {
                head.begun = true;
                let (first_ns, pipelined) = (head.first_ns, head.pipelined);
                self.begin_request(client, first_ns, pipelined, out);
            }
            _ => {}
        }
    }

    /// Waits no longer for bytes before those that are held back.
    fn catch_up(&mut self, client: Direction, out: &mut Vec<Output>) {
        if !self.sides[client.index()].is_blocked() {
            return;
        }
        let before = self.queue.len();
        self.give_up(client, out);
        // Requests were held back behind the gap: the answer is to the last of them.
        if self.queue.len() > before {
            self.pass_over(out);
        }
    }

    /// Takes down what the bytes of a final response head say, be it whole or cut short, and pairs it.
    pub(super) fn note_response(&mut self, first_ns: Option<u64>, bytes: &[u8]) -> Option<(usize, Facts)> {
        let (line, rest) = start_line::first_line(bytes);
        let line = start_line::status_line(line).ok()?;
        let Head { fields, facts, defect } =
            head::fields(bytes.get(rest..)?, false, self.config.fields_max as usize);
        let index = self.awaited().unwrap_or_else(|| {
            // Were its request only held back, all pairing would be off by one from here.
            self.pairing_exact &= !self.sides.iter().all(|side| side.busy);
            // Nor can what comes of a request late be told from the next one.
            let late = |client: Direction| self.sides[client.index()].stream.hole().is_some();
            self.pairing_exact &= !self.client.is_some_and(late);
            // It answers nothing that was seen. In front, because the last place is the request's on its way.
            self.last_seq += 1;
            let mut running = Running::new(self.last_seq);
            running.exchange.exact = false;
            running.exchange.reused = self.last_seq > 1;
            running.request_over = true;
            self.queue.push_front(running);
            0
        });
        self.pipelines |= self.queue.len() > index + 1;
        self.summary.responses += 1;
        self.charge(index, line.reason.len(), &fields);
        let running = self.queue.get_mut(index)?;
        running.phase = Phase::Open;
        running.note(defect);
        running.exchange.exact &= running.exchange.request.is_some();
        running.exchange.response_start_ns = first_ns;
        running.exchange.response = Some(Response {
            status: line.status,
            reason: line.reason.to_vec(),
            version: line.version,
            header_bytes: bytes.len() as u64,
            body_bytes: None,
            framing: None,
            headers: fields,
        });
        Some((index, facts))
    }

    /// A response came to its end; `None` for what is not known of it.
    pub(super) fn response_over(
        &mut self,
        direction: Direction,
        content: Option<u64>,
        time_ns: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        self.sides[direction.index()].state = State::Boundary;
        let Some(index) = self.open() else { return };
        let Some(running) = self.queue.get_mut(index) else { return };
        running.phase = Phase::Done;
        running.exchange.response_end_ns = time_ns;
        // Had its request been a HEAD, this would not be where it ends.
        self.sides[direction.index()].tentative |= running.method().is_none();
        if let Some(response) = &mut running.exchange.response {
            response.body_bytes = content;
        }
        if running.request_over {
            self.emit(index, Outcome::Complete, out);
        }
    }

    pub(super) fn response_malformed(
        &mut self,
        direction: Direction,
        reason: &'static str,
        out: &mut Vec<Output>,
    ) {
        if let Some(running) = self.open().and_then(|index| self.queue.get_mut(index)) {
            running.malformed = true;
            running.note(Some(reason));
        }
        self.response_over(direction, None, None, out);
        self.sides[direction.index()].state = State::Lost { open: false, turn: false };
    }

    /// 101 and 2xx to CONNECT: HTTP/1.x ends with this head (RFC 9110 §7.8, §9.3.6).
    fn leave_http(
        &mut self,
        index: usize,
        status: u16,
        facts: Facts,
        time_ns: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        if let Some(running) = self.queue.get_mut(index) {
            running.exchange.response_end_ns = time_ns;
            if let Some(response) = &mut running.exchange.response {
                response.body_bytes = Some(0);
            }
        }
        let (outcome, protocol) = if status == 101 {
            let name = facts.upgrade.unwrap_or_default();
            let websocket = name.eq_ignore_ascii_case("websocket");
            (Outcome::Upgraded, if websocket { Protocol::WebSocket } else { Protocol::Upgraded(name) })
        } else {
            (Outcome::Tunnel, Protocol::Tunnel)
        };
        self.emit(index, outcome, out);
        self.leave(protocol, "sent before the protocol changed", out);
    }
}
