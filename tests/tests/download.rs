//! A large body is counted to the byte and hardly copied.

use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use tests::{
    netns::Netns,
    nginx::{Nginx, Options, PORT},
    process,
    records::{Record, show, with_role},
    tracer::Tracer,
    wait,
};

const SIZE: u64 = 1 << 30;
const COPIED_BELOW: u64 = 1 << 20;

#[test]
fn a_gibibyte_through_nginx() -> Result<()> {
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, Options::default())?;
    File::create(nginx.files().join("large"))?.set_len(SIZE)?;
    let tracer = Tracer::start(&netns, &[])?;
    let mut curl = netns.command("curl");
    curl.args([
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_download} %{size_header} %{size_request}",
    ]);
    let wrote = process::run(curl.arg(format!("http://127.0.0.1:{PORT}/files/large")), wait::LOAD_LIMIT)?;
    let figures: Vec<u64> = wrote.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [200, SIZE, header, request] = figures[..] else { anyhow::bail!("curl: {wrote}") };
    nginx.finish()?;
    let run = tracer.stop()?;

    let conns = run.records.conns(&netns);
    let https: Vec<Record> = run.records.https(&conns).collect();
    for (role, sent, received) in [("client", "received", "sent"), ("server", "sent", "received")] {
        let [conn] = &with_role(&conns, role)[..] else { anyhow::bail!("as {role}:{}", show(&conns)) };
        let [http] = &with_role(&https, role)[..] else { anyhow::bail!("as {role}:{}", show(&https)) };
        ensure!(http.count("/response/body_bytes") == Some(SIZE), "body: {http:?}");
        ensure!(http.count("/response/header_bytes") == Some(header), "head, not {header}: {http:?}");
        ensure!(http.count("/request/header_bytes") == Some(request), "head, not {request}: {http:?}");
        ensure!(http.text("/outcome") == "complete", "outcome: {http:?}");
        let down = conn.count(&format!("/bytes_{sent}"));
        let up = conn.count(&format!("/bytes_{received}"));
        ensure!(down == Some(SIZE + header) && up == Some(request), "bytes: {conn:?}");
        ensure!(conn.is_true("/complete"), "complete: {conn:?}");
    }
    let stats = run.records.final_stats().context("no final stats")?;
    let copied = stats.count("/segments/bytes_copied").context("no segments.bytes_copied")?;
    ensure!(stats.count("/segments/bytes_seen").is_some_and(|bytes| bytes >= SIZE), "seen: {stats:?}");
    ensure!(copied > 0 && copied < COPIED_BELOW, "copied: {stats:?}");
    println!("copied {copied} bytes of {SIZE}");
    Ok(())
}
