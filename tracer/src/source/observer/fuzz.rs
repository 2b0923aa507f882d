//! Any sequence of segments: no panic, bounded tables, each connection once, every line valid.

use std::{collections::HashSet, sync::Arc};

use ::tests::{
    pcap::link,
    talk::{ACK, CLIENT, FIN, RST, SERVER, SYN, Segment, Talk},
};
use tracer_ebpf::Owner;

use super::Observer;
use crate::{
    emit::headers::HeaderPolicy,
    fuzz::{Input, Written},
    http::{self, Direction},
    report::{Clock, Report},
    source::{
        capture::Packet,
        packet::{LinkType, segment},
    },
    track::{Output, ProcessInfo, Processes, Tracker, View},
};

struct Nobody;

impl Processes for Nobody {
    fn info(&mut self, _: &Owner) -> Option<Arc<ProcessInfo>> {
        None
    }
}

pub(crate) fn observer(input: &mut Input<'_>) {
    let max = 1 + input.below(4);
    let mut observer = Observer::new(max, true, true, Box::new(|_| true));
    let mut tracker = Tracker::new(View::Wire, max, Some(http::Config::default()), Box::new(|_, _| true));
    let mut out = Vec::new();
    let mut time_waits_ended = 0;
    for (time_ns, place, made) in segments(input) {
        let data = made.sll2(place, 0);
        let len = data.len() as u32;
        // Some are cut.
        let data = &data[..data.len() - if input.once_in(8) { input.below(data.len()) } else { 0 }];
        let packet = Packet { time_ns, link: LinkType(link::LINUX_SLL2), interface: 0, len, data };
        let Ok(segment) = segment(&packet) else { continue };
        if input.once_in(2) {
            tracker.tick(time_ns, &mut Nobody, &mut out);
        }
        observer.segment(&segment, &mut |event| {
            time_waits_ended += usize::from(matches!(event, super::Event::TimeWait(_)));
            tracker.event(event, &mut Nobody, &mut out);
        });
        assert!(observer.open.len() <= max && observer.past() <= max);
        let sizes = tracker.sizes();
        assert!(sizes.connections <= max && sizes.flows <= max && sizes.awaiting_fin <= max, "{sizes:?}");
        assert!(sizes.time_waits <= max + time_waits_ended, "{sizes:?}");
    }
    let now_ns = observer.now_ns();
    // What is settled after a second is.
    tracker.tick(now_ns.saturating_add(2_000_000_000), &mut Nobody, &mut out);
    assert!(tracker.sizes().time_waits <= observer.past());
    observer.finish(|still| tracker.still_open(&still));
    tracker.finish(&mut Nobody, &mut out);
    let ids: Vec<u64> = out
        .iter()
        .filter_map(|output| match output {
            Output::Connection(connection) => Some(connection.conn.id),
            _ => None,
        })
        .collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "each connection once: {ids:?}");
    write(&out, now_ns);
}

fn write(out: &[Output], now_ns: u64) {
    let headers = HeaderPolicy::new(&["all".to_owned()], &[], false);
    let (written, lines) = Written::begin();
    let mut report = Report {
        clock: Clock::new(0, 0),
        headers: &headers,
        reset_reasons: [].into(),
        lines,
        written: 0,
        limit: u64::MAX,
    };
    for output in out {
        report.lines.wait_for_room();
        report.output(output, now_ns);
    }
    let silent = |output: &&Output| {
        matches!(output, Output::Mark { .. } | Output::Forget { .. } | Output::ForgetTimeWait { .. })
    };
    let values = written.end(report.lines);
    assert_eq!(values.len(), out.len() - out.iter().filter(silent).count());
}

/// Conversations of a few pairs of ends, most of them sane at first: when each segment was seen, and on which interface.
fn segments(input: &mut Input<'_>) -> Vec<(u64, u32, Segment)> {
    let mut seen = Vec::new();
    for _ in 0..=input.below(6) {
        let mut talk =
            if input.once_in(4) { Talk::between("[fd00::1]:4000", "[fd00::2]:80") } else { Talk::default() };
        talk.ends[CLIENT].set_port(4000 + input.below(3) as u16);
        for _ in 0..=input.below(12) {
            happen(&mut talk, input);
            if talk.segments.len() > 60 {
                break;
            }
        }
        seen.extend(talk.segments.into_iter().map(|(time_ns, segment)| (time_ns, 1, segment)));
    }
    if input.once_in(2) {
        seen.sort_by_key(|(time_ns, ..)| *time_ns);
    }
    for _ in 0..input.below(8) {
        if seen.is_empty() {
            break;
        }
        let at = input.below(seen.len());
        damage(&mut seen, at, input);
    }
    seen
}

fn happen(talk: &mut Talk, input: &mut Input<'_>) {
    let end = *input.choose(&[CLIENT, SERVER]);
    match input.below(12) {
        0 | 1 => talk.open(),
        2 => talk.exchange("/a?b=c", input.below(50)),
        3 => talk.close(end),
        4 => talk.again(),
        5 => talk.send(end, RST | ACK, b""),
        6 => {
            let flags = *input.choose(&[SYN, SYN | ACK, FIN, ACK, FIN | ACK, SYN | FIN, RST, 0, 0xff]);
            talk.send(end, flags, input.bytes(20))
        }
        7 => {
            // Whole heads and bodies, or what is left of them.
            for (direction, data) in http::fuzz::conversation(input).into_iter().take(6) {
                let end = if direction == Direction::AToB { CLIENT } else { SERVER };
                data.chunks(1400).for_each(|part| {
                    talk.send(end, ACK, part);
                });
            }
            talk
        }
        8 => talk.wait(*input.choose(&[1_000_000_000, 10_000_000_000, 61_000_000_000, 131_000_000_000])),
        9 | 10 if !talk.segments.is_empty() => {
            let at = input.below(talk.segments.len());
            if input.once_in(2) { talk.repeat(at) } else { talk.unseen() }
        }
        _ => talk.send(end, ACK, input.bytes(30)),
    };
}

fn damage(seen: &mut Vec<(u64, u32, Segment)>, at: usize, input: &mut Input<'_>) {
    let other = input.below(seen.len());
    match input.below(8) {
        0 => seen.swap(at, other),
        1 => {
            seen.remove(at);
        }
        2 => {
            // A copy, seen elsewhere or sent again.
            let mut copy = seen[at].clone();
            copy.1 = input.below(3) as u32;
            seen.insert(other, copy);
        }
        // Containers tell no time after 2262.
        3 => seen[at].0 = if input.once_in(2) { input.number() >> 1 } else { seen[other].0 },
        4 => seen[at].2.seq = seen[at].2.seq.wrapping_add(input.number() as u32),
        5 => seen[at].2.ack = seen[at].2.ack.wrapping_sub(input.number() as u32),
        6 => {
            let options: [&[u8]; 4] = [&[3, 3, 255, 0], &[1, 1, 8, 10, 0, 0], &[2, 4, 5], &[5, 250, 1, 1]];
            let mut options = input.choose(&options).to_vec();
            options.extend(input.bytes(30));
            options.resize(options.len().next_multiple_of(4), 0);
            seen[at].2.options = options;
        }
        _ => {
            seen[at].2.flags = input.byte();
            seen[at].2.window = if input.once_in(2) { 0 } else { input.u64() as u16 };
        }
    }
}
