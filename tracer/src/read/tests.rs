use std::{fs, path::PathBuf};

use ::tests::{
    pcap::link,
    talk::{ACK, CLIENT, RST, SERVER, SYN, Talk},
};
use clap::Parser;
use serde_json::Value;

use super::*;
use crate::{
    cli::{Cli, Command},
    emit::schema::SCHEMA,
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
