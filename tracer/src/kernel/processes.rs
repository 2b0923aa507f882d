//! Executable, control group and container of a process, read once while it lives.

use std::{collections::HashMap, fs, os::unix::ffi::OsStringExt, sync::Arc};

use tracer_ebpf::{Owner, Path, ProcessRecord};

use crate::{
    source::recorded::Asked,
    track::{ProcessInfo, Processes},
};

/// Most processes remembered; past it all are forgotten and those that live are read again.
const MAX_PROCESSES: usize = 16_384;

/// `/proc`, with a memory for processes that are gone.
#[derive(Debug)]
pub struct ProcProcesses {
    known: HashMap<(u32, u64), Option<Arc<ProcessInfo>>>,
    ticks_per_s: u64,
    /// What was read since it was taken, for a recording.
    asked: Option<Vec<Asked>>,
}

impl Default for ProcProcesses {
    fn default() -> Self {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        Self { known: HashMap::new(), ticks_per_s: ticks as u64, asked: None }
    }
}

impl Processes for ProcProcesses {
    fn info(&mut self, owner: &Owner) -> Option<Arc<ProcessInfo>> {
        if self.known.len() >= MAX_PROCESSES {
            self.known.clear();
        }
        let key = (owner.pid, owner.start_ns);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let info = self.read(owner);
        if let Some(asked) = &mut self.asked {
            asked.push(Asked { pid: owner.pid, start_ns: owner.start_ns, info: info.clone() });
        }
        let info = info.map(Arc::new);
        self.known.insert(key, info.clone());
        info
    }
}

impl ProcProcesses {
    /// A process was introduced: reads it again, since its executable may be another since (`execve` keeps the pid).
    /// If it is gone already, what the kernel side read of it has to do.
    pub fn introduce(&mut self, process: &ProcessRecord) {
        let key = (process.owner.pid, process.owner.start_ns);
        self.known.remove(&key);
        if self.info(&process.owner).is_none_or(|info| info.exe.is_none()) {
            let cgroup = path(&process.control_group);
            let container = cgroup.as_deref().and_then(container_id);
            let info = ProcessInfo { exe: path(&process.executable), cgroup, container };
            self.known.insert(key, Some(Arc::new(info)));
        }
    }

    /// Keeps what is read from now on, to be taken.
    pub fn keep_asked(&mut self) {
        self.asked = Some(Vec::new());
    }

    /// What was read since.
    pub fn take_asked(&mut self) -> Vec<Asked> {
        self.asked.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn read(&self, owner: &Owner) -> Option<ProcessInfo> {
        let proc = format!("/proc/{}", owner.pid);
        let stat = fs::read(format!("{proc}/stat")).ok()?;
        let started_ticks = start_ticks(&stat)?;
        // The same pid may be another process by now, or another one in our pid namespace.
        let owner_ticks = owner.start_ns / (1_000_000_000 / self.ticks_per_s);
        if owner.start_ns != 0 && started_ticks.abs_diff(owner_ticks) > 1 {
            return None;
        }
        let exe = fs::read_link(format!("{proc}/exe")).ok().map(|path| path.into_os_string().into_vec());
        let cgroup = fs::read(format!("{proc}/cgroup")).ok().and_then(|text| cgroup_path(&text));
        let container = cgroup.as_deref().and_then(container_id);
        Some(ProcessInfo { exe, cgroup, container })
    }
}

/// A path that the kernel side read; `None` when it could not read all of it.
fn path(path: &Path) -> Option<Vec<u8>> {
    let names = path.names.get(..path.len as usize)?;
    if path.known == 0 {
        return None;
    }
    let names = names.strip_suffix(b"\0").unwrap_or(names);
    let whole: Vec<u8> = names
        .rsplit(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .flat_map(|name| [b"/", name].concat())
        .collect();
    Some(if whole.is_empty() { b"/".to_vec() } else { whole })
}

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot. The command name before may hold anything, `)` included.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let after_name = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
    let fields = std::str::from_utf8(after_name).ok()?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The cgroup v2 path (`0::/…`), or without one that of systemd's own v1 hierarchy.
fn cgroup_path(text: &[u8]) -> Option<Vec<u8>> {
    let lines = || text.split(|byte| *byte == b'\n');
    let unified = lines().find_map(|line| line.strip_prefix(b"0::"));
    let systemd =
        || lines().find_map(|line| line.splitn(3, |byte| *byte == b':').nth(2).filter(|_| is_systemd(line)));
    unified.or_else(systemd).map(<[u8]>::to_vec)
}

fn is_systemd(line: &[u8]) -> bool {
    line.splitn(3, |byte| *byte == b':').nth(1) == Some(b"name=systemd")
}

/// The 64 hexadecimal digits by which Docker, containerd, CRI-O and Podman name a container's control group, whatever
/// they put around them (`docker-ID.scope`, `cri-containerd-ID.scope`, `libpod-ID.scope`, `/docker/ID`).
fn container_id(cgroup: &[u8]) -> Option<String> {
    let is_id = |part: &&[u8]| part.len() == 64 && part.iter().all(u8::is_ascii_hexdigit);
    cgroup
        .split(|byte| !byte.is_ascii_alphanumeric())
        .rfind(is_id)
        .map(|id| String::from_utf8_lossy(id).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_ebpf::{NAME_BYTES, PATH_BYTES};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn containers_by_control_group() {
        for pattern in [
            format!("/system.slice/docker-{ID}.scope"),
            format!("/docker/{ID}"),
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/kubepods/besteffort/pod1/crio-{ID}"),
        ] {
            assert_eq!(container_id(pattern.as_bytes()).as_deref(), Some(ID), "{pattern}");
        }
        assert_eq!(container_id(b"/user.slice/user-0.slice/session-1.scope"), None);
    }

    #[test]
    fn control_group_of_either_version() {
        assert_eq!(cgroup_path(b"12:cpu:/x\n0::/a/b\n").as_deref(), Some(&b"/a/b"[..]));
        assert_eq!(
            cgroup_path(b"12:cpu:/x\n1:name=systemd:/init.scope\n").as_deref(),
            Some(&b"/init.scope"[..])
        );
        assert_eq!(cgroup_path(b""), None);
    }

    #[test]
    fn start_time_behind_a_hostile_name() {
        let stat = b"7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000 2";
        assert_eq!(start_ticks(stat), Some(12345));
        assert_eq!(start_ticks(b"7 (x"), None);
    }

    #[test]
    fn paths_are_read_leaf_first() {
        let of = |names: &[u8], known| {
            let mut read = Path { len: names.len() as u32, known, names: [0; PATH_BYTES + NAME_BYTES] };
            read.names[..names.len()].copy_from_slice(names);
            path(&read)
        };
        assert_eq!(of(b"curl\0bin\0usr\0", 1).as_deref(), Some(&b"/usr/bin/curl"[..]));
        assert_eq!(of(b"", 1).as_deref(), Some(&b"/"[..]));
        assert_eq!(of(b"curl\0bin\0", 0), None);
        assert_eq!(path(&Path { len: u32::MAX, known: 1, names: [0; PATH_BYTES + NAME_BYTES] }), None);
    }

    #[test]
    fn our_own_process_is_found() {
        let mut processes = ProcProcesses::default();
        let info = processes.info(&Owner { pid: std::process::id(), ..Owner::default() }).unwrap();
        assert_eq!(info.exe, Some(std::env::current_exe().unwrap().into_os_string().into_vec()));
    }
}
