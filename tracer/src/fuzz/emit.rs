//! Output: any exchange becomes one line of valid JSON that the schema describes.

use std::sync::Arc;

use tracer_ebpf::Conn;

use super::{Input, Written};
use crate::{
    emit::{headers::HeaderPolicy, text::unescape},
    http::{Exchange, Field, Framing, KeepAlive, Outcome, Request, Response},
    report::{Clock, Report},
    track::Output,
};

/// Takes exchanges, and reads what is written of them.
pub(crate) struct Lines {
    exchanges: Vec<Exchange>,
    conn: Conn,
    headers: HeaderPolicy,
}

impl Lines {
    pub(crate) fn new(input: &mut Input<'_>) -> Self {
        let mut conn = Conn::ZERO;
        conn.id = input.u64();
        conn.role = input.byte();
        conn.flags = input.u64() as u16;
        conn.family = *input.choose(&[2, 10, 0, 255]);
        conn.tuple.local_addr = std::array::from_fn(|_| input.byte());
        conn.tuple.remote_port = input.u64() as u16;
        let wanted = *input.choose(&["all", "x", "connection"]);
        let headers = HeaderPolicy::new(&[wanted.to_owned()], &["b".to_owned()], input.once_in(2));
        Self { exchanges: Vec::new(), conn, headers }
    }

    pub(crate) fn push(&mut self, exchange: &Exchange) {
        self.exchanges.push(exchange.clone());
    }

    /// Every exchange is a line, every line is valid, and network bytes can be had back from it.
    pub(crate) fn check(self, wall_ns: i64) {
        if self.exchanges.is_empty() {
            return;
        }
        let (written, lines) = Written::begin();
        let mut report = Report {
            clock: Clock::new(wall_ns, 0),
            headers: &self.headers,
            reset_reasons: [].into(),
            lines,
            written: 0,
            limit: u64::MAX,
        };
        for exchange in &self.exchanges {
            let exchange = Arc::new(exchange.clone());
            report.output(&Output::Exchange { conn: Box::new(self.conn), process: None, exchange }, 0);
        }
        let values = written.end(report.lines);
        assert_eq!(values.len(), self.exchanges.len());
        for (value, exchange) in values.iter().zip(&self.exchanges) {
            let method = value.pointer("/request/method").and_then(|method| method.as_str()).map(unescape);
            assert_eq!(method, exchange.request.as_ref().map(|request| request.method.clone()));
        }
    }
}

pub(super) fn emit(input: &mut Input<'_>) {
    let mut lines = Lines::new(input);
    loop {
        lines.push(&exchange(input));
        if input.is_empty() || lines.exchanges.len() == 20 {
            break;
        }
    }
    lines.check(input.u64() as i64);
}

fn exchange(input: &mut Input<'_>) -> Exchange {
    use Outcome::{Complete, Malformed, NoResponse, Reset, Truncated, Tunnel, Upgraded};
    Exchange {
        seq: input.number().max(1),
        request: input.once_in(2).then(|| Request {
            method: text(input),
            target: text(input),
            version: (input.byte() % 10, input.byte() % 10),
            host: input.once_in(2).then(|| text(input)),
            header_bytes: input.number(),
            body_bytes: maybe(input),
            framing: input.once_in(2).then(|| framing(input)),
            headers: fields(input),
        }),
        response: input.once_in(2).then(|| Response {
            status: input.u64() as u16 % 900 + 100,
            reason: text(input),
            version: (input.byte() % 10, input.byte() % 10),
            header_bytes: input.number(),
            body_bytes: maybe(input),
            framing: input.once_in(2).then(|| framing(input)),
            headers: fields(input),
        }),
        informational: (0..input.below(4)).map(|_| 100 + u16::from(input.byte() % 100)).collect(),
        started_ns: maybe(input),
        request_end_ns: maybe(input),
        response_start_ns: maybe(input),
        response_end_ns: maybe(input),
        idle_before_ns: maybe(input),
        reused: input.once_in(2),
        pipelined: input.once_in(2),
        keep_alive: KeepAlive {
            request: input.once_in(2).then(|| input.once_in(2)),
            response: input.once_in(2).then(|| input.once_in(2)),
            timeout_s: maybe(input),
            max: maybe(input),
        },
        outcome: *input.choose(&[Complete, NoResponse, Truncated, Reset, Upgraded, Tunnel, Malformed]),
        retransmits: input.u64() as u32,
        exact: input.once_in(2),
        malformed_reason: input.once_in(2).then_some("a reason"),
    }
}

fn maybe(input: &mut Input<'_>) -> Option<u64> {
    (!input.once_in(4)).then(|| input.number())
}

fn framing(input: &mut Input<'_>) -> Framing {
    *input.choose(&[Framing::None, Framing::ContentLength, Framing::Chunked, Framing::UntilClose])
}

fn text(input: &mut Input<'_>) -> Vec<u8> {
    let known: [&[u8]; 6] = [b"GET", b"/a?b=c", b"\\x41", b"\xff\xfe", b"\"\n\0", "ä€𝄞".as_bytes()];
    if input.once_in(3) { input.choose(&known).to_vec() } else { input.bytes(40).to_vec() }
}

fn fields(input: &mut Input<'_>) -> Vec<Field> {
    let names: [&[u8]; 6] = [b"Connection", b"X", b"Cookie", b"b", b"Location", b"\xff"];
    let name = |input: &mut Input<'_>| {
        if input.once_in(2) { input.choose(&names).to_vec() } else { text(input) }
    };
    (0..input.below(5)).map(|_| (name(input), text(input))).collect()
}
