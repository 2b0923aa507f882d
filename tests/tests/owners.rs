//! Whose a connection is, for servers and clients of every make: each process tells what it owned.

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
};
use tests::{
    blind_spots::outside_blind_spots,
    netns::Netns,
    records::{Record, show},
    tracer::Tracer,
    traffic_laws::{Wrong, address},
    traffic_net, traffic_owners,
    traffic_role::{self, Owned, Role},
    wait,
};

const SERVERS: [&str; 5] =
    ["plain-server", "prefork-server", "threads-server", "exec-server", "passing-server"];
const CLIENTS: [&str; 3] = ["plain-client", "threads-client", "dying-client"];
/// Connections of each client with each server.
const COUNT: usize = 60;
const FIRST_PORT: u16 = 8200;
const PREFORK_PORT: u16 = FIRST_PORT + 1;

#[test]
#[ignore = "a role that the others start as a process of its own"]
fn role() -> Result<()> {
    traffic_role::play(traffic_owners::play)
}

#[test]
fn every_connection_has_its_owner() -> Result<()> {
    outside_blind_spots(|| {
        let netns = Netns::new()?;
        let tracer = Tracer::start(&netns, &[])?;
        let mut owned = Vec::new();
        let mut listeners = HashMap::new();
        for (server, port) in SERVERS.into_iter().zip(FIRST_PORT..) {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (pid, mut ends) = meet(&netns, server, address).with_context(|| server.to_owned())?;
            listeners.insert(u64::from(port), pid);
            owned.append(&mut ends);
        }
        traffic_net::wait_until_done(&netns)?;
        let run = tracer.stop()?;
        let mut conns = run.records.conns(&netns);
        let less = "a server's connection has the process that accepted it, and the record says so";
        if run.records.lack("sock:sock_recv_length", less) {
            let less = "a server's connection has its listener's process, and the record says so";
            let source = if run.records.lack("inet_csk_accept", less) { "listener" } else { "accept" };
            // Its workers keep what they accept.
            let exact = |port: u64| source == "accept" && port == u64::from(PREFORK_PORT);
            let is_servers = |conn: &Record| {
                conn.text("/role") == "server" && !conn.count("/local/port").is_some_and(exact)
            };
            let servers = conns.extract_if(.., |conn| is_servers(conn));
            let odd: Vec<Record> = servers.filter(|conn| !is_listeners(conn, &listeners, source)).collect();
            ensure!(odd.is_empty(), "not the listener's:{}", show(&odd));
            owned.retain(|end| end.role != "server" || exact(end.local.port().into()));
        }
        check(&owned, &conns)
    })
}

/// Whether a server's connection is told to be the process's that listens on its port, and how that is known.
fn is_listeners(conn: &Record, listeners: &HashMap<u64, u32>, source: &str) -> bool {
    let pid = conn.count("/local/port").and_then(|port| listeners.get(&port)).copied();
    conn.text("/process/source") == source && conn.count("/process/pid") == pid.map(u64::from)
}

/// All clients at once with one server: its process, and every end with its owner.
fn meet(netns: &Netns, server: &str, address: SocketAddr) -> Result<(u32, Vec<Owned>)> {
    let total = COUNT * CLIENTS.len();
    let server = Role::start(netns, &format!("{server} {address} {total}"))?;
    server.expect("listening")?;
    let start = |client: &&str| Role::start(netns, &format!("{client} {address} {COUNT}"));
    let mut clients = CLIENTS.iter().map(start).collect::<Result<Vec<_>>>()?;
    let hear = |role: &Role, count: usize| -> Result<Vec<Owned>> {
        (0..count).map(|_| Owned::parse(&role.hear()?)).collect()
    };
    let mut owned = hear(&server, total)?;
    for client in &mut clients {
        owned.append(&mut hear(client, COUNT)?);
        let status = client.process.wait(wait::LIMIT)?;
        ensure!(status.success(), "a client ended with {status}");
    }
    Ok((server.pid(), owned))
}

fn check(owned: &[Owned], conns: &[Record]) -> Result<()> {
    let mut expected = HashMap::<_, Vec<&Owned>>::new();
    for end in owned {
        let key = (end.role.clone(), end.local.to_string(), end.remote.to_string());
        expected.entry(key).or_default().push(end);
    }
    let mut wrong = Wrong::default();
    for conn in conns {
        let key = (conn.text("/role").to_owned(), address(conn, "local"), address(conn, "remote"));
        // Two connections may have had the same ends, one after the other.
        let candidates = expected.entry(key).or_default();
        let is_owner = |end: &&Owned| conn.count("/process/pid") == Some(end.pid.into());
        let index = candidates.iter().position(is_owner).unwrap_or(0);
        if candidates.is_empty() {
            wrong.add("nobody did this", conn);
            continue;
        }
        let end = candidates.remove(index);
        if !is_owner(&end) {
            wrong.add(&format!("an owner named {}, not another process", end.comm), conn);
        } else if conn.text("/process/comm") != end.comm {
            wrong.add(&format!("an owner named {}, its process's name", end.comm), conn);
        } else if conn.text("/process/exe") != end.exe {
            wrong.add(&format!("the executable {}", end.exe), conn);
        }
    }
    let missing: Vec<&Owned> = expected.into_values().flatten().collect();
    ensure!(missing.is_empty() && wrong.is_empty(), "{}", wrong.report(&missing));
    Ok(())
}
