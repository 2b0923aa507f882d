//! Both directions at once: any order that a connection can have, in which no answer begins before its request is over.
//! Checked against what is known of every byte: when it passed, and what had passed before.

use proptest::collection::vec;
use proptest::prelude::*;

use super::wire::{C, S, Wire, full};
use super::{GET, HEAD, OK2};
use crate::http::Exchange;

/// Request, interim responses, final response.
type Pair = (&'static [u8], &'static [u8], &'static [u8]);

const PAIRS: [Pair; 6] = [
    (GET, b"", OK2),
    (HEAD, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
    (
        b"PUT /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        b"",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ),
    (
        b"POST /q HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n",
    ),
    (GET, b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n", OK2),
    (
        b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
];

/// One direction's bytes, and when each of them passed.
#[derive(Default)]
struct Told {
    bytes: Vec<u8>,
    passed_ns: Vec<u64>,
    /// First byte and end of each message.
    messages: Vec<(usize, usize)>,
}

impl Told {
    fn add(&mut self, before: &[u8], message: &[u8]) {
        self.bytes.extend(before);
        let start = self.bytes.len();
        self.bytes.extend(message);
        self.messages.push((start, self.bytes.len()));
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.passed_ns.len()
    }

    /// When the first and the last byte of a message passed.
    fn times(&self, message: usize) -> (u64, u64) {
        let (start, end) = self.messages[message];
        (self.passed_ns[start], self.passed_ns[end - 1])
    }
}

/// In turns, for what does not depend on times.
fn in_turns(pairs: &[Pair]) -> Vec<String> {
    let mut wire = Wire::new(Some(C), true);
    for (ask, interim, answer) in pairs {
        wire.send(C, ask);
        wire.send(S, &[*interim, answer].concat());
    }
    wire.exchanges().into_iter().map(full).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_that_can_be(
        pairs in vec(proptest::sample::select(PAIRS.to_vec()), 1..8),
        turns in vec((any::<bool>(), 1..120usize), 0..80),
        known in any::<bool>(),
    ) {
        let mut told = [Told::default(), Told::default()];
        for (ask, interim, answer) in &pairs {
            told[0].add(b"", ask);
            told[1].add(interim, answer);
        }
        let mut wire = Wire::new(known.then_some(C), true);
        let mut turns = turns.into_iter();
        while told[0].left() + told[1].left() > 0 {
            let (client, len) = turns.next().unwrap_or((told[0].left() > 0, usize::MAX));
            let (direction, side) = if client { (C, 0) } else { (S, 1) };
            let from = told[side].passed_ns.len();
            // The server has said nothing about requests that have not come whole.
            let asked = told[0].messages.iter().filter(|(_, end)| *end <= told[0].passed_ns.len()).count();
            let most = if client {
                told[0].bytes.len()
            } else {
                asked.checked_sub(1).map_or(0, |last| told[1].messages[last].1)
            };
            let to = from.saturating_add(len).min(most);
            if from < to {
                wire.send(direction, &told[side].bytes[from..to]);
                told[side].passed_ns.resize(to, wire.now_ns);
            }
        }
        let exchanges = wire.exchanges();
        let shown: Vec<String> =
            exchanges.iter().map(|exchange| full(&Exchange { pipelined: false, ..(*exchange).clone() })).collect();
        prop_assert_eq!(shown, in_turns(&pairs));
        for (index, exchange) in exchanges.iter().enumerate() {
            let (started, request_end) = told[0].times(index);
            let (response_start, response_end) = told[1].times(index);
            prop_assert_eq!(
                [exchange.started_ns, exchange.request_end_ns, exchange.response_start_ns, exchange.response_end_ns],
                [started, request_end, response_start, response_end].map(Some)
            );
            let before = index.checked_sub(1).map(|before| told[1].times(before).1);
            let pipelined = before.is_some_and(|end| started < end);
            prop_assert_eq!(exchange.pipelined, pipelined);
            let idle = (!pipelined).then(|| started - before.unwrap_or(1));
            prop_assert_eq!(exchange.idle_before_ns, idle);
        }
        prop_assert_eq!(wire.flow.held_bytes(), 0);
    }
}
