//! A kernel that refuses some of what bpf(2) offers: a seccomp filter asks this process about each of the daemon's calls.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    thread,
};

/// What is asked for: a command of bpf(2) and the beginning of its attributes.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub command: u64,
    attributes: [u32; WORDS],
}

/// Words of the attributes that are looked at: up to `expected_attach_type` of `BPF_PROG_LOAD`.
const WORDS: usize = 18;

/// `enum bpf_cmd`, `bpf_map_type`, `bpf_prog_type` and `bpf_attach_type` of include/uapi/linux/bpf.h.
mod number {
    pub const MAP_CREATE: u64 = 0;
    pub const PROG_LOAD: u64 = 5;
    pub const PROG_ATTACH: u64 = 8;
    pub const LINK_CREATE: u64 = 28;
    pub const RINGBUF: u32 = 27;
    pub const KPROBE: u32 = 2;
    pub const CGROUP_SKB: u32 = 8;
    pub const TRACING: u32 = 26;
    pub const CGROUP_INET: [u32; 2] = [0, 1];
    pub const TRACE_RAW_TP: u32 = 23;
    pub const TRACE_FENTRY: u32 = 24;
    pub const TRACE_FEXIT: u32 = 25;
    pub const TRACE_ITER: u32 = 28;
    pub const TCX: [u32; 2] = [46, 47];
}

impl Call {
    /// A ring buffer.
    pub fn makes_ring(&self) -> bool {
        self.command == number::MAP_CREATE && self.attributes[0] == number::RINGBUF
    }

    /// A program at a tracepoint, by its types.
    pub fn loads_tracepoint(&self) -> bool {
        self.loads_tracing(&[number::TRACE_RAW_TP])
    }

    pub fn loads_iterator(&self) -> bool {
        self.loads_tracing(&[number::TRACE_ITER])
    }

    /// A program at a function, of any kind.
    pub fn loads_probe(&self) -> bool {
        self.loads(number::KPROBE) || self.loads_tracing(&[number::TRACE_FENTRY, number::TRACE_FEXIT])
    }

    pub fn loads_for_control_group(&self) -> bool {
        self.loads(number::CGROUP_SKB)
    }

    pub fn attaches_to_control_group(&self) -> bool {
        [number::LINK_CREATE, number::PROG_ATTACH].contains(&self.command)
            && number::CGROUP_INET.contains(&self.attributes[2])
    }

    pub fn attaches_to_tcx(&self) -> bool {
        self.command == number::LINK_CREATE && number::TCX.contains(&self.attributes[2])
    }

    fn loads(&self, kind: u32) -> bool {
        self.command == number::PROG_LOAD && self.attributes[0] == kind
    }

    fn loads_tracing(&self, attach: &[u32]) -> bool {
        self.loads(number::TRACING) && attach.contains(&self.attributes[17])
    }
}

/// What to answer: an error number, or `None` where the kernel itself is to answer.
pub type Rule = fn(&Call) -> Option<libc::c_int>;

/// Does `start`, which starts processes, on a thread for whose processes a rule holds as long as they live.
pub fn refusing<T: Send>(rule: Rule, start: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let listener = install().context("cannot install a seccomp filter")?;
            thread::spawn(move || answer(&listener, rule));
            start()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A filter of the calling thread and what it starts that hands on bpf(2).
fn install() -> Result<OwnedFd> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let number = libc::SYS_bpf as u32;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number) },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let (operation, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the program and its filter are as long as they say and live until the call is done.
    let status = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
    ensure!(status >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just opened it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(status as libc::c_int) })
}

/// Answers until nobody is left for whom the filter holds.
fn answer(listener: &OwnedFd, rule: Rule) {
    // `SECCOMP_IOCTL_NOTIF_RECV` and `_SEND` (include/uapi/linux/seccomp.h).
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    const SEND: libc::c_ulong = 0xc018_2101;
    let fd = listener.as_raw_fd();
    loop {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, as said.
        let ready = unsafe { libc::poll(&raw mut poll, 1, -1) };
        if ready > 0 && poll.revents & libc::POLLIN == 0 {
            return;
        }
        // SAFETY: integers only, for which zero is a value; the kernel asks for zeros.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is the one of this request.
        if unsafe { libc::ioctl(fd, RECEIVE, &raw mut asked) } != 0 {
            // Who asked was killed meanwhile.
            continue;
        }
        let mut answer = libc::seccomp_notif_resp { id: asked.id, val: 0, error: 0, flags: 0 };
        match call(&asked).map(|call| rule(&call)) {
            Ok(None) => answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            Ok(Some(error)) => answer.error = -error,
            Err(_) => answer.error = -libc::EIO,
        }
        // SAFETY: as above. Who asked may have been killed meanwhile, and needs no answer then.
        unsafe { libc::ioctl(fd, SEND, &raw mut answer) };
    }
}

/// What a waiting thread asks of the kernel.
fn call(asked: &libc::seccomp_notif) -> io::Result<Call> {
    let [command, address, size, ..] = asked.data.args;
    let mut bytes = [0; WORDS * 4];
    let len = bytes.len().min(size as usize);
    let memory = File::open(format!("/proc/{}/mem", asked.pid))?;
    memory.read_exact_at(&mut bytes[..len], address)?;
    let mut attributes = [0; WORDS];
    for (word, bytes) in attributes.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    Ok(Call { command, attributes })
}
