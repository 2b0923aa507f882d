//! The kernel side from the daemon's view: what this kernel offers, load, attach, read, detach.

mod btf;
mod calls;
mod cgroup;
mod elsewhere;
mod hooks;
mod interfaces;
mod load;
#[cfg(feature = "ebpf-log")]
mod log;
mod object;
mod perf;
mod privileges;
mod processes;
mod refused;
mod registers;
mod snapshot;
mod tables;
pub mod types;
mod ways;

pub use elsewhere::Elsewhere;
pub use hooks::Hook;
pub use interfaces::{Interfaces, LinkChanges};
pub use load::{Capture, Kernel, Options};
pub use privileges::{OF_OTHERS, drop_unneeded, lockdown, missing_privileges, sees_others};
pub use processes::ProcProcesses;
pub use tables::Tables;
pub use ways::Tier;
