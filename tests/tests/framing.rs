//! curl against nginx: each way to frame a message, each family of addresses.

use anyhow::{Context as _, Result, bail, ensure};
use std::{fs, io::Write as _, path::Path, process::Stdio};
use tests::{
    client,
    counters::Counters,
    curl::{self, Transfer},
    netns::Netns,
    nginx::{Entry, Nginx, Options, PORT},
    process::Process,
    records::{Record, show, with_role},
    tracer::Tracer,
    wait,
};

/// The interim response that nginx sends to a client that waits for one.
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// One curl, from the first exchange of its connection to the last.
struct Curl<'a> {
    args: &'a [&'a str],
    paths: &'a [&'a str],
}

fn one<'a>(args: &'a [&'a str], path: &'a [&'a str; 1]) -> Curl<'a> {
    Curl { args, paths: path }
}

impl Curl<'_> {
    fn run(&self, netns: &Netns, host: &str, input: &Path) -> Result<Vec<Transfer>> {
        let urls: Vec<String> = self.paths.iter().map(|path| format!("http://{host}:{PORT}{path}")).collect();
        let mut command = curl::command(netns, self.args, &urls);
        let mut curl = Process::spawn(command.stdin(fs::File::open(input)?).stdout(Stdio::piped()))?;
        let status = curl.wait(wait::LIMIT * 2)?;
        ensure!(status.success(), "{command:?}: {status}");
        curl::parse(&std::io::read_to_string(curl.child().stdout.take().context("no standard output")?)?)
    }
}

/// Everything that one test needs.
struct Bench {
    netns: Netns,
    nginx: Nginx,
    tracer: Tracer,
    before: Counters,
}

/// What both sides saw: nginx's log line, and the record at each end.
struct Seen {
    log: Entry,
    ends: [Record; 2],
}

impl Bench {
    fn start() -> Result<Self> {
        let netns = Netns::new()?;
        let nginx = Nginx::start(&netns, Options::default())?;
        let text: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        fs::write(nginx.files().join("text.txt"), text)?;
        let tracer = Tracer::start(&netns, &["--port", &PORT.to_string()])?;
        let before = Counters::read(&netns)?;
        Ok(Self { netns, nginx, tracer, before })
    }

    /// Ends everything; every exchange in the order in which nginx logged it, checked against that log.
    fn finish(self, family: &str) -> Result<Vec<Seen>> {
        let Self { netns, nginx, tracer, before } = self;
        let log = nginx.finish()?;
        let run = tracer.stop()?;
        let conns = run.records.conns(&netns);
        let after = Counters::read(&netns)?;
        let mut sides = Vec::new();
        for (role, counter) in [("client", "TcpActiveOpens"), ("server", "TcpPassiveOpens")] {
            let (opened, seen) = (after.get(counter)? - before.get(counter)?, with_role(&conns, role));
            ensure!(seen.len() == opened, "{counter}: {opened}:{}", show(&seen));
            let mut https = with_role(&run.records.https(&conns).collect::<Vec<_>>(), role);
            // Each request of these tests waits for the one before.
            https.sort_by(|a, b| a.text("/started").cmp(b.text("/started")));
            ensure!(https.len() == log.len(), "nginx logged {log:?}, as {role}:{}", show(&https));
            sides.push(https);
        }
        let well = |conn: &Record| conn.is_true("/complete") && conn.text("/family") == family;
        ensure!(conns.iter().all(well), "complete and {family}:{}", show(&conns));
        let (servers, clients) = (sides.pop().unwrap_or_default(), sides.pop().unwrap_or_default());
        let mut all = Vec::new();
        for ((log, client), server) in log.into_iter().zip(clients).zip(servers) {
            let seen = Seen { log, ends: [client, server] };
            seen.check_log()?;
            all.push(seen);
        }
        Ok(all)
    }
}

impl Seen {
    fn check_log(&self) -> Result<()> {
        let log = &self.log;
        for http in &self.ends {
            ensure!(http.text("/request/method") == log.method, "{log:?} {http:?}");
            ensure!(http.text("/request/target") == log.uri, "{log:?} {http:?}");
            ensure!(http.count("/response/status") == Some(log.status), "{log:?} {http:?}");
            ensure!(http.count("/seq") == Some(log.connection_requests), "{log:?} {http:?}");
            ensure!(http.text("/outcome") == "complete", "{http:?}");
            // nginx counts chunk framing and interim responses as body.
            if http.text("/response/framing") != "chunked" {
                let interim = http.at("/informational").as_array().map_or(0, Vec::len) * CONTINUE.len();
                let body = log.body_bytes_sent - interim as u64;
                ensure!(http.count("/response/body_bytes") == Some(body), "{log:?} {http:?}");
                let head = log.bytes_sent - log.body_bytes_sent;
                ensure!(http.count("/response/header_bytes") == Some(head), "{log:?} {http:?}");
            }
        }
        Ok(())
    }

    fn check_curl(&self, transfer: &Transfer) -> Result<()> {
        for http in &self.ends {
            let text = || format!("{transfer:?} {http:?}");
            ensure!(http.count("/response/status") == transfer.said.status, text());
            ensure!(http.count("/response/body_bytes") == transfer.said.response_body, text());
            // curl counts the framing of the chunks that it sends.
            if http.text("/request/framing") != "chunked" {
                ensure!(http.count("/request/body_bytes") == transfer.said.request_body, text());
            }
            if http.at("/informational").as_array().is_none_or(Vec::is_empty) {
                ensure!(http.count("/response/header_bytes") == Some(transfer.header), text());
            }
            if transfer.said.request_body == Some(0) {
                ensure!(http.count("/request/header_bytes") == Some(transfer.request), text());
            }
        }
        Ok(())
    }

    fn check(&self, what: &str, holds: impl Fn(&Record) -> bool) -> Result<()> {
        self.ends.iter().try_for_each(|http| {
            ensure!(holds(http), "{what}: {http:?}");
            Ok(())
        })
    }
}

fn framings(http: &Record) -> [&str; 2] {
    [http.text("/request/framing"), http.text("/response/framing")]
}

#[test]
fn every_framing_as_nginx_logs_it() -> Result<()> {
    let bench = Bench::start()?;
    let input = bench.nginx.files().join("text.txt");
    let input_bytes = fs::metadata(&input)?.len();
    let post = ["-d", "name=value&other=more"];
    let upload = ["-T", "-"];
    let curls = [
        one(&[], &["/hello"]),
        one(&["-I"], &["/files/text.txt"]),
        one(&[], &["/files/text.txt"]),
        one(&[], &["/missing"]),
        one(&post, &["/hello?post"]),
        one(&["-H", "Accept-Encoding: gzip"], &["/packed/text.txt"]),
        one(&upload, &["/up/new"]),
        one(&["-0"], &["/hello?1.0"]),
        Curl { args: &[], paths: &["/hello?a", "/files/text.txt", "/missing?c", "/hello?d"] },
    ];
    let mut transfers = Vec::new();
    for curl in curls {
        transfers.extend(curl.run(&bench.netns, "127.0.0.1", &input)?);
    }
    let all = bench.finish("ipv4")?;
    ensure!(all.len() == transfers.len(), "curl made {}, nginx logged {}", transfers.len(), all.len());
    for (seen, transfer) in all.iter().zip(&transfers) {
        seen.check_curl(transfer)?;
    }

    let [get, head, file, missing, posted, packed, uploaded, old, several @ ..] = &all[..] else {
        bail!("exchanges are missing")
    };
    get.check("GET", |http| framings(http) == ["none", "content-length"])?;
    head.check("HEAD", |http| http.count("/response/body_bytes") == Some(0))?;
    file.check("file", |http| http.count("/response/body_bytes").is_some_and(|bytes| bytes > 200_000))?;
    missing.check("404", |http| http.text("/response/reason") == "Not Found")?;
    posted.check("POST", |http| framings(http)[0] == "content-length")?;
    posted.check("POST", |http| http.count("/request/body_bytes") == Some(post[1].len() as u64))?;
    packed.check("chunked response", |http| framings(http) == ["none", "chunked"])?;
    packed.check("chunked response", |http| {
        http.count("/response/body_bytes").is_some_and(|bytes| bytes > 1000)
    })?;
    uploaded.check("chunked request", |http| framings(http)[0] == "chunked")?;
    uploaded.check("its body", |http| http.count("/request/body_bytes") == Some(input_bytes))?;
    old.check("HTTP/1.0", |http| {
        http.text("/request/version") == "1.0" && !http.is_true("/keep_alive/request")
    })?;

    ensure!(several.len() == 4, "requests of one connection");
    for (index, seen) in several.iter().enumerate() {
        seen.check("reuse", |http| http.is_true("/reused") == (index > 0))?;
        seen.check("one connection", |http| {
            several[0].ends.iter().any(|end| end.at("/conn") == http.at("/conn"))
        })?;
        seen.check("no pipelining", |http| http.at("/pipelined") == false)?;
    }
    Ok(())
}

#[test]
fn not_modified_has_no_body() -> Result<()> {
    let bench = Bench::start()?;
    let url = format!("http://127.0.0.1:{PORT}/files/text.txt");
    let head = bench.netns.run("curl", &["-sS", "-I", &url])?;
    let etag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).context(head.clone())?.trim();
    let condition = format!("If-None-Match: {etag}");
    let input = bench.nginx.files().join("text.txt");
    let paths = ["/files/text.txt", "/hello"];
    let curl = Curl { args: &["-H", &condition], paths: &paths };
    let transfers = curl.run(&bench.netns, "127.0.0.1", &input)?;
    ensure!(transfers[0].said.status == Some(304), "{transfers:?}");
    let all = bench.finish("ipv4")?;
    ensure!(all.len() == 3, "three exchanges");
    for (seen, transfer) in all[1..].iter().zip(&transfers) {
        seen.check_curl(transfer)?;
    }
    all[1].check("304", |http| http.count("/response/body_bytes") == Some(0))?;
    all[2].check("the next one", |http| http.count("/seq") == Some(2))
}

#[test]
fn ipv6() -> Result<()> {
    let bench = Bench::start()?;
    let input = bench.nginx.files().join("text.txt");
    let curl = Curl { args: &[], paths: &["/hello", "/files/text.txt"] };
    let transfers = curl.run(&bench.netns, "[::1]", &input)?;
    let all = bench.finish("ipv6")?;
    ensure!(all.len() == 2, "two exchanges");
    for (seen, transfer) in all.iter().zip(&transfers) {
        seen.check_curl(transfer)?;
        seen.check("addresses", |http| {
            http.text("/local/addr") == "::1" && http.text("/remote/addr") == "::1"
        })?;
        seen.check("not mapped", |http| http.at("/mapped") == false)?;
    }
    Ok(())
}

#[test]
fn ipv4_mapped() -> Result<()> {
    let netns = Netns::new()?;
    let listener = client::listen(&netns, "[::]:9000".parse()?)?;
    let tracer = Tracer::start(&netns, &["--port", "9000"])?;
    let (mut client, mut server) = client::pair(&netns, &listener, "127.0.0.1:9000".parse()?)?;
    client::pass(&mut client, &mut server, b"GET /mapped HTTP/1.1\r\nHost: test\r\n\r\n")?;
    client::pass(&mut server, &mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    drop(client);
    drop(server);
    let run = tracer.stop()?;
    let conns = run.records.conns(&netns);
    let https: Vec<Record> = run.records.https(&conns).collect();
    ensure!(conns.len() == 2 && https.len() == 2, "both ends:{}{}", show(&conns), show(&https));
    for record in conns.iter().chain(&https) {
        ensure!(record.text("/family") == "ipv4", "family: {record:?}");
        ensure!(record.text("/local/addr") == "127.0.0.1", "local: {record:?}");
        ensure!(record.text("/remote/addr") == "127.0.0.1", "remote: {record:?}");
        ensure!(record.at("/mapped") == (record.text("/role") == "server"), "mapped: {record:?}");
    }
    for http in &https {
        ensure!(http.text("/request/target") == "/mapped", "{http:?}");
        ensure!(http.count("/response/body_bytes") == Some(2), "{http:?}");
    }
    ensure!(conns[0].text("/peer") == conns[1].text("/id"), "a pair:{}", show(&conns));
    ensure!(conns[1].text("/peer") == conns[0].text("/id"), "a pair:{}", show(&conns));
    Ok(())
}

#[test]
fn slow_chunks_in_a_pipe() -> Result<()> {
    let bench = Bench::start()?;
    let mut command = bench.netns.command("curl");
    command.args(["-sS", "--max-time", "20", "-T", "-", "-o", "/dev/null"]);
    command.arg(format!("http://127.0.0.1:{PORT}/up/slow")).stdin(Stdio::piped());
    let mut curl = Process::spawn(&mut command)?;
    let mut input = curl.child().stdin.take().context("no standard input")?;
    for _ in 0..5 {
        input.write_all(&[b'x'; 1000])?;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(input);
    ensure!(curl.wait(wait::LIMIT)?.success(), "curl failed");
    let all = bench.finish("ipv4")?;
    ensure!(all.len() == 1, "one exchange");
    all[0].check("chunked", |http| framings(http)[0] == "chunked")?;
    all[0].check("content", |http| http.count("/request/body_bytes") == Some(5000))
}
