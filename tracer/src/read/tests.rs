use std::{fs, path::PathBuf};

use ::tests::{
    pcap::link,
    talk::{ACK, CLIENT, RST, SERVER, SYN, Talk},
};
use clap::Parser;
use proptest::prelude::*;
use serde_json::Value;
use tracer_ebpf::{Conn, kind, milestone};

use super::*;
use crate::{
    cli::{Cli, Command},
    emit::schema::SCHEMA,
    source::recorded::{Asked, Header, Recorder},
};

/// A file of its own for this process and test.
fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tracer-read-{}-{name}", std::process::id()))
}

/// What `tracer read` writes of a capture.
fn lines(name: &str, capture: &[u8]) -> Vec<Value> {
    let (input, output) = (path(name), path(&format!("{name}.jsonl")));
    fs::write(&input, capture).unwrap();
    let args = ["tracer", "read", "--events", "-o", output.to_str().unwrap(), input.to_str().unwrap()];
    let Command::Read(args) = Cli::try_parse_from(args).unwrap().into_command() else {
        panic!("not read");
    };
    run(&args).unwrap();
    let text = fs::read_to_string(&output).unwrap();
    let _ = (fs::remove_file(input), fs::remove_file(output));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn capture() -> Vec<u8> {
    let mut talk = Talk::default();
    talk.open().exchange("/a", 300).repeat(3).repeat(4).close(CLIENT);
    talk.wait(1_000_000_000).again().send(CLIENT, SYN, b"").send(SERVER, RST | ACK, b"");
    talk.ends[CLIENT].set_port(40001);
    talk.again().exchange("/older", 5).close(SERVER).wait(61_000_000_000);
    talk.ends[CLIENT].set_port(40002);
    talk.again().open();
    talk.pcap(link::ETHERNET)
}

#[test]
fn every_line_is_valid() {
    let validator = jsonschema::draft202012::new(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    let lines = lines("valid", &capture());
    for line in &lines {
        let errors: Vec<String> = validator.iter_errors(line).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}\n{line:#}");
    }
    for kind in ["start", "conn", "http", "time_wait", "state", "retransmit", "reset", "stats"] {
        assert!(lines.iter().any(|line| line["type"] == kind), "no {kind}");
    }
}

#[test]
fn cut_anywhere_nothing_is_told_otherwise() {
    let capture = capture();
    let of = |lines: &[Value], kind: &str| -> Vec<Value> {
        lines.iter().filter(|line| line["type"] == kind).cloned().collect()
    };
    let whole = lines("whole", &capture);
    for len in (24..capture.len()).step_by(97) {
        let part = lines(&format!("cut{len}"), &capture[..len]);
        for kind in ["http", "time_wait", "state", "retransmit", "reset"] {
            assert!(of(&whole, kind).starts_with(&of(&part, kind)), "{kind} at {len}");
        }
        let mut closed = of(&part, "conn");
        closed.retain(|conn| conn["open"] == false);
        assert!(of(&whole, "conn").starts_with(&closed), "conn at {len}");
    }
}

/// A recording of two connections and a process; ring records as the kernel side writes them.
pub(super) fn recording(name: &str) -> Vec<u8> {
    let path = path(name);
    let mut recorder = Recorder::create(&path).unwrap();
    recorder.header(&Header {
        tracer: "0".into(),
        abi: tracer_ebpf::ABI_VERSION,
        kernel: "6".into(),
        hostname: "h".into(),
        clock_offset_ns: 1_767_225_600_000_000_000,
        reset_reasons: vec![(1, "NO_SOCKET".into())],
        filter: Filter::default(),
        http: true,
        max_connections: 10,
    });
    let owner = Owner { pid: 7, start_ns: 3, source: tracer_ebpf::owner_source::CONNECT, ..Owner::default() };
    let mut conn = Conn { id: 5, flow: 9, opened_ns: 1000, owner, role: 1, ..Conn::ZERO };
    conn.states[..2].copy_from_slice(&[2, 100 << 8 | 1]);
    conn.states_len = 2;
    let record = |kind: u16, detail: u16, rest: &[u8]| {
        [&kind.to_ne_bytes()[..], &detail.to_ne_bytes(), &[0; 4], &2000u64.to_ne_bytes(), rest].concat()
    };
    // SAFETY: integers only, without padding.
    let bytes = |conn: &Conn| unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(conn).cast::<u8>(), size_of::<Conn>()).to_vec()
    };
    let info = ProcessInfo { exe: Some(b"/bin/\xff".to_vec()), cgroup: None, container: None };
    recorder.asked(&Asked { pid: 7, start_ns: 3, info: Some(info) });
    recorder.record(0, &record(kind::CONN, milestone::ESTABLISHED, &bytes(&conn)));
    let segment = [&9u64.to_ne_bytes()[..], &[0; 104]].concat();
    recorder.record(0, &record(kind::SEGMENT, 0, &segment));
    recorder.record(0, &record(kind::TIME_WAIT, 3, &[&5u64.to_ne_bytes()[..], &[0; 56]].concat()));
    recorder.tick(3000);
    let other = Conn { id: 6, closed_ns: 5000, flags: 1 << 4, ..conn };
    recorder.unsent(4000, &other);
    recorder.refresh(&Conn { segs_out: 4, ..conn });
    recorder.end(9000);
    recorder.finish().unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

#[test]
fn a_recording_is_told_as_its_host_saw_it() {
    let lines = lines("recorded", &recording("made"));
    let conns: Vec<_> = lines.iter().filter(|line| line["type"] == "conn").collect();
    let [waits, open] = &conns[..] else { panic!("{lines:#?}") };
    assert_eq!((&waits["id"], &waits["time_wait"]), (&"6".into(), &Value::Null));
    assert_eq!(
        (&open["id"], &open["open"], &open["ts"]),
        (&"5".into(), &true.into(), &"2026-01-01T00:00:00.000009000Z".into())
    );
    assert_eq!(open["process"]["exe"], "/bin/\\xff");
    assert!(open["retransmits_received"].is_null());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_recordings_are_survived(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let mut bytes = RECORDING.with(Clone::clone);
        // Behind the header, where lengths are the only thing that must fit.
        let first = bytes.windows(4).position(|bytes| bytes == b"exe\"").unwrap();
        for (at, byte) in damage {
            let at = first + at.index(bytes.len() - first);
            bytes[at] = byte;
        }
        lines("damaged", &bytes);
    }
}

thread_local! {
    static RECORDING: Vec<u8> = recording("damage");
}
