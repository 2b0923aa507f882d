//! What passes on a namespace's loopback interface, as a capture file.

use crate::{netns::Netns, pcap::Pcap, pcap::link, socket};
use anyhow::{Context as _, Result, ensure};
use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

/// Room for what comes while the thread does not run; it must not lose a packet.
const BUFFER_BYTES: libc::c_int = 256 << 20;
const LONGEST_FRAME: usize = 256 << 10;
const POLL_MS: libc::c_int = 50;

/// `ioctl` that tells when the last packet came (include/uapi/linux/sockios.h).
const SIOCGSTAMPNS: libc::c_ulong = 0x8907;

/// A packet socket and the thread that reads it.
#[derive(Debug)]
pub struct Sniffer {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<Pcap>>,
}

impl Sniffer {
    /// Sees everything from now on.
    pub fn start(netns: &Netns) -> Result<Self> {
        let socket = netns.enter(open)?;
        let ended = Arc::<AtomicBool>::default();
        let theirs = Arc::clone(&ended);
        let thread = thread::spawn(move || capture(&socket, &theirs));
        Ok(Self { ended, thread })
    }

    /// The capture so far, once nothing more comes.
    pub fn finish(self) -> Result<Pcap> {
        self.ended.store(true, Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn open() -> Result<OwnedFd> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the result is checked, and owned from there on.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all.into());
        ensure!(socket >= 0, "a packet socket: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(socket)
    };
    socket::set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_BYTES)?;
    Ok(socket)
}

fn capture(socket: &OwnedFd, ended: &AtomicBool) -> Result<Pcap> {
    let mut file = Pcap::new(link::ETHERNET);
    let mut buffer = vec![0u8; LONGEST_FRAME];
    loop {
        let mut fd = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        if unsafe { libc::poll(&raw mut fd, 1, POLL_MS) } <= 0 {
            if ended.load(Relaxed) {
                return Ok(file);
            }
            continue;
        }
        // SAFETY: buffer and address are as long as is said; plain integers.
        let (len, from) = unsafe {
            let mut from: libc::sockaddr_ll = std::mem::zeroed();
            let mut from_len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            let at = buffer.as_mut_ptr().cast();
            let from_at = (&raw mut from).cast();
            (libc::recvfrom(socket.as_raw_fd(), at, buffer.len(), 0, from_at, &raw mut from_len), from)
        };
        let len = usize::try_from(len).ok().context("receiving on the packet socket")?;
        // On loopback every packet goes out and comes in.
        if from.sll_pkttype == libc::PACKET_OUTGOING {
            continue;
        }
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes one timespec.
        let status = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSTAMPNS, &raw mut time) };
        ensure!(status == 0, "the time of a packet: {}", io::Error::last_os_error());
        file.packet(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64, &buffer[..len]);
    }
}
