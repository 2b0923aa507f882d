//! The daemon for aarch64, in QEMU's user mode, which has everything but bpf(2): it must tell what the one for this machine
//! tells.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use tests::{
    capture::Capture,
    netns::Netns,
    pcap::{Endian, PcapNg, link},
    process,
    scratch::Scratch,
    talk::{CLIENT, SERVER, Talk},
    tracer::{Tracer, aarch64_binary, binary},
    traffic::{Kind, Load},
    traffic_net,
    wait::LOAD_LIMIT,
};

/// Conversations of each capture.
const COUNT: usize = 50;
/// Of the run, not of what was read: times, and what is written at the moment.
const OWN: [&str; 5] = ["ts", "interval_s", "cpu", "output_bytes", "output_lines"];

fn here(args: &[&str]) -> Result<Output> {
    process::output(Command::new(binary()?).args(args), LOAD_LIMIT)
}

fn there(args: &[&str]) -> Result<Output> {
    process::output(Command::new("qemu-aarch64").arg(aarch64_binary()?).args(args), LOAD_LIMIT)
}

/// The lines of a run, without what is its own.
fn told(output: &Output) -> Result<Vec<String>> {
    let text = std::str::from_utf8(&output.stdout)?;
    let line = |line: &str| -> Result<String> {
        if !line.starts_with("{\"type\":\"start\"") && !line.starts_with("{\"type\":\"stats\"") {
            return Ok(line.to_owned());
        }
        let mut record: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let members = record.as_object_mut().context("an object")?;
        OWN.iter().for_each(|own| drop(members.remove(*own)));
        Ok(record.to_string())
    };
    text.lines().map(line).collect()
}

/// Reads a file with both; what both told.
fn same(path: &Path) -> Result<Vec<String>> {
    let args =
        ["read", path.to_str().context("UTF-8")?, "--events", "--segments", "all", "--headers", "user-agent"];
    let (here, there) = (here(&args)?, there(&args)?);
    let (lines, others) = (told(&here)?, told(&there)?);
    let first = lines.iter().zip(&others).find(|(line, other)| line != other);
    ensure!(first.is_none(), "here and there, of {}:\n{first:#?}", path.display());
    ensure!(lines.len() == others.len(), "{} lines here, {} there", lines.len(), others.len());
    ensure!(here.status == there.status && here.stderr == there.stderr, "{here:?}\n{there:?}");
    Ok(lines)
}

fn count(lines: &[String], part: &str) -> usize {
    lines.iter().filter(|line| line.contains(part)).count()
}

#[test]
fn help_version_and_schema() -> Result<()> {
    for args in [&["--help"][..], &["--version"], &["read", "--help"], &["schema"]] {
        let (here, there) = (here(args)?, there(args)?);
        ensure!(here.status.success() && here == there, "{args:?}: {there:?}");
    }
    Ok(())
}

#[test]
fn without_bpf_it_says_so() -> Result<()> {
    const REASON: &str = "there is no bpf(2) here";
    let trace = there(&[])?;
    let error = String::from_utf8(trace.stderr)?;
    ensure!(trace.status.code() == Some(1) && trace.stdout.is_empty(), "{:?} {error}", trace.status);
    ensure!(error.starts_with("tracer: ") && error.contains(REASON) && error.lines().count() == 1, "{error}");
    let check = there(&["check"])?;
    let text = String::from_utf8(check.stdout)?;
    ensure!(check.status.code() == Some(1) && check.stderr.is_empty(), "{:?} {text}", check.status);
    ensure!(text.contains(REASON) && text.ends_with("tracer cannot run\n"), "{text}");
    Ok(())
}

#[test]
fn captures_at_random() -> Result<()> {
    let scratch = Scratch::new()?;
    let links = [link::ETHERNET, link::LINUX_SLL, link::LINUX_SLL2, link::NULL, link::IPV4, link::IPV6];
    let mut lines = Vec::new();
    for (seed, link) in links.into_iter().enumerate() {
        let path = scratch.file("a.pcap");
        fs::write(&path, Capture::new(2000 + seed as u64, link, COUNT, seed % 2 == 1).bytes)?;
        lines.extend(same(&path)?);
    }
    for part in ["\"type\":\"http\"", "\"framing\":\"chunked\"", "\"exact\":false", "\"type\":\"segment\""] {
        ensure!(count(&lines, part) >= COUNT, "{part}: {} of {} lines", count(&lines, part), lines.len());
    }
    Ok(())
}

/// Two connections on the same ends, so that a TIME_WAIT is reused, and a third one when another has expired.
fn with_time_waits() -> Talk {
    let mut talk = Talk::default();
    talk.open().exchange("/one?a=\\\u{e9}", 10).exchange("/two", 5000).close(CLIENT);
    talk.again().open().exchange("/three", 3).close(SERVER).wait(61_000_000_000);
    talk.ends[CLIENT].set_port(40001);
    talk.again().open().exchange("/four", 40_000);
    talk
}

#[test]
fn pcapng_gzip_and_damage() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut file = PcapNg::new(Endian::Big);
    file.interface(link::ETHERNET, 0, Some(9), None);
    for (time_ns, segment) in with_time_waits().segments {
        let frame = segment.ethernet();
        file.packet(0, time_ns, &frame, frame.len());
    }
    let path = scratch.file("a.pcapng");
    fs::write(&path, &file.bytes)?;
    let lines = same(&path)?;
    ensure!(
        count(&lines, "\"type\":\"time_wait\"") == 2 && count(&lines, "\"type\":\"http\"") == 4,
        "{lines:#?}"
    );

    process::run(Command::new("gzip").arg("--keep").arg(&path), LOAD_LIMIT)?;
    let packed = scratch.file("a.pcapng.gz");
    ensure!(count(&same(&packed)?, "\"type\":\"http\"") == 4);

    let whole = fs::read(&packed)?;
    fs::write(&packed, &whole[..whole.len() - 9])?;
    ensure!(count(&same(&packed)?, "\"damaged_files\":1") == 1);
    Ok(())
}

#[test]
fn recordings_of_this_machine() -> Result<()> {
    let (netns, scratch) = (Netns::new()?, Scratch::new()?);
    let path = scratch.file("run.trace");
    let to = path.to_str().context("UTF-8")?;
    let tracer = Tracer::start(&netns, &["record", to, "-o", "-", "--events", "--port", "8100"])?;
    traffic_net::widen_output(tracer.pid())?;
    let load = Load {
        client: &netns,
        server: &netns,
        addresses: vec!["127.0.0.1".parse()?, "::1".parse()?],
        port: 8100,
        kinds: Kind::ALL.to_vec(),
        count: COUNT,
        threads: 2,
    };
    load.run()?;
    tracer.stop()?;
    let lines = same(&path)?;
    ensure!(count(&lines, "\"type\":\"conn\"") >= COUNT, "{} lines", lines.len());
    Ok(())
}
