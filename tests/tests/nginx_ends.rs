//! How nginx ends connections and requests: its limits for a connection, a request that it refuses, one that it cannot
//! answer.

use anyhow::{Result, ensure};
use std::{
    fs::File,
    io::{Read as _, Write as _},
};
use tests::{
    client, curl,
    nginx::{self, Nginx, Options, PORT},
    scene::{Exchange, Scene, check_complete, check_said, only, play},
    scratch::Scratch,
};

/// Makes requests on one connection, and then waits for the server to close it.
fn until_closed(scene: &Scene, requests: usize) -> Result<()> {
    let mut stream = client::connect(&scene.netns, scene.address(PORT))?;
    for number in 0..requests {
        let (status, _) = client::get(&mut stream, &format!("/hello?{number}"))?;
        ensure!(status == 200, "status {status}");
    }
    ensure!(stream.read(&mut [0])? == 0, "more came");
    Ok(())
}

#[test]
fn as_many_requests_as_it_allows() -> Result<()> {
    const LIMIT: usize = 5;
    const CONNECTIONS: usize = 3;
    play(|scene| {
        let options = Options { keepalive_requests: LIMIT as u32, ..Options::default() };
        let nginx = Nginx::start(&scene.netns, options)?;
        for _ in 0..CONNECTIONS {
            until_closed(&scene, LIMIT)?;
        }
        let log = nginx.finish()?;
        let story = scene.finish(CONNECTIONS)?;
        let pairs = story.to(PORT);
        check_said(&pairs, &nginx::said(&log))?;
        check_complete(&pairs)?;
        for pair in pairs {
            pair.check_closed_by("server")?;
            for (index, exchange) in pair.exchanges.iter().enumerate() {
                let last = index + 1 == LIMIT;
                exchange.check("`Connection: close` in the last response", |http| {
                    http.is_true("/keep_alive/request") && http.at("/keep_alive/response") == !last
                })?;
                exchange.check("as nginx wrote it", |http| {
                    let connection = http.text("/response/headers/connection");
                    connection == if last { "close" } else { "keep-alive" }
                })?;
            }
        }
        Ok(())
    })
}

#[test]
fn idle_for_too_long() -> Result<()> {
    play(|scene| {
        let nginx = Nginx::start(&scene.netns, Options { keepalive_timeout_s: 1, ..Options::default() })?;
        until_closed(&scene, 2)?;
        let log = nginx.finish()?;
        let story = scene.finish(1)?;
        let pairs = story.to(PORT);
        check_said(&pairs, &nginx::said(&log))?;
        check_complete(&pairs)?;
        let pair = only(&pairs)?;
        pair.check_closed_by("server")?;
        for exchange in &pair.exchanges {
            exchange.check("no word of the end", |http| http.is_true("/keep_alive/response"))?;
        }
        Ok(())
    })
}

const SMALL: &str = "location /small { client_max_body_size 1k; root /nonexistent; dav_methods PUT; }";
const TOO_LARGE: u64 = 64 << 20;

/// What every request that is too large must look like.
fn check_refused(exchange: &Exchange) -> Result<()> {
    exchange.check("refused before it was all there", |http| {
        http.count("/response/status") == Some(413)
            && http.at("/keep_alive/response") == false
            && http.text("/request/headers/content-length") == TOO_LARGE.to_string()
            && http.count("/request/body_bytes").is_some_and(|bytes| bytes < TOO_LARGE)
    })?;
    exchange.check("the response came to its end", |http| http.text("/outcome") == "complete")
}

/// curl stops sending when it reads the answer.
#[test]
fn refused_while_curl_sends() -> Result<()> {
    play(|scene| {
        let nginx = Nginx::start(&scene.netns, Options { locations: SMALL, ..Options::default() })?;
        let scratch = Scratch::new()?;
        let path = scratch.file("large");
        File::create(&path)?.set_len(TOO_LARGE)?;
        let path = path.to_string_lossy();
        // The rate leaves nginx the time to answer.
        let args = ["-H", "Expect:", "--limit-rate", "20M", "-T", &path];
        let transfers = curl::run(&scene.netns, &args, &[scene.url(PORT, "/small/file")])?;
        let log = nginx.finish()?;
        let story = scene.finish(1)?;
        let pairs = story.to(PORT);
        check_said(&pairs, &curl::said(&transfers))?;
        check_said(&pairs, &nginx::said(&log))?;
        check_refused(only(&only(&pairs)?.exchanges)?)
    })
}

/// A part of the content comes with the head, and no more after the answer.
#[test]
fn refused_with_a_part_of_its_body() -> Result<()> {
    const SENT: usize = 100_000;
    play(|scene| {
        let nginx = Nginx::start(&scene.netns, Options { locations: SMALL, ..Options::default() })?;
        let mut stream = client::connect(&scene.netns, scene.address(PORT))?;
        let head = format!("PUT /small/file HTTP/1.1\r\nHost: test\r\nContent-Length: {TOO_LARGE}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &[b'x'; SENT]].concat())?;
        let answer = std::io::read_to_string(&mut stream)?;
        drop(stream);
        let log = nginx.finish()?;
        let story = scene.finish(1)?;
        let pairs = story.to(PORT);
        check_said(&pairs, &nginx::said(&log))?;
        let pair = only(&pairs)?;
        pair.check_closed_by("server")?;
        let exchange = only(&pair.exchanges)?;
        check_refused(exchange)?;
        exchange.check("what was sent", |http| http.count("/request/body_bytes") == Some(SENT as u64))?;
        exchange.check("what was answered", |http| {
            let part = |name| http.count(&format!("/response/{name}_bytes")).unwrap_or_default();
            part("header") + part("body") == answer.len() as u64
        })
    })
}

/// nginx asks a listener that takes connections and says nothing.
#[test]
fn never_answered() -> Result<()> {
    const UPSTREAM: u16 = 8081;
    play(|scene| {
        let listener = client::listen(&scene.netns, scene.address(UPSTREAM))?;
        let locations = format!("location /silent {{ proxy_pass http://{}; }}", scene.address(UPSTREAM));
        let nginx = Nginx::start(&scene.netns, Options { locations: &locations, ..Options::default() })?;
        // curl's exit status is that of a time-out.
        let urls = [scene.url(PORT, "/silent")];
        let transfers = curl::run_failing(&scene.netns, 28, &["--max-time", "1"], &urls)?;
        let (mut upstream, _) = listener.accept()?;
        let mut asked = String::new();
        upstream.read_to_string(&mut asked)?;
        drop(upstream);
        let log = nginx.finish()?;
        ensure!(log.len() == 1 && log[0].status == 499, "nginx logged {log:?}");
        let story = scene.finish(2)?;
        check_said(&story.to(PORT), &curl::said(&transfers))?;
        check_said(&story.to(PORT), &nginx::said(&log))?;
        for port in [PORT, UPSTREAM] {
            let pairs = story.to(port);
            let pair = only(&pairs)?;
            pair.check_closed_by("client")?;
            only(&pair.exchanges)?.check("no response", |http| {
                http.text("/outcome") == "no_response"
                    && http.is_null("/response")
                    && http.is_null("/ttfb_us")
            })?;
        }
        let exchange = &story.to(UPSTREAM)[0].exchanges[0];
        ensure!(
            exchange.count("/request/header_bytes") == Some(asked.len() as u64),
            "{asked:?}: {exchange:?}"
        );
        exchange.check("nginx asked", |http| {
            http.text("/request/version") == "1.0" && http.at("/keep_alive/request") == false
        })
    })
}
