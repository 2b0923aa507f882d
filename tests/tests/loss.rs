//! When there is too little room: what is lost is counted, and the traffic goes on.

use anyhow::{Context as _, Result, ensure};
use tests::{
    counters::Counters,
    netns::{Netns, figure},
    nginx::{Nginx, Options, PORT},
    process,
    records::{Record, Records, show, with_role},
    tracer::Tracer,
    wait,
};

/// The smallest that is allowed.
const RING: &str = "64K";

#[test]
fn full_ring_is_counted_and_survived() -> Result<()> {
    const REQUESTS: usize = 3000;
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, Options::default())?;
    let mut tracer = Tracer::start(&netns, &["--ring-size", RING])?;
    let before = Counters::read(&netns)?;
    // A daemon that gets no processor time: the ring fills up for certain.
    tracer.signal(libc::SIGSTOP)?;
    let loaded = ab(&netns, &["-n", &REQUESTS.to_string()]);
    tracer.signal(libc::SIGCONT)?;
    ensure!(figure(&loaded?, "Complete requests:")? == REQUESTS as u64, "ab did not finish");

    // Afterwards it works as before.
    let late = format!("http://127.0.0.1:{PORT}/hello?late");
    netns.run("curl", &["-sS", &late])?;
    tracer.wait_for("an exchange after the loss", |records| {
        let late = |http: &Record| http.text("/request/target") == "/hello?late";
        (records.of("http").filter(late).count() == 2).then_some(())
    })?;
    let logged = nginx.finish()?;
    let run = tracer.stop()?;

    let stats = run.records.final_stats().context("no final stats")?;
    let lost: u64 = stats.counts("/lost").iter().map(|(_, count)| count).sum();
    ensure!(lost > 0, "no loss was counted: {stats:?}");
    let conns = run.records.conns(&netns);
    let after = Counters::read(&netns)?;
    for (role, counter) in [("client", "TcpActiveOpens"), ("server", "TcpPassiveOpens")] {
        let (opened, seen) = (after.get(counter)? - before.get(counter)?, with_role(&conns, role).len());
        ensure!(seen == opened, "{counter}: {opened}, `conn` records as {role}: {seen}; {stats:?}");
    }
    // Totals live in the kernel's table and survive.
    let total = |role: &str, path: &str| {
        with_role(&conns, role).iter().map(|conn| conn.count(path).unwrap_or_default()).sum::<u64>()
    };
    let sent: u64 = logged.iter().map(|entry| entry.bytes_sent).sum();
    let figures = [total("server", "/bytes_sent"), total("client", "/bytes_received")];
    ensure!(figures == [sent; 2], "nginx sent {sent} bytes, the connections carried {figures:?}");
    ensure!(total("client", "/bytes_sent") == total("server", "/bytes_received"), "bytes of requests");
    let (whole, touched): (Vec<Record>, Vec<Record>) =
        conns.into_iter().partition(|conn| conn.is_true("/complete"));
    ensure!(!touched.is_empty(), "no connection was touched: {stats:?}");
    let without: Vec<Record> =
        touched.iter().filter(|conn| conn.count("/lost").is_none_or(|lost| lost == 0)).cloned().collect();
    ensure!(without.is_empty(), "{} are not complete and lost nothing:{}", without.len(), show(&without));
    // What is called complete is complete, its exchange too.
    let exchanges =
        run.records.https(&whole).filter(|http| http.count("/response/status") == Some(200)).count();
    ensure!(exchanges == whole.len(), "{} complete connections, {exchanges} exchanges on them", whole.len());
    Ok(())
}

#[test]
fn slow_reader_never_blocks_the_traffic() -> Result<()> {
    // More than the daemon keeps for a reader that does not read.
    const REQUESTS: usize = 40_000;
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, Options { keepalive_requests: 100_000, ..Options::default() })?;
    let tracer = Tracer::start(&netns, &["--headers", "all", "--stats-interval", "0"])?;
    tracer.pause_reading(true);
    let text = ab(&netns, &["-k", "-n", &REQUESTS.to_string()])?;
    ensure!(figure(&text, "Complete requests:")? == REQUESTS as u64, "{text}");
    ensure!(figure(&text, "Failed requests:")? == 0, "{text}");
    let logged = nginx.finish()?.len();
    tracer.pause_reading(false);
    let run = tracer.stop()?;

    let stats = run.records.final_stats().context("no final stats")?;
    let dropped = dropped_lines(&stats);
    ensure!(dropped > 0, "no dropped output line was counted: {stats:?}");
    let (http, conn) = (count(&run.records, "http"), count(&run.records, "conn"));
    ensure!(http < 2 * logged, "{http} of {} exchanges were written: nothing was dropped", 2 * logged);
    println!("{http} `http` and {conn} `conn` lines came, {dropped} were dropped");
    Ok(())
}

fn ab(netns: &Netns, args: &[&str]) -> Result<String> {
    let mut command = netns.command("ab");
    command.args(["-q", "-c", "16"]).args(args).arg(format!("http://127.0.0.1:{PORT}/hello"));
    process::run(&mut command, wait::LOAD_LIMIT)
}

fn count(records: &Records, kind: &str) -> usize {
    records.0.iter().filter(|line| line.kind == kind).count()
}

/// The place is the output, whatever its exact name.
fn dropped_lines(stats: &Record) -> u64 {
    stats.counts("/lost").iter().filter(|(place, _)| place.contains("output")).map(|(_, count)| count).sum()
}
