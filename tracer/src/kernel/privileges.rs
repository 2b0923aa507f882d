//! What the tracer must be allowed to do, and giving up the rest once it runs.

use caps::{CapSet, Capability};

/// Loading and attaching need these; `CAP_SYS_ADMIN` stands in for the first two.
const NEEDED: [(Capability, &str); 3] = [
    (Capability::CAP_BPF, "load programs"),
    (Capability::CAP_PERFMON, "attach to tracepoints and read kernel structures"),
    (Capability::CAP_NET_ADMIN, "attach to the root control group and to network interfaces"),
];

/// What is not known without `CAP_SYS_PTRACE`, by which the network namespaces of others are found.
pub const OF_OTHERS: &str = "network namespaces that only other users' processes are in: connections there that are older than \
     the tracer, what the kernel counts there (selfcheck.others), and with --capture tc their HTTP";

/// What is still needed once everything is attached: interfaces that come later, and the executables of other users'
/// processes.
const KEPT: [Capability; 4] =
    [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN, Capability::CAP_SYS_PTRACE];

/// Each capability that is missing and what for; empty when all are there.
pub fn missing_privileges() -> Vec<String> {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let admin = effective.contains(&Capability::CAP_SYS_ADMIN);
    NEEDED
        .iter()
        .filter(|(capability, _)| {
            let covered = admin && *capability != Capability::CAP_NET_ADMIN;
            !covered && !effective.contains(capability)
        })
        .map(|(capability, purpose)| format!("{capability} (to {purpose})"))
        .collect()
}

/// Whether `/proc` shows what processes of other users are in.
pub fn sees_others() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_PTRACE).unwrap_or(false)
}

/// How the kernel is locked down (kernel_lockdown(7)): `integrity` or `confidentiality`; `None` when it is not, or does
/// not say.
pub fn lockdown() -> Option<String> {
    let modes = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = modes.split_once('[')?;
    let (mode, _) = rest.split_once(']')?;
    (mode != "none").then(|| mode.to_owned())
}

/// Gives up every capability that a running tracer does not need; `enter`: it goes on entering network namespaces (setns(2)). Where that fails the tracer runs on with what it
/// has, and the error says so.
///
/// # Errors
/// The kernel refused.
pub fn drop_unneeded(enter: bool) -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    // A kernel before 5.8 knows neither CAP_BPF nor CAP_PERFMON: there CAP_SYS_ADMIN is what works.
    if !permitted.contains(&Capability::CAP_BPF) {
        return Ok(());
    }
    let keep = permitted
        .iter()
        .copied()
        .filter(|capability| KEPT.contains(capability) || enter && *capability == Capability::CAP_SYS_ADMIN)
        .collect();
    caps::set(None, CapSet::Inheritable, &caps::CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)
}
