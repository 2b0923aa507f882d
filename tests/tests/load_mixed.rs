//! Tens of thousands of connections that end in every way, some on a lossy path: all that the records say adds
//! up to what the kernel counted.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};
use tests::{
    blind_spots::{Wrong, outside_blind_spots},
    counters::Counters,
    netns::Netns,
    records::{Record, Records, show},
    tracer::Tracer,
    traffic::{End, Kind, Load},
    traffic_laws, traffic_net,
};

/// On loopback, and on the lossy path.
const LOCAL: usize = 18_400;
const REMOTE: usize = 1_600;
const LOSS_PERCENT: u32 = 2;
const PORT: u16 = 8100;
const HERE: &str = "10.31.0.1";
const THERE: &str = "10.31.0.2";

#[test]
fn laws_hold_exactly() -> Result<()> {
    outside_blind_spots(|| {
        let stage = Stage::new()?;
        let tracer = Tracer::start(&stage.here, &["--events"])?;
        traffic_net::widen_output(tracer.pid())?;
        let before = stage.counters()?;
        let ends = stage.run()?;
        let run = tracer.stop()?;

        let stats = run.records.final_stats().context("no final stats")?;
        let [near, far] = stage.conns(&run.records);
        let all = [near.clone(), far.clone()].concat();
        all_hold([
            nothing_lost(&stats, &all),
            stage.check_laws(&before, [&near, &far]),
            stage.check_resets(&before, &run.records),
            traffic_laws::check_ends(&ends, &all, &stage.here),
            check_time_waits(&stage, &run.records, [&near, &far]),
        ])
    })
}

#[test]
fn laws_hold_with_a_tiny_ring() -> Result<()> {
    outside_blind_spots(|| {
        let stage = Stage::new()?;
        let tracer = Tracer::start(&stage.here, &["--events", "--ring-size", "64K"])?;
        traffic_net::widen_output(tracer.pid())?;
        let before = stage.counters()?;
        let over = AtomicBool::new(false);
        let ends = thread::scope(|scope| {
            let interrupter = scope.spawn(|| interrupt(&tracer, &over));
            let ends = stage.run();
            over.store(true, Relaxed);
            interrupter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            ends
        })?;
        let run = tracer.stop()?;

        let stats = run.records.final_stats().context("no final stats")?;
        let lost: u64 = stats.counts("/lost").iter().map(|(_, count)| count).sum();
        ensure!(lost > 0, "no loss was counted: {stats:?}");
        let [near, far] = stage.conns(&run.records);
        let all = [near.clone(), far.clone()].concat();
        all_hold([
            loss_is_reported(&all),
            stage.check_laws(&before, [&near, &far]),
            traffic_laws::check_ends(&ends, &all, &stage.here),
        ])
    })
}

/// All of them, so that a failure shows each law that is broken.
fn all_hold<const N: usize>(checks: [Result<()>; N]) -> Result<()> {
    let broken: Vec<_> = checks.into_iter().filter_map(Result::err).collect();
    let what = broken.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("\n");
    let ports = broken.iter().filter_map(|error| error.downcast_ref::<Wrong>());
    let ports: BTreeSet<u16> = ports.flat_map(|wrong| &wrong.ports).copied().collect();
    ensure!(ports.is_empty(), Wrong { what, ports });
    ensure!(broken.is_empty(), what);
    Ok(())
}

fn nothing_lost(stats: &Record, conns: &[Record]) -> Result<()> {
    let mut lost = stats.counts("/lost");
    ensure!(!lost.is_empty(), "no losses in {stats:?}");
    lost.retain(|(_, count)| *count > 0);
    let odd = |conn: &&Record| !conn.is_true("/complete") || conn.is_true("/open");
    let odd: Vec<Record> = conns.iter().filter(odd).cloned().collect();
    if lost.is_empty() && odd.is_empty() {
        return Ok(());
    }
    let shown = show(&odd[..odd.len().min(3)]);
    bail!(Wrong::of(&odd, format!("lost: {lost:?}; {} not complete or still open:{shown}", odd.len())))
}

/// A connection that lost something says so, and one that says so lost something.
fn loss_is_reported(conns: &[Record]) -> Result<()> {
    let touched = |conn: &Record| conn.count("/lost") != Some(0);
    ensure!(conns.iter().any(touched), "no connection was touched");
    let odd = |conn: &&Record| conn.is_true("/complete") == touched(conn);
    let odd: Vec<Record> = conns.iter().filter(odd).cloned().collect();
    ensure!(odd.is_empty(), "`complete` and `lost` of {} do not agree:{}", odd.len(), show(&odd));
    Ok(())
}

/// Gives the daemon no processor time now and then, so that the ring fills up for certain.
fn interrupt(tracer: &Tracer, over: &AtomicBool) -> Result<()> {
    while !over.load(Relaxed) {
        tracer.signal(libc::SIGSTOP)?;
        thread::sleep(Duration::from_millis(100));
        tracer.signal(libc::SIGCONT)?;
        thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// Two fresh namespaces with a lossy path between them.
struct Stage {
    here: Netns,
    there: Netns,
    loopbacks: Vec<IpAddr>,
}

impl Stage {
    fn new() -> Result<Self> {
        let (here, there) = (Netns::new()?, Netns::new()?);
        here.join(&format!("{HERE}/24"), &there, &format!("{THERE}/24"))?;
        for netns in [&here, &there] {
            traffic_net::lose(netns, "veth0", LOSS_PERCENT)?;
        }
        let mut loopbacks: Vec<IpAddr> = (1..=7).map(|last| traffic_net::loopback(last).into()).collect();
        loopbacks.push(traffic_net::loopback_v6(&here)?);
        Ok(Self { here, there, loopbacks })
    }

    fn counters(&self) -> Result<[Counters; 2]> {
        Ok([Counters::read(&self.here)?, Counters::read(&self.there)?])
    }

    /// Both loads at once, to the end of the last socket.
    fn run(&self) -> Result<Vec<End>> {
        let local = Load {
            client: &self.here,
            server: &self.here,
            addresses: self.loopbacks.clone(),
            port: PORT,
            kinds: Kind::ALL.to_vec(),
            count: LOCAL,
            threads: 4,
        };
        let remote = Load {
            client: &self.here,
            server: &self.there,
            addresses: vec![THERE.parse()?],
            port: PORT,
            kinds: Kind::PEACEFUL.to_vec(),
            count: REMOTE,
            threads: 64,
        };
        let ends = thread::scope(|scope| -> Result<_> {
            let remote = scope.spawn(|| remote.run());
            let local = local.run();
            let remote = remote.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok([local.context("on loopback")?, remote.context("on the lossy path")?].concat())
        })?;
        for netns in [&self.here, &self.there] {
            traffic_net::wait_until_done(netns)?;
        }
        Ok(ends)
    }

    fn conns(&self, records: &Records) -> [Vec<Record>; 2] {
        [records.conns(&self.here), records.conns(&self.there)]
    }

    fn check_laws(&self, before: &[Counters; 2], conns: [&[Record]; 2]) -> Result<()> {
        all_hold([
            traffic_laws::check(&self.here, &before[0], conns[0]).context("the clients' namespace"),
            traffic_laws::check(&self.there, &before[1], conns[1]).context("the other namespace"),
        ])
    }

    /// Each reset that the kernel counted as sent has its record.
    fn check_resets(&self, before: &[Counters; 2], records: &Records) -> Result<()> {
        let sent = |reset: &Record| reset.text("/direction") == "sent";
        let check = |netns: &Netns, before: &Counters| {
            let ours = |reset: &Record| reset.count("/netns") == Some(netns.inode());
            let seen = records.of("reset").filter(|reset| sent(reset) && ours(reset)).count();
            let counted = Counters::read(netns)?.get("TcpOutRsts")? - before.get("TcpOutRsts")?;
            ensure!(seen == counted, "the kernel sent {counted} resets, records say {seen}");
            Ok(())
        };
        all_hold([
            check(&self.here, &before[0]).context("the clients' namespace"),
            check(&self.there, &before[1]).context("the other namespace"),
        ])
    }
}

/// What began and did not end is there.
fn check_time_waits(stage: &Stage, records: &Records, conns: [&[Record]; 2]) -> Result<()> {
    for (netns, conns) in [&stage.here, &stage.there].into_iter().zip(conns) {
        let ids: HashSet<&str> = conns.iter().map(|conn| conn.text("/id")).collect();
        let ended = records.of("time_wait").filter(|wait| ids.contains(wait.text("/conn"))).count();
        traffic_laws::check_time_waits(netns, conns, ended)?;
    }
    Ok(())
}
