//! Connects that fail, and connects in other ways than the usual one.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::Duration,
};
use tests::{
    client,
    counters::Counters,
    records::Record,
    socket,
    stage::{
        ANSWER, BOTH, CLIENT_FIRST, End, LOOPBACK, PING, Place, SERVER_FIRST, WIRE, has_sysctl, played,
        repeat, speak,
    },
    wire::Mode,
};

const SILENT: [u64; 2] = [0, 0];

/// A connect that must fail with this error.
fn fail(place: &Place<'_>, errno: i32) -> Result<()> {
    let client = socket::unconnected(place.clients)?;
    expect_error(socket::connect(&client, place.address), errno)
}

fn expect_error(result: io::Result<()>, errno: i32) -> Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        other => bail!("error {errno} was expected, not {other:?}"),
    }
}

/// No SYN went out a second time.
fn one_syn(conn: &Record) -> Result<()> {
    ensure!(conn.count("/retransmits/syn") == Some(0), "retransmits.syn");
    Ok(())
}

#[test]
fn refused() -> Result<()> {
    const CLIENT: End =
        End { bytes: SILENT, more: one_syn, ..End::client("SYN_SENT CLOSE", Some("remote"), "refused") };
    played(|stage| stage.play(BOTH, &[CLIENT], |place| fail(place, libc::ECONNREFUSED)))
}

/// An ICMP error while `connect` has the socket is only remembered: then the one for the second SYN counts.
#[test]
fn icmp_errors() -> Result<()> {
    const UNREACHABLE: End = End { bytes: SILENT, ..End::client("SYN_SENT CLOSE", None, "unreachable") };
    const REFUSED: End = End { bytes: SILENT, ..End::client("SYN_SENT CLOSE", Some("remote"), "refused") };
    played(|stage| {
        stage.sysctl("icmp_ratelimit", "0")?;
        for (kind, errno, end) in [
            ("host-unreachable", libc::EHOSTUNREACH, UNREACHABLE),
            ("net-unreachable", libc::ENETUNREACH, UNREACHABLE),
            ("port-unreachable", libc::ECONNREFUSED, REFUSED),
        ] {
            let hook = "{ type filter hook input priority 0; }";
            let rules = format!(
                "add table ip t\ndelete table ip t\nadd table ip t\nadd chain ip t in {hook}\n\
             add rule ip t in meta l4proto tcp reject with icmp type {kind}\n"
            );
            stage.far.run("nft", &[&rules])?;
            stage.play_at_once(WIRE, &[end], |place| fail(place, errno))?;
        }
        Ok(())
    })
}

/// Without a route nothing is sent, and the socket never leaves CLOSE: there is no connection to tell of.
#[test]
fn no_route() -> Result<()> {
    played(|stage| {
        for (net, kind) in [("10.8.0.0/16", "unreachable"), ("10.7.0.0/16", "blackhole")] {
            stage.near.run("ip", &["route", "add", kind, net])?;
        }
        let cases = [
            (Ipv4Addr::new(10, 8, 0, 1), libc::EHOSTUNREACH),
            (Ipv4Addr::new(10, 7, 0, 1), libc::EINVAL),
            (Ipv4Addr::new(172, 16, 0, 1), libc::ENETUNREACH),
        ];
        stage.play_freely(WIRE, 0, |place| {
            for (host, errno) in cases {
                let client = socket::unconnected(place.clients)?;
                let address = (host, place.address.port()).into();
                expect_error(socket::connect(&client, address), errno).with_context(|| host.to_string())?;
            }
            Ok(())
        })
    })
}

/// Two retransmissions, one second and three seconds after the first SYN; the kernel gives up after seven.
#[test]
fn timed_out() -> Result<()> {
    const CLIENT: End =
        End { bytes: SILENT, more: back_off, ..End::client("SYN_SENT CLOSE", None, "timeout") };
    played(|stage| {
        stage.sysctl("tcp_syn_retries", "2")?;
        // Kernels before 6.5 know no others.
        if has_sysctl("tcp_syn_linear_timeouts") {
            stage.sysctl("tcp_syn_linear_timeouts", "0")?;
        }
        stage.wire.set(Mode::Drop);
        stage.play_at_once(WIRE, &[CLIENT], |place| fail(place, libc::ETIMEDOUT))
    })
}

fn back_off(conn: &Record) -> Result<()> {
    ensure!(conn.count("/retransmits/syn") == Some(2), "retransmits.syn");
    let times = conn.at("/retransmits/syn_at_us").as_array().context("no retransmits.syn_at_us")?;
    let seconds: Vec<f64> = times.iter().filter_map(|at| Some(at.as_f64()? / 1e6)).collect();
    let near = |found: f64, expected: f64| (expected..expected + 0.5).contains(&found);
    ensure!(
        seconds.len() == 2 && near(seconds[0], 1.0) && near(seconds[1], 3.0),
        "SYNs again after {seconds:?} s"
    );
    let end = conn.number("/duration_us").unwrap_or_default() / 1e6;
    ensure!(near(end, 7.0), "the end after {end} s");
    Ok(())
}

/// The path opens after the first SYN was lost.
#[test]
fn second_syn_gets_through() -> Result<()> {
    const CLIENT: End = End {
        more: |conn| {
            ensure!(conn.count("/retransmits/syn") == Some(1), "retransmits.syn");
            let handshake = conn.number("/handshake_us").unwrap_or_default();
            ensure!((1e6..1.5e6).contains(&handshake), "handshake_us {handshake}");
            Ok(())
        },
        ..CLIENT_FIRST[0]
    };
    played(|stage| {
        stage.wire.set(Mode::Drop);
        stage.play_at_once(WIRE, &[CLIENT, CLIENT_FIRST[1]], |place| {
            let listener = place.listen()?;
            let mut client = socket::unconnected(place.clients)?;
            socket::begin_to_connect(&client, place.address)?;
            thread::sleep(Duration::from_millis(300));
            place.wire.set(Mode::Pass);
            let (mut server, _) = listener.accept()?;
            socket::wait_until_connected(&client)?;
            client.set_nonblocking(false)?;
            speak(&mut client, &mut server)?;
            drop(client);
            socket::read_to_end(&mut server)?;
            Ok(())
        })
    })
}

/// The client closes its socket while nobody has answered yet.
#[test]
fn given_up() -> Result<()> {
    const CLIENT: End =
        End { bytes: SILENT, more: one_syn, ..End::client("SYN_SENT CLOSE", Some("local"), "aborted") };
    played(|stage| {
        stage.wire.set(Mode::Drop);
        stage.play(WIRE, &[CLIENT], |place| {
            let client = socket::unconnected(place.clients)?;
            socket::begin_to_connect(&client, place.address)
        })
    })
}

/// One port, and it is taken: nothing is sent.
#[test]
fn no_free_port() -> Result<()> {
    const CLIENT: End = End {
        bytes: SILENT,
        more: |conn| {
            ensure!(conn.count("/local/port").is_none_or(|port| port == 0), "a port was found");
            one_syn(conn)
        },
        ..End::client("SYN_SENT CLOSE", Some("local"), "aborted")
    };
    played(|stage| {
        stage.sysctl("ip_local_port_range", "40000 40000")?;
        stage.play(WIRE, &[CLIENT, SERVER_FIRST[0], SERVER_FIRST[1]], |place| {
            let (mut held, server) = place.talk()?;
            fail(place, libc::EADDRNOTAVAIL)?;
            // The server's end goes to TIME_WAIT, and the port is free.
            drop(server);
            socket::read_to_end(&mut held)?;
            Ok(())
        })
    })
}

/// Data in the SYN: the server's socket is there before the handshake is complete.
#[test]
fn fast_open() -> Result<()> {
    played(|stage| {
        stage.sysctl("tcp_fastopen", "3")?;
        let before = Counters::read(&stage.far)?.get("TcpExtTCPFastOpenPassive")?;
        let mut plays = 0;
        // The first one fetches the cookie.
        while plays < repeat() + 1 {
            plays += repeat();
            stage.play(WIRE, &CLIENT_FIRST, |place| {
                let listener = place.listen()?;
                socket::set(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16)?;
                let mut client = socket::unconnected(place.clients)?;
                ensure!(
                    socket::connect_with_data(&client, place.address, PING)? == PING.len(),
                    "bytes taken"
                );
                let (mut server, _) = listener.accept()?;
                let mut read = [0; PING.len()];
                server.read_exact(&mut read)?;
                client::pass(&mut server, &mut client, ANSWER)?;
                drop(client);
                socket::read_to_end(&mut server)?;
                Ok(())
            })?;
        }
        let fast = Counters::read(&stage.far)?.get("TcpExtTCPFastOpenPassive")? - before;
        ensure!(fast == plays - 1, "{fast} of {plays} connections were opened fast");
        Ok(())
    })
}

/// Both connect to each other, and the SYNs cross: RFC 9293 section 3.5, simultaneous open. Nobody listens.
#[test]
fn syns_that_cross() -> Result<()> {
    const CLIENT: End =
        End::client("SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT", Some("local"), "fin");
    const OTHER: End = End {
        role: "client",
        ..End::server("SYN_SENT SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", Some("remote"), "fin")
    };
    played(|stage| {
        stage.play(WIRE, &[CLIENT, OTHER], |place| {
            let near = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), place.address.port() + 10_000);
            let far = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), place.address.port());
            let (mut one, mut other) =
                (socket::unconnected(place.clients)?, socket::unconnected(place.servers)?);
            socket::bind(&one, near)?;
            socket::bind(&other, far)?;
            place.wire.set(Mode::Hold);
            socket::begin_to_connect(&one, far.into())?;
            socket::begin_to_connect(&other, near.into())?;
            place.wire.set(Mode::Pass);
            for end in [&one, &other] {
                socket::wait_until_connected(end)?;
                end.set_nonblocking(false)?;
            }
            speak(&mut one, &mut other)?;
            drop(one);
            socket::read_to_end(&mut other)?;
            Ok(())
        })
    })
}

/// A socket that connects to its own address: its own SYN comes in, and later its own FIN.
#[test]
fn connected_to_itself() -> Result<()> {
    const ITSELF: End = End {
        role: "client",
        bytes: [PING.len() as u64; 2],
        ..End::server("SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING TIME_WAIT", Some("both"), "fin")
    };
    played(|stage| {
        stage.play(LOOPBACK, &[ITSELF], |place| {
            let mut socket = socket::unconnected(place.clients)?;
            socket::bind(&socket, SocketAddrV4::new(Ipv4Addr::LOCALHOST, place.address.port()))?;
            socket::connect(&socket, place.address)?;
            let mut other = socket.try_clone()?;
            client::pass(&mut socket, &mut other, PING)
        })
    })
}
