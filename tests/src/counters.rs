//! The kernel's own counters of a namespace, against which the tracer's records are checked.

use crate::netns::Netns;
use anyhow::{Context as _, Result};
use std::{collections::BTreeMap, fs};

/// Values of `/proc/net/snmp` and `/proc/net/netstat`, named as `nstat` names them.
#[derive(Debug)]
pub struct Counters(BTreeMap<String, i64>);

impl Counters {
    pub fn read(netns: &Netns) -> Result<Self> {
        let text = netns.enter(|| {
            let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            Ok(read("snmp")? + &read("netstat")?)
        })?;
        // Pairs of lines: names, then values, both behind the group's name.
        let lines: Vec<&str> = text.lines().collect();
        let mut all = BTreeMap::new();
        for pair in lines.chunks_exact(2) {
            let (group, names) = pair[0].split_once(':').with_context(|| format!("no group in {pair:?}"))?;
            let values = pair[1].split_ascii_whitespace().skip(1);
            for (name, value) in names.split_ascii_whitespace().zip(values) {
                let value = value.parse().with_context(|| format!("{group}{name}: {value}"))?;
                all.insert(format!("{group}{name}"), value);
            }
        }
        Ok(Self(all))
    }

    /// A counter by its name, such as `TcpActiveOpens`.
    pub fn get(&self, name: &str) -> Result<usize> {
        let value = self.0.get(name).with_context(|| format!("the kernel has no counter {name}"))?;
        usize::try_from(*value).with_context(|| format!("{name} is {value}"))
    }
}

/// How many sockets `ss` lists, by state.
pub fn socket_states(netns: &Netns) -> Result<BTreeMap<String, usize>> {
    let mut states = BTreeMap::new();
    for line in netns.run("ss", &["-tanH"])?.lines() {
        if let Some(state) = line.split_ascii_whitespace().next() {
            *states.entry(state.to_owned()).or_default() += 1;
        }
    }
    Ok(states)
}
