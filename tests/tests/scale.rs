//! Very many connections at once, and more than the tracer was told to follow.

use anyhow::{Context as _, Result, ensure};
use std::{env, fs, process::Command, time::Instant};
use tests::{
    blind_spots::outside_blind_spots,
    bpf,
    netns::{Netns, figure},
    process,
    traffic_held::{Held, hold},
    traffic_role,
    traffic_tally::Counted,
    wait,
};

/// Connections, each with both ends on this host, unless the environment says otherwise.
const CONNECTIONS: usize = 200_000;
const CONNECTIONS_VARIABLE: &str = "TRACER_CONNECTIONS";
/// Memory of the daemon for each end, in bytes.
const MOST_FOR_ONE: usize = 2048;
/// What it needs besides.
const MOST_FOR_NONE: usize = 64 << 20;

#[test]
#[ignore = "a role that the others start as a process of its own"]
fn role() -> Result<()> {
    traffic_role::play(|_, arguments| hold(arguments))
}

#[test]
fn all_are_followed_in_bounded_memory() -> Result<()> {
    outside_blind_spots(|| {
        let count = env::var(CONNECTIONS_VARIABLE).map_or(Ok(CONNECTIONS), |text| text.parse())?;
        let ends = 2 * count;
        let most = (ends + 1000).to_string();
        let netns = Netns::new()?;
        let mut held = Held::new(&netns, count)?;
        let tracer = Counted::start(&netns, &["--max-connections", &most, "--stats-interval", "1s"])?;
        let empty = Memory::of(tracer.pid())?;
        let begin = Instant::now();
        held.open(count)?;
        let opened = begin.elapsed();
        tracer.wait_for("an entry for each end", |tally| {
            (tally.stat("/tables/kernel_connections/entries")? as usize >= ends).then_some(())
        })?;
        let full = Memory::of(tracer.pid())?;
        println!(
            "{count} connections in {:.1} s; resident {} -> {} KiB ({} B an end); maps {} -> {} KiB ({} B an end); \
         slab {} -> {} KiB",
            opened.as_secs_f64(),
            empty.resident >> 10,
            full.resident >> 10,
            (full.resident - empty.resident) / ends,
            empty.maps >> 10,
            full.maps >> 10,
            full.maps.saturating_sub(empty.maps) / ends,
            empty.slab >> 10,
            full.slab >> 10,
        );
        ensure!(
            full.resident < MOST_FOR_NONE + ends * MOST_FOR_ONE,
            "the daemon takes {} bytes",
            full.resident
        );

        // Half of them end while it runs, half are open at its end.
        let closed = count / 2;
        held.close(closed)?;
        tracer.wait_for("the ends of the closed ones", |tally| (tally.conns >= 2 * closed).then_some(()))?;
        let begin = Instant::now();
        let tally = tracer.stop()?;
        println!("stopped in {:.1} s: {}", begin.elapsed().as_secs_f64(), tally.stats["lost"]);
        ensure!(tally.conns == ends, "{} records of {ends} ends", tally.conns);
        ensure!(tally.complete == ends, "{} of {ends} are complete; {:?}", tally.complete, tally.odd);
        ensure!(tally.open == 2 * (count - closed), "{} were open", tally.open);
        let lost = tally.stats["lost"].as_object().context("no losses in the final stats")?;
        ensure!(lost.values().all(|count| count == 0), "lost: {lost:?}");
        Ok(())
    })
}

#[test]
fn past_the_bound_it_says_so_and_goes_on() -> Result<()> {
    const MOST: usize = 1_000;
    const OPENED: usize = 2_000;
    let netns = Netns::new()?;
    let mut held = Held::new(&netns, OPENED)?;
    let tracer = Counted::start(&netns, &["--max-connections", &MOST.to_string(), "--stats-interval", "1s"])?;
    held.open(OPENED)?;
    tracer.wait_for("the loss in `stats`", |tally| {
        tally.stat("/lost/connections_full").filter(|count| *count > 0)
    })?;
    held.close(OPENED)?;
    let before = tracer.wait_for("the ends of those that it followed", |tally| {
        let entries = tally.stat("/tables/kernel_connections/entries")? as usize;
        (entries < MOST / 10 && tally.conns > MOST / 2).then_some(tally.conns)
    })?;
    ensure!(before <= MOST, "{before} connections with room for {MOST}");

    // There is room again.
    const LATER: usize = 100;
    held.open(LATER)?;
    held.close(LATER)?;
    tracer.wait_for("later connections", |tally| (tally.conns >= before + 2 * LATER).then_some(()))?;
    let tally = tracer.stop()?;
    let missed = tally.stat("/lost/connections_full").context("no loss in the final stats")? as usize;
    let all = 2 * (OPENED + LATER);
    // Listeners need room too; nothing else happens in the namespace.
    ensure!(tally.conns + missed >= all, "{} seen and {missed} missed are not {all}", tally.conns);
    ensure!(tally.complete == tally.conns, "{} of {} are complete", tally.complete, tally.conns);
    Ok(())
}

/// What the daemon takes, in bytes.
struct Memory {
    /// Of the process.
    resident: usize,
    /// Of its maps.
    maps: usize,
    /// Of the kernel as a whole, for everything.
    slab: usize,
}

impl Memory {
    fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let kib = |text, label| Ok::<_, anyhow::Error>(usize::try_from(figure(text, label)?)? << 10);
        let held = bpf::Held::by(pid)?;
        let text = process::run(Command::new("bpftool").args(["--json", "map", "show"]), wait::LIMIT)?;
        let maps: serde_json::Value = serde_json::from_str(&text)?;
        let of = |map: &serde_json::Value| {
            map["id"].as_u64().filter(|id| held.maps.contains(id)).and_then(|_| map["bytes_memlock"].as_u64())
        };
        let maps = maps.as_array().into_iter().flatten().filter_map(of).sum::<u64>() as usize;
        Ok(Self { resident: kib(&status, "VmRSS:")?, maps, slab: kib(&meminfo, "Slab:")? })
    }
}
