use std::sync::Arc;

use ::tests::talk::{ACK, CLIENT, FIN, RST, SERVER, STEP_NS, SYN, Talk};
use proptest::prelude::*;
use tracer_ebpf::{Owner, role};

use super::*;
use crate::{
    http,
    source::{
        capture::Packet,
        packet::{self, LinkType},
    },
    track::{Connection, How, Output, Party, ProcessInfo, Processes, TimeWait, Tracker, View, state_name},
};

mod lives;

use lives::life;

struct Nobody;

impl Processes for Nobody {
    fn info(&mut self, _: &Owner) -> Option<Arc<ProcessInfo>> {
        None
    }
}

#[derive(Default)]
struct Told {
    conns: Vec<Connection>,
    exchanges: Vec<Arc<http::Exchange>>,
    time_waits: Vec<TimeWait>,
    events: Vec<String>,
    counts: Counts,
}

/// What the observer, the tracker and the engine make of packets.
fn told_of(packets: impl IntoIterator<Item = (u64, Vec<u8>)>, max: usize) -> Told {
    let mut observer = Observer::new(max, true, false, Box::new(|_| true));
    let mut tracker = Tracker::new(View::Wire, max, Some(http::Config::default()), Box::new(|_, _| true));
    let mut out = Vec::new();
    for (time_ns, data) in packets {
        let len = data.len() as u32;
        let packet = Packet { time_ns, link: LinkType::LINUX_SLL2, interface: 0, len, data: &data };
        let Ok(segment) = packet::segment(&packet) else { continue };
        observer.segment(&segment, &mut |event| tracker.event(event, &mut Nobody, &mut out));
        tracker.tick(observer.now_ns(), &mut Nobody, &mut out);
    }
    observer.finish(|still| tracker.still_open(&still));
    tracker.finish(&mut Nobody, &mut out);
    let mut told = Told { counts: observer.counts(), ..Told::default() };
    for output in out {
        match output {
            Output::Connection(connection) => told.conns.push(*connection),
            Output::Exchange { exchange, .. } => told.exchanges.push(exchange),
            Output::TimeWait(ended) => told.time_waits.push(*ended),
            Output::State(event) => told.events.push(state_name(event.new_state).to_owned()),
            Output::Retransmit(event) => told.events.push(format!("retransmit {}", event.synack)),
            Output::Reset(event) => told.events.push(format!("reset {}", event.sent)),
            Output::Segment(_)
            | Output::Mark { .. }
            | Output::Forget { .. }
            | Output::ForgetTimeWait { .. } => {}
        }
    }
    told
}

fn told(talk: &Talk) -> Told {
    told_of(talk.segments.iter().map(|(time_ns, segment)| (*time_ns, segment.sll2(1, 0))), 100)
}

/// A conversation that is made by the calls.
fn talk(make: impl FnOnce(&mut Talk)) -> Talk {
    let mut talk = Talk::default();
    make(&mut talk);
    talk
}

#[test]
fn unanswered_syns_time_out_when_the_capture_goes_on() {
    let mut talk = talk(|t| {
        t.send(CLIENT, SYN, b"")
            .wait(1_000_000_000 - STEP_NS)
            .repeat(0)
            .wait(2_000_000_000 - STEP_NS)
            .repeat(0);
        t.wait(UNANSWERED_NS);
    });
    let mut other = Talk::between("10.0.0.9:1000", "10.0.0.8:80");
    other.time_ns = talk.time_ns;
    other.open();
    talk.segments.append(&mut other.segments);
    let told = told(&talk);
    let [timed_out, _] = &told.conns[..] else { panic!("{:?}", told.conns) };
    assert_eq!(timed_out.close.map(|close| (close.how, close.by)), Some((How::Timeout, None)));
    let conn = &timed_out.conn;
    assert_eq!((conn.syn_retrans, conn.retrans, conn.closed_ns - conn.opened_ns), (2, 2, 3_000_000_000));
    assert_eq!(conn.syn_at_us[..3], [1_000_000, 3_000_000, 0]);
}

#[test]
fn totals_count_each_byte_once() {
    let talk = talk(|t| {
        t.open().send(CLIENT, ACK, &[b'x'; 100]).send(SERVER, ACK, &[b'y'; 300]);
        // Sent again: all, a part with more behind it, a SYN-ACK, a FIN.
        t.repeat(3).repeat(4).repeat(4).repeat(1);
        t.send(CLIENT, ACK, &[b'z'; 50]).change(|segment| {
            segment.seq = segment.seq.wrapping_sub(20);
            segment.payload = vec![b'z'; 70];
        });
        t.close(CLIENT).unseen().repeat(10).send(CLIENT, ACK, b"");
    });
    let told = told(&talk);
    let [connection] = &told.conns[..] else { panic!("{:?}", told.conns) };
    let conn = &connection.conn;
    assert_eq!((conn.bytes_sent - conn.bytes_retrans, conn.bytes_retrans), (150, 120));
    assert_eq!(conn.bytes_received - 1, 300);
    // Two data segments and the FIN, and the SYN-ACK of the other end.
    assert_eq!((conn.retrans, conn.syn_retrans, conn.synack_retrans), (4, 0, 1));
    assert_eq!(conn.lost, 0);
    let again = Repeats { segments: 2, bytes: 600 };
    assert_eq!(connection.received_again, Some(again));
    assert_eq!(told.events.iter().filter(|event| *event == "retransmit 0").count(), 5);
    assert_eq!(told.events.iter().filter(|event| *event == "retransmit 1").count(), 1);
}

#[test]
fn sequence_numbers_wrap_and_reordering_is_no_retransmission() {
    let talk = talk(|t| {
        t.open();
        for _ in 0..4 {
            t.send(SERVER, ACK, &[b'y'; 10]);
        }
        t.segments.swap(3, 5);
        t.close(CLIENT);
    });
    let told = told(&talk);
    let conn = &told.conns[0].conn;
    assert_eq!((conn.bytes_received - 1, conn.retrans, conn.lost), (40, 0, 0));
    assert!(!told.events.iter().any(|event| event.starts_with("retransmit")), "{:?}", told.events);
}

#[test]
fn what_the_capture_lost_is_said() {
    let talk = talk(|t| {
        t.open().send(SERVER, ACK, &[b'y'; 10]).unseen().send(SERVER, ACK, &[b'y'; 10]).close(CLIENT);
    });
    let conn = &told(&talk).conns[0].conn;
    assert_eq!((conn.bytes_received - 1, conn.lost), (20, 1));
}

#[test]
fn probes_and_closed_windows() {
    let talk = talk(|t| {
        t.open().exchange("/", 5);
        for garbage in [&b""[..], b"\0"] {
            t.send(CLIENT, ACK, garbage);
            t.next[CLIENT] = t.next[CLIENT].wrapping_sub(garbage.len() as u32);
            t.received[SERVER] = t.next[CLIENT];
            t.change(|segment| segment.seq -= 1).send(SERVER, ACK, b"");
        }
        for window in [0, 0, 9, 0] {
            t.send(SERVER, ACK, b"").change(|segment| segment.window = window);
        }
        t.close(CLIENT);
    });
    let conn = &told(&talk).conns[0].conn;
    assert_eq!((conn.probes_sent, conn.probes_received, conn.retrans), (2, 0, 0));
    assert_eq!((conn.zero_windows_sent, conn.zero_windows_received), (0, 2));
    assert_eq!(conn.bytes_sent, "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".len() as u64);
}

#[test]
fn packets_captured_twice_count_once() {
    let talk = talk(|t| {
        t.open().exchange("/", 5).close(SERVER);
    });
    let twice = talk.segments.iter().flat_map(|(time_ns, segment)| {
        [(*time_ns, segment.sll2(1, 4)), (*time_ns + 2000, segment.sll2(2, 0))]
    });
    let (once, twice) = (told(&talk), told_of(twice, 100));
    assert_eq!(
        twice.conns.iter().map(life).collect::<Vec<_>>(),
        once.conns.iter().map(life).collect::<Vec<_>>()
    );
    assert_eq!(twice.exchanges, once.exchanges);
    let totals = |told: &Told| {
        let conn = told.conns[0].conn;
        (conn.bytes_sent, conn.bytes_received, conn.retrans, conn.segs_in, conn.segs_out)
    };
    assert_eq!(totals(&twice), totals(&once));
    // The last one is a copy of a segment that closed the connection.
    assert_eq!((twice.counts.copies, twice.counts.stray), (talk.segments.len() as u64 - 1, 1));
}

#[test]
fn time_waits_and_their_ends() {
    let minute = 60_000_000_000;
    let ended = |make: &dyn Fn(&mut Talk)| {
        let told = told(&talk(|t| make(t)));
        let ends = told.time_waits.iter().map(|ended| {
            let lasted_ns = ended.began_ns.map(|began| ended.ended_ns - began);
            let text =
                format!("{} {:?} observed {}", ended.end.name(), ended.end.reused_by(), ended.observed);
            (text, ended.tuple.local_port, ended.closer, ended.requests, lasted_ns)
        });
        ends.collect::<Vec<_>>()
    };
    let expired = "expired None observed false".to_owned();
    let local = Some(Party::Local);
    let later = |t: &mut Talk, ns: u64| {
        t.wait(ns);
        t.ends[CLIENT].set_port(50000);
        t.again().open();
    };
    let cases: [(&str, Vec<_>, Vec<_>); 6] = [
        (
            "client's",
            ended(&|t| {
                t.open().exchange("/", 1).exchange("/", 1).close(CLIENT);
                later(t, minute);
            }),
            vec![(expired.clone(), 40000, local, Some(2), Some(minute))],
        ),
        (
            "server's",
            ended(&|t| {
                t.open().close(SERVER);
                later(t, minute);
            }),
            vec![(expired.clone(), 80, local, None, Some(minute))],
        ),
        (
            "the capture ends before",
            ended(&|t| {
                t.open().close(CLIENT);
                later(t, minute - 10 * STEP_NS);
            }),
            vec![],
        ),
        (
            "the FIN comes again",
            ended(&|t| {
                t.open().close(CLIENT).wait(1_000_000_000 - 2 * STEP_NS).repeat(4);
                later(t, minute);
            }),
            vec![(expired, 40000, local, None, Some(minute + 1_000_000_000 - STEP_NS))],
        ),
        (
            "its owner connects again",
            ended(&|t| {
                t.open().close(CLIENT).wait(1_000_000_000 - STEP_NS).again().open();
            }),
            vec![("reused Some(\"connect\") observed true".into(), 40000, local, None, Some(1_000_000_000))],
        ),
        (
            "the other end connects",
            ended(&|t| {
                t.open().close(SERVER).wait(1_000_000_000 - STEP_NS).again().open();
            }),
            vec![("reused Some(\"syn\") observed true".into(), 80, local, None, Some(1_000_000_000))],
        ),
    ];
    for (name, ends, expected) in cases {
        assert_eq!(ends, expected, "{name}");
    }
}

#[test]
fn exchanges_are_told_for_the_client() {
    let told = told(&talk(|t| {
        t.open().exchange("/1", 10).wait(5_000_000_000 - STEP_NS).exchange("/2", 60_000).close(CLIENT);
    }));
    let [one, two] = &told.exchanges[..] else { panic!("{:?}", told.exchanges) };
    assert!(one.exact && two.exact && two.reused);
    assert_eq!(two.response.as_ref().map(|response| response.body_bytes), Some(Some(60_000)));
    assert_eq!(one.idle_before_ns, Some(STEP_NS));
    assert_eq!(two.idle_before_ns, Some(5_000_000_000 + STEP_NS));
}

#[test]
fn a_capture_joined_in_the_middle_finds_the_client_by_its_request() {
    for (client, server) in [("10.0.0.1:50000", "10.0.0.2:80"), ("10.0.0.1:79", "10.0.0.2:8080")] {
        let mut talk = Talk::between(client, server);
        talk.open().exchange("/", 10);
        for first in 3..5 {
            let mut talk = talk.clone();
            talk.segments.drain(..first);
            let told = told(&talk);
            assert_eq!(told.conns[0].conn.tuple.local_port, talk.ends[CLIENT].port(), "{client} {first}");
            assert_eq!(told.conns[0].conn.role, role::UNKNOWN);
        }
    }
}

#[test]
fn the_bound_on_connections_holds() {
    let packets = (1..=50u16).map(|port| {
        let mut talk = Talk::default();
        talk.ends[CLIENT].set_port(port);
        talk.send(CLIENT, SYN, b"");
        (u64::from(port), talk.segments[0].1.sll2(1, 0))
    });
    let told = told_of(packets, 20);
    assert_eq!((told.conns.len(), told.counts.full), (20, 30));
    // Past ones, too: what is forgotten early says that its end is not known.
    let packets = (1..=50u16).flat_map(|port| {
        let mut talk = Talk::default();
        talk.ends[CLIENT].set_port(port);
        talk.open().close(CLIENT);
        talk.segments.into_iter().map(|(time_ns, segment)| (time_ns, segment.sll2(1, 0)))
    });
    let told = told_of(packets, 20);
    assert_eq!((told.conns.len(), told.counts.full), (50, 0));
    assert_eq!(told.time_waits.iter().filter(|ended| ended.end.name() == "unknown").count(), 30);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Segments of a few ends in any order, with any flags, numbers and times.
    #[test]
    fn any_segments_are_survived(segments in proptest::collection::vec(
        (0u16..3, 0usize..2, any::<u8>(), 0u32..40, 0u32..40, 0usize..30, any::<u16>(), any::<u64>(), any::<bool>()),
        0..80,
    )) {
        let mut sane_ns = 0;
        let packets = segments.into_iter().map(|(port, end, flags, seq, ack, len, window, time_ns, wild)| {
            let mut talk = Talk::default();
            talk.ends[CLIENT].set_port(1000 + port);
            talk.next[end] = if wild { (u64::from(seq) * 107_374_182) as u32 } else { seq };
            talk.received[end] = ack;
            talk.send(end, flags, &b"GET / HTTP/1.1\r\n\r\nHTTP/1.1 200 OK"[..len]);
            talk.change(|segment| segment.window = window);
            sane_ns += time_ns % 20_000_000_000;
            let time_ns = if wild { time_ns >> 1 } else { sane_ns };
            (time_ns, talk.segments[0].1.sll2(1, 0))
        }).collect::<Vec<_>>();
        let told = told_of(packets, 2);
        prop_assert!(told.conns.iter().all(|connection| connection.states.len() <= 11));
    }
}
