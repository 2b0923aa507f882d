//! Who listens where: the owner of a connection that nobody has read from yet, and the role of one older than us.

use std::collections::{HashMap, VecDeque};

use tracer_ebpf::{Conn, Owner, owner_source};

/// Most ports remembered; a host has 65,536 of them in each namespace.
const MAX_PORTS: usize = 65_536;

/// Listeners remembered that are gone: their last connections may end after them.
const MAX_GONE: usize = 1024;

#[derive(Debug, Default)]
pub struct Listeners {
    by_port: HashMap<(u32, u16), Vec<Listener>>,
    /// With namespace and port, and when it went; the last one at the end.
    gone: VecDeque<((u32, u16), u64, Listener)>,
}

#[derive(Debug)]
struct Listener {
    id: u64,
    addr: [u8; 16],
    owner: Owner,
    opened_ns: u64,
}

impl Listener {
    /// Whether its owner is known and it is bound to this address, or to any.
    fn accepts(&self, addr: &[u8; 16]) -> bool {
        self.owner.source != owner_source::NONE && (self.addr == *addr || is_any(&self.addr))
    }
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
        let Conn { id, opened_ns, owner, .. } = *conn;
        listeners.push(Listener { id, addr: conn.tuple.local_addr, owner, opened_ns });
    }

    pub fn remove(&mut self, conn: &Conn, now_ns: u64) {
        let key = (conn.tuple.netns, conn.tuple.local_port);
        if let Some(listeners) = self.by_port.get_mut(&key) {
            if let Some(index) = listeners.iter().position(|listener| listener.id == conn.id) {
                if self.gone.len() == MAX_GONE {
                    self.gone.pop_front();
                }
                self.gone.push_back((key, now_ns, listeners.remove(index)));
            }
            if listeners.is_empty() {
                self.by_port.remove(&key);
            }
        }
    }

    /// The owner of the listener that a connection came from: bound to its very address first, else to any.
    pub fn find(&self, conn: &Conn) -> Option<&Owner> {
        let key = (conn.tuple.netns, conn.tuple.local_port);
        let addr = &conn.tuple.local_addr;
        let here = self.by_port.get(&key).into_iter().flatten().filter(|listener| listener.accepts(addr));
        let found = here.min_by_key(|listener| listener.addr != *addr);
        found.or_else(|| self.find_gone(key, conn)).map(|listener| &listener.owner)
    }

    /// The listener that was there when a connection began.
    fn find_gone(&self, key: (u32, u16), conn: &Conn) -> Option<&Listener> {
        let was_there = |(at, gone_ns, listener): &&((u32, u16), u64, Listener)| {
            *at == key
                && (listener.opened_ns..=*gone_ns).contains(&conn.opened_ns)
                && listener.accepts(&conn.tuple.local_addr)
        };
        self.gone.iter().rev().find(was_there).map(|(_, _, listener)| listener)
    }
}

/// `::`, or `0.0.0.0` mapped.
fn is_any(addr: &[u8; 16]) -> bool {
    addr[12..] == [0; 4]
        && (addr[..12] == [0; 12] || addr[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_ebpf::Tuple;

    fn conn(id: u64, opened_ns: u64, pid: u32) -> Conn {
        let owner = Owner { pid, source: owner_source::LISTEN, ..Owner::default() };
        Conn { id, opened_ns, owner, tuple: Tuple { local_port: 80, ..Tuple::default() }, ..Conn::ZERO }
    }

    #[test]
    fn a_listener_that_is_gone_has_the_connections_of_its_time() {
        let mut listeners = Listeners::default();
        let (first, second) = (conn(1, 10, 100), conn(2, 30, 200));
        listeners.add(&first);
        listeners.remove(&first, 20);
        let pid = |listeners: &Listeners, opened_ns| {
            listeners.find(&Conn { owner: Owner::default(), ..conn(9, opened_ns, 0) }).map(|owner| owner.pid)
        };
        assert_eq!((pid(&listeners, 15), pid(&listeners, 25)), (Some(100), None));
        listeners.add(&second);
        assert_eq!(pid(&listeners, 35), Some(200));
        assert_eq!(listeners.len(), 1);
    }
}
