//! The same packet captured twice: on several interfaces (`-i any` with bridges and veth pairs), or by a mirror port.
//!
//! A packet is a copy when all that stays the same on the way is the same, shortly after, and one of two things shows
//! that it was not sent again: it was seen at another place, or its IPv4 identification (RFC 6864) is the same.

use crate::source::packet::Segment;

/// How long a packet takes from one interface to the next, and how many others may come between.
const MAX_APART_NS: u64 = 10_000_000;
const REMEMBERED: usize = 8;

/// The packets of a flow that came last.
#[derive(Debug, Default)]
pub struct Copies {
    last: [Seen; REMEMBERED],
    at: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    fingerprint: u64,
    time_ns: u64,
    place: u64,
}

impl Copies {
    /// Whether a segment is a copy of one of the last. `sender` keeps the directions apart.
    pub fn is_copy(&mut self, sender: usize, segment: &Segment<'_>) -> bool {
        let fingerprint = segment.fingerprint ^ sender as u64;
        let now = Seen { fingerprint, time_ns: segment.time_ns, place: segment.place };
        let copy = self.last.iter().any(|seen| {
            seen.fingerprint == now.fingerprint
                && seen.time_ns.abs_diff(now.time_ns) <= MAX_APART_NS
                && (seen.place != now.place || segment.ip_id != 0)
        });
        if !copy {
            self.last[self.at] = now;
            self.at = (self.at + 1) % REMEMBERED;
        }
        copy
    }
}
