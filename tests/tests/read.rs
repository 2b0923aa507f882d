//! Capture files through the built tracer; needs no privileges.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    time::SystemTime,
};
use tests::{
    pcap::link,
    records::{Line, Records},
    scratch::Scratch,
    talk::{ACK, CLIENT, SERVER, Talk},
    tracer::binary,
    wait,
};

struct Run {
    records: Records,
    code: Option<i32>,
    stderr: String,
}

fn run(args: &[&str], files: &[&Path]) -> Result<Run> {
    let output = Command::new(binary()?).arg("read").args(files).args(args).stdin(Stdio::null()).output()?;
    understand(&output)
}

fn understand(output: &Output) -> Result<Run> {
    let stderr = String::from_utf8(output.stderr.clone())?;
    ensure!(!stderr.contains("panicked"), "tracer panicked:\n{stderr}");
    let lines = output.stdout.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.map(|line| Line::parse(SystemTime::now(), line.to_vec())).collect::<Result<_>>()?;
    Ok(Run { records: Records(lines), code: output.status.code(), stderr })
}

fn file(scratch: &Scratch, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = scratch.path().join(name);
    fs::write(&path, bytes)?;
    Ok(path)
}

/// Three connections: two exchanges and the client's TIME_WAIT, one still open, one refused.
fn sample() -> Talk {
    let mut talk = Talk::default();
    talk.open().exchange("/one?secret=1", 10).exchange("/two", 5000).close(CLIENT);
    talk.ends[CLIENT].set_port(40001);
    talk.again().open().exchange("/three", 3);
    talk.ends[CLIENT].set_port(40002);
    talk.again().send(CLIENT, tests::talk::SYN, b"").send(SERVER, tests::talk::RST | ACK, b"");
    talk
}

#[test]
fn records_of_every_link_type_are_the_same() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut first = None;
    for link in
        [link::ETHERNET, link::LINUX_SLL, link::LINUX_SLL2, link::RAW, link::IPV4, link::NULL, link::LOOP]
    {
        let path = file(&scratch, "a.pcap", &sample().pcap(link))?;
        let run = run(&[], &[&path])?;
        ensure!(run.code == Some(0) && run.stderr.is_empty(), "{:?} {}", run.code, run.stderr);
        let kinds: Vec<&str> = run.records.0.iter().map(|line| line.kind.as_str()).collect();
        let expected = ["start", "http", "http", "conn", "http", "conn", "conn", "stats"];
        ensure!(kinds == expected, "link type {link}: {kinds:?}");
        let told: Vec<String> = run.records.0[1..7].iter().map(|line| line.text.clone()).collect();
        ensure!(*first.get_or_insert_with(|| told.clone()) == told, "link type {link}: {told:#?}");
        let stats = run.records.final_stats().context("a final `stats`")?;
        ensure!(stats.counts("/lost").iter().all(|(_, lost)| *lost == 0), "{stats:?}");
        ensure!(stats.count("/capture/packets") == Some(sample().segments.len() as u64), "{stats:?}");
    }
    Ok(())
}

#[test]
fn connections_as_the_client_sees_them() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = file(&scratch, "a.pcap", &sample().pcap(link::ETHERNET))?;
    let run = run(&["--redact-query"], &[&path])?;
    let start = run.records.of("start").next().context("`start`")?;
    ensure!(start.text("/files/0") == path.to_str().context("UTF-8")?, "{start:?}");
    let conns: Vec<_> = run.records.of("conn").collect();
    let [closed, refused, open] = &conns[..] else { panic!("{conns:?}") };
    ensure!(
        closed.text("/local/addr") == "10.0.0.1" && closed.count("/remote/port") == Some(80),
        "{closed:?}"
    );
    ensure!(closed.text("/role") == "client" && closed.text("/close/by") == "local", "{closed:?}");
    ensure!(closed.text("/opened") == "2026-01-01T00:00:00.000000000Z", "{closed:?}");
    ensure!(closed.number("/handshake_us") == Some(2000.0), "{closed:?}");
    ensure!(closed.count("/http/requests") == Some(2) && closed.is_true("/time_wait"), "{closed:?}");
    for unknown in ["/process", "/netns", "/cookie", "/peer", "/rtt_us/min", "/rtt_us/smoothed"] {
        ensure!(closed.is_null(unknown), "{unknown}: {closed:?}");
    }
    ensure!(refused.text("/close/how") == "refused" && refused.is_null("/established"), "{refused:?}");
    ensure!(open.is_true("/open") && open.is_null("/closed"), "{open:?}");
    let first = run.records.of("http").next().context("`http`")?;
    ensure!(first.text("/request/target") == "/one?[redacted]", "{first:?}");
    Ok(())
}

#[test]
fn several_files_are_one_timeline() -> Result<()> {
    let scratch = Scratch::new()?;
    let talk = sample();
    let mut paths = Vec::new();
    for (number, part) in talk.segments.chunks(4).enumerate() {
        let part = Talk { segments: part.to_vec(), ..talk.clone() };
        paths.push(file(&scratch, &format!("{number}.pcap"), &part.pcap(link::RAW))?);
    }
    let parts = run(&[], &paths.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let whole = run(&[], &[&file(&scratch, "whole.pcap", &talk.pcap(link::RAW))?])?;
    let told = |run: &Run| run.records.0[1..7].iter().map(|line| line.text.clone()).collect::<Vec<_>>();
    ensure!(told(&parts) == told(&whole), "{:#?}\n{:#?}", told(&parts), told(&whole));
    ensure!(parts.stderr.is_empty(), "{}", parts.stderr);
    let mut later = Talk { time_ns: talk.time_ns + 5_000_000_000, ..Talk::default() };
    let later = file(&scratch, "later.pcap", &later.open().pcap(link::RAW))?;
    let run = run(&[], &[&later, &paths[0]])?;
    ensure!(run.code == Some(0) && run.stderr.contains("in the order of their time"), "{}", run.stderr);
    Ok(())
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_read() -> Result<()> {
    let scratch = Scratch::new()?;
    let whole = sample().pcap(link::RAW);
    let cut = file(&scratch, "cut.pcap", &whole[..whole.len() - 5])?;
    let good = file(&scratch, "good.pcap", &whole)?;
    let bad = [
        (cut.clone(), "cut.pcap: packet 20, at byte"),
        (file(&scratch, "empty.pcap", b"")?, "the file is empty"),
        (file(&scratch, "text.pcap", b"{\"type\":\"start\"}")?, "neither pcap nor pcapng"),
        (file(&scratch, "usb.pcap", &sample().pcap(link::USB))?, "link type 189"),
        (scratch.path().join("none.pcap"), "cannot be opened: No such file"),
        (scratch.path().to_owned(), "directory"),
    ];
    for (path, text) in &bad {
        let run = run(&[], &[path, &good])?;
        ensure!(run.code == Some(1) && run.stderr.contains(text), "{:?} {}", run.code, run.stderr);
        ensure!(run.stderr.lines().count() == 1, "{}", run.stderr);
        ensure!(run.records.of("conn").count() >= 3, "the good file is read: {}", path.display());
        let stats = run.records.final_stats().context("a final `stats`")?;
        ensure!(stats.count("/capture/damaged_files") == Some(1), "{stats:?}");
    }
    // All before the damage is reported.
    let run = run(&[], &[&cut])?;
    ensure!(run.records.of("http").count() == 3, "exchanges before the damage");
    Ok(())
}

#[test]
fn usage_errors() -> Result<()> {
    for args in [&[][..], &["a.pcap", "--pid", "1"], &["a.pcap", "--port", "x"]] {
        let output = Command::new(binary()?).arg("read").args(args).output()?;
        ensure!(output.status.code() == Some(2), "{args:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn options_choose_what_is_written() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = file(&scratch, "a.pcap", &sample().pcap(link::RAW))?;
    let count =
        |args: &[&str], kind: &str| -> Result<usize> { Ok(run(args, &[&path])?.records.of(kind).count()) };
    ensure!(count(&["--no-http"], "http")? == 0 && count(&["--no-http"], "conn")? == 3);
    ensure!(count(&["--port", "40001"], "conn")? == 1 && count(&["--port", "40001"], "http")? == 1);
    ensure!(count(&["--host", "10.0.0.3"], "conn")? == 0);
    ensure!(count(&["--events"], "state")? == 9 && count(&["--events"], "reset")? == 1);
    ensure!(count(&["--count", "2"], "http")? == 2 && count(&["--count", "2"], "conn")? == 0);
    let output = scratch.path().join("out.jsonl");
    let run = run(&["-o", output.to_str().context("UTF-8")?], &[&path])?;
    ensure!(run.records.0.is_empty() && fs::read_to_string(output)?.lines().count() == 8);
    Ok(())
}

/// `tracer read -`, with the ends of its pipes.
fn reading_a_pipe() -> Result<(Child, ChildStdin, ChildStdout)> {
    let mut command = Command::new(binary()?);
    command.args(["read", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stdin = child.stdin.take().context("standard input")?;
    let stdout = child.stdout.take().context("standard output")?;
    Ok((child, stdin, stdout))
}

#[test]
fn a_pipe_is_followed_live() -> Result<()> {
    let bytes = sample().pcap(link::RAW);
    let (child, mut stdin, mut stdout) = reading_a_pipe()?;
    // In pieces that are no packets, all but the last packet.
    for piece in bytes[..bytes.len() - 56].chunks(37) {
        stdin.write_all(piece)?;
    }
    let mut read = Vec::new();
    wait::until("the second exchange and its connection, while the pipe is open", wait::LIMIT, || {
        let mut buffer = [0; 4096];
        let len = stdout.read(&mut buffer)?;
        ensure!(len > 0, "it ended early");
        read.extend_from_slice(&buffer[..len]);
        Ok(String::from_utf8_lossy(&read).contains("\"type\":\"conn\"").then_some(()))
    })?;
    // As Ctrl-C does, which the writer gets too: what the pipe still holds is read.
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    stdin.write_all(&bytes[bytes.len() - 56..])?;
    drop(stdin);
    stdout.read_to_end(&mut read)?;
    let output = child.wait_with_output()?;
    let run = understand(&Output { stdout: read, ..output })?;
    ensure!(run.code == Some(0), "{:?} {}", run.code, run.stderr);
    ensure!(run.records.of("conn").count() == 3, "what was open is told");
    ensure!(run.records.final_stats().is_some());
    Ok(())
}

#[test]
fn an_interrupt_ends_a_silent_pipe() -> Result<()> {
    let (child, mut stdin, mut stdout) = reading_a_pipe()?;
    stdin.write_all(&sample().pcap(link::RAW))?;
    let mut read = vec![0; 4096];
    let len = stdout.read(&mut read)?;
    read.truncate(len);
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    stdout.read_to_end(&mut read)?;
    let run = understand(&Output { stdout: read, ..child.wait_with_output()? })?;
    ensure!(run.code == Some(0) && run.records.of("conn").count() == 3, "{:?} {}", run.code, run.stderr);
    Ok(())
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() -> Result<()> {
    // One that waits for more input, and one that has much to say.
    for silent in [true, false] {
        let mut child = Command::new(binary()?)
            .args(["read", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        drop(child.stdout.take());
        let mut stdin = child.stdin.take().context("standard input")?;
        let mut talk = Talk::default();
        for _ in 0..if silent { 1 } else { 10_000 } {
            talk.again().open().exchange("/", 5).close(CLIENT);
        }
        // It may be gone before all is written.
        let _ = stdin.write_all(&talk.pcap(link::RAW));
        let output = child.wait_with_output()?;
        ensure!(output.status.code() == Some(0) && output.stderr.is_empty(), "{output:?}");
        drop(stdin);
    }
    Ok(())
}

#[test]
fn a_slow_reader_loses_nothing() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut talk = Talk::default();
    for _ in 0..10_000 {
        talk.again().open().exchange("/", 5).close(CLIENT);
    }
    let path = file(&scratch, "many.pcap", &talk.pcap(link::RAW))?;
    let mut child = Command::new(binary()?)
        .arg("read")
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let mut read = Vec::new();
    child.stdout.take().context("standard output")?.read_to_end(&mut read)?;
    let run = understand(&Output { stdout: read, ..child.wait_with_output()? })?;
    ensure!(run.records.of("conn").count() == 10_000 && run.records.of("http").count() == 10_000);
    let stats = run.records.final_stats().context("a final `stats`")?;
    ensure!(stats.count("/lost/output") == Some(0), "{stats:?}");
    // One of each pair of connections on the same ends.
    ensure!(run.records.of("time_wait").count() == 9_999);
    Ok(())
}

#[test]
fn a_special_file_is_read_as_a_pipe_is() -> Result<()> {
    let scratch = Scratch::new()?;
    let fifo = scratch.path().join("fifo");
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success(), "mkfifo");
    let child = Command::new(binary()?)
        .arg("read")
        .arg(&fifo)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut writer = File::options().write(true).open(&fifo)?;
    writer.write_all(&sample().pcap(link::ETHERNET))?;
    drop(writer);
    let run = understand(&child.wait_with_output()?)?;
    ensure!(run.code == Some(0) && run.records.of("conn").count() == 3, "{:?} {}", run.code, run.stderr);
    Ok(())
}
