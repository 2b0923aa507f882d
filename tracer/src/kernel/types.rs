//! The running kernel's types, from its BTF: where structure members are and which tracepoints exist.

use anyhow::{Context, Result};
use btf_rs::{Btf, Type};
use tracer_ebpf::{Fields, MISSING};

pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The kernel's BTF.
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
        let bytes = std::fs::read(VMLINUX).with_context(|| {
            format!(
                "cannot read the kernel's type information {VMLINUX}: run a kernel built with \
                 CONFIG_DEBUG_INFO_BTF=y (all current distribution kernels are), and mount /sys if this is a container"
            )
        })?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        Ok(Self(Btf::from_bytes(bytes).context("the kernel's BTF does not parse")?))
    }

    /// Finds a member by name in a structure, anonymous members included.
    pub fn member(&self, structure: &str, name: &str) -> Option<Member> {
        self.0.resolve_types_by_name(structure).ok()?.into_iter().find_map(|found| match found {
            Type::Struct(inner) => self.member_of(&inner, name, 0),
            _ => None,
        })
    }

    fn member_of(&self, of: &btf_rs::Struct, name: &str, base_bits: u32) -> Option<Member> {
        for member in &of.members {
            let bits = base_bits + member.bit_offset();
            let member_name = self.0.resolve_name(member).unwrap_or_default();
            if member_name == name {
                let size_bytes = self.size_of(self.0.resolve_chained_type(member).ok()?)?;
                return bits.is_multiple_of(8).then_some(Member { offset_bytes: bits / 8, size_bytes });
            }
            if member_name.is_empty()
                && let Ok(Type::Struct(inner) | Type::Union(inner)) = self.0.resolve_chained_type(member)
                && let Some(found) = self.member_of(&inner, name, bits)
            {
                return Some(found);
            }
        }
        None
    }

    fn size_of(&self, of: Type) -> Option<usize> {
        match of {
            Type::Int(int) => Some(int.size()),
            Type::Enum(of) => Some(of.size()),
            Type::Struct(of) | Type::Union(of) => Some(of.size()),
            Type::Ptr(_) => Some(8),
            Type::Array(array) => {
                let element = self.size_of(self.0.resolve_chained_type(&array).ok()?)?;
                Some(element * array.len())
            }
            Type::Typedef(of) => self.size_of(self.0.resolve_chained_type(&of).ok()?),
            Type::Volatile(of) | Type::Const(of) | Type::Restrict(of) => {
                self.size_of(self.0.resolve_chained_type(&of).ok()?)
            }
            _ => None,
        }
    }

    /// Number of arguments of a tracepoint, `None` when the kernel does not have it. (`btf_trace_NAME` is a pointer to
    /// the probe's prototype, whose first parameter is the registration's own data.)
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let typedef = self.0.resolve_types_by_name(&format!("btf_trace_{name}")).ok()?;
        typedef.into_iter().find_map(|found| {
            let Type::Typedef(typedef) = found else { return None };
            let Type::Ptr(pointer) = self.0.resolve_chained_type(&typedef).ok()? else { return None };
            let Type::FuncProto(proto) = self.0.resolve_chained_type(&pointer).ok()? else { return None };
            proto.parameters.len().checked_sub(1)
        })
    }

    /// Whether the kernel has a function of this name.
    pub fn has_function(&self, name: &str) -> bool {
        self.0
            .resolve_types_by_name(name)
            .is_ok_and(|types| types.iter().any(|found| matches!(found, Type::Func(_))))
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
            net_inum: {
                let ns = at("net", "ns", self.structure_size("ns_common").unwrap_or(0));
                let inum = at("ns_common", "inum", 4);
                if ns == MISSING || inum == MISSING { MISSING } else { ns + inum }
            },
            net_cookie: at("net", "net_cookie", 8),
            task_group_leader: at("task_struct", "group_leader", 8),
            task_start_boottime: at("task_struct", "start_boottime", 8),
            task_tgid: at("task_struct", "tgid", 4),
            task_comm: at("task_struct", "comm", 16),
            socket_sk: at("socket", "sk", 8),
        };
        (fields, missing)
    }

    /// Values and names of an enumeration, without the prefix that all names share; empty when the kernel lacks it.
    pub fn enumerators(&self, name: &str) -> Vec<(u32, String)> {
        let types = self.0.resolve_types_by_name(name).unwrap_or_default();
        let Some(found) = types.iter().find_map(|found| match found {
            Type::Enum(found) => Some(found),
            _ => None,
        }) else {
            return Vec::new();
        };
        let prefix = format!("{}_", name.to_uppercase());
        found
            .members
            .iter()
            .filter_map(|member| {
                let full = self.0.resolve_name(member).ok()?;
                Some((member.val(), full.strip_prefix(&prefix).unwrap_or(&full).to_owned()))
            })
            .collect()
    }

    fn structure_size(&self, name: &str) -> Option<usize> {
        self.0.resolve_types_by_name(name).ok()?.into_iter().find_map(|found| match found {
            Type::Struct(of) => Some(of.size()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets that have not moved from 5.10 to 6.18, checked against the kernel that the tests run on.
    #[test]
    fn finds_members_of_the_running_kernel() {
        let types = Types::of_running_kernel().unwrap();
        assert_eq!(types.member("sock_common", "skc_daddr"), Some(Member { offset_bytes: 0, size_bytes: 4 }));
        assert_eq!(types.member("sock_common", "skc_dport"), Some(Member { offset_bytes: 12, size_bytes: 2 }));
        assert_eq!(types.member("sock_common", "skc_v6_daddr").unwrap().offset_bytes, 56);
        assert_eq!(types.member("sock_common", "no_such_member"), None);
        assert_eq!(types.tracepoint_arguments("inet_sock_set_state"), Some(3));
        assert_eq!(types.tracepoint_arguments("no_such_tracepoint"), None);
        let (fields, missing) = types.fields();
        assert_eq!(missing, Vec::<String>::new());
        assert_eq!(fields.skc_family, 16);
        assert_eq!(fields.skc_flags, 96);
    }
}
