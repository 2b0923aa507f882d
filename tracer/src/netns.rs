//! The host's network namespaces, by inode (as in `/proc/PID/ns/net`).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::UdpSocket,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::PathBuf,
};

/// The one that this thread is in; 0 where there is no `/proc`.
pub fn own() -> u32 {
    of("thread-self").unwrap_or(0)
}

/// Cookie of the one that this thread is in; 0 before 5.14, which has no `SO_NETNS_COOKIE`.
pub fn own_cookie() -> u64 {
    /// include/uapi/asm-generic/socket.h
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::]:0")) else {
        return 0;
    };
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the buffer is 8 bytes, as `len` says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 { cookie } else { 0 }
}

/// The one that a process is in; `None` when it is gone.
pub fn of(pid: &str) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|metadata| metadata.ino() as u32)
}

/// Those that a process is in, each with one such process.
pub fn of_processes() -> BTreeMap<u32, u32> {
    let mut found = BTreeMap::new();
    for pid in processes() {
        if let Some(netns) = of(&pid.to_string()) {
            found.entry(netns).or_insert(pid);
        }
    }
    found
}

/// Those that a process is in or that `ip netns` keeps, open.
pub fn all() -> BTreeMap<u32, File> {
    let own = std::iter::once(PathBuf::from("/proc/self/ns/net"));
    let of_processes = processes().map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = BTreeMap::new();
    for path in own.chain(of_processes).chain(named) {
        // A process may be gone, or a name may be left over from one.
        let Ok(inode) = fs::metadata(&path).map(|metadata| metadata.ino() as u32) else { continue };
        if !found.contains_key(&inode)
            && let Ok(file) = File::open(&path)
            && nix::sys::statfs::fstatfs(&file)
                .is_ok_and(|of| of.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
        {
            found.insert(inode, file);
        }
    }
    found
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
