//! The kinds of hooks (`--hooks`): each that this kernel has tells the same of the same connections, and each that it does
//! not have is refused with a reason.

use anyhow::{Context as _, Result, ensure};
use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    process::{Command, Output},
    thread,
    time::Duration,
};
use tests::{
    blind_spots::outside_blind_spots,
    client,
    lacking::note,
    lives::Lives,
    netns::Netns,
    process,
    records::Records,
    socket,
    stage::{repeat, speak, sysctl},
    tracer::{self, Tracer},
    traffic_net, wait,
};

/// Each kind with a hook that only it attaches, and how.
const KINDS: [(&str, &str, &str); 3] = [
    ("fentry", "inet_twsk_kill", "fentry"),
    ("kprobe", "inet_twsk_kill", "kprobe"),
    ("tracepoint", "timer:timer_expire_entry", "tp_btf"),
];

const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9000));
/// Where a client comes from that takes the place of a TIME_WAIT.
const AGAIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9001);

fn check(kind: &str) -> Result<Output> {
    process::output(Command::new(tracer::binary()?).args(["check", "--hooks", kind]), wait::LIMIT)
}

#[test]
fn a_kind_is_used_or_refused_with_a_reason() -> Result<()> {
    for (kind, hook, way) in KINDS {
        let netns = Netns::new()?;
        if check(kind)?.status.success() {
            let start = Tracer::start(&netns, &["--hooks", kind])?.stop()?.records;
            let hooks = start.of("start").next().context("no start")?;
            let mut hooks = hooks.at("/hooks").as_array().into_iter().flatten();
            let used = hooks.any(|found| found["hook"] == hook && found["way"] == way);
            ensure!(used, "--hooks {kind}: {hook} by {way}: {hooks:?}");
            continue;
        }
        note(&format!("--hooks {kind} does not attach"));
        let mut command = netns.command(tracer::binary()?.to_str().context("TRACER_BIN is not UTF-8")?);
        let output = process::output(command.args(["--hooks", kind]), wait::LIMIT)?;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{}: {stderr}", output.status);
        for word in [&format!("--hooks {kind}: cannot attach "), " by ", "That takes ", "Leave --hooks out"] {
            ensure!(stderr.contains(word), "`{word}` is not in: {stderr}");
        }
        ensure!(stderr.lines().count() == 1, "{stderr}");
    }
    Ok(())
}

/// Several tracers see the same connections, each by its own kind of hooks.
#[test]
fn kinds_tell_the_same() -> Result<()> {
    outside_blind_spots(|| {
        let elsewhere = Netns::new()?;
        let mut tracers = Vec::new();
        for (kind, ..) in KINDS {
            if check(kind)?.status.success() {
                tracers.push((kind, Tracer::start(&elsewhere, &["--hooks", kind])?));
            }
        }
        let netns = Netns::new()?;
        let inode = netns.inode();
        let count = converse(&netns)?;
        traffic_net::wait_until_done(&netns)?;
        // What is still in TIME_WAIT ends with its namespace.
        drop(netns);
        let mut told = Vec::new();
        for (kind, mut tracer) in tracers {
            let lives = |records: &Records| Lives::of(records, &[inode]);
            let all = |records: &Records| lives(records).count() >= count;
            let waited = tracer.wait_for("all records", |records| all(records).then_some(()));
            let records = tracer.stop()?.records;
            let lives = lives(&records);
            waited.with_context(|| format!("--hooks {kind}: {} records, not {count}", lives.count()))?;
            told.push((kind, lives));
        }
        let ((first_kind, first), others) = told.split_first().context("no kind of hooks attaches")?;
        ensure!(first.count() == count, "--hooks {first_kind}: {} records, not {count}", first.count());
        for (kind, other) in others {
            first.compare(other).with_context(|| format!("--hooks {first_kind} and --hooks {kind}"))?;
        }
        Ok(())
    })
}

/// Connections with every beginning and end of TIME_WAIT; how many `conn` and `time_wait` records they make.
fn converse(netns: &Netns) -> Result<usize> {
    let mut records = 0;
    sysctl(netns, "tcp_tw_reuse", "1")?;
    for _ in 0..repeat() {
        let listener = client::listen(netns, ADDRESS)?;
        let pair = || client::pair(netns, &listener, ADDRESS);
        // The client first, the server first.
        let (client, server) = pair()?;
        close_in_turn(client, server)?;
        let (client, server) = pair()?;
        close_in_turn(server, client)?;
        // An orphan that gets its FIN later.
        let (client, server) = pair()?;
        drop(client);
        thread::sleep(Duration::from_millis(50));
        drop(server);
        // No byte, and no room.
        sysctl(netns, "tcp_max_tw_buckets", "0")?;
        let client = client::connect(netns, ADDRESS)?;
        let server = listener.accept()?.0;
        close_in_turn(client, server)?;
        sysctl(netns, "tcp_max_tw_buckets", "1000")?;
        records += 4 * 3;
    }
    let listener = client::listen(netns, ADDRESS)?;
    // A SYN takes the server's place, a connect the client's; the last one's goes on.
    let (client, server) = come_again(netns, &listener)?;
    close_in_turn(server, client)?;
    thread::sleep(Duration::from_millis(20));
    let (client, server) = come_again(netns, &listener)?;
    close_in_turn(client, server)?;
    thread::sleep(Duration::from_millis(2100));
    let (client, server) = come_again(netns, &listener)?;
    close_in_turn(client, server)?;
    Ok(records + 3 * 3)
}

fn come_again(netns: &Netns, listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let mut client = socket::unconnected(netns)?;
    socket::bind(&client, AGAIN)?;
    socket::connect(&client, ADDRESS)?;
    let (mut server, _) = listener.accept()?;
    speak(&mut client, &mut server)?;
    Ok((client, server))
}

fn close_in_turn(first: TcpStream, mut last: TcpStream) -> Result<()> {
    first.shutdown(std::net::Shutdown::Write)?;
    socket::read_to_end(&mut last)?;
    drop(last);
    let mut first = first;
    socket::read_to_end(&mut first)?;
    Ok(())
}
