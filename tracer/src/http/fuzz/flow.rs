//! Whole connections: no panic, no more memory than stated, every exchange once, every line valid.

use std::ops::Range;

use super::conversation::conversation;
use crate::fuzz::{Input, Lines};
use crate::http::scenarios::{C, S};
use crate::http::{Config, Direction, Flow, Mark, Output, Segment};

struct Wire<'a, 'b> {
    input: &'a mut Input<'b>,
    config: Config,
    flow: Flow,
    out: Vec<Output>,
    now_ns: u64,
    at: [u64; 2],
}

pub(crate) fn flow(input: &mut Input<'_>) {
    let mut lines = Lines::new(input);
    let config = config(input);
    let client = *input.choose(&[None, Some(C), Some(S)]);
    let mut flow = Flow::new(&config, client, !input.once_in(4));
    if input.once_in(2) {
        flow.established(input.number());
    }
    let steps = conversation(input);
    let at = if input.once_in(10) { [input.number(), input.number()] } else { [0; 2] };
    let mut wire = Wire { input, config, flow, out: Vec::new(), now_ns: 1, at };
    for (direction, data) in &steps {
        wire.send(*direction, data);
    }
    wire.end();
    let mut seqs = Vec::new();
    let mut never = 0;
    for output in &wire.out {
        match output {
            Output::Exchange(exchange) => {
                let most = config.fields_max as usize;
                assert!(exchange.request.as_ref().is_none_or(|request| request.headers.len() <= most));
                assert!(exchange.response.as_ref().is_none_or(|response| response.headers.len() <= most));
                seqs.push(exchange.seq);
                lines.push(exchange);
            }
            Output::Skip { mark: Mark::Never, .. } => never += 1,
            Output::Skip { mark: Mark::Until { .. }, .. } => {}
        }
    }
    seqs.sort_unstable();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "each exchange once: {seqs:?}");
    assert!(never <= 2);
    lines.check(0);
}

/// The default, or small caps that are met soon.
fn config(input: &mut Input<'_>) -> Config {
    if input.once_in(2) {
        return Config::default();
    }
    Config {
        head_max_bytes: input.below(400) as u32,
        fields_max: input.below(6) as u32,
        reorder_max_bytes: input.below(3000) as u32,
        outstanding_max: input.below(6) as u32,
        outstanding_max_bytes: input.below(1000) as u32,
    }
}

impl Wire<'_, '_> {
    /// Sends a step in parts, each with its own fate.
    fn send(&mut self, direction: Direction, data: &[u8]) {
        let base = self.at[direction as usize];
        let mut from = 0;
        while from < data.len() {
            let len = if self.input.once_in(2) { data.len() } else { 1 + self.input.below(60) };
            let part = from..(from + len).min(data.len());
            from = part.end;
            match self.input.below(16) {
                0 => {}
                1 => self.segment(direction, base, part, b"", false),
                2 => {
                    let half = &data[part.start..part.start + part.len() / 2];
                    self.segment(direction, base, part, half, false);
                }
                3 => {
                    let end = base.wrapping_add(part.end as u64);
                    self.flow.progress(direction, end, self.now_ns, &mut self.out);
                }
                4 => {
                    let captured = &data[part.clone()];
                    self.segment(direction, base, part.clone(), captured, false);
                    self.segment(direction, base, part, captured, false);
                }
                5 => {
                    // The next bytes overtake these.
                    let next = part.end..(part.end + 30).min(data.len());
                    self.segment(direction, base, next.clone(), &data[next], false);
                    self.segment(direction, base, part.clone(), &data[part], false);
                }
                6 => {
                    let wide = part.start.saturating_sub(9)..part.end;
                    self.segment(direction, base, wide.clone(), &data[wide], false);
                }
                7 if self.input.once_in(4) => self.anything(direction),
                8 if self.input.once_in(8) => self.segment(direction, base, part.clone(), &data[part], true),
                _ => self.segment(direction, base, part.clone(), &data[part], false),
            }
            self.check();
        }
        self.at[direction as usize] = base.wrapping_add(data.len() as u64);
    }

    fn segment(&mut self, direction: Direction, base: u64, part: Range<usize>, data: &[u8], fin: bool) {
        self.now_ns += 10;
        let offset = base.wrapping_add(part.start as u64);
        let (time_ns, len) = (self.now_ns, part.len() as u32);
        let segment = Segment { time_ns, offset, len, data_offset: offset, data, fin };
        self.flow.segment(direction, &segment, &mut self.out);
    }

    /// A call that no capture makes.
    fn anything(&mut self, direction: Direction) {
        let time_ns = self.input.number();
        match self.input.below(3) {
            0 => self.flow.retransmitted(self.input.u64() as u32),
            1 => self.flow.progress(direction, self.input.number(), time_ns, &mut self.out),
            _ => {
                let segment = Segment {
                    time_ns,
                    offset: self.input.number(),
                    len: self.input.number() as u32,
                    data_offset: self.input.number(),
                    data: self.input.bytes(60),
                    fin: self.input.once_in(2),
                };
                self.flow.segment(direction, &segment, &mut self.out);
            }
        }
    }

    fn check(&self) {
        let (held, most) = (self.flow.held_bytes(), self.config.held_max_bytes());
        assert!(held <= most, "{held} bytes held, {most} stated");
        assert!(self.flow.queue.len() <= self.config.outstanding_max as usize + 1);
        assert!(!self.flow.over || held == 0);
    }

    fn end(&mut self) {
        match self.input.below(4) {
            0 => self.flow.reset(self.now_ns, &mut self.out),
            1 => {
                for direction in [C, S] {
                    self.segment(direction, self.at[direction as usize], 0..0, b"", true);
                }
            }
            _ => {}
        }
        self.check();
        self.flow.close(self.now_ns, &mut self.out);
        assert_eq!(self.flow.held_bytes(), 0);
    }
}
