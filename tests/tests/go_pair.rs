//! A Go client that makes three requests at once through Go's default transport, which then keeps two connections
//! and closes the third at once.

use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use tests::{
    counters::{self, Counters},
    go,
    netns::Netns,
    records::{Record, show, with_role},
    tracer::{Run, Tracer},
};

const REQUESTS: usize = 3;

#[test]
fn tracer_ends_while_two_connections_are_idle() -> Result<()> {
    let netns = Netns::new()?;
    let server = go::server(&netns)?;
    let before = Counters::read(&netns)?;
    let mut tracer = start(&netns)?;
    let client = go::client(&netns, REQUESTS, "60s")?;
    client.wait_until_idle()?;
    let closed = tracer.wait_for("six exchanges and one closed pair", |records| {
        let conns = records.conns(&netns);
        (conns.len() == 2 && records.of("http").count() == 2 * REQUESTS).then_some(conns)
    })?;

    let states = counters::socket_states(&netns)?;
    let expected =
        [("ESTAB", 4), ("LISTEN", 1), ("TIME-WAIT", 1)].map(|(state, count)| (state.to_owned(), count));
    ensure!(states == expected.into(), "ss lists {states:?}");

    let run = tracer.stop()?;
    let conns = check_story(&run, &netns, &before, server.pid(), client.process.pid())?;
    let closed: BTreeSet<&str> = closed.iter().map(|conn| conn.text("/id")).collect();
    for conn in &conns {
        if closed.contains(conn.text("/id")) {
            check_closed(conn)?;
        } else {
            check_open(conn)?;
        }
    }
    Ok(())
}

#[test]
fn client_ends_while_the_tracer_runs() -> Result<()> {
    let netns = Netns::new()?;
    let server = go::server(&netns)?;
    let before = Counters::read(&netns)?;
    let mut tracer = start(&netns)?;
    let mut client = go::client(&netns, REQUESTS, "500ms")?;
    let client_pid = client.process.pid();
    ensure!(client.process.wait(tests::wait::LIMIT)?.success(), "the client failed");
    tracer.wait_for("six closed connections", |records| {
        (records.conns(&netns).len() == 2 * REQUESTS).then_some(())
    })?;
    let states = counters::socket_states(&netns)?;
    ensure!(states.get("TIME-WAIT") == Some(&REQUESTS), "ss lists {states:?}");

    let run = tracer.stop()?;
    for conn in check_story(&run, &netns, &before, server.pid(), client_pid)? {
        check_closed(&conn)?;
    }
    Ok(())
}

fn start(netns: &Netns) -> Result<Tracer> {
    Tracer::start(netns, &["--port", &go::PORT.to_string()])
}

/// Six sockets in three pairs, each with one exchange, owned by the right processes.
fn check_story(
    run: &Run,
    netns: &Netns,
    before: &Counters,
    server_pid: u32,
    client_pid: u32,
) -> Result<Vec<Record>> {
    let conns = run.records.conns(netns);
    let https: Vec<Record> = run.records.https(&conns).collect();
    let after = Counters::read(netns)?;
    let owners = [
        ("client", "TcpActiveOpens", go::CLIENT, client_pid),
        ("server", "TcpPassiveOpens", go::SERVER, server_pid),
    ];
    for (role, counter, comm, pid) in owners {
        let opened = after.get(counter)? - before.get(counter)?;
        let sockets = with_role(&conns, role);
        ensure!(
            opened == REQUESTS && sockets.len() == opened,
            "{counter}: {opened}, sockets:{}",
            show(&conns)
        );
        let exchanges = with_role(&https, role);
        ensure!(exchanges.len() == REQUESTS, "exchanges as {role}:{}", show(&https));
        for record in sockets.iter().chain(&exchanges) {
            let owner = (record.text("/process/comm"), record.count("/process/pid"));
            ensure!(owner == (comm, Some(pid.into())), "owner, not {comm} {pid}: {record:?}");
            ensure!(record.text("/process/exe").ends_with(comm), "executable: {record:?}");
        }
    }
    check_pairs(&conns)?;
    https.iter().try_for_each(check_exchange)?;
    ensure!(conns.iter().all(|conn| conn.is_true("/complete")), "not complete:{}", show(&conns));
    Ok(conns)
}

fn check_pairs(conns: &[Record]) -> Result<()> {
    let ids: BTreeSet<&str> = conns.iter().map(|conn| conn.text("/id")).collect();
    ensure!(ids.len() == conns.len(), "ids are not unique:{}", show(conns));
    for conn in conns {
        let peer = conns.iter().find(|other| other.text("/id") == conn.text("/peer"));
        let peer = peer.with_context(|| format!("no peer of {conn:?}"))?;
        ensure!(peer.text("/peer") == conn.text("/id"), "the peer names another: {conn:?} {peer:?}");
        ensure!(peer.at("/local") == conn.at("/remote"), "addresses of a pair: {conn:?} {peer:?}");
        ensure!(peer.text("/role") != conn.text("/role"), "roles of a pair: {conn:?} {peer:?}");
        let (sent, received) = (conn.count("/bytes_sent"), peer.count("/bytes_received"));
        // The kernel tells totals when a socket is closed.
        let known = sent.is_some_and(|bytes| bytes > 0) || conn.is_true("/open");
        ensure!(known && sent == received, "bytes of a pair: {conn:?} {peer:?}");
        ensure!(conn.count("/http/requests") == Some(1), "one request each: {conn:?}");
        ensure!(conn.count("/http/responses") == Some(1), "one response each: {conn:?}");
        ensure!(conn.at("/http/reuse") == false, "no reuse: {conn:?}");
        ensure!(conn.at("/preexisting") == false, "opened before our eyes: {conn:?}");
        ensure!(conn.is_null("/http/idle_max_us"), "no silence between two exchanges: {conn:?}");
        // The server's socket is made when its handshake is done: it never saw the SYN.
        let handshake = conn.number("/handshake_us");
        let at_server = conn.text("/role") == "server";
        ensure!(handshake.map_or(at_server, |us| us > 0.0), "handshake: {conn:?}");
        let times = ["/opened", "/established"].map(|path| conn.text(path));
        ensure!(!times[0].is_empty() && times[0] < times[1], "opened and established: {conn:?}");
    }
    Ok(())
}

fn check_exchange(http: &Record) -> Result<()> {
    let texts = ["/request/method", "/request/target", "/request/version", "/request/framing"];
    ensure!(texts.map(|path| http.text(path)) == ["GET", "/hello", "1.1", "none"], "request: {http:?}");
    ensure!(http.count("/response/status") == Some(200), "status: {http:?}");
    ensure!(http.count("/response/body_bytes") == Some(go::BODY.len() as u64), "body: {http:?}");
    ensure!(http.text("/response/framing") == "content-length", "framing: {http:?}");
    ensure!(http.text("/outcome") == "complete", "outcome: {http:?}");
    ensure!(
        http.count("/seq") == Some(1) && http.at("/reused") == false,
        "first of its connection: {http:?}"
    );
    ensure!(
        http.is_true("/keep_alive/request") && http.is_true("/keep_alive/response"),
        "keep-alive: {http:?}"
    );
    let number = |path| http.number(path).with_context(|| format!("no {path}: {http:?}"));
    let (request_end, start, end) = (
        number("/timeline/request_end_us")?,
        number("/timeline/response_start_us")?,
        number("/timeline/response_end_us")?,
    );
    ensure!(0.0 <= request_end && request_end < start && start <= end, "timeline: {http:?}");
    let near = |a: f64, b: f64| (a - b).abs() < 0.01;
    ensure!(near(number("/duration_us")?, end), "duration: {http:?}");
    ensure!(near(number("/ttfb_us")?, start - request_end), "time to first byte: {http:?}");
    ensure!(number("/idle_before_us")? >= 0.0, "idle before: {http:?}");
    Ok(())
}

/// The client closed it.
fn check_closed(conn: &Record) -> Result<()> {
    let at_client = conn.text("/role") == "client";
    let by = if at_client { "local" } else { "remote" };
    ensure!(conn.text("/close/by") == by && conn.text("/close/how") == "fin", "close: {conn:?}");
    ensure!(conn.at("/time_wait") == at_client, "TIME_WAIT: {conn:?}");
    ensure!(conn.text("/closed") > conn.text("/established"), "closed: {conn:?}");
    ensure!(conn.number("/duration_us").is_some_and(|us| us > 0.0), "duration: {conn:?}");
    ensure!(!conn.is_true("/open"), "closed and yet open: {conn:?}");
    // No idle time-out: it was closed as soon as it came back to the pool.
    let idle = conn.number("/http/idle_at_close_us").with_context(|| format!("idle at close: {conn:?}"))?;
    ensure!(
        conn.number("/close/at_us").is_some_and(|at| 0.0 <= idle && idle < at),
        "idle at close: {conn:?}"
    );
    let states: Vec<&str> = state_names(conn).collect();
    let (first, closing) = if at_client {
        ("SYN_SENT", ["FIN_WAIT1", "TIME_WAIT"])
    } else {
        ("SYN_RECV", ["CLOSE_WAIT", "LAST_ACK"])
    };
    ensure!(states.starts_with(&[first, "ESTABLISHED"]), "states: {conn:?}");
    ensure!(closing.iter().all(|state| states.contains(state)), "states: {conn:?}");
    Ok(())
}

fn check_open(conn: &Record) -> Result<()> {
    ensure!(conn.is_true("/open") && conn.is_null("/closed"), "still open: {conn:?}");
    ensure!(conn.is_null("/http/idle_at_close_us"), "silence of an open one goes on: {conn:?}");
    ensure!(conn.is_null("/close/by") && conn.is_null("/close/how"), "close of an open one: {conn:?}");
    ensure!(state_names(conn).last() == Some("ESTABLISHED"), "states: {conn:?}");
    Ok(())
}

fn state_names(conn: &Record) -> impl Iterator<Item = &str> {
    conn.at("/states").as_array().into_iter().flatten().filter_map(|state| state["state"].as_str())
}
