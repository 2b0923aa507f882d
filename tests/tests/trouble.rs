//! Wrong usage, missing rights, and every way to end.

use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeSet, fs, process::Command};
use tests::{
    bpf::{self, Held},
    failure,
    netns::Netns,
    nginx::{Nginx, Options, PORT},
    process::{self, Process},
    records::Records,
    scratch::Scratch,
    tracer::{self, Tracer},
    wait,
};

#[test]
fn wrong_usage() -> Result<()> {
    let netns = Netns::new()?;
    let cases: [(&[&str], &str); 7] = [
        (&["--port", "eighty"], "eighty"),
        (&["--port", "65536"], "65536"),
        (&["--host", "10.0.0"], "10.0.0"),
        (&["--host", "10.0.0.0/33"], "33"),
        (&["--no-such-option"], "--no-such-option"),
        (&["--ring-size", "lots"], "lots"),
        (&["no-such-command"], "no-such-command"),
    ];
    for (args, named) in cases {
        let output = process::output(&mut tracer::command(&netns, args)?, wait::LIMIT)?;
        failure::check(&output, 2, &[named]).with_context(|| format!("{args:?}"))?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_done() -> Result<()> {
    let netns = Netns::new()?;
    let cases: [(&[&str], &str); 3] = [
        (&["--interface", "nosuch0"], "nosuch0"),
        (&["--output", "/nonexistent/folder/trace.jsonl"], "/nonexistent/folder/trace.jsonl"),
        (&["--output", "/"], "/"),
    ];
    for (args, named) in cases {
        let output = process::output(&mut tracer::command(&netns, args)?, wait::LIMIT)?;
        failure::check(&output, 1, &[named]).with_context(|| format!("{args:?}"))?;
        ensure!(output.stdout.is_empty(), "{args:?}: no records are expected");
    }
    Ok(())
}

#[test]
fn without_rights() -> Result<()> {
    let scratch = Scratch::new()?;
    let binary = tracer::copy(&scratch)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]).arg(&binary);
    let output = process::output(&mut command, wait::LIMIT)?;
    failure::check(&output, 1, &["root"])
}

#[test]
fn signals_end_it_in_order() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let netns = Netns::new()?;
        let (tracer, held) = start(&netns)?;
        let run = tracer.end(signal)?;
        ensure!(run.status.code() == Some(0), "signal {signal}: {}; stderr:\n{}", run.status, run.stderr);
        check_end(&run.records)?;
        held.wait_until_gone()?;
        check_nothing_attached(&netns)?;
    }
    Ok(())
}

#[test]
fn duration_ends_it_in_order() -> Result<()> {
    let netns = Netns::new()?;
    let run = Tracer::start(&netns, &["--duration", "300ms"])?.collect()?;
    ensure!(run.status.code() == Some(0), "{}; stderr:\n{}", run.status, run.stderr);
    check_end(&run.records)?;
    check_nothing_attached(&netns)
}

#[test]
fn kill_leaves_nothing_behind() -> Result<()> {
    let netns = Netns::new()?;
    let pinned = pinned_objects();
    for _ in 0..2 {
        let (tracer, held) = start(&netns)?;
        let run = tracer.end(libc::SIGKILL)?;
        ensure!(!run.status.success(), "SIGKILL: {}", run.status);
        held.wait_until_gone()?;
        check_nothing_attached(&netns)?;
    }
    ensure!(pinned_objects().is_subset(&pinned), "pinned: {:?}", pinned_objects());

    // A new one works.
    let nginx = Nginx::start(&netns, Options::default())?;
    let mut tracer = Tracer::start(&netns, &[])?;
    netns.run("curl", &["-sS", &format!("http://127.0.0.1:{PORT}/hello")])?;
    tracer.wait_for("both ends of an exchange", |records| (records.of("http").count() == 2).then_some(()))?;
    nginx.finish()?;
    check_end(&tracer.stop()?.records)
}

#[test]
fn closed_pipe_is_a_quiet_end() -> Result<()> {
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, Options::default())?;
    let mut tracer = Process::spawn(&mut tracer::command(&netns, &["--stats-interval", "1s"])?)?;
    let mut stdout = tracer.child().stdout.take().context("no standard output")?;
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut stdout, &mut first)?;
    let held = Held::by(tracer.pid())?;
    drop(stdout);
    netns.run("curl", &["-sS", &format!("http://127.0.0.1:{PORT}/hello")])?;
    let status = tracer.wait(wait::LIMIT)?;
    let stderr = std::io::read_to_string(tracer.child().stderr.take().context("no standard error")?)?;
    ensure!(status.code() == Some(0), "{status}; stderr:\n{stderr}");
    ensure!(!stderr.contains("panicked") && !stderr.contains("error"), "not quiet:\n{stderr}");
    held.wait_until_gone()?;
    check_nothing_attached(&netns)?;
    nginx.finish()?;
    Ok(())
}

#[test]
fn output_file_is_added_to() -> Result<()> {
    let netns = Netns::new()?;
    let scratch = Scratch::new()?;
    let file = scratch.file("trace.jsonl");
    let path = file.to_str().context("the folder's path is not UTF-8")?;
    for _ in 0..2 {
        let mut command = tracer::command(&netns, &["--duration", "200ms", "--output", path])?;
        let output = process::output(&mut command, wait::LIMIT)?;
        ensure!(output.status.code() == Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.stdout.is_empty(), "nothing is expected on standard output");
    }
    let text = fs::read_to_string(&file)?;
    let kinds: Vec<String> = text
        .lines()
        .map(|line| Ok(serde_json::from_str::<serde_json::Value>(line)?["type"].to_string()))
        .collect::<Result<_>>()?;
    let count = |kind: &str| kinds.iter().filter(|found| found.as_str() == kind).count();
    ensure!(count("\"start\"") == 2 && kinds.first().is_some_and(|kind| kind == "\"start\""), "{kinds:?}");
    ensure!(count("\"stats\"") >= 2, "{kinds:?}");
    Ok(())
}

#[test]
fn check_and_schema() -> Result<()> {
    let netns = Netns::new()?;
    let check = process::run(&mut tracer::command(&netns, &["check"])?, wait::LIMIT)?;
    ensure!(check.contains("inet_sock_set_state"), "hook by hook:\n{check}");
    check_nothing_attached(&netns)?;
    let schema = process::run(&mut tracer::command(&netns, &["schema"])?, wait::LIMIT)?;
    let schema: serde_json::Value = serde_json::from_str(&schema)?;
    ensure!(schema["$defs"]["conn"].is_object(), "{schema}");
    Ok(())
}

/// A daemon with everything attached, and what it holds.
fn start(netns: &Netns) -> Result<(Tracer, Held)> {
    let tracer = Tracer::start(netns, &[])?;
    let held = Held::by(tracer.pid())?;
    let names = bpf::program_names(&held.programs)?;
    // Some versions of bpftool show the 15 bytes that the kernel keeps of a name.
    for name in ["inet_sock_set_s", "segments"] {
        ensure!(
            names.iter().any(|held| held.starts_with(name)),
            "the daemon holds no program {name}: {names:?}, {held:?}"
        );
    }
    ensure!(!bpf::attached(netns, "lo")?.is_empty(), "nothing is attached to lo");
    ensure!(!held.maps.is_empty(), "the daemon holds no map: {held:?}");
    Ok((tracer, held))
}

/// The last line is the final `stats`, and there is no other.
fn check_end(records: &Records) -> Result<()> {
    let finals = records.of("stats").filter(|stats| stats.is_true("/final")).count();
    let last = records.0.last().map(|line| line.kind.as_str());
    ensure!(finals == 1 && last == Some("stats"), "the end: {:?}", records.0.last());
    ensure!(records.0.iter().filter(|line| line.kind == "start").count() == 1, "one `start` line");
    ensure!(records.0.first().is_some_and(|line| line.kind == "start"), "`start` is the first line");
    Ok(())
}

fn check_nothing_attached(netns: &Netns) -> Result<()> {
    let attached = bpf::attached(netns, "lo")?;
    ensure!(attached.is_empty(), "still attached: {attached:?}");
    Ok(())
}

/// What is in the file system for BPF objects; empty where there is none.
fn pinned_objects() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}
