//! Tracepoints by perf, where a task can be preempted in a `tp_btf` program (`tracer-ebpf/src/perf.rs`).

use std::{fs, path::Path};

use aya::{Ebpf, programs::TracePoint};

use super::{hooks::say, types::Types};

/// What is attached instead of a `tp_btf` program.
pub struct Pair {
    /// The program that stands alone otherwise, or first.
    pub instead_of: &'static str,
    /// By perf; it runs first, as it is attached first.
    pub first: &'static str,
    /// By `tp_btf`.
    pub second: &'static str,
    /// Where the first one expects members of the event's record, in bytes from its begin.
    members: &'static [(&'static str, usize)],
}

pub const PAIRS: [Pair; 8] = [
    Pair {
        instead_of: "inet_sock_set_state",
        first: "inet_sock_set_state_perf",
        second: "inet_sock_set_state_again",
        members: &[("skaddr", 8), ("oldstate", 16), ("newstate", 20)],
    },
    Pair {
        instead_of: "tcp_destroy_sock",
        first: "tcp_destroy_sock_perf",
        second: "tcp_destroy_sock_again",
        members: &[("skaddr", 8)],
    },
    Pair {
        instead_of: "tcp_retransmit_skb_err",
        first: "tcp_retransmit_skb_perf",
        second: "tcp_retransmit_skb_err_again",
        members: &[("skbaddr", 8), ("skaddr", 16), ("err", 76)],
    },
    Pair {
        instead_of: "tcp_retransmit_synack",
        first: "tcp_retransmit_synack_perf",
        second: "tcp_retransmit_synack_again",
        members: &[("skaddr", 8), ("req", 16)],
    },
    Pair {
        instead_of: "tcp_send_reset_reason",
        first: "tcp_send_reset_perf",
        second: "tcp_send_reset_reason_again",
        members: &[("skbaddr", 8), ("skaddr", 16), ("reason", 28)],
    },
    Pair {
        instead_of: "tcp_receive_reset",
        first: "tcp_receive_reset_perf",
        second: "tcp_receive_reset_again",
        members: &[("skaddr", 8)],
    },
    Pair {
        instead_of: "sock_recv_length",
        first: "sock_recv_length_perf",
        second: "sock_recv_length",
        members: &[("sk", 8)],
    },
    Pair {
        instead_of: "sock_send_length",
        first: "sock_send_length_perf",
        second: "sock_send_length",
        members: &[("sk", 8)],
    },
];

/// Where tracefs is mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Whether this kernel's tracepoints leave preemption on: then they are guarded by SRCU (`include/linux/tracepoint.h`).
pub fn is_wanted(types: &Types) -> bool {
    types.has_typedef("class_srcu_fast_notrace_t")
}

/// Loads the first program of a pair, and attaches it when `attach` says so.
///
/// # Errors
/// Why not.
pub fn first(ebpf: &mut Ebpf, pair: &Pair, tracepoint: &str, attach: bool) -> Result<(), String> {
    let (subsystem, name) = tracepoint.split_once(':').ok_or("a tracepoint without a subsystem")?;
    let events = TRACEFS.iter().map(|root| Path::new(root).join("events").join(subsystem).join(name));
    let format = events.map(|event| fs::read_to_string(event.join("format"))).find_map(Result::ok);
    let format = format.ok_or("tracefs is not mounted, or not to be read")?;
    for (member, at) in pair.members {
        if offset(&format, member) != Some(*at) {
            return Err(format!("the event's record has no {member} at {at} in tracefs"));
        }
    }
    let program = ebpf.program_mut(pair.first).ok_or("the object lacks this program")?;
    let program: &mut TracePoint = program.try_into().map_err(|error| say(&error))?;
    program.load().map_err(|error| say(&error))?;
    if attach {
        program.attach(subsystem, name).map_err(|error| say(&error))?;
    }
    Ok(())
}

/// Of `field:TYPE NAME; offset:8; …`
fn offset(format: &str, member: &str) -> Option<usize> {
    let mut lines = format.lines().filter_map(|line| line.trim().strip_prefix("field:")?.split_once(';'));
    let (_, rest) = lines.find(|(declaration, _)| declaration.rsplit(' ').next() == Some(member))?;
    rest.trim().strip_prefix("offset:")?.split(';').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_offsets() {
        let format = "name: x\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
                      \tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;\n\tfield:__u8 saddr[4];\toffset:32;\n";
        assert_eq!(offset(format, "skaddr"), Some(8));
        assert_eq!(offset(format, "saddr"), None);
        assert_eq!(offset("", "skaddr"), None);
    }
}
