//! A large body is counted to the byte and hardly copied.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs::File,
    io::{self, Read as _},
    net::SocketAddr,
    thread,
};
use tests::{
    client,
    netns::Netns,
    nginx::{Nginx, Options, PORT},
    process,
    records::{Record, show, with_role},
    tracer::Tracer,
    traffic_net::loopback,
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

/// An answer to HEAD has no body, whatever its Content-Length; the next one on the connection has.
#[test]
fn behind_a_head() -> Result<()> {
    const SIZE: u64 = 200 << 20;
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, Options::default())?;
    File::create(nginx.files().join("large"))?.set_len(SIZE)?;
    let tracer = Tracer::start(&netns, &[])?;
    let url = format!("http://127.0.0.1:{PORT}/files/large");
    let args = ["-sS", "--head", &url, "--next", "-sS", "-o", "/dev/null", &url];
    let both = [&args[..], &["--next", "-sS", "--head", &url], &args[3..]].concat();
    process::run(netns.command("curl").args(both), wait::LOAD_LIMIT)?;
    nginx.finish()?;
    let run = tracer.stop()?;

    let conns = with_role(&run.records.conns(&netns), "client");
    ensure!(conns.len() == 1, "one connection:{}", show(&conns));
    let https: Vec<Record> = run.records.https(&conns).collect();
    let seen: Vec<_> =
        https.iter().map(|http| (http.text("/request/method"), http.count("/response/body_bytes"))).collect();
    let expected = [("HEAD", Some(0)), ("GET", Some(SIZE)), ("HEAD", Some(0)), ("GET", Some(SIZE))];
    ensure!(seen == expected && https.iter().all(|http| http.is_true("/exact")), "{}", show(&https));
    let stats = run.records.final_stats().context("no final stats")?;
    let copied = stats.count("/segments/bytes_copied").context("no segments.bytes_copied")?;
    ensure!(copied < 16 << 10 && stats.count("/lost/bytes_over_budget") == Some(0), "copied: {stats:?}");
    Ok(())
}

/// Chunks of a server, over and over: large ones, and small ones whose lines often lie across two segments.
const CHUNKS: [usize; 6] = [32 << 10, 4096, 1000, 64 << 10, 5000, 1 << 20];
const ROUNDS: usize = 230;

#[test]
fn chunks_at_full_speed() -> Result<()> {
    let netns = Netns::new()?;
    let address = SocketAddr::from((loopback(1), 8140));
    let tracer = Tracer::start(&netns, &[])?;
    let listener = client::listen(&netns, address)?;
    let (mut near, mut far) = client::pair(&netns, &listener, address)?;
    const REQUEST: &[u8] = b"GET /chunked HTTP/1.1\r\nHost: test\r\n\r\n";
    for _ in 0..2 {
        client::pass(&mut near, &mut far, REQUEST)?;
        let length = thread::scope(|scope| -> Result<u64> {
            let server = scope.spawn(|| write_chunked(&mut far));
            let mut end = [0; 5];
            let mut length = 0;
            let mut buffer = vec![0; 1 << 20];
            while &end != b"0\r\n\r\n" {
                let read = near.read(&mut buffer)?;
                ensure!(read > 0, "the server closed");
                let tail = [&end[..], &buffer[..read]].concat();
                end.copy_from_slice(&tail[tail.len() - 5..]);
                length += read as u64;
            }
            server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(length)
        })?;
        println!("{} MiB", length >> 20);
    }
    drop((near, far));
    let run = tracer.stop()?;

    let body = (CHUNKS.iter().sum::<usize>() * ROUNDS) as u64;
    let https: Vec<Record> = run.records.https(&run.records.conns(&netns)).collect();
    ensure!(https.len() == 4, "two exchanges, each from both ends:{}", show(&https));
    for http in &https {
        ensure!(http.count("/response/body_bytes") == Some(body), "not {body}: {http:?}");
        ensure!(http.text("/outcome") == "complete" && http.is_true("/exact"), "{http:?}");
        ensure!(http.text("/response/framing") == "chunked", "{http:?}");
    }
    let stats = run.records.final_stats().context("no final stats")?;
    let copied = stats.count("/segments/bytes_copied").context("no segments.bytes_copied")?;
    println!("copied {copied} bytes of {}", 2 * body);
    ensure!(copied < COPIED_BELOW, "copied: {stats:?}");
    ensure!(stats.count("/lost/bytes_over_budget") == Some(0), "lost: {stats:?}");
    Ok(())
}

fn write_chunked(to: &mut impl io::Write) -> io::Result<()> {
    to.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let content = vec![b'x'; 1 << 20];
    for _ in 0..ROUNDS {
        for size in CHUNKS {
            let chunk = [format!("{size:x}\r\n").as_bytes(), &content[..size], b"\r\n"].concat();
            to.write_all(&chunk)?;
        }
    }
    to.write_all(b"0\r\n\r\n")
}
