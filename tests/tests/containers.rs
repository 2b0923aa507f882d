//! HTTP inside other network namespaces, as containers have them: every exchange is seen once at each end, with its
//! namespace and its process.

use anyhow::{Context as _, Result, ensure};
use tests::{
    bpf,
    netns::Netns,
    nginx::{Nginx, Options, PORT},
    records::{Record, show},
    tracer::Tracer,
};

const CLIENT: &str = "10.33.0.1";
const SERVER: &str = "10.33.0.2";
const REQUESTS: usize = 20;
const CAPTURES: [&str; 2] = ["cgroup", "tc"];

#[test]
fn joined_by_veth() -> Result<()> {
    let (own, client, server) = (Netns::new()?, Netns::new()?, Netns::new()?);
    client.join(&format!("{CLIENT}/24"), &server, &format!("{SERVER}/24"))?;
    for capture in CAPTURES {
        each_exchange_is_seen_once(&own, &client, &server, SERVER, capture).context(capture)?;
    }
    Ok(())
}

#[test]
fn without_an_interface_outside() -> Result<()> {
    let (own, inner) = (Netns::new()?, Netns::new()?);
    for capture in CAPTURES {
        each_exchange_is_seen_once(&own, &inner, &inner, "127.0.0.1", capture).context(capture)?;
    }
    Ok(())
}

#[test]
fn made_while_the_tracer_runs() -> Result<()> {
    for capture in CAPTURES {
        let own = Netns::new()?;
        let mut tracer = Tracer::start(&own, &["--capture", capture])?;
        let inner = Netns::new()?;
        let nginx = Nginx::start(&inner, Options::default())?;
        if capture == "tc" {
            // The listener makes the namespace known.
            tracer.wait_for_interface("lo", &inner)?;
        }
        inner.run("curl", &["-sS", &format!("http://127.0.0.1:{PORT}/hello")])?;
        let seen = tracer.wait_for("the exchange at both ends", |records| {
            (records.https(&records.conns(&inner)).count() == 2).then_some(())
        });
        seen.context(capture)?;
        nginx.finish()?;
        tracer.stop()?;
        let attached = bpf::attached(&inner, "lo")?;
        ensure!(attached.is_empty(), "still attached: {attached:?}");
    }
    Ok(())
}

fn each_exchange_is_seen_once(
    own: &Netns,
    client: &Netns,
    server: &Netns,
    address: &str,
    capture: &str,
) -> Result<()> {
    let nginx = Nginx::start(server, Options::default())?;
    let worker = u64::from(nginx.worker());
    let mut tracer = Tracer::start(own, &["--capture", capture])?;
    let urls: Vec<String> =
        (0..REQUESTS).map(|number| format!("http://{address}:{PORT}/hello?{number}")).collect();
    let args: Vec<&str> = ["-sS"].into_iter().chain(urls.iter().map(String::as_str)).collect();
    client.run("curl", &args)?;
    tracer.wait_for("both ends of the connection", |records| {
        (ends(&records.conns(client), "client").len() + ends(&records.conns(server), "server").len() == 2)
            .then_some(())
    })?;
    let log = nginx.finish()?;
    let run = tracer.stop()?;

    ensure!(log.len() == REQUESTS, "nginx logged {log:?}");
    let targets: Vec<&str> = log.iter().map(|entry| entry.uri.as_str()).collect();
    for (netns, role) in [(client, "client"), (server, "server")] {
        let conns = ends(&run.records.conns(netns), role);
        let https: Vec<Record> = run.records.https(&conns).collect();
        let seen: Vec<&str> = https.iter().map(|http| http.text("/request/target")).collect();
        ensure!(seen == targets, "at the {role}:{}", show(&https));
        let owned = |http: &Record| match role {
            "client" => http.text("/process/comm") == "curl",
            _ => http.count("/process/pid") == Some(worker),
        };
        let right = |http: &Record| {
            owned(http)
                && http.text("/outcome") == "complete"
                && http.is_true("/exact")
                && http.count("/response/status") == Some(200)
        };
        ensure!(https.iter().all(right), "at the {role}:{}", show(&https));
        let requests = conns[0].count("/http/requests");
        ensure!(conns.len() == 1 && requests == Some(REQUESTS as u64), "{}", show(&conns));
    }
    Ok(())
}

fn ends(conns: &[Record], role: &str) -> Vec<Record> {
    tests::records::with_role(conns, role)
}
