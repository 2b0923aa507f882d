//! The kernel programs. Each file holds one subject; the records they write are defined in the library.
#![no_std]
#![no_main]
// BPF has an atomic add since the beginning, but `AtomicU64` offers none to a target without compare-and-swap.
#![expect(internal_features)]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value it would be copied on the 512-byte stack"
)]

mod capture;
mod connections;
mod fields;
mod flows;
mod globals;
mod head;
mod headers;
mod mini_sockets;
mod owner;
mod paths;
mod payload;
mod perf;
mod reconcile;
mod registers;
mod reset;
mod retransmit;
mod ring;
mod scratch;
mod segment;
mod shown;
mod snapshot;
mod sockets;
mod state;
mod timers;
mod timewait;
mod twice;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
