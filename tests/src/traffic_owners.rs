//! Servers and clients of every make, for the question whose a connection is. Each says what it owned.
//!
//! The client sends a line, the server answers with a line and closes.

use crate::{
    traffic_role::{Owned, say},
    wait,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    os::unix::net::UnixStream,
    process::Command,
    ptr, thread,
};

const WORKERS: usize = 3;

/// Plays one of the roles below until the connections are done.
pub fn play(name: &str, arguments: &[&str]) -> Result<()> {
    let [address, count] = arguments else { bail!("{name} of what: {arguments:?}") };
    let address: SocketAddr = address.parse()?;
    let count: usize = count.parse()?;
    match name {
        "plain-client" => (0..count).try_for_each(|_| ask(address)),
        "threads-client" => threads_client(address, count),
        "dying-client" => dying_client(address, count),
        _ => {
            let listener = TcpListener::bind(address)?;
            say("listening")?;
            match name {
                "plain-server" => (0..count).try_for_each(|_| serve(listener.accept()?.0)),
                "prefork-server" => prefork_server(&listener),
                "threads-server" => threads_server(&listener, count),
                "exec-server" => (0..count).try_for_each(|_| execute(listener.accept()?.0)),
                "passing-server" => passing_server(&listener, count),
                _ => bail!("no role {name}"),
            }
        }
    }
}

fn ask(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(wait::LIMIT))?;
    Owned::say_mine("client", &stream)?;
    stream.write_all(b"hello\n")?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    ensure!(answer == "there\n", "answer {answer}");
    Ok(())
}

fn serve(mut stream: TcpStream) -> Result<()> {
    Owned::say_mine("server", &stream)?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    ensure!(line == "hello\n", "line {line}");
    Ok(stream.write_all(b"there\n")?)
}

fn threads_client(address: SocketAddr, count: usize) -> Result<()> {
    let one = |index: usize| {
        let name = format!("thread-{index}");
        thread::Builder::new().name(name).spawn(move || (0..count / WORKERS).try_for_each(|_| ask(address)))
    };
    join((0..WORKERS).map(one).collect::<io::Result<_>>()?)
}

/// Each connection is the deed of a process that is killed at once.
fn dying_client(address: SocketAddr, count: usize) -> Result<()> {
    for _ in 0..count {
        let child = fork(|| {
            ask(address)?;
            // SAFETY: no memory is involved, and the process is this one.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            Ok(())
        })?;
        let status = reap(child)?;
        ensure!(libc::WIFSIGNALED(status), "the child ended with status {status}");
    }
    Ok(())
}

/// All children accept from the same listener; they end with their parent.
fn prefork_server(listener: &TcpListener) -> Result<()> {
    for _ in 0..WORKERS {
        fork(|| {
            // SAFETY: no memory is involved.
            let status = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            ensure!(status == 0, "prctl: {}", io::Error::last_os_error());
            loop {
                serve(listener.accept()?.0)?;
            }
        })?;
    }
    loop {
        thread::park();
    }
}

fn threads_server(listener: &TcpListener, count: usize) -> Result<()> {
    let one = |index: usize| -> Result<_> {
        let (stream, _) = listener.accept()?;
        let name = format!("thread-{index}");
        Ok(thread::Builder::new().name(name).spawn(move || serve(stream))?)
    };
    join((0..count).map(one).collect::<Result<_>>()?)
}

/// As inetd does: another program gets the connection as its standard input and output.
fn execute(stream: TcpStream) -> Result<()> {
    let input = OwnedFd::from(stream.try_clone()?);
    let output = OwnedFd::from(stream.try_clone()?);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read line; echo there"]).stdin(input).stdout(output);
    let mut child = command.spawn()?;
    drop(command);
    Owned::say("server", &stream, child.id(), "sh", &fs::canonicalize("/bin/sh")?)?;
    drop(stream);
    child.wait()?;
    Ok(())
}

/// One process accepts, another one gets the sockets (`SCM_RIGHTS`).
fn passing_server(listener: &TcpListener, count: usize) -> Result<()> {
    let (here, there) = UnixStream::pair()?;
    let child = fork(|| (0..count).try_for_each(|_| serve(receive(&there)?)))?;
    for _ in 0..count {
        pass(&here, &listener.accept()?.0)?;
    }
    let status = reap(child)?;
    ensure!(status == 0, "the worker ended with status {status}");
    Ok(())
}

fn join(threads: Vec<thread::JoinHandle<Result<()>>>) -> Result<()> {
    threads
        .into_iter()
        .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Does work in a process of its own, whose number is returned.
fn fork(work: impl FnOnce() -> Result<()>) -> Result<libc::pid_t> {
    // SAFETY: the test harness's other thread only waits, so it holds no lock that the child might need.
    match unsafe { libc::fork() } {
        -1 => bail!("fork: {}", io::Error::last_os_error()),
        0 => {
            let status = match work() {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("{error:#}");
                    1
                }
            };
            // SAFETY: it does not return, and nothing of the parent's is to be cleaned up here.
            unsafe { libc::_exit(status) }
        }
        child => Ok(child),
    }
}

fn reap(child: libc::pid_t) -> Result<libc::c_int> {
    let mut status = 0;
    // SAFETY: the status is alive and written to.
    let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
    ensure!(reaped == child, "waitpid: {}", io::Error::last_os_error());
    Ok(status)
}

/// Room for one descriptor beside a message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 24]);

/// A message of one byte with room for a descriptor; the pointers are valid as long as the arguments.
fn message(byte: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all zeroes is a valid, empty header.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = byte;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    header
}

fn pass(to: &UnixStream, stream: &TcpStream) -> Result<()> {
    let (mut byte, mut control) = ([0_u8], Control([0; 24]));
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let header = message(&mut vector, &mut control);
    // SAFETY: the control buffer holds one header and one descriptor, and the message lives until the call ends.
    let sent = unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(4) as usize;
        ptr::write_unaligned(libc::CMSG_DATA(first).cast(), stream.as_raw_fd());
        libc::sendmsg(to.as_raw_fd(), &raw const header, 0)
    };
    ensure!(sent == 1, "sendmsg: {}", io::Error::last_os_error());
    Ok(())
}

fn receive(from: &UnixStream) -> Result<TcpStream> {
    let (mut byte, mut control) = ([0_u8], Control([0; 24]));
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut header = message(&mut vector, &mut control);
    // SAFETY: the message lives until the call ends.
    let received = unsafe { libc::recvmsg(from.as_raw_fd(), &raw mut header, 0) };
    ensure!(received == 1, "recvmsg: {}", io::Error::last_os_error());
    // SAFETY: the header describes the control buffer, which the kernel has filled.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header).as_ref() }.context("no descriptor came")?;
    // SAFETY: the descriptor is new, and nobody else has it.
    Ok(unsafe { TcpStream::from_raw_fd(ptr::read_unaligned(libc::CMSG_DATA(first).cast::<libc::c_int>())) })
}
