//! What must hold for any bytes and any way of cutting them into segments.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::scenarios::{C, S, Wire, shown};
use super::*;

/// A conversation in turns: who speaks, and what.
type Turns = Vec<(Direction, Vec<u8>)>;

fn message() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let content = vec(any::<u8>(), 0..300);
    let fields = prop_oneof![Just(""), Just("A: b\r\n"), Just("Fold: a\r\n b\r\n"), Just("Bare: lf\n")];
    let framed =
        (content, 0..3u8, 1..40usize, any::<bool>()).prop_map(|(content, how, size, upper)| match how {
            0 => (format!("Content-Length: {}\r\n", content.len()), content),
            1 => {
                let mut body = Vec::new();
                for chunk in content.chunks(size) {
                    let line = if upper {
                        format!("{:X};e=1\r\n", chunk.len())
                    } else {
                        format!("{:x}\r\n", chunk.len())
                    };
                    body.extend(line.bytes().chain(chunk.iter().copied()).chain(*b"\r\n"));
                }
                body.extend_from_slice(if upper { b"0\r\nT: r\r\n\r\n" } else { b"0\r\n\r\n" });
                ("Transfer-Encoding: chunked\r\n".to_owned(), body)
            }
            _ => ("X: y\r\n".to_owned(), Vec::new()),
        });
    (fields, framed.clone(), framed, 0..6u8).prop_map(|(fields, request, response, kind)| {
        let (method, status) = match kind {
            0 => ("HEAD", "200 OK"),
            1 => ("GET", "304 Not Modified"),
            2 => ("DELETE", "204 No Content"),
            _ => ("POST", "200 OK"),
        };
        let interim = if kind == 5 { "HTTP/1.1 100 Continue\r\n\r\n" } else { "" };
        let mut ask = format!("{method} /NN HTTP/1.1\r\nHost: h\r\n{fields}{}\r\n", request.0).into_bytes();
        ask.extend(request.1);
        // Without framing fields a response would last until close.
        let (framing, content) = if response.0.starts_with('X') {
            ("Content-Length: 0\r\n".to_owned(), Vec::new())
        } else {
            response
        };
        let mut answer =
            format!("{interim}HTTP/1.1 {status}\r\nId: NN\r\n{fields}{framing}\r\n").into_bytes();
        if kind > 2 {
            answer.extend(content);
        }
        (ask, answer)
    })
}

/// Gives a message the number of its exchange.
fn number(message: &mut [u8], number: usize) {
    if let Some(at) = message.windows(2).position(|pair| pair == b"NN") {
        message[at..at + 2].copy_from_slice(format!("{number:02}").as_bytes());
    }
}

/// Some exchanges, each request sent alone or all at once. Targets and `Id` fields carry their numbers.
fn turns() -> impl Strategy<Value = Turns> {
    (vec(message(), 1..8), any::<bool>()).prop_map(|(messages, pipelined)| {
        let mut turns = Turns::new();
        for (index, (mut ask, mut answer)) in messages.into_iter().enumerate() {
            number(&mut ask, index + 1);
            number(&mut answer, index + 1);
            if pipelined && turns.len() == 2 {
                turns[0].1.extend(ask);
                turns[1].1.extend(answer);
            } else {
                turns.push((C, ask));
                turns.push((S, answer));
            }
        }
        turns
    })
}

/// What an exchange says of itself, its place on the connection aside: target, `Id`, sizes.
fn essence(exchange: &Exchange) -> String {
    let request = exchange
        .request
        .as_ref()
        .map(|r| (r.target.escape_ascii().to_string(), r.framing, r.header_bytes, r.body_bytes));
    let response = exchange.response.as_ref().map(|r| {
        let id =
            r.headers.iter().find(|(name, _)| name == b"Id").map(|(_, id)| id.escape_ascii().to_string());
        (id, r.status, r.framing, r.header_bytes, r.body_bytes)
    });
    format!("{request:?} {response:?}")
}

fn whole(turns: &Turns) -> Vec<String> {
    let mut wire = Wire::new(Some(C), true);
    for (direction, bytes) in turns {
        wire.send(*direction, bytes);
    }
    finish(wire)
}

fn finish(mut wire: Wire) -> Vec<String> {
    wire.flow.close(u64::MAX, &mut wire.out);
    assert!(wire.flow.sides.iter().all(|side| side.stream.cost_bytes() == 0));
    let heads = |exchange: &&Exchange| {
        let request = exchange.request.as_ref().map(|r| (r.header_bytes, r.headers.clone()));
        let response = exchange.response.as_ref().map(|r| (r.header_bytes, r.headers.clone()));
        format!("{} {request:?} {response:?}", shown(exchange))
    };
    wire.exchanges().iter().map(heads).collect()
}

/// Plays the conversation with each turn cut by `cut` into (offset in the turn, length) segments.
fn played(
    turns: &Turns,
    client: Option<Direction>,
    cut: &mut dyn FnMut(usize) -> Vec<(usize, usize)>,
) -> Vec<String> {
    let mut wire = Wire::new(client, true);
    let mut at = [0u64; 2];
    for (direction, bytes) in turns {
        let base = at[direction.index()];
        for (start, len) in cut(bytes.len()) {
            wire.at(*direction, base + start as u64, len as u32, &bytes[start..start + len], false);
        }
        at[direction.index()] += bytes.len() as u64;
    }
    finish(wire)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_cut_gives_the_same(turns in turns(), point in any::<Index>(), known in any::<bool>()) {
        let expected = whole(&turns);
        prop_assert!(expected.iter().all(|text| text.contains("complete") && !text.contains("inexact")));
        let client = known.then_some(C);
        let single = played(&turns, client, &mut |len| (0..len).map(|i| (i, 1)).collect());
        prop_assert_eq!(&single, &expected);
        let two = played(&turns, client, &mut |len| {
            let at = point.index(len);
            vec![(0, at), (at, len - at)].into_iter().filter(|&(_, len)| len > 0).collect()
        });
        prop_assert_eq!(&two, &expected);
    }

    #[test]
    fn order_copies_and_overlaps_do_not_matter(
        turns in turns(),
        cuts in vec((any::<Index>(), any::<Index>()), 0..20),
        size in 1..60usize,
        shuffle in vec(any::<Index>(), 64),
    ) {
        let expected = whole(&turns);
        let got = played(&turns, Some(C), &mut |len| {
            let mut segments: Vec<_> = (0..len).step_by(size).map(|at| (at, size.min(len - at))).collect();
            for (from, to) in &cuts {
                let (from, to) = (from.index(len), to.index(len));
                segments.push((from.min(to), from.abs_diff(to)));
            }
            // Each moves by at most a window of 8 places.
            for (at, index) in shuffle.iter().enumerate() {
                let last = segments.len() - 1;
                segments.swap(at.min(last), (at + index.index(8)).min(last));
            }
            segments.retain(|&(_, len)| len > 0);
            segments
        });
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn what_is_called_exact_is_true(
        turns in turns(),
        size in 1..400usize,
        fates in vec(0..12u8, 0..40),
        known in any::<bool>(),
        from_start in any::<bool>(),
    ) {
        let mut truth = Wire::new(Some(C), true);
        for (direction, bytes) in &turns {
            truth.send(*direction, bytes);
        }
        let truth: Vec<String> = truth.exchanges().into_iter().map(essence).collect();
        let mut wire = Wire::new(known.then_some(C), from_start);
        let mut fates = fates.into_iter();
        let mut at = [0u64; 2];
        for (direction, bytes) in &turns {
            for piece in bytes.chunks(size) {
                let offset = at[direction.index()];
                let len = piece.len() as u32;
                at[direction.index()] += u64::from(len);
                match fates.next() {
                    Some(0) => {}
                    Some(1) => wire.at(*direction, offset, len, b"", false),
                    Some(2) => wire.at(*direction, offset, len, &piece[..piece.len() / 2], false),
                    Some(3) => wire.progress(*direction, offset + u64::from(len)),
                    _ => wire.at(*direction, offset, len, piece, false),
                }
            }
        }
        wire.flow.close(u64::MAX, &mut wire.out);
        for exchange in wire.exchanges() {
            if exchange.exact && exchange.outcome == Outcome::Complete {
                prop_assert!(truth.contains(&essence(exchange)), "{} not in {truth:#?}", essence(exchange));
            }
        }
    }

    #[test]
    fn captured_prefixes_are_enough_for_content_length(
        content in 0..100_000u32,
        more in 0..2000u32,
        pieces in vec(1..20_000u32, 0..10),
        recorded in any::<bool>(),
    ) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {content}\r\n\r\n");
        let mut wire = Wire::new(Some(C), true);
        wire.send(C, b"GET / HTTP/1.0\r\n\r\n");
        let mut first = head.clone().into_bytes();
        first.resize(head.len() + content as usize, b'x');
        let copied = (head.len() + more as usize).min(first.len());
        let end = first.len() as u64;
        let mut at = (copied as u64 + u64::from(more)).min(end);
        wire.at(S, 0, at as u32, &first[..copied], false);
        for piece in pieces {
            let len = u64::from(piece).min(end - at);
            if recorded {
                wire.at(S, at, len as u32, b"", false);
            }
            at += len;
        }
        if at < end || !recorded {
            let start = at.min(end - 1);
            wire.at(S, start, (end - start) as u32, b"", false);
        }
        prop_assert_eq!(
            wire.exchanges().into_iter().map(shown).collect::<Vec<_>>(),
            [format!("1 GET / none:0 > 200 content-length:{content} complete")]
        );
    }
}

/// Bytes that get past the first check now and then.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "GET / HTTP/1.1\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 C\r\n\r\n",
        "Content-Length: 5\r\n",
        "\r\n\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 18446744073709551615\r\n",
        "ffffffffffffffff\r\n",
        "\r\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "CONNECT a HTTP/1.1\r\n\r\n",
        "HEAD / HTTP/1.0\r\n\r\n",
        "\n",
        " ",
        ":",
        "HTTP/1.",
        "HTTP/1.1 101 S\r\n\r\n",
        "PRI * HTTP/2.0\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "HTTP/1.1 204 N\r\n\r\n",
        "1",
    ];
    let word = proptest::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    vec(prop_oneof![8 => word, 1 => vec(any::<u8>(), 0..20)], 0..8).prop_map(|words| words.concat())
}

/// One call to the flow.
#[derive(Clone, Debug)]
enum Call {
    Segment { from: bool, jump: i64, len: u32, data: Vec<u8>, data_jump: i8, fin: bool },
    Progress { from: bool, end: u64 },
    Retransmitted(u32),
    End { reset: bool },
}

fn call() -> impl Strategy<Value = Call> {
    let jump = prop_oneof![20 => Just(0i64), 3 => -100..100i64, 1 => any::<i64>()];
    let extra = prop_oneof![10 => Just(0u32), 2 => 0..3000u32, 1 => any::<u32>()];
    let data_jump = prop_oneof![20 => Just(0i8), 1 => any::<i8>()];
    let fin = prop::bool::weighted(0.02);
    prop_oneof![
        40 => (any::<bool>(), jump, extra, hostile(), data_jump, fin).prop_map(
            |(from, jump, extra, data, data_jump, fin)| {
                let len = (data.len() as u32).saturating_add(extra);
                Call::Segment { from, jump, len, data, data_jump, fin }
            }),
        3 => (any::<bool>(), prop_oneof![0..5000u64, any::<u64>()]).prop_map(|(from, end)| Call::Progress { from, end }),
        1 => any::<u32>().prop_map(Call::Retransmitted),
        1 => any::<bool>().prop_map(|reset| Call::End { reset }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_goes_without_panic_and_within_bounds(
        calls in vec((any::<u64>(), call()), 0..60),
        client in prop_oneof![Just(None), Just(Some(C)), Just(Some(S))],
        from_start in any::<bool>(),
        (head_max_bytes, reorder_max_bytes, outstanding_max_bytes) in (0..300u32, 0..3000u32, 0..1000u32),
    ) {
        let config = Config { head_max_bytes, fields_max: 4, reorder_max_bytes, outstanding_max: 5, outstanding_max_bytes };
        let mut flow = Flow::new(&config, client, from_start);
        let mut out = Vec::new();
        let mut at = [0u64; 2];
        for (time_ns, call) in calls {
            match call {
                Call::Segment { from, jump, len, data, data_jump, fin } => {
                    let direction = if from { C } else { S };
                    let offset = at[direction.index()].wrapping_add_signed(jump);
                    at[direction.index()] = offset.wrapping_add(u64::from(len));
                    let data_offset = offset.wrapping_add_signed(i64::from(data_jump));
                    flow.segment(direction, &Segment { time_ns, offset, len, data_offset, data: &data, fin }, &mut out);
                }
                Call::Progress { from, end } => {
                    flow.progress(if from { C } else { S }, end, time_ns, &mut out);
                }
                Call::Retransmitted(segments) => flow.retransmitted(segments),
                Call::End { reset: true } => flow.reset(time_ns, &mut out),
                Call::End { reset: false } => flow.close(time_ns, &mut out),
            }
            for side in &flow.sides {
                prop_assert!(side.stream.cost_bytes() <= reorder_max_bytes as usize);
                prop_assert!(!side.busy);
            }
            prop_assert!(flow.queue.len() <= 6);
            prop_assert!(flow.held_bytes() <= config.held_max_bytes());
            prop_assert!(!flow.over || flow.queue.is_empty());
        }
        flow.close(0, &mut out);
        prop_assert!(flow.queue.is_empty());
        let mut seqs: Vec<u64> = Vec::new();
        for output in &out {
            if let Output::Exchange(exchange) = output {
                prop_assert!(exchange.request.as_ref().is_none_or(|request| request.headers.len() <= 4));
                seqs.push(exchange.seq);
            }
        }
        seqs.sort_unstable();
        prop_assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "each exchange once: {seqs:?}");
        let never = |output: &&Output| matches!(output, Output::Skip { mark: Mark::Never, .. });
        prop_assert!(out.iter().filter(never).count() <= 2);
    }

    #[test]
    fn garbage_never_becomes_an_exchange(bytes in vec(any::<u8>(), 1..200), from_start in any::<bool>()) {
        prop_assume!(!bytes.windows(7).any(|window| window == b"HTTP/1."));
        let mut wire = Wire::new(None, from_start);
        wire.send(C, &bytes);
        wire.send(S, &bytes);
        wire.flow.close(1, &mut wire.out);
        prop_assert_eq!(wire.exchanges().len(), 0);
    }
}
