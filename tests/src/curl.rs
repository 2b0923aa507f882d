//! curl, and what it says about its transfers.

use crate::{netns::Netns, process, said::Said, wait};
use anyhow::{Context as _, Result, bail, ensure};
use std::process::{Command, Output};

/// One transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub said: Said,
    /// Heads of all responses, interim ones too.
    pub header: u64,
    /// Head of the request.
    pub request: u64,
    /// From the connection's handshake, or its own start when there was a connection, to the end of the response.
    pub lasted_us: f64,
}

/// For `--write-out`: what [`parse`] reads.
pub const FORMAT: &str = "%{local_port} %{method} %{url} %{http_code} %{size_upload} %{size_download} \
    %{size_header} %{size_request} %{time_connect} %{time_total}\\n";

/// A curl that throws away what it reads.
pub fn command(netns: &Netns, args: &[&str], urls: &[String]) -> Command {
    let mut command = netns.command("curl");
    command.args(["-sS", "--max-time", "60", "-w", FORMAT]).args(args);
    for url in urls {
        command.args(["-o", "/dev/null", url]);
    }
    command
}

/// One curl for some URLs, one after the other; it must succeed.
pub fn run(netns: &Netns, args: &[&str], urls: &[String]) -> Result<Vec<Transfer>> {
    let mut command = command(netns, args, urls);
    let text = process::run(&mut command, wait::LOAD_LIMIT)?;
    parse(&text)
}

/// As [`run`], of a curl that ends with this exit status instead.
pub fn run_failing(netns: &Netns, status: i32, args: &[&str], urls: &[String]) -> Result<Vec<Transfer>> {
    let mut command = command(netns, args, urls);
    let output: Output = process::output(&mut command, wait::LOAD_LIMIT)?;
    ensure!(output.status.code() == Some(status), "{command:?}: {output:?}");
    parse(&String::from_utf8(output.stdout)?)
}

/// What a curl wrote.
pub fn parse(text: &str) -> Result<Vec<Transfer>> {
    text.lines().map(|line| transfer(line).with_context(|| format!("curl: {line}"))).collect()
}

/// What several transfers said.
pub fn said(transfers: &[Transfer]) -> Vec<Said> {
    transfers.iter().map(|transfer| transfer.said.clone()).collect()
}

fn transfer(line: &str) -> Result<Transfer> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [port, method, url, status, upload, download, header, request, connected, done] = fields[..] else {
        bail!("ten fields wanted")
    };
    let (_, rest) = url.split_once("://").context("no scheme")?;
    let target = rest.find('/').map_or("/", |start| &rest[start..]);
    let status = Some(status.parse()?).filter(|status| *status != 0);
    let said = Said {
        port: port.parse()?,
        method: method.to_owned(),
        target: target.to_owned(),
        status,
        request_body: Some(upload.parse()?),
        response_body: status.and(Some(download.parse()?)),
        ..Said::default()
    };
    let us = |seconds: &str| Ok::<_, anyhow::Error>(seconds.parse::<f64>()? * 1e6);
    let lasted_us = us(done)? - us(connected)?;
    Ok(Transfer { said, header: header.parse()?, request: request.parse()?, lasted_us })
}
