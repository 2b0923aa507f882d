//! Work that no other task may interrupt. The kernel skips a tracing program that is running on this CPU already
//! (`prog->active`). Up to 6.18 a tracepoint cannot be preempted, so only a softirq or an interrupt can come in between
//! (see `twice`). Later kernels may put another task in its place, and another one behind that: for as long as those wait for
//! their turn, the programs would miss what everybody on the CPU does.

use core::arch::asm;

use tracer_ebpf::call;

/// Calls a function of the kernel that has neither arguments nor a result. The daemon puts its address in, or takes the call
/// out where the kernel has no such function.
macro_rules! call {
    ($function:path) => {
        // SAFETY: a call may change the registers that are named.
        unsafe {
            asm!(
                "call {function}",
                function = const $function,
                out("r0") _, out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _,
            )
        }
    };
}

/// Does the work from its beginning to its end on this CPU, before any other task does anything there.
#[inline(always)]
pub fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    call!(call::PREEMPT_DISABLE);
    let result = work();
    call!(call::PREEMPT_ENABLE);
    result
}
