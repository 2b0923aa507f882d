//! `tracer check`: what this kernel and these privileges allow, hook by hook.

use std::{collections::BTreeMap, process::ExitCode};

use crate::{
    cli::{CheckArgs, Shown},
    filter::Filter,
    kernel::{self, Capture, Kernel, Options},
};

const REMEDY: &str =
    "run as root, or `setcap cap_bpf,cap_perfmon,cap_net_admin,cap_sys_ptrace+ep` on the binary";

/// Loads everything, attaches nothing, and says how each hook fares. The status is not zero when the main job cannot
/// run.
pub fn run(args: &CheckArgs) -> ExitCode {
    let missing = kernel::missing_privileges();
    for privilege in &missing {
        println!("missing   privilege {privilege}");
        println!("          remedy: {REMEDY}");
    }
    if !missing.is_empty() {
        println!("tracer cannot run: hooks can only be tried with these privileges");
        return ExitCode::FAILURE;
    }
    if !kernel::sees_others() {
        println!("missing   privilege CAP_SYS_PTRACE");
        println!("          lost: {}", kernel::OF_OTHERS);
        println!("          remedy: {REMEDY}");
    }
    let options = Options {
        filter: Filter::default(),
        events: true,
        payload: true,
        segments: Some(Shown::All),
        capture: None,
        hooks: args.hooks,
        ring_bytes: 1 << 20,
        max_connections: 1024,
    };
    let load = |capture| Kernel::check(&options, capture);
    let (kernel, by_tc) = match load(Capture::Cgroup).and_then(|kernel| Ok((kernel, load(Capture::Tc)?))) {
        Ok(kernels) => kernels,
        Err(error) => {
            println!("missing   kernel side: {error:#}");
            println!("tracer cannot run");
            return ExitCode::FAILURE;
        }
    };
    let mut cannot_run = false;
    for hook in &kernel.hooks {
        let reason = hook.reason.as_deref().unwrap_or_default();
        match (hook.way, hook.lost) {
            (Some(way), _) if hook.attached => {
                println!("ok        {} by {way}", hook.name);
                if args.verbose > 0 && !reason.is_empty() {
                    println!("          not better: {reason}");
                }
            }
            (_, Some(lost)) => {
                cannot_run |= hook.required;
                println!("missing   {}: {reason}", hook.name);
                println!("          lost: {lost}");
                println!("          remedy: {}", remedy(&hook.name));
            }
            (_, None) => println!("not used  {}: {reason}", hook.name),
        }
    }
    match &kernel.at_root {
        Ok(()) => println!("ok        cgroup_skb (attached to the root control group at start)"),
        Err(reason) => {
            println!("not used  cgroup_skb: {reason}; the tc classifier does its work");
        }
    }
    println!(
        "ok        tc classifier (attached to each interface at start: tcx, or clsact where there is no tcx)"
    );
    if args.verbose > 0 {
        // Without a control group the classifier does all the work.
        let mut costs: BTreeMap<String, u32> = kernel.verified_instructions().into_iter().collect();
        costs.extend(by_tc.verified_instructions());
        for (program, instructions) in costs {
            println!("          {program}: {instructions} instructions verified");
        }
    }
    println!("{}", if cannot_run { "tracer cannot run" } else { "tracer can run" });
    if cannot_run { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn remedy(hook: &str) -> &'static str {
    if hook.contains("length") {
        "a kernel from 6.5 on"
    } else if hook.starts_with("iter/") {
        "a kernel from 5.13 on"
    } else if hook.starts_with("timer:") {
        "a kernel whose functions may be probed (fentry, kprobes), or CAP_SYSLOG and kernel.kptr_restrict below 2"
    } else {
        "a kernel built with CONFIG_BPF_EVENTS=y and CONFIG_DEBUG_INFO_BTF=y that is not locked down for confidentiality"
    }
}
