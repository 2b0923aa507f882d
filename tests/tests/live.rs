//! Lines arrive while the tracer runs.

use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, SystemTime};
use tests::{
    client,
    netns::Netns,
    nginx::{Nginx, Options, PORT},
    tracer::Tracer,
};

/// The aim is 200 ms; a busy machine may be slower.
const LIVE: Duration = Duration::from_secs(2);

#[test]
fn exchanges_are_shown_at_once() -> Result<()> {
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, Options::default())?;
    let mut tracer = Tracer::start(&netns, &["--port", &PORT.to_string()])?;
    let mut stream = client::connect(&netns, ([127, 0, 0, 1], PORT).into())?;
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        let target = format!("/hello?round={round}");
        let (status, _) = client::get(&mut stream, &target)?;
        let done = SystemTime::now();
        ensure!(status == 200, "status {status}");
        let arrived = tracer.wait_for("both ends' records", |records| {
            let https: Vec<_> =
                records.of("http").filter(|http| http.text("/request/target") == target).collect();
            (https.len() == 2).then(|| https.iter().map(|http| http.arrived).max()).flatten()
        })?;
        slowest = slowest.max(arrived.duration_since(done).unwrap_or_default());
    }
    println!("slowest record: {} ms after the exchange", slowest.as_millis());
    ensure!(slowest < LIVE, "a record took {slowest:?}");

    // The end of a connection too.
    drop(stream);
    let closed = SystemTime::now();
    let arrived = tracer.wait_for("the connection's records", |records| {
        let conns = records.conns(&netns);
        (conns.len() == 2).then(|| conns.iter().map(|conn| conn.arrived).max()).flatten()
    })?;
    let late = arrived.duration_since(closed).unwrap_or_default();
    println!("slowest `conn` record: {} ms after the close", late.as_millis());
    ensure!(late < LIVE, "a `conn` record took {late:?}");
    nginx.finish()?;
    let run = tracer.stop()?;
    run.records.final_stats().context("no final stats")?;
    Ok(())
}
