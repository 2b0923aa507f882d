//! Connections that end with FINs: who closed first, which states both ends went through.

use anyhow::{Result, ensure};
use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};
use tests::{
    blind_spots::outside_blind_spots,
    client::pass,
    records::{Record, with_role},
    socket,
    stage::{BOTH, CLIENT_FIRST, End, SERVER_FIRST, Stage, WIRE, played, reached, speak},
    wire::Mode,
};

const PAUSE: Duration = Duration::from_millis(50);

#[test]
fn client_closes_first() -> Result<()> {
    played(|stage| {
        stage.play(BOTH, &CLIENT_FIRST, |place| {
            let (client, mut server) = place.talk()?;
            drop(client);
            socket::read_to_end(&mut server)?;
            Ok(())
        })
    })
}

#[test]
fn server_closes_first() -> Result<()> {
    played(|stage| {
        stage.play(BOTH, &SERVER_FIRST, |place| {
            let (mut client, server) = place.talk()?;
            drop(server);
            socket::read_to_end(&mut client)?;
            Ok(())
        })
    })
}

#[test]
fn fins_that_cross() -> Result<()> {
    const CLIENT: End = End::client("SYN_SENT ESTABLISHED FIN_WAIT1 CLOSING TIME_WAIT", Some("both"), "fin");
    const SERVER: End = End::server("SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING TIME_WAIT", Some("both"), "fin");
    played(|stage| {
        stage.play(WIRE, &[CLIENT, SERVER], |place| {
            let (mut client, mut server) = place.talk()?;
            place.wire.set(Mode::Hold);
            client.shutdown(Shutdown::Write)?;
            server.shutdown(Shutdown::Write)?;
            place.wire.set(Mode::Pass);
            socket::read_to_end(&mut client)?;
            socket::read_to_end(&mut server)?;
            Ok(())
        })
    })
}

/// Whatever the order turns out to be, both ends must tell the same.
#[test]
fn fins_microseconds_apart() -> Result<()> {
    outside_blind_spots(|| {
        let mut stage = Stage::new()?;
        for _ in 0..10 {
            stage.play_freely(BOTH, 2, |place| {
                let (client, server) = place.talk()?;
                drop(client);
                drop(server);
                Ok(())
            })?;
        }
        let conns = stage.finish()?.conns;
        for client in with_role(&conns, "client") {
            let server = conns.iter().find(|conn| conn.text("/id") == client.text("/peer"));
            let by = |conn: &Record| conn.text("/close/by").to_owned();
            let told = server.map(|server| [by(&client), by(server)]);
            let agreed = [["local", "remote"], ["remote", "local"], ["both", "both"]];
            ensure!(
                told.is_some_and(|told| agreed.iter().any(|one| told == *one)),
                "{client:?}\n  {server:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn half_close_by_the_client() -> Result<()> {
    const SIZE: usize = 300_000;
    const CLIENT: End = End { bytes: [4, 6 + SIZE as u64], ..CLIENT_FIRST[0] };
    const SERVER: End = End { bytes: [6 + SIZE as u64, 4], ..CLIENT_FIRST[1] };
    played(|stage| {
        stage.play(BOTH, &[CLIENT, SERVER], |place| {
            let (mut client, mut server) = place.talk()?;
            client.shutdown(Shutdown::Write)?;
            socket::read_to_end(&mut server)?;
            send_and_close(server, &mut client, SIZE)
        })
    })
}

#[test]
fn half_close_by_the_server() -> Result<()> {
    const SIZE: usize = 300_000;
    const CLIENT: End = End { bytes: [4 + SIZE as u64, 6], ..SERVER_FIRST[0] };
    const SERVER: End = End { bytes: [6, 4 + SIZE as u64], more: waited_for_the_peer, ..SERVER_FIRST[1] };
    played(|stage| {
        stage.play(BOTH, &[CLIENT, SERVER], |place| {
            let (mut client, mut server) = place.talk()?;
            server.shutdown(Shutdown::Write)?;
            socket::read_to_end(&mut client)?;
            thread::sleep(PAUSE);
            send_and_close(client, &mut server, SIZE)
        })
    })
}

/// The data that goes the other way comes between the FINs.
fn waited_for_the_peer(conn: &Record) -> Result<()> {
    let waited = reached(conn, "TIME_WAIT")? - reached(conn, "FIN_WAIT1")?;
    ensure!(waited >= PAUSE.as_micros() as f64, "the second FIN came {waited} µs after the first");
    Ok(())
}

fn send_and_close(mut from: TcpStream, to: &mut TcpStream, size: usize) -> Result<()> {
    let sender = thread::spawn(move || from.write_all(&vec![b'x'; size]));
    let received = socket::read_to_end(to)?;
    ensure!(received == size, "{received} bytes of {size} arrived");
    sender.join().expect("the sender panicked")?;
    Ok(())
}

/// The last data and the FIN in one go, to a peer that has its own FIN behind its data.
#[test]
fn data_right_before_the_fin() -> Result<()> {
    const CLIENT: End = End { bytes: [4, 6 + 6], ..SERVER_FIRST[0] };
    const SERVER: End = End { bytes: [6 + 6, 4], ..SERVER_FIRST[1] };
    played(|stage| {
        stage.play(BOTH, &[CLIENT, SERVER], |place| {
            let (mut client, mut server) = place.pair()?;
            speak(&mut client, &mut server)?;
            server.write_all(b"bye...")?;
            drop(server);
            ensure!(socket::read_to_end(&mut client)? == 6, "the last words");
            Ok(())
        })
    })
}

/// One byte each way, many turns, then the end: totals count payload and nothing else.
#[test]
fn bytes_of_many_turns() -> Result<()> {
    const TURNS: u64 = 200;
    const CLIENT: End = End { bytes: [TURNS; 2], ..CLIENT_FIRST[0] };
    const SERVER: End = End { bytes: [TURNS; 2], ..CLIENT_FIRST[1] };
    played(|stage| {
        stage.play(BOTH, &[CLIENT, SERVER], |place| {
            let (mut client, mut server) = place.pair()?;
            for _ in 0..TURNS {
                pass(&mut client, &mut server, b"c")?;
                pass(&mut server, &mut client, b"s")?;
            }
            drop(client);
            socket::read_to_end(&mut server)?;
            Ok(())
        })
    })
}
