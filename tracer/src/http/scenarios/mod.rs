//! Bytes in, exchanges out: a case for each rule that the engine keeps. Each file has the cases of one subject.
//! Every case is played as it stands and, in [`segmentation`], cut into segments in every way.

mod bodies;
mod bodiless;
mod chunked;
mod early;
mod endings;
mod full_duplex;
mod interim;
mod joined;
mod leniency;
mod limits;
mod lost;
mod malformed;
mod marks;
mod persistence;
mod pipelining;
mod protocols;
mod segmentation;
mod streams;
mod targets;
mod timeline;
mod upgrade;
mod wire;

pub(super) use wire::{C, S, Step, Wire, shown};

use super::Direction;

/// One rule, shown by what passes and what the engine says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// The rule, and where it stands.
    pub(crate) clause: &'static str,
    pub(crate) steps: &'static [Step],
    /// As [`shown`] writes them.
    told: &'static [&'static str],
    /// What the connection carries in the end.
    protocol: &'static str,
    /// Observed from the handshake on.
    pub(crate) from_start: bool,
}

const fn case(clause: &'static str, steps: &'static [Step], told: &'static [&'static str]) -> Case {
    Case { clause, steps, told, protocol: "Http1", from_start: true }
}

impl Case {
    const fn protocol(self, protocol: &'static str) -> Self {
        Self { protocol, ..self }
    }

    /// Observation began in the middle.
    const fn joined(self) -> Self {
        Self { from_start: false, ..self }
    }

    fn play(&self, client: Option<Direction>) -> Wire {
        let mut wire = Wire::new(client, self.from_start);
        for step in self.steps {
            wire.step(*step);
        }
        wire
    }
}

/// The tables of all subjects.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    let subjects: [&[Case]; 16] = [
        bodies::CASES,
        bodiless::CASES,
        chunked::CASES,
        early::CASES,
        endings::CASES,
        interim::CASES,
        joined::CASES,
        leniency::CASES,
        lost::CASES,
        malformed::CASES,
        persistence::CASES,
        pipelining::CASES,
        protocols::CASES,
        streams::CASES,
        targets::CASES,
        upgrade::CASES,
    ];
    subjects.into_iter().flatten()
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";
const OK2: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OK0: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
/// What [`GET`] answered by [`OK2`] becomes, as the first exchange and as the second.
const GET_OK: &str = "1 GET /a none:0 > 200 content-length:2 complete";
const SECOND: &str = "2 GET /a none:0 > 200 content-length:2 complete reused";

#[test]
fn every_case_gives_what_it_says() {
    for case in cases() {
        for client in [Some(C), None] {
            let wire = case.play(client);
            assert_eq!(wire.shown(), case.told, "{} (client: {client:?})\n{:#?}", case.clause, case.steps);
            let protocol = format!("{:?}", wire.flow.protocol());
            assert_eq!(protocol, case.protocol, "{} (client: {client:?})", case.clause);
        }
    }
}

#[test]
fn every_case_names_its_rule_once() {
    let mut clauses: Vec<&str> = cases().map(|case| case.clause).collect();
    clauses.sort_unstable();
    let repeated: Vec<_> = clauses.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
}
