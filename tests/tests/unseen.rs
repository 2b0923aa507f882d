//! What no program saw, which the kernel allows now and then: it is found out by what comes after, counted, and told as
//! such. Here the programs are made to look away.

use std::{
    net::{Shutdown, TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tests::{
    bpf::Held,
    client,
    netns::Netns,
    process,
    records::{Record, Records},
    socket,
    stage::{speak, states},
    tracer::Tracer,
    wait,
};
use tracer_ebpf::{Conn, Tuple, conn_flag, role, running, state};

/// What is younger than a second is not looked at.
const SETTLED: Duration = Duration::from_millis(1100);

const PORT: u16 = 8000;

/// One connection in a namespace of its own, and a tracer that can look away.
struct Scene {
    netns: Netns,
    tracer: Tracer,
    listener: TcpListener,
    maps: Maps,
}

impl Scene {
    fn new() -> Result<Self> {
        let netns = Netns::new()?;
        // What others do meanwhile is not to be counted.
        let tracer = Tracer::start(&netns, &["--port", &PORT.to_string()])?;
        let listener = client::listen(&netns, ([127, 0, 0, 1], PORT).into())?;
        let maps = Maps(Held::by(tracer.pid())?);
        Ok(Self { netns, tracer, listener, maps })
    }

    fn connect(&self) -> Result<[TcpStream; 2]> {
        let (mut client, mut server) =
            client::pair(&self.netns, &self.listener, self.listener.local_addr()?)?;
        speak(&mut client, &mut server)?;
        Ok([client, server])
    }

    /// Does something that no program sees.
    fn unseen<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let look = |whether: u32| {
            self.maps.update("RUNNING", &running::PROGRAMS.to_ne_bytes(), &whether.to_ne_bytes())
        };
        look(0)?;
        let result = act();
        look(1)?;
        result
    }

    fn finish(self) -> Result<(Netns, Records)> {
        Ok((self.netns, self.tracer.stop()?.records))
    }
}

/// So many events were found to be missing.
fn check_missed(records: &Records, missed: u64) -> Result<()> {
    let stats = records.final_stats().context("no final `stats` record")?;
    let counted = stats.count("/lost/programs_missed");
    ensure!(counted == Some(missed), "lost.programs_missed {counted:?}, not {missed}");
    Ok(())
}

/// Whether nothing looks for entries whose socket is gone.
fn lack_reconciliation(records: &Records) -> bool {
    records.lack("iter/tcp reconcile", "an end that was missed is not found before the tracer's own")
}

/// The record of one end, which must say that events are missing.
fn incomplete<'a>(conns: &'a [Record], role: &str, lost: u64) -> Result<&'a Record> {
    let conn = conns.iter().find(|conn| conn.text("/role") == role);
    let conn = conn.with_context(|| format!("no record of the {role}: {conns:?}"))?;
    ensure!(!conn.is_true("/complete") && conn.count("/lost") == Some(lost), "complete, lost: {conn:?}");
    Ok(conn)
}

/// The change from a state tells that it was reached, and when is not known.
#[test]
fn a_state_in_between() -> Result<()> {
    let scene = Scene::new()?;
    let [mut client, mut server] = scene.connect()?;
    scene.unseen(|| {
        client.shutdown(Shutdown::Write)?;
        socket::read_to_end(&mut server)?;
        // Longer than an acknowledgement is delayed.
        thread::sleep(Duration::from_millis(100));
        Ok(())
    })?;
    drop(server);
    socket::read_to_end(&mut client)?;
    let (netns, records) = scene.finish()?;
    check_missed(&records, 2)?;
    let conns = records.conns(&netns);
    for (role, expected, by) in [
        ("client", &["SYN_SENT", "ESTABLISHED", "FIN_WAIT2", "TIME_WAIT"][..], "local"),
        ("server", &["SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSE"], "remote"),
    ] {
        let conn = incomplete(&conns, role, 1)?;
        ensure!(states(conn) == expected, "{conn:?}");
        ensure!(conn.is_null("/states/2/at_us") && conn.number("/states/3/at_us").is_some(), "{conn:?}");
        ensure!(conn.text("/close/by") == by && conn.is_null("/close/at_us"), "{conn:?}");
    }
    Ok(())
}

/// A connection whose beginning was not seen is taken up with its first change, at the server as at the client.
#[test]
fn the_beginning() -> Result<()> {
    let scene = Scene::new()?;
    let [client, mut server] = scene.unseen(|| scene.connect())?;
    drop(client);
    socket::read_to_end(&mut server)?;
    drop(server);
    let (netns, records) = scene.finish()?;
    check_missed(&records, 2)?;
    let conns = records.conns(&netns);
    for (role, expected) in
        [("client", ["ESTABLISHED", "FIN_WAIT1"]), ("server", ["ESTABLISHED", "CLOSE_WAIT"])]
    {
        let conn = incomplete(&conns, role, 1)?;
        ensure!(states(conn)[..2] == expected && !conn.is_true("/preexisting"), "{conn:?}");
        ensure!(conn.is_null("/opened") && conn.is_null("/states/0/at_us"), "{conn:?}");
        ensure!(conn.count("/bytes_sent").is_some_and(|bytes| bytes > 0), "{conn:?}");
    }
    Ok(())
}

/// A socket that is destroyed was closed before: nobody knows how.
#[test]
fn the_end() -> Result<()> {
    let scene = Scene::new()?;
    let [client, server] = scene.connect()?;
    scene.unseen(|| {
        socket::reset(client)?;
        socket::read_error(&mut server.try_clone()?)?;
        Ok(())
    })?;
    drop(server);
    // The client's socket is long gone; what is left of it is found by looking.
    thread::sleep(SETTLED);
    let (netns, records) = scene.finish()?;
    let conns = records.conns(&netns);
    let found = if lack_reconciliation(&records) { &["server"][..] } else { &["client", "server"] };
    check_missed(&records, found.len() as u64)?;
    for role in found {
        let conn = incomplete(&conns, role, 1)?;
        ensure!(conn.text("/close/how") == "unknown" && !conn.is_true("/open"), "{conn:?}");
    }
    Ok(())
}

/// A TIME_WAIT that nobody saw begin is counted when it ends, and one that nobody saw end when it is found gone.
#[test]
fn a_time_wait() -> Result<()> {
    let scene = Scene::new()?;
    let close = |[client, mut server]: [TcpStream; 2]| -> Result<()> {
        let mut client = client;
        client.shutdown(Shutdown::Write)?;
        socket::read_to_end(&mut server)?;
        drop(server);
        socket::read_to_end(&mut client)?;
        Ok(())
    };
    let kill = || scene.netns.run("ss", &["-K", "-H", "-t", "state", "time-wait"]);
    scene.unseen(|| close(scene.connect()?))?;
    if kill()?.is_empty() {
        println!("this kernel cannot kill sockets: it lacks CONFIG_INET_DIAG_DESTROY");
        return Ok(());
    }
    close(scene.connect()?)?;
    thread::sleep(SETTLED);
    scene.unseen(|| kill().map(drop))?;
    let (netns, records) = scene.finish()?;
    let mut waits: Vec<Record> =
        records.of("time_wait").filter(|wait| wait.count("/netns") == Some(netns.inode())).collect();
    if lack_reconciliation(&records) {
        check_missed(&records, 1)?;
    } else {
        check_missed(&records, 2)?;
        let wait = waits.pop().context("no `time_wait` record")?;
        ensure!(!wait.is_null("/began") && wait.text("/end") == "unknown", "{wait:?}");
        let stats = records.final_stats().context("no final `stats` record")?;
        ensure!(stats.count("/selfcheck/counters/time_wait_now/now/ours") == Some(0), "{stats:?}");
    }
    let [wait] = &waits[..] else { bail!("{waits:?}") };
    ensure!(wait.is_null("/began") && wait.text("/end") == "killed", "{wait:?}");
    Ok(())
}

/// An entry whose socket is gone is found and reported.
#[test]
fn an_entry_without_its_socket() -> Result<()> {
    let scene = Scene::new()?;
    let conn = Conn {
        id: 0xdead,
        cookie: 0xbeef,
        tuple: Tuple {
            local_port: 1,
            remote_port: PORT,
            netns: scene.netns.inode() as u32,
            ..Tuple::default()
        },
        flags: conn_flag::IDENTIFIED,
        state: state::ESTABLISHED,
        role: role::CLIENT,
        family: libc::AF_INET as u8,
        ..Conn::ZERO
    };
    // SAFETY: integers without padding.
    let value = unsafe { std::slice::from_raw_parts((&raw const conn).cast::<u8>(), size_of::<Conn>()) };
    // No socket is at an address that is none.
    scene.maps.update("CONNS", &[0xff; 8], value)?;

    let (netns, records) = scene.finish()?;
    let conns = records.conns(&netns);
    if lack_reconciliation(&records) {
        let [conn] = &conns[..] else { bail!("{conns:?}") };
        ensure!(conn.text("/id") == "dead" && conn.is_true("/open"), "{conn:?}");
        return check_missed(&records, 0);
    }
    check_missed(&records, 1)?;
    let conn = incomplete(&conns, "client", 1)?;
    ensure!(conn.text("/id") == "dead" && conn.text("/close/how") == "unknown", "{conn:?}");
    ensure!(conn.is_null("/close/by") && !conn.is_true("/open"), "{conn:?}");
    Ok(())
}

/// The maps that a tracer holds.
struct Maps(Held);

impl Maps {
    fn update(&self, name: &str, key: &[u8], value: &[u8]) -> Result<()> {
        let id = self.id(name)?;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:#04x}")).collect::<Vec<_>>();
        let mut command = Command::new("bpftool");
        command.args(["map", "update", "id", &id.to_string(), "key"]).args(hex(key));
        command.arg("value").args(hex(value));
        process::run(&mut command, wait::LIMIT).map(drop)
    }

    fn id(&self, name: &str) -> Result<u64> {
        for map in &self.0.maps {
            let mut command = Command::new("bpftool");
            let text =
                process::run(command.args(["-j", "map", "show", "id", &map.to_string()]), wait::LIMIT)?;
            if text.contains(&format!("\"name\":\"{name}\"")) {
                return Ok(*map);
            }
        }
        bail!("the tracer holds no map {name}")
    }
}
