//! Conservation: what the records add up to must be what the kernel counted.

use crate::{
    counters::Counters,
    lacking::counts_time_waits_that_begin,
    netns::Netns,
    records::{Record, show},
    traffic::{End, Kind},
    traffic_net,
};
use anyhow::{Result, ensure};
use std::{collections::HashMap, fmt::Debug, net::SocketAddr};

/// Names of a socket's states, in order.
pub fn states(conn: &Record) -> Vec<String> {
    let states = conn.at("/states").as_array();
    let names = states.into_iter().flatten().map(|state| state["state"].as_str().unwrap_or_default());
    names.map(str::to_owned).collect()
}

fn ends_with(conn: &Record, from: &[&str], to: &str) -> bool {
    matches!(states(conn).as_slice(), [.., before, last] if from.contains(&before.as_str()) && last == to)
}

fn sum(conns: &[Record], paths: &[&str]) -> usize {
    let one = |conn: &Record| paths.iter().map(|path| conn.count(path).unwrap_or_default()).sum::<u64>();
    conns.iter().map(one).sum::<u64>() as usize
}

fn count(conns: &[Record], wanted: impl Fn(&Record) -> bool) -> usize {
    conns.iter().filter(|conn| wanted(conn)).count()
}

/// It went on as a mini-socket, be it one in FIN_WAIT2: the kernel counts both as TIME_WAIT.
fn waits(conn: &Record) -> bool {
    states(conn).last().is_some_and(|last| ["TIME_WAIT", "FIN_WAIT2"].contains(&last.as_str()))
}

/// Checks every law at once, so that a failure shows them all. Not one socket of the namespace is older than
/// `before`, and all are done.
pub fn check(netns: &Netns, before: &Counters, conns: &[Record]) -> Result<()> {
    let after = Counters::read(netns)?;
    let client = |conn: &Record| conn.text("/role") == "client";
    let server = |conn: &Record| conn.text("/role") == "server";
    // The kernel counts a second child of one request as opened, and not as failed (inet_ehash_nolisten).
    let failed = |conn: &Record| ends_with(conn, &["SYN_SENT", "SYN_RECV"], "CLOSE") && !is_duplicate(conn);
    let reset = |conn: &Record| ends_with(conn, &["ESTABLISHED", "CLOSE_WAIT"], "CLOSE");
    // They are among the segments sent again.
    let handshakes = ["/retransmits/syn", "/retransmits/synack"];
    let laws: [(&[&str], usize); 7] = [
        (&["TcpActiveOpens"], count(conns, client)),
        (&["TcpPassiveOpens"], count(conns, server)),
        (&["TcpAttemptFails"], count(conns, failed)),
        (&["TcpEstabResets"], count(conns, reset)),
        (&["TcpRetransSegs"], sum(conns, &["/retransmits/segments"])),
        (&["TcpExtTCPSynRetrans"], sum(conns, &handshakes)),
        (&["TcpExtTW", "TcpExtTWKilled"], count(conns, waits)),
    ];
    let mut broken = Vec::new();
    let comparable = |counters: &&[&str]| !counters.contains(&"TcpExtTW") || counts_time_waits_that_begin();
    for (counters, ours) in laws.iter().filter(|(counters, _)| comparable(counters)) {
        let mut kernel = 0;
        for counter in *counters {
            kernel += after.get(counter)? - before.get(counter)?;
        }
        if kernel != *ours {
            broken
                .push(format!("{}: the kernel counted {kernel}, the records say {ours}", counters.join("+")));
        }
    }
    // The likeliest to be told wrongly.
    let odd = |conn: &&Record| ends_with(conn, &["FIN_WAIT2", "CLOSING"], "CLOSE");
    let odd: Vec<Record> = conns.iter().filter(odd).cloned().collect();
    ensure!(
        broken.is_empty(),
        "{} `conn` records\n{}\nwithout TIME_WAIT:{}",
        conns.len(),
        broken.join("\n"),
        show(&odd)
    );
    Ok(())
}

/// A socket that lost against another one for the same handshake.
fn is_duplicate(conn: &Record) -> bool {
    conn.text("/close/how") == "duplicate"
}

/// How many TIME_WAITs that began are there still. None may have expired; `ended` were seen to end.
pub fn check_time_waits(netns: &Netns, conns: &[Record], ended: usize) -> Result<()> {
    let began = count(conns, waits);
    let live = traffic_net::sockstat(netns, "tw")?;
    ensure!(began == live + ended, "{began} TIME_WAITs began, {live} are there, {ended} ended");
    Ok(())
}

/// Every end that was logged has its record, with the right totals and owner, and there is no other record.
/// Those in the tracer's own namespace, whose segments it sees, tell of HTTP and of each FIN too.
pub fn check_ends(ends: &[End], conns: &[Record], own: &Netns) -> Result<()> {
    let mut expected = HashMap::<_, Vec<&End>>::new();
    for end in ends {
        // The port of a refused connection is known to the kernel only.
        let local = end.local.map(|local| local.to_string());
        expected.entry((end.role, local, end.remote.to_string())).or_default().push(end);
    }
    let mut wrong = Wrong::default();
    for conn in conns.iter().filter(|conn| !is_duplicate(conn)) {
        let role = if conn.text("/role") == "client" { "client" } else { "server" };
        let remote = address(conn, "remote");
        let refused = remote.ends_with(&format!(":{}", crate::traffic::CLOSED_PORT));
        let local = (!refused).then(|| address(conn, "local"));
        let Some(candidates) = expected.get_mut(&(role, local, remote)) else {
            wrong.add("nobody did this", conn);
            continue;
        };
        let carried = (conn.count("/bytes_sent"), conn.count("/bytes_received"));
        let same = |end: &&End| carried == (Some(end.sent), Some(end.received));
        let Some(end) = candidates.iter().position(same).map(|index| candidates.remove(index)) else {
            wrong.add(&format!("totals, not those of {candidates:?}"), conn);
            continue;
        };
        if conn.count("/process/pid") != Some(end.pid.into()) {
            wrong.add(&format!("the owner is {}", end.pid), conn);
        }
        if conn.is_true("/complete") {
            check_life(end, conn, conn.count("/netns") == Some(own.inode()), &mut wrong);
        }
    }
    let missing: Vec<&End> = expected.into_values().flatten().collect();
    ensure!(missing.is_empty() && wrong.0.is_empty(), "{}", wrong.report(&missing));
    Ok(())
}

/// What a record that claims to be complete must show.
fn check_life(end: &End, conn: &Record, segments: bool, wrong: &mut Wrong) {
    let (requests, responses) = end.kind.exchanges();
    let carried = [conn.count("/http/requests"), conn.count("/http/responses")];
    let right = match requests {
        0 => conn.is_null("/http"),
        _ => carried == [Some(requests as u64), Some(responses as u64)],
    };
    if segments && !right {
        wrong.add(&format!("{requests} requests, {responses} answers"), conn);
    }
    let [by, how, lives] = expected_life(end);
    if conn.text("/close/by") != by || conn.text("/close/how") != how {
        wrong.add(&format!("ended by {by}, {how}"), conn);
    }
    let shown = states(conn).join(" ");
    if !lives.split(" | ").any(|life| life == shown) {
        wrong.add(&format!("states {lives}"), conn);
    }
}

/// Who ended it, how, and the ways that its states may go.
fn expected_life(end: &End) -> [&'static str; 3] {
    const ACTIVE_CLIENT: &str = "SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT | \
        SYN_SENT ESTABLISHED FIN_WAIT1 CLOSING TIME_WAIT";
    const ACTIVE_SERVER: &str = "SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT | \
        SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING TIME_WAIT";
    const PASSIVE_CLIENT: &str = "SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE";
    const PASSIVE_SERVER: &str = "SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE";
    const CUT_CLIENT: &str = "SYN_SENT ESTABLISHED CLOSE";
    const CUT_SERVER: &str = "SYN_RECV ESTABLISHED CLOSE";
    match (end.kind, end.role) {
        (Kind::Refused, _) => ["remote", "refused", "SYN_SENT CLOSE"],
        (Kind::Short | Kind::KeepAlive | Kind::HalfClosed, "client") => ["local", "fin", ACTIVE_CLIENT],
        (Kind::Short | Kind::KeepAlive | Kind::HalfClosed, _) => ["remote", "fin", PASSIVE_SERVER],
        (Kind::ServerCloses, "client") => ["remote", "fin", PASSIVE_CLIENT],
        (Kind::ServerCloses, _) => ["local", "fin", ACTIVE_SERVER],
        (Kind::ClientResets | Kind::Unread, "client") => ["local", "rst_sent", CUT_CLIENT],
        (Kind::ClientResets | Kind::Unread, _) => ["remote", "rst_received", CUT_SERVER],
        (Kind::ServerResets, "client") => ["remote", "rst_received", CUT_CLIENT],
        (Kind::ServerResets, _) => ["local", "rst_sent", CUT_SERVER],
    }
}

/// An end's address as `SocketAddr` writes it.
pub fn address(conn: &Record, end: &str) -> String {
    let ip = conn.text(&format!("/{end}/addr")).parse();
    let port = conn.count(&format!("/{end}/port")).and_then(|port| u16::try_from(port).ok());
    match (ip, port) {
        (Ok(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
        _ => String::new(),
    }
}

/// Records that are not as they should be, by what should be.
#[derive(Debug, Default)]
pub struct Wrong(HashMap<String, Vec<Record>>);

impl Wrong {
    pub fn add(&mut self, should: &str, conn: &Record) {
        self.0.entry(should.to_owned()).or_default().push(conn.clone());
    }

    /// A few of each sort, and what has no record at all.
    pub fn report(&self, missing: &[impl Debug]) -> String {
        let mut text =
            format!("{} without a record: {:?}\n", missing.len(), &missing[..missing.len().min(5)]);
        for (should, conns) in self.0.iter().take(12) {
            let some = &conns[..conns.len().min(3)];
            text += &format!("{} records, should be: {should}{}\n", conns.len(), show(some));
        }
        text
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
