//! `tracer trace`: the main loop.

use std::{collections::HashSet, path::Path, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use aya::maps::{MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, interval_at},
};
use tracer_ebpf::Mark;

use crate::{
    cli::{RecordArgs, TraceArgs},
    emit::{
        Lines,
        text::Text,
        writer::{Ended, QUEUE_BYTES, Sink, Target},
    },
    http,
    kernel::{self, Capture, Elsewhere, Interfaces, Kernel, LinkChanges, Options, ProcProcesses, Tables},
    report::Report,
    selfcheck::Ahead,
    source::{
        self, Event,
        recorded::{self, Recorder},
    },
    start,
    stats::Stats,
    track::{self, Output, Tracker, View},
};

/// How often the ring is read when nothing wakes us: what bounds the age of a line at low load.
const POLL: Duration = Duration::from_millis(20);
/// How often time-outs are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often the connection table is held against the sockets.
const RECONCILE: Duration = Duration::from_secs(60);
/// How often network namespaces are looked for, besides when a connection is in a new one.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// Network namespaces remembered as known.
const MAX_NAMESPACES: usize = 65_536;
/// Most times that the tables are held against the sockets at the end.
const MAX_RECONCILES: usize = 4;
/// Most records handled before signals and timers are looked at again.
const BATCH: usize = 4096;
/// How long the end waits for a reader that does not read.
const FINISH_LIMIT: Duration = Duration::from_secs(2);

/// Traces until told to stop.
///
/// # Errors
/// What keeps the main job from starting, or the output from being written.
pub fn run(args: &TraceArgs) -> Result<ExitCode> {
    may_trace()?;
    start(args, Target::of(args.common.output_file())?, None)
}

/// Records until told to stop; records are written only where the user has named a place.
///
/// # Errors
/// As of [`run`], or the recording cannot be written.
pub fn record(args: &RecordArgs) -> Result<ExitCode> {
    may_trace()?;
    let output = args.trace.common.output.as_deref();
    let target = match output {
        None => Target::append(Path::new("/dev/null"))?,
        Some(_) => Target::of(args.trace.common.output_file())?,
    };
    start(&args.trace, target, Some(Recorder::create(&args.file)?))
}

fn may_trace() -> Result<()> {
    let missing = kernel::missing_privileges();
    if !missing.is_empty() {
        bail!(
            "not allowed to trace: missing {}. Run as root (`sudo tracer …`), or give the binary these capabilities \
             (`setcap cap_bpf,cap_perfmon,cap_net_admin,cap_sys_ptrace+ep`)",
            missing.join(", ")
        );
    }
    Ok(())
}

fn start(args: &TraceArgs, target: Target, recorder: Option<Recorder>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(trace(args, target, recorder))
}

async fn trace(args: &TraceArgs, target: Target, recorder: Option<Recorder>) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut links = LinkChanges::listen()?;
    let mut interfaces = Interfaces::new(&args.interfaces)?;

    let options = Options {
        filter: args.filter(),
        events: args.common.events,
        payload: !args.common.no_http,
        segments: args.common.segments,
        capture: args.capture(),
        hooks: args.hooks,
        ring_bytes: args.ring_bytes(),
        max_connections: args.common.max_connections,
    };
    let mut kernel = Kernel::attach(&options).map_err(|error| match kernel::lockdown() {
        Some(mode) => error.context(format!(
            "this kernel is locked down ({mode}, see kernel_lockdown(7)), which may be why: boot without \
             lockdown=confidentiality"
        )),
        None => error,
    })?;
    interfaces.refresh(kernel.classifier()?)?;
    // Interfaces that are named are those of our own namespace.
    let mut elsewhere =
        (kernel.capture == Capture::Tc && args.interfaces.is_empty()).then(Elsewhere::default);
    if let Some(elsewhere) = &mut elsewhere {
        elsewhere.refresh(kernel.classifier_elsewhere()?);
    }
    if !kernel::sees_others() {
        eprintln!("tracer: CAP_SYS_PTRACE is missing; not known for that: {}", kernel::OF_OTHERS);
    }
    if let Err(error) = kernel::drop_unneeded(elsewhere.is_some()) {
        eprintln!("tracer: running on with all privileges: {error}");
    }
    let ring = kernel.take_ring()?;
    // SAFETY: the map owns its file descriptor for as long as it lives.
    let mut ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE)? };
    let mut live = Live {
        tables: kernel.take_tables()?,
        processes: ProcProcesses::default(),
        tracker: Tracker::new(
            View::Host,
            args.common.max_connections as usize,
            (!args.common.no_http).then(http::Config::default),
            track::wanted(args.filter()),
        ),
        outputs: Vec::new(),
        recorder,
        events: args.common.events,
        namespaces: HashSet::new(),
        namespace_is_new: false,
        patient: false,
        undecodable: 0,
        missed: 0,
    };

    let lines = Lines::new(Sink::start(target, QUEUE_BYTES)?);
    let headers = args.common.header_policy();
    let reset_reasons = std::mem::take(&mut kernel.reset_reasons);
    let mut hooks = kernel.hooks.clone();
    hooks.extend(interfaces.hooks());
    hooks.extend(elsewhere.iter().flat_map(Elsewhere::hooks));
    let limit = args.common.limit();
    let mut report = Report {
        clock: start::clock(),
        headers: &headers,
        reset_reasons: reset_reasons.as_slice().into(),
        lines,
        written: 0,
        limit,
    };
    let limits = [("connections", options.max_connections.into()), ("ring_bytes", options.ring_bytes.into())];
    live.begin_recording(&options, &report);
    let names: Vec<Text<'_>> = interfaces.names().map(|name| Text(name.as_bytes())).collect();
    let setup = start::Setup {
        hooks: &hooks,
        capture: Some(kernel.capture),
        interfaces: &names,
        limits: &limits,
        ..start::Setup::default()
    };
    start::write(&mut report, setup, &options.filter);
    drop(names);
    start::tell(&hooks, args.common.verbose);

    let mut stats = Stats::new(&options, kernel.counters, &live);
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let every = if args.stats_interval.is_zero() {
        Duration::from_secs(u32::MAX.into())
    } else {
        args.stats_interval
    };
    let mut stats_due = interval_at(Instant::now() + every, every);
    let mut elsewhere_due = interval_at(Instant::now() + ELSEWHERE, ELSEWHERE);
    elsewhere_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reconcile_due = interval_at(Instant::now() + RECONCILE, RECONCILE);
    let deadline = tokio::time::sleep(args.duration.unwrap_or(Duration::from_secs(u32::MAX.into())));
    tokio::pin!(deadline);
    let ended = report.lines.until_ended();
    tokio::pin!(ended);

    let end = loop {
        tokio::select! {
            biased;
            end = &mut ended => break Some(end),
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            () = &mut deadline => break None,
            _ = stats_due.tick() => {
                live.missed = kernel.missed();
                stats.write(&mut report, &live);
            }
            // Where the kernel cannot (before 5.13), an end that was missed stays missed.
            _ = reconcile_due.tick() => {
                let _ = kernel.reconcile();
            }
            _ = tick.tick() => {
                live.tick(ring.get_mut(), &mut report);
                kernel.flush_log();
            }
            _ = elsewhere_due.tick(), if elsewhere.is_some() => live.namespace_is_new = true,
            () = links.changed() => {
                for name in interfaces.refresh(kernel.classifier()?)? {
                    if args.common.verbose > 0 {
                        eprintln!("tracer: also watching {name}");
                    }
                }
            }
            ready = ring.readable_mut() => {
                let mut ready = ready?;
                if live.drain(ready.get_inner_mut(), &mut report) < BATCH {
                    ready.clear_ready();
                }
            }
            _ = poll.tick() => while live.drain(ring.get_mut(), &mut report) == BATCH
                && report.lines.ended().is_none() {
                tokio::task::yield_now().await;
            },
        }
        if std::mem::take(&mut live.namespace_is_new)
            && let Some(elsewhere) = &mut elsewhere
        {
            elsewhere.refresh(kernel.classifier_elsewhere()?);
        }
        if report.is_full() || live.recorder.as_ref().is_some_and(Recorder::has_failed) {
            break None;
        }
    };

    // What is told as open has to be. A small ring may not have room for all that is found at once.
    for _ in 0..MAX_RECONCILES {
        let _ = kernel.reconcile();
        let mut found = 0;
        while end.is_none() {
            let handled = live.drain(ring.get_mut(), &mut report);
            found += handled;
            if handled < BATCH {
                break;
            }
        }
        if found == 0 {
            break;
        }
    }
    live.refresh(&mut kernel);
    live.missed = kernel.missed();
    let counters = Ahead::read();
    kernel.stop()?;
    live.patient = true;
    // Detach first: then the ring holds all there is.
    drop((interfaces, elsewhere));
    drop(kernel);
    if end.is_none() {
        while live.drain(ring.get_mut(), &mut report) == BATCH {}
        live.finish(ring.get_mut(), &mut report);
        stats.write_final(&mut report, &live, counters);
    }
    let ended = end.or_else(|| report.lines.ended());
    report.lines.finish(FINISH_LIMIT);
    if let Some(recorder) = live.recorder {
        recorder.finish()?;
    }
    match ended {
        // The reader has what it wanted (`| head`).
        Some(Ended::ReaderGone) | None => Ok(ExitCode::SUCCESS),
        Some(Ended::Failed(reason)) => bail!(reason),
    }
}

/// The running state.
pub struct Live {
    pub tables: Tables,
    pub tracker: Tracker,
    processes: ProcProcesses,
    outputs: Vec<Output>,
    recorder: Option<Recorder>,
    /// Lines of raw events are wanted.
    events: bool,
    /// Inodes of those that connections were seen in.
    namespaces: HashSet<u32>,
    namespace_is_new: bool,
    /// Nothing happens any more, so that a reader may take its time, as long as it reads.
    patient: bool,
    /// Ring records that did not have the contract's shape.
    pub undecodable: u64,
    /// Times that the kernel could not run one of our programs.
    pub missed: u64,
}

impl Live {
    /// Handles up to [`BATCH`] records; returns how many there were.
    fn drain(&mut self, ring: &mut RingBuf<MapData>, report: &mut Report<'_>) -> usize {
        let mut handled = 0;
        while handled < BATCH {
            let Some(record) = ring.next() else { break };
            handled += 1;
            match source::decode(&record) {
                Ok(event) => {
                    match &event {
                        Event::Process(process) => self.processes.introduce(process),
                        Event::Conn { conn, .. } => self.notice_namespace(conn.tuple.netns),
                        _ => {}
                    }
                    self.tracker.event(event, &mut self.processes, &mut self.outputs);
                }
                Err(_) => self.undecodable += 1,
            }
            // The time of what is written; most records lead to nothing.
            let now_ns = if self.outputs.is_empty() { 0 } else { start::monotonic_ns() };
            self.record(|recorder| recorder.record(now_ns, &record));
            if !self.outputs.is_empty() {
                self.emit(report, now_ns);
            }
        }
        handled
    }

    fn notice_namespace(&mut self, netns: u32) {
        if self.namespaces.len() >= MAX_NAMESPACES {
            self.namespaces.clear();
        }
        self.namespace_is_new |= self.namespaces.insert(netns);
    }

    /// What a replay must know ahead of everything.
    fn begin_recording(&mut self, options: &Options, report: &Report<'_>) {
        let Some(recorder) = &mut self.recorder else { return };
        self.processes.keep_asked();
        let system = nix::sys::utsname::uname().ok();
        let name = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            system.as_ref().map(|system| part(system).to_string_lossy().into_owned()).unwrap_or_default()
        };
        recorder.header(&recorded::Header {
            tracer: env!("CARGO_PKG_VERSION").to_owned(),
            abi: tracer_ebpf::ABI_VERSION,
            kernel: name(|system| system.release()),
            hostname: name(|system| system.nodename()),
            clock_offset_ns: report.clock.offset_ns(),
            reset_reasons: report.reset_reasons.to_vec(),
            filter: options.filter.clone(),
            http: options.payload,
            max_connections: options.max_connections,
        });
    }

    /// Records what was handled, behind what handling it has asked.
    fn record(&mut self, write: impl FnOnce(&mut Recorder)) {
        if let Some(recorder) = &mut self.recorder {
            self.processes.take_asked().iter().for_each(|asked| recorder.asked(asked));
            write(recorder);
        }
    }

    fn emit(&mut self, report: &mut Report<'_>, now_ns: u64) {
        for output in self.outputs.drain(..) {
            match &output {
                Output::Mark { flow, direction, mark } => {
                    let mark = match *mark {
                        http::Mark::Until { offset, then_head } => Mark { offset, head: then_head.into() },
                        http::Mark::Never => Mark { offset: u64::MAX, head: 0 },
                    };
                    self.tables.mark(*flow, *direction as u64, mark);
                }
                Output::Forget { flow, key } => self.tables.forget(*flow, key),
                Output::ForgetTimeWait { tuple, began_ns } => self.tables.forget_time_wait(tuple, *began_ns),
                // The tracker wants them in any case.
                Output::Retransmit(_) if !self.events => {}
                output => {
                    self.patient = self.patient && report.lines.wait_for_room_for(FINISH_LIMIT);
                    report.output(output, now_ns);
                }
            }
        }
    }

    /// Time-outs, and what found the ring full.
    fn tick(&mut self, ring: &mut RingBuf<MapData>, report: &mut Report<'_>) {
        self.collect_unsent(ring, report);
        let now_ns = start::monotonic_ns();
        self.tracker.tick(now_ns, &mut self.processes, &mut self.outputs);
        self.record(|recorder| recorder.tick(now_ns));
        self.emit(report, now_ns);
    }

    /// Takes in the finished connections that found the ring full, after all that the ring has of them.
    fn collect_unsent(&mut self, ring: &mut RingBuf<MapData>, report: &mut Report<'_>) {
        let unsent = self.tables.take_unsent();
        if unsent.is_empty() {
            return;
        }
        while self.drain(ring, report) == BATCH {}
        for conn in unsent {
            let event = Event::Conn {
                milestone: tracer_ebpf::milestone::CLOSED,
                time_ns: conn.closed_ns,
                conn: Box::new(conn),
            };
            self.tracker.event(event, &mut self.processes, &mut self.outputs);
            let now_ns = start::monotonic_ns();
            self.record(|recorder| recorder.unsent(now_ns, &conn));
            self.emit(report, now_ns);
        }
    }

    /// What is still open is told with its totals so far, where the kernel can tell them.
    fn refresh(&mut self, kernel: &mut Kernel) {
        // `start.hooks` has said so where it cannot.
        let _ = kernel.refresh_totals();
        for conn in self.tables.connections() {
            self.tracker.refresh(conn);
            if let Some(recorder) = &mut self.recorder {
                recorder.refresh(&conn);
            }
        }
    }

    fn finish(&mut self, ring: &mut RingBuf<MapData>, report: &mut Report<'_>) {
        self.collect_unsent(ring, report);
        self.tracker.finish(&mut self.processes, &mut self.outputs);
        let now_ns = start::monotonic_ns();
        self.record(|recorder| recorder.end(now_ns));
        self.emit(report, now_ns);
    }
}
