//! HTTP/2 and TLS between nginx and curl: named, not read, hardly copied.

use anyhow::{Result, ensure};
use std::fs::File;
use tests::{
    curl,
    nginx::{Nginx, Options},
    process,
    scene::play,
    scratch::Scratch,
    wait,
};

const CLEAR: u16 = 8082;
const TLS: u16 = 8443;
const LARGE: u64 = 8 << 20;
/// What curl asks for. With prior knowledge, Debian's curl cannot use a connection twice.
const TARGETS: [&str; 3] = ["/files/large", "/hello", "/missing"];

/// curl's requests to one of two more servers; the connection as both ends have it.
fn talk(port: u16, scheme: &str, args: &[&str], protocol: &str, version: &str) -> Result<()> {
    let keys = Scratch::new()?;
    let (key, certificate) = (keys.file("key.pem"), keys.file("certificate.pem"));
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "1"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    process::run(&mut openssl, wait::LIMIT * 3)?;
    let pages = "location /hello { return 200 \"hello\\n\"; } location /files/ { root .; }";
    let servers = format!(
        "server {{ listen {CLEAR} http2; {pages} }}
    server {{ listen {TLS} ssl http2; ssl_certificate {}; ssl_certificate_key {}; {pages} }}",
        certificate.display(),
        key.display()
    );
    play(|scene| {
        let nginx = Nginx::start(&scene.netns, Options { servers: &servers, ..Options::default() })?;
        File::create(nginx.files().join("large"))?.set_len(LARGE)?;
        let count = if args.contains(&"--http2-prior-knowledge") { 1 } else { TARGETS.len() };
        let urls: Vec<String> =
            TARGETS[..count].iter().map(|target| scene.url(port, target).replace("http:", scheme)).collect();
        let transfers = curl::run(&scene.netns, args, &urls)?;
        let log = nginx.finish()?;
        let story = scene.finish(1)?;

        // The programs did speak HTTP with each other, on one connection.
        let statuses: Vec<u64> = log.iter().map(|entry| entry.status).collect();
        ensure!(statuses == [200, 200, 404][..count], "nginx logged {log:?}");
        ensure!(log.iter().all(|entry| entry.version == version), "nginx logged {log:?}");
        ensure!(transfers.iter().map(|transfer| transfer.said.status).eq(statuses.into_iter().map(Some)));
        ensure!(transfers[0].said.response_body == Some(LARGE), "{transfers:?}");
        for pair in story.to(port) {
            pair.check_protocol(protocol)?;
            ensure!(pair.exchanges.is_empty(), "no HTTP/1: {pair:?}");
            ensure!(pair.client.count("/local/port") == Some(log[0].remote_port.into()), "{pair:?} {log:?}");
            let received = pair.client.count("/bytes_received");
            ensure!(received.is_some_and(|bytes| bytes > LARGE), "{pair:?}");
        }
        story.check_copied(LARGE)
    })
}

#[test]
fn http_2_by_prior_knowledge() -> Result<()> {
    talk(CLEAR, "http:", &["--http2-prior-knowledge"], "http/2", "HTTP/2.0")
}

#[test]
fn tls_with_http_1() -> Result<()> {
    talk(TLS, "https:", &["-k", "--http1.1"], "tls", "HTTP/1.1")
}

#[test]
fn tls_with_http_2() -> Result<()> {
    talk(TLS, "https:", &["-k", "--http2"], "tls", "HTTP/2.0")
}
