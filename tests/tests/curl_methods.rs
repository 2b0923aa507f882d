//! curl's requests of every kind as curl and nginx tell of them.

use anyhow::{Result, ensure};
use std::fs;
use tests::{
    curl,
    nginx::{self, Nginx, Options, PORT},
    scene::{Exchange, Scene, Story, check_complete, check_said, only, play},
    scratch::Scratch,
};

/// Runs curls against nginx; everything that was seen, which is what both of them say.
fn story(
    connections: usize,
    curls: impl Fn(&Scene) -> Result<Vec<curl::Transfer>>,
) -> Result<(Story, Vec<curl::Transfer>)> {
    play(|scene| {
        let locations = "location /any { client_max_body_size 64m; return 200 \"any\\n\"; }";
        let nginx = Nginx::start(&scene.netns, Options { locations, ..Options::default() })?;
        let transfers = curls(&scene)?;
        let log = nginx.finish()?;
        let story = scene.finish(connections)?;
        let pairs = story.to(PORT);
        check_said(&pairs, &curl::said(&transfers))?;
        check_said(&pairs, &nginx::said(&log))?;
        check_complete(&pairs)?;
        for pair in pairs {
            pair.check_protocol("http/1")?;
        }
        Ok((story, transfers))
    })
}

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "FROBNICATE"];

#[test]
fn every_method_on_one_connection() -> Result<()> {
    let (story, _) = story(1, |scene| {
        // `--next` keeps the connection; each method once bare and once with a body.
        let mut args = Vec::new();
        let format = curl::FORMAT;
        for (index, method) in METHODS.into_iter().enumerate() {
            let name: &[&str] = if method == "HEAD" { &["-I"] } else { &["-X", method] };
            let bodies: &[&[&str]] = if method == "HEAD" { &[&[]] } else { &[&[], &["-d", "some=content"]] };
            for body in bodies {
                args.push("--next".to_owned());
                let url = scene.url(PORT, &format!("/any?{index}"));
                let rest = ["-sS", "-w", format, "-o", "/dev/null", &url];
                args.extend([name, *body, &rest].concat().into_iter().map(str::to_owned));
            }
        }
        let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
        curl::parse(&scene.netns.run("curl", &args)?)
    })?;
    let pair = only(&story.pairs)?;
    ensure!(pair.exchanges.len() == 2 * METHODS.len() - 1, "all on one connection: {pair:?}");
    for exchange in &pair.exchanges {
        let framing =
            if exchange.count("/request/body_bytes") == Some(0) { "none" } else { "content-length" };
        exchange.check("framing", |http| http.text("/request/framing") == framing)?;
        let head = exchange.text("/request/method") == "HEAD";
        exchange
            .check("content", |http| http.count("/response/body_bytes") == Some(if head { 0 } else { 4 }))?;
    }
    pair.check_closed_by("client")
}

/// A file of this size, in a folder that goes with the test.
fn file(size: u64) -> Result<(Scratch, String)> {
    let scratch = Scratch::new()?;
    let path = scratch.file("upload");
    fs::File::create(&path)?.set_len(size)?;
    Ok((scratch, path.to_string_lossy().into_owned()))
}

#[test]
fn uploads_that_wait_for_continue() -> Result<()> {
    const SIZE: u64 = 3 << 20;
    let (_scratch, path) = file(SIZE)?;
    let (story, _) = story(2, |scene| {
        let url = [scene.url(PORT, "/up/known")];
        let mut all = curl::run(&scene.netns, &["-H", "Expect: 100-continue", "-T", &path], &url)?;
        // A size that curl does not know.
        let url = [scene.url(PORT, "/up/unknown")];
        let chunked = ["-H", "Expect: 100-continue", "-H", "Transfer-Encoding: chunked", "-T", &path];
        let mut last = curl::run(&scene.netns, &chunked, &url)?;
        // curl counts the framing of the chunks that it sends.
        last.iter_mut().for_each(|transfer| transfer.said.request_body = None);
        all.append(&mut last);
        Ok(all)
    })?;
    for (pair, framing) in story.pairs.iter().zip(["content-length", "chunked"]) {
        let exchange = only(&pair.exchanges)?;
        exchange.check(framing, |http| http.text("/request/framing") == framing)?;
        exchange.check("content", |http| http.count("/request/body_bytes") == Some(SIZE))?;
        exchange.check("interim", |http| http.at("/informational") == &serde_json::json!([100]))?;
        exchange.check("created", |http| http.count("/response/status") == Some(201))?;
    }
    story.check_copied(2 * SIZE)
}

#[test]
fn old_version_with_and_without_keep_alive() -> Result<()> {
    let (story, _) = story(3, |scene| {
        let urls = ["/any?a", "/any?b"].map(|target| scene.url(PORT, target));
        let mut all = curl::run(&scene.netns, &["-0"], &urls)?;
        all.extend(curl::run(&scene.netns, &["-0", "-H", "Connection: keep-alive"], &urls)?);
        Ok(all)
    })?;
    let counts: Vec<usize> = story.pairs.iter().map(|pair| pair.exchanges.len()).collect();
    ensure!(counts == [1, 1, 2], "exchanges of the connections: {counts:?}");
    for (index, pair) in story.pairs.iter().enumerate() {
        let keeps = index == 2;
        for exchange in &pair.exchanges {
            exchange.check("version", |http| http.text("/request/version") == "1.0")?;
            exchange.check("keep-alive", |http| {
                http.at("/keep_alive/request") == keeps && http.at("/keep_alive/response") == keeps
            })?;
        }
    }
    story.pairs[2].check_closed_by("client")
}

#[test]
fn idle_between_transfers() -> Result<()> {
    // Two a second: each waits for the rest of its half second.
    let (story, _) = story(1, |scene| {
        let urls: Vec<String> = (0..4).map(|number| scene.url(PORT, &format!("/any?{number}"))).collect();
        curl::run(&scene.netns, &["--rate", "2/s"], &urls)
    })?;
    let pair = only(&story.pairs)?;
    let idle = |exchange: &Exchange| exchange.client.number("/idle_before_us");
    let longest = pair.exchanges[1..].iter().filter_map(idle).fold(0.0, f64::max);
    ensure!(pair.exchanges.len() == 4 && longest > 0.0, "{pair:?}");
    for conn in pair.ends() {
        ensure!(conn.number("/http/idle_max_us") == Some(longest), "{longest}: {conn:?}");
    }
    Ok(())
}

#[test]
fn slow_body_lasts_as_long_as_curl_says() -> Result<()> {
    const SIZE: u64 = 300_000;
    let (_scratch, path) = file(SIZE)?;
    let (story, transfers) = story(1, |scene| {
        let args = ["--limit-rate", "200K", "-H", "Expect:", "-T", &path];
        curl::run(&scene.netns, &args, &[scene.url(PORT, "/up/slow")])
    })?;
    let pair = only(&story.pairs)?;
    for (exchange, transfer) in pair.exchanges.iter().zip(&transfers) {
        exchange.check("content", |http| http.count("/request/body_bytes") == Some(SIZE))?;
        // Some 1.5 s; curl counts whole microseconds.
        exchange.check("duration", |http| {
            let us = http.number("/duration_us").unwrap_or_default();
            us > transfer.lasted_us / 2.0 && us <= transfer.lasted_us + 2.0
        })?;
        exchange.check("most of it is the request", |http| {
            let part = |path| http.number(path).unwrap_or_default();
            part("/timeline/request_end_us") > part("/duration_us") / 2.0
        })?;
    }
    Ok(())
}
