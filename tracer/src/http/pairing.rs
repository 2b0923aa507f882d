//! Messages become exchanges: which response answers which request (RFC 9112 §9.3.2), and what becomes of
//! those that are never answered.

use super::exchange::{Exchange, Field, Outcome, Request, Response};
use super::flow::{Flow, Protocol};
use super::framing::{self, Body};
use super::head::{self, Facts, Head};
use super::persistence::persists;
use super::side::State;
use super::start_line;
use super::{Direction, Output};

/// Most statuses of interim responses kept for one exchange.
const INFORMATIONAL_MAX: usize = 64;

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
    unsure: bool,
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
    fn new(seq: u64) -> Self {
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

    fn method(&self) -> Option<&[u8]> {
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

// Requests.
impl Flow {
    /// Some response has not come to its end.
    pub(super) fn is_running(&self) -> bool {
        self.queue.back().is_some_and(|running| running.phase != Phase::Done)
    }

    /// The exchange whose request is on its way.
    pub(super) fn requesting(&mut self) -> Option<&mut Running> {
        self.queue.back_mut().filter(|running| !running.request_over)
    }

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
        let unsure = after_hole || self.queue.back().is_some_and(|last| last.unsure);
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

    fn drop_front(&mut self, out: &mut Vec<Output>) {
        let Some(running) = self.queue.front_mut() else { return };
        running.exchange.exact = false;
        let outcome = running.outcome(Cut::Close);
        self.emit(0, if outcome == Outcome::NoResponse { Outcome::Truncated } else { outcome }, out);
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

    /// Counts the memory for a head of the exchange at `index`. One that was cut short counts again when all of it
    /// has come.
    fn charge(&mut self, index: usize, line_bytes: usize, fields: &[Field]) {
        let text: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = line_bytes + text + size_of_val(fields);
        if let Some(running) = self.queue.get_mut(index) {
            running.heads_bytes += bytes;
            self.heads_bytes += bytes;
        }
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

// Responses.
impl Flow {
    fn awaited(&self) -> Option<usize> {
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
            // Refused: what the client sent early is the next request after all.
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
        if concerned && self.sides[index].is_blocked() {
            let before = self.queue.len();
            self.give_up(client, out);
            // Requests were held back behind the gap: the answer is to the last of them.
            if self.queue.len() > before {
                self.pass_over(out);
            }
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

    /// Takes down what the bytes of a final response head say, be it whole or cut short, and pairs it.
    pub(super) fn note_response(&mut self, first_ns: Option<u64>, bytes: &[u8]) -> Option<(usize, Facts)> {
        let (line, rest) = start_line::first_line(bytes);
        let line = start_line::status_line(line).ok()?;
        let Head { fields, facts, defect } =
            head::fields(bytes.get(rest..)?, false, self.config.fields_max as usize);
        let index = self.awaited().unwrap_or_else(|| {
            // Were its request only held back, all pairing would be off by one from here.
            self.pairing_exact &= !self.sides.iter().all(|side| side.busy);
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
