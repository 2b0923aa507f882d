//! Go's `net/http` at both ends: what the client and the server say is what the tracer saw.

use anyhow::{Result, ensure};
use tests::{
    program::{self, Server},
    scene::{Pair, Story, check_said, only, play},
};

const PORT: u16 = 8091;
const LARGE: u64 = 8 << 20;

/// The server, and a client with these requests; what both of them say, checked.
fn story(connections: usize, requests: &[&str]) -> Result<Story> {
    play(|scene| {
        let address = scene.address(PORT).to_string();
        let mut command = program::go(&scene.netns, "origin")?;
        let server = Server::start(&scene.netns, command.args(["-address", &address]), PORT)?;
        let mut command = program::go(&scene.netns, "caller")?;
        let theirs = program::client(command.args(["-address", &address]).args(requests))?;
        let (ours, _) = server.finish(requests.len())?;
        let story = scene.finish(connections)?;
        let pairs = story.to(PORT);
        check_said(&pairs, &theirs)?;
        check_said(&pairs, &ours)?;
        let owners = |pair: &Pair| pair.ends().map(|conn| conn.text("/process/comm").to_owned());
        ensure!(story.pairs.iter().all(|pair| owners(pair) == ["caller", "origin"]), "owners: {story:?}");
        Ok(story)
    })
}

fn outcomes(pair: &Pair) -> Vec<&str> {
    pair.exchanges.iter().map(|exchange| exchange.text("/outcome")).collect()
}

#[test]
fn one_connection_for_all() -> Result<()> {
    let requests = ["GET:/hello::", "HEAD:/hello::", "GET:/large::", "POST:/hello:70000:", "DELETE:/hello::"];
    let story = story(1, &requests)?;
    let pair = only(&story.pairs)?;
    ensure!(outcomes(pair) == ["complete"; 5], "{pair:?}");
    pair.check_closed_by("client")?;
    story.check_copied(LARGE)
}

#[test]
fn chunks_both_ways() -> Result<()> {
    let requests =
        ["POST:/echo:100000c:", "PUT:/echo:1c:", "POST:/echo:50000:", "GET:/hello::", "POST:/echo:3000000c:"];
    let story = story(1, &requests)?;
    let pair = only(&story.pairs)?;
    ensure!(outcomes(pair) == ["complete"; 5], "{pair:?}");
    let framings: Vec<[&str; 2]> = pair.exchanges.iter().map(|exchange| exchange.framings()).collect();
    let chunked = ["chunked", "chunked"];
    let expected = [chunked, chunked, ["content-length", "chunked"], ["none", "content-length"], chunked];
    ensure!(framings == expected, "{framings:?}");
    story.check_copied(2 * 3_000_000)
}

#[test]
fn server_says_that_it_closes() -> Result<()> {
    let story = story(3, &["GET:/hello::", "GET:/close::", "GET:/close::", "GET:/hello::"])?;
    let counts: Vec<usize> = story.pairs.iter().map(|pair| pair.exchanges.len()).collect();
    ensure!(counts == [2, 1, 1], "exchanges of the connections: {counts:?}");
    for exchange in story.pairs.iter().flat_map(|pair| &pair.exchanges) {
        let keeps = exchange.text("/request/target") == "/hello";
        exchange.check("keep-alive", |http| {
            http.is_true("/keep_alive/request") && http.at("/keep_alive/response") == keeps
        })?;
    }
    Ok(())
}

/// A client that does not read to the end cannot use the connection again.
#[test]
fn body_not_read() -> Result<()> {
    let story = story(4, &["GET:/hello::unread", "GET:/large::part", "GET:/large::unread", "GET:/hello::"])?;
    let [small, part, unread, last] = &story.pairs[..] else { anyhow::bail!("four connections") };
    // All of it was in the kernel before the client looked.
    ensure!(outcomes(small) == ["complete"] && outcomes(last) == ["complete"], "{small:?} {last:?}");
    for pair in [part, unread] {
        ensure!(outcomes(pair) == ["reset"], "{pair:?}");
        ensure!(pair.client.text("/close/by") == "local", "{pair:?}");
        ensure!(pair.server.text("/close/by") == "remote", "{pair:?}");
        ensure!(pair.server.text("/close/how") == "rst_received", "{pair:?}");
        let exchange = only(&pair.exchanges)?;
        exchange.check("a part", |http| {
            http.count("/response/body_bytes").is_some_and(|bytes| bytes < LARGE)
                && http.text("/response/headers/content-length") == LARGE.to_string()
        })?;
    }
    last.check_closed_by("client")
}

#[test]
fn client_gives_up_waiting() -> Result<()> {
    let story = story(2, &["GET:/hello::", "GET:/never::timeout", "GET:/hello::"])?;
    let [first, second] = &story.pairs[..] else { anyhow::bail!("two connections") };
    ensure!(outcomes(first) == ["complete", "no_response"], "{first:?}");
    ensure!(outcomes(second) == ["complete"], "{second:?}");
    first.exchanges[1].check("no response", |http| http.is_null("/response"))?;
    first.check_closed_by("client")
}

#[test]
fn client_gives_up_in_the_middle() -> Result<()> {
    let story = story(1, &["POST:/stall:1000:timeout"])?;
    let pair = only(&story.pairs)?;
    // The server goes on writing, which the client's kernel answers with a reset.
    ensure!(outcomes(pair) == ["reset"], "{pair:?}");
    ensure!(pair.client.text("/close/by") == "local", "{pair:?}");
    ensure!(pair.server.text("/close/by") == "remote", "{pair:?}");
    ensure!(pair.server.text("/close/how") == "rst_received", "{pair:?}");
    only(&pair.exchanges)?.check("a part", |http| {
        http.count("/response/body_bytes").is_some_and(|bytes| (1000..LARGE).contains(&bytes))
    })
}

/// The client's socket is closed, and the server answers all the same.
#[test]
fn answer_that_comes_too_late() -> Result<()> {
    let story = story(1, &["GET:/late::timeout"])?;
    let pair = only(&story.pairs)?;
    ensure!(pair.client.text("/close/by") == "local", "{pair:?}");
    ensure!(pair.server.text("/close/how") == "rst_received", "{pair:?}");
    // It was all on the wire, as the server says.
    ensure!(outcomes(pair) == ["complete"], "{pair:?}");
    only(&pair.exchanges)?.check("the answer", |http| http.count("/response/status") == Some(200))
}
