use super::*;
use crate::emit::headers::HeaderPolicy;
use clap::{CommandFactory, error::ErrorKind};
use std::path::Path;

fn trace(args: &[&str]) -> TraceArgs {
    let cli = Cli::try_parse_from([&["tracer"], args].concat()).unwrap_or_else(|error| panic!("{error}"));
    match cli.into_command() {
        Command::Trace(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn error(args: &[&str]) -> String {
    let error = Cli::try_parse_from([&["tracer"], args].concat()).expect_err("a usage error");
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn trace_is_the_default_command() {
    for args in [&["--port", "80", "--events"][..], &["trace", "--port", "80", "--events"]] {
        let args = trace(args);
        assert_eq!(args.common.ports, [80]);
        assert!(args.common.events);
    }
    let Command::Check(check) = Cli::try_parse_from(["tracer", "check", "-vv"]).unwrap().into_command()
    else {
        panic!("not check");
    };
    assert_eq!(check.verbose, 2);
    let schema = Cli::try_parse_from(["tracer", "schema"]).unwrap().into_command();
    assert!(matches!(schema, Command::Schema));
}

#[test]
fn read_takes_files_and_the_common_options() {
    let read =
        |args: &[&str]| Cli::try_parse_from([&["tracer", "read"], args].concat()).map(Cli::into_command);
    let Ok(Command::Read(args)) = read(&["a.pcap", "-", "--port", "80", "--no-http"]) else {
        panic!("not read");
    };
    assert_eq!(args.files, [Path::new("a.pcap"), Path::new("-")]);
    assert!(args.common.no_http && args.common.filter().ports == [80]);
    for wrong in [&[][..], &["a.pcap", "--pid", "1"], &["a.pcap", "-i", "lo"]] {
        assert_eq!(read(wrong).expect_err("a usage error").exit_code(), 2, "{wrong:?}");
    }
}

#[test]
fn defaults() {
    let args = trace(&[]);
    assert!(args.filter().is_empty());
    assert_eq!(args.common.header_policy(), HeaderPolicy::default());
    assert_eq!(args.stats_interval, Duration::from_secs(10));
    assert_eq!((args.ring_bytes(), args.common.max_connections), (8 << 20, 262_144));
    let ring_bytes = |connections| trace(&["--max-connections", connections]).ring_bytes();
    assert_eq!(
        ["1", "262145", "2000000", "16000000"].map(ring_bytes),
        [8 << 20, 16 << 20, 64 << 20, 64 << 20]
    );
    assert_eq!((args.duration, args.common.count, args.common.output_file()), (None, None, None));
    assert!(
        !args.common.events && !args.common.no_http && args.common.verbose == 0 && args.interfaces.is_empty()
    );
}

#[test]
fn repeated_and_listed_values() {
    let args = trace(&[
        "-i",
        "lo",
        "--interface",
        "eth0",
        "--port=80,443",
        "--port",
        "8080",
        "--host",
        "10.1.2.3/8,[::1]",
        "--pid",
        "1",
        "--comm",
        "nginx",
        "--headers",
        "User-Agent,all",
        "-vvv",
    ]);
    assert_eq!(args.interfaces, ["lo", "eth0"]);
    assert_eq!(args.common.verbose, 3);
    assert_eq!(args.common.headers, ["user-agent", "all"]);
    let filter = serde_json::to_value(args.filter()).unwrap();
    assert_eq!(
        filter,
        serde_json::json!({"ports": [80, 443, 8080], "hosts": ["10.0.0.0/8", "::1"], "pids": [1], "comms": ["nginx"]})
    );
}

#[test]
fn output_goes_to_a_file_or_to_standard_output() {
    assert_eq!(trace(&["-o", "a.jsonl"]).common.output_file(), Some(Path::new("a.jsonl")));
    assert_eq!(trace(&["--output", "-"]).common.output_file(), None);
}

#[test]
fn times() {
    let time = |text| trace(&["--duration", text]).duration;
    assert_eq!(time("10"), Some(Duration::from_secs(10)));
    assert_eq!(time("250ms"), Some(Duration::from_millis(250)));
    assert_eq!(time("5m"), Some(Duration::from_secs(300)));
    assert_eq!(time("1.5h"), Some(Duration::from_secs(5400)));
    assert_eq!(trace(&["--stats-interval", "0"]).stats_interval, Duration::ZERO);
    for wrong in ["", "s", "-1", "1w", "1..2", "5 m", "nan", "0", "99999999999d"] {
        error(&[&format!("--duration={wrong}")]);
    }
}

#[test]
fn sizes() {
    let size = |text| trace(&["--ring-size", text]).ring_bytes();
    assert_eq!((size("64K"), size("3M"), size("65536")), (64 << 10, 4 << 20, 64 << 10));
    assert_eq!((size("1G"), size("16MiB")), (1 << 30, 16 << 20));
    for wrong in ["0", "4K", "2G", "8MB", "M", "", "99999999999999999999", "17179869184G"] {
        assert!(error(&["--ring-size", wrong]).contains("from 64K to 1G"), "{wrong}");
    }
    assert!(error(&["--max-connections", "0"]).contains("from 1 to 16777216"));
    assert!(error(&["--count", "0"]).contains("from 1 on"));
}

#[test]
fn errors_name_option_value_and_remedy() {
    let cases = [
        (["--port", "80x"], "a number from 1 to 65535"),
        (["--port", "0"], "never used"),
        (["--port", "65536"], "a number from 1 to 65535"),
        (["--port", "80-90"], "ranges are not supported"),
        (["--host", "10.0.0.1/33"], "from 0 to 32"),
        (["--host", "10.0.0"], "no complete IPv4 or IPv6 address"),
        (["--host", "example.org"], "names are not looked up"),
        (["--host", "10.0.0.1:80"], "--port"),
        (["--host", "fe80::1%eth0"], "--interface"),
        (["--pid", "nginx"], "--comm"),
        (["--comm", ""], "ps -o comm"),
        (["--interface", "a/b"], "ip link"),
        (["--headers", "a b"], "separated by commas"),
        (["--redact-header", "all"], "fields to hide"),
    ];
    for (args, expected) in cases {
        let text = error(&args);
        assert!(text.contains(expected) && text.contains(args[0]) && text.contains(args[1]), "{text}");
    }
    error(&["--no-http", "--headers", "all"]);
    error(&["--nonsense"]);
    error(&["--port", "80", "check"]);
}

#[test]
fn help_shows_examples_and_every_option() {
    let help = Cli::try_parse_from(["tracer", "read", "--help"]).expect_err("help").to_string();
    for word in ["FILE", "--port", "one timeline", "tcpdump", "Exit status"] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
    for args in [["tracer", "--help"].as_slice(), &["tracer", "-h"], &["tracer", "trace", "--help"]] {
        let help = Cli::try_parse_from(args).expect_err("help");
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        assert_eq!(help.exit_code(), 0);
        let help = help.to_string();
        for word in ["--port", "--stats-interval", "| jq", "Exit status"] {
            assert!(help.contains(word), "{word} is missing in {help}");
        }
    }
}
