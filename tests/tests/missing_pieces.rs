//! A system that lacks a piece: another way is taken and told, or an error says what is missing and what to do.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{collections::BTreeSet, fs, process::Output};
use tests::{
    bpf, client, failure,
    lacking::{kernel, note},
    netns::Netns,
    process,
    records::{Record, Records},
    refuse::{Call, Rule, refusing},
    scratch::Scratch,
    tracer::{self, Run, Tracer},
    wait,
};

const BTF: &str = "/sys/kernel/btf";
const FILE_SYSTEMS_OF_TRACING: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug"];

/// A shell's line ahead of the daemon's, in a mount namespace of its own.
fn behind(line: &str) -> [String; 6] {
    ["unshare", "--mount", "sh", "-c", &format!("{line} && exec \"$@\""), "sh"].map(str::to_owned)
}

/// Runs the daemon to its end behind a shell's line.
fn output_behind(netns: &Netns, line: &str, args: &[&str]) -> Result<Output> {
    let by = behind(line);
    let mut command =
        tracer::command_by(netns, &by.each_ref().map(String::as_str), &tracer::binary()?, args)?;
    process::output(&mut command, wait::LIMIT)
}

/// One exchange in a namespace, which must be told at both ends.
fn sees_an_exchange(tracer: &mut Tracer, netns: &Netns) -> Result<()> {
    all_see_an_exchange(&mut [tracer], netns)
}

fn all_see_an_exchange(tracers: &mut [&mut Tracer], netns: &Netns) -> Result<()> {
    let listener = client::listen(netns, ([127, 0, 0, 1], 9000).into())?;
    client::converse(netns, &listener)?;
    let tells = |tracer: &mut &mut Tracer| {
        tracer.wait_for("an exchange at both ends", |records| {
            let conns = records.conns(netns);
            (conns.len() == 2 && records.https(&conns).count() == 2).then_some(())
        })
    };
    tracers.iter_mut().try_for_each(tells)
}

/// The daemon under a rule sees an exchange; what it wrote. Nothing of it stays attached.
fn works_without(rule: Rule, args: &[&str]) -> Result<(Netns, Run)> {
    let netns = Netns::new()?;
    let mut tracer = refusing(rule, || Tracer::start(&netns, args))?;
    let held = bpf::Held::by(tracer.pid())?;
    sees_an_exchange(&mut tracer, &netns)?;
    let run = tracer.stop()?;
    held.wait_until_gone()?;
    let attached = bpf::attached(&netns, "lo")?;
    ensure!(attached.is_empty(), "still attached: {attached:?}");
    Ok((netns, run))
}

/// The daemon's end under a rule.
fn output_without(rule: Rule, args: &[&str]) -> Result<Output> {
    let netns = Netns::new()?;
    let output = refusing(rule, || process::output(&mut tracer::command(&netns, args)?, wait::LIMIT))?;
    let attached = bpf::attached(&netns, "lo")?;
    ensure!(attached.is_empty(), "attached: {attached:?}");
    Ok(output)
}

/// A daemon under a rule that finds only its own namespace and one other, whose interfaces it may watch.
fn start_apart(rule: Rule, scratch: &Scratch, own: &Netns, other: &Netns, args: &[&str]) -> Result<Tracer> {
    let (folder, file) = (scratch.path().display(), scratch.file("other"));
    fs::write(&file, "")?;
    let other = other.path();
    let line =
        format!("mount --bind {} {} && mount --rbind {folder} /run/netns", other.display(), file.display());
    // Those of processes it does not find either.
    let blind = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "--"];
    let by = behind(&line);
    let by: Vec<&str> = by.iter().map(String::as_str).chain(blind).collect();
    let mut command = tracer::command_by(own, &by, &tracer::binary()?, args)?;
    refusing(rule, || Tracer::start_by(&mut command))
}

fn start_line(records: &Records) -> Result<Record> {
    records.of("start").next().context("no `start`")
}

#[test]
fn without_btf() -> Result<()> {
    let (netns, scratch) = (Netns::new()?, Scratch::new()?);
    let whole = fs::read(format!("{BTF}/vmlinux"))?;
    let garbage = b"garbage".repeat(1000);
    let contents: [(&str, &[u8]); 3] =
        [("empty", &[]), ("garbage", &garbage), ("cut", &whole[..whole.len() / 3])];
    let mut lines = vec![format!("mount -t tmpfs none {BTF}")];
    for (name, content) in contents {
        fs::write(scratch.file(name), content)?;
        lines.push(format!("mount --bind {} {BTF}/vmlinux", scratch.file(name).display()));
    }
    for line in lines {
        let named = ["/sys/kernel/btf/vmlinux", "type information (BTF)", "CONFIG_DEBUG_INFO_BTF=y"];
        failure::check_one_line(&output_behind(&netns, &line, &[])?, &named).context(line.clone())?;
        let check = output_behind(&netns, &line, &["check"])?;
        let text = String::from_utf8(check.stdout)?;
        ensure!(check.status.code() == Some(1) && check.stderr.is_empty(), "{line}: {text}");
        for named in named.into_iter().chain(["tracer cannot run"]) {
            ensure!(text.contains(named), "{line}: `{named}` is not named:\n{text}");
        }
    }
    Ok(())
}

/// Nothing is lost: what perf would tell, which needs it, is told by `tp_btf`.
#[test]
fn without_tracefs() -> Result<()> {
    let hooks = |records: &Records| -> Result<Vec<Value>> {
        let start = start_line(records)?;
        Ok(start.at("/hooks").as_array().context("no hooks")?.clone())
    };
    let netns = Netns::new()?;
    let with = hooks(&Tracer::start(&netns, &[])?.stop()?.records)?;
    let hide = FILE_SYSTEMS_OF_TRACING.iter().filter(|path| fs::exists(path).unwrap_or(false));
    let hide: Vec<String> = hide.map(|path| format!("mount -t tmpfs none {path}")).collect();
    let by = behind(&hide.join(" && "));
    let by = by.each_ref().map(String::as_str);
    let mut command = tracer::command_by(&netns, &by, &tracer::binary()?, &[])?;
    let mut tracer = Tracer::start_by(&mut command)?;
    sees_an_exchange(&mut tracer, &netns)?;
    let without = hooks(&tracer.stop()?.records)?;
    ensure!(with.len() == without.len(), "{with:?}\n{without:?}");
    for (with, without) in with.iter().zip(&without) {
        let why = without["reason"].as_str().unwrap_or_default();
        let by_other = with["way"] == "perf" && without["way"] == "tp_btf" && why.contains("tracefs");
        let same = with["hook"] == without["hook"] && with["lost"] == without["lost"];
        ensure!(same && (with["way"] == without["way"] || by_other), "{with}\n{without}");
    }
    Ok(())
}

fn no_tcx(call: &Call) -> Option<libc::c_int> {
    call.attaches_to_tcx().then_some(libc::EINVAL)
}

#[test]
fn without_tcx() -> Result<()> {
    let (_, run) = works_without(no_tcx, &["--interface", "lo"])?;
    ensure!(start_line(&run.records)?.text("/capture") == "tc", "{:?}", start_line(&run.records)?);
    let hook = run.records.hook("tc lo")?;
    let why = hook["reason"].as_str().unwrap_or_default();
    ensure!(hook["way"] == "clsact" && hook["lost"].is_null() && why.starts_with("tcx: "), "{hook}");
    Ok(())
}

/// Filters go with the daemon, in every namespace; what a killed one has left goes with the next. Others keep theirs.
#[test]
fn filters_go_and_those_of_others_stay() -> Result<()> {
    let (scratch, own, other) = (Scratch::new()?, Netns::new()?, Netns::new()?);
    for netns in [&own, &other] {
        netns.run("tc", &["qdisc", "add", "dev", "lo", "clsact"])?;
        // Classic BPF that matches nothing.
        let filter = ["filter", "add", "dev", "lo", "egress", "prio", "7", "bpf", "bytecode", "1,6 0 0 0,"];
        netns.run("tc", &filter)?;
    }
    let attached = || -> Result<[BTreeSet<String>; 2]> {
        Ok([bpf::attached(&own, "lo")?, bpf::attached(&other, "lo")?])
    };
    let before = attached()?;
    ensure!(before.iter().all(|filters| !filters.is_empty()), "filters are not there: {before:?}");

    let start = || start_apart(no_tcx, &scratch, &own, &other, &["--capture", "tc"]);
    start()?.end(libc::SIGKILL)?;
    let left = attached()?;
    let more = left.iter().zip(&before).all(|(left, before)| left.len() > before.len());
    ensure!(more, "a killed daemon leaves its filters: {left:?}");
    let mut tracer = start()?;
    let held = bpf::Held::by(tracer.pid())?;
    for netns in [&own, &other] {
        sees_an_exchange(&mut tracer, netns)?;
    }
    tracer.stop()?;
    let after = attached()?;
    ensure!(after == before, "before and after:\n{before:?}\n{after:?}");
    held.wait_until_gone()
}

/// Two at once leave each other's filters alone. When both are gone, what a killed one of them has left goes with the next.
#[test]
fn filters_of_two_at_once() -> Result<()> {
    let netns = Netns::new()?;
    let start = || refusing(no_tcx, || Tracer::start(&netns, &["--interface", "lo"]));
    let attached = || bpf::attached(&netns, "lo");
    let mut first = start()?;
    let of_first = attached()?;
    let mut second = start()?;
    let of_both = attached()?;
    ensure!(!of_first.is_empty() && of_both.is_superset(&of_first), "{of_first:?}\n{of_both:?}");
    all_see_an_exchange(&mut [&mut first, &mut second], &netns)?;
    first.end(libc::SIGKILL)?;
    ensure!(attached()? == of_both, "a killed daemon leaves its filters: {:?}", attached()?);
    start()?.stop()?;
    ensure!(attached()? == of_both, "while the second one runs, nobody's are removed: {:?}", attached()?);
    second.stop()?;
    start()?.stop()?;
    ensure!(attached()?.is_empty(), "still attached: {:?}", attached()?);
    Ok(())
}

#[test]
fn without_the_root_control_group() -> Result<()> {
    const REASON: &str = "Invalid argument";
    // The kernel has no such programs; it has, and lets none be attached.
    let rules: [Rule; 2] = [
        |call| call.loads_for_control_group().then_some(libc::EINVAL),
        |call| call.attaches_to_control_group().then_some(libc::EINVAL),
    ];
    for rule in rules {
        let (scratch, own, other) = (Scratch::new()?, Netns::new()?, Netns::new()?);
        let mut tracer = start_apart(rule, &scratch, &own, &other, &[])?;
        for netns in [&own, &other] {
            sees_an_exchange(&mut tracer, netns)?;
        }
        let run = tracer.stop()?;
        ensure!(start_line(&run.records)?.text("/capture") == "tc", "{:?}", start_line(&run.records)?);
        run.check_missing("cgroup_skb", REASON)?;
    }
    let output = output_without(rules[0], &["--capture", "cgroup"])?;
    failure::check_one_line(&output, &["--capture cgroup: ", REASON, "Leave --capture out"])?;
    let check = output_without(rules[0], &["check"])?;
    let text = String::from_utf8(check.stdout)?;
    ensure!(check.status.success() && text.contains("not used  cgroup_skb: "), "{text}");
    ensure!(text.contains(REASON) && text.contains("tracer can run"), "{text}");
    Ok(())
}

#[test]
fn without_iterators() -> Result<()> {
    let (netns, run) = works_without(|call| call.loads_iterator().then_some(libc::EINVAL), &[])?;
    for name in ["tcp existing_sockets", "task_file socket_owners", "tcp existing_report", "tcp reconcile"] {
        run.check_missing(&format!("iter/{name}"), "Invalid argument")?;
    }
    let conns = run.records.conns(&netns);
    ensure!(conns.iter().all(|conn| conn.is_true("/complete")), "{conns:?}");
    Ok(())
}

/// Where nobody may probe functions, timers tell of TIME_WAIT.
#[test]
fn without_probes() -> Result<()> {
    let (netns, run) = works_without(|call| call.loads_probe().then_some(libc::EPERM), &[])?;
    for name in ["timer:timer_start", "timer:timer_cancel", "timer:timer_expire_entry"] {
        let hook = run.records.hook(name)?;
        let why = hook["reason"].as_str().unwrap_or_default();
        let told = hook["way"] == "tp_btf" && why.contains("Operation not permitted");
        ensure!(told && hook["lost"].is_null(), "{hook}");
    }
    let waits = run.records.conns(&netns).iter().filter(|conn| conn.is_true("/time_wait")).count();
    ensure!(waits == 1, "{waits} TIME_WAITs: {:?}", run.records.conns(&netns));
    Ok(())
}

#[test]
fn without_tracepoints() -> Result<()> {
    let output = output_without(|call| call.loads_tracepoint().then_some(libc::EPERM), &[])?;
    let named =
        ["sock:inet_sock_set_state", "Operation not permitted", "the main job cannot run", "`tracer check`"];
    failure::check_one_line(&output, &named)
}

#[test]
fn without_room_for_the_ring() -> Result<()> {
    const RING: &str = "a ring of 1048576 bytes (--ring-size)";
    let args = ["--ring-size", "1M"];
    let output = output_without(|call| call.makes_ring().then_some(libc::ENOMEM), &args)?;
    let named = [RING, "map RING", "Cannot allocate memory", "lower --ring-size", "control group"];
    failure::check_one_line(&output, &named)?;
    // Where privileges do not help.
    let output = output_without(|call| call.makes_ring().then_some(libc::EPERM), &args)?;
    failure::check_one_line(&output, &[RING, "map RING", "Operation not permitted", "seccomp"])
}

/// Before 5.11 maps count against RLIMIT_MEMLOCK, which only CAP_SYS_RESOURCE raises.
#[test]
fn without_locked_memory() -> Result<()> {
    const LIMIT_KIB: u32 = 64;
    let netns = Netns::new()?;
    let line = format!("ulimit -l {LIMIT_KIB} && exec \"$@\"");
    let no_raise = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", "--"];
    let by = [&["sh", "-c", &line, "sh"], &no_raise[..]].concat();
    let mut command = tracer::command_by(&netns, &by, &tracer::binary()?, &[])?;
    if kernel() >= (5, 11) {
        let mut tracer = Tracer::start_by(&mut command)?;
        sees_an_exchange(&mut tracer, &netns)?;
        return tracer.stop().map(drop);
    }
    note("without CAP_SYS_RESOURCE a low RLIMIT_MEMLOCK is an error");
    let limit = format!("RLIMIT_MEMLOCK, which is {} bytes", LIMIT_KIB * 1024);
    let named = [
        "a ring of 8388608 bytes (--ring-size)",
        "Operation not permitted",
        &limit,
        "CAP_SYS_RESOURCE",
        "`ulimit -l unlimited`",
        "LimitMEMLOCK=infinity",
    ];
    failure::check_one_line(&process::output(&mut command, wait::LIMIT)?, &named)
}
