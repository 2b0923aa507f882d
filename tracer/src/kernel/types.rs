//! The running kernel's types, from its BTF: where structure members are and which tracepoints exist.

use anyhow::{Result, anyhow};
use tracer_ebpf::{Fields, MISSING};

use super::btf::Btf;

pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The kernel's types.
pub struct Types(Btf);

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub offset_bytes: u32,
    pub size_bytes: usize,
}

impl Types {
    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// The kernel has none (`CONFIG_DEBUG_INFO_BTF` off), or it cannot be read.
    pub fn of_running_kernel() -> Result<Self> {
        let read = || anyhow::Ok(Btf::parse(std::fs::read(VMLINUX)?)?);
        let types = read().map_err(|error| {
            anyhow!(
                "cannot read the kernel's own type information (BTF) from {VMLINUX}: {error}. Run a kernel built with \
                 CONFIG_DEBUG_INFO_BTF=y (all current distribution kernels are), and in a container with the host's /sys"
            )
        })?;
        Ok(Self(types))
    }

    /// Finds a member by name in a structure, anonymous members included. Bit-fields are not found: a load cannot be
    /// one.
    pub fn member(&self, structure: &str, name: &str) -> Option<Member> {
        let found = self.0.member(structure, name)?;
        let whole = found.offset_bits.is_multiple_of(8);
        whole.then_some(Member { offset_bytes: found.offset_bits / 8, size_bytes: found.size_bytes })
    }

    /// Number of arguments of a tracepoint, `None` when the kernel does not have it. (`btf_trace_NAME` is a pointer to
    /// the probe's prototype, whose first parameter is the registration's own data.)
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        self.0.typedef_parameters(&format!("btf_trace_{name}"))?.checked_sub(1)
    }

    /// Whether the kernel has a function. (Its BTF has those of helpers that programs may call.)
    pub fn has_function(&self, name: &str) -> bool {
        self.function(name).is_some()
    }

    /// A function's number, by which a program calls it.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.0.function(name)
    }

    /// A structure's number.
    pub fn structure(&self, name: &str) -> Option<u32> {
        self.0.structure(name)
    }

    /// Number of a function's parameters, `None` when the kernel's types lack it.
    pub fn function_parameters(&self, name: &str) -> Option<usize> {
        self.0.function_parameters(name)
    }

    /// Whether the kernel has a structure.
    pub fn has_structure(&self, name: &str) -> bool {
        self.0.structure_size(name).is_some()
    }

    /// Whether the kernel has a type of this name for another one.
    pub fn has_typedef(&self, name: &str) -> bool {
        self.0.has_typedef(name)
    }

    /// Offsets of all members that the programs read. The second value names those the kernel lacks (or has in
    /// another size), as `structure.member`.
    pub fn fields(&self) -> (Fields, Vec<String>) {
        let mut missing = Vec::new();
        let mut at = |structure: &str, name: &str, size: usize| match self.member(structure, name) {
            Some(member) if member.size_bytes == size => member.offset_bytes,
            _ => {
                missing.push(format!("{structure}.{name}"));
                MISSING
            }
        };
        let fields = Fields {
            skc_family: at("sock_common", "skc_family", 2),
            skc_num: at("sock_common", "skc_num", 2),
            skc_dport: at("sock_common", "skc_dport", 2),
            skc_daddr: at("sock_common", "skc_daddr", 4),
            skc_rcv_saddr: at("sock_common", "skc_rcv_saddr", 4),
            skc_v6_daddr: at("sock_common", "skc_v6_daddr", 16),
            skc_v6_rcv_saddr: at("sock_common", "skc_v6_rcv_saddr", 16),
            skc_state: at("sock_common", "skc_state", 1),
            skc_flags: at("sock_common", "skc_flags", 8),
            skc_net: at("sock_common", "skc_net", 8),
            sk_err: at("sock", "sk_err", 4),
            sk_protocol: at("sock", "sk_protocol", 2),
            inet_sport: at("inet_sock", "inet_sport", 2),
            bytes_sent: at("tcp_sock", "bytes_sent", 8),
            bytes_retrans: at("tcp_sock", "bytes_retrans", 8),
            bytes_received: at("tcp_sock", "bytes_received", 8),
            segs_in: at("tcp_sock", "segs_in", 4),
            segs_out: at("tcp_sock", "segs_out", 4),
            total_retrans: at("tcp_sock", "total_retrans", 4),
            srtt_us: at("tcp_sock", "srtt_us", 4),
            // struct minmax: three samples of time and value.
            rtt_min: at("tcp_sock", "rtt_min", 24),
            snd_nxt: at("tcp_sock", "snd_nxt", 4),
            write_seq: at("tcp_sock", "write_seq", 4),
            rcv_nxt: at("tcp_sock", "rcv_nxt", 4),
            linger2: at("tcp_sock", "linger2", 4),
            net_inum: {
                let ns = at("net", "ns", self.0.structure_size("ns_common").unwrap_or(0));
                sum(ns, at("ns_common", "inum", 4))
            },
            // Before 5.12 an `atomic64_t`, which is 0 until somebody asks for the cookie.
            net_cookie: match self.0.member_is_integer("net", "net_cookie") {
                true => at("net", "net_cookie", 8),
                false => MISSING,
            },
            task_group_leader: at("task_struct", "group_leader", 8),
            task_start_boottime: at("task_struct", "start_boottime", 8),
            task_tgid: at("task_struct", "tgid", 4),
            task_comm: at("task_struct", "comm", 16),
            socket_sk: at("socket", "sk", 8),
            skc_cookie: at("sock_common", "skc_cookie", 8),
            skc_refcnt: at("sock_common", "skc_refcnt", 4),
            tw_timer: at("inet_timewait_sock", "tw_timer", self.0.structure_size("timer_list").unwrap_or(0)),
            tw_substate: at("inet_timewait_sock", "tw_substate", 1),
            timer_function: at("timer_list", "function", 8),
            skb_dev: at("sk_buff", "dev", 8),
            dev_net: at("net_device", "nd_net", 8),
            skb_gso_segs: {
                let block = at("sk_buff", "cb", 48);
                sum(block, at("tcp_skb_cb", "tcp_gso_segs", 2))
            },
            skb_head: at("sk_buff", "head", 8),
            skb_network_header: at("sk_buff", "network_header", 2),
            skb_transport_header: at("sk_buff", "transport_header", 2),
            icsk_bind_hash: at("inet_connection_sock", "icsk_bind_hash", 8),
            task_mm: at("task_struct", "mm", 8),
            mm_exe_file: at("mm_struct", "exe_file", 8),
            file_mount: sum(at("file", "f_path", 16), at("path", "mnt", 8)),
            file_dentry: sum(at("file", "f_path", 16), at("path", "dentry", 8)),
            dentry_parent: at("dentry", "d_parent", 8),
            dentry_name: sum(at("dentry", "d_name", 16), at("qstr", "name", 8)),
            mount_root: at("vfsmount", "mnt_root", 8),
            mount_self: at("mount", "mnt", self.0.structure_size("vfsmount").unwrap_or(0)),
            mount_parent: at("mount", "mnt_parent", 8),
            mount_point: at("mount", "mnt_mountpoint", 8),
            task_cgroups: at("task_struct", "cgroups", 8),
            css_set_cgroup: at("css_set", "dfl_cgrp", 8),
            cgroup_node: at("cgroup", "kn", 8),
            node_name: at("kernfs_node", "name", 8),
            // Its name until 6.14, and since.
            node_parent: match self.member("kernfs_node", "parent") {
                Some(parent) => parent.offset_bytes,
                None => at("kernfs_node", "__parent", 8),
            },
        };
        (fields, missing)
    }

    /// Values and names of an enumeration, without the prefix that all names share; empty when the kernel lacks it.
    pub fn enumerators(&self, name: &str) -> Vec<(u32, String)> {
        let prefix = format!("{}_", name.to_uppercase());
        let short = |full: String| full.strip_prefix(&prefix).map(str::to_owned).unwrap_or(full);
        self.0.enumerators(name).into_iter().map(|(value, full)| (value, short(full))).collect()
    }
}

/// Offset of a member of a member.
fn sum(outer: u32, inner: u32) -> u32 {
    if outer == MISSING || inner == MISSING { MISSING } else { outer + inner }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets that have not moved from 5.10 to 6.18, checked against the kernel that the tests run on.
    #[test]
    fn finds_members_of_the_running_kernel() {
        let types = Types::of_running_kernel().unwrap();
        assert_eq!(types.member("sock_common", "skc_daddr"), Some(Member { offset_bytes: 0, size_bytes: 4 }));
        assert_eq!(
            types.member("sock_common", "skc_dport"),
            Some(Member { offset_bytes: 12, size_bytes: 2 })
        );
        assert_eq!(types.member("sock_common", "skc_v6_daddr").unwrap().offset_bytes, 56);
        assert_eq!(types.member("sock_common", "no_such_member"), None);
        assert_eq!(types.tracepoint_arguments("inet_sock_set_state"), Some(3));
        assert_eq!(types.tracepoint_arguments("no_such_tracepoint"), None);
        assert_eq!(types.function_parameters("inet_twsk_kill"), Some(1));
        assert_eq!(types.function_parameters("no_such_function"), None);
        let (fields, missing) = types.fields();
        assert_eq!(missing, Vec::<String>::new());
        assert_eq!(fields.skc_family, 16);
        assert_eq!(fields.skc_flags, 96);
    }
}
