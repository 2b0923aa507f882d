//! The classifier in other network namespaces, as they come and go (`--capture tc`).
//!
//! A socket that listens for interface changes would keep its namespace alive, so namespaces are looked through instead:
//! from time to time, and as soon as a connection is in one not known.

use std::{collections::BTreeMap, fs::File};

use aya::programs::SchedClassifier;

use super::{hooks::Hook, interfaces::Interfaces};
use crate::netns;

/// Namespaces with the classifier on their interfaces, by inode.
#[derive(Default)]
pub struct Elsewhere {
    known: BTreeMap<u32, Result<Interfaces, String>>,
}

impl Elsewhere {
    /// Attaches to what is new and forgets what is gone.
    pub fn refresh(&mut self, program: &mut SchedClassifier) {
        let mut namespaces = netns::all();
        namespaces.remove(&netns::own());
        self.forget(|inode| !namespaces.contains_key(&inode)).into_values().for_each(Interfaces::abandon);
        for (inode, namespace) in &namespaces {
            let known = self.known.remove(inode).and_then(Result::ok);
            self.known.insert(*inode, refreshed(known, program, namespace));
        }
    }

    /// Takes out the namespaces that are meant.
    fn forget(&mut self, meant: impl Fn(u32) -> bool) -> BTreeMap<u32, Interfaces> {
        let taken = self.known.extract_if(.., |inode, _| meant(*inode));
        taken.filter_map(|(inode, known)| Some((inode, known.ok()?))).collect()
    }

    /// One entry for each interface, and for each namespace that cannot be entered.
    pub fn hooks(&self) -> Vec<Hook> {
        let of = |(inode, known): (&u32, &Result<Interfaces, String>)| match known {
            Ok(interfaces) => interfaces
                .hooks()
                .into_iter()
                .map(|hook| Hook { name: format!("{} in network namespace {inode}", hook.name), ..hook })
                .collect(),
            Err(reason) => vec![Hook {
                name: format!("tc in network namespace {inode}"),
                way: None,
                attached: false,
                reason: Some(reason.clone()),
                lost: Some("HTTP exchanges of this network namespace"),
                required: false,
            }],
        };
        self.known.iter().flat_map(of).collect()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let namespaces = netns::all();
        for (inode, interfaces) in self.forget(|_| true) {
            match namespaces.get(&inode) {
                Some(namespace) => leave(interfaces, namespace),
                None => interfaces.abandon(),
            }
        }
    }
}

/// Filters are removed by a thread that is in the namespace: they are known by the number of an interface.
fn leave(interfaces: Interfaces, namespace: &File) {
    std::thread::scope(|scope| {
        scope.spawn(|| match nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET) {
            Ok(()) => drop(interfaces),
            Err(_) => interfaces.abandon(),
        });
    });
}

/// Interfaces are listed and attached to by a thread that is in the namespace.
fn refreshed(
    known: Option<Interfaces>,
    program: &mut SchedClassifier,
    namespace: &File,
) -> Result<Interfaces, String> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)
                    .map_err(|error| format!("entering it takes CAP_SYS_ADMIN: {error}"))?;
                let attach = || {
                    let mut interfaces = known.map_or_else(|| Interfaces::new(&[]), Ok)?;
                    interfaces.refresh(program)?;
                    anyhow::Ok(interfaces)
                };
                attach().map_err(|error| format!("{error:#}"))
            })
            .join()
            .unwrap_or_else(|_| Err("the thread that entered it ended early".to_owned()))
    })
}
