//! Conversations as a capture shows them: cut into segments, disordered, sent again, and with gaps.

use crate::{
    chance::Chance,
    conversation::Conversation,
    message::Trait,
    talk::{ACK, CLIENT, FIN, RST, SERVER, Segment, Talk},
};
use std::{net::SocketAddr, ops::Range};

const SIZES: [usize; 6] = [10, 100, 536, 1448, 16_000, 60_000];
/// Above this, small segments would be too many.
const FEW: usize = 300;

/// What the capture has of a conversation.
#[derive(Clone, Debug)]
pub struct Carried {
    pub talk: Talk,
    /// When each byte of each direction was captured first.
    pub seen_ns: [Vec<Option<u64>>; 2],
    /// Which bytes were captured only when the other end had gone on.
    pub late: [Vec<bool>; 2],
}

struct Carrier<'a> {
    chance: &'a mut Chance,
    carried: Carried,
    /// Sequence number of each direction's first byte.
    base: [u32; 2],
    /// Sent so far.
    sent: [usize; 2],
    /// One of so many segments is not captured; 0 for none.
    lost: usize,
    /// To be sent again in a later turn.
    again: [Vec<Range<usize>>; 2],
}

/// Carries a conversation from its first SYN on. With `losses`, some segments are not in the capture.
pub fn carry(
    conversation: &mut Conversation,
    chance: &mut Chance,
    ends: [SocketAddr; 2],
    begin_ns: u64,
    losses: bool,
) -> Carried {
    let mut talk = Talk { ends, time_ns: begin_ns, segments: Vec::new(), ..Talk::default() };
    talk.next = [0, 1].map(|_| chance.number() as u32);
    if chance.once_in(10) {
        conversation.traits.insert(Trait::Wrap);
        let end = chance.below(2);
        talk.next[end] = 0u32.wrapping_sub(chance.below(conversation.streams[end].len() + 3) as u32);
    }
    let base = talk.next.map(|isn| isn.wrapping_add(1));
    talk.open();
    let seen_ns = [0, 1].map(|end| vec![None; conversation.streams[end].len()]);
    let lost = if losses { [3, 10, 30][chance.below(3)] } else { 0 };
    let late = [0, 1].map(|end| vec![false; conversation.streams[end].len()]);
    let carried = Carried { talk, seen_ns, late };
    let mut carrier = Carrier { chance, carried, base, sent: [0; 2], lost, again: [const { Vec::new() }; 2] };
    carrier.run(conversation);
    carrier.carried
}

impl Carrier<'_> {
    fn run(&mut self, conversation: &mut Conversation) {
        let [disordered, repeated, overlapped] = [0; 3].map(|_| self.chance.once_in(8));
        for (end, range) in &conversation.turns {
            let mut pieces = self.cut(range);
            let whole = pieces.len();
            if disordered && whole > 1 {
                conversation.traits.insert(Trait::OutOfOrder);
                let from = self.chance.below(whole - 1);
                let piece = pieces.remove(from);
                pieces.insert(self.chance.within(from + 1..(from + 4).min(whole)), piece);
            }
            let again = std::mem::take(&mut self.again[*end]);
            pieces.splice(0..0, again);
            if repeated && self.chance.once_in(2) {
                conversation.traits.insert(Trait::Retransmission);
                let at = self.chance.below(pieces.len());
                let piece = pieces[at].clone();
                if self.chance.once_in(2) {
                    self.again[*end].push(piece);
                } else {
                    pieces.insert(self.chance.within(at + 1..pieces.len() + 1), piece);
                }
            }
            if overlapped && self.chance.once_in(2) {
                conversation.traits.insert(Trait::Overlap);
                let at = self.chance.within(1..pieces.len() + 1);
                // From within what was sent into what comes next.
                let middle = pieces[at - 1].end;
                let start = middle - self.chance.below(middle.min(80) + 1);
                let stop = (middle + self.chance.below(80)).min(range.end);
                if start < stop {
                    pieces.insert(at, start..stop);
                }
            }
            for piece in pieces {
                self.segment(*end, &piece, &conversation.streams[*end]);
            }
            self.sent[*end] = range.end;
            self.synchronise();
            if self.chance.once_in(2) {
                self.carried.talk.send(1 - end, ACK, b"");
            }
        }
        self.synchronise();
        let talk = &mut self.carried.talk;
        if conversation.reset {
            talk.send(SERVER, RST | ACK, b"");
        } else {
            let closer = conversation.closer;
            talk.send(closer, FIN | ACK, b"").send(1 - closer, FIN | ACK, b"").send(closer, ACK, b"");
        }
    }

    fn cut(&mut self, range: &Range<usize>) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        let small = range.len() < FEW;
        let bytewise = small && self.chance.once_in(8);
        let size = SIZES[self.chance.within(if small { 0..2 } else { 2..6 })].max(range.len() / 100);
        let even = self.chance.once_in(2);
        while at < range.end {
            let len = match (bytewise, even) {
                (true, _) => 1,
                (_, true) => size,
                _ => self.chance.within(1..2 * size),
            };
            let end = (at + len.min(60_000)).min(range.end);
            pieces.push(at..end);
            at = end;
        }
        pieces
    }

    fn segment(&mut self, end: usize, piece: &Range<usize>, stream: &[u8]) {
        let talk = &mut self.carried.talk;
        talk.time_ns += 1000 * self.chance.below(2000) as u64;
        talk.ids[end] = talk.ids[end].wrapping_add(1).max(1);
        // One byte at the end could be a FIN, for all that its acknowledgement tells.
        let may_be_fin = piece.start + 1 >= stream.len();
        if self.lost > 0 && self.chance.once_in(self.lost) && !may_be_fin {
            return;
        }
        for at in piece.clone() {
            let seen = &mut self.carried.seen_ns[end][at];
            self.carried.late[end][at] |= seen.is_none() && at < self.sent[end];
            seen.get_or_insert(talk.time_ns);
        }
        let segment = Segment {
            from: talk.ends[end],
            to: talk.ends[1 - end],
            seq: self.base[end].wrapping_add(piece.start as u32),
            ack: self.base[1 - end].wrapping_add(self.sent[1 - end] as u32),
            flags: ACK,
            window: 1000,
            id: talk.ids[end],
            options: Vec::new(),
            payload: stream[piece.clone()].to_vec(),
        };
        talk.push(segment);
    }

    /// Tells the talk what was sent.
    fn synchronise(&mut self) {
        let talk = &mut self.carried.talk;
        for end in [CLIENT, SERVER] {
            talk.next[end] = self.base[end].wrapping_add(self.sent[end] as u32);
            talk.received[1 - end] = talk.next[end];
        }
    }
}
