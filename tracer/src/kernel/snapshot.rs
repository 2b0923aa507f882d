//! Sockets that exist when the tracer starts: every network namespace's, and whose they are.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read},
};

use aya::{Btf, Ebpf, programs::Iter};

use super::hooks::{Hook, say};
use crate::netns;

/// Program, kind of iterator, what is lost without it. In the order in which they run.
const PASSES: [(&str, &str, &str); 3] = [
    ("existing_sockets", "tcp", "connections older than the tracer"),
    (
        "socket_owners",
        "task_file",
        "the process of connections older than the tracer, until they send or receive",
    ),
    ("existing_report", "tcp", "connections older than the tracer, until they end"),
];

/// What is lost when only the tracer's own network namespace can be looked into.
const ELSEWHERE: &str = "connections of other network namespaces that are older than the tracer";

/// Brings the totals of open connections up to date.
const TOTALS: &str = "current_totals";

/// Finds connections whose end was missed.
const RECONCILE: &str = "reconcile";

/// Run later, and need `bpf_for_each_map_elem` (5.13).
const LATER: [(&str, &str); 2] = [
    (TOTALS, "what open connections carried since they were established, when the tracer ends"),
    (RECONCILE, "connections whose end was missed, and the FIN for an orphaned FIN_WAIT2 that ends no timer"),
];

/// Why the kernel refused a program, by its name.
pub type Refused = BTreeMap<&'static str, String>;

/// Loads the iterator programs. One that the kernel refuses is a hook that is missing when it should run.
pub fn load(ebpf: &mut Ebpf, btf: &Btf) -> Refused {
    let passes = PASSES.iter().map(|(program, kind, _)| (*program, *kind));
    let later = LATER.iter().map(|(program, _)| (*program, "tcp"));
    let mut refused = Refused::new();
    for (program, kind) in passes.chain(later) {
        let result = iterator(ebpf, program)
            .and_then(|iterator| iterator.load(kind, btf).map_err(|error| say(&error)));
        if let Err(reason) = result {
            refused.insert(program, reason);
        }
    }
    refused
}

/// What is missing while the tracer runs and when it ends.
pub fn later(refused: &Refused) -> impl Iterator<Item = Hook> {
    LATER.into_iter().map(|(program, lost)| {
        hook("tcp", program, lost, refused.get(program).map_or(Ok(()), |reason| Err(reason.clone())))
    })
}

fn hook(kind: &str, program: &str, lost: &'static str, result: Result<(), String>) -> Hook {
    Hook {
        name: format!("iter/{kind} {program}"),
        way: result.is_ok().then_some("bpf_iter"),
        attached: result.is_ok(),
        lost: result.is_err().then_some(lost),
        reason: result.err(),
        required: false,
    }
}

/// Holds every entry of the connection table against its socket; one whose socket is gone is reported as finished.
pub fn reconcile(ebpf: &mut Ebpf) -> Result<(), String> {
    iterator(ebpf, RECONCILE).and_then(run)
}

/// Reads the totals of open connections into the table.
pub fn refresh_totals(ebpf: &mut Ebpf) -> Result<(), String> {
    iterator(ebpf, TOTALS).and_then(run)
}

/// Runs the iterators: sockets of all namespaces into the connection table, owners, then one record each.
pub fn existing_sockets(ebpf: &mut Ebpf, refused: &Refused) -> Vec<Hook> {
    let mut others = netns::all();
    others.remove(&netns::own());
    PASSES
        .into_iter()
        .map(|(program, kind, lost)| {
            let own = match refused.get(program) {
                Some(reason) => Err(reason.clone()),
                None => iterator(ebpf, program).and_then(run),
            };
            if own.is_err() || kind != "tcp" {
                return hook(kind, program, lost, own);
            }
            hook(kind, program, ELSEWHERE, in_namespaces(ebpf, program, &others))
        })
        .collect()
}

fn iterator<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut Iter, String> {
    let found = ebpf.program_mut(program).ok_or("the object lacks this program")?;
    found.try_into().map_err(|error: aya::programs::ProgramError| say(&error))
}

/// One namespace that cannot be entered does not keep us from the others.
fn in_namespaces(ebpf: &mut Ebpf, program: &str, namespaces: &BTreeMap<u32, File>) -> Result<(), String> {
    let results: Vec<_> =
        namespaces.values().map(|namespace| in_namespace(ebpf, program, namespace)).collect();
    results.into_iter().collect()
}

/// `iter/tcp` shows the namespace of the task that opens it.
fn in_namespace(ebpf: &mut Ebpf, program: &str, namespace: &File) -> Result<(), String> {
    let program = iterator(ebpf, program)?;
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| {
                    format!("entering another network namespace takes CAP_SYS_ADMIN: {error}")
                })?;
                run(program)
            })
            .join()
            .unwrap_or_else(|_| Err("the snapshot's thread ended early".to_owned()))
    })
}

fn run(program: &mut Iter) -> Result<(), String> {
    let link = program.attach().and_then(|id| program.take_link(id)).map_err(|error| say(&error))?;
    let mut file = link.into_file().map_err(|error| say(&error))?;
    let mut nothing = [0u8; 4096];
    // The programs write nothing: reading drives them.
    loop {
        match file.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // After a million sockets without output the kernel wants to be asked again (`MAX_ITER_OBJECTS`).
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(format!("reading the iterator: {error}")),
        }
    }
}
