//! Bytes of one direction, in order, become messages.

use super::flow::{Flow, Protocol};
use super::head::Scan;
use super::side::{PartialHead, State};
use super::start_line::{self, NotHttp1, Prefix};
use super::stream::Run;
use super::{Direction, Framing, Mark, Output};

/// Fewest bytes worth a mark.
const MARK_MIN_BYTES: u64 = 512;
/// Turns without a message after which a connection joined midway is believed to carry none.
const STRIKES_MAX: u8 = 16;

/// Which kind of message a start line begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Request,
    Response,
}

impl Flow {
    /// Hands a run at the front of the stream to the message parser; returns how many bytes it took.
    pub(super) fn feed(&mut self, direction: Direction, run: Run, out: &mut Vec<Output>) -> u64 {
        let index = direction.index();
        self.sides[index].busy = true;
        let mut used = 0;
        while used < run.len && !self.over {
            let taken = self.step(direction, run.after(used), out);
            if taken == 0 {
                break;
            }
            used += taken;
            let next = &mut self.sides[index].stream.next;
            *next = next.saturating_add(taken);
            self.mark(direction, out);
        }
        self.sides[index].busy = false;
        used
    }

    fn step(&mut self, direction: Direction, run: Run, out: &mut Vec<Output>) -> u64 {
        match (&mut self.sides[direction.index()].state, run.data) {
            (State::Closed, _) => run.len,
            (State::Lost { turn, .. }, _) => {
                *turn = false;
                run.len
            }
            (State::Hold, _) | (State::Boundary | State::Head(_), None) => 0,
            (State::Boundary, Some(data)) => self.step_boundary(direction, data, run.time_ns, out),
            (State::Head(_), Some(data)) => self.step_head(direction, data, run.time_ns, out),
            (State::Body(body), data) => {
                let taken = match data {
                    Some(data) => body.advance(data),
                    None => Ok(body.skip(run.len)),
                };
                let complete = body.is_complete().then(|| body.content());
                match (taken, complete) {
                    (Err(reason), _) => {
                        self.body_malformed(direction, reason, out);
                        run.len
                    }
                    (Ok(taken), None) => taken,
                    (Ok(taken), Some(content)) => {
                        self.body_complete(direction, content, run.time_ns, out);
                        taken
                    }
                }
            }
        }
    }

    fn step_boundary(
        &mut self,
        direction: Direction,
        data: &[u8],
        time_ns: Option<u64>,
        out: &mut Vec<Output>,
    ) -> u64 {
        // RFC 9112 §2.2: empty lines before a request are ignored; those before a response are as harmless.
        let blank = data.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if blank > 0 {
            return blank as u64;
        }
        let mut head = PartialHead {
            bytes: Vec::new(),
            scan: Scan::default(),
            first_ns: time_ns,
            pipelined: self.is_running(),
            line_valid: false,
            begun: false,
        };
        let window = &data[..data.len().min(self.config.head_max_bytes as usize)];
        if let Some(end) = Scan::default().find_end(window) {
            self.head_complete(direction, &mut head, &data[..end], time_ns, out);
            return end as u64;
        }
        self.sides[direction.index()].state = State::Head(Box::new(head));
        self.step_head(direction, data, time_ns, out)
    }

    fn step_head(
        &mut self,
        direction: Direction,
        data: &[u8],
        time_ns: Option<u64>,
        out: &mut Vec<Output>,
    ) -> u64 {
        let index = direction.index();
        let state = std::mem::replace(&mut self.sides[index].state, State::Boundary);
        let State::Head(mut head) = state else { return 0 };
        let before = head.bytes.len();
        let max = self.config.head_max_bytes as usize;
        head.bytes.extend_from_slice(&data[..data.len().min(max.saturating_sub(before))]);
        if let Some(end) = head.scan.find_end(&head.bytes) {
            let bytes = std::mem::take(&mut head.bytes);
            self.head_complete(direction, &mut head, &bytes[..end], time_ns, out);
            return end.saturating_sub(before) as u64;
        }
        if !head.line_valid {
            let judged = if head.scan.has_line() {
                self.start_line(direction, start_line::first_line(&head.bytes).0).map(Some)
            } else {
                if self.can_start(direction, &head.bytes) { Ok(None) } else { Err(NotHttp1::Other) }
            };
            match judged {
                Ok(Some(kind)) => self.line_valid(direction, kind, &mut head, out),
                Ok(None) => {}
                // A first byte or two of another protocol: more of them tell which.
                Err(NotHttp1::Other) if self.is_unnamed(direction) && resembles(&head.bytes).is_none() => {}
                Err(why) => {
                    self.not_http1(direction, why, &head.bytes, out);
                    return data.len() as u64;
                }
            }
        }
        if self.over {
            return data.len() as u64;
        }
        if head.bytes.len() < max {
            self.sides[index].state = State::Head(head);
            return data.len() as u64;
        }
        let of_request = self.client.is_none_or(|client| client == direction)
            && !self.sides[index].tentative
            && start_line::begins_request(&head.bytes);
        if head.line_valid || of_request {
            self.head_too_large(direction, &head, out);
        } else {
            self.not_http1(direction, NotHttp1::Other, &head.bytes, out);
        }
        data.len() as u64
    }

    /// A head is whole: `bytes`, up to and with its empty line.
    fn head_complete(
        &mut self,
        direction: Direction,
        head: &mut PartialHead,
        bytes: &[u8],
        time_ns: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        let kind = match self.start_line(direction, start_line::first_line(bytes).0) {
            Ok(kind) => kind,
            Err(why) => return self.not_http1(direction, why, bytes, out),
        };
        self.line_valid(direction, kind, head, out);
        if self.over {
            return;
        }
        match kind {
            Kind::Request => self.request_head(direction, bytes, time_ns, out),
            Kind::Response => self.response_head(direction, head.first_ns, bytes, time_ns, out),
        }
    }

    fn start_line(&self, direction: Direction, line: &[u8]) -> Result<Kind, NotHttp1> {
        let response = match self.client {
            Some(client) => client != direction,
            None => start_line::prefix(line) == Prefix::Response,
        };
        if response {
            start_line::status_line(line).map(|_| Kind::Response)
        } else {
            // Words at a boundary that is only presumed are no request because of their last one.
            let sure = |line: &start_line::RequestLine| {
                !self.sides[direction.index()].tentative || !line.target.iter().any(u8::is_ascii_whitespace)
            };
            let line = start_line::request_line(line)?;
            if sure(&line) { Ok(Kind::Request) } else { Err(NotHttp1::Other) }
        }
    }

    /// These first bytes can still become a message of this direction.
    pub(super) fn can_start(&self, direction: Direction, bytes: &[u8]) -> bool {
        match (start_line::prefix(bytes), self.client) {
            (Prefix::Neither, _) => false,
            (Prefix::Either, _) | (_, None) => true,
            (Prefix::Request, Some(client)) => client == direction,
            (Prefix::Response, Some(client)) => client != direction,
        }
    }

    fn line_valid(
        &mut self,
        direction: Direction,
        kind: Kind,
        head: &mut PartialHead,
        out: &mut Vec<Output>,
    ) {
        let client = if kind == Kind::Request { direction } else { direction.other() };
        if self.client.replace(client).is_none() {
            self.reconsider(direction.other());
        }
        self.protocol = Protocol::Http1;
        self.sides[direction.index()].tentative = false;
        head.line_valid = true;
        if kind == Kind::Request && !head.begun {
            head.begun = true;
            self.begin_request(direction, head.first_ns, head.pipelined, out);
        }
    }

    /// The roles are known now: what a direction joined midway began with may not be its kind of message.
    fn reconsider(&mut self, direction: Direction) {
        let side = &self.sides[direction.index()];
        if let State::Head(head) = &side.state
            && side.tentative
            && !self.can_start(direction, &head.bytes)
        {
            self.sides[direction.index()].state = State::Lost { open: false, turn: true };
        }
    }

    /// What stands at a message boundary is no message.
    fn not_http1(&mut self, direction: Direction, why: NotHttp1, bytes: &[u8], out: &mut Vec<Output>) {
        if why == NotHttp1::Http2 {
            self.leave(Protocol::Http2, "HTTP/2 preface", out);
        } else if self.sides[direction.index()].tentative {
            self.sides[direction.index()].state = State::Lost { open: false, turn: false };
            self.strike(bytes, out);
        } else {
            let name = if self.protocol == Protocol::Unknown { resembles(bytes) } else { None };
            self.leave(name.unwrap_or(Protocol::Other), "not an HTTP/1.x message", out);
        }
    }

    /// Nothing has shown yet what the connection carries, and these are a direction's first bytes.
    fn is_unnamed(&self, direction: Direction) -> bool {
        self.protocol == Protocol::Unknown && !self.sides[direction.index()].tentative
    }

    /// A direction joined midway did not start a message where it could have.
    pub(super) fn strike(&mut self, bytes: &[u8], out: &mut Vec<Output>) {
        self.strikes = self.strikes.saturating_add(1);
        if self.protocol == Protocol::Unknown && self.strikes >= STRIKES_MAX {
            self.leave(resembles(bytes).unwrap_or(Protocol::Other), "not an HTTP/1.x message", out);
        }
    }

    /// Tells the capture what is not needed.
    fn mark(&mut self, direction: Direction, out: &mut Vec<Output>) {
        let side = &self.sides[direction.index()];
        let State::Body(body) = &side.state else { return };
        let framing = body.framing();
        let opaque = body.opaque();
        // Were the request a HEAD, the next bytes would be the next head.
        if opaque == 0 || side.never || self.is_method_unknown(direction) {
            return;
        }
        if framing == Framing::UntilClose {
            self.never(direction, out);
            return;
        }
        let offset = side.stream.next.saturating_add(opaque);
        if offset > side.marked && offset > side.stream.seen_end.saturating_add(MARK_MIN_BYTES) {
            let then_head = framing == Framing::ContentLength;
            self.sides[direction.index()].marked = offset;
            out.push(Output::Skip { direction, mark: Mark::Until { offset, then_head } });
        }
    }

    pub(super) fn never(&mut self, direction: Direction, out: &mut Vec<Output>) {
        let side = &mut self.sides[direction.index()];
        if !std::mem::replace(&mut side.never, true) {
            out.push(Output::Skip { direction, mark: Mark::Never });
        }
    }
}

/// The protocol whose first bytes these are; `None` when they are too few to tell.
fn resembles(bytes: &[u8]) -> Option<Protocol> {
    match bytes {
        // A record's type and major version (RFC 8446 §5.1).
        [0x14..=0x17] => None,
        [0x14..=0x17, 0x03, ..] => Some(Protocol::Tls),
        _ if !may_be_settings(bytes) => Some(Protocol::Other),
        _ => (bytes.len() >= SETTINGS.len()).then_some(Protocol::Http2),
    }
}

/// The server's connection preface of HTTP/2: a SETTINGS frame of up to 64 KiB on stream 0, without flags
/// (RFC 9113 §3.4, §4.1).
const SETTINGS: [Option<u8>; 9] = [Some(0), None, None, Some(4), Some(0), Some(0), Some(0), Some(0), Some(0)];

fn may_be_settings(bytes: &[u8]) -> bool {
    bytes.iter().zip(SETTINGS).all(|(byte, wanted)| wanted.is_none_or(|wanted| wanted == *byte))
}
