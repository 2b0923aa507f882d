//! Started in the midst of traffic: what was there before is seen, and every end leaves nothing behind.

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::HashSet,
    env, fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};
use tests::{
    blind_spots::outside_blind_spots,
    bpf,
    netns::Netns,
    records::{Record, show},
    tracer::Tracer,
    traffic::{Kind, Load},
    traffic_held::{HOLDER, Held, hold},
    traffic_net, traffic_role,
};

const OPEN: usize = 10_000;
/// On how many of them something is said while the tracer runs, and how many are closed.
const TALKED: usize = 500;
const CLOSED: usize = 5_000;
/// How often the tracer is started and stopped, unless the environment says otherwise.
const RESTARTS: usize = 50;
const RESTARTS_VARIABLE: &str = "TRACER_RESTARTS";

#[test]
#[ignore = "a role that the others start as a process of its own"]
fn role() -> Result<()> {
    traffic_role::play(|_, arguments| hold(arguments))
}

#[test]
fn all_older_connections_and_their_owners() -> Result<()> {
    let netns = Netns::new()?;
    let mut held = Held::new(&netns, OPEN)?;
    held.open(OPEN)?;
    let tracer = Tracer::start(&netns, &[])?;
    traffic_net::widen_output(tracer.pid())?;
    held.talk(TALKED)?;
    held.close(CLOSED)?;
    let run = tracer.stop()?;

    let conns = run.records.conns(&netns);
    let ids: HashSet<&str> = conns.iter().map(|conn| conn.text("/id")).collect();
    ensure!(conns.len() == 2 * OPEN && ids.len() == conns.len(), "{} of {} ends", conns.len(), 2 * OPEN);
    let exe = env::current_exe()?;
    let exe = exe.to_str().context("the program's path is not UTF-8")?;
    let right = |conn: &Record| {
        let ports = ["/local/port", "/remote/port"].map(|path| conn.count(path).unwrap_or_default());
        let owner = ports.into_iter().find_map(|port| held.owner(u16::try_from(port).ok()?));
        conn.is_true("/preexisting")
            && conn.is_null("/opened")
            && conn.is_null("/duration_us")
            && ids.contains(conn.text("/peer"))
            && owner.is_some()
            && conn.count("/process/pid") == owner.map(u64::from)
            && conn.text("/process/comm") == HOLDER
            && conn.text("/process/exe") == exe
    };
    let wrong: Vec<Record> = conns.iter().filter(|conn| !right(conn)).cloned().collect();
    ensure!(wrong.is_empty(), "{} are not as they should be:{}", wrong.len(), show(&wrong));
    let open = conns.iter().filter(|conn| conn.is_true("/open")).count();
    ensure!(open == 2 * (OPEN - CLOSED), "{open} ends are still open");
    let talked = conns.iter().filter(|conn| conn.count("/bytes_sent") == Some(1)).count();
    ensure!(talked == 2 * TALKED, "{talked} ends sent a byte");
    Ok(())
}

#[test]
fn nothing_stays_behind() -> Result<()> {
    outside_blind_spots(|| {
        let restarts = env::var(RESTARTS_VARIABLE).map_or(Ok(RESTARTS), |text| text.parse())?;
        let netns = Netns::new()?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let load = scope.spawn(|| keep_busy(&netns, &over));
            let all = (0..restarts).map(|_| once(&netns)).collect::<Result<Vec<_>>>();
            over.store(true, Relaxed);
            load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all?.iter().try_for_each(bpf::Held::wait_until_gone)
        })
    })
}

fn keep_busy(netns: &Netns, over: &AtomicBool) -> Result<()> {
    // A program that is started meanwhile has the old listener for a moment: each has a port of its own.
    for port in (8310..8400).cycle() {
        if over.load(Relaxed) {
            break;
        }
        let addresses = (1..=4).map(|last| traffic_net::loopback(last).into()).collect();
        let kinds = Kind::ALL.to_vec();
        Load { client: netns, server: netns, addresses, port, kinds, count: 800, threads: 2 }.run()?;
    }
    Ok(())
}

/// One life of a tracer: what it saw is in order, and no hook or process of it is left. What it held in the kernel.
fn once(netns: &Netns) -> Result<bpf::Held> {
    let tracer = Tracer::start(netns, &[])?;
    traffic_net::widen_output(tracer.pid())?;
    let pid = tracer.pid();
    let held = bpf::Held::by(pid)?;
    ensure!(!held.programs.is_empty() && !held.maps.is_empty(), "the daemon holds {held:?}");
    thread::sleep(Duration::from_millis(100));
    let run = tracer.stop()?;

    let attached = bpf::attached(netns, "lo")?;
    ensure!(attached.is_empty(), "still attached: {attached:?}");
    ensure!(fs::metadata(format!("/proc/{pid}")).is_err(), "process {pid} is still there");

    let stats = run.records.final_stats().context("no final stats")?;
    let lost = stats.counts("/lost").iter().any(|(_, count)| *count > 0);
    let conns = run.records.conns(netns);
    ensure!(!conns.is_empty(), "it saw no connection");
    let ids: HashSet<&str> = conns.iter().map(|conn| conn.text("/id")).collect();
    ensure!(ids.len() == conns.len(), "{} records of {} connections", conns.len(), ids.len());
    // Its own life began before or after the tracer's: the first state tells, and the flag must agree.
    let begins = |conn: &Record| ["SYN_SENT", "SYN_RECV"].contains(&conn.text("/states/0/state"));
    let whole = |conn: &Record| begins(conn) || conn.is_true("/preexisting");
    let odd = |conn: &&Record| !(whole(conn) && (conn.is_true("/complete") || lost));
    let odd: Vec<Record> = conns.iter().filter(odd).cloned().collect();
    ensure!(odd.is_empty(), "{} not complete, or without a beginning:{}", odd.len(), show(&odd));
    Ok(held)
}
