//! A recording through a tracker of its own, as the live run had one.

use tracer_ebpf::milestone;

use super::Reading;
use crate::{
    http,
    report::Clock,
    source::{
        self, Event,
        capture::{CaptureError, Input, Problem},
        recorded::{Entry, Header, RecordedProcesses, Recording},
    },
    stats::read as stats,
    track::{self, Output, Tracker, View},
};

/// The state of a replay.
struct Replay {
    tracker: Tracker,
    processes: RecordedProcesses,
    outputs: Vec<Output>,
}

impl Reading<'_> {
    /// Reads a recording to its end, or to the end of the run.
    pub(super) fn recording(&mut self, name: &str, input: Input) -> Result<(), CaptureError> {
        let error = |entry: Option<u64>, offset: u64, problem: Problem| CaptureError {
            file: name.to_owned(),
            item: "entry",
            number: entry,
            offset,
            problem,
        };
        let (mut recording, header) =
            Recording::open(input).map_err(|(offset, problem)| error(None, offset, problem))?;
        let clock = std::mem::replace(&mut self.report.clock, Clock::with_offset(header.clock_offset_ns));
        self.report.reset_reasons = header.reset_reasons.as_slice().into();
        let mut replay = self.replay(&header);
        let mut number = 0;
        let result = loop {
            number += 1;
            match recording.entry() {
                Ok(None) => break Ok(()),
                Ok(Some(entry)) => replay.entry(entry, self),
                Err(problem) => break Err(error(Some(number), recording.offset(), problem)),
            }
            if number.is_multiple_of(super::BATCH) && self.is_over() || self.report.is_full() {
                break Ok(());
            }
        };
        self.totals.losses.add(replay.tracker.losses());
        self.report.clock = clock;
        result
    }

    fn replay(&self, header: &Header) -> Replay {
        let http = (header.http && !self.no_http).then(http::Config::default);
        let (theirs, ours) = (track::wanted(header.filter.clone()), track::wanted(self.filter.clone()));
        let wanted =
            Box::new(move |tuple: &_, process: Option<&_>| theirs(tuple, process) && ours(tuple, process));
        Replay {
            tracker: Tracker::new(View::Host, header.max_connections as usize, http, wanted),
            processes: RecordedProcesses::default(),
            outputs: Vec::new(),
        }
    }
}

impl Replay {
    fn entry(&mut self, entry: Entry<'_>, reading: &mut Reading<'_>) {
        let Self { tracker, processes, outputs } = self;
        let now_ns = match entry {
            Entry::Record { now_ns, record } => {
                match source::decode(record) {
                    Ok(event) => {
                        reading.totals.events[stats::kind(&event)] += 1;
                        tracker.event(event, processes, outputs);
                    }
                    Err(_) => reading.totals.undecodable += 1,
                }
                now_ns
            }
            Entry::Unsent { now_ns, conn } => {
                let event = Event::Conn { milestone: milestone::CLOSED, time_ns: conn.closed_ns, conn };
                tracker.event(event, processes, outputs);
                now_ns
            }
            Entry::Refresh(conn) => {
                tracker.refresh(*conn);
                return;
            }
            Entry::Process(asked) => {
                processes.learn(asked);
                return;
            }
            Entry::Tick { now_ns } => {
                tracker.tick(now_ns, processes, outputs);
                now_ns
            }
            Entry::End { now_ns } => {
                tracker.finish(processes, outputs);
                now_ns
            }
        };
        reading.emit(outputs, now_ns);
    }
}
