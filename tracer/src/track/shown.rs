//! Segments shown one by one: what their numbers mean, and whose they are.

use std::collections::{HashMap, VecDeque};

use tracer_ebpf::{Conn, OPTIONS_BYTES, ShownRecord, Tuple, tcp_flag};

use super::options::Options;
use crate::cli;

/// `LOOPBACK_IFINDEX` (include/net/flow.h).
const LOOPBACK: u32 = 1;
/// Pairs of ends whose first sequence numbers are remembered.
const MAX_KNOWN: usize = 65_536;
/// Segments that wait for their connection.
const MAX_HELD: usize = 4096;
/// For how long: a handshake.
const HELD_NS: u64 = 1_000_000_000;

/// One segment, as one of its sockets saw it.
#[derive(Clone, Debug)]
pub struct Segment {
    /// `None`: it belongs to none that is known.
    pub conn: Option<u64>,
    pub record: ShownRecord,
    pub options: Options,
    /// Counted from the SYN's own, which is 0.
    pub seq_relative: Option<u32>,
    pub ack_relative: Option<u32>,
    /// The window in bytes; `None` when its scale is not known.
    pub window_bytes: Option<u32>,
}

impl Segment {
    /// Whether it is among those asked for.
    pub fn is_wanted(&self, wanted: Option<cli::Shown>) -> bool {
        const CONTROL: u8 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST;
        match wanted {
            None => false,
            Some(cli::Shown::Control) => self.record.flags as u8 & CONTROL != 0,
            Some(cli::Shown::All) => true,
        }
    }
}

/// What one end's SYN said.
#[derive(Clone, Copy, Debug)]
struct Syn {
    seq: u32,
    window_scale: Option<u8>,
}

#[derive(Debug, Default)]
struct Ends {
    conn: u64,
    local: Option<Syn>,
    remote: Option<Syn>,
}

/// What is remembered for segments to come. Bounded; the oldest gives way.
#[derive(Debug, Default)]
pub struct Shown {
    known: HashMap<Tuple, Ends>,
    order: VecDeque<Tuple>,
    held: VecDeque<ShownRecord>,
}

impl Shown {
    /// Takes a segment in. A server's first ones are held until their connection exists.
    pub fn take(&mut self, record: ShownRecord, out: &mut Vec<Segment>) {
        let has_room = self.held.len() < MAX_HELD;
        let flags = record.flags as u8;
        // On loopback nobody sees it arrive.
        if flags & tcp_flag::SYN != 0 && record.ifindex == LOOPBACK {
            let Tuple { local_addr, remote_addr, local_port, remote_port, netns } = record.tuple;
            let other = self.ends(Tuple {
                local_addr: remote_addr,
                remote_addr: local_addr,
                local_port: remote_port,
                remote_port: local_port,
                netns,
            });
            other.remote = Some(Syn { seq: record.seq, window_scale: options(&record).window_scale });
        }
        let ends = self.ends(record.tuple);
        if flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN {
            (ends.conn, ends.local) = (0, None);
        }
        if flags & tcp_flag::SYN != 0 {
            let syn = Syn { seq: record.seq, window_scale: options(&record).window_scale };
            *(if record.sent != 0 { &mut ends.local } else { &mut ends.remote }) = Some(syn);
        }
        if record.conn != 0 {
            ends.conn = record.conn;
        }
        if ends.conn == 0 && has_room {
            self.held.push_back(record);
        } else {
            out.push(ends.read(record));
        }
    }

    /// A connection has come into being: what was held belongs to it.
    pub fn opened(&mut self, conn: &Conn, out: &mut Vec<Segment>) {
        if let Some(ends) = self.known.get_mut(&conn.tuple) {
            ends.conn = conn.id;
            self.release(out, |record| record.tuple == conn.tuple);
        }
    }

    /// Time passes: what belongs to no connection is told as such.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<Segment>) {
        self.release(out, |record| record.header.time_ns.saturating_add(HELD_NS) <= now_ns);
    }

    fn release(&mut self, out: &mut Vec<Segment>, wanted: impl Fn(&ShownRecord) -> bool) {
        let Self { known, held, .. } = self;
        held.retain(|record| {
            let wanted = wanted(record);
            if wanted {
                out.push(known.get(&record.tuple).unwrap_or(&Ends::default()).read(*record));
            }
            !wanted
        });
    }

    fn ends(&mut self, tuple: Tuple) -> &mut Ends {
        if !self.known.contains_key(&tuple) {
            if self.known.len() >= MAX_KNOWN
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.order.push_back(tuple);
        }
        self.known.entry(tuple).or_default()
    }
}

impl Ends {
    fn read(&self, record: ShownRecord) -> Segment {
        let (own, other) =
            if record.sent != 0 { (self.local, self.remote) } else { (self.remote, self.local) };
        let flags = record.flags as u8;
        let window = u32::from(record.window);
        let window_bytes = if flags & tcp_flag::SYN != 0 {
            // Never scaled (RFC 7323 §2.2).
            Some(window)
        } else {
            // Scaled when both ends said so.
            own.zip(other).map(|(own, other)| match own.window_scale.zip(other.window_scale) {
                // RFC 7323 §2.3
                Some((scale, _)) => window << scale.min(14),
                None => window,
            })
        };
        let acknowledges = flags & tcp_flag::ACK != 0;
        Segment {
            conn: (self.conn != 0).then_some(self.conn),
            options: options(&record),
            seq_relative: own.map(|own| record.seq.wrapping_sub(own.seq)),
            ack_relative: other.filter(|_| acknowledges).map(|other| record.ack.wrapping_sub(other.seq)),
            window_bytes,
            record,
        }
    }
}

fn options(record: &ShownRecord) -> Options {
    Options::parse(&record.options[..usize::from(record.options_len).min(OPTIONS_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_ebpf::{Header, kind};

    const SERVER: Tuple =
        Tuple { local_addr: [1; 16], remote_addr: [2; 16], local_port: 80, remote_port: 9, netns: 1 };

    fn segment(sent: bool, flags: u8, seq: u32, ack: u32, scale: Option<u8>) -> ShownRecord {
        let mut options = [0; OPTIONS_BYTES];
        if let Some(scale) = scale {
            options[..3].copy_from_slice(&[3, 3, scale]);
        }
        ShownRecord {
            header: Header { kind: kind::SHOWN, detail: 0, pad: 0, time_ns: u64::from(seq) },
            conn: 0,
            tuple: SERVER,
            seq,
            ack,
            len: 0,
            ifindex: 2,
            window: 100,
            flags: flags.into(),
            sent: sent.into(),
            options_len: if scale.is_some() { 3 } else { 0 },
            pad: [0; 2],
            options,
        }
    }

    #[test]
    fn a_servers_handshake_waits_for_its_connection() {
        let (mut shown, mut out) = (Shown::default(), Vec::new());
        shown.take(segment(false, tcp_flag::SYN, 1000, 0, Some(7)), &mut out);
        shown.take(segment(true, tcp_flag::SYN | tcp_flag::ACK, 5000, 1001, Some(2)), &mut out);
        shown.take(segment(false, tcp_flag::ACK, 1001, 5001, None), &mut out);
        assert!(out.is_empty());
        shown.opened(&Conn { id: 77, tuple: SERVER, ..Conn::ZERO }, &mut out);
        let relative: Vec<_> =
            out.iter().map(|segment| (segment.seq_relative, segment.ack_relative)).collect();
        assert_eq!(relative, [(Some(0), None), (Some(0), Some(1)), (Some(1), Some(1))]);
        let windows: Vec<_> = out.iter().map(|segment| segment.window_bytes).collect();
        assert_eq!(windows, [Some(100), Some(100), Some(100 << 7)]);
        assert!(out.iter().all(|segment| segment.conn == Some(77)));
    }

    #[test]
    fn nobody_is_waited_for_long() {
        let (mut shown, mut out) = (Shown::default(), Vec::new());
        shown.take(segment(false, tcp_flag::ACK, 1, 1, None), &mut out);
        shown.tick(HELD_NS, &mut out);
        assert!(out.is_empty());
        shown.tick(HELD_NS + 1, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].conn, out[0].seq_relative, out[0].window_bytes), (None, None, None));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut shown, mut out) = (Shown::default(), Vec::new());
        for number in 0..2 * MAX_KNOWN as u32 {
            let mut record = segment(false, tcp_flag::ACK, number, 1, None);
            record.tuple.remote_addr[..4].copy_from_slice(&number.to_ne_bytes());
            shown.take(record, &mut out);
        }
        assert!(shown.known.len() <= MAX_KNOWN && shown.order.len() <= MAX_KNOWN);
        assert_eq!(shown.held.len(), MAX_HELD);
    }
}
