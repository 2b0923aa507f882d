//! TIME_WAIT: when it begins and ends, why it ends, and whose it was.

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    ops::Range,
    path::Path,
    process, thread,
    time::Duration,
};
use tests::{
    blind_spots::outside_blind_spots,
    client,
    lacking::note,
    netns::Netns,
    records::{Record, Records, show, with_role},
    socket,
    stage::{BOTH, CLIENT_FIRST, End, LOOPBACK, Place, Site, Stage, Told, WIRE, played, repeat, speak},
    tracer::Tracer,
    wire::Side,
};

/// `TCP_TIMEWAIT_LEN`, and how coarse the kernel's timers are for so long a time.
const LENGTH: Range<f64> = 59.9e6..66e6;
/// What ends before its time does so at once.
const SHORT: Range<f64> = 0.0..5e6;
/// The peer's FIN comes that long after ours.
const LATE: Duration = Duration::from_millis(1500);

/// The client closes first, and its socket goes to TIME_WAIT.
fn close_first(place: &Place<'_>) -> Result<()> {
    let (client, server) = place.talk()?;
    close_in_turn(client, server)
}

fn close_in_turn(first: TcpStream, mut last: TcpStream) -> Result<()> {
    first.shutdown(Shutdown::Write)?;
    socket::read_to_end(&mut last)?;
    drop(last);
    let mut first = first;
    socket::read_to_end(&mut first)?;
    Ok(())
}

/// What must be told of a connection's TIME_WAIT.
struct Wait {
    end: &'static str,
    reused_by: Option<&'static str>,
    /// Nothing where it never began.
    lasts: Option<Range<f64>>,
}

impl Wait {
    const fn new(end: &'static str) -> Self {
        Self { end, reused_by: None, lasts: Some(SHORT) }
    }

    /// One record, and it says so.
    fn check(&self, waits: &[Record], conn: &Record) -> Result<()> {
        let waits: Vec<Record> =
            waits.iter().filter(|wait| wait.text("/conn") == conn.text("/id")).cloned().collect();
        let [wait] = &waits[..] else {
            anyhow::bail!("{} `time_wait` records, not one, of {conn:?}:{}", waits.len(), show(&waits));
        };
        self.differences(wait, conn).with_context(|| format!("{wait:?}\n  {conn:?}"))
    }

    fn differences(&self, wait: &Record, conn: &Record) -> Result<()> {
        ensure!(wait.text("/end") == self.end, "end, not {}", self.end);
        let reused_by = wait.at("/reused_by").as_str();
        ensure!(reused_by == self.reused_by, "reused_by, not {:?}", self.reused_by);
        let sources = ["observed", "inferred"];
        ensure!(sources.contains(&wait.text("/end_source")), "end_source");
        ensure!(self.end != "expired" || wait.text("/end_source") == "observed", "end_source");
        ensure!(wait.at("/preexisting") == false, "preexisting");
        for path in ["/local", "/remote"] {
            ensure!(wait.at(path) == conn.at(path), "{path}");
        }
        ensure!(wait.count("/process/pid") == Some(process::id().into()), "the owner");
        ensure!(wait.at("/closer") == conn.at("/close/by"), "closer");
        ensure!(wait.at("/requests") == conn.at("/http/requests"), "requests");
        let lasted = wait.number("/duration_us");
        let Some(lasts) = &self.lasts else {
            ensure!(wait.is_null("/began") && lasted.is_none(), "it never began");
            return Ok(());
        };
        ensure!(wait.at("/began") == conn.at("/closed"), "began, not when the connection was done");
        ensure!(lasted.is_some_and(|lasted| lasts.contains(&lasted)), "duration_us, not in {lasts:?}");
        Ok(())
    }
}

/// Checks the TIME_WAIT of every client.
fn check_clients(told: &Told, expected: &Wait) -> Result<()> {
    let clients: Vec<&Record> = told.conns.iter().filter(|conn| conn.text("/role") == "client").collect();
    clients.iter().try_for_each(|conn| expected.check(&told.time_waits, conn))?;
    let all = told.time_waits.len();
    ensure!(all == clients.len(), "{all} `time_wait` records, not {}", clients.len());
    Ok(())
}

/// The kernel keeps a TIME_WAIT for a minute: of a usual close, of an orphan that got the FIN later, with a request,
/// and of a connection that is older than the tracer.
#[test]
fn expired() -> Result<()> {
    outside_blind_spots(|| {
        const OLD_PORT: u16 = 9000;
        let mut stage = Stage::after(|near, _| old_time_wait(near, OLD_PORT))?;
        stage.play(BOTH, &CLIENT_FIRST, close_first)?;
        stage.play_at_once(WIRE, &CLIENT_FIRST, |place| {
            let (client, mut server) = place.talk()?;
            drop(client);
            socket::read_to_end(&mut server)?;
            thread::sleep(LATE);
            Ok(())
        })?;
        stage.play_freely(LOOPBACK, 2, |place| {
            let (mut client, mut server) = place.pair()?;
            client::pass(&mut client, &mut server, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
            client::pass(&mut server, &mut client, b"HTTP/1.1 204 No Content\r\n\r\n")?;
            close_in_turn(client, server)
        })?;
        thread::sleep(Duration::from_secs(60));
        stage.wait_for_time_waits(4 * repeat() + 1)?;
        let told = stage.finish()?;

        let (old, ours): (Vec<Record>, Vec<Record>) = told
            .time_waits
            .iter()
            .cloned()
            .partition(|wait| wait.count("/remote/port") == Some(OLD_PORT.into()));
        ensure!(ours.len() == 4 * repeat(), "`time_wait` records:{}", show(&ours));
        for conn in told.conns.iter().filter(|conn| conn.text("/role") == "client") {
            Wait { lasts: Some(LENGTH), ..Wait::new("expired") }.check(&told.time_waits, conn)?;
        }
        let requests: u64 = ours.iter().filter_map(|wait| wait.count("/requests")).sum();
        ensure!(requests == repeat() as u64, "{requests} requests");
        let [old] = &old[..] else { anyhow::bail!("one TIME_WAIT is older than the tracer:{}", show(&old)) };
        check_old(old, "expired")
    })
}

/// A TIME_WAIT, its remote port given.
fn old_time_wait(netns: &Netns, port: u16) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = client::listen(netns, address)?;
    let (client, server) = client::pair(netns, &listener, address)?;
    close_in_turn(client, server)
}

/// What was before the tracer is not known.
fn check_old(wait: &Record, end: &str) -> Result<()> {
    let unknown = ["/began", "/duration_us", "/process", "/closer", "/requests"];
    let known: Vec<&str> = unknown.into_iter().filter(|path| !wait.is_null(path)).collect();
    ensure!(known.is_empty(), "how can it know {known:?}? {wait:?}");
    ensure!(wait.text("/end") == end && wait.is_true("/preexisting"), "end and preexisting: {wait:?}");
    ensure!(wait.at("/ended").is_string(), "ended: {wait:?}");
    ensure!(wait.text("/local/addr") == "127.0.0.1", "addresses: {wait:?}");
    Ok(())
}

#[test]
fn older_than_the_tracer() -> Result<()> {
    outside_blind_spots(|| {
        let mut stage = Stage::after(|near, _| old_time_wait(near, 9000))?;
        let killed = usize::from(kill_time_waits(&stage)?);
        stage.wait_for_time_waits(killed)?;
        let told = stage.finish()?;
        ensure!(told.time_waits.len() == killed, "`time_wait` records:{}", show(&told.time_waits));
        told.time_waits.iter().try_for_each(|wait| check_old(wait, "killed"))
    })
}

/// Whether the kernel could.
fn kill_time_waits(stage: &Stage) -> Result<bool> {
    let can = stage.can_kill_sockets()?;
    // It shows what it has killed. Old kernels leave mini-sockets alone (`tcp_abort`).
    let killed = stage.near.run("ss", &["-K", "-H", "-t", "state", "time-wait"])?;
    if can && killed.is_empty() {
        note("this kernel kills no TIME_WAIT for `ss -K`");
    }
    Ok(can && !killed.is_empty())
}

#[test]
fn killed_by_the_administrator() -> Result<()> {
    outside_blind_spots(|| {
        let mut stage = Stage::new()?;
        stage.play(BOTH, &CLIENT_FIRST, close_first)?;
        check_killed(stage, 2 * repeat())
    })
}

/// Kills the TIME_WAITs of all clients. Where the kernel cannot, they last, and none may be told.
fn check_killed(mut stage: Stage, count: usize) -> Result<()> {
    if kill_time_waits(&stage)? {
        stage.wait_for_time_waits(count)?;
        return check_clients(&stage.finish()?, &Wait::new("killed"));
    }
    let told = stage.finish()?;
    ensure!(told.time_waits.is_empty(), "no TIME_WAIT has ended:{}", show(&told.time_waits));
    Ok(())
}

/// `tcp_tw_reuse`: the only port there is, for the same server again.
#[test]
fn reused_by_connect() -> Result<()> {
    outside_blind_spots(|| {
        let mut stage = Stage::new()?;
        stage.sysctl("ip_local_port_range", "40000 40000")?;
        stage.sysctl("tcp_tw_reuse", "1")?;
        // Before Linux 6.14 it is a second, and cannot be changed.
        let delay = "tcp_tw_reuse_delay";
        let settable = Path::new("/proc/sys/net/ipv4").join(delay).exists();
        if settable {
            stage.sysctl(delay, "1")?;
        }
        let pause = Duration::from_millis(if settable { 20 } else { 2100 });
        stage.play_freely(BOTH, 4, |place| {
            let listener = place.listen()?;
            converse(&listener, place.connect()?, Closer::Client)?;
            thread::sleep(pause);
            converse(&listener, place.connect()?, Closer::Client)
        })?;
        check_reused(stage, 2 * repeat(), "client", "connect")
    })
}

/// The server closed first; the client comes again from the same port.
#[test]
fn reused_by_a_syn() -> Result<()> {
    reused_by_a_syn_at(LOOPBACK)
}

/// As before, in a namespace that is not the tracer's own.
#[test]
fn reused_by_a_syn_elsewhere() -> Result<()> {
    reused_by_a_syn_at(WIRE)
}

fn reused_by_a_syn_at(sites: &[Site]) -> Result<()> {
    outside_blind_spots(|| {
        const PORT: u16 = 40_000;
        let mut stage = Stage::new()?;
        stage.play_freely(sites, 4, |place| {
            let listener = place.listen()?;
            for _ in 0..2 {
                let client = socket::unconnected(place.clients)?;
                socket::bind(&client, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT))?;
                socket::connect(&client, place.address)?;
                converse(&listener, client, Closer::Server)?;
                // The clock of TCP timestamps must go on.
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })?;
        check_reused(stage, repeat(), "server", "syn")
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Closer {
    Client,
    Server,
}

fn converse(listener: &TcpListener, mut client: TcpStream, closer: Closer) -> Result<()> {
    let (mut server, _) = listener.accept()?;
    speak(&mut client, &mut server)?;
    match closer {
        Closer::Client => close_in_turn(client, server),
        Closer::Server => close_in_turn(server, client),
    }
}

/// Of each two connections the second took the first one's place, and its own TIME_WAIT goes on.
fn check_reused(mut stage: Stage, count: usize, role: &str, reused_by: &'static str) -> Result<()> {
    stage.wait_for_time_waits(count)?;
    let told = stage.finish()?;
    let mut conns: Vec<&Record> = told.conns.iter().filter(|conn| conn.text("/role") == role).collect();
    conns.sort_by_key(|conn| conn.text("/opened").to_owned());
    let expected = Wait { reused_by: Some(reused_by), ..Wait::new("reused") };
    let mut places = BTreeSet::new();
    for conn in conns {
        ensure!(conn.is_true("/time_wait"), "time_wait: {conn:?}");
        if places.insert(format!("{} {}", conn.at("/local"), conn.at("/remote"))) {
            expected.check(&told.time_waits, conn)?;
        }
    }
    ensure!(places.len() == count, "{} places, not {count}", places.len());
    let all = told.time_waits.len();
    ensure!(all == count, "{all} `time_wait` records, not {count}");
    Ok(())
}

/// The other end is not content with the last acknowledgement (RFC 1337 warns of what follows).
#[test]
fn reset() -> Result<()> {
    outside_blind_spots(|| {
        let mut stage = Stage::new()?;
        stage.play(WIRE, &CLIENT_FIRST, |place| {
            close_first(place)?;
            place.wire.reset_after_fin(Side::Far)
        })?;
        stage.wait_for_time_waits(repeat())?;
        check_clients(&stage.finish()?, &Wait::new("reset"))
    })
}

/// With RFC 1337's cure a reset changes nothing.
#[test]
fn reset_in_vain() -> Result<()> {
    outside_blind_spots(|| {
        let mut stage = Stage::new()?;
        stage.sysctl("tcp_rfc1337", "1")?;
        stage.play(WIRE, &CLIENT_FIRST, |place| {
            close_first(place)?;
            place.wire.reset_after_fin(Side::Far)
        })?;
        thread::sleep(Duration::from_millis(50));
        check_killed(stage, repeat())
    })
}

/// No room for a TIME_WAIT: the connection ends without it.
#[test]
fn overflow() -> Result<()> {
    outside_blind_spots(|| {
        const CLIENT: End =
            End::client("SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", Some("local"), "fin");
        let mut stage = Stage::new()?;
        stage.sysctl("tcp_max_tw_buckets", "0")?;
        stage.play(BOTH, &[CLIENT, CLIENT_FIRST[1]], close_first)?;
        stage.wait_for_time_waits(2 * repeat())?;
        check_clients(&stage.finish()?, &Wait { lasts: None, ..Wait::new("overflow") })
    })
}

/// No room for the mini-socket of an orphan either: nobody is there for the server's FIN.
#[test]
fn overflow_of_an_orphan() -> Result<()> {
    const CLIENT: End = End::client("SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", Some("local"), "fin");
    const SERVER: End =
        End::server("SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", Some("remote"), "rst_received");
    played(|stage| {
        stage.sysctl("tcp_max_tw_buckets", "0")?;
        stage.play(BOTH, &[CLIENT, SERVER], |place| {
            let (client, mut server) = place.talk()?;
            drop(client);
            socket::read_to_end(&mut server)?;
            // The FIN may be acknowledged a little later.
            thread::sleep(Duration::from_millis(60));
            Ok(())
        })
    })
}

/// The namespace goes, and the tracer must not be what keeps it.
#[test]
fn namespace_exit() -> Result<()> {
    const PORT: u16 = 9000;
    let elsewhere = Netns::new()?;
    let netns = Netns::new()?;
    let inode = netns.inode();
    let mut tracer = Tracer::start(&elsewhere, &[])?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    {
        let listener = client::listen(&netns, address)?;
        for _ in 0..repeat() {
            let client = socket::unconnected(&netns)?;
            socket::connect(&client, address)?;
            converse(&listener, client, Closer::Client)?;
        }
    }
    drop(netns);
    let theirs = |records: &Records, kind: &str| -> Vec<Record> {
        records.of(kind).filter(|record| record.count("/netns") == Some(inode)).collect()
    };
    tracer.wait_for("the ends of the TIME_WAITs", |records| {
        (theirs(records, "time_wait").len() >= repeat()).then_some(())
    })?;
    let records = tracer.stop()?.records;
    let (conns, waits) = (theirs(&records, "conn"), theirs(&records, "time_wait"));
    ensure!(conns.len() == 2 * repeat() && waits.len() == repeat(), "{}{}", show(&conns), show(&waits));
    let expected = Wait { lasts: Some(0.0..20e6), ..Wait::new("namespace_exit") };
    with_role(&conns, "client").iter().try_for_each(|conn| expected.check(&waits, conn))
}
