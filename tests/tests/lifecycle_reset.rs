//! Connections that end with a reset: by whom, in which state, and the kernel's reason.

use anyhow::{Result, ensure};
use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};
use tests::{
    process::Process,
    socket,
    stage::{ANSWER, BOTH, CLIENT_FIRST, End, PING, played, speak},
    wait,
};

const SENT: Option<&str> = Some("TCP_STATE");
const NEVER_READ: &[u8] = b"never read";

const fn client_resets(reason: Option<&'static str>) -> [End; 2] {
    [
        End { reason, ..End::client("SYN_SENT ESTABLISHED CLOSE", Some("local"), "rst_sent") },
        End::server("SYN_RECV ESTABLISHED CLOSE", Some("remote"), "rst_received"),
    ]
}

const fn server_resets(reason: Option<&'static str>) -> [End; 2] {
    [
        End::client("SYN_SENT ESTABLISHED CLOSE", Some("remote"), "rst_received"),
        End { reason, ..End::server("SYN_RECV ESTABLISHED CLOSE", Some("local"), "rst_sent") },
    ]
}

#[test]
fn by_the_client() -> Result<()> {
    played(|stage| {
        stage.play(BOTH, &client_resets(SENT), |place| {
            let (client, mut server) = place.talk()?;
            socket::reset(client)?;
            socket::read_error(&mut server)?;
            Ok(())
        })
    })
}

#[test]
fn by_the_server() -> Result<()> {
    played(|stage| {
        stage.play(BOTH, &server_resets(SENT), |place| {
            let (mut client, server) = place.talk()?;
            socket::reset(server)?;
            socket::read_error(&mut client)?;
            Ok(())
        })
    })
}

/// The client has sent its FIN; the server answers with a reset.
#[test]
fn in_close_wait_by_its_owner() -> Result<()> {
    const CLIENT: End =
        End::client("SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", Some("local"), "rst_received");
    const SERVER: End = End {
        reason: SENT,
        ..End::server("SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE", Some("remote"), "rst_sent")
    };
    played(|stage| {
        stage.play(BOTH, &[CLIENT, SERVER], |place| {
            let (mut client, mut server) = place.talk()?;
            client.shutdown(Shutdown::Write)?;
            socket::read_to_end(&mut server)?;
            // The FIN may be acknowledged a little later.
            thread::sleep(Duration::from_millis(60));
            socket::reset(server)?;
            socket::read_error(&mut client)?;
            Ok(())
        })
    })
}

/// The client has sent its FIN and aborts what is left.
#[test]
fn in_close_wait_by_the_other_end() -> Result<()> {
    const CLIENT: End = End {
        reason: SENT,
        ..End::client("SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", Some("local"), "rst_sent")
    };
    const SERVER: End = End::server("SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE", Some("remote"), "rst_received");
    played(|stage| {
        stage.play(BOTH, &[CLIENT, SERVER], |place| {
            let (client, mut server) = place.talk()?;
            client.shutdown(Shutdown::Write)?;
            socket::read_to_end(&mut server)?;
            thread::sleep(Duration::from_millis(60));
            socket::reset(client)?;
            wait_for_reset(&mut server)
        })
    })
}

/// Behind a FIN, only the socket's error shows a reset.
fn wait_for_reset(socket: &mut TcpStream) -> Result<()> {
    wait::until("a reset", wait::LIMIT, || Ok(socket.take_error()?.map(|_| ())))
}

#[test]
fn unread_data() -> Result<()> {
    const CLOSE: Option<&str> = Some("TCP_ABORT_ON_CLOSE");
    let unread = NEVER_READ.len() as u64;
    let [mut client, mut server] = server_resets(CLOSE);
    client.bytes[0] += unread;
    server.bytes[1] += unread;
    played(|stage| {
        stage.play(BOTH, &[client, server], |place| {
            let (mut client, server) = place.talk()?;
            client.write_all(NEVER_READ)?;
            wait_until_readable(&server)?;
            drop(server);
            socket::read_error(&mut client)?;
            Ok(())
        })
    })
}

fn wait_until_readable(socket: &TcpStream) -> Result<()> {
    ensure!(socket.peek(&mut [0; 1])? == 1, "nothing came");
    Ok(())
}

/// Data for an end that closed: its mini-socket in FIN_WAIT2 answers.
#[test]
fn data_for_an_orphan() -> Result<()> {
    const MINI_SOCKET: Option<&str> = Some("TCP_TIMEWAIT_SOCKET");
    data_after_close("60", MINI_SOCKET)
}

/// As before, but the socket is still whole: it answers, and nobody has reset it.
#[test]
fn data_for_an_orphan_that_is_still_whole() -> Result<()> {
    data_after_close("120", Some("TCP_ABORT_ON_DATA"))
}

fn data_after_close(fin_timeout: &str, reason: Option<&'static str>) -> Result<()> {
    let late = NEVER_READ.len() as u64;
    let client = End::client("SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", Some("local"), "rst_sent");
    let server = End::server("SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE", Some("remote"), "rst_received");
    let ends =
        [End { reason, ..client }, End { bytes: [ANSWER.len() as u64 + late, PING.len() as u64], ..server }];
    played(|stage| {
        stage.sysctl("tcp_fin_timeout", fin_timeout)?;
        stage.play(BOTH, &ends, |place| {
            let (client, mut server) = place.talk()?;
            drop(client);
            socket::read_to_end(&mut server)?;
            thread::sleep(Duration::from_millis(60));
            server.write_all(NEVER_READ)?;
            wait_for_reset(&mut server)
        })
    })
}

/// `TCP_LINGER2` below zero: the close in FIN_WAIT2 is a reset.
#[test]
fn no_patience_for_the_peers_fin() -> Result<()> {
    const CLIENT: End = End {
        reason: Some("TCP_ABORT_ON_LINGER"),
        ..End::client("SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", Some("local"), "rst_sent")
    };
    const SERVER: End = End::server("SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE", Some("remote"), "rst_received");
    played(|stage| {
        stage.play(BOTH, &[CLIENT, SERVER], |place| {
            let (client, mut server) = place.talk()?;
            socket::set(&client, libc::IPPROTO_TCP, libc::TCP_LINGER2, -1)?;
            client.shutdown(Shutdown::Write)?;
            socket::read_to_end(&mut server)?;
            thread::sleep(Duration::from_millis(60));
            drop(client);
            wait_for_reset(&mut server)
        })
    })
}

/// The kernel closes the socket of a process that is killed: a FIN, for all that was sent was read.
#[test]
fn killed_process() -> Result<()> {
    played(|stage| {
        stage.play(BOTH, &CLIENT_FIRST, |place| {
            let (client, mut server) = place.talk()?;
            kill(socket::hand_over(client)?)?;
            socket::read_to_end(&mut server)?;
            Ok(())
        })
    })
}

/// As before, with data that nobody has read.
#[test]
fn killed_process_with_unread_data() -> Result<()> {
    let [mut client, mut server] = server_resets(Some("TCP_ABORT_ON_CLOSE"));
    client.bytes[0] += NEVER_READ.len() as u64;
    server.bytes[1] += NEVER_READ.len() as u64;
    played(|stage| {
        stage.play(BOTH, &[client, server], |place| {
            let (mut client, server) = place.talk()?;
            client.write_all(NEVER_READ)?;
            wait_until_readable(&server)?;
            kill(socket::hand_over(server)?)?;
            socket::read_error(&mut client)?;
            Ok(())
        })
    })
}

fn kill(mut process: Process) -> Result<()> {
    process.signal(libc::SIGKILL)?;
    process.wait(wait::LIMIT)?;
    Ok(())
}

/// Three connections that nobody accepts; then the listener goes.
#[test]
fn listener_closed_with_connections_waiting() -> Result<()> {
    const WAITING: usize = 3;
    let [mut client, mut server] = server_resets(SENT);
    client.bytes = [PING.len() as u64, 0];
    server.bytes = [0, PING.len() as u64];
    played(|stage| {
        stage.play(BOTH, &[[client, server]; WAITING].concat(), |place| {
            let listener = place.listen()?;
            let mut clients = Vec::new();
            for _ in 0..WAITING {
                let mut client = place.connect()?;
                client.write_all(PING)?;
                clients.push(client);
            }
            // Until the last bytes have arrived.
            thread::sleep(Duration::from_millis(20));
            drop(listener);
            clients.iter_mut().try_for_each(|client| socket::read_error(client).map(|_| ()))
        })
    })
}

/// `connect` to no address at all ends a connection; the same socket may then begin another one.
#[test]
fn dissolved_and_connected_again() -> Result<()> {
    let ends = [client_resets(SENT), CLIENT_FIRST].concat();
    played(|stage| {
        stage.play(BOTH, &ends, |place| {
            let listener = place.listen()?;
            let mut client = place.connect()?;
            let (mut server, _) = listener.accept()?;
            speak(&mut client, &mut server)?;
            socket::dissolve(&client)?;
            socket::read_error(&mut server)?;

            socket::connect(&client, place.address)?;
            let (mut server, _) = listener.accept()?;
            speak(&mut client, &mut server)?;
            drop(client);
            socket::read_to_end(&mut server)?;
            Ok(())
        })
    })
}

/// The administrator ends a connection; the kernel tells the other end.
#[test]
fn killed_by_the_administrator() -> Result<()> {
    let client = End::client("SYN_SENT ESTABLISHED CLOSE", Some("local"), "aborted");
    let server = End::server("SYN_RECV ESTABLISHED CLOSE", Some("remote"), "rst_received");
    played(|stage| {
        if !stage.can_kill_sockets()? {
            return Ok(());
        }
        stage.play(BOTH, &[End { reason: SENT, ..client }, server], |place| {
            let (mut client, mut server) = place.talk()?;
            let port = format!("dport = :{}", place.address.port());
            place.clients.run("ss", &["-K", "-t", "state", "established", &port])?;
            socket::read_error(&mut client)?;
            socket::read_error(&mut server)?;
            Ok(())
        })
    })
}
