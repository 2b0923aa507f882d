//! Python's own HTTP server and client: what both say is what the tracer saw, in HTTP/1.0 and HTTP/1.1.

use anyhow::{Result, ensure};
use std::fs;
use tests::{
    curl,
    program::{self, Server},
    said::Said,
    scene::{Scene, Story, check_complete, check_said, only, play},
    scratch::Scratch,
};

const PORT: u16 = 8000;
const SIZE: usize = 3 << 20;

/// A server of this version on two files, and what its clients say; what both of them say, checked.
fn story(version: &str, connections: usize, clients: impl Fn(&Scene) -> Result<Vec<Said>>) -> Result<Story> {
    let files = Scratch::new()?;
    fs::write(files.file("hello.txt"), "hello\n")?;
    fs::write(files.file("large.bin"), vec![0; SIZE])?;
    play(|scene| {
        let mut command = program::python(&scene.netns, "http_server.py");
        command.args([&scene.host.to_string(), &PORT.to_string(), version]).arg(files.path());
        let server = Server::start(&scene.netns, &mut command, PORT)?;
        let theirs = clients(&scene)?;
        let (ours, _) = server.finish(theirs.len())?;
        let story = scene.finish(connections)?;
        let pairs = story.to(PORT);
        check_said(&pairs, &theirs)?;
        check_said(&pairs, &ours)?;
        check_complete(&pairs)?;
        for exchange in pairs.iter().flat_map(|pair| &pair.exchanges) {
            exchange.check("version of the response", |http| {
                http.text("/response/version") == version.trim_start_matches("HTTP/")
            })?;
        }
        Ok(story)
    })
}

fn client(scene: &Scene, requests: &[&str]) -> Result<Vec<Said>> {
    let mut command = program::python(&scene.netns, "http_client.py");
    program::client(command.args([&scene.host.to_string(), &PORT.to_string()]).args(requests))
}

/// Requests that end with their own length, in either version.
const REQUESTS: [&str; 8] = [
    "GET:/hello.txt:",
    "HEAD:/hello.txt:",
    "GET:/large.bin:",
    "POST:/known:100000",
    "POST:/chunks:123456c",
    "GET:/missing.txt:",
    "GET:/:",
    "HEAD:/missing.txt:",
];

#[test]
fn old_version_closes_after_each_response() -> Result<()> {
    let story = story("HTTP/1.0", REQUESTS.len(), |scene| client(scene, &REQUESTS))?;
    for pair in &story.pairs {
        only(&pair.exchanges)?.check("the server closes", |http| {
            http.is_true("/keep_alive/request") && http.at("/keep_alive/response") == false
        })?;
    }
    ensure!(story.pairs[4].exchanges[0].framings()[0] == "chunked", "{:?}", story.pairs[4]);
    story.check_copied(SIZE as u64)
}

#[test]
fn new_version_keeps_the_connection() -> Result<()> {
    // After an error Python's server closes: the client opens another connection.
    let requests = [&REQUESTS[..5], &["GET:/chunked:", "GET:/:", "close", "GET:/hello.txt:"]].concat();
    let story = story("HTTP/1.1", 2, |scene| client(scene, &requests))?;
    let counts: Vec<usize> = story.pairs.iter().map(|pair| pair.exchanges.len()).collect();
    ensure!(counts == [7, 1], "exchanges of the connections: {counts:?}");
    for pair in &story.pairs {
        pair.check_closed_by("client")?;
    }
    let chunked = &story.pairs[0].exchanges[5];
    ensure!(chunked.framings() == ["none", "chunked"], "{chunked:?}");
    story.check_copied(SIZE as u64)
}

#[test]
fn body_that_ends_with_the_connection() -> Result<()> {
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let story = story(version, 2, |scene| {
            let mut said = client(scene, &["GET:/until-close:"])?;
            said.extend(curl::said(&curl::run(&scene.netns, &[], &[scene.url(PORT, "/until-close")])?));
            Ok(said)
        })?;
        for pair in &story.pairs {
            // Nothing else tells the client that it was all.
            pair.check_closed_by("server")?;
            let exchange = only(&pair.exchanges)?;
            exchange.check("until close", |http| http.text("/response/framing") == "until-close")?;
        }
    }
    Ok(())
}

#[test]
fn curl_waits_for_continue() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = scratch.file("content");
    fs::write(&path, vec![b'x'; 200_000])?;
    let data = format!("@{}", path.display());
    let args = ["-H", "Expect: 100-continue", "--data-binary", &data];
    let story = story("HTTP/1.1", 1, |scene| {
        let urls = ["/a", "/b"].map(|target| scene.url(PORT, target));
        Ok(curl::said(&curl::run(&scene.netns, &args, &urls)?))
    })?;
    for exchange in &only(&story.pairs)?.exchanges {
        exchange.check("100", |http| http.at("/informational") == &serde_json::json!([100]))?;
    }
    Ok(())
}
