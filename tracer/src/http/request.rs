//! Requests: each begins an exchange, and its end lets the next one begin (RFC 9112 §3, §6.3).

use super::exchange::{Outcome, Request};
use super::flow::{Flow, Protocol};
use super::framing::{self, Body};
use super::head::{self, Facts, Head};
use super::pairing::{Phase, Running};
use super::persistence::persists;
use super::side::State;
use super::start_line;
use super::{Direction, Output};

impl Flow {
    /// A request starts. `pipelined`: an exchange was running at its first byte.
    pub(super) fn begin_request(
        &mut self,
        direction: Direction,
        first_ns: Option<u64>,
        pipelined: bool,
        out: &mut Vec<Output>,
    ) {
        let before = self.queue.len();
        self.turn_to_request(direction.other(), first_ns, out);
        if self.over {
            return;
        }
        if self.queue.len() >= self.config.outstanding_max as usize
            || self.heads_bytes > self.config.outstanding_max_bytes as usize
        {
            self.leave(Protocol::Http1, "too many requests without response", out);
            return;
        }
        self.last_seq += 1;
        let mut running = Running::new(self.last_seq);
        let exchange = &mut running.exchange;
        exchange.started_ns = first_ns;
        exchange.reused = self.last_seq > 1;
        // Missing bytes before it may have been requests; those sent before its answer share the doubt.
        let after_hole = std::mem::take(&mut self.sides[direction.index()].after_hole);
        // The server knew of it before it came here, so its answer may be gone.
        let stream = &self.sides[direction.index()].stream;
        let late = stream.sent_end > stream.next;
        let unsure = after_hole || late || self.queue.back().is_some_and(|last| last.unsure);
        running.unsure = unsure;
        let exchange = &mut running.exchange;
        exchange.exact = !unsure;
        exchange.pipelined = if self.queue.len() == before { pipelined } else { self.is_running() };
        let since = if self.last_seq == 1 { self.established_ns } else { self.summary.last_end_ns };
        // What is running now may not be all that was running at its first byte.
        let silent = !exchange.pipelined;
        if let (true, Some(first_ns), Some(since)) = (silent && !self.is_running(), first_ns, since) {
            let idle_ns = first_ns.saturating_sub(since);
            running.exchange.idle_before_ns = Some(idle_ns);
            if self.last_seq > 1 {
                self.summary.idle_max_ns = self.summary.idle_max_ns.max(Some(idle_ns));
            }
        }
        self.summary.reused += u64::from(self.last_seq > 1);
        self.queue.push_back(running);
    }

    /// A new request shows that a response whose framing is lost came to its end, unless it is pipelined.
    fn turn_to_request(&mut self, server: Direction, first_ns: Option<u64>, out: &mut Vec<Output>) {
        let index = server.index();
        if self.sides[index].busy {
            return;
        }
        let running =
            self.queue.iter().rev().take_while(|running| running.phase != Phase::Done).take(2).count();
        if self.sides[index].is_blocked() && (running <= 1 || !self.pipelines) {
            self.give_up(server, out);
        }
        // A response to a request that was not seen, announcing content of which nothing came: it may have
        // answered a HEAD.
        let untouched = matches!(&self.sides[index].state, State::Body(body) if body.is_untouched());
        if untouched && self.is_method_unknown(server) {
            self.sides[index].state = State::Lost { open: true, turn: false };
        }
        let State::Lost { open, turn } = self.sides[index].state else { return };
        if self.over {
            return;
        }
        if open {
            self.infer_end(server, out);
        }
        if !turn {
            // Their responses were among the bytes passed over.
            self.pass_over(out);
            self.drop_front(out);
        }
        // A request that was itself held back may be answered by bytes that are gone.
        let turn = first_ns.is_some_and(|first_ns| first_ns >= self.sides[index].stream.seen_ns);
        self.sides[index].state = State::Lost { open: false, turn };
    }

    /// A request head is whole.
    pub(super) fn request_head(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        time_ns: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        let Some(facts) = self.note_request(bytes) else { return };
        let Some(running) = self.requesting() else { return };
        let Some(request) = &mut running.exchange.request else { return };
        running.exchange.keep_alive.request = Some(persists(request.version, &facts));
        let contradiction = framing::contradiction(request.version, &facts);
        // RFC 9112 §3.2: every request of HTTP/1.1 has one.
        let hostless = request.version >= (1, 1) && facts.host.is_none();
        let body = framing::of_request(&facts);
        request.framing = body.as_ref().ok().map(Body::framing);
        running.note(contradiction);
        running.note(hostless.then_some("no Host"));
        match body {
            Ok(body) if body.is_complete() => self.request_over(direction, Some(0), time_ns, out),
            Ok(body) => self.sides[direction.index()].state = State::Body(body),
            Err(reason) => self.request_malformed(direction, reason, out),
        }
    }

    /// Takes down what the bytes of a request head say, be it whole or cut short.
    pub(super) fn note_request(&mut self, bytes: &[u8]) -> Option<Facts> {
        let (line, rest) = start_line::first_line(bytes);
        let line = start_line::request_line(line).ok()?;
        let Head { fields, facts, defect } =
            head::fields(bytes.get(rest..)?, true, self.config.fields_max as usize);
        let known = self.requesting()?.exchange.request.is_some();
        self.summary.requests += u64::from(!known);
        let host = start_line::authority(&line).map(<[u8]>::to_vec).or_else(|| facts.host.clone());
        let line_bytes = line.method.len() + line.target.len() + host.as_ref().map_or(0, Vec::len);
        self.charge(self.queue.len() - 1, line_bytes, &fields);
        let running = self.requesting()?;
        running
            .note(line.target.iter().any(u8::is_ascii_whitespace).then_some("whitespace in request target"));
        running.note(defect);
        running.exchange.request = Some(Request {
            method: line.method.to_vec(),
            target: line.target.to_vec(),
            version: line.version,
            host,
            header_bytes: bytes.len() as u64,
            body_bytes: None,
            framing: None,
            headers: fields,
        });
        Some(facts)
    }

    /// A request came to its end; `None` for what is not known of it.
    pub(super) fn request_over(
        &mut self,
        direction: Direction,
        content: Option<u64>,
        time_ns: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        let state = &mut self.sides[direction.index()].state;
        *state = State::Boundary;
        let Some(running) = self.queue.back_mut().filter(|running| !running.request_over) else { return };
        running.request_over = true;
        running.exchange.request_end_ns = time_ns;
        if let Some(request) = &mut running.exchange.request {
            request.body_bytes = content;
        }
        if running.phase == Phase::Awaited && running.method() == Some(b"CONNECT") {
            *state = State::Hold;
        }
        if running.phase == Phase::Done {
            self.emit(self.queue.len() - 1, Outcome::Complete, out);
        }
    }

    pub(super) fn request_malformed(
        &mut self,
        direction: Direction,
        reason: &'static str,
        out: &mut Vec<Output>,
    ) {
        if let Some(running) = self.requesting() {
            running.malformed = true;
            running.note(Some(reason));
        }
        self.request_over(direction, None, None, out);
        self.sides[direction.index()].state = State::Lost { open: false, turn: false };
    }
}
