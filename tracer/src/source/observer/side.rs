//! What one end of a flow has sent: its sequence space (RFC 9293 §3.4) as payload offsets, and what was sent again.

/// Gaps remembered; of more, the oldest are given up as lost.
const MAX_GAPS: usize = 32;

/// Farther than any window reaches (RFC 7323 §2.3): not of this stream.
const MAX_AHEAD: i64 = 1 << 30;

/// One direction. Offsets count payload bytes from the first, or from where the capture begins.
#[derive(Debug, Default)]
pub struct Side {
    /// Sequence number of offset 0; `None` before the first segment.
    base: Option<u32>,
    /// Sequence number behind the SYN, where that was seen.
    pub isn: Option<u32>,
    /// Behind the highest byte seen.
    pub next: u64,
    /// The peer has acknowledged all before; the FIN counts as one byte.
    pub acked: u64,
    /// Where the FIN is.
    pub fin: Option<u64>,
    /// Bytes before `next` that were not seen, sorted.
    gaps: Vec<(u64, u64)>,
    /// Gaps that were given up.
    gaps_lost: u32,
    pub segments: u32,
    /// SYN and SYN-ACK segments sent again.
    pub syn_repeats: u32,
    /// Other segments sent again, wholly or in part, and how many bytes.
    pub repeats: u32,
    pub bytes_repeated: u64,
    pub probes: u32,
    pub zero_windows: u32,
    window_closed: bool,
}

/// What a segment brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub offset: u64,
    /// Bytes not seen before.
    pub new: u64,
    /// Bytes seen before.
    pub repeated: u64,
}

impl Side {
    /// The stream begins with this sequence number.
    pub fn begin(&mut self, seq: u32) {
        self.base = Some(seq);
    }

    pub fn is_known(&self) -> bool {
        self.base.is_some()
    }

    /// The offset that a sequence number stands for, as the one nearest to `next`.
    pub fn offset(&self, seq: u32) -> Option<i64> {
        let expected = self.base?.wrapping_add(self.next as u32);
        Some(self.next as i64 + i64::from(seq.wrapping_sub(expected) as i32))
    }

    /// Takes in a segment's payload. `None`: it is of no use, from before the capture or out of any window.
    pub fn take(&mut self, seq: u32, len: u32) -> Option<Taken> {
        let offset = self.offset(seq)?;
        if offset > self.next as i64 + MAX_AHEAD {
            return None;
        }
        let start = u64::try_from(offset).ok()?;
        let end = start + u64::from(len);
        let mut taken = Taken { offset: start, new: 0, repeated: 0 };
        if len == 0 {
            return Some(taken);
        }
        if start < self.next {
            let below = end.min(self.next) - start;
            taken.new = self.fill(start, start + below);
            taken.repeated = below - taken.new;
        } else if start > self.next {
            self.gap(self.next, start);
        }
        if end > self.next {
            taken.new += end - start.max(self.next);
            self.next = end;
        }
        Some(taken)
    }

    /// The FIN is at this offset. False: it was seen before.
    pub fn finish(&mut self, offset: u64) -> bool {
        if self.fin.is_some() {
            return false;
        }
        if offset > self.next {
            self.gap(self.next, offset);
            self.next = offset;
        }
        self.fin = Some(offset);
        true
    }

    /// The peer acknowledges all before this sequence number. True: so more was sent than was seen or known of.
    pub fn acknowledge(&mut self, ack: u32) -> bool {
        let before = self.sent();
        self.acknowledged(ack);
        self.sent() > before
    }

    fn acknowledged(&mut self, ack: u32) {
        if let Some(offset) = self.offset(ack)
            && offset <= self.next as i64 + MAX_AHEAD
            && let Ok(offset) = u64::try_from(offset)
        {
            // A capture that begins with a keep-alive probe begins one byte early.
            if offset == 1 && self.next == 0 && self.isn.is_none() && self.fin.is_none() {
                self.base = Some(ack);
                return;
            }
            self.acked = self.acked.max(offset);
        }
    }

    pub fn is_fin_acked(&self) -> bool {
        self.fin.is_some_and(|fin| self.acked > fin)
    }

    /// Whether a keep-alive probe (RFC 9293 §3.8.4) looks like this: just before what was sent, with one byte at most.
    pub fn is_probe(&self, seq: u32, len: u32) -> bool {
        len <= 1 && self.fin.is_none() && self.offset(seq).is_some_and(|at| at == self.next as i64 - 1)
    }

    /// Whether an RST with this sequence number can be one that the peer heeds (RFC 9293 §3.5.3).
    pub fn can_reset(&self, seq: u32) -> bool {
        self.offset(seq).is_none_or(|at| at >= self.acked as i64 - 1 && at <= self.next as i64 + MAX_AHEAD)
    }

    /// The sender announced this window.
    pub fn announce(&mut self, window: u16) {
        self.zero_windows += u32::from(window == 0 && !self.window_closed);
        self.window_closed = window == 0;
    }

    /// A reset with this sequence number was sent behind all else.
    pub fn end(&mut self, seq: u32) {
        if let Some(offset) = self.offset(seq)
            && let Ok(offset) = u64::try_from(offset)
            && offset <= self.next + MAX_AHEAD.cast_unsigned()
        {
            self.acked = self.acked.max(offset);
        }
    }

    /// How far bytes were sent, where some of those before were not seen.
    pub fn sent(&self) -> Option<u64> {
        let gap = self.gaps.iter().any(|(start, _)| *start < self.acked);
        let end = if self.is_beyond() { self.acked } else { self.acked.min(self.next) };
        (gap || self.is_beyond()).then_some(end)
    }

    /// More was acknowledged than was seen. One byte more may be a FIN.
    fn is_beyond(&self) -> bool {
        self.acked > self.next + 1
    }

    /// Gaps in what was seen, which the capture has lost or which never arrived here; also what the peer has
    /// acknowledged and nobody saw.
    pub fn missing(&self) -> u32 {
        self.gaps.len() as u32 + self.gaps_lost + u32::from(self.is_beyond())
    }

    fn gap(&mut self, start: u64, end: u64) {
        if self.gaps.len() >= MAX_GAPS {
            self.gaps.remove(0);
            self.gaps_lost += 1;
        }
        self.gaps.push((start, end));
    }

    /// Takes a range out of the gaps; returns how many bytes of it lay in them.
    fn fill(&mut self, start: u64, end: u64) -> u64 {
        let mut filled = 0;
        let mut at = 0;
        while at < self.gaps.len() {
            let (first, last) = self.gaps[at];
            let (from, to) = (start.max(first), end.min(last));
            if from >= to {
                at += 1;
                continue;
            }
            filled += to - from;
            self.gaps.remove(at);
            for rest in [(to, last), (first, from)] {
                if rest.0 < rest.1 {
                    self.gaps.insert(at, rest);
                }
            }
            at += usize::from(first < from) + usize::from(to < last);
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn side(base: u32) -> Side {
        Side { base: Some(base), ..Side::default() }
    }

    fn taken(offset: u64, new: u64, repeated: u64) -> Option<Taken> {
        Some(Taken { offset, new, repeated })
    }

    #[test]
    fn sequence_numbers_wrap() {
        let base = u32::MAX - 9;
        let mut side = side(base);
        assert_eq!(side.take(base, 10), taken(0, 10, 0));
        assert_eq!(side.take(0, 10), taken(10, 10, 0));
        assert_eq!(side.take(base.wrapping_add(5), 10), taken(5, 0, 10));
        for at in 0..5u64 {
            let offset = 20 + at * (1 << 30);
            assert_eq!(side.take(base.wrapping_add(offset as u32), 1 << 30), taken(offset, 1 << 30, 0));
        }
    }

    #[test]
    fn gaps_are_filled_once() {
        let mut side = side(0);
        assert_eq!(side.take(100, 10), taken(100, 10, 0));
        assert_eq!(side.take(50, 10), taken(50, 10, 0));
        assert_eq!((side.gaps.as_slice(), side.missing()), (&[(0, 50), (60, 100)][..], 2));
        assert_eq!(side.take(40, 30), taken(40, 20, 10));
        assert_eq!(side.gaps, [(0, 40), (70, 100)]);
        assert_eq!(side.take(0, 120), taken(0, 80, 40));
        assert_eq!((side.next, side.missing()), (120, 0));
        assert_eq!(side.take(0, 120), taken(0, 0, 120));
    }

    #[test]
    fn what_is_not_of_the_stream_is_left_out() {
        let mut side = side(1000);
        assert_eq!(side.take(999, 10), None);
        assert_eq!(side.take(1001 + (1 << 30), 10), None);
        assert_eq!(Side::default().take(0, 1), None);
        assert_eq!(side.next, 0);
    }

    #[test]
    fn probes_and_resets() {
        let mut side = side(0);
        side.take(0, 100);
        side.acknowledge(90);
        assert!(side.is_probe(99, 0) && side.is_probe(99, 1));
        assert!(!side.is_probe(98, 0) && !side.is_probe(99, 2) && !side.is_probe(100, 0));
        assert!(side.can_reset(100) && side.can_reset(90) && side.can_reset(5000));
        assert!(!side.can_reset(50));
        assert!(side.finish(100) && !side.finish(100));
        assert!(!side.is_probe(99, 0) && !side.is_fin_acked());
        side.acknowledge(101);
        assert!(side.is_fin_acked());
        assert_eq!(side.missing(), 0);
    }

    proptest! {
        /// Against a plain set of bytes.
        #[test]
        fn every_byte_is_new_once(base: u32, parts in proptest::collection::vec((0u32..2000, 0u32..200), 0..60)) {
            let mut side = side(base);
            let mut seen = std::collections::HashSet::new();
            for (start, len) in parts {
                let new = (start..start + len).filter(|byte| seen.insert(*byte)).count() as u64;
                let given_up = side.gaps_lost;
                let taken = side.take(base.wrapping_add(start), len).unwrap();
                prop_assert_eq!(taken.new + taken.repeated, u64::from(len));
                if given_up == 0 {
                    prop_assert_eq!(taken.new, new);
                }
            }
        }
    }
}
