//! The contract between the kernel programs and the daemon: every ring record, map key and map value, once.
//!
//! Integers only, `#[repr(C)]`, padding spelled out, sizes asserted. Times are `bpf_ktime_get_ns` (CLOCK_MONOTONIC,
//! nanoseconds). Addresses are 16 bytes in network order, IPv4 as `::ffff:a.b.c.d`; ports are in host order.
//! [`ABI_VERSION`] is checked by the daemon at load.
#![no_std]

mod config;
mod conn;
mod flow;
mod record;

pub use config::*;
pub use conn::*;
pub use flow::*;
pub use record::*;

/// Changes with every incompatible change of this crate.
pub const ABI_VERSION: u32 = 1;

/// Implements `aya::Pod` for the daemon and asserts a type's size in bytes.
macro_rules! contract {
    ($($ty:ty = $size:expr),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$ty>() == $size);
        // SAFETY: integers only, `repr(C)`, no implicit padding (the size assertion holds).
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $ty {}
    )+};
}
pub(crate) use contract;
