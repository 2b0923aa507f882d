//! FIN_WAIT2 of a socket that no process has any more: a mini-socket, or the whole one.

use anyhow::{Result, ensure};
use std::{
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};
use tests::{
    blind_spots::outside_blind_spots,
    records::{Record, show},
    socket,
    stage::{BOTH, CLIENT_FIRST, End, Place, Stage, played, reached},
};

/// Longer than an acknowledgement is delayed.
const ACKNOWLEDGED: Duration = Duration::from_millis(60);

/// `close` alone: the mini-socket is made when the FIN is acknowledged.
#[test]
fn mini_socket_made_by_the_acknowledgement() -> Result<()> {
    peer_closes_after(300, "60", CLIENT_FIRST[0], drop)
}

/// `shutdown` first, and `close` in FIN_WAIT2: the mini-socket is made by `close`.
#[test]
fn mini_socket_made_by_close() -> Result<()> {
    peer_closes_after(300, "60", CLIENT_FIRST[0], shut_down_then_close)
}

/// A time-out above 60 s keeps the whole socket, and there the peer's FIN finds it.
#[test]
fn whole_socket() -> Result<()> {
    peer_closes_after(300, "120", CLIENT_FIRST[0], drop)
}

#[test]
fn whole_socket_after_shutdown() -> Result<()> {
    peer_closes_after(300, "120", CLIENT_FIRST[0], shut_down_then_close)
}

/// What is above 60 s the whole socket waits, then a mini-socket: made by a timer, and found by the peer's FIN.
#[test]
fn mini_socket_made_by_the_timer() -> Result<()> {
    const CLIENT: End = End { more: after_the_timer, ..CLIENT_FIRST[0] };
    peer_closes_after(1700, "61", CLIENT, drop)
}

fn after_the_timer(conn: &Record) -> Result<()> {
    let waited = reached(conn, "TIME_WAIT")? - reached(conn, "FIN_WAIT1")?;
    ensure!((1.6e6..2.5e6).contains(&waited), "the FINs are {waited} µs apart");
    Ok(())
}

fn shut_down_then_close(client: TcpStream) {
    client.shutdown(Shutdown::Write).expect("cannot shut down");
    thread::sleep(ACKNOWLEDGED);
}

/// The client closes; the server does so later.
fn peer_closes_after(
    milliseconds: u64,
    fin_timeout: &str,
    client_end: End,
    close: fn(TcpStream),
) -> Result<()> {
    played(|stage| {
        stage.sysctl("tcp_fin_timeout", fin_timeout)?;
        stage.play_at_once(BOTH, &[client_end, CLIENT_FIRST[1]], |place| {
            let mut server = close_client(place, close)?;
            socket::read_to_end(&mut server)?;
            thread::sleep(Duration::from_millis(milliseconds));
            Ok(())
        })
    })
}

fn close_client(place: &Place<'_>, close: fn(TcpStream)) -> Result<TcpStream> {
    let (client, server) = place.talk()?;
    close(client);
    Ok(server)
}

/// The peer's FIN never comes; the kernel forgets the connection, and the peer's late FIN meets a reset.
#[test]
fn forgotten() -> Result<()> {
    never_closed("1", 1.0..1.9, 3)
}

/// As before, one second as a whole socket and one as a mini-socket.
#[test]
fn forgotten_after_the_timer() -> Result<()> {
    never_closed("61", 2.0..3.9, 5)
}

fn never_closed(fin_timeout: &str, lasts: std::ops::Range<f64>, seconds: u64) -> Result<()> {
    outside_blind_spots(|| {
        const CLIENT: End =
            End::client("SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", Some("local"), "fin");
        const SERVER: End =
            End::server("SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", Some("remote"), "rst_received");
        let mut stage = Stage::new()?;
        stage.sysctl("tcp_fin_timeout", fin_timeout)?;
        stage.play_at_once(BOTH, &[CLIENT, SERVER], |place| {
            let mut server = close_client(place, drop)?;
            socket::read_to_end(&mut server)?;
            thread::sleep(Duration::from_secs(seconds));
            Ok(())
        })?;
        let told = stage.finish()?;
        for conn in told.conns.iter().filter(|conn| conn.text("/role") == "client") {
            let waited = (reached(conn, "CLOSE")? - reached(conn, "FIN_WAIT2")?) / 1e6;
            ensure!(lasts.contains(&waited), "FIN_WAIT2 lasted {waited} s: {conn:?}");
        }
        ensure!(told.time_waits.is_empty(), "none was in TIME_WAIT:{}", show(&told.time_waits));
        Ok(())
    })
}
