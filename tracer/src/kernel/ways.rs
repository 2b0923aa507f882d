//! What can be known in several ways: the best one that attaches on this kernel is taken, or the one that `--hooks` names.
//! Where neither kind of probe of functions attaches, tracepoints remain (`hooks`).

use anyhow::{Result, bail};
use aya::{
    Btf, Ebpf,
    programs::{ProbeKind, Program, ProgramError},
};

use super::{
    hooks::{Hook, say},
    types::Types,
};

/// A kind of hook, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// Functions, by trampolines (fentry, fexit)
    Fentry,
    /// Functions, by probes (kprobe, kretprobe)
    Kprobe,
    /// Tracepoints only
    Tracepoint,
}

impl Tier {
    /// As on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// What a kernel needs for it.
    fn needs(self) -> &'static str {
        match self {
            Self::Fentry => "CONFIG_DEBUG_INFO_BTF, CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
            Self::Kprobe => "CONFIG_KPROBE_EVENTS, no lockdown for confidentiality",
            Self::Tracepoint => {
                "readable addresses in /proc/kallsyms (CAP_SYSLOG, kernel.kptr_restrict below 2)"
            }
        }
    }

    /// That it was asked for and cannot be had.
    pub fn refused(self, reason: &str) -> anyhow::Error {
        anyhow::anyhow!(
            "--hooks {}: cannot attach {reason}. That takes {}, and a machine's owner who allows it. Leave --hooks out: \
             then the best way that works here is taken, and `tracer check` says which",
            self.name(),
            self.needs()
        )
    }
}

/// The tiers of probes of functions.
const PROBES: [Tier; 2] = [Tier::Fentry, Tier::Kprobe];

/// A program and its function.
type Probe = (&'static str, &'static str);

/// How things are known that functions tell of.
pub struct Ways {
    pub hooks: Vec<Hook>,
    /// Why TIME_WAIT has to be followed by its timers; `None` where functions tell of it.
    pub timers: Option<String>,
    /// Whether it is known who accepts a connection.
    pub accepts: bool,
}

impl Ways {
    /// Attaches the best probes.
    ///
    /// # Errors
    /// Those that were asked for do not attach.
    pub fn attach(ebpf: &mut Ebpf, types: &Types, btf: &Btf, wanted: Option<Tier>) -> Result<Self> {
        let mut ways = Self { hooks: Vec::new(), timers: None, accepts: false };
        match best(ebpf, types, btf, wanted, |tier| time_wait(tier, types)) {
            Ok(hooks) => ways.hooks.extend(hooks),
            Err(reason) => ways.timers = Some(reason),
        }
        match best(ebpf, types, btf, wanted, |tier| accept(tier, types)) {
            Ok(hooks) => {
                ways.accepts = true;
                ways.hooks.extend(hooks);
            }
            Err(reason) => {
                ways.hooks.push(Hook {
                    name: ACCEPT.to_owned(),
                    way: None,
                    attached: false,
                    reason: Some(reason),
                    // Of what uses a socket tracepoints tell.
                    lost: None,
                    required: false,
                });
            }
        }
        match wanted {
            Some(tier) if PROBES.contains(&tier) => {
                let missing = ways.hooks.iter().find(|hook| !hook.attached);
                let reason = ways.timers.as_ref().or(missing.and_then(|hook| hook.reason.as_ref()));
                if let Some(reason) = reason {
                    bail!(tier.refused(reason));
                }
            }
            _ => {}
        }
        Ok(ways)
    }
}

/// The function that takes a connection off its listener's queue.
const ACCEPT: &str = "inet_csk_accept";

fn time_wait(tier: Tier, types: &Types) -> Vec<Probe> {
    // Its name since 6.11, and before.
    let begins = match types.has_function("inet_twsk_hashdance_schedule") {
        true => "inet_twsk_hashdance_schedule",
        false => "inet_twsk_hashdance",
    };
    let (rearmed, expires, ends) = ("__inet_twsk_schedule", "tw_timer_handler", "inet_twsk_kill");
    match tier {
        Tier::Fentry => vec![
            ("time_wait_begins", begins),
            ("time_wait_begins_again", begins),
            ("time_wait_rearmed", rearmed),
            ("time_wait_expires", expires),
            ("time_wait_ends", ends),
        ],
        // Inside of one of them the kernel runs no other one either: a second one would see no more.
        Tier::Kprobe => vec![
            ("time_wait_begins_kprobe", begins),
            ("time_wait_rearmed_kprobe", rearmed),
            ("time_wait_expires_kprobe", expires),
            ("time_wait_ends_kprobe", ends),
        ],
        Tier::Tracepoint => Vec::new(),
    }
}

fn accept(tier: Tier, types: &Types) -> Vec<Probe> {
    match tier {
        // By the number of its parameters: what it returns is behind them.
        Tier::Fentry => match types.function_parameters(ACCEPT) {
            Some(2) => vec![("accepted", ACCEPT)],
            _ => vec![("accepted_flags", ACCEPT)],
        },
        Tier::Kprobe => vec![("accepted_kretprobe", ACCEPT)],
        Tier::Tracepoint => Vec::new(),
    }
}

/// Attaches all probes of the best tier, or says why there is none.
fn best(
    ebpf: &mut Ebpf,
    types: &Types,
    btf: &Btf,
    wanted: Option<Tier>,
    probes: impl Fn(Tier) -> Vec<Probe>,
) -> Result<Vec<Hook>, String> {
    let mut refused = Vec::new();
    for tier in PROBES.into_iter().filter(|tier| wanted.is_none_or(|wanted| wanted == *tier)) {
        // The kernel would warn of it, and a warning may be set to stop the machine (`panic_on_warn`).
        if tier == Tier::Kprobe && !types.has_structure("bpf_mem_alloc") {
            refused
                .push("by kprobe: this kernel's kprobes may not use tables that grow (6.1's may)".to_owned());
            continue;
        }
        match attach_all(ebpf, btf, &probes(tier)) {
            Ok(hooks) => return Ok(hooks),
            Err(reason) => refused.push(reason),
        }
    }
    if refused.is_empty() { Err("--hooks tracepoint".to_owned()) } else { Err(refused.join("; ")) }
}

/// All of them, or none.
fn attach_all(ebpf: &mut Ebpf, btf: &Btf, probes: &[Probe]) -> Result<Vec<Hook>, String> {
    let mut hooks: Vec<Hook> = Vec::new();
    for (index, &(name, function)) in probes.iter().enumerate() {
        let program = ebpf.program_mut(name).ok_or("the object lacks a program")?;
        let way = way(program);
        if let Err(error) = attach(program, function, btf) {
            let reason = format!("{function} by {way}: {}", say(&error));
            for (name, _) in &probes[..=index] {
                unload(ebpf, name);
            }
            return Err(reason);
        }
        if hooks.iter().all(|hook| hook.name != function) {
            hooks.push(Hook {
                name: function.to_owned(),
                way: Some(way),
                attached: true,
                reason: None,
                lost: None,
                required: false,
            });
        }
    }
    Ok(hooks)
}

fn way(program: &Program) -> &'static str {
    match program {
        Program::FEntry(_) => "fentry",
        Program::FExit(_) => "fexit",
        Program::KProbe(probe) if matches!(probe.kind(), ProbeKind::Return) => "kretprobe",
        _ => "kprobe",
    }
}

fn attach(program: &mut Program, function: &str, btf: &Btf) -> Result<(), ProgramError> {
    match program {
        Program::FEntry(entry) => {
            entry.load(function, btf)?;
            entry.attach().map(drop)
        }
        Program::FExit(exit) => {
            exit.load(function, btf)?;
            exit.attach().map(drop)
        }
        Program::KProbe(probe) => {
            probe.load()?;
            probe.attach(function, 0).map(drop)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Detaches it too. One that was never loaded stays so.
fn unload(ebpf: &mut Ebpf, name: &str) {
    let _ = match ebpf.program_mut(name) {
        Some(Program::FEntry(entry)) => entry.unload(),
        Some(Program::FExit(exit)) => exit.unload(),
        Some(Program::KProbe(probe)) => probe.unload(),
        _ => Ok(()),
    };
}
