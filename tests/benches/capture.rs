//! What the tracer costs a busy server, by where it captures: nginx and wrk in a namespace of their own, without a tracer and
//! with one at each place, in turn, so that all rounds meet the same machine.

use std::{collections::BTreeMap, fs, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    bpf,
    netns::Netns,
    nginx::{Nginx, Options, PORT},
    process::{self, Process},
    tracer, wait,
};

const ROUNDS: usize = 3;
const SECONDS: &str = "4s";
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// `None`: no tracer.
const PLACES: [(&str, Option<&[&str]>); 4] = [
    ("none", None),
    ("tc", Some(&["--capture", "tc"])),
    ("cgroup", Some(&["--capture", "cgroup"])),
    ("cgroup, no HTTP", Some(&["--capture", "cgroup", "--no-http"])),
];

/// What one place came to, over all rounds.
#[derive(Default)]
struct Cost {
    requests: f64,
    seconds: f64,
    /// By program: runs, and the time that they took.
    programs: BTreeMap<String, (u64, u64)>,
    lost: u64,
}

fn main() -> Result<()> {
    for (title, options) in [
        ("keep-alive", Options { keepalive_requests: 1_000_000, ..Options::default() }),
        ("a connection for each request", Options { keepalive_requests: 1, ..Options::default() }),
    ] {
        let costs = measure(options)?;
        let without = costs[0].1.requests / costs[0].1.seconds;
        println!("\n{title}: requests per second, and as a share of those without a tracer");
        for (place, cost) in &costs {
            let rate = cost.requests / cost.seconds;
            println!("  {place:16} {rate:9.0}  {:.2}  lost {}", rate / without, cost.lost);
            let mut programs: Vec<_> = cost.programs.iter().collect();
            programs.sort_by_key(|(_, (_, ns))| std::cmp::Reverse(*ns));
            for (name, (runs, ns)) in programs.iter().take(4) {
                let (each, request) = (ns / runs.max(&1), *ns as f64 / cost.requests);
                println!("      {name:22} {each:5} ns a run, {request:6.0} ns a request");
            }
        }
    }
    Ok(())
}

fn measure(options: Options) -> Result<Vec<(&'static str, Cost)>> {
    let netns = Netns::new()?;
    let nginx = Nginx::start(&netns, options)?;
    let before = fs::read_to_string(STATISTICS)?;
    fs::write(STATISTICS, "1")?;
    let mut costs: Vec<_> = PLACES.iter().map(|(place, _)| (*place, Cost::default())).collect();
    let result = (0..ROUNDS).try_for_each(|_| {
        PLACES.iter().zip(&mut costs).try_for_each(|((_, args), (_, cost))| round(&netns, *args, cost))
    });
    fs::write(STATISTICS, before)?;
    result?;
    nginx.finish()?;
    Ok(costs)
}

fn round(netns: &Netns, args: Option<&[&str]>, cost: &mut Cost) -> Result<()> {
    let daemon = args.map(|args| start(netns, args)).transpose()?;
    let url = format!("http://127.0.0.1:{PORT}/hello");
    let text = process::run(
        netns.command("wrk").args(["--threads", "1", "--connections", "16", "--duration", SECONDS, &url]),
        wait::LOAD_LIMIT,
    )?;
    // "  123456 requests in 4.00s, 20.00MB read"
    let line = text.lines().find(|line| line.contains(" requests in ")).context("wrk tells no requests")?;
    let mut words = line.split_ascii_whitespace();
    cost.requests += words.next().context("no figure")?.parse::<f64>()?;
    let seconds = words.nth(2).context("no time")?.trim_end_matches(',').trim_end_matches('s');
    cost.seconds += seconds.parse::<f64>()?;
    if let Some((mut daemon, output)) = daemon {
        for (name, runs, ns) in bpf::run_times(&bpf::Held::by(daemon.pid())?.programs)? {
            let total = cost.programs.entry(name).or_default();
            (total.0, total.1) = (total.0 + runs, total.1 + ns);
        }
        daemon.signal(libc::SIGINT)?;
        ensure!(daemon.wait(wait::LOAD_LIMIT)?.success(), "the tracer failed");
        let text = fs::read_to_string(&output)?;
        let last: Value = serde_json::from_str(text.lines().last().context("no output")?)?;
        cost.lost +=
            last["lost"].as_object().into_iter().flatten().filter_map(|(_, lost)| lost.as_u64()).sum::<u64>();
        fs::remove_file(&output)?;
    }
    Ok(())
}

fn start(netns: &Netns, args: &[&str]) -> Result<(Process, String)> {
    let output = std::env::temp_dir().join(format!("{}.jsonl", tests::scratch::unique_name()));
    let output = output.to_str().context("the temporary folder is not UTF-8")?.to_owned();
    let port = PORT.to_string();
    let args = [args, &["--port", &port, "-o", &output, "--stats-interval", "0"]].concat();
    let mut command = tracer::command(netns, &args)?;
    let daemon = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    wait::until("the `start` line", wait::LIMIT, || {
        Ok(fs::metadata(&output).is_ok_and(|metadata| metadata.len() > 0).then_some(()))
    })?;
    Ok((daemon, output))
}
