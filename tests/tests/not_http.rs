//! Bytes that are not HTTP, not text, or not all there.

use anyhow::{Context as _, Result, ensure};
use std::{
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
};
use tests::{
    client,
    netns::Netns,
    records::{Record, Records, show, unescape},
    tracer::Tracer,
};

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9000);
const GET: &[u8] = b"GET /thing HTTP/1.1\r\nHost: test\r\n\r\n";

/// Runs a conversation between the two ends of one connection; the records of both ends.
fn talk(conversation: impl FnOnce(TcpStream, TcpStream) -> Result<()>) -> Result<(Vec<Record>, Vec<Record>)> {
    let netns = Netns::new()?;
    let address = SocketAddr::from(ADDRESS);
    let listener = client::listen(&netns, address)?;
    let mut tracer = Tracer::start(&netns, &["--port", "9000", "--headers", "all"])?;
    let (client, server) = client::pair(&netns, &listener, address)?;
    conversation(client, server)?;
    let two = |records: &Records| (records.conns(&netns).len() == 2).then_some(());
    tracer.wait_for("two closed sockets", two)?;
    let run = tracer.stop()?;
    let conns = run.records.conns(&netns);
    let https = run.records.https(&conns).collect();
    ensure!(conns.iter().all(|conn| conn.is_true("/complete")), "complete:{}", show(&conns));
    Ok((conns, https))
}

/// The only exchange, as both ends saw it.
fn both_ends(https: &[Record]) -> Result<[&Record; 2]> {
    let [first, second] = https else { anyhow::bail!("one exchange at two ends:{}", show(https)) };
    ensure!(first.text("/role") != second.text("/role"), "two ends:{}", show(https));
    Ok([first, second])
}

#[test]
fn other_protocols_are_connections_only() -> Result<()> {
    let noise: Vec<u8> = (0..=255).rev().cycle().take(5000).collect();
    let (conns, https) = talk(|mut client, mut server| {
        client::pass(&mut client, &mut server, &noise)?;
        client::pass(&mut server, &mut client, &noise[..777])
    })?;
    ensure!(https.is_empty(), "no HTTP:{}", show(&https));
    for conn in &conns {
        ensure!(conn.is_null("/http"), "no HTTP: {conn:?}");
        let bytes = [conn.count("/bytes_sent"), conn.count("/bytes_received")];
        let expected = if conn.text("/role") == "client" { [5000, 777] } else { [777, 5000] };
        ensure!(bytes == expected.map(Some), "bytes: {conn:?}");
    }
    Ok(())
}

#[test]
fn nothing_was_said() -> Result<()> {
    let (conns, https) = talk(|_, _| Ok(()))?;
    ensure!(https.is_empty(), "no HTTP:{}", show(&https));
    for conn in &conns {
        ensure!(conn.is_null("/http") && conn.count("/bytes_sent") == Some(0), "silence: {conn:?}");
    }
    Ok(())
}

#[test]
fn exact_bytes_can_be_recovered() -> Result<()> {
    let target = b"/caf\xe9/\\x41/\xc3\xa9/\xff\xfe\\";
    let agent = b"\"quoted\" \xf0\x28 \\ end";
    let request =
        [b"GET ", &target[..], b" HTTP/1.1\r\nHost: test\r\nUser-Agent: ", &agent[..], b"\r\n\r\n"].concat();
    let reason = b"Tr\xe8s \\bien";
    let response = [b"HTTP/1.1 200 ", &reason[..], b"\r\nContent-Length: 3\r\n\r\n\xff\x00\xfe"].concat();
    let (_, https) = talk(|mut client, mut server| {
        client::pass(&mut client, &mut server, &request)?;
        client::pass(&mut server, &mut client, &response)
    })?;
    for http in both_ends(&https)? {
        ensure!(unescape(http.text("/request/target")) == target, "target: {http:?}");
        ensure!(unescape(http.text("/response/reason")) == reason, "reason: {http:?}");
        ensure!(http.text("/request/target").starts_with(r"/caf\xe9/\\x41/é/"), "target: {http:?}");
        let headers = http.at("/request/headers").to_string();
        ensure!(headers.contains(r"\\xf0( \\\\ end"), "a field's value: {http:?}");
        ensure!(http.count("/request/header_bytes") == Some(request.len() as u64), "head: {http:?}");
        ensure!(http.count("/response/body_bytes") == Some(3), "body: {http:?}");
        ensure!(http.text("/outcome") == "complete", "outcome: {http:?}");
    }
    Ok(())
}

#[test]
fn response_cut_off_by_fin() -> Result<()> {
    let (_, https) = talk(|mut client, mut server| {
        client::pass(&mut client, &mut server, GET)?;
        client::pass(&mut server, &mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")?;
        drop(server);
        drop(client);
        Ok(())
    })?;
    for http in both_ends(&https)? {
        ensure!(http.text("/outcome") == "truncated", "outcome: {http:?}");
        ensure!(http.count("/response/status") == Some(200), "status: {http:?}");
        ensure!(http.count("/response/body_bytes") == Some(10), "what came of the body: {http:?}");
    }
    Ok(())
}

#[test]
fn response_cut_off_by_reset() -> Result<()> {
    let (conns, https) = talk(|mut client, mut server| {
        client::pass(&mut client, &mut server, GET)?;
        client::pass(&mut server, &mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")?;
        reset(server)?;
        drop(client);
        Ok(())
    })?;
    for http in both_ends(&https)? {
        ensure!(http.text("/outcome") == "reset", "outcome: {http:?}");
        ensure!(http.count("/response/status") == Some(200), "status: {http:?}");
    }
    for conn in &conns {
        let (by, how) =
            if conn.text("/role") == "server" { ("local", "rst_sent") } else { ("remote", "rst_received") };
        ensure!(conn.text("/close/by") == by && conn.text("/close/how") == how, "close: {conn:?}");
        ensure!(conn.at("/time_wait") == false, "no TIME_WAIT: {conn:?}");
    }
    Ok(())
}

#[test]
fn head_cut_off() -> Result<()> {
    let (_, https) = talk(|mut client, mut server| {
        client::pass(&mut client, &mut server, GET)?;
        client::pass(&mut server, &mut client, b"HTTP/1.1 200 OK\r\nContent-Le")
    })?;
    for http in both_ends(&https)? {
        ensure!(http.text("/request/target") == "/thing", "request: {http:?}");
        ensure!(["truncated", "reset", "no_response"].contains(&http.text("/outcome")), "outcome: {http:?}");
    }
    Ok(())
}

#[test]
fn no_response() -> Result<()> {
    let (conns, https) = talk(|mut client, mut server| {
        client::pass(&mut client, &mut server, GET)?;
        drop(server);
        drop(client);
        Ok(())
    })?;
    for http in both_ends(&https)? {
        ensure!(http.text("/outcome") == "no_response", "outcome: {http:?}");
        ensure!(http.is_null("/response") && http.is_null("/ttfb_us"), "no response: {http:?}");
    }
    for conn in &conns {
        ensure!(conn.count("/http/requests") == Some(1), "requests: {conn:?}");
        ensure!(conn.count("/http/responses") == Some(0), "responses: {conn:?}");
    }
    Ok(())
}

#[test]
fn nonsense_after_a_good_exchange() -> Result<()> {
    let (conns, https) = talk(|mut client, mut server| {
        client::pass(&mut client, &mut server, GET)?;
        client::pass(&mut server, &mut client, b"HTTP/1.1 204 No Content\r\n\r\n")?;
        client::pass(&mut client, &mut server, b"\x00\x01\x02 nonsense\r\n\r\n")?;
        client::pass(&mut server, &mut client, b"more \xff nonsense\r\n\r\n")
    })?;
    for role in ["client", "server"] {
        let good = https.iter().find(|http| http.text("/role") == role && http.count("/seq") == Some(1));
        let good = good.with_context(|| format!("the good exchange as {role}:{}", show(&https)))?;
        ensure!(good.text("/outcome") == "complete", "outcome: {good:?}");
        ensure!(good.count("/response/status") == Some(204), "status: {good:?}");
    }
    let later = https.iter().filter(|http| http.count("/seq") != Some(1));
    for http in later {
        ensure!(http.text("/outcome") == "malformed", "outcome: {http:?}");
    }
    ensure!(conns.iter().all(|conn| !conn.is_null("/http")), "it carried HTTP:{}", show(&conns));
    Ok(())
}

#[test]
fn head_in_single_bytes() -> Result<()> {
    let (_, https) = talk(|mut client, mut server| {
        for byte in GET {
            client::pass(&mut client, &mut server, &[*byte])?;
        }
        for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" {
            client::pass(&mut server, &mut client, &[*byte])?;
        }
        Ok(())
    })?;
    for http in both_ends(&https)? {
        ensure!(http.text("/outcome") == "complete", "outcome: {http:?}");
        ensure!(http.count("/request/header_bytes") == Some(GET.len() as u64), "head: {http:?}");
        ensure!(http.text("/response/framing") == "chunked", "framing: {http:?}");
        ensure!(http.count("/response/body_bytes") == Some(3), "body: {http:?}");
    }
    Ok(())
}

/// Closes it so that the kernel sends RST instead of FIN.
fn reset(stream: TcpStream) -> Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    let value = (&raw const linger).cast();
    // SAFETY: the value is a `linger` of that size and outlives the call.
    let status =
        unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, size) };
    ensure!(status == 0, "cannot set SO_LINGER: {}", std::io::Error::last_os_error());
    Ok(())
}
