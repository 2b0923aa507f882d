//! The maps that the daemon reads and writes.

use std::borrow::Borrow;

use anyhow::{Context, Result};
use aya::{
    Ebpf, Pod,
    maps::{
        HashMap, MapData, PerCpuArray,
        lpm_trie::{Key, LpmTrie},
    },
};
use ipnet::IpNet;
use tracer_ebpf::{Conn, Flow, FlowKey, Mark, MarkKey, NetnsCounts, TimeWait, Tuple, counter};

use super::calls::Calls;
use crate::filter::{COMM_BYTES, Filter};

pub struct Tables {
    calls: Calls,
    counters: PerCpuArray<MapData, u64>,
    conns: HashMap<MapData, u64, Conn>,
    unsent: HashMap<MapData, u64, Conn>,
    marks: HashMap<MapData, MarkKey, Mark>,
    flows: HashMap<MapData, FlowKey, Flow>,
    time_waits: HashMap<MapData, Tuple, TimeWait>,
    netns_counts: HashMap<MapData, u32, NetnsCounts>,
}

impl Tables {
    pub(super) fn take(ebpf: &mut Ebpf, calls: Calls) -> Result<Self> {
        let mut map =
            |name: &str| ebpf.take_map(name).with_context(|| format!("the object lacks the map {name}"));
        Ok(Self {
            calls,
            counters: PerCpuArray::try_from(map("COUNTERS")?)?,
            conns: HashMap::try_from(map("CONNS")?)?,
            unsent: HashMap::try_from(map("UNSENT")?)?,
            marks: HashMap::try_from(map("MARKS")?)?,
            flows: HashMap::try_from(map("FLOWS")?)?,
            time_waits: HashMap::try_from(map("TIME_WAITS")?)?,
            netns_counts: HashMap::try_from(map("NETNS_COUNTS")?)?,
        })
    }

    /// All counters of [`counter`], summed over the CPUs.
    pub fn counters(&self) -> [u64; counter::COUNT as usize] {
        std::array::from_fn(|index| {
            self.calls
                .make(|| self.counters.get(&(index as u32), 0))
                .map_or(0, |by_cpu| by_cpu.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)))
        })
    }

    /// What was counted in a network namespace (inode); nothing in one where nothing happened.
    pub fn netns_counts(&self, netns: u32) -> NetnsCounts {
        self.calls.make(|| self.netns_counts.get(&netns, 0)).unwrap_or_default()
    }

    /// The connection table as it is.
    pub fn connections(&self) -> impl Iterator<Item = Conn> {
        self.conns.iter().flatten().map(|(_, conn)| conn)
    }

    /// Takes the finished connections that found the ring full.
    pub fn take_unsent(&mut self) -> Vec<Conn> {
        let ids: Vec<u64> = self.unsent.keys().flatten().collect();
        ids.iter()
            .filter_map(|id| {
                self.calls.make(|| {
                    let conn = self.unsent.get(id, 0).ok()?;
                    self.unsent.remove(id).ok()?;
                    Some(conn)
                })
            })
            .collect()
    }

    /// Tells the classifier what is not wanted. The map makes room by itself; a lost mark costs copies only.
    pub fn mark(&mut self, flow: u64, dir: u64, mark: Mark) {
        let _ = self.calls.make(|| self.marks.insert(MarkKey { flow, dir }, mark, 0));
    }

    /// Drops a flow that has no socket any more.
    pub fn forget(&mut self, flow: u64, key: &FlowKey) {
        self.calls.make(|| {
            if self.flows.get(key, 0).is_ok_and(|known| known.id == flow && known.ends == 0) {
                let _ = self.flows.remove(key);
            }
        });
    }
}

impl Tables {
    /// Drops a mini-socket that ended when its timer was cancelled; one that began anew on the same ends stays.
    pub fn forget_time_wait(&mut self, tuple: &Tuple, began_ns: u64) {
        let over = |known: TimeWait| known.began_ns == began_ns && known.cancelled_ns != 0;
        self.calls.make(|| {
            if self.time_waits.get(tuple, 0).is_ok_and(over) {
                let _ = self.time_waits.remove(tuple);
            }
        });
    }
}

/// Fills in the filter maps.
pub(super) fn set_filters(ebpf: &mut Ebpf, filter: &Filter) -> Result<()> {
    let hosts = ebpf.map_mut("HOSTS").context("the object lacks the map HOSTS")?;
    let mut hosts: LpmTrie<_, [u8; 16], u8> = LpmTrie::try_from(hosts)?;
    for net in &filter.hosts {
        let (addr, bits) = match net {
            IpNet::V4(net) => (net.addr().to_ipv6_mapped(), 96 + u32::from(net.prefix_len())),
            IpNet::V6(net) => (net.addr(), u32::from(net.prefix_len())),
        };
        hosts
            .insert(&Key::new(bits, addr.octets()), bits as u8, 0)
            .with_context(|| format!("--host {net}"))?;
    }
    let pids = ebpf.map_mut("PIDS").context("the object lacks the map PIDS")?;
    fill(pids, filter.pids.iter().copied()).context("--pid")?;
    let comms = filter.comms.iter().map(|comm| {
        let mut bytes = [0u8; COMM_BYTES + 1];
        let len = comm.len().min(COMM_BYTES);
        bytes[..len].copy_from_slice(&comm.as_bytes()[..len]);
        bytes
    });
    let map = ebpf.map_mut("COMMS").context("the object lacks the map COMMS")?;
    fill(map, comms).context("--comm")
}

fn fill<K: Pod + Borrow<K>>(map: &mut aya::maps::Map, keys: impl Iterator<Item = K>) -> Result<()> {
    let mut map: HashMap<_, K, u8> = HashMap::try_from(map)?;
    for key in keys {
        map.insert(key, 1, 0)?;
    }
    Ok(())
}
