//! TIME_WAITs that begin, live and end: at every second the tracer counts as many as the kernel. In a busy one the kernel's
//! counts are read before and after ours, and ours must lie between; in a quiet one all must be equal.

use anyhow::{Context as _, Result, ensure};
use std::{
    net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::Duration,
};
use tests::{
    blind_spots::outside_blind_spots,
    counters::Counters,
    lacking::counts_time_waits_that_begin,
    netns::Netns,
    records::{Record, show},
    socket,
    tracer::Tracer,
    traffic::{Kind, Load, abandon},
    traffic_net::{loopback, set, sockstat, time_waits_of_all},
    wait,
};
use tracer_ebpf::state;

/// Connections of each phase.
const COUNT: usize = 50;
/// What becomes of the orphans in FIN_WAIT2: some are reset, for some the FIN comes, for the others it does not.
const RESET: usize = 20;
const FINISHED: usize = 10;
/// From when on the kernel lets a `connect` take over a TIME_WAIT.
const REUSABLE: Duration = Duration::from_millis(1200);
/// How long an orphan waits in FIN_WAIT2: longer than the phases until then.
const FIN_TIMEOUT_S: usize = 20;
/// A minute, and what the kernel's coarse timers add to it.
const LIFETIME: Duration = Duration::from_secs(66);

#[test]
fn agree_at_every_second() -> Result<()> {
    outside_blind_spots(|| {
        let netns = Netns::new()?;
        // No more client ports than connections: later ones must take over what is in TIME_WAIT.
        set(&netns, "ipv4/ip_local_port_range", &format!("20000 {}", 20_000 + COUNT - 1))?;
        set(&netns, "ipv4/tcp_tw_reuse", "1")?;
        set(&netns, "ipv4/tcp_fin_timeout", &FIN_TIMEOUT_S.to_string())?;
        let tracer = Tracer::start(&netns, &["--stats-interval", "1s"])?;
        let mut run = Run { netns: &netns, tracer, compared: 0, all: (None, 0), wrong: Vec::new() };
        let before = Counters::read(&netns)?;

        run.phase("plain closes", || short(&netns, 1))?;
        let server = SocketAddr::from((loopback(2), 8402));
        let listener = netns.enter(|| Ok(TcpListener::bind(server)?))?;
        run.phase("closes by the server", || close_first(&netns, &listener, server))?;
        thread::sleep(REUSABLE);
        run.phase("reuse by connect", || short(&netns, 1))?;
        run.phase("reuse by SYN", || close_first(&netns, &listener, server))?;
        let mut orphans = orphans(&netns)?;
        run.phase("orphans in FIN_WAIT2", || Ok(()))?;
        run.phase("resets for some of them", || orphans.drain(..RESET).try_for_each(|peer| abandon(&peer)))?;
        run.phase("FIN for some of them", || {
            orphans.drain(..FINISHED);
            Ok(())
        })?;
        thread::sleep(Duration::from_secs(FIN_TIMEOUT_S as u64 + 1));
        run.phase("the time of the others is over", || {
            drop(orphans);
            Ok(())
        })?;
        let room = sockstat(&netns, "tw")? + COUNT / 2;
        set(&netns, "ipv4/tcp_max_tw_buckets", &room.to_string())?;
        run.phase("overflow", || short(&netns, 3))?;
        thread::sleep(LIFETIME);
        run.phase("expiry", || Ok(()))?;
        ensure!(sockstat(&netns, "tw")? == 0, "some did not expire");
        run.check_end(&before)
    })
}

struct Run<'a> {
    netns: &'a Netns,
    tracer: Tracer,
    compared: usize,
    /// TIME_WAITs of all namespaces, when last compared.
    all: (Option<u64>, usize),
    /// What did not agree, by phase.
    wrong: Vec<String>,
}

impl Run<'_> {
    /// Does something, then compares when nothing happens any more.
    fn phase(&mut self, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        work().with_context(|| what.to_owned())?;
        let quiet = wait::until("a quiet second", wait::LIMIT, || self.compare(what));
        quiet.with_context(|| format!("{what}; {:?} by `stats` and by the kernel on this machine", self.all))
    }

    /// None when the kernel's counts changed while the `stats` were awaited, or in the second that these are of.
    fn compare(&mut self, what: &str) -> Result<Option<()>> {
        let counts = || Ok::<_, anyhow::Error>((sockstat(self.netns, "tw")?, time_waits_of_all()?));
        let before = counts()?;
        let seen = self.compared;
        let (count, last, stats) = self.tracer.wait_for("new `stats`", |records| {
            let all: Vec<Record> = records.of("stats").collect();
            let [.., last, stats] = &all[..] else { return None };
            (all.len() > seen).then(|| (all.len(), last.clone(), stats.clone()))
        })?;
        self.compared = count;
        if !is_quiet(&last, &stats) || before != counts()? {
            return Ok(None);
        }
        let (own, all) = before;
        let live = stats.count("/tables/time_wait/entries");
        let check = |path: &str| stats.count(&format!("/selfcheck/counters/time_wait_now/now/{path}"));
        let (ours, kernel) = (check("ours"), check("kernel"));
        // On a busy machine it may come long after it was made.
        if kernel != Some(own as u64) {
            return Ok(None);
        }
        if ours != kernel {
            self.wrong
                .push(format!("{what}: {own} TIME_WAITs in the namespace, the self-check says {ours:?}"));
        }
        self.all = (live, all);
        // Namespaces that are going away still have some, but are not found.
        Ok((live == Some(all as u64)).then_some(()))
    }

    /// Begins, ends and their causes over the whole run.
    fn check_end(self, before: &Counters) -> Result<()> {
        let Self { netns, tracer, mut wrong, .. } = self;
        let after = Counters::read(netns)?;
        let run = tracer.stop()?;
        let counted = |name: &str| Ok::<_, anyhow::Error>(after.get(name)? - before.get(name)?);
        let live = sockstat(netns, "tw")?;
        let conns = run.records.conns(netns);
        let ends: Vec<Record> =
            run.records.of("time_wait").filter(|wait| wait.count("/netns") == Some(netns.inode())).collect();
        let ended = |end: &str| ends.iter().filter(|wait| wait.text("/end") == end).count();
        let by = |by: &str| ends.iter().filter(|wait| wait.text("/reused_by") == by).count();

        let seconds: Vec<Record> = run.records.of("stats").collect();
        let counts_begins = counts_time_waits_that_begin();
        let by_timer = if counts_begins { "time_wait_begun" } else { "time_wait_expired" };
        for (second, stats) in seconds.iter().enumerate() {
            for counter in [by_timer, "time_wait_now", "time_wait_recycled"] {
                let law = stats.at(&format!("/selfcheck/counters/{counter}"));
                if law["agrees"] != true {
                    wrong.push(format!("second {second}: {counter} {law}"));
                }
            }
        }

        let began = conns.iter().filter(|conn| conn.is_true("/time_wait")).count();
        // The kernel counts the orphans that never left FIN_WAIT2 as well.
        let begun = counted("TcpExtTW")? + counted("TcpExtTWKilled")?;
        if counts_begins && began + COUNT - FINISHED != begun {
            wrong.push(format!("{begun} began by the kernel's counters, by the records {began}"));
        }
        let overflowed = counted("TcpExtTCPTimeWaitOverflow")?;
        ensure!(overflowed > 0, "none found no room");
        let figures = [
            ("overflow", ended("overflow"), overflowed),
            ("taken over by connect", by("connect"), counted("TcpExtTWRecycled")?),
            ("taken over by SYN", by("syn"), COUNT),
            ("still there", began - (ends.len() - ended("overflow")), live),
        ];
        for (what, ours, theirs) in figures {
            if ours != theirs {
                wrong.push(format!("{what}: {theirs}, by the records {ours}"));
            }
        }
        let unowned: Vec<Record> = ends.iter().filter(|wait| !is_whole(wait)).cloned().collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        ensure!(unowned.is_empty(), "without owner, connection or beginning:{}", show(&unowned));
        Ok(())
    }
}

/// Whether the kernel counted nothing that begins between these two, and has as many in TIME_WAIT.
fn is_quiet(last: &Record, stats: &Record) -> bool {
    let counter = |stats: &Record, path: &str| stats.count(&format!("/selfcheck/counters/{path}/kernel"));
    let begins = ["active_opens/interval", "time_wait_begun/interval"];
    let level = "time_wait_now/now";
    begins.iter().all(|begin| counter(stats, begin).unwrap_or(0) == 0)
        && counter(last, level) == counter(stats, level)
}

fn is_whole(wait: &Record) -> bool {
    let began = !wait.is_null("/began") || wait.text("/end") == "overflow";
    began && !wait.is_null("/conn") && wait.count("/process/pid") == Some(std::process::id().into())
}

/// One after the other, to a server's address of their own; the clients close first.
fn short(netns: &Netns, last: u8) -> Result<()> {
    let addresses = vec![loopback(last).into()];
    let port = 8400 + u16::from(last);
    let kinds = vec![Kind::Short];
    Load { client: netns, server: netns, addresses, port, kinds, count: COUNT, threads: 1 }.run()?;
    Ok(())
}

/// The server closes first; the clients always have the same ports.
fn close_first(netns: &Netns, listener: &TcpListener, server: SocketAddr) -> Result<()> {
    for port in (30_000..).take(COUNT) {
        let client = socket::unconnected(netns)?;
        socket::bind(&client, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        socket::connect(&client, server)?;
        drop(listener.accept()?);
        drop(client);
    }
    Ok(())
}

/// Clients that have closed, whose servers have not. All are mini-sockets: of what is acknowledged just when `close` lets go of
/// the socket, the whole one stays (`tcp_rcv_state_process`, FIN_WAIT1), which no counter has.
fn orphans(netns: &Netns) -> Result<Vec<TcpStream>> {
    let server = SocketAddr::from((loopback(5), 8405));
    netns.enter(|| {
        let listener = TcpListener::bind(server)?;
        let one = |_| {
            let client = TcpStream::connect(server)?;
            let (server, _) = listener.accept()?;
            client.shutdown(Shutdown::Write)?;
            wait::until("FIN_WAIT2", wait::LIMIT, || {
                Ok((socket::state(&client)? == state::FIN_WAIT2).then_some(()))
            })?;
            drop(client);
            Ok(server)
        };
        (0..COUNT).map(one).collect()
    })
}
