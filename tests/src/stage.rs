//! Scenarios: what two sockets do, and what the tracer must tell of both.

use crate::{
    blind_spots::{Wrong, outside_blind_spots},
    lives::Lives,
    netns::Netns,
    records::{Record, Records, show},
    socket,
    tracer::Tracer,
    wait,
    wire::Wire,
};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

/// How often each scenario is played, unless the environment says otherwise.
const REPEAT: usize = 20;
const REPEAT_VARIABLE: &str = "TRACER_REPEAT";

/// Each play has a server's port of its own, by which its records are found.
const FIRST_PORT: u16 = 10_000;

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Traffic elsewhere on the machine must not make a record incomplete.
const RING: &str = "32M";

/// What each end sends in [`Place::talk`].
pub const PING: &[u8] = b"ping";
pub const ANSWER: &[u8] = b"answer";

/// How often each scenario is played.
pub fn repeat() -> usize {
    env::var(REPEAT_VARIABLE).ok().and_then(|value| value.parse().ok()).unwrap_or(REPEAT)
}

/// Where the two ends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// In two namespaces.
    Wire,
    /// Both in one.
    Loopback,
}

pub const WIRE: &[Site] = &[Site::Wire];
pub const LOOPBACK: &[Site] = &[Site::Loopback];
pub const BOTH: &[Site] = &[Site::Wire, Site::Loopback];

/// What one end's record must say. Reasons are those of Linux 6.12 and later.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Whether its port is the server's.
    pub at_server: bool,
    pub role: &'static str,
    /// Names of states, each behind a blank but the first.
    pub states: &'static str,
    pub by: Option<&'static str>,
    pub how: &'static str,
    pub reason: Option<&'static str>,
    /// What it sent and what it received.
    pub bytes: [u64; 2],
    /// What else must be true.
    pub more: fn(&Record) -> Result<()>,
}

impl End {
    /// A client after [`Place::talk`].
    pub const fn client(states: &'static str, by: Option<&'static str>, how: &'static str) -> Self {
        let bytes = [PING.len() as u64, ANSWER.len() as u64];
        let role = "client";
        Self { at_server: false, role, states, by, how, reason: None, bytes, more: |_| Ok(()) }
    }

    /// A server after [`Place::talk`].
    pub const fn server(states: &'static str, by: Option<&'static str>, how: &'static str) -> Self {
        let bytes = [ANSWER.len() as u64, PING.len() as u64];
        Self { at_server: true, role: "server", bytes, ..Self::client(states, by, how) }
    }

    /// Takes its record out of those of a play, and checks it.
    fn check(&self, play: &Play, conns: &mut Vec<Record>) -> Result<Record> {
        let at_server = |conn: &Record| conn.count("/local/port") == Some(play.port.into());
        let mut candidates = (0..conns.len()).filter(|&index| at_server(&conns[index]) == self.at_server);
        let any = candidates.clone().next().with_context(|| format!("no record of the {}", self.role))?;
        let right = candidates.find(|&index| self.differences(&conns[index]).is_empty());
        let conn = conns.remove(right.unwrap_or(any));
        let wrong = self.differences(&conn);
        ensure!(wrong.is_empty(), "{}: {conn:?}", wrong.join("; "));
        (self.more)(&conn).with_context(|| format!("{conn:?}"))?;
        Ok(conn)
    }

    fn differences(&self, conn: &Record) -> Vec<String> {
        let states = states(conn).join(" ");
        let time_wait = self.states.ends_with("TIME_WAIT");
        let mut wrong = Vec::new();
        let mut compare = |name: &str, found: String, expected: String| {
            if found != expected {
                wrong.push(format!("{name} {found}, not {expected}"));
            }
        };
        compare("role", conn.text("/role").to_owned(), self.role.to_owned());
        compare("states", states, self.states.to_owned());
        compare("close.by", conn.at("/close/by").to_string(), json(self.by));
        compare("close.how", conn.at("/close/how").to_string(), json(Some(self.how)));
        if kernel_gives_reasons() {
            compare("close.reason", conn.at("/close/reason").to_string(), json(self.reason));
        }
        compare("time_wait", conn.at("/time_wait").to_string(), time_wait.to_string());
        let bytes = [conn.count("/bytes_sent"), conn.count("/bytes_received")];
        compare("bytes", format!("{bytes:?}"), format!("{:?}", self.bytes.map(Some)));
        for (path, expected) in
            [("/complete", "true"), ("/preexisting", "false"), ("/open", "false"), ("/lost", "0")]
        {
            compare(&path[1..], conn.at(path).to_string(), expected.to_owned());
        }
        if let Err(error) = check_times(conn) {
            wrong.push(error.to_string());
        }
        wrong
    }
}

/// The client closes, and then the server.
pub const CLIENT_FIRST: [End; 2] = [
    End::client("SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT", Some("local"), "fin"),
    End::server("SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", Some("remote"), "fin"),
];
/// The server closes, and then the client.
pub const SERVER_FIRST: [End; 2] = [
    End::client("SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", Some("remote"), "fin"),
    End::server("SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT", Some("local"), "fin"),
];

/// The names of the states in a `conn` record.
pub fn states(conn: &Record) -> Vec<&str> {
    let states = conn.at("/states").as_array().into_iter().flatten();
    states.map(|state| state["state"].as_str().unwrap_or_default()).collect()
}

/// When a `conn` record reached a state, in microseconds.
pub fn reached(conn: &Record, name: &str) -> Result<f64> {
    let states = conn.at("/states").as_array().into_iter().flatten();
    let mut times = states.filter(|state| state["state"] == name).map(|state| &state["at_us"]);
    times.next().and_then(|at| at.as_f64()).with_context(|| format!("no time of {name} in {conn:?}"))
}

/// They never go back, and begin with the record's.
fn check_times(conn: &Record) -> Result<()> {
    let states = conn.at("/states").as_array().into_iter().flatten();
    let times: Vec<Option<f64>> = states.map(|state| state["at_us"].as_f64()).collect();
    ensure!(times.first() == Some(&Some(0.0)), "the first state begins at {:?}", times.first());
    ensure!(times.is_sorted() && !times.contains(&None), "times of states {times:?}");
    let close = conn.number("/close/at_us");
    ensure!(close.is_some() && close <= times[times.len() - 1], "close.at_us {close:?}");
    for path in ["/opened", "/closed"] {
        ensure!(conn.at(path).is_string(), "{path} {}", conn.at(path));
    }
    let established = conn.at("/states").to_string().contains("ESTABLISHED");
    ensure!(established != conn.is_null("/established"), "established {}", conn.at("/established"));
    Ok(())
}

fn json(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), |text| format!("\"{text}\""))
}

/// From 6.12 on the kernel gives a reason for every reset that it sends.
fn kernel_gives_reasons() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

/// One playing of a scenario.
struct Play {
    site: Site,
    port: u16,
    /// How many records it leaves.
    records: usize,
    /// Empty where the test itself looks at them.
    ends: Vec<End>,
}

/// Two namespaces, a wire between them, and a tracer that sees both; several, where several kinds of hooks are tested.
pub struct Stage {
    tracers: Vec<Tracer>,
    pub wire: Wire,
    pub near: Netns,
    pub far: Netns,
    plays: Vec<Play>,
}

/// Scenarios on a stage of their own, whose records must all be right.
pub fn played(scenarios: impl Fn(&mut Stage) -> Result<()>) -> Result<()> {
    outside_blind_spots(|| {
        let mut stage = Stage::new()?;
        scenarios(&mut stage)?;
        stage.finish().map(drop)
    })
}

/// Where a scenario is played.
pub struct Place<'a> {
    pub wire: &'a Wire,
    pub clients: &'a Netns,
    pub servers: &'a Netns,
    pub address: SocketAddr,
}

impl Place<'_> {
    pub fn listen(&self) -> Result<TcpListener> {
        self.servers.enter(|| {
            TcpListener::bind(self.address).with_context(|| format!("cannot listen on {}", self.address))
        })
    }

    /// Connects from a port that the kernel chooses.
    pub fn connect(&self) -> Result<TcpStream> {
        let client = socket::unconnected(self.clients)?;
        socket::connect(&client, self.address)?;
        Ok(client)
    }

    /// An established connection: the client's end and the server's.
    pub fn pair(&self) -> Result<(TcpStream, TcpStream)> {
        let listener = self.listen()?;
        let client = self.connect()?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(wait::LIMIT))?;
        }
        Ok((client, server))
    }

    /// An established connection on which each side has sent something.
    pub fn talk(&self) -> Result<(TcpStream, TcpStream)> {
        let (mut client, mut server) = self.pair()?;
        speak(&mut client, &mut server)?;
        Ok((client, server))
    }
}

/// Each end sends something and the other reads it.
pub fn speak(client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    crate::client::pass(client, server, PING)?;
    crate::client::pass(server, client, ANSWER)
}

/// What the tracer told of both namespaces.
pub struct Told {
    pub conns: Vec<Record>,
    pub time_waits: Vec<Record>,
}

fn time_waits(records: &Records, netns: [&Netns; 2]) -> Vec<Record> {
    let ours = |wait: &Record| netns.iter().any(|netns| wait.count("/netns") == Some(netns.inode()));
    records.of("time_wait").filter(ours).collect()
}

impl Stage {
    pub fn new() -> Result<Self> {
        Self::after(|_, _| Ok(()))
    }

    /// A stage on which something has happened before the tracer's start.
    pub fn after(before: impl FnOnce(&Netns, &Netns) -> Result<()>) -> Result<Self> {
        let (near, far) = (Netns::new()?, Netns::new()?);
        let wire = Wire::join(&near, &format!("{NEAR}/24"), &far, &format!("{FAR}/24"))?;
        before(&near, &far)?;
        let tracers = Tracer::start_each(&near, &["--ring-size", RING])?;
        Ok(Self { tracers, wire, near, far, plays: Vec::new() })
    }

    /// Sets a value below `/proc/sys/net/ipv4` in both namespaces.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        for netns in [&self.near, &self.far] {
            sysctl(netns, name, value)?;
        }
        Ok(())
    }

    /// Plays a scenario again and again; what it must look like is checked in the end.
    pub fn play(
        &mut self,
        sites: &[Site],
        ends: &[End],
        scenario: impl Fn(&Place<'_>) -> Result<()>,
    ) -> Result<()> {
        self.play_in_turn(sites, ends, ends.len(), scenario)
    }

    /// As [`Self::play`], where the test itself looks at the records.
    pub fn play_freely(
        &mut self,
        sites: &[Site],
        records: usize,
        scenario: impl Fn(&Place<'_>) -> Result<()>,
    ) -> Result<()> {
        self.play_in_turn(sites, &[], records, scenario)
    }

    fn play_in_turn(
        &mut self,
        sites: &[Site],
        ends: &[End],
        records: usize,
        scenario: impl Fn(&Place<'_>) -> Result<()>,
    ) -> Result<()> {
        for (site, port) in self.cast(sites, ends, records)? {
            scenario(&self.place(site, port)).with_context(|| format!("{site:?}, port {port}"))?;
        }
        Ok(())
    }

    /// As [`Self::play`], all at the same time: for scenarios that take long.
    pub fn play_at_once(
        &mut self,
        sites: &[Site],
        ends: &[End],
        scenario: impl Fn(&Place<'_>) -> Result<()> + Sync,
    ) -> Result<()> {
        let plays = self.cast(sites, ends, ends.len())?;
        let (stage, scenario) = (&*self, &scenario);
        thread::scope(|scope| {
            let played: Vec<_> = plays
                .into_iter()
                .map(|(site, port)| scope.spawn(move || scenario(&stage.place(site, port))))
                .collect();
            let mut results = played.into_iter().map(|play| play.join());
            results.try_for_each(|result| result.map_err(|_| anyhow!("a scenario panicked"))?)
        })
    }

    fn cast(&mut self, sites: &[Site], ends: &[End], records: usize) -> Result<Vec<(Site, u16)>> {
        let mut plays = Vec::new();
        for _ in 0..repeat() {
            for &site in sites {
                let port = FIRST_PORT + u16::try_from(self.plays.len())?;
                self.plays.push(Play { site, port, records, ends: ends.to_vec() });
                plays.push((site, port));
            }
        }
        Ok(plays)
    }

    fn place(&self, site: Site, port: u16) -> Place<'_> {
        let (servers, host) = match site {
            Site::Wire => (&self.far, FAR),
            Site::Loopback => (&self.near, Ipv4Addr::LOCALHOST),
        };
        Place { wire: &self.wire, clients: &self.near, servers, address: (host, port).into() }
    }

    /// Waits for the `time_wait` records of both namespaces.
    pub fn wait_for_time_waits(&mut self, count: usize) -> Result<()> {
        let netns = [&self.near, &self.far];
        self.tracers.iter_mut().try_for_each(|tracer| {
            tracer.wait_for(&format!("{count} `time_wait` records"), |records| {
                (time_waits(records, netns).len() >= count).then_some(())
            })
        })
    }

    /// Whether `ss -K` works: the kernel needs `CONFIG_INET_DIAG_DESTROY`. The test says so where it does not.
    pub fn can_kill_sockets(&self) -> Result<bool> {
        let place = self.place(Site::Loopback, FIRST_PORT - 1);
        let _listener = place.listen()?;
        let killed = place.clients.run("ss", &["-K", "-H", "-t", "state", "listening"])?;
        if killed.is_empty() {
            println!("this kernel cannot kill sockets: it lacks CONFIG_INET_DIAG_DESTROY");
        }
        Ok(!killed.is_empty())
    }

    /// Waits for what was played to be told, stops the tracers and checks every record. All must tell the same; the first
    /// one's records are returned.
    pub fn finish(mut self) -> Result<Told> {
        let netns = [self.near.inode(), self.far.inode()];
        let mut first: Option<(Told, Lives)> = None;
        for (number, tracer) in std::mem::take(&mut self.tracers).into_iter().enumerate() {
            let records = self.checked(tracer).with_context(|| format!("tracer {number}"))?;
            let lives = Lives::of(&records, &netns);
            if let Some((_, expected)) = &first {
                expected.compare(&lives).with_context(|| format!("tracers 0 and {number}"))?;
                continue;
            }
            let told = Told {
                conns: self.conns(&records),
                time_waits: time_waits(&records, [&self.near, &self.far]),
            };
            first = Some((told, lives));
        }
        first.map(|(told, _)| told).context("no tracer")
    }

    fn conns(&self, records: &Records) -> Vec<Record> {
        [records.conns(&self.near), records.conns(&self.far)].concat()
    }

    /// All that a tracer told, if that is right of every play.
    fn checked(&self, mut tracer: Tracer) -> Result<Records> {
        let expected: usize = self.plays.iter().map(|play| play.records).sum();
        let waited = tracer.wait_for(&format!("{expected} `conn` records"), |records| {
            (self.conns(records).len() >= expected).then_some(())
        });
        // What came is checked in any case: it says more than what is missing.
        let records = tracer.stop()?.records;
        let conns = self.conns(&records);
        let mut wrong: Vec<(u16, String)> = Vec::new();
        for play in &self.plays {
            if let Err(error) = play.check(&conns) {
                wrong.push((play.port, format!("{:?}, port {}: {error:#}", play.site, play.port)));
            }
        }
        if let [(_, first), ..] = &wrong[..] {
            let what = format!(
                "{} of {} plays are told wrongly, the first and the last:\n{first}\n{}",
                wrong.len(),
                self.plays.len(),
                wrong[wrong.len() - 1].1
            );
            bail!(Wrong { what, ports: wrong.into_iter().map(|(port, _)| port).collect() });
        }
        waited?;
        ensure!(conns.len() == expected, "{} `conn` records, not {expected}", conns.len());
        Ok(records)
    }
}

impl Play {
    /// Each end has one record, and nobody else has.
    fn check(&self, conns: &[Record]) -> Result<()> {
        let port = |conn: &Record, end: &str| conn.count(end) == Some(self.port.into());
        let mut conns: Vec<Record> = conns
            .iter()
            .filter(|conn| port(conn, "/local/port") || port(conn, "/remote/port"))
            .cloned()
            .collect();
        ensure!(
            conns.len() >= self.records,
            "{} records, not {}:{}",
            conns.len(),
            self.records,
            show(&conns)
        );
        let (mut told, mut wrong) = (Vec::new(), Vec::new());
        for end in &self.ends {
            match end.check(self, &mut conns) {
                Ok(conn) => told.push(conn),
                Err(error) => wrong.push(format!("{error:#}")),
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n  "));
        ensure!(self.ends.is_empty() || conns.is_empty(), "records too many:{}", show(&conns));
        if let [one, other] = &told[..] {
            let named = [one.text("/peer"), other.text("/peer")];
            ensure!(named == [other.text("/id"), one.text("/id")], "peers: {one:?}\n  {other:?}");
        }
        Ok(())
    }
}

/// Sets a value below `/proc/sys/net/ipv4` in a namespace.
pub fn sysctl(netns: &Netns, name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    netns.enter(|| fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}")))
}

/// Whether this kernel has a setting.
pub fn has_sysctl(name: &str) -> bool {
    fs::exists(format!("/proc/sys/net/ipv4/{name}")).is_ok_and(|exists| exists)
}
