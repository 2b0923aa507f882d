//! What the HTTP engine costs, from memory: `cargo xtask bench engine`. One iteration is one exchange on a
//! keep-alive connection, so its time is the cost of two messages.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tracer::http::{Config, Direction, Flow, Mark, Output, Segment};

const C: Direction = Direction::AToB;
const S: Direction = Direction::BToA;

/// Payload of a segment as the classifier sees it where segmentation is the device's work (GSO, GRO).
const SUPER_PACKET: usize = 65_160;

const REQUEST: &[u8] = b"GET /things/17?page=2 HTTP/1.1\r\nHost: service.example:8080\r\nUser-Agent: client/2.1\r\n\
    Accept: application/json\r\nAccept-Encoding: gzip\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";

/// What the capture hands over of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Capture {
    /// Every byte.
    Captured,
    /// A record for each segment, without its bytes.
    Recorded,
    /// A record only of what the engine's marks left: the segment that ends the body.
    Marked,
}

const CAPTURES: [(&str, Capture); 3] =
    [("captured", Capture::Captured), ("recorded", Capture::Recorded), ("marked", Capture::Marked)];

/// A connection that goes on for as long as it is asked to.
struct Wire {
    flow: Flow,
    out: Vec<Output>,
    at: [u64; 2],
    /// Nothing before these is wanted.
    marks: [u64; 2],
    time_ns: u64,
    exchanges: u64,
    filler: Vec<u8>,
}

impl Wire {
    fn new() -> Self {
        let flow = Flow::new(&Config::default(), Some(C), true);
        let filler = vec![b'x'; SUPER_PACKET];
        Self { flow, out: Vec::new(), at: [0; 2], marks: [0; 2], time_ns: 0, exchanges: 0, filler }
    }

    /// A segment of which `data` was copied.
    fn segment(&mut self, direction: Direction, len: usize, data: &[u8]) {
        let at = &mut self.at[direction as usize];
        let (offset, len) = (*at, len as u32);
        *at += u64::from(len);
        self.time_ns += 1000;
        let segment = Segment { time_ns: self.time_ns, offset, len, data_offset: offset, data, fin: false };
        self.flow.segment(direction, black_box(&segment), &mut self.out);
        self.take();
    }

    fn take(&mut self) {
        for output in self.out.drain(..) {
            match output {
                Output::Exchange(exchange) => {
                    self.exchanges += 1;
                    black_box(exchange);
                }
                Output::Skip { direction, mark: Mark::Until { offset, .. } } => {
                    self.marks[direction as usize] = offset;
                }
                Output::Skip { mark: Mark::Never, .. } => unreachable!("it is HTTP/1"),
            }
        }
    }

    fn body(&mut self, direction: Direction, mut left: usize, capture: Capture) {
        let filler = std::mem::take(&mut self.filler);
        while left > 0 {
            let len = left.min(SUPER_PACKET);
            left -= len;
            let end = self.at[direction as usize] + len as u64;
            match capture {
                Capture::Marked if end < self.marks[direction as usize] => self.at[direction as usize] = end,
                Capture::Captured => self.segment(direction, len, &filler[..len]),
                _ => self.segment(direction, len, b""),
            }
        }
        self.filler = filler;
    }
}

/// Bodies of every size, captured or not.
fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("body");
    for (name, capture) in CAPTURES {
        for size in [0, 1 << 10, 64 << 10, 1 << 20, 100 << 20] {
            let head = format!(
                "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 09:00:00 GMT\r\nServer: bench\r\n\
                 Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
            );
            group.throughput(Throughput::Bytes((REQUEST.len() + head.len() + size) as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let mut wire = Wire::new();
                let mut asked = 0;
                bencher.iter(|| {
                    wire.segment(C, REQUEST.len(), REQUEST);
                    wire.segment(S, head.len(), head.as_bytes());
                    wire.body(S, size, capture);
                    asked += 1;
                });
                assert_eq!(wire.exchanges, asked);
            });
        }
    }
    group.finish();
}

/// A megabyte in chunks of each size: every size line has to be read.
fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunked");
    for chunk in [256, 8 << 10, 64 << 10] {
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..(1 << 20) / chunk {
            answer.extend(format!("{chunk:x}\r\n").bytes());
            answer.resize(answer.len() + chunk, b'x');
            answer.extend(b"\r\n");
        }
        answer.extend(b"0\r\n\r\n");
        group.throughput(Throughput::Bytes((REQUEST.len() + answer.len()) as u64));
        group.bench_function(BenchmarkId::from_parameter(chunk), |bencher| {
            let mut wire = Wire::new();
            let mut asked = 0;
            bencher.iter(|| {
                wire.segment(C, REQUEST.len(), REQUEST);
                for part in answer.chunks(SUPER_PACKET) {
                    wire.segment(S, part.len(), part);
                }
                asked += 1;
            });
            assert_eq!(wire.exchanges, asked);
        });
    }
    group.finish();
}

/// Heads alone: their size, and into how many segments they are cut.
fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    for (name, fields, cut) in [
        ("6 fields", 2, usize::MAX),
        ("24 fields", 20, usize::MAX),
        ("100 fields", 96, usize::MAX),
        ("24 fields in segments of 100 bytes", 20, 100),
        ("24 fields byte by byte", 20, 1),
    ] {
        let more: String =
            (0..fields).map(|n| format!("X-Field-{n}: some value of usual length\r\n")).collect();
        let ask = format!("GET /things/17 HTTP/1.1\r\nHost: service.example\r\nAccept: */*\r\n{more}\r\n");
        let answer = format!("HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Length: 0\r\n{more}\r\n");
        group.throughput(Throughput::Bytes((ask.len() + answer.len()) as u64));
        group.bench_function(name, |bencher| {
            let mut wire = Wire::new();
            let mut asked = 0;
            bencher.iter(|| {
                for part in ask.as_bytes().chunks(cut) {
                    wire.segment(C, part.len(), part);
                }
                for part in answer.as_bytes().chunks(cut) {
                    wire.segment(S, part.len(), part);
                }
                asked += 1;
            });
            assert_eq!(wire.exchanges, asked);
        });
    }
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group! { name = engine; config = quick(); targets = bodies, chunks, heads }
criterion_main!(engine);
