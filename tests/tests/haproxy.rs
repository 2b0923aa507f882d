//! haproxy in front of nginx: curl's connections to haproxy are what haproxy tells of them, and haproxy's connections
//! to nginx what nginx tells of them.

use anyhow::{Result, ensure};
use std::{collections::BTreeSet, fs};
use tests::{
    curl,
    nginx::{self, Nginx, Options, PORT},
    program::Server,
    said::Said,
    scene::{Pair, Story, check_complete, check_said, play},
    scratch::Scratch,
};

const FRONT: u16 = 8081;
const CURLS: usize = 3;
const REQUESTS: usize = 4;

struct Seen {
    story: Story,
    /// Ports of haproxy's own connections, as it logged them, in the order of its log.
    back: Vec<u16>,
}

impl Seen {
    fn front(&self) -> Vec<&Pair> {
        self.story.to(FRONT)
    }

    fn back(&self) -> Vec<&Pair> {
        self.story.to(PORT)
    }
}

/// Curls, each with several requests, through a haproxy with these options.
fn seen(options: &str) -> Result<Seen> {
    play(|scene| {
        let nginx = Nginx::start(&scene.netns, Options::default())?;
        fs::write(nginx.files().join("large.bin"), vec![b'x'; 1 << 20])?;
        fs::write(nginx.files().join("text.txt"), "line\n".repeat(50_000))?;
        let scratch = Scratch::new()?;
        let configuration = scratch.file("haproxy.cfg");
        // Of the messages' sizes haproxy's log knows only its own form of them.
        let text = format!(
            "global
    log stdout format raw local0
    nbthread 1
defaults
    mode http
    log global
    log-format \"%cp %HM %HU %ST - - - - %bp\"
    timeout connect 20s
    timeout client 60s
    timeout server 60s
    {options}
frontend front
    bind {front}
    default_backend back
backend back
    server nginx {back}
",
            front = scene.address(FRONT),
            back = scene.address(PORT),
        );
        fs::write(&configuration, text)?;
        let mut command = scene.netns.command("haproxy");
        let haproxy = Server::start(&scene.netns, command.arg("-db").arg("-f").arg(&configuration), FRONT)?;

        let mut transfers = Vec::new();
        for number in 0..CURLS {
            let targets = ["/hello", "/files/large.bin", "/packed/text.txt", "/missing"];
            let urls: Vec<String> =
                targets.map(|target| scene.url(FRONT, &format!("{target}?{number}"))).into();
            transfers.extend(curl::run(&scene.netns, &["-H", "Accept-Encoding: gzip"], &urls)?);
        }
        let (said, lines) = haproxy.finish(CURLS * REQUESTS)?;
        let back: Vec<u16> = lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        ensure!(back.len() == said.len(), "haproxy's log: {lines:?}");
        let log = nginx.finish()?;

        let ports = |said: &[Said]| said.iter().map(|said| said.port).collect::<BTreeSet<_>>().len();
        let connections = ports(&said) + back.iter().collect::<BTreeSet<_>>().len();
        let story = scene.finish(connections)?;
        let seen = Seen { story, back };
        check_said(&seen.front(), &curl::said(&transfers))?;
        check_said(&seen.front(), &said)?;
        // On the way to nginx only the connection is another one.
        let behind = said.into_iter().zip(&seen.back).map(|(said, port)| Said { port: *port, ..said });
        check_said(&seen.back(), &behind.collect::<Vec<_>>())?;
        check_said(&seen.back(), &nginx::said(&log))?;
        check_complete(&[seen.front(), seen.back()].concat())?;
        for (front, back) in exchanges(&seen.front()).iter().zip(exchanges(&seen.back())) {
            for path in ["/method", "/target"].map(|path| format!("/request{path}")) {
                ensure!(front.at(&path) == back.at(&path), "{path} on both hops: {front:?} {back:?}");
            }
            for path in ["/status", "/body_bytes", "/framing"].map(|path| format!("/response{path}")) {
                ensure!(front.at(&path) == back.at(&path), "{path} on both hops: {front:?} {back:?}");
            }
            let lasts = |http: &tests::records::Record| http.number("/duration_us");
            ensure!(lasts(front) >= lasts(back), "the inner hop lasts longer: {front:?} {back:?}");
        }
        Ok(seen)
    })
}

/// All exchanges in the order of their requests; one waits for the other.
fn exchanges<'a>(pairs: &[&'a Pair]) -> Vec<&'a tests::records::Record> {
    let mut all: Vec<_> =
        pairs.iter().flat_map(|pair| pair.exchanges.iter().map(|exchange| &exchange.client)).collect();
    all.sort_by(|a, b| a.text("/started").cmp(b.text("/started")));
    all
}

fn counts(pairs: &[&Pair]) -> Vec<usize> {
    pairs.iter().map(|pair| pair.exchanges.len()).collect()
}

#[test]
fn one_connection_to_nginx_for_all() -> Result<()> {
    let seen = seen("option http-keep-alive\n    http-reuse always")?;
    let (front, back) = (counts(&seen.front()), counts(&seen.back()));
    ensure!(front == [REQUESTS; CURLS], "curl's connections: {front:?}");
    ensure!(back == [CURLS * REQUESTS], "haproxy's connections: {back:?}");
    // It keeps the connection until it is ended itself.
    seen.back().iter().try_for_each(|pair| pair.check_closed_by("client"))?;
    seen.front().iter().try_for_each(|pair| pair.check_closed_by("client"))
}

#[test]
fn a_connection_to_nginx_for_each_request() -> Result<()> {
    let seen = seen("option http-server-close")?;
    let (front, back) = (counts(&seen.front()), counts(&seen.back()));
    ensure!(front == [REQUESTS; CURLS], "curl's connections: {front:?}");
    ensure!(back == [1; CURLS * REQUESTS], "haproxy's connections: {back:?}");
    closing(&seen.back())
}

#[test]
fn a_connection_for_each_request_on_both_hops() -> Result<()> {
    let seen = seen("option httpclose")?;
    let (front, back) = (counts(&seen.front()), counts(&seen.back()));
    ensure!(front == [1; CURLS * REQUESTS], "curl's connections: {front:?}");
    ensure!(back == [1; CURLS * REQUESTS], "haproxy's connections: {back:?}");
    for exchange in seen.front().iter().flat_map(|pair| &pair.exchanges) {
        exchange.check("haproxy says that it closes", |http| {
            http.is_true("/keep_alive/request") && http.at("/keep_alive/response") == false
        })?;
    }
    closing(&seen.back())
}

fn closing(pairs: &[&Pair]) -> Result<()> {
    pairs.iter().flat_map(|pair| &pair.exchanges).try_for_each(|exchange| {
        exchange.check("both ends say that they close", |http| {
            http.at("/keep_alive/request") == false && http.at("/keep_alive/response") == false
        })
    })
}
