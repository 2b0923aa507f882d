//! The classifier's place on the interfaces: those that are up, and those that come up later.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use aya::programs::{
    SchedClassifier, TcAttachType,
    links::LinkOrder,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError},
};
use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use super::hooks::{Hook, say};

/// Names of the classifiers, by which a leftover of a killed run is recognised.
const PROGRAMS: [&str; 2] = ["segments", "segments_elsewhere"];

const DIRECTIONS: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// The way of kernels without tcx: a filter that stays until somebody removes it.
const CLSACT: &str = "clsact";

struct Attached {
    way: &'static str,
    /// Why not a better one.
    reason: Option<String>,
    /// Dropping them detaches.
    links: Vec<SchedClassifierLink>,
}

/// Interfaces with the classifier on them.
pub struct Interfaces {
    /// Only these; empty for all.
    only: BTreeSet<String>,
    attached: BTreeMap<String, Attached>,
    failed: BTreeMap<String, String>,
    /// See [`claim`]; `None` where there are no filters. The last member, so that these are dropped before it.
    claim: Option<File>,
}

impl Interfaces {
    /// # Errors
    /// An interface that was named does not exist.
    pub fn new(only: &[String]) -> Result<Self> {
        let known = interfaces()?;
        for name in only {
            if !known.contains_key(name) {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                bail!(
                    "--interface {name}: there is no such interface in this network namespace; there are: {}",
                    names.join(", ")
                );
            }
        }
        Ok(Self {
            only: only.iter().cloned().collect(),
            attached: BTreeMap::new(),
            failed: BTreeMap::new(),
            claim: None,
        })
    }

    /// Attaches to what is up and new, and forgets what is gone. Returns the names that are new.
    ///
    /// # Errors
    /// The interfaces cannot be listed.
    pub fn refresh(&mut self, program: &mut SchedClassifier) -> Result<Vec<String>> {
        let known = interfaces()?;
        self.attached.retain(|name, _| known.contains_key(name));
        self.failed.retain(|name, _| known.contains_key(name));
        let mut new = Vec::new();
        for (name, flags) in known {
            let wanted = self.only.is_empty() || self.only.contains(&name);
            if !wanted || !flags.contains(InterfaceFlags::IFF_UP) || self.attached.contains_key(&name) {
                continue;
            }
            match self.attach(program, &name, flags.contains(InterfaceFlags::IFF_LOOPBACK)) {
                Ok(attached) => {
                    self.failed.remove(&name);
                    self.attached.insert(name.clone(), attached);
                    new.push(name);
                }
                Err(reason) => {
                    self.failed.insert(name, reason);
                }
            }
        }
        Ok(new)
    }

    /// Both directions; on loopback egress only, where every segment passes once.
    fn attach(
        &mut self,
        program: &mut SchedClassifier,
        name: &str,
        loopback: bool,
    ) -> Result<Attached, String> {
        let directions: &[TcAttachType] = if loopback { &[TcAttachType::Egress] } else { &DIRECTIONS };
        match attach_all(program, name, directions, tcx) {
            Ok(links) => Ok(Attached { way: "tcx", reason: None, links }),
            Err(tcx_refused) => {
                let say_both = |refused| format!("tcx: {tcx_refused}; clsact: {refused}");
                if self.claim.is_none() {
                    self.claim = claim();
                }
                add_clsact(name).map_err(say_both)?;
                let links = attach_all(program, name, directions, clsact).map_err(say_both)?;
                Ok(Attached { way: CLSACT, reason: Some(format!("tcx: {tcx_refused}")), links })
            }
        }
    }

    /// Gives up filters without removing them: their namespace is gone, and what has their interface's number here is
    /// another one.
    pub fn abandon(self) {
        for attached in self.attached.into_values().filter(|attached| attached.way == CLSACT) {
            attached.links.into_iter().for_each(std::mem::forget);
        }
    }

    /// Names of the interfaces with the classifier.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.attached.keys().map(String::as_str)
    }

    /// One entry for each interface.
    pub fn hooks(&self) -> Vec<Hook> {
        let attached = self.attached.iter().map(|(name, attached)| Hook {
            name: format!("tc {name}"),
            way: Some(attached.way),
            attached: true,
            reason: attached.reason.clone(),
            lost: None,
            required: false,
        });
        let failed = self.failed.iter().map(|(name, reason)| Hook {
            name: format!("tc {name}"),
            way: None,
            attached: false,
            reason: Some(reason.clone()),
            lost: Some(
                "HTTP exchanges over this interface, and the begin of TIME_WAIT after an orphaned FIN_WAIT2",
            ),
            required: false,
        });
        attached.chain(failed).collect()
    }
}

/// Names and flags of the interfaces of our network namespace. (Not from /sys, which shows the namespace of its mount.)
fn interfaces() -> Result<BTreeMap<String, InterfaceFlags>> {
    let all = getifaddrs().context("cannot list the network interfaces (getifaddrs)")?;
    Ok(all.map(|interface| (interface.interface_name, interface.flags)).collect())
}

fn attach_all(
    program: &mut SchedClassifier,
    name: &str,
    directions: &[TcAttachType],
    options: fn() -> TcAttachOptions,
) -> Result<Vec<SchedClassifierLink>, String> {
    directions
        .iter()
        .map(|direction| {
            program
                .attach_with_options(name, *direction, options())
                .and_then(|id| program.take_link(id))
                .map_err(|error| say(&error))
        })
        .collect()
}

/// First in the chain, so that what others drop or redirect is still seen.
fn tcx() -> TcAttachOptions {
    TcAttachOptions::TcxOrder(LinkOrder::first())
}

fn clsact() -> TcAttachOptions {
    TcAttachOptions::Netlink(NlOptions::default())
}

/// A lock on the network namespace, shared by the runs that have filters in it: the kernel lets go of it when a run is killed, but
/// not of its filters. Who is the only one removes these. `None` when somebody else holds a lock that is not shared.
fn claim() -> Option<File> {
    let namespace = File::open("/proc/thread-self/ns/net").ok()?;
    if namespace.try_lock().is_ok() {
        remove_filters();
    }
    namespace.try_lock_shared().is_ok().then_some(namespace)
}

/// Removes all filters with our names.
fn remove_filters() {
    for name in interfaces().unwrap_or_default().keys() {
        for direction in DIRECTIONS {
            for program in PROGRAMS {
                // Most have none.
                let _ = tc::qdisc_detach_program(name, direction, program);
            }
        }
    }
}

/// Makes sure that there is a clsact qdisc. It stays at the end: others may use it.
fn add_clsact(name: &str) -> Result<(), String> {
    match tc::qdisc_add_clsact(name) {
        Err(error) if !already_there(&error) => Err(say(&error)),
        _ => Ok(()),
    }
}

fn already_there(error: &TcError) -> bool {
    matches!(error, TcError::AlreadyAttached) || say(error).contains("File exists")
}

/// Tells when interfaces come, go or change.
pub struct LinkChanges(AsyncFd<OwnedFd>);

impl LinkChanges {
    /// # Errors
    /// No netlink socket can be had, or there is no tokio runtime.
    pub fn listen() -> Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )
        .context("cannot open a route netlink socket")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32))
            .context("cannot listen for interface changes (rtnetlink)")?;
        // SAFETY: an `OwnedFd` keeps its descriptor open for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? }))
    }

    /// Waits for a change. What changed is to be asked for: messages may be lost, the state is not.
    pub async fn changed(&mut self) {
        let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
        let mut message = [0u8; 8192];
        while recv(ready.get_inner().as_raw_fd(), &mut message, MsgFlags::empty()).is_ok() {}
        ready.clear_ready();
    }
}
