//! Traffic between namespaces, over interfaces that come and go while the tracer runs.

use anyhow::{Result, ensure};
use tests::{
    counters::Counters,
    netns::Netns,
    nginx::{Nginx, Options, PORT},
    records::{Record, show, with_role},
    tracer::Tracer,
};

const HERE: &str = "10.9.0.1";
const THERE: &str = "10.9.0.2";

#[test]
fn later_interface_is_followed() -> Result<()> {
    let (here, there) = (Netns::new()?, Netns::new()?);
    let nginx = Nginx::start(&there, Options::default())?;
    let mut tracer = Tracer::start(&here, &[])?;
    here.join(&format!("{HERE}/24"), &there, &format!("{THERE}/24"))?;
    let url = |path: &str| format!("http://{THERE}:{PORT}{path}");

    // The interface needs a moment to be found; the connection itself is seen whatever the interface.
    tracer.wait_for_interface("veth0", &here)?;
    let before = [Counters::read(&here)?, Counters::read(&there)?];
    here.run("curl", &["-sS", &url("/hello?a"), &url("/hello?b")])?;
    tracer.wait_for("two exchanges and the client's end", |records| {
        let exchanges = records.of("http").filter(|http| http.text("/role") == "client").count();
        (exchanges >= 2 && !records.conns(&here).is_empty()).then_some(())
    })?;
    nginx.finish()?;
    let run = tracer.stop()?;

    let (clients, servers) = (run.records.conns(&here), run.records.conns(&there));
    let opened = Counters::read(&here)?.get("TcpActiveOpens")? - before[0].get("TcpActiveOpens")?;
    let accepted = Counters::read(&there)?.get("TcpPassiveOpens")? - before[1].get("TcpPassiveOpens")?;
    ensure!(clients.len() == opened && opened == 1, "{opened} opened:{}", show(&clients));
    ensure!(servers.len() == accepted && accepted == 1, "{accepted} accepted:{}", show(&servers));
    let (client, server) = (&clients[0], &servers[0]);
    ensure!(client.text("/role") == "client" && server.text("/role") == "server", "{client:?} {server:?}");
    ensure!(client.text("/peer") == server.text("/id"), "peer across namespaces: {client:?} {server:?}");
    ensure!(server.text("/peer") == client.text("/id"), "peer across namespaces: {client:?} {server:?}");
    ensure!(client.text("/local/addr") == HERE && client.text("/remote/addr") == THERE, "{client:?}");
    let https: Vec<Record> = run.records.https(&clients).collect();
    let targets: Vec<&str> = https.iter().map(|http| http.text("/request/target")).collect();
    ensure!(targets == ["/hello?a", "/hello?b"], "each exchange once:{}", show(&https));
    let complete =
        |http: &Record| http.text("/outcome") == "complete" && http.count("/response/status") == Some(200);
    ensure!(https.iter().all(complete), "complete:{}", show(&https));
    Ok(())
}

#[test]
fn chosen_interface_only() -> Result<()> {
    let (here, there) = (Netns::new()?, Netns::new()?);
    here.join(&format!("{HERE}/24"), &there, &format!("{THERE}/24"))?;
    let near = Nginx::start(&here, Options::default())?;
    let far = Nginx::start(&there, Options::default())?;
    let mut tracer = Tracer::start(&here, &["--interface", "veth0"])?;
    here.run("curl", &["-sS", &format!("http://127.0.0.1:{PORT}/near")])?;
    here.run("curl", &["-sS", &format!("http://{THERE}:{PORT}/far")])?;
    tracer.wait_for("the far exchange", |records| {
        records.of("http").find(|http| http.text("/request/target") == "/far")
    })?;
    near.finish()?;
    far.finish()?;
    let run = tracer.stop()?;
    let near = run.records.of("http").find(|http| http.text("/request/target") == "/near");
    ensure!(near.is_none(), "segments of another interface: {near:?}");
    let starts: Vec<Record> = run.records.of("start").collect();
    ensure!(starts[0].at("/interfaces") == &serde_json::json!(["veth0"]), "{starts:?}");
    let clients = with_role(&run.records.conns(&here), "client");
    ensure!(clients.iter().any(|conn| conn.text("/remote/addr") == THERE), "connections:{}", show(&clients));
    Ok(())
}
