//! A wire between two namespaces that a test can cut, and on which it can hold up what is under way.

use crate::{frame, netns::Netns};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

/// The interface's name in both namespaces.
const NAME: &str = "wire0";
const LONGEST_FRAME: usize = 2048;
/// How soon a change of mode is noticed on a silent wire.
const POLL_MS: libc::c_int = 2;

/// What happens to IPv4; other frames always pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    Drop,
    /// What is held goes on, in order, with the next `Pass`.
    Hold,
}

/// One of the two ends.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    Near,
    Far,
}

/// Two TAP devices and a thread between them; both disappear when dropped.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    ended: bool,
    /// The last FIN from each side.
    fins: [Option<Vec<u8>>; 2],
    /// Frames under way, with the side that they come from.
    held: Vec<(usize, Vec<u8>)>,
}

impl Wire {
    /// Joins two namespaces; the addresses are with prefix length.
    pub fn join(near: &Netns, near_address: &str, far: &Netns, far_address: &str) -> Result<Self> {
        let mut taps = Vec::new();
        for (netns, address) in [(near, near_address), (far, far_address)] {
            taps.push(netns.enter(open_tap)?);
            netns.run("ip", &["address", "add", address, "dev", NAME])?;
            netns.run("ip", &["link", "set", NAME, "up"])?;
        }
        let taps: [File; 2] = taps.try_into().ok().context("two ends")?;
        let state = State { mode: Mode::Pass, ended: false, fins: [None, None], held: Vec::new() };
        let shared = Arc::new(Mutex::new(state));
        let theirs = Arc::clone(&shared);
        let thread = Some(thread::spawn(move || carry(&taps, &theirs)));
        Ok(Self { shared, thread })
    }

    pub fn set(&self, mode: Mode) {
        lock(&self.shared).mode = mode;
    }

    /// Delivers a reset from a side, in sequence behind the last FIN that it sent.
    pub fn reset_after_fin(&self, from: Side) -> Result<()> {
        let mut state = lock(&self.shared);
        let fin = state.fins[from as usize].as_ref().context("no FIN came by")?;
        let reset = frame::reset_after_fin(fin).context("not a FIN")?;
        state.held.push((from as usize, reset));
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        lock(&self.shared).ended = true;
        if let Some(thread) = self.thread.take() {
            // A panic there was seen as a failure of the test already.
            let _ = thread.join();
        }
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn carry(taps: &[File; 2], shared: &Mutex<State>) {
    let poll = |tap: &File| libc::pollfd { fd: tap.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut buffer = [0; LONGEST_FRAME];
    loop {
        let mut polled = [poll(&taps[0]), poll(&taps[1])];
        // SAFETY: there are two of them.
        unsafe { libc::poll(polled.as_mut_ptr(), 2, POLL_MS) };
        let mut state = lock(shared);
        if state.ended {
            return;
        }
        for (from, tap) in taps.iter().enumerate() {
            // The device is non-blocking: an error means that there is nothing more now.
            while let Ok(length) = (&mut &*tap).read(&mut buffer) {
                state.take(from, &buffer[..length]);
            }
        }
        let mode = state.mode;
        let passes = |(_, frame): &(usize, Vec<u8>)| mode == Mode::Pass || !frame::is_ipv4(frame);
        let (passing, held): (Vec<_>, Vec<_>) = std::mem::take(&mut state.held).into_iter().partition(passes);
        state.held = held;
        for (from, frame) in passing {
            deliver(&taps[1 - from], &frame);
        }
    }
}

impl State {
    fn take(&mut self, from: usize, bytes: &[u8]) {
        if self.mode == Mode::Drop && frame::is_ipv4(bytes) {
            return;
        }
        if frame::is_fin(bytes) {
            self.fins[from] = Some(bytes.to_vec());
        }
        self.held.push((from, bytes.to_vec()));
    }
}

fn deliver(mut to: &File, frame: &[u8]) {
    // As on any wire, a frame may be lost; the interface may be down.
    let _ = to.write(frame);
}

/// A TAP device of the calling thread's namespace.
fn open_tap() -> Result<File> {
    const DEVICE: &str = "/dev/net/tun";
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = options.open(DEVICE).with_context(|| format!("cannot open {DEVICE}"))?;
    // SAFETY: all zeros are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request is what this call reads and writes.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    ensure!(status == 0, "cannot make a TAP device: {}", io::Error::last_os_error());
    Ok(file)
}
