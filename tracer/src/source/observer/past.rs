//! Connections that are over, for as long as segments of theirs may still come, and their TIME_WAITs.

use std::collections::{BTreeMap, HashMap};

use tracer_ebpf::{FlowKey, Header, TimeWaitRecord, Tuple, kind, state};

/// `TCP_TIMEWAIT_LEN` (include/net/tcp.h); other systems have 30 to 240 s.
pub const TIME_WAIT_NS: u64 = 60_000_000_000;

/// A connection that is over.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    pub id: u64,
    pub family: u8,
    /// Both ends as the one in TIME_WAIT sees them; `None` when neither is.
    pub time_wait: Option<Tuple>,
    pub began_ns: u64,
    pub until_ns: u64,
}

impl Past {
    /// The end of its TIME_WAIT, if it has one.
    pub fn ended(&self, detail: u16, cause: u8, time_ns: u64) -> Option<TimeWaitRecord> {
        Some(TimeWaitRecord {
            header: Header { kind: kind::TIME_WAIT, detail, pad: 0, time_ns },
            conn: self.id,
            began_ns: self.began_ns,
            tuple: self.time_wait?,
            substate: state::TIME_WAIT,
            cause,
            family: self.family,
            rst_sent: 0,
            reset_reason: 0,
        })
    }
}

/// As many as there may be connections; of more, those that end first are forgotten.
#[derive(Debug, Default)]
pub struct Pasts {
    by_key: HashMap<FlowKey, Past>,
    /// By when they end, and id.
    ends: BTreeMap<(u64, u64), FlowKey>,
    max: usize,
}

impl Pasts {
    pub fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn contains(&self, key: &FlowKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// Returns one that had to make room.
    pub fn add(&mut self, key: FlowKey, past: Past) -> Option<Past> {
        let forgotten = if self.by_key.len() >= self.max { self.first(u64::MAX) } else { None };
        self.ends.insert((past.until_ns, past.id), key);
        self.by_key.insert(key, past);
        forgotten
    }

    pub fn remove(&mut self, key: &FlowKey) -> Option<Past> {
        let past = self.by_key.remove(key)?;
        self.ends.remove(&(past.until_ns, past.id));
        Some(past)
    }

    /// The peer's FIN came again, so TIME_WAIT starts anew (RFC 9293 §3.10.7.4).
    pub fn renew(&mut self, key: &FlowKey, until_ns: u64) {
        if let Some(mut past) = self.remove(key) {
            past.until_ns = past.until_ns.max(until_ns);
            self.add(*key, past);
        }
    }

    /// One that is over by now, the earliest.
    pub fn first(&mut self, now_ns: u64) -> Option<Past> {
        let (&(until_ns, id), key) = self.ends.first_key_value()?;
        if until_ns > now_ns {
            return None;
        }
        let past = self.by_key.remove(key);
        self.ends.remove(&(until_ns, id));
        past
    }
}
