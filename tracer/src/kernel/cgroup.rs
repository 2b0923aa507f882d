//! The root control group, where the segments of every socket pass, whatever its network namespace.

use std::{fs, fs::File, os::unix::ffi::OsStrExt, path::PathBuf};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType},
};

use super::hooks::{Hook, say};

/// The program.
const PROGRAM: &str = "socket_segments";

/// Loads the program.
///
/// # Errors
/// There is no control group of version 2, or the kernel refused.
pub fn load(ebpf: &mut Ebpf) -> Result<(), String> {
    root()?;
    program(ebpf)?.load().map_err(|error| say(&error))
}

/// Attaches it for both directions, beside whatever others have there.
///
/// # Errors
/// There is no control group of version 2, or the kernel refused.
pub fn attach(ebpf: &mut Ebpf) -> Result<Hook, String> {
    let path = root()?;
    let root = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let program = program(ebpf)?;
    // A link is beside others whatever its mode says, and takes no flag that says so (`cgroup_bpf_link_attach`).
    for direction in [CgroupSkbAttachType::Ingress, CgroupSkbAttachType::Egress] {
        program
            .attach(&root, direction, CgroupAttachMode::Single)
            .map_err(|error| format!("{}: {}", path.display(), say(&error)))?;
    }
    Ok(Hook {
        name: format!("cgroup_skb {}", path.display()),
        way: Some("cgroup_skb"),
        attached: true,
        reason: None,
        lost: None,
        required: false,
    })
}

/// The hook that could not be attached.
pub fn refused(reason: String) -> Hook {
    Hook {
        name: "cgroup_skb".to_owned(),
        way: None,
        attached: false,
        reason: Some(reason),
        lost: Some(
            "the first HTTP exchanges of a network namespace that is new, until its interfaces are watched",
        ),
        required: false,
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut CgroupSkb, String> {
    let found = ebpf.program_mut(PROGRAM).ok_or("the object lacks this program")?;
    found.try_into().map_err(|error: aya::programs::ProgramError| say(&error))
}

/// Where the hierarchy of version 2 is mounted from its root on. (From inside of a cgroup namespace `/` is that
/// namespace's root.)
fn root() -> Result<PathBuf, &'static str> {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    root_in(&mounts)
        .ok_or("no cgroup2 file system is mounted (mount -t cgroup2 none /sys/fs/cgroup; systemd does it)")
}

/// A line of mountinfo: number, parent, device, root, mount point, options, fields up to `-`, type, …
fn root_in(mounts: &[u8]) -> Option<PathBuf> {
    mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let root = fields.nth(3)?;
        let point = fields.next()?;
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        (kind == b"cgroup2" && root == b"/")
            .then(|| PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(point))))
    })
}

/// The kernel writes a blank, tab, line feed and backslash as `\` and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_version_2() {
        let of = |text: &str| root_in(text.as_bytes());
        let unified = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(of(unified), Some("/sys/fs/cgroup".into()));
        let hybrid = "31 24 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      32 24 0:28 / /mnt/a\\040b rw master:1 propagate_from:2 - cgroup2 none rw\n";
        assert_eq!(of(hybrid), Some("/mnt/a b".into()));
        assert_eq!(of("30 24 0:26 /user.slice /mnt rw - cgroup2 cgroup2 rw\n"), None);
        assert_eq!(of("30 24\n\n- - -\n"), None);
    }
}
