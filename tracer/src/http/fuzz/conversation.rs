//! Conversations that begin as valid ones and are then damaged: that gets past the first look of every parser.

use crate::fuzz::Input;
use crate::http::Direction;
use crate::http::scenarios::{Case, Step, cases};

const WORDS: [&[u8]; 36] = [
    b"GET / HTTP/1.1\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 C\r\n\r\n",
    b"HTTP/1.1 101 S\r\n\r\n",
    b"HTTP/1.1 204 N\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.",
    b"Content-Length: 5\r\n",
    b"Content-Length: 100000\r\n\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Keep-Alive: timeout=5, max=18446744073709551615\r\n",
    b"Upgrade: \xff\r\n",
    b"Expect: 100-continue\r\n",
    b"Host: \r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b";x=\"y\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b",",
    b"\0",
    b"\x16\x03\x01",
];

/// One to four cases of the tables behind each other, some of their steps damaged.
pub(crate) fn conversation(input: &mut Input<'_>) -> Vec<(Direction, Vec<u8>)> {
    let all: Vec<&Case> = cases().collect();
    let mut steps = Vec::new();
    for _ in 0..=input.below(4) {
        let case = input.choose(&all);
        let captured = |step: &Step| step.captured().map(|(direction, data)| (direction, data.to_vec()));
        steps.extend(case.steps.iter().filter_map(captured));
    }
    for (_, data) in &mut steps {
        if input.once_in(3) {
            damage(data, input);
        }
    }
    steps
}

/// Changes a few bytes, or many.
pub(super) fn damage(data: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..=input.below(3) {
        let at = input.below(data.len() + 1);
        let to = (at + input.below(20)).min(data.len());
        match input.below(7) {
            0 => {
                data.splice(at..at, input.choose(&WORDS).iter().copied());
            }
            1 => {
                data.splice(at..to, input.choose(&WORDS).iter().copied());
            }
            2 => {
                data.drain(at..to);
            }
            3 => {
                let copy = data[at..to].repeat(1 + input.below(40));
                data.splice(at..at, copy);
            }
            4 => {
                let bytes = input.bytes(12).to_vec();
                data.splice(at..to, bytes);
            }
            5 => data.truncate(at),
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << input.below(8);
                }
            }
        }
    }
}
