//! Recordings of the live run, and what reading them makes.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};
use tests::{
    client,
    netns::Netns,
    records::Records,
    scratch::Scratch,
    tracer::{Tracer, binary},
    traffic::{Kind, Load},
    traffic_net,
};

const PORT: u16 = 8100;
const CONNECTIONS: usize = 400;

fn read(path: &Path, args: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()?).arg("read").arg(path).args(args).output()?)
}

/// The lines that a recording must bring forth again.
fn told<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let own = |line: &str| line.starts_with("{\"type\":\"start\"") || line.starts_with("{\"type\":\"stats\"");
    lines.filter(|line| !own(line)).collect()
}

fn told_live(records: &Records) -> Vec<&str> {
    told(records.0.iter().map(|line| line.text.trim_end()))
}

/// A mixed load, one connection older than the recording and one that stays open.
fn record(netns: &Netns, path: &Path) -> Result<Records> {
    let older = client::listen(netns, "127.0.0.1:9100".parse()?)?;
    let _older = client::pair(netns, &older, "127.0.0.1:9100".parse()?)?;
    let path = path.to_str().context("UTF-8")?;
    let tracer = Tracer::start(netns, &["record", path, "-o", "-", "--events", "--port", "8100,9100"])?;
    traffic_net::widen_output(tracer.pid())?;
    let load = Load {
        client: netns,
        server: netns,
        addresses: vec!["127.0.0.1".parse()?, "::1".parse()?],
        port: PORT,
        kinds: Kind::ALL.to_vec(),
        count: CONNECTIONS,
        threads: 4,
    };
    load.run()?;
    let _open = client::pair(netns, &older, "127.0.0.1:9100".parse()?)?;
    Ok(tracer.stop()?.records)
}

#[test]
fn reading_a_recording_tells_exactly_the_same() -> Result<()> {
    let (netns, scratch) = (Netns::new()?, Scratch::new()?);
    let path = scratch.file("run.trace");
    let live = record(&netns, &path)?;
    ensure!(fs::metadata(&path)?.permissions().mode() & 0o777 == 0o600, "only its owner may read it");
    let output = read(&path, &["--events"])?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    let (again, live) = (told(text.lines()), told_live(&live));
    let first = live.iter().zip(&again).find(|(live, again)| live != again);
    ensure!(first.is_none(), "live, and again:\n{first:#?}");
    ensure!(live.len() == again.len(), "{} lines live, {} again", live.len(), again.len());
    ensure!(live.len() > 4 * CONNECTIONS, "{} lines", live.len());

    // With fewer records asked for.
    let output = read(&path, &["--no-http", "--port", "9100"])?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        told(text.lines()).iter().all(|line| line.contains("9100") && line.starts_with("{\"type\":\"conn\""))
    );
    Ok(())
}

#[test]
fn damaged_recordings() -> Result<()> {
    let (netns, scratch) = (Netns::new()?, Scratch::new()?);
    let path = scratch.file("run.trace");
    let live = record(&netns, &path)?;
    let whole = fs::read(&path)?;
    let cut = scratch.file("cut.trace");
    fs::write(&cut, &whole[..whole.len() * 3 / 4])?;
    let output = read(&cut, &["--events"])?;
    let (text, error) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.code() == Some(1), "{error}");
    ensure!(error.contains("cut.trace: entry ") && error.contains("ends inside of"), "{error}");
    let (again, live) = (told(text.lines()), told_live(&live));
    ensure!(!again.is_empty() && live.starts_with(&again), "what came before is told");

    let mut other = whole.clone();
    other[8] = 99;
    fs::write(&cut, other)?;
    let output = read(&cut, &[])?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && error.contains("version 99"), "{error}");

    let output = Command::new(binary()?).arg("record").arg(&path).output()?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && error.contains("a new file"), "{error}");
    Ok(())
}
