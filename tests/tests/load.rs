//! Tens of thousands of requests against nginx: nothing is missed, nothing is counted twice.

use anyhow::{Context as _, Result, ensure};
use std::collections::{BTreeMap, HashMap};
use tests::{
    blind_spots::outside_blind_spots,
    counters::Counters,
    netns::{Netns, figure},
    nginx::{Entry, Nginx, Options, PORT},
    process,
    records::{Record, Records, show, with_role},
    tracer::Tracer,
    wait,
};

const REQUESTS: usize = 10_000;
const CONCURRENCY: usize = 16;

#[test]
fn ab_with_a_connection_for_each_request() -> Result<()> {
    outside_blind_spots(|| {
        let load = load("ab", &["-q"], &["-n"])?;
        ensure!(load.client.contains("Complete requests:      10000"), "{}", load.client);
        ensure!(load.log.len() == REQUESTS, "nginx logged {}", load.log.len());
        let exchanges = load.check_connections()?;
        for role in ["client", "server"] {
            let tally = exchanges.get(role).copied().unwrap_or_default();
            ensure!(tally.answered == REQUESTS && tally.unanswered == 0, "exchanges as {role}: {tally:?}");
        }
        let conns = load.records.conns(&load.netns);
        // ab may open one more, on which nothing is said.
        let silent = |conn: &Record| conn.is_null("/http") && conn.count("/bytes_sent") == Some(0);
        let odd = |conn: &&Record| conn.count("/http/requests") != Some(1) && !silent(conn);
        let other: Vec<Record> = conns.iter().filter(odd).cloned().collect();
        ensure!(other.is_empty(), "{} connections without one request:{}", other.len(), show(&other));
        Ok(())
    })
}

#[test]
fn ab_with_keep_alive() -> Result<()> {
    outside_blind_spots(|| {
        let load = load("ab", &["-q", "-k"], &["-n"])?;
        ensure!(figure(&load.client, "Complete requests:")? == REQUESTS as u64, "{}", load.client);
        load.check_cut_off_at_the_end()
    })
}

#[test]
fn wrk() -> Result<()> {
    outside_blind_spots(|| {
        let load = load("wrk", &["-t", "2", "-d", "3s"], &[])?;
        ensure!(load.log.len() > 1000, "wrk did little:\n{}", load.client);
        load.check_cut_off_at_the_end()
    })
}

struct Load {
    netns: Netns,
    before: Counters,
    /// What the client program wrote.
    client: String,
    log: Vec<Entry>,
    records: Records,
}

/// Runs a load beside the tracer, from the first connection to the last.
fn load(program: &str, args: &[&str], count: &[&str]) -> Result<Load> {
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, Options::default())?;
    let tracer = Tracer::start(&netns, &[])?;
    let before = Counters::read(&netns)?;
    let mut command = netns.command(program);
    command.args(args).args(["-c", &CONCURRENCY.to_string()]);
    for option in count {
        command.args([option, REQUESTS.to_string().as_str()]);
    }
    let client = process::run(command.arg(format!("http://127.0.0.1:{PORT}/hello")), wait::LOAD_LIMIT)?;
    let log = nginx.finish()?;
    let run = tracer.stop()?;
    Ok(Load { netns, before, client, log, records: run.records })
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    answered: usize,
    unanswered: usize,
}

impl Load {
    /// Every connection that the kernel counted is there, whole; the exchanges by role.
    fn check_connections(&self) -> Result<BTreeMap<String, Tally>> {
        let stats = self.records.final_stats().context("no final stats")?;
        let lost = stats.counts("/lost");
        ensure!(!lost.is_empty() && lost.iter().all(|(_, count)| *count == 0), "lost: {stats:?}");

        let conns = self.records.conns(&self.netns);
        let after = Counters::read(&self.netns)?;
        for (role, counter) in [("client", "TcpActiveOpens"), ("server", "TcpPassiveOpens")] {
            let (opened, seen) =
                (after.get(counter)? - self.before.get(counter)?, with_role(&conns, role).len());
            ensure!(seen == opened, "{counter}: {opened}, `conn` records as {role}: {seen}");
        }
        let odd =
            |conn: &&Record| !conn.is_true("/complete") || conn.is_null("/peer") || conn.is_true("/open");
        let odd: Vec<Record> = conns.iter().filter(odd).cloned().collect();
        ensure!(odd.is_empty(), "{} not complete, without peer or still open:{}", odd.len(), show(&odd));
        self.check_bytes(&conns)?;

        let mut tallies = BTreeMap::<String, Tally>::new();
        for http in self.records.https(&conns) {
            let tally = tallies.entry(http.text("/role").to_owned()).or_default();
            if http.is_null("/response") {
                tally.unanswered += 1;
                continue;
            }
            tally.answered += 1;
            let right = http.count("/response/status") == Some(200)
                && http.text("/request/target") == "/hello"
                && http.count("/response/body_bytes") == Some(13);
            ensure!(right || http.text("/outcome") != "complete", "{http:?}");
        }
        Ok(tallies)
    }

    /// What one end sent, the other received, where the connection ended in peace.
    fn check_bytes(&self, conns: &[Record]) -> Result<()> {
        let by_id: HashMap<&str, &Record> = conns.iter().map(|conn| (conn.text("/id"), conn)).collect();
        for conn in conns.iter().filter(|conn| conn.text("/close/how") == "fin") {
            let peer = by_id.get(conn.text("/peer")).with_context(|| format!("no peer of {conn:?}"))?;
            if peer.text("/close/how") == "fin" {
                let (sent, received) = (conn.count("/bytes_sent"), peer.count("/bytes_received"));
                ensure!(sent.is_some() && sent == received, "bytes of a pair: {conn:?} {peer:?}");
            }
        }
        Ok(())
    }

    /// A client that keeps connections busy to the end cuts off at most one exchange on each.
    fn check_cut_off_at_the_end(&self) -> Result<()> {
        let exchanges = self.check_connections()?;
        let logged = self.log.iter().filter(|entry| entry.bytes_sent > 0).count();
        let tally = |role: &str| exchanges.get(role).copied().unwrap_or_default();
        let (client, server) = (tally("client"), tally("server"));
        let figures = format!("nginx answered {logged}; as client {client:?}, as server {server:?}");
        ensure!(server.answered == logged, "{figures}");
        ensure!(client.answered <= logged && client.answered + CONCURRENCY >= logged, "{figures}");
        ensure!(client.unanswered <= CONCURRENCY && server.unanswered <= CONCURRENCY, "{figures}");
        Ok(())
    }
}
