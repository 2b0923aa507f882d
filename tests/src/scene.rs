//! A namespace in which programs talk while the tracer watches, and what it wrote about them: connections with both
//! their ends, exchanges that are the same at both ends.

use crate::{
    blind_spots::outside_blind_spots,
    netns::Netns,
    records::{Record, show, with_role},
    said::Said,
    tracer::Tracer,
    traffic_net::loopback,
    wait,
};
use anyhow::{Context as _, Result, ensure};
use std::net::{Ipv4Addr, SocketAddr};

/// Far below what any body of these tests has.
const COPIED_BELOW: u64 = 1 << 20;

/// The tracer sees what goes to the scene's address, and so nothing of what else goes on on the machine.
#[derive(Debug)]
pub struct Scene {
    pub netns: Netns,
    pub host: Ipv4Addr,
    pub tracer: Tracer,
}

/// Plays a story on a scene of its own.
pub fn play<T>(mut story: impl FnMut(Scene) -> Result<T>) -> Result<T> {
    outside_blind_spots(|| story(Scene::start()?))
}

impl Scene {
    fn start() -> Result<Self> {
        let netns = Netns::new()?;
        let host = loopback(1);
        let tracer = Tracer::start(&netns, &["--host", &host.to_string()])?;
        Ok(Self { netns, host, tracer })
    }

    pub fn address(&self, port: u16) -> SocketAddr {
        (self.host, port).into()
    }

    pub fn url(&self, port: u16, target: &str) -> String {
        format!("http://{}{target}", self.address(port))
    }

    /// Waits until this many connections are over, which must be all.
    pub fn finish(mut self, connections: usize) -> Result<Story> {
        let netns = &self.netns;
        self.tracer.wait_for(&format!("both ends of {connections} connections"), |records| {
            (records.conns(netns).len() >= 2 * connections).then_some(())
        })?;
        let run = self.tracer.stop()?;
        let conns = run.records.conns(&self.netns);
        let mut clients = with_role(&conns, "client");
        ensure!(
            clients.len() == connections && conns.len() == 2 * connections,
            "{connections} connections:{}",
            show(&conns)
        );
        clients.sort_by(|a, b| a.text("/opened").cmp(b.text("/opened")));
        let https: Vec<Record> = run.records.https(&conns).collect();
        let pairs = clients.into_iter().map(|client| Pair::of(client, &conns, &https));
        let stats = run.records.final_stats().context("no final stats")?;
        let pairs = pairs.collect::<Result<_>>().with_context(|| format!("lost: {}", stats.at("/lost")))?;
        Ok(Story { pairs, stats })
    }
}

/// What the tracer wrote.
#[derive(Debug)]
pub struct Story {
    /// In the order in which they were opened.
    pub pairs: Vec<Pair>,
    pub stats: Record,
}

impl Story {
    /// Connections to a port.
    pub fn to(&self, port: u16) -> Vec<&Pair> {
        let to = |pair: &&Pair| pair.client.count("/remote/port") == Some(port.into());
        self.pairs.iter().filter(to).collect()
    }

    /// What went through was hardly copied.
    pub fn check_copied(&self, through: u64) -> Result<()> {
        let count = |path| self.stats.count(path).with_context(|| format!("no {path}"));
        let (seen, copied) = (count("/segments/bytes_seen")?, count("/segments/bytes_copied")?);
        println!("copied {copied} bytes of {seen}");
        ensure!(seen >= through && copied < COPIED_BELOW, "{through} bytes: {:?}", self.stats);
        Ok(())
    }
}

/// The one at hand, where one is expected.
pub fn only<T>(all: &[T]) -> Result<&T> {
    let [one] = all else { anyhow::bail!("{} instead of one", all.len()) };
    Ok(one)
}

/// Both ends of a connection, each complete, and its exchanges in order.
#[derive(Debug)]
pub struct Pair {
    pub client: Record,
    pub server: Record,
    pub exchanges: Vec<Exchange>,
}

/// An exchange as each end's record has it. Of what was on the wire, both say the same.
#[derive(Debug)]
pub struct Exchange {
    pub client: Record,
    pub server: Record,
}

/// What both ends of an exchange must agree on.
const ON_THE_WIRE: [&str; 12] = [
    "/seq",
    "/request",
    "/response",
    "/informational",
    "/started",
    "/timeline",
    "/duration_us",
    "/reused",
    "/pipelined",
    "/keep_alive",
    "/outcome",
    "/malformed",
];

impl Pair {
    fn of(client: Record, conns: &[Record], https: &[Record]) -> Result<Self> {
        let server = conns.iter().find(|conn| conn.text("/id") == client.text("/peer"));
        let server = server.with_context(|| format!("no peer of {client:?}"))?.clone();
        ensure!(server.text("/peer") == client.text("/id"), "not a pair: {client:?} {server:?}");
        let [mut theirs, mut ours] = [&client, &server].map(|conn| {
            let own = |http: &&Record| http.at("/conn") == conn.at("/id");
            https.iter().filter(own).cloned().collect::<Vec<_>>()
        });
        ensure!(theirs.len() == ours.len(), "at the ends:{}\nand{}", show(&theirs), show(&ours));
        for exchanges in [&mut theirs, &mut ours] {
            exchanges.sort_by_key(|http| http.count("/seq"));
        }
        let exchanges = theirs.into_iter().zip(ours).map(|(client, server)| Exchange { client, server });
        let pair = Self { client, server, exchanges: exchanges.collect() };
        pair.check_law()?;
        Ok(pair)
    }

    /// What holds for each connection of which all was seen.
    fn check_law(&self) -> Result<()> {
        for (index, Exchange { client, server }) in self.exchanges.iter().enumerate() {
            for path in ON_THE_WIRE {
                ensure!(client.at(path) == server.at(path), "{path}: {client:?} {server:?}");
            }
            for http in [client, server] {
                ensure!(http.count("/seq") == Some(index as u64 + 1), "place: {http:?}");
                ensure!(http.at("/reused") == (index > 0), "reused: {http:?}");
                ensure!(http.is_true("/exact"), "exact: {http:?}");
                let idle = http.number("/idle_before_us");
                ensure!(idle.is_some_and(|us| us >= 0.0) || http.is_true("/pipelined"), "idle: {http:?}");
            }
        }
        let requests = self.exchanges.len() as u64;
        let answered = |exchange: &&Exchange| !exchange.client.is_null("/response");
        let responses = self.exchanges.iter().filter(answered).count() as u64;
        for conn in [&self.client, &self.server] {
            ensure!(conn.is_true("/complete") && !conn.is_true("/open"), "complete: {conn:?}");
            ensure!(conn.is_null("/http") == (requests == 0), "requests, {requests}: {conn:?}");
            if requests > 0 {
                ensure!(conn.count("/http/requests") == Some(requests), "requests, {requests}: {conn:?}");
                ensure!(conn.count("/http/responses") == Some(responses), "responses, {responses}: {conn:?}");
                ensure!(conn.at("/http/reuse") == (requests > 1), "reuse: {conn:?}");
                ensure!(conn.is_null("/http/idle_max_us") == (requests == 1), "idle: {conn:?}");
            }
            if self.client.text("/close/how") == "fin" {
                ensure!(conn.text("/close/how") == "fin", "closed in order: {conn:?}");
            }
        }
        let by = self.ends().map(|conn| conn.text("/close/by"));
        let agreed = matches!(by, ["local", "remote"] | ["remote", "local"] | ["both", "both"]);
        ensure!(agreed, "who closed, {by:?}: {self:?}");
        if self.client.text("/close/how") == "fin" {
            let bytes = |conn: &Record, way: &str| conn.count(&format!("/bytes_{way}"));
            for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
                ensure!(
                    bytes(from, "sent") == bytes(to, "received") && bytes(from, "sent").is_some(),
                    "bytes: {from:?} {to:?}"
                );
            }
        }
        Ok(())
    }

    pub fn ends(&self) -> [&Record; 2] {
        [&self.client, &self.server]
    }

    fn client_port(&self) -> Option<u64> {
        self.client.count("/local/port")
    }

    /// The side with this role closed it first, in order, and has the TIME_WAIT.
    pub fn check_closed_by(&self, role: &str) -> Result<()> {
        for conn in self.ends() {
            let first = conn.text("/role") == role;
            let by = if first { "local" } else { "remote" };
            ensure!(
                conn.text("/close/by") == by && conn.text("/close/how") == "fin",
                "closed by the {role}: {conn:?}"
            );
            ensure!(conn.at("/time_wait") == first, "TIME_WAIT of the {role}: {conn:?}");
        }
        Ok(())
    }

    pub fn check_protocol(&self, name: &str) -> Result<()> {
        for conn in self.ends() {
            ensure!(conn.text("/protocol") == name, "{name}: {conn:?}");
        }
        Ok(())
    }
}

impl Exchange {
    pub fn ends(&self) -> [&Record; 2] {
        [&self.client, &self.server]
    }

    pub fn text(&self, path: &str) -> &str {
        self.client.text(path)
    }

    pub fn count(&self, path: &str) -> Option<u64> {
        self.client.count(path)
    }

    pub fn check(&self, what: &str, holds: impl Fn(&Record) -> bool) -> Result<()> {
        self.ends().into_iter().try_for_each(|http| {
            ensure!(holds(http), "{what}: {http:?}");
            Ok(())
        })
    }

    /// Framing of request and response.
    pub fn framings(&self) -> [&str; 2] {
        [self.text("/request/framing"), self.text("/response/framing")]
    }
}

/// Each exchange of these connections is one that a program told of, in the same order on the same connection, and
/// the program told of no other.
pub fn check_said(pairs: &[&Pair], said: &[Said]) -> Result<()> {
    let mut count = 0;
    for pair in pairs {
        let port = pair.client_port();
        let theirs: Vec<&Said> = said.iter().filter(|said| port == Some(said.port.into())).collect();
        ensure!(theirs.len() == pair.exchanges.len(), "the program said {theirs:?}, the tracer {pair:?}");
        count += theirs.len();
        for (exchange, said) in pair.exchanges.iter().zip(theirs) {
            said.check(&exchange.client)?;
        }
    }
    ensure!(count == said.len(), "said of connections that were not seen: {said:?}, {pairs:?}");
    Ok(())
}

/// All these exchanges ended well.
pub fn check_complete(pairs: &[&Pair]) -> Result<()> {
    for exchange in pairs.iter().flat_map(|pair| &pair.exchanges) {
        exchange
            .check("complete", |http| http.text("/outcome") == "complete" && http.is_null("/malformed"))?;
    }
    Ok(())
}

/// Waits until this many sockets of the namespace are in a state, such as `CLOSE-WAIT`.
pub fn wait_for_sockets(netns: &Netns, state: &str, count: usize) -> Result<()> {
    wait::until(&format!("{count} sockets in {state}"), wait::LIMIT, || {
        let states = crate::counters::socket_states(netns)?;
        Ok((states.get(state).copied().unwrap_or_default() == count).then_some(()))
    })
}
