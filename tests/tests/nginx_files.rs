//! What nginx serves from files, as nginx and curl tell of it: conditional requests, compression, HEAD, sendfile.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};
use tests::{
    curl::{self, Transfer},
    nginx::{self, Entry, Nginx, Options, PORT},
    scene::{Story, check_complete, check_said, only, play},
};

const LARGE: u64 = 200 << 20;
/// Seconds of the first of January 2015.
const MODIFIED_S: u64 = 1_420_070_400;

/// One curl for some targets; everything that was seen, which is what both programs say.
fn story(args: &[&str], targets: &[&str]) -> Result<(Story, Vec<Transfer>, Vec<Entry>)> {
    play(|scene| {
        let nginx = Nginx::start(&scene.netns, Options::default())?;
        let text: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        fs::write(nginx.files().join("text.txt"), text)?;
        File::options()
            .write(true)
            .open(nginx.files().join("text.txt"))?
            .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED_S))?;
        File::create(nginx.files().join("large"))?.set_len(LARGE)?;
        let urls: Vec<String> = targets.iter().map(|target| scene.url(PORT, target)).collect();
        let transfers = curl::run(&scene.netns, args, &urls)?;
        let log = nginx.finish()?;
        let story = scene.finish(1)?;
        let pairs = story.to(PORT);
        check_said(&pairs, &curl::said(&transfers))?;
        check_said(&pairs, &nginx::said(&log))?;
        check_complete(&pairs)?;
        let pair = only(&pairs)?;
        pair.check_closed_by("client")?;
        for (exchange, transfer) in pair.exchanges.iter().zip(&transfers) {
            exchange.check(&format!("heads: {transfer:?}"), |http| {
                http.count("/request/header_bytes") == Some(transfer.request)
                    && http.count("/response/header_bytes") == Some(transfer.header)
            })?;
        }
        Ok((story, transfers, log))
    })
}

#[test]
fn not_modified_since() -> Result<()> {
    // The time that the test gives the file: nginx compares for equality.
    let condition = ["-H", "If-Modified-Since: Thu, 01 Jan 2015 00:00:00 GMT"];
    let (story, _, _) = story(&condition, &["/files/text.txt", "/hello"])?;
    let statuses: Vec<_> =
        story.pairs[0].exchanges.iter().map(|http| http.count("/response/status")).collect();
    ensure!(statuses == [Some(304), Some(200)], "statuses: {statuses:?}");
    story.pairs[0].exchanges[0].check("304", |http| http.text("/response/framing") == "none")
}

#[test]
fn head_of_everything() -> Result<()> {
    let targets = ["/files/large", "/packed/text.txt", "/missing", "/hello"];
    let (story, _, _) = story(&["-I", "-H", "Accept-Encoding: gzip"], &targets)?;
    let pair = only(&story.pairs)?;
    ensure!(pair.exchanges.len() == targets.len(), "{pair:?}");
    for exchange in &pair.exchanges {
        exchange.check("no content", |http| {
            http.count("/response/body_bytes") == Some(0) && http.text("/response/framing") == "none"
        })?;
    }
    story.check_copied(0)
}

#[test]
fn compressed_in_chunks_and_the_next() -> Result<()> {
    let targets = ["/packed/text.txt", "/files/text.txt", "/packed/text.txt", "/hello"];
    let (story, _, _) = story(&["-H", "Accept-Encoding: gzip"], &targets)?;
    let framings: Vec<&str> = story.pairs[0].exchanges.iter().map(|http| http.framings()[1]).collect();
    ensure!(framings == ["chunked", "content-length", "chunked", "content-length"], "{framings:?}");
    Ok(())
}

#[test]
fn large_file_by_sendfile() -> Result<()> {
    let (story, transfers, log) = story(&["--limit-rate", "100M"], &["/files/large"])?;
    let exchange = only(&only(&story.pairs)?.exchanges)?;
    let (transfer, entry) = (transfers.first().context("no transfer")?, log.first().context("no entry")?);
    ensure!(entry.body_bytes_sent == LARGE, "{entry:?}");
    // nginx tells whole milliseconds and ends when the last bytes are with the kernel; curl tells whole microseconds.
    let (shortest, longest) = (entry.request_time_us - 2000.0, transfer.lasted_us + 2.0);
    exchange.check(&format!("duration, {shortest} to {longest}"), |http| {
        http.number("/duration_us").is_some_and(|us| shortest <= us && us <= longest)
    })?;
    story.check_copied(LARGE)
}
