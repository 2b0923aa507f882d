//! What a process holds in the kernel's BPF subsystem, and whether it is still there.

use crate::{netns::Netns, process, wait};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{collections::BTreeSet, fs, process::Command, time::Duration};

/// The kernel frees programs and maps some time after their last user.
const FREED_WITHIN: Duration = Duration::from_secs(20);

/// Numbers of programs, maps and links; the kernel gives none of them twice in a short time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub programs: BTreeSet<u64>,
    pub maps: BTreeSet<u64>,
    pub links: BTreeSet<u64>,
}

impl Held {
    /// What a process holds now, by its open descriptors.
    pub fn by(pid: u32) -> Result<Self> {
        let mut held = Self::default();
        let folder = format!("/proc/{pid}/fdinfo");
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
            // A descriptor may be closed in the meantime.
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            for line in text.lines() {
                let Some((name, value)) = line.split_once(':') else { continue };
                let kind = match name {
                    "prog_id" => &mut held.programs,
                    "map_id" => &mut held.maps,
                    "link_id" => &mut held.links,
                    _ => continue,
                };
                kind.extend(value.trim().parse::<u64>());
            }
        }
        Ok(held)
    }

    /// Waits until the kernel has none of it any more.
    pub fn wait_until_gone(&self) -> Result<()> {
        wait::until(&format!("the kernel to free {self:?}"), FREED_WITHIN, || {
            let left = [("prog", &self.programs), ("map", &self.maps), ("link", &self.links)];
            for (kind, ids) in left {
                if !existing(kind)?.is_disjoint(ids) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }
}

/// Name, runs and time in nanoseconds of the programs with these numbers, where `kernel.bpf_stats_enabled` is on.
pub fn run_times(ids: &BTreeSet<u64>) -> Result<Vec<(String, u64, u64)>> {
    let all = list("prog")?;
    let wanted = |entry: &&Value| entry["id"].as_u64().is_some_and(|id| ids.contains(&id));
    let times = |entry: &Value| {
        Some((entry["name"].as_str()?.to_owned(), entry["run_cnt"].as_u64()?, entry["run_time_ns"].as_u64()?))
    };
    Ok(all.iter().filter(wanted).filter_map(times).collect())
}

/// Names of the programs with these numbers.
pub fn program_names(ids: &BTreeSet<u64>) -> Result<BTreeSet<String>> {
    let wanted = |entry: &&Value| entry["id"].as_u64().is_some_and(|id| ids.contains(&id));
    let all = list("prog")?;
    Ok(all.iter().filter(wanted).filter_map(|entry| Some(entry["name"].as_str()?.to_owned())).collect())
}

fn existing(kind: &str) -> Result<BTreeSet<u64>> {
    Ok(list(kind)?.iter().filter_map(|entry| entry["id"].as_u64()).collect())
}

fn list(kind: &str) -> Result<Vec<Value>> {
    let text = process::run(Command::new("bpftool").args(["--json", kind, "show"]), wait::LIMIT)?;
    match serde_json::from_str(&text).with_context(|| format!("bpftool {kind} show: {text}"))? {
        Value::Array(entries) => Ok(entries),
        other => bail!("bpftool {kind} show: {other}"),
    }
}

/// What is attached to an interface of a namespace: names of programs at tcx, and `tc`'s words for filters.
pub fn attached(netns: &Netns, interface: &str) -> Result<BTreeSet<String>> {
    let index = interface_index(netns, interface)?;
    let mut found = BTreeSet::new();
    for (attach_type, direction) in [(BPF_TCX_INGRESS, "ingress"), (BPF_TCX_EGRESS, "egress")] {
        let ids = netns.enter(|| tcx_programs(index, attach_type))?;
        found.extend(program_names(&ids)?.into_iter().map(|name| format!("{direction} {name}")));
        // Fails where the interface has no place for filters.
        let shown = netns.command("tc").args(["filter", "show", "dev", interface, direction]).output()?;
        let text = String::from_utf8_lossy(&shown.stdout);
        found.extend(text.lines().map(|line| format!("{direction} {}", line.trim())));
    }
    Ok(found)
}

fn interface_index(netns: &Netns, interface: &str) -> Result<u32> {
    let text = netns.run("ip", &["-o", "link", "show", "dev", interface])?;
    let index = text.split_once(':').and_then(|(index, _)| index.trim().parse().ok());
    index.with_context(|| format!("no number of {interface} in {text}"))
}

const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// `BPF_PROG_QUERY` as `union bpf_attr` holds it, from Linux 6.6 on.
#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Asked of the kernel itself: the bpftool of Debian 12 is older than tcx.
fn tcx_programs(ifindex: u32, attach_type: u32) -> Result<BTreeSet<u64>> {
    let mut ids = [0_u32; 64];
    let prog_ids = ids.as_mut_ptr() as u64;
    let mut query = Query { ifindex, attach_type, prog_ids, prog_cnt: 64, ..Query::default() };
    let size = size_of::<Query>() as libc::c_long;
    // SAFETY: the attributes are of that size, and the array that they name holds as many numbers as they say.
    let status = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size) };
    if status != 0 {
        let error = std::io::Error::last_os_error();
        // No program was ever attached there, or the kernel is older than tcx.
        ensure!(matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)), "BPF_PROG_QUERY: {error}");
        return Ok(BTreeSet::new());
    }
    Ok(ids[..query.prog_cnt as usize].iter().map(|id| u64::from(*id)).collect())
}
