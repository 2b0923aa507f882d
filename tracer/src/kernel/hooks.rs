//! The tracepoints that we want, what each is for, and what is lost without it.

use aya::{Btf, Ebpf, programs::BtfTracePoint};

use super::{perf, types::Types, ways::Ways};

/// How something is attached.
type Way = &'static str;

/// A wanted hook and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub name: String,
    /// How it is (or would be) attached.
    pub way: Option<Way>,
    pub attached: bool,
    /// Why not, or not in the best way.
    pub reason: Option<String>,
    /// What is not known for lack of it.
    pub lost: Option<&'static str>,
    /// The main job cannot run without it.
    pub required: bool,
}

struct Wanted {
    /// `subsystem:name`, as in tracefs.
    tracepoint: &'static str,
    lost: &'static str,
    required: bool,
}

/// What is lost without the timers' tracepoints, where nothing else tells of TIME_WAIT.
pub const TIME_WAIT: &str = "time_wait records, and whether the kernel had room for a TIME_WAIT";

/// What is lost without those of reading and writing, where it is not known who accepts.
const READERS: &str = "the process of accepted sockets (their listener's is given instead)";
const WRITERS: &str = "the process of accepted sockets that only send (their listener's is given instead)";
/// And where it is.
const HANDED_ON: &str =
    "the process that an accepted socket was handed on to (who accepted it is given instead)";

const WANTED: [Wanted; 11] = [
    Wanted {
        tracepoint: "sock:inet_sock_set_state",
        lost: "everything: this is where connections begin, change state and end",
        required: true,
    },
    Wanted {
        tracepoint: "tcp:tcp_destroy_sock",
        lost: "the end of sockets that are closed without a reset or FIN is noticed late",
        required: true,
    },
    Wanted { tracepoint: "tcp:tcp_retransmit_skb", lost: "retransmits.syn", required: false },
    Wanted {
        tracepoint: "tcp:tcp_retransmit_synack",
        lost: "retransmit events of SYN-ACKs",
        required: false,
    },
    Wanted { tracepoint: "tcp:tcp_send_reset", lost: "close.how rst_sent, close.reason", required: false },
    Wanted { tracepoint: "tcp:tcp_receive_reset", lost: "close.how rst_received", required: false },
    Wanted { tracepoint: "sock:sock_recv_length", lost: READERS, required: false },
    Wanted { tracepoint: "sock:sock_send_length", lost: WRITERS, required: false },
    Wanted { tracepoint: "timer:timer_start", lost: TIME_WAIT, required: false },
    Wanted { tracepoint: "timer:timer_cancel", lost: TIME_WAIT, required: false },
    Wanted { tracepoint: "timer:timer_expire_entry", lost: TIME_WAIT, required: false },
];

impl Wanted {
    /// Name of the program: the tracepoint's own, but where an argument was added (`tcp_send_reset` in 6.11,
    /// `tcp_retransmit_skb` in 6.17).
    fn program(&self, types: &Types) -> Option<&'static str> {
        let name = self.name();
        match types.tracepoint_arguments(name)? {
            3 if name == "tcp_send_reset" => Some("tcp_send_reset_reason"),
            3 if name == "tcp_retransmit_skb" => Some("tcp_retransmit_skb_err"),
            _ => Some(name),
        }
    }

    fn name(&self) -> &'static str {
        self.tracepoint.split_once(':').map_or(self.tracepoint, |(_, name)| name)
    }

    /// `better` is why a better way than `tp_btf` is not taken.
    fn hook(&self, result: Result<Way, String>, better: Option<String>, ways: &Ways) -> Hook {
        let attached = result.is_ok();
        let lost =
            if ways.accepts && [READERS, WRITERS].contains(&self.lost) { HANDED_ON } else { self.lost };
        let better = better.or(ways.timers.clone().filter(|_| self.lost == TIME_WAIT));
        Hook {
            name: self.tracepoint.to_owned(),
            way: result.as_ref().ok().copied(),
            attached,
            reason: result.err().or(better),
            lost: (!attached).then_some(lost),
            required: self.required,
        }
    }
}

/// Loads every tracepoint program that the kernel has a tracepoint for, and attaches it when `attach` says so. `ways` tells
/// what is known without them; `timers`, that those of TIME_WAIT can be told from others.
pub fn tracepoints(
    ebpf: &mut Ebpf,
    types: &Types,
    btf: &Btf,
    attach: bool,
    ways: &Ways,
    timers: bool,
) -> Vec<Hook> {
    WANTED
        .iter()
        .filter(|wanted| wanted.lost != TIME_WAIT || ways.timers.is_some())
        .map(|wanted| {
            let Some(program) = wanted.program(types) else {
                return wanted.hook(Err("this kernel has no such tracepoint".to_owned()), None, ways);
            };
            if wanted.lost == TIME_WAIT && !timers {
                let reason = "/proc/kallsyms does not show the address of tw_timer_handler: that takes CAP_SYSLOG, and \
                              kernel.kptr_restrict below 2";
                return wanted.hook(Err(reason.to_owned()), None, ways);
            }
            let pair = perf::PAIRS.iter().find(|pair| pair.instead_of == program);
            let mut better = None;
            if let Some(pair) = pair.filter(|_| perf::is_wanted(types)) {
                match perf::first(ebpf, pair, wanted.tracepoint, attach) {
                    Ok(()) => {
                        let second = tracepoint(ebpf, pair.second, wanted.name(), btf, attach);
                        return wanted.hook(second.map(|()| "perf"), None, ways);
                    }
                    Err(reason) => better = Some(format!("by perf: {reason}")),
                }
            }
            let first = tracepoint(ebpf, program, wanted.name(), btf, attach);
            // Attached second, it runs second.
            if let (Ok(()), Some((_, again))) = (&first, AGAIN.iter().find(|(first, _)| *first == program)) {
                let _ = tracepoint(ebpf, again, wanted.name(), btf, attach);
            }
            wanted.hook(first.map(|()| "tp_btf"), better, ways)
        })
        .collect()
}

/// Programs that run beside one of the same hook, for what that cannot see: the kernel does not run a program
/// inside of itself. Without them more is missed.
const AGAIN: [(&str, &str); 10] = [
    ("inet_sock_set_state", "inet_sock_set_state_again"),
    ("tcp_destroy_sock", "tcp_destroy_sock_again"),
    ("tcp_retransmit_skb", "tcp_retransmit_skb_again"),
    ("tcp_retransmit_skb_err", "tcp_retransmit_skb_err_again"),
    ("tcp_send_reset", "tcp_send_reset_again"),
    ("tcp_send_reset_reason", "tcp_send_reset_reason_again"),
    ("timer_start", "timer_start_again"),
    ("timer_cancel", "timer_cancel_again"),
    ("timer_expire_entry", "timer_expire_entry_again"),
    ("time_wait_begins", "time_wait_begins_again"),
];

/// Whether it matters when the kernel does not run a program: not for one of two at the same hook, as what one of them misses
/// the other sees, nor for those of `accept`, as each record says whether the owner is only the listener's.
pub fn may_miss(ebpf: &Ebpf, program: &str) -> bool {
    let loaded = |name: &str| ebpf.program(name).is_some_and(|program| program.fd().is_ok());
    let perf = perf::PAIRS.iter().map(|pair| (pair.first, pair.second));
    let mut pairs = AGAIN.into_iter().chain(perf);
    let paired =
        pairs.any(|(first, second)| [first, second].contains(&program) && loaded(first) && loaded(second));
    paired || program.starts_with("accepted")
}

fn tracepoint(ebpf: &mut Ebpf, program: &str, name: &str, btf: &Btf, attach: bool) -> Result<(), String> {
    let found = ebpf.program_mut(program).ok_or("the object lacks this program")?;
    let program: &mut BtfTracePoint = found.try_into().map_err(|error| say(&error))?;
    program.load(name, btf).map_err(|error| say(&error))?;
    if attach {
        program.attach().map_err(|error| say(&error))?;
    }
    Ok(())
}

/// How the verifier's account of its own work begins.
const STATISTICS: [&str; 3] = ["verification time ", "stack depth ", "processed "];

/// An error with its causes, in one line; the verifier's log is shortened to its end, which names the fault.
pub fn say(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    // Not every refusal is the verifier's.
    let text = text.trim_end().strip_suffix(". Verifier output:").unwrap_or(&text);
    let statistics = |line: &str| STATISTICS.iter().any(|beginning| line.starts_with(beginning));
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !statistics(line)).collect();
    if lines.len() > 6 {
        format!("{} … {}", lines[0], lines[lines.len() - 4..].join(" | "))
    } else {
        lines.join(" | ")
    }
}
