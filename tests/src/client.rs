//! Plain HTTP over one socket, for what curl cannot do: chosen bytes at chosen moments.

use crate::{netns::Netns, wait};
use anyhow::{Context as _, Result, ensure};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

/// Listens inside a namespace; the socket may be used from everywhere.
pub fn listen(netns: &Netns, address: SocketAddr) -> Result<TcpListener> {
    netns.enter(|| TcpListener::bind(address).with_context(|| format!("cannot listen on {address}")))
}

/// Connects inside a namespace; both ends give up waiting in time.
pub fn connect(netns: &Netns, address: SocketAddr) -> Result<TcpStream> {
    let stream = netns
        .enter(|| TcpStream::connect(address).with_context(|| format!("cannot connect to {address}")))?;
    patient(stream)
}

/// A connection from a client inside the same namespace: the client's end and the server's.
pub fn pair(netns: &Netns, listener: &TcpListener, address: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    let client = connect(netns, address)?;
    let (server, _) = listener.accept()?;
    Ok((client, patient(server)?))
}

fn patient(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(wait::LIMIT))?;
    stream.set_write_timeout(Some(wait::LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One HTTP exchange between a client and a server of the same namespace, whose connection the client closes behind it.
pub fn converse(netns: &Netns, listener: &TcpListener) -> Result<()> {
    let (mut client, mut server) = pair(netns, listener, listener.local_addr()?)?;
    pass(&mut client, &mut server, b"GET /thing HTTP/1.1\r\nHost: test\r\n\r\n")?;
    pass(&mut server, &mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")?;
    drop(client);
    ensure!(server.read(&mut [0])? == 0, "more than a request");
    Ok(())
}

/// Sends bytes on one end and waits until the other end has read them.
pub fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    from.write_all(bytes)?;
    let mut read = vec![0; bytes.len()];
    to.read_exact(&mut read)?;
    ensure!(read == bytes, "other bytes arrived");
    Ok(())
}

/// Reads up to the end of this mark, and no byte more.
pub fn read_until(stream: &mut TcpStream, mark: &str) -> Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(mark.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        text.extend(byte);
    }
    Ok(String::from_utf8(text)?)
}

/// Sends bytes on one end while the other end reads them, however many they are.
pub fn pass_much(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    let read = exchange(from, to, bytes, bytes.len())?;
    ensure!(read == bytes, "other bytes arrived");
    Ok(())
}

/// Sends bytes on one end while as many as wanted are read from the other, which may be the same.
pub fn exchange(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8], wanted: usize) -> Result<Vec<u8>> {
    let mut read = vec![0; wanted];
    thread::scope(|scope| -> Result<()> {
        let writing = scope.spawn(|| from.write_all(bytes));
        to.read_exact(&mut read)?;
        Ok(writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    })?;
    Ok(read)
}

/// One GET on a connection that stays open; the response's status and body.
pub fn get(stream: &mut TcpStream, target: &str) -> Result<(u16, Vec<u8>)> {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest.get(..3).and_then(|digits| digits.parse().ok());
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((status.context("no status line")?, body))
}
