//! `tracer read`: the records of capture files and recordings instead of the live kernel's.

mod replay;

use std::{
    path::Path,
    process::ExitCode,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tracer_ebpf::Owner;

use crate::{
    cli::{ReadArgs, Shown},
    emit::{
        Lines,
        text::Text,
        writer::{Ended, QUEUE_BYTES, Sink, Target},
    },
    filter::Filter,
    http,
    report::{Clock, Report},
    source::{
        capture::{Capture, CaptureError, Input, Packet},
        observer::{Observer, Wanted},
        packet::{self, Skip},
        recorded::Recording,
    },
    start,
    stats::read as stats,
    track::{Losses, Output, ProcessInfo, Processes, Tracker, View, ends},
};

/// How often time-outs are looked at, in the capture's time.
const TICK_NS: u64 = 1_000_000_000;
/// After how many packets the outside is looked at.
const BATCH: u64 = 1024;
/// How long an interrupted run goes on with what a pipe still holds.
const DRAIN: Duration = Duration::from_secs(1);
/// Files of a rotated capture may overlap by so much.
const BACK_NS: u64 = 1_000_000_000;
/// The output's reader has all the time it wants.
const FINISH_LIMIT: Duration = Duration::from_secs(365 * 86_400);

/// Reads all files.
///
/// # Errors
/// The output cannot be written. Files that cannot be read are told on standard error, and by the exit code.
pub fn run(args: &ReadArgs) -> Result<ExitCode> {
    let common = &args.common;
    let lines = Lines::new(Sink::start(Target::of(common.output_file())?, QUEUE_BYTES)?);
    let ending = Ending::watch(&lines)?;
    let headers = common.header_policy();
    let filter = common.filter();
    let mut report = Report {
        // A capture's times are the wall clock's.
        clock: Clock::new(0, 0),
        headers: &headers,
        reset_reasons: Arc::default(),
        lines,
        written: 0,
        limit: common.limit(),
    };
    let names: Vec<Text<'_>> =
        args.files.iter().map(|file| Text(file.as_os_str().as_encoded_bytes())).collect();
    let limits = [("connections", common.max_connections.into())];
    let setup = start::Setup { files: &names, limits: &limits, ..start::Setup::default() };
    start::write(&mut report, setup, &filter);

    let mut reading = Reading::new(report, args, &filter, ending);
    for file in &args.files {
        if reading.is_over() {
            break;
        }
        if common.verbose > 0 {
            eprintln!("tracer: reading {}", file.display());
        }
        reading.totals.files += 1;
        if let Err(error) = reading.file(file)
            && !(error.is_end() && reading.ending.is_asked())
        {
            eprintln!("tracer: {error}");
            reading.totals.damaged_files += 1;
        }
    }
    reading.finish()
}

/// Tells of no process: a capture does not.
struct Nobody;

impl Processes for Nobody {
    fn info(&mut self, _: &Owner) -> Option<Arc<ProcessInfo>> {
        None
    }
}

/// The running state.
pub struct Reading<'a> {
    pub report: Report<'a>,
    pub tracker: Tracker,
    pub observer: Observer,
    pub totals: Totals,
    outputs: Vec<Output>,
    filter: Filter,
    no_http: bool,
    /// Lines of raw events are wanted.
    events: bool,
    /// Segments that are.
    segments: Option<Shown>,
    tick_at_ns: u64,
    ending: Ending,
}

/// What was read.
#[derive(Debug)]
pub struct Totals {
    pub since: Instant,
    pub files: u64,
    pub damaged_files: u64,
    pub packets: u64,
    pub packet_bytes: u64,
    /// Of the trackers of recordings.
    pub losses: Losses,
    /// Records of recordings that have not the contract's shape.
    pub undecodable: u64,
    /// By [`Skip`].
    pub skipped: [u64; Skip::NAMES.len()],
    /// Events by kind, in the order of [`stats::KINDS`].
    pub events: [u64; stats::KINDS.len()],
}

impl<'a> Reading<'a> {
    fn new(report: Report<'a>, args: &ReadArgs, filter: &Filter, ending: Ending) -> Self {
        let common = &args.common;
        let max = common.max_connections as usize;
        let http = (!common.no_http).then(http::Config::default);
        Self {
            report,
            // The observer has chosen already.
            tracker: Tracker::new(View::Wire, max, http, Box::new(|_, _| true)),
            observer: Observer::new(max, common.events, common.segments.is_some(), wanted(filter)),
            totals: Totals {
                since: Instant::now(),
                files: 0,
                damaged_files: 0,
                packets: 0,
                packet_bytes: 0,
                losses: Losses::default(),
                undecodable: 0,
                skipped: Default::default(),
                events: Default::default(),
            },
            outputs: Vec::new(),
            filter: filter.clone(),
            no_http: common.no_http,
            events: common.events,
            segments: common.segments,
            tick_at_ns: 0,
            ending,
        }
    }

    /// Reads a file to its end, or to the end of the run.
    fn file(&mut self, path: &Path) -> Result<(), CaptureError> {
        let ending = self.ending.clone();
        let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
        let mut input = match Input::open(path, Box::new(move || ending.is_asked())) {
            Ok(input) => input,
            Err(problem) => {
                return Err(CaptureError { file: name, item: "packet", number: None, offset: 0, problem });
            }
        };
        // What cannot be read is no recording; why it cannot is told as of a capture.
        if Recording::is_one(&mut input).unwrap_or(false) {
            return self.recording(&name, input);
        }
        let mut capture = Capture::new(name, input)?;
        let mut is_first = true;
        while let Some(packet) = capture.packet()? {
            if std::mem::take(&mut is_first) && packet.time_ns + BACK_NS < self.observer.now_ns() {
                eprintln!(
                    "tracer: {}: begins before the end of the files before it; give files in the order of their time",
                    path.display()
                );
            }
            self.packet(&packet);
            if self.totals.packets.is_multiple_of(BATCH) && self.is_over() || self.report.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn packet(&mut self, packet: &Packet<'_>) {
        self.totals.packets += 1;
        self.totals.packet_bytes += u64::from(packet.len);
        let segment = match packet::segment(packet) {
            Ok(segment) => segment,
            Err(skip) => {
                self.totals.skipped[skip as usize] += 1;
                return;
            }
        };
        let Self { tracker, observer, totals, outputs, .. } = self;
        // First what is older than the segment.
        if segment.time_ns >= self.tick_at_ns {
            self.tick_at_ns = segment.time_ns.saturating_add(TICK_NS);
            tracker.tick(segment.time_ns, &mut Nobody, outputs);
        }
        observer.segment(&segment, &mut |event| {
            totals.events[stats::kind(&event)] += 1;
            tracker.event(event, &mut Nobody, outputs);
        });
        if !self.outputs.is_empty() {
            self.emit_all();
        }
    }

    fn emit_all(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.emit(&mut outputs, self.observer.now_ns());
        self.outputs = outputs;
    }

    fn emit(&mut self, outputs: &mut Vec<Output>, now_ns: u64) {
        for output in outputs.drain(..) {
            match output {
                Output::Mark { .. } | Output::Forget { .. } | Output::ForgetTimeWait { .. } => {}
                Output::State(_) | Output::Retransmit(_) | Output::Reset(_) if !self.events => {}
                Output::Segment(segment) if !segment.is_wanted(self.segments) => {}
                output => {
                    self.report.lines.wait_for_room();
                    self.report.output(&output, now_ns);
                }
            }
        }
    }

    /// Whether to read no more.
    fn is_over(&self) -> bool {
        self.report.is_full() || self.ending.is_due() || self.report.lines.ended().is_some()
    }

    /// What is still open is told as it stands.
    fn finish(mut self) -> Result<ExitCode> {
        let tracker = &mut self.tracker;
        self.observer.finish(|still| tracker.still_open(&still));
        self.tracker.finish(&mut Nobody, &mut self.outputs);
        self.emit_all();
        stats::write(&mut self);
        let ended = self.report.lines.ended();
        self.report.lines.finish(FINISH_LIMIT);
        match ended {
            Some(Ended::Failed(reason)) => bail!(reason),
            // The reader has what it wanted (`| head`).
            Some(Ended::ReaderGone) => Ok(ExitCode::SUCCESS),
            None if self.totals.damaged_files > 0 => Ok(ExitCode::FAILURE),
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

/// The filters, by addresses and ports.
fn wanted(filter: &Filter) -> Wanted {
    let filter = filter.clone();
    if filter.is_empty() {
        return Box::new(|_| true);
    }
    Box::new(move |tuple| {
        let (local, remote) = ends(tuple);
        filter.matches_tuple(local, remote)
    })
}

/// Whether somebody asks for the end: by a signal, or by reading no more.
#[derive(Clone, Default)]
struct Ending {
    interrupted: Arc<OnceLock<Instant>>,
    reader_gone: Arc<AtomicBool>,
}

impl Ending {
    fn watch(lines: &Lines) -> Result<Self> {
        let ending = Self::default();
        let ours = ending.clone();
        let ended = lines.until_ended();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate) = {
            let _guard = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        thread::Builder::new().name("ending".into()).spawn(move || {
            runtime.block_on(async {
                tokio::pin!(ended);
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = &mut ended => {
                            ours.reader_gone.store(true, Relaxed);
                            return;
                        }
                    }
                    // The second time, nothing is waited for.
                    if ours.interrupted.set(Instant::now()).is_err() {
                        std::process::exit(1);
                    }
                }
            });
        })?;
        Ok(ending)
    }

    /// Whether a silent pipe need not be waited for.
    fn is_asked(&self) -> bool {
        self.interrupted.get().is_some() || self.reader_gone.load(Relaxed)
    }

    /// Whether reading is to end now. After a signal a pipe's writer may have had the same one, and give us its last.
    fn is_due(&self) -> bool {
        self.reader_gone.load(Relaxed) || self.interrupted.get().is_some_and(|at| at.elapsed() >= DRAIN)
    }
}

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
