//! Connections whose other end falls silent.

use anyhow::{Result, bail, ensure};
use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
    sync::Barrier,
    thread,
    time::Duration,
};
use tests::{
    records::Record,
    socket,
    stage::{End, PING, Place, WIRE, played, repeat},
    wait,
    wire::Mode,
};

/// Longer than an acknowledgement is delayed.
const ACKNOWLEDGED: Duration = Duration::from_millis(60);

const PROBES: u64 = 2;

/// What the end that heard nothing of it learns when it speaks again: that nobody is there.
const LATE: End = End {
    bytes: [6 + LATE_WORDS.len() as u64, 4],
    ..End::server("SYN_RECV ESTABLISHED CLOSE", Some("remote"), "rst_received")
};
const LATE_WORDS: &[u8] = b"anybody there?";

/// The kernel asks, nobody answers, and it gives up.
#[test]
fn keep_alive() -> Result<()> {
    const CLIENT: End = End {
        reason: Some("TCP_KEEPALIVE_TIMEOUT"),
        more: probes,
        ..End::client("SYN_SENT ESTABLISHED CLOSE", None, "timeout")
    };
    cut(&[CLIENT, LATE], |_, client| {
        socket::set(&client, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        for (name, value) in
            [(libc::TCP_KEEPIDLE, 1), (libc::TCP_KEEPINTVL, 1), (libc::TCP_KEEPCNT, PROBES as i32)]
        {
            socket::set(&client, libc::IPPROTO_TCP, name, value)?;
        }
        time_out(client)
    })
}

fn probes(conn: &Record) -> Result<()> {
    ensure!(conn.count("/keepalive_probes/sent") == Some(PROBES), "keepalive_probes.sent");
    ensure!(conn.count("/keepalive_probes/received") == Some(0), "keepalive_probes.received");
    ensure!(conn.count("/retransmits/segments") == Some(0), "a probe is no retransmission");
    Ok(())
}

/// Data that nobody acknowledges, for longer than the program is willing to wait.
#[test]
fn user_timeout() -> Result<()> {
    const MILLISECONDS: i32 = 700;
    const CLIENT: End = End {
        bytes: [2 * PING.len() as u64, 6],
        more: |conn| {
            ensure!(conn.count("/retransmits/segments") >= Some(1), "retransmits.segments");
            let bytes = PING.len() as u64 * conn.count("/retransmits/segments").unwrap_or_default();
            ensure!(conn.count("/retransmits/bytes") == Some(bytes), "retransmits.bytes, not {bytes}");
            Ok(())
        },
        ..End::client("SYN_SENT ESTABLISHED CLOSE", None, "timeout")
    };
    cut(&[CLIENT, LATE], |_, mut client| {
        socket::set(&client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, MILLISECONDS)?;
        client.write_all(PING)?;
        time_out(client)
    })
}

fn time_out(mut client: TcpStream) -> Result<()> {
    let error = socket::read_error(&mut client)?;
    ensure!(error.raw_os_error() == Some(libc::ETIMEDOUT), "{error}");
    Ok(())
}

/// A FIN that nobody acknowledges, of a socket that no process has any more.
#[test]
fn in_fin_wait_1() -> Result<()> {
    const CLIENT: End = End::client("SYN_SENT ESTABLISHED FIN_WAIT1 CLOSE", Some("local"), "timeout");
    cut(&[CLIENT, LATE], |place, client| {
        drop(client);
        wait_until_gone(place)
    })
}

/// Cuts the wire; once the client's end has given up, the server speaks.
fn cut(ends: &[End], give_up: impl Fn(&Place<'_>, TcpStream) -> Result<()> + Sync) -> Result<()> {
    played(|stage| {
        stage.sysctl("tcp_orphan_retries", "1")?;
        let plays = Barrier::new(repeat());
        stage.play_at_once(WIRE, ends, |place| {
            let (client, mut server) = place.talk()?;
            thread::sleep(ACKNOWLEDGED);
            plays.wait();
            place.wire.set(Mode::Drop);
            give_up(place, client)?;
            plays.wait();
            place.wire.set(Mode::Pass);
            server.write_all(LATE_WORDS)?;
            socket::read_error(&mut server)?;
            Ok(())
        })
    })
}

/// As before, in answer to the other end's FIN, which waits for it in vain.
#[test]
fn in_last_ack() -> Result<()> {
    const CLIENT: End =
        End::client("SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", Some("remote"), "timeout");
    const SERVER: End = End::server("SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", Some("local"), "fin");
    played(|stage| {
        stage.sysctl("tcp_orphan_retries", "1")?;
        let plays = Barrier::new(repeat());
        stage.play_at_once(WIRE, &[CLIENT, SERVER], |place| {
            let (mut client, server) = place.talk()?;
            server.shutdown(Shutdown::Write)?;
            socket::read_to_end(&mut client)?;
            thread::sleep(ACKNOWLEDGED);
            plays.wait();
            place.wire.set(Mode::Drop);
            drop(client);
            wait_until_gone(place)?;
            plays.wait();
            place.wire.set(Mode::Pass);
            // Its mini-socket waits for the FIN, and then no more.
            socket::set(&server, libc::IPPROTO_TCP, libc::TCP_LINGER2, 1)?;
            drop(server);
            Ok(())
        })
    })
}

/// Until the client's namespace has no socket of this play.
fn wait_until_gone(place: &Place<'_>) -> Result<()> {
    let port = format!("dport = :{}", place.address.port());
    wait::until("the end of an orphan", wait::LIMIT, || {
        let sockets = place.clients.run("ss", &["-tanH", &port])?;
        match sockets.lines().count() {
            0 => Ok(Some(())),
            1 => Ok(None),
            _ => bail!("more than one socket:\n{sockets}"),
        }
    })
}
