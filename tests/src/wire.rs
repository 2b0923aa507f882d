//! A wire between two namespaces that a test can cut, and on which it can hold up what is under way.

use crate::{frame, netns::Netns};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
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
    taps: [File; 2],
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
        let fds = taps.each_ref().map(File::as_raw_fd);
        let state = State { taps, mode: Mode::Pass, ended: false, fins: [None, None], held: Vec::new() };
        let shared = Arc::new(Mutex::new(state));
        let theirs = Arc::clone(&shared);
        let thread = Some(thread::spawn(move || carry(fds, &theirs)));
        Ok(Self { shared, thread })
    }

    /// What was sent before this is still treated as the mode before says, although it may wait in the device to be read.
    pub fn set(&self, mode: Mode) {
        let mut state = lock(&self.shared);
        state.carry();
        state.mode = mode;
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

fn carry(fds: [RawFd; 2], shared: &Mutex<State>) {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    loop {
        // SAFETY: there are two of them; the devices are open as long as the state, which is shared, is there.
        unsafe { libc::poll(polled.as_mut_ptr(), 2, POLL_MS) };
        let mut state = lock(shared);
        if state.ended {
            return;
        }
        state.carry();
    }
}

impl State {
    fn carry(&mut self) {
        self.read();
        self.deliver();
    }

    /// Takes all that the devices hold.
    fn read(&mut self) {
        let mut buffer = [0; LONGEST_FRAME];
        for from in 0..self.taps.len() {
            // The device is non-blocking: an error means that there is nothing more now.
            while let Ok(length) = self.taps[from].read(&mut buffer) {
                self.take(from, &buffer[..length]);
            }
        }
    }

    fn take(&mut self, from: usize, bytes: &[u8]) {
        if self.mode == Mode::Drop && frame::is_ipv4(bytes) {
            return;
        }
        if frame::is_fin(bytes) {
            self.fins[from] = Some(bytes.to_vec());
        }
        self.held.push((from, bytes.to_vec()));
    }

    /// Sends on what the mode lets pass.
    fn deliver(&mut self) {
        let mode = self.mode;
        let passes = |(_, frame): &(usize, Vec<u8>)| mode == Mode::Pass || !frame::is_ipv4(frame);
        let (passing, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held).into_iter().partition(passes);
        self.held = held;
        for (from, frame) in passing {
            // As on any wire, a frame may be lost; the interface may be down.
            let _ = self.taps[1 - from].write(&frame);
        }
    }
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
