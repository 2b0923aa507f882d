//! Who listens where: the owner of a connection that nobody has read from yet, and the role of one older than us.

use std::collections::HashMap;

use tracer_ebpf::{Conn, Owner, owner_source};

/// Most ports remembered; a host has 65,536 of them in each namespace.
const MAX_PORTS: usize = 65_536;

#[derive(Debug, Default)]
pub struct Listeners {
    by_port: HashMap<(u32, u16), Vec<Listener>>,
}

#[derive(Debug)]
struct Listener {
    id: u64,
    addr: [u8; 16],
    owner: Owner,
}

impl Listeners {
    pub fn len(&self) -> usize {
        self.by_port.len()
    }

    pub fn add(&mut self, conn: &Conn) {
        if self.by_port.len() >= MAX_PORTS {
            return;
        }
        let listeners = self.by_port.entry((conn.tuple.netns, conn.tuple.local_port)).or_default();
        listeners.retain(|listener| listener.id != conn.id);
        listeners.push(Listener { id: conn.id, addr: conn.tuple.local_addr, owner: conn.owner });
    }

    pub fn remove(&mut self, conn: &Conn) {
        let key = (conn.tuple.netns, conn.tuple.local_port);
        if let Some(listeners) = self.by_port.get_mut(&key) {
            listeners.retain(|listener| listener.id != conn.id);
            if listeners.is_empty() {
                self.by_port.remove(&key);
            }
        }
    }

    /// The owner of the listener that a connection came from: bound to its very address first, else to any.
    pub fn find(&self, conn: &Conn) -> Option<&Owner> {
        let listeners = self.by_port.get(&(conn.tuple.netns, conn.tuple.local_port))?;
        let known = || listeners.iter().filter(|listener| listener.owner.source != owner_source::NONE);
        known()
            .find(|listener| listener.addr == conn.tuple.local_addr)
            .or_else(|| known().find(|listener| is_any(&listener.addr)))
            .map(|listener| &listener.owner)
    }
}

/// `::`, or `0.0.0.0` mapped.
fn is_any(addr: &[u8; 16]) -> bool {
    addr[12..] == [0; 4]
        && (addr[..12] == [0; 12] || addr[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
}
