//! Why the kernel refused a map, and what to do about it.

use anyhow::anyhow;
use aya::{EbpfError, maps::MapError};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::{hooks::say, load::Options, types::Types};

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
fn by_memlock(limit: u64) -> String {
    format!(
        "before 5.11 ring, tables and programs count against RLIMIT_MEMLOCK, which is {limit} bytes here and cannot be \
         raised without CAP_SYS_RESOURCE: start it with `ulimit -l unlimited` (a systemd unit: LimitMEMLOCK=infinity), \
         or lower --ring-size and --max-connections"
    )
}

/// Which map, why not, and what to do.
pub fn maps(error: &EbpfError, options: &Options, limit: Option<u64>) -> anyhow::Error {
    let EbpfError::MapError(MapError::CreateError { name, io_error }) = error else {
        return anyhow!("the kernel refused the programs' maps: {}", say(error));
    };
    let remedy = match (io_error.raw_os_error(), limit) {
        (Some(libc::ENOSYS), _) => {
            return anyhow!(
                "there is no bpf(2) here: run a kernel built with CONFIG_BPF_SYSCALL=y, outside of a sandbox or emulator \
                 that does not offer it"
            );
        }
        (Some(libc::EPERM), Some(limit)) => by_memlock(limit),
        (Some(libc::EPERM | libc::EACCES), None) => {
            "its privileges would do, so a seccomp profile (a container's) or a security module forbids bpf(2): allow \
             it there"
                .to_owned()
        }
        (Some(libc::ENOMEM), _) => {
            "there is not enough memory: lower --ring-size or --max-connections, or raise the memory limit of the \
             tracer's control group"
                .to_owned()
        }
        _ => "`tracer check` tells what this kernel allows".to_owned(),
    };
    anyhow!(
        "cannot make a ring of {} bytes (--ring-size) and tables for {} connections (--max-connections): the kernel \
         refused the map {name}: {}; {remedy}",
        options.ring_bytes,
        options.max_connections,
        say(error)
    )
}
