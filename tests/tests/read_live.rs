//! The same traffic, live and from a capture: both must tell the same.

use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeMap, fs, process::Command, time::SystemTime};
use tests::{
    netns::Netns,
    records::{Line, Record, Records, show},
    scratch::Scratch,
    sniffer::Sniffer,
    tracer::{Tracer, binary},
    traffic::{Kind, Load},
    traffic_net,
};

const PORT: u16 = 8100;
const CONNECTIONS: usize = 2000;

/// What a client's record and its capture must agree on.
const FIELDS: [&str; 17] = [
    "/family",
    "/local",
    "/remote",
    "/role",
    "/protocol",
    "/preexisting",
    "/open",
    "/close/by",
    "/close/how",
    "/bytes_sent",
    "/bytes_received",
    "/retransmits",
    "/http/requests",
    "/http/responses",
    "/http/reuse",
    "/time_wait",
    "/complete",
];

/// What the records of an exchange must agree on.
const HTTP_FIELDS: [&str; 10] = [
    "/seq",
    "/request",
    "/response",
    "/informational",
    "/reused",
    "/pipelined",
    "/keep_alive",
    "/outcome",
    "/exact",
    "/malformed",
];

#[test]
fn a_capture_tells_what_the_kernel_told() -> Result<()> {
    let netns = Netns::new()?;
    let sniffer = Sniffer::start(&netns)?;
    let tracer = Tracer::start(&netns, &[])?;
    traffic_net::widen_output(tracer.pid())?;
    let load = Load {
        client: &netns,
        server: &netns,
        addresses: vec!["127.0.0.1".parse()?, "::1".parse()?],
        port: PORT,
        kinds: Kind::ALL.to_vec(),
        count: CONNECTIONS,
        threads: 4,
    };
    load.run()?;
    let live = tracer.stop()?.records;

    let scratch = Scratch::new()?;
    let path = scratch.file("lo.pcap");
    fs::write(&path, sniffer.finish()?.bytes)?;
    let output = Command::new(binary()?).arg("read").arg(&path).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.map(|line| Line::parse(SystemTime::now(), line.to_vec())).collect::<Result<_>>()?;
    let read = Records(lines);

    let (told, expected) = (clients(read.of("conn")), clients(live.conns(&netns)));
    ensure!(expected.len() == CONNECTIONS, "{} clients live", expected.len());
    compare(&expected, &told, &FIELDS)?;
    for (ends, conn) in &expected {
        let states = |conn: &Record| {
            let states = conn.at("/states").as_array().cloned().unwrap_or_default();
            states.iter().map(|state| state["state"].to_string()).collect::<Vec<_>>()
        };
        let other = &told[ends];
        ensure!(states(conn) == states(other), "states:{}", show(&[conn.clone(), other.clone()]));
    }
    let conns = live.conns(&netns);
    compare(&exchanges(live.https(&conns)), &exchanges(read.of("http")), &HTTP_FIELDS)?;
    let stats = read.final_stats().context("a final `stats`")?;
    ensure!(stats.counts("/lost").iter().all(|(_, count)| *count == 0), "{stats:?}");
    Ok(())
}

/// Records of clients by their ends. No port is used twice so soon.
fn clients(conns: impl IntoIterator<Item = Record>) -> BTreeMap<String, Record> {
    let clients = conns.into_iter().filter(|conn| conn.text("/role") == "client");
    clients.map(|conn| (format!("{} {}", conn.at("/local"), conn.at("/remote")), conn)).collect()
}

fn exchanges(https: impl Iterator<Item = Record>) -> BTreeMap<String, Record> {
    let clients = https.filter(|http| http.text("/role") == "client");
    let key = |http: &Record| format!("{} {} {}", http.at("/local"), http.at("/remote"), http.at("/seq"));
    clients.map(|http| (key(&http), http)).collect()
}

fn compare(
    expected: &BTreeMap<String, Record>,
    told: &BTreeMap<String, Record>,
    fields: &[&str],
) -> Result<()> {
    let mut wrong = Vec::new();
    for (key, record) in expected {
        let other = told.get(key).with_context(|| format!("not in the capture: {record:?}"))?;
        let differ: Vec<&str> =
            fields.iter().copied().filter(|field| record.at(field) != other.at(field)).collect();
        if !differ.is_empty() {
            wrong.push(format!("{differ:?}:{}", show(&[record.clone(), other.clone()])));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} differ, such as {}", wrong.len(), expected.len(), wrong[0]);
    ensure!(told.len() == expected.len(), "{} in the capture, {} live", told.len(), expected.len());
    Ok(())
}
