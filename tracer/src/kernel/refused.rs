//! Why the kernel refused a map, and what to do about it.

use aya::{EbpfError, maps::MapError};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::{hooks::say, types::Types};

/// The bound on locked memory, in bytes, where it counts and cannot be raised: before 5.11 the kernel holds maps and programs
/// against it. `None`: nothing to fear from it.
pub fn memlock_limit(types: &Types) -> Option<u64> {
    // What a map is charged with, which 5.11 did away with.
    let counts = types.has_structure("bpf_map_memory");
    if !counts || setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok() {
        return None;
    }
    // As far as everybody may.
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    (hard != RLIM_INFINITY).then_some(hard)
}

/// What a low limit means, and how it is raised.
pub fn by_memlock(limit: u64) -> String {
    format!(
        "before 5.11 ring, tables and programs count against RLIMIT_MEMLOCK, which is {limit} bytes here and cannot be \
         raised without CAP_SYS_RESOURCE: start it with `ulimit -l unlimited` (a systemd unit: LimitMEMLOCK=infinity), \
         or lower --ring-size and --max-connections"
    )
}

/// Which map, and why not.
pub fn maps(error: &EbpfError, limit: Option<u64>) -> String {
    let (name, errno) = match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => (name, io_error.raw_os_error()),
        other => return format!("the kernel refused the programs' maps: {}", say(other)),
    };
    let remedy = match (errno, limit) {
        (Some(libc::EPERM), Some(limit)) => by_memlock(limit),
        (Some(libc::ENOMEM), _) => {
            "there is not enough memory: lower --ring-size or --max-connections, or raise the memory limit of the \
             tracer's control group"
                .to_owned()
        }
        (Some(libc::EPERM | libc::EACCES), None) => {
            "its privileges would do, so a seccomp profile (a container's) or a security module forbids bpf(2): allow it there"
                .to_owned()
        }
        _ => "`tracer check` tells what this kernel allows".to_owned(),
    };
    format!("the kernel refused the map {name}: {}; {remedy}", say(error))
}
