//! Calls of bpf(2) for a map: until they are done, no program by perf or kprobe runs on that processor
//! (`bpf_disable_instrumentation`). A kernel that preempts a task in the midst of such a call leaves them off for as long as others
//! run. So the thread stands above usual tasks for that moment.

use nix::{
    libc,
    sys::resource::{Resource, setrlimit},
};

/// The lowest real-time priority (sched(7)).
const PRIORITY: libc::c_int = 1;

/// How they are made.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    unpreempted: bool,
}

impl Calls {
    /// `unpreempted`: whether it is of use. To be asked for before privileges are given up; where it is refused, calls are
    /// made as they are.
    pub fn new(unpreempted: bool) -> Self {
        let priority = PRIORITY as libc::rlim_t;
        Self { unpreempted: unpreempted && setrlimit(Resource::RLIMIT_RTPRIO, priority, priority).is_ok() }
    }

    /// Makes some, which must be few.
    pub fn make<T>(self, calls: impl FnOnce() -> T) -> T {
        let raised = self.unpreempted && schedule(libc::SCHED_FIFO, PRIORITY);
        let result = calls();
        if raised {
            schedule(libc::SCHED_OTHER, 0);
        }
        result
    }
}

/// Of the calling thread.
fn schedule(policy: libc::c_int, priority: libc::c_int) -> bool {
    // SAFETY: integers, in the form of the platform.
    unsafe {
        let mut wanted: libc::sched_param = std::mem::zeroed();
        wanted.sched_priority = priority;
        libc::sched_setscheduler(0, policy, &raw const wanted) == 0
    }
}
