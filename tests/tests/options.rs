//! Options that choose what is seen and what is written.

use anyhow::{Result, ensure};
use tests::{
    go,
    netns::Netns,
    nginx::{Nginx, Options, PORT},
    records::{Record, show},
    tracer::{Run, Tracer},
};

/// curl makes one request, with a query and credentials, while the tracer runs with these options.
fn curl_with(options: &[&str]) -> Result<(Netns, Run)> {
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, Options::default())?;
    let tracer = Tracer::start(&netns, options)?;
    let url = format!("http://127.0.0.1:{PORT}/hello?token=topsecret");
    netns.run("curl", &["-sS", "-u", "user:topsecret", "-b", "id=topsecret", "-A", "agent/7", &url])?;
    nginx.finish()?;
    let run = tracer.stop()?;
    Ok((netns, run))
}

/// Both ends of curl's connection and of its exchange.
fn both_ends(netns: &Netns, run: &Run) -> Result<(Vec<Record>, Vec<Record>)> {
    let conns = run.records.conns(netns);
    let https: Vec<Record> = run.records.https(&conns).collect();
    ensure!(conns.len() == 2, "both ends:{}", show(&conns));
    Ok((conns, https))
}

#[test]
fn without_http() -> Result<()> {
    let (netns, run) = curl_with(&["--no-http"])?;
    let (conns, _) = both_ends(&netns, &run)?;
    ensure!(run.records.of("http").next().is_none(), "no `http` records");
    ensure!(conns.iter().all(|conn| conn.text("/close/how") == "fin"), "close:{}", show(&conns));
    let stats = run.records.final_stats();
    let copied = stats.as_ref().and_then(|stats| stats.count("/segments/bytes_copied"));
    ensure!(copied.unwrap_or_default() == 0, "payload was copied: {stats:?}");
    Ok(())
}

#[test]
fn credentials_are_never_written_unasked() -> Result<()> {
    for options in [&["--redact-query"][..], &["--headers", "all", "--redact-query"]] {
        let (netns, run) = curl_with(options)?;
        let (_, https) = both_ends(&netns, &run)?;
        ensure!(https.len() == 2, "both ends:{}", show(&https));
        for line in &run.records.0 {
            // The second is the base64 of `user:topsecret`.
            for secret in ["topsecret", "dXNlcjp0b3BzZWNyZXQ="] {
                ensure!(!line.text.contains(secret), "with {options:?}: {}", line.text);
            }
        }
        let all = options.contains(&"all");
        for http in &https {
            ensure!(http.at("/request/headers").to_string().contains("agent/7") == all, "headers: {http:?}");
        }
    }
    Ok(())
}

#[test]
fn raw_events() -> Result<()> {
    let (netns, run) = curl_with(&["--events"])?;
    let (conns, _) = both_ends(&netns, &run)?;
    for conn in &conns {
        let changes: Vec<Record> =
            run.records.of("state").filter(|state| state.text("/conn") == conn.text("/id")).collect();
        ensure!(changes.len() >= 3 && changes[0].is_null("/in_state_us"), "{conn:?}: {}", show(&changes));
        for (at, change) in changes.iter().enumerate().skip(1) {
            let reached = |at: usize| conn.number(&format!("/states/{at}/at_us")).unwrap_or_default();
            let off = change.number("/in_state_us").map(|us| us - (reached(at) - reached(at - 1)));
            ensure!(off.is_some_and(|off| off.abs() < 0.01), "in_state_us: {conn:?}: {}", show(&changes));
        }
    }
    let (_, run) = curl_with(&[])?;
    ensure!(run.records.of("state").next().is_none(), "raw events that nobody asked for");
    Ok(())
}

#[test]
fn filters_choose_connections() -> Result<()> {
    let port = PORT.to_string();
    // Options, and whether curl's connection to nginx is wanted, as client and as server.
    let cases: [(&[&str], [bool; 2]); 8] = [
        (&["--port", &port], [true, true]),
        (&["--port", "1"], [false, false]),
        (&["--host", "127.0.0.1"], [true, true]),
        (&["--host", "127.0.0.0/8", "--port", "1,8080"], [true, true]),
        (&["--host", "10.0.0.0/8", "--host", "::/0"], [false, false]),
        (&["--comm", "curl"], [true, false]),
        (&["--comm", "nginx"], [false, true]),
        (&["--pid", "1"], [false, false]),
    ];
    for (options, wanted) in cases {
        let (netns, run) = curl_with(options)?;
        let conns = run.records.conns(&netns);
        let https: Vec<Record> = run.records.of("http").collect();
        for (role, wanted) in ["client", "server"].into_iter().zip(wanted) {
            for records in [&conns, &https] {
                let seen = records.iter().filter(|record| record.text("/role") == role).count();
                ensure!(
                    seen == usize::from(wanted),
                    "{options:?} as {role}:{}{}",
                    show(&conns),
                    show(&https)
                );
            }
        }
    }
    Ok(())
}

#[test]
fn pid_of_a_running_server() -> Result<()> {
    let netns = Netns::new()?;
    let server = go::server(&netns)?;
    let tracer = Tracer::start(&netns, &["--pid", &server.pid().to_string()])?;
    let mut client = go::client(&netns, 1, "0s")?;
    ensure!(client.process.wait(tests::wait::LIMIT)?.success(), "the client failed");
    let run = tracer.stop()?;
    let conns = run.records.conns(&netns);
    let https: Vec<Record> = run.records.of("http").collect();
    ensure!(conns.len() == 1 && https.len() == 1, "one end:{}{}", show(&conns), show(&https));
    for record in conns.iter().chain(&https) {
        ensure!(record.count("/process/pid") == Some(server.pid().into()), "owner: {record:?}");
    }
    Ok(())
}

#[test]
fn count_ends_it() -> Result<()> {
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, Options::default())?;
    let tracer = Tracer::start(&netns, &["--count", "3", "--port", &PORT.to_string()])?;
    let url = format!("http://127.0.0.1:{PORT}/hello");
    netns.run("curl", &["-sS", &url, &url, &url])?;
    let run = tracer.collect()?;
    ensure!(run.status.code() == Some(0), "{}; stderr:\n{}", run.status, run.stderr);
    let lines = run.records.0.iter().filter(|line| ["conn", "http"].contains(&line.kind.as_str())).count();
    ensure!(lines == 3, "{lines} lines");
    nginx.finish()?;
    Ok(())
}
