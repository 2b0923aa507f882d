//! Less than root: the capabilities that the README names are enough, and each that is missing is named.

use anyhow::{Context as _, Result, ensure};
use std::{path::Path, process::Command};
use tests::{
    client, failure,
    lacking::kernel,
    netns::Netns,
    process,
    records::Record,
    scratch::Scratch,
    tracer::{self, Tracer},
    wait,
};

/// What it does not run without, and what is said then.
const NEEDED: [(&str, &str); 3] = [
    ("bpf", "CAP_BPF (to load programs)"),
    ("perfmon", "CAP_PERFMON (to attach to tracepoints and read kernel structures)"),
    ("net_admin", "CAP_NET_ADMIN (to attach to the root control group and to network interfaces)"),
];
/// What the README asks for besides.
const PTRACE: &str = "sys_ptrace";

/// The daemon of a user with these capabilities and no others.
fn command(
    netns: &Netns,
    user: &str,
    capabilities: &[&str],
    binary: &Path,
    args: &[&str],
) -> Result<Command> {
    let with = capabilities.iter().fold("-all".to_owned(), |all, one| format!("{all},+{one}"));
    let [user, inheritable, ambient, bounding] =
        [("reuid", user), ("inh-caps", &with), ("ambient-caps", &with), ("bounding-set", &with)]
            .map(|(name, value)| format!("--{name}={value}"));
    // Before 5.11 its maps count against a limit that only root raises.
    let limit = if kernel() < (5, 11) { "ulimit -l unlimited && exec \"$@\"" } else { "exec \"$@\"" };
    let by = [
        "sh",
        "-c",
        limit,
        "sh",
        "setpriv",
        &user,
        "--clear-groups",
        &inheritable,
        &ambient,
        &bounding,
        "--",
    ];
    tracer::command_by(netns, &by, binary, args)
}

const ROOT: &str = "0";
const NOBODY: &str = "65534";

/// Those of the README.
fn all() -> Vec<&'static str> {
    NEEDED.iter().map(|(name, _)| *name).chain([PTRACE]).collect()
}

fn without(missing: &str) -> Vec<&'static str> {
    all().into_iter().filter(|name| *name != missing).collect()
}

fn wait_for_exchange(tracer: &mut Tracer, netns: &Netns) -> Result<()> {
    let listener = client::listen(netns, ([127, 0, 0, 1], 9001).into())?;
    client::converse(netns, &listener)?;
    tracer.wait_for("an exchange at both ends", |records| {
        (records.https(&records.conns(netns)).count() == 2).then_some(())
    })
}

#[test]
fn each_that_is_missing_is_named() -> Result<()> {
    let (netns, scratch) = (Netns::new()?, Scratch::new()?);
    let binary = tracer::copy(&scratch)?;
    for (missing, named) in NEEDED {
        for user in [ROOT, NOBODY] {
            let run = |args: &[&str]| {
                let mut command = command(&netns, user, &without(missing), &binary, args)?;
                process::output(&mut command, wait::LIMIT)
            };
            failure::check_one_line(
                &run(&[])?,
                &["not allowed to trace: missing ", named, "setcap cap_bpf,"],
            )?;
            let check = run(&["check"])?;
            let text = String::from_utf8(check.stdout)?;
            ensure!(check.status.code() == Some(1), "{text}");
            for named in [named, "remedy: ", "setcap cap_bpf,", "tracer cannot run"] {
                ensure!(text.contains(named), "`{named}` is not named:\n{text}");
            }
        }
    }
    Ok(())
}

/// What exists, is found in the own namespace, and of others it is said that it is not known.
#[test]
fn those_of_the_readme_are_enough() -> Result<()> {
    let (netns, scratch) = (Netns::new()?, Scratch::new()?);
    let binary = tracer::copy(&scratch)?;
    let older = client::listen(&netns, ([127, 0, 0, 1], 9000).into())?;
    let older_ends = client::pair(&netns, &older, older.local_addr()?)?;
    let mut tracer = Tracer::start_by(&mut command(&netns, NOBODY, &all(), &binary, &[])?)?;
    wait_for_exchange(&mut tracer, &netns)?;
    drop(older_ends);
    tracer.wait_for("the end of an older connection", |records| {
        (records.conns(&netns).len() == 4).then_some(())
    })?;
    let run = tracer.stop()?;
    ensure!(!run.stderr.contains("CAP_SYS_PTRACE"), "{}", run.stderr);

    let exe = std::env::current_exe()?;
    let exe = exe.to_str().context("the program's path is not UTF-8")?;
    let conns = run.records.conns(&netns);
    let unowned = run.records.lack("iter/task_file socket_owners", "older connections have no process");
    let right = |conn: &Record| {
        let older = [conn.count("/local/port"), conn.count("/remote/port")].contains(&Some(9000));
        let owned = conn.text("/process/exe") == exe || older && unowned && conn.is_null("/process");
        conn.is_true("/preexisting") == older && owned
    };
    ensure!(conns.iter().all(right), "{conns:?}");

    run.check_missing("iter/tcp existing_sockets", "CAP_SYS_ADMIN: EPERM")?;
    run.check_missing("iter/tcp existing_report", "CAP_SYS_ADMIN: EPERM")
}

/// Where functions cannot be probed, timers are told apart by an address that is not shown to everybody.
#[test]
fn timers_need_one_more() -> Result<()> {
    const TIMER: &str = "timer:timer_expire_entry";
    let (netns, scratch) = (Netns::new()?, Scratch::new()?);
    let binary = tracer::copy(&scratch)?;
    let args = ["--hooks", "tracepoint"];
    let output = process::output(&mut command(&netns, NOBODY, &all(), &binary, &args)?, wait::LIMIT)?;
    failure::check_one_line(&output, &["--hooks tracepoint: cannot attach timer:timer_", "CAP_SYSLOG"])?;
    let more = [&all()[..], &["syslog"]].concat();
    let mut tracer = Tracer::start_by(&mut command(&netns, NOBODY, &more, &binary, &args)?)?;
    wait_for_exchange(&mut tracer, &netns)?;
    let run = tracer.stop()?;
    let hook = run.records.hook(TIMER)?;
    ensure!(hook["way"] == "tp_btf" && hook["lost"].is_null(), "{hook}");
    let waits = run.records.conns(&netns).iter().filter(|conn| conn.is_true("/time_wait")).count();
    ensure!(waits == 1, "{waits} TIME_WAITs: {:?}", run.records.conns(&netns));
    Ok(())
}

#[test]
fn what_is_less_without_ptrace_is_told() -> Result<()> {
    const TOLD: [&str; 2] = ["CAP_SYS_PTRACE", "selfcheck.others"];
    let (netns, scratch) = (Netns::new()?, Scratch::new()?);
    let binary = tracer::copy(&scratch)?;
    let mut tracer = Tracer::start_by(&mut command(&netns, NOBODY, &without(PTRACE), &binary, &[])?)?;
    wait_for_exchange(&mut tracer, &netns)?;
    let run = tracer.stop()?;
    let check =
        process::output(&mut command(&netns, NOBODY, &without(PTRACE), &binary, &["check"])?, wait::LIMIT)?;
    ensure!(check.status.success(), "{check:?}");
    for text in [run.stderr, String::from_utf8(check.stdout)?] {
        for told in TOLD {
            ensure!(text.contains(told), "`{told}` is not in:\n{text}");
        }
    }
    Ok(())
}
