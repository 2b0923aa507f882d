//! Connections that are older than the tracer.

use anyhow::{Result, ensure};
use std::process;
use tests::{
    client,
    netns::Netns,
    nginx::{Nginx, Options, PORT},
    records::{Record, show},
    tracer::Tracer,
};

#[test]
fn older_connections_and_their_later_requests() -> Result<()> {
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, Options::default())?;
    let worker = nginx.worker();
    let address = ([127, 0, 0, 1], PORT).into();
    let mut used = client::connect(&netns, address)?;
    let (status, _) = client::get(&mut used, "/hello?before")?;
    ensure!(status == 200, "status {status}");
    let mut unused = client::connect(&netns, address)?;

    let mut tracer = Tracer::start(&netns, &["--port", &PORT.to_string()])?;
    for (stream, target) in [(&mut used, "/hello?first"), (&mut unused, "/hello?second")] {
        let (status, body) = client::get(stream, target)?;
        ensure!(status == 200 && body.len() == 13, "status {status}");
    }
    client::get(&mut used, "/hello?third")?;
    let requests = ["/hello?first", "/hello?second", "/hello?third"];
    tracer.wait_for("six exchanges", |records| {
        (records.of("http").count() == 2 * requests.len()).then_some(())
    })?;
    drop(used);
    tracer
        .wait_for("the end of one connection", |records| (records.conns(&netns).len() == 2).then_some(()))?;
    let run = tracer.stop()?;

    let conns = run.records.conns(&netns);
    ensure!(conns.len() == 4, "two connections:{}", show(&conns));
    for conn in &conns {
        let at_server = conn.count("/local/port") == Some(PORT.into());
        let (role, pid) = if at_server { ("server", worker) } else { ("client", process::id()) };
        ensure!(conn.is_true("/preexisting"), "older than the tracer: {conn:?}");
        ensure!(
            conn.is_null("/opened") && conn.is_null("/duration_us"),
            "opened before the tracer: {conn:?}"
        );
        ensure!(conn.count("/process/pid") == Some(pid.into()), "owner, not {pid}: {conn:?}");
        ensure!([role, "unknown"].contains(&conn.text("/role")), "role: {conn:?}");
        ensure!(conns.iter().any(|peer| peer.text("/id") == conn.text("/peer")), "peer: {conn:?}");
    }
    let open = conns.iter().filter(|conn| conn.is_true("/open")).count();
    ensure!(open == 2, "one connection is still open:{}", show(&conns));
    let ended = conns.iter().filter(|conn| conn.text("/close/how") == "fin").count();
    ensure!(ended == 2, "one connection was closed:{}", show(&conns));

    let https: Vec<Record> = run.records.https(&conns).collect();
    for target in requests {
        let shown = |http: &&Record| {
            let reused = http.at("/reused").as_bool();
            http.text("/request/target") == target
                && http.count("/response/status") == Some(200)
                && reused == (target == "/hello?third").then_some(true)
        };
        ensure!(https.iter().filter(shown).count() == 2, "{target} at both ends:{}", show(&https));
    }
    let pids: Vec<_> = https.iter().filter_map(|http| http.count("/process/pid")).collect();
    ensure!(pids.len() == https.len(), "owners:{}", show(&https));
    drop(unused);
    nginx.finish()?;
    Ok(())
}
