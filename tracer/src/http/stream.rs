//! One direction of a connection, put back in order (RFC 9293 §3.10.7.4 seen from outside).
//!
//! Bytes are in order, held back, or missing. What arrives at the front is handed on without a copy; only
//! what cannot be used yet is kept. The first copy of a byte wins: what a retransmission changes is not
//! believed. Bytes that were seen on the wire but not captured are kept as ranges, and a later copy of them
//! fills the range.

use std::collections::VecDeque;

/// What a held piece costs beside its bytes, so that many tiny pieces cannot pass under the cap.
const PIECE_COST_BYTES: usize = 64;

/// Consecutive payload bytes of one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    /// Payload bytes, never 0.
    pub len: u64,
    /// When the segment passed; `None` for bytes that no record speaks of.
    pub time_ns: Option<u64>,
    /// The captured bytes, exactly `len` of them, or `None`.
    pub data: Option<&'a [u8]>,
}

impl<'a> Run<'a> {
    /// The run without its first `n` bytes.
    pub(super) fn after(&self, n: u64) -> Self {
        let data = self.data.map(|data| data.get(n as usize..).unwrap_or_default());
        Self { len: self.len.saturating_sub(n), time_ns: self.time_ns, data }
    }
}

/// A run that is kept until the bytes before it have come.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub start: u64,
    pub end: u64,
    pub time_ns: u64,
    data: Option<Box<[u8]>>,
    /// Bytes at the front of `data` that were used already.
    used: usize,
}

impl Piece {
    pub(super) fn run(&self) -> Run<'_> {
        let data = self.data.as_deref().map(|data| data.get(self.used..).unwrap_or_default());
        Run { len: self.end - self.start, time_ns: Some(self.time_ns), data }
    }

    /// Drops the first `n` bytes.
    pub(super) fn trim(&mut self, n: u64) {
        self.start += n;
        self.used += n as usize;
    }

    fn cost(&self) -> usize {
        PIECE_COST_BYTES + self.data.as_ref().map_or(0, |data| data.len())
    }
}

/// The state of one direction.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Offset of the next byte to hand on.
    pub next: u64,
    /// Highest offset that a record spoke of (end of payload), and when.
    pub seen_end: u64,
    pub seen_ns: u64,
    /// Bytes before this offset were sent, at a time that is not known.
    pub sent_end: u64,
    /// Offset just behind the last byte, known from a FIN, and the FIN's time.
    pub fin: Option<(u64, u64)>,
    /// Sorted, never overlapping, all at or behind `next`.
    pending: VecDeque<Piece>,
    cost_bytes: usize,
}

impl Stream {
    /// Notes that bytes up to `end` passed at `time_ns`.
    pub(super) fn see(&mut self, end: u64, time_ns: u64) {
        if end > self.seen_end {
            self.seen_end = end;
            self.seen_ns = time_ns;
        }
    }

    /// Highest offset known to exist.
    fn end(&self) -> u64 {
        self.fin.map_or(0, |(end, _)| end).max(self.seen_end).max(self.sent_end)
    }

    /// Missing bytes before the first held piece, or before the highest offset known to exist; `None` when
    /// nothing is held or missing.
    pub(super) fn hole(&self) -> Option<u64> {
        match self.pending.front() {
            Some(piece) => Some(piece.start.saturating_sub(self.next)),
            None => self.end().checked_sub(self.next).filter(|hole| *hole > 0),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Memory held for pieces, in bytes.
    pub(super) fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    pub(super) fn pop(&mut self) -> Option<Piece> {
        let piece = self.pending.pop_front()?;
        self.cost_bytes -= piece.cost();
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
        Some(piece)
    }

    /// Puts back what [`Stream::pop`] gave and was not used up.
    pub(super) fn unpop(&mut self, piece: Piece) {
        self.cost_bytes += piece.cost();
        self.pending.push_front(piece);
    }

    /// Forgets everything that is held and goes on behind the highest byte seen.
    pub(super) fn abandon(&mut self) {
        self.pending = VecDeque::new();
        self.cost_bytes = 0;
        self.next = self.next.max(self.end());
    }

    /// Keeps `start..end`, as captured bytes or as a range that was only seen.
    pub(super) fn hold(&mut self, start: u64, end: u64, time_ns: u64, data: Option<&[u8]>) {
        let mut at = start.max(self.next);
        let mut index = self.pending.partition_point(|piece| piece.end <= at);
        while at < end {
            let known = self.pending.get(index).map(|piece| (piece.start, piece.end, piece.data.is_some()));
            let slice =
                |from: u64, to: u64| data.and_then(|d| d.get((from - start) as usize..(to - start) as usize));
            match known {
                Some((first, last, copied)) if first <= at => {
                    let stop = last.min(end);
                    if !copied && let Some(bytes) = slice(at, stop) {
                        index = self.fill(index, at, stop, time_ns, bytes);
                    }
                    index += 1;
                    at = stop;
                }
                other => {
                    let stop = other.map_or(end, |(first, ..)| first.min(end));
                    self.insert(index, at, stop, time_ns, slice(at, stop));
                    index += 1;
                    at = stop;
                }
            }
        }
    }

    fn insert(&mut self, index: usize, start: u64, end: u64, time_ns: u64, data: Option<&[u8]>) {
        let piece = Piece { start, end, time_ns, data: data.map(Box::from), used: 0 };
        self.cost_bytes += piece.cost();
        self.pending.insert(index, piece);
    }

    /// Replaces `start..end` of the uncaptured piece at `index` by bytes; returns the index of those. They
    /// have the time at which they were first seen.
    fn fill(&mut self, index: usize, start: u64, end: u64, time_ns: u64, bytes: &[u8]) -> usize {
        let Some(old) = self.pending.remove(index) else { return index };
        self.cost_bytes -= old.cost();
        let mut index = index;
        if old.start < start {
            self.insert(index, old.start, start, old.time_ns, None);
            index += 1;
        }
        self.insert(index, start, end, old.time_ns.min(time_ns), Some(bytes));
        if end < old.end {
            self.insert(index + 1, end, old.end, old.time_ns, None);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces as text: captured bytes, `.` for each byte only seen, `_` for each missing one.
    fn shown(stream: &Stream) -> String {
        let mut text = String::new();
        let mut at = stream.next;
        for piece in &stream.pending {
            assert!(piece.start >= at && piece.end > piece.start, "sorted, not overlapping, not empty");
            text.extend(std::iter::repeat_n('_', (piece.start - at) as usize));
            match piece.run().data {
                Some(data) => {
                    assert_eq!(data.len() as u64, piece.end - piece.start);
                    text.extend(data.iter().map(|&byte| char::from(byte)));
                }
                None => text.extend(std::iter::repeat_n('.', (piece.end - piece.start) as usize)),
            }
            at = piece.end;
        }
        assert_eq!(stream.cost_bytes, stream.pending.iter().map(Piece::cost).sum::<usize>());
        text
    }

    #[test]
    fn pieces_are_kept_in_order_and_the_first_copy_wins() {
        let mut stream = Stream { next: 10, ..Stream::default() };
        stream.hold(20, 24, 1, Some(b"abcd"));
        assert_eq!(shown(&stream), "__________abcd");
        stream.hold(14, 17, 2, Some(b"xyz"));
        assert_eq!(shown(&stream), "____xyz___abcd");
        stream.hold(8, 26, 3, Some(b"0123456789ABCDEFGH"));
        assert_eq!(shown(&stream), "2345xyz9ABabcdGH");
        stream.hold(0, 10, 3, Some(b"0123456789"));
        assert_eq!(shown(&stream), "2345xyz9ABabcdGH", "what was handed on is over");
    }

    #[test]
    fn seen_ranges_are_filled_by_later_copies_and_the_earliest_time_counts() {
        let mut stream = Stream::default();
        stream.hold(0, 10, 1, None);
        stream.hold(2, 4, 2, Some(b"ab"));
        assert_eq!(shown(&stream), "..ab......");
        stream.hold(3, 12, 3, Some(b"BCDEFGHIJ"));
        assert_eq!(shown(&stream), "..abCDEFGHIJ");
        let times: Vec<u64> = stream.pending.iter().map(|piece| piece.time_ns).collect();
        assert_eq!(times, [1, 1, 1, 3]);
        stream.hold(0, 12, 4, None);
        assert_eq!(shown(&stream), "..abCDEFGHIJ", "a range never hides bytes");
    }

    #[test]
    fn trimmed_pieces_go_back_with_their_full_cost() {
        let mut stream = Stream::default();
        stream.hold(0, 4, 1, Some(b"abcd"));
        let mut piece = stream.pop().unwrap();
        assert_eq!((stream.cost_bytes(), stream.is_empty()), (0, true));
        piece.trim(3);
        stream.unpop(piece);
        stream.next = 3;
        assert_eq!(shown(&stream), "d");
        stream.hold(3, 6, 2, Some(b"xyz"));
        assert_eq!(shown(&stream), "dyz");
        stream.seen_end = 6;
        stream.abandon();
        assert_eq!((stream.next, stream.cost_bytes(), stream.is_empty()), (6, 0, true));
    }
}
