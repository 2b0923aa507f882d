//! IPv4 sockets and what the standard library has no words for.

use crate::{netns::Netns, process::Process, wait};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
    process::{Command, Stdio},
};

const ADDRESS_SIZE: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

/// A socket of a namespace that is neither bound nor connected.
pub fn unconnected(netns: &Netns) -> Result<TcpStream> {
    netns.enter(|| {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        ensure!(fd >= 0, "cannot make a socket: {}", io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    })
}

/// Sets an option that is a number.
pub fn set(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> Result<()> {
    set_bytes(socket, level, name, &value)
}

fn set_bytes<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &T) -> Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is as long as is said.
    let status =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), size) };
    ensure!(status == 0, "cannot set option {name} of level {level}: {}", io::Error::last_os_error());
    Ok(())
}

/// Binds to an address, also one that a socket in TIME_WAIT still has.
pub fn bind(socket: &TcpStream, address: SocketAddrV4) -> Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    let raw = raw(address);
    // SAFETY: the address is as long as is said.
    let status = unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), ADDRESS_SIZE) };
    ensure!(status == 0, "cannot bind to {address}: {}", io::Error::last_os_error());
    Ok(())
}

/// Listens, at a port of the kernel's choice where it is not bound.
pub fn listen(socket: &TcpStream) -> Result<()> {
    // SAFETY: no memory is involved.
    let status = unsafe { libc::listen(socket.as_raw_fd(), 1) };
    ensure!(status == 0, "cannot listen: {}", io::Error::last_os_error());
    Ok(())
}

/// Connects; what the system call says.
pub fn connect(socket: &TcpStream, address: SocketAddr) -> io::Result<()> {
    connect_raw(socket, raw(v4(address)))
}

/// Takes a socket back to where it was before it was connected: `connect` to an address without a family.
pub fn dissolve(socket: &TcpStream) -> Result<()> {
    let mut nowhere = raw(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    nowhere.sin_family = libc::AF_UNSPEC as libc::sa_family_t;
    connect_raw(socket, nowhere).context("cannot dissolve a connection")
}

/// Connects with data in the SYN, once the kernel knows a cookie of the server; the number of bytes taken.
pub fn connect_with_data(socket: &TcpStream, address: SocketAddr, bytes: &[u8]) -> Result<usize> {
    let raw = raw(v4(address));
    // SAFETY: the bytes and the address are as long as is said.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_FASTOPEN,
            (&raw const raw).cast(),
            ADDRESS_SIZE,
        )
    };
    usize::try_from(sent).with_context(|| format!("TCP Fast Open: {}", io::Error::last_os_error()))
}

/// Closes it with a reset: a linger time of zero.
pub fn reset(socket: TcpStream) -> Result<()> {
    set_bytes(&socket, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 })
}

/// Gives a socket to a process of its own, which does nothing with it.
pub fn hand_over(socket: TcpStream) -> Result<Process> {
    Process::spawn(Command::new("sleep").arg("1000").stdin(Stdio::from(OwnedFd::from(socket))))
}

/// Reads until the other end has sent its FIN; the number of bytes before it.
pub fn read_to_end(socket: &mut TcpStream) -> Result<usize> {
    socket.set_read_timeout(Some(wait::LIMIT))?;
    Ok(socket.read_to_end(&mut Vec::new())?)
}

/// The state of the connection (`tcpi_state`, the first member of `struct tcp_info`).
pub fn state(socket: &TcpStream) -> Result<u8> {
    let (mut state, mut size) = (0u8, 1);
    // SAFETY: one byte, as is said.
    let status = unsafe {
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut state).cast(), &raw mut size)
    };
    ensure!(status == 0, "cannot read the state: {}", io::Error::last_os_error());
    Ok(state)
}

/// Waits for the error that ends the connection.
pub fn read_error(socket: &mut TcpStream) -> Result<io::Error> {
    socket.set_read_timeout(Some(wait::LIMIT))?;
    match socket.read(&mut [0; 1]) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(error),
        other => bail!("an error was expected, not {other:?}"),
    }
}

/// Waits for a connection of a non-blocking socket, or for its failure.
pub fn wait_until_connected(socket: &TcpStream) -> Result<()> {
    wait::until("a connection", wait::LIMIT, || {
        if let Some(error) = socket.take_error()? {
            bail!("cannot connect: {error}");
        }
        Ok(socket.peer_addr().is_ok().then_some(()))
    })
}

/// A non-blocking socket that has begun to connect.
pub fn begin_to_connect(socket: &TcpStream, address: SocketAddr) -> Result<()> {
    socket.set_nonblocking(true)?;
    match connect(socket, address) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => bail!("a connection under way was expected, not {other:?}"),
    }
}

fn connect_raw(socket: &TcpStream, address: libc::sockaddr_in) -> io::Result<()> {
    // SAFETY: the address is as long as is said.
    let status = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_SIZE) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}

fn raw(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}
