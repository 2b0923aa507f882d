//! A mixed load: many short lives of connections, each thread keeping a log of what it did.

use crate::{netns::Netns, wait};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    mem,
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Exchanges on a connection that is kept.
pub const EXCHANGES: usize = 5;
/// Nothing listens here.
pub const CLOSED_PORT: u16 = 7;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One exchange, then the client closes.
    Short,
    /// One exchange, then the server closes.
    ServerCloses,
    /// Several exchanges, then the client closes.
    KeepAlive,
    /// Nothing listens there.
    Refused,
    /// One exchange, then the client closes with `SO_LINGER` 0.
    ClientResets,
    /// The server closes with `SO_LINGER` 0 instead of a second answer.
    ServerResets,
    /// The client says that it will send no more, and only then gets the answer.
    HalfClosed,
    /// The client closes without having read the answer.
    Unread,
}

impl Kind {
    /// Those that come to a good end whatever is lost on the way.
    pub const PEACEFUL: [Self; 4] = [Self::Short, Self::ServerCloses, Self::KeepAlive, Self::HalfClosed];
    pub const ALL: [Self; 8] = [
        Self::Short,
        Self::ServerCloses,
        Self::KeepAlive,
        Self::Refused,
        Self::ClientResets,
        Self::ServerResets,
        Self::HalfClosed,
        Self::Unread,
    ];

    fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| format!("{kind:?}") == name);
        found.with_context(|| format!("no kind {name}"))
    }

    /// Requests on it, and answers to them.
    pub fn exchanges(self) -> (usize, usize) {
        match self {
            Self::Refused => (0, 0),
            Self::KeepAlive => (EXCHANGES, EXCHANGES),
            Self::ServerResets => (2, 1),
            _ => (1, 1),
        }
    }
}

/// What one end of a connection did.
#[derive(Clone, Debug)]
pub struct End {
    pub kind: Kind,
    pub role: &'static str,
    pub pid: u32,
    pub tid: i32,
    /// Not known where the connection was refused.
    pub local: Option<SocketAddr>,
    pub remote: SocketAddr,
    pub sent: u64,
    pub received: u64,
}

/// A load from one namespace to a server in the same or another one.
#[derive(Debug)]
pub struct Load<'a> {
    pub client: &'a Netns,
    pub server: &'a Netns,
    /// Addresses of the server, used in turn.
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    pub kinds: Vec<Kind>,
    pub count: usize,
    pub threads: usize,
}

impl Load<'_> {
    /// Runs it from the first connection to the last; what every end did. No socket is left open.
    pub fn run(&self) -> Result<Vec<End>> {
        let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, self.port));
        let listener = self.server.enter(|| Ok(TcpListener::bind(any)?))?;
        impatient(&listener)?;
        let accepted = (0..self.count).filter(|index| self.kind(*index) != Kind::Refused).count();
        let (left, next) = (AtomicUsize::new(accepted), AtomicUsize::new(0));
        let ends = Mutex::new(Vec::new());
        thread::scope(|scope| {
            // One thread more serves than asks, so that nobody waits for long.
            let server = scope.spawn(|| {
                let take =
                    || left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok().then_some(());
                together(self.threads + 1, &ends, || take().map(|()| serve(&listener)))
            });
            let client = self.client.enter(|| {
                let take = || Some(next.fetch_add(1, Relaxed)).filter(|index| *index < self.count);
                together(self.threads, &ends, || take().map(|index| self.ask(index)))
            });
            client?;
            server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        Ok(ends.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn kind(&self, index: usize) -> Kind {
        self.kinds[index % self.kinds.len()]
    }

    fn ask(&self, index: usize) -> Result<End> {
        let kind = self.kind(index);
        // Another address only after all kinds, so that each address sees each kind.
        let address = self.addresses[index / self.kinds.len() % self.addresses.len()];
        ask(kind, SocketAddr::new(address, self.port)).with_context(|| format!("client of {kind:?}"))
    }
}

/// Does work on several threads until there is none left.
fn together(
    threads: usize,
    ends: &Mutex<Vec<End>>,
    work: impl Fn() -> Option<Result<End>> + Sync,
) -> Result<()> {
    thread::scope(|scope| {
        let one = || -> Result<()> {
            let mut mine = Vec::new();
            while let Some(end) = work() {
                mine.push(end?);
            }
            ends.lock().unwrap_or_else(PoisonError::into_inner).append(&mut mine);
            Ok(())
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter()
            .try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

impl End {
    fn new(kind: Kind, role: &'static str, local: Option<SocketAddr>, remote: SocketAddr) -> Self {
        let pid = std::process::id();
        // SAFETY: the call takes nothing and cannot fail.
        let tid = unsafe { libc::gettid() };
        Self {
            kind,
            role,
            pid,
            tid,
            local: local.map(canonical),
            remote: canonical(remote),
            sent: 0,
            received: 0,
        }
    }

    fn write(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
        stream.write_all(bytes)?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Reads a head, and what it announces; None when nothing comes any more.
    fn read(&mut self, stream: &mut TcpStream) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let mut wanted = None;
        while wanted.is_none_or(|wanted| bytes.len() < wanted) {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                ensure!(bytes.is_empty(), "the end in the midst of a message");
                return Ok(None);
            }
            bytes.extend_from_slice(&buffer[..read]);
            let head = bytes.windows(4).position(|part| part == b"\r\n\r\n").map(|at| at + 4);
            wanted = head.map(|head| head + body_length(&bytes[..head]));
        }
        ensure!(wanted == Some(bytes.len()), "more than one message");
        self.received += bytes.len() as u64;
        Ok(Some(String::from_utf8(bytes)?))
    }
}

fn body_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// Addresses as the tracer shows them.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn ask(kind: Kind, server: SocketAddr) -> Result<End> {
    if kind == Kind::Refused {
        let nowhere = SocketAddr::new(server.ip(), CLOSED_PORT);
        return match TcpStream::connect(nowhere) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                Ok(End::new(kind, "client", None, nowhere))
            }
            other => bail!("refusal expected: {other:?}"),
        };
    }
    let mut stream = patient(TcpStream::connect(server)?)?;
    let mut end = End::new(kind, "client", Some(stream.local_addr()?), server);
    let request = format!("GET /{kind:?} HTTP/1.1\r\nHost: test\r\n\r\n");
    for _ in 0..kind.exchanges().0 {
        end.write(&mut stream, request.as_bytes())?;
        match kind {
            Kind::HalfClosed => stream.shutdown(Shutdown::Write)?,
            Kind::Unread => {
                stream.peek(&mut [0])?;
                end.received += answer(kind).len() as u64;
                continue;
            }
            _ => {}
        }
        match end.read(&mut stream) {
            Ok(Some(_)) => {}
            Err(error) if kind == Kind::ServerResets && is_reset(&error) => {}
            other => bail!("no answer: {other:?}"),
        }
    }
    match kind {
        Kind::ServerCloses | Kind::HalfClosed => {
            ensure!(end.read(&mut stream)?.is_none(), "the server did not close");
        }
        Kind::ClientResets => abandon(&stream)?,
        _ => {}
    }
    Ok(end)
}

fn serve(listener: &TcpListener) -> Result<End> {
    let (stream, remote) = listener.accept()?;
    let mut stream = patient(stream)?;
    let mut end = End::new(Kind::Short, "server", Some(stream.local_addr()?), remote);
    loop {
        let request = match end.read(&mut stream) {
            Err(error) if matches!(end.kind, Kind::ClientResets | Kind::Unread) && is_reset(&error) => {
                return Ok(end);
            }
            other => other.with_context(|| format!("server of {:?}", end.kind))?,
        };
        let Some(request) = request else { return Ok(end) };
        let name = request.split_ascii_whitespace().nth(1).context("no target")?;
        let again = end.sent > 0;
        end.kind = Kind::named(name.trim_start_matches('/'))?;
        match end.kind {
            Kind::ServerResets if again => {
                abandon(&stream)?;
                return Ok(end);
            }
            Kind::HalfClosed => ensure!(end.read(&mut stream)?.is_none(), "half-closed"),
            _ => {}
        }
        end.write(&mut stream, answer(end.kind).as_bytes())?;
        if matches!(end.kind, Kind::ServerCloses | Kind::HalfClosed) {
            return Ok(end);
        }
    }
}

fn answer(kind: Kind) -> String {
    let (body, close) = match kind {
        Kind::ServerCloses | Kind::HalfClosed => ("b".repeat(3000), "Connection: close\r\n"),
        _ => ("b".repeat(200), ""),
    };
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{body}", body.len())
}

fn is_reset(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(ErrorKind::ConnectionReset)
}

fn patient(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(wait::LIMIT * 2))?;
    stream.set_write_timeout(Some(wait::LIMIT * 2))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes closing send a reset.
pub fn abandon(stream: &TcpStream) -> Result<()> {
    set_option(stream, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 })
}

/// Nobody waits for ever in `accept`.
pub fn impatient(listener: &TcpListener) -> Result<()> {
    let seconds = Duration::as_secs(&wait::LOAD_LIMIT).cast_signed();
    set_option(listener, libc::SO_RCVTIMEO, libc::timeval { tv_sec: seconds, tv_usec: 0 })
}

fn set_option<T>(socket: &impl std::os::fd::AsRawFd, option: libc::c_int, value: T) -> Result<()> {
    let size = mem::size_of::<T>() as libc::socklen_t;
    let value = (&raw const value).cast();
    // SAFETY: the descriptor is open, and the value is of that size and alive.
    let status = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, size) };
    ensure!(status == 0, "socket option {option}: {}", std::io::Error::last_os_error());
    Ok(())
}
