//! Fuzz targets: functions that take any input and fail only where we are wrong.
//!
//! A plain `cargo test` runs each of them on the same few inputs every time; `cargo xtask fuzz` on new ones for as long
//! as it is told to. An input is a string of bytes from which the target takes its decisions ([`Input`]), so that a
//! failing one is made smaller byte by byte before it is shown. To keep one for ever, put it into a test that calls
//! [`replay`].

mod decode;
mod emit;
mod input;
mod written;

use std::{
    env,
    time::{Duration, Instant},
};

use proptest::{
    collection::vec,
    prelude::any,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

pub(crate) use emit::Lines;
pub(crate) use input::Input;
pub(crate) use written::Written;

/// Longest input, in bytes.
const INPUT_MAX: usize = 1500;
/// Inputs between two looks at the clock.
const ROUND: u32 = 200;
/// How long each target is to run; set by `cargo xtask fuzz`.
const SECONDS: &str = "TRACER_FUZZ_SECONDS";

type Target = fn(&mut Input<'_>);

/// Runs a target on `cases` inputs, or for the time that the environment gives.
fn fuzz(cases: u32, target: Target) {
    let seconds = env::var(SECONDS).ok().map(|text| text.parse().expect("a number of seconds"));
    let Some(seconds) = seconds else {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        return run(TestRunner::new_with_rng(config(cases), rng), target);
    };
    let (begin, mut inputs) = (Instant::now(), 0u64);
    while begin.elapsed() < Duration::from_secs(seconds) {
        run(TestRunner::new(config(ROUND)), target);
        inputs += u64::from(ROUND);
    }
    eprintln!("{inputs} inputs in {} s", begin.elapsed().as_secs());
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() }
}

fn run(mut runner: TestRunner, target: Target) {
    let outcome = runner.run(&vec(any::<u8>(), 0..INPUT_MAX), |bytes| {
        target(&mut Input::new(&bytes));
        Ok(())
    });
    if let Err(TestError::Fail(reason, bytes)) = outcome {
        panic!("{reason}\nsmallest input found: b\"{}\"", bytes.escape_ascii());
    }
}

/// Runs a target on one input.
fn replay(target: Target, bytes: &[u8]) {
    target(&mut Input::new(bytes));
}

macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident: $cases:expr, $target:path;)+) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            replay($target, b"");
            fuzz($cases, $target);
        }
    )+};
}

targets! {
    /// One direction put back in order.
    stream: 1500, crate::http::fuzz::stream;
    /// The framing of whole connections, up to the lines written.
    flow: 700, crate::http::fuzz::flow;
    /// Start lines and fields.
    head: 1500, crate::http::fuzz::head;
    /// The chunked coding.
    chunked: 3000, crate::http::fuzz::chunked;
    /// Records of the ring.
    decode: 3000, decode::decode;
    /// Any exchange as a line.
    emit: 150, emit::emit;
    /// Capture files, compressed or not.
    capture: 300, crate::source::capture::fuzz::capture;
    /// Headers of captured packets.
    packet: 1000, crate::source::packet::fuzz::packet;
    /// Any segments of any connections, up to the lines written.
    observer: 50, crate::source::observer::fuzz::observer;
    /// Recordings of live runs.
    recording: 60, crate::read::fuzz::recording;
}
