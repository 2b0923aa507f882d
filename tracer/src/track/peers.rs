//! Both ends of a connection on this host, when they do not share a flow: in two network namespaces.

use std::collections::HashMap;

use tracer_ebpf::{Conn, Tuple};

/// Addresses and ports, without the namespace.
type Ends = ([u8; 16], u16, [u8; 16], u16);

fn ends(tuple: &Tuple) -> Ends {
    (tuple.local_addr, tuple.local_port, tuple.remote_addr, tuple.remote_port)
}

fn reversed(tuple: &Tuple) -> Ends {
    (tuple.remote_addr, tuple.remote_port, tuple.local_addr, tuple.local_port)
}

/// Open connections by their ends, and the pairs found. As large as the connection table.
#[derive(Debug, Default)]
pub struct Peers {
    open: HashMap<Ends, Vec<u64>>,
    pairs: HashMap<u64, u64>,
}

impl Peers {
    /// A connection opened. The same addresses may be in use in several namespaces at once: then nobody can tell whose
    /// peer it is, and there is no pair.
    pub fn add(&mut self, conn: &Conn) {
        let same = self.open.entry(ends(&conn.tuple)).or_default();
        same.push(conn.id);
        let alone = same.len() == 1;
        if let Some([other]) = self.open.get(&reversed(&conn.tuple)).map(Vec::as_slice)
            && alone
            && *other != conn.id
        {
            self.pairs.insert(conn.id, *other);
            self.pairs.insert(*other, conn.id);
        }
    }

    /// The other end, also when it is gone already.
    pub fn of(&self, conn: &Conn) -> Option<u64> {
        self.pairs.get(&conn.id).copied()
    }

    /// A connection ended.
    pub fn remove(&mut self, conn: &Conn) {
        self.pairs.remove(&conn.id);
        let key = ends(&conn.tuple);
        if let Some(same) = self.open.get_mut(&key) {
            same.retain(|id| *id != conn.id);
            if same.is_empty() {
                self.open.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(id: u64, local: u16, remote: u16) -> Conn {
        let tuple = Tuple { local_port: local, remote_port: remote, ..Tuple::default() };
        Conn { id, tuple, ..Conn::ZERO }
    }

    #[test]
    fn ends_find_each_other_and_outlive_each_other() {
        let (client, server) = (conn(1, 4000, 80), conn(2, 80, 4000));
        let mut peers = Peers::default();
        peers.add(&client);
        assert_eq!(peers.of(&client), None);
        peers.add(&server);
        assert_eq!((peers.of(&client), peers.of(&server)), (Some(2), Some(1)));
        peers.remove(&client);
        assert_eq!(peers.of(&server), Some(1));
        peers.remove(&server);
        assert!(peers.open.is_empty() && peers.pairs.is_empty());
    }

    #[test]
    fn two_candidates_are_none() {
        let mut peers = Peers::default();
        peers.add(&conn(1, 4000, 80));
        peers.add(&conn(2, 4000, 80));
        let server = conn(3, 80, 4000);
        peers.add(&server);
        assert_eq!(peers.of(&server), None);
    }
}
