//! nginx with a configuration of its own, in the foreground, one worker.

use crate::{
    netns::Netns,
    process::Process,
    said::{Said, none_or},
    scratch::Scratch,
    wait,
};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

/// The port that it listens on, IPv4 and IPv6.
pub const PORT: u16 = 8080;

/// How long it keeps connections, and what it has besides.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    pub keepalive_timeout_s: u32,
    pub keepalive_requests: u32,
    /// More locations of its server.
    pub locations: &'a str,
    /// More servers, and what belongs there.
    pub servers: &'a str,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { keepalive_timeout_s: 75, keepalive_requests: 1000, locations: "", servers: "" }
    }
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    master: Process,
    worker: u32,
    scratch: Scratch,
}

/// A line of its access log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub method: String,
    pub uri: String,
    pub status: u64,
    pub body_bytes_sent: u64,
    /// nginx's own number of the connection.
    pub connection: u64,
    /// The request's place on its connection.
    pub connection_requests: u64,
    pub bytes_sent: u64,
    /// Port of the client.
    pub remote_port: u16,
    /// Head and content of the request, as far as nginx read them.
    pub request_length: u64,
    /// From the first byte that it read to the last one that it gave to the kernel.
    pub request_time_us: f64,
    /// What the request announces as its content, or had in chunks; none where those were not read.
    pub content_length: Option<u64>,
    pub expects: bool,
    /// The response comes in chunks.
    pub chunked: bool,
    /// Of HTTP, such as `HTTP/1.1`.
    pub version: String,
}

impl Entry {
    /// What it says of the messages. Framing of chunks and interim responses are body for nginx, and so is what comes
    /// after 101. Of a request that it refuses it does not read all, and of content that it does not need it counts
    /// what it happened to have read.
    pub fn said(&self) -> Said {
        const CLIENT_LEFT: u64 = 499;
        let plain = !self.chunked && !self.expects && !matches!(self.status, 101 | CLIENT_LEFT);
        Said {
            port: self.remote_port,
            method: self.method.clone(),
            target: self.uri.clone(),
            status: Some(self.status).filter(|status| *status != CLIENT_LEFT),
            response_body: plain.then_some(self.body_bytes_sent),
            request_body: self.content_length.filter(|_| self.status < 400),
            request_bytes: (self.content_length == Some(0)).then_some(self.request_length),
            response_bytes: plain.then_some(self.bytes_sent),
        }
    }
}

/// What several entries said.
pub fn said(log: &[Entry]) -> Vec<Said> {
    log.iter().map(Entry::said).collect()
}

impl Nginx {
    pub fn start(netns: &Netns, options: Options<'_>) -> Result<Self> {
        let scratch = Scratch::new()?;
        for folder in ["files", "up", "temp"] {
            fs::create_dir(scratch.file(folder))?;
        }
        fs::write(scratch.file("nginx.conf"), configuration(scratch.path(), options))?;
        let errors = scratch.file("error.log");
        let mut command = netns.command("nginx");
        command
            .arg("-p")
            .arg(scratch.path())
            .arg("-e")
            .arg(&errors)
            .arg("-c")
            .arg(scratch.file("nginx.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(scratch.file("stderr"))?);
        let mut nginx = Self { master: Process::spawn(&mut command)?, worker: 0, scratch };
        let started = netns.wait_for_listener(PORT).and_then(|()| nginx.wait_for_worker());
        nginx.worker = started.with_context(|| fs::read_to_string(&errors).unwrap_or_default())?;
        Ok(nginx)
    }

    fn wait_for_worker(&mut self) -> Result<u32> {
        let children = format!("/proc/{pid}/task/{pid}/children", pid = self.master.pid());
        wait::until("nginx's worker", wait::LIMIT, || {
            ensure!(self.master.child().try_wait()?.is_none(), "nginx ended");
            Ok(fs::read_to_string(&children)?.trim().parse().ok())
        })
    }

    /// The process that owns its connections.
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// The folder that it serves below `/files/`.
    pub fn files(&self) -> PathBuf {
        self.scratch.file("files")
    }

    /// Ends it when every request is answered; what it logged.
    pub fn finish(mut self) -> Result<Vec<Entry>> {
        self.master.signal(libc::SIGQUIT)?;
        let status = self.master.wait(wait::LIMIT)?;
        ensure!(status.success(), "nginx: {status}");
        let log = fs::read_to_string(self.scratch.file("access.log"))?;
        log.lines().map(|line| entry(line).with_context(|| format!("access log: {line}"))).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master that is killed leaves its worker behind; one that is asked ends it. Too late for any error.
        if let Ok(None) = self.master.child().try_wait() {
            let _ = self.master.signal(libc::SIGTERM);
            let _ = self.master.wait(wait::LIMIT);
        }
    }
}

fn configuration(folder: &Path, options: Options<'_>) -> String {
    let folder = folder.display();
    let Options { keepalive_timeout_s, keepalive_requests, locations, servers } = options;
    format!(
        "user root;
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    log_format figures '$request_method $request_uri $status $body_bytes_sent $connection $connection_requests $bytes_sent $remote_port $request_length $request_time $content_length$http_transfer_encoding $http_expect $sent_http_transfer_encoding $server_protocol';
    access_log {folder}/access.log figures;
    client_body_temp_path {folder}/temp;
    types {{ text/plain txt; }}
    default_type application/octet-stream;
    sendfile on;
    keepalive_timeout {keepalive_timeout_s}s;
    keepalive_requests {keepalive_requests};
    gzip_types text/plain;
    server {{
        listen {PORT} backlog=4096;
        listen [::]:{PORT} backlog=4096;
        location /hello {{ return 200 \"hello, world\\n\"; }}
        location /files/ {{ root {folder}; }}
        location /packed/ {{ alias {folder}/files/; gzip on; gzip_min_length 1; }}
        location /up/ {{ root {folder}; dav_methods PUT; client_max_body_size 64m; }}
        {locations}
    }}
    {servers}
}}
"
    )
}

fn entry(line: &str) -> Result<Entry> {
    let mut fields = line.split(' ');
    let mut next = || fields.next().context("too few fields");
    Ok(Entry {
        method: next()?.to_owned(),
        uri: next()?.to_owned(),
        status: next()?.parse()?,
        body_bytes_sent: next()?.parse()?,
        connection: next()?.parse()?,
        connection_requests: next()?.parse()?,
        bytes_sent: next()?.parse()?,
        remote_port: next()?.parse()?,
        request_length: next()?.parse()?,
        request_time_us: next()?.parse::<f64>()? * 1e6,
        content_length: content_length(next()?)?,
        expects: none_or::<String>(next()?)?.is_some(),
        chunked: none_or::<String>(next()?)?.is_some(),
        version: next()?.to_owned(),
    })
}

/// `$content_length` and `Transfer-Encoding`. Of chunks that it has read, nginx knows the length.
fn content_length(fields: &str) -> Result<Option<u64>> {
    let length = fields.trim_end_matches(|last| !char::is_ascii_digit(&last));
    match fields {
        "--" => Ok(Some(0)),
        _ if length.is_empty() => Ok(None),
        _ => Ok(Some(length.parse()?)),
    }
}
