//! The `stats` record of `tracer read`.

use super::cpu;
use crate::{
    emit::record::{self, Capture, Map, Segments, Table},
    read::Reading,
    source::{Event, packet::Skip},
    start,
};

/// Kinds of events, as the live source names them.
pub const KINDS: [&str; 9] =
    ["conn", "owner", "process", "segment", "state", "retransmit", "reset", "time_wait", "shown"];

/// Place in [`KINDS`].
pub fn kind(event: &Event<'_>) -> usize {
    match event {
        Event::Conn { .. } | Event::Repeats { .. } => 0,
        Event::Owner { .. } => 1,
        Event::Process(_) => 2,
        Event::Segment { .. } | Event::Sent { .. } => 3,
        Event::State(_) => 4,
        Event::Retransmit(_) => 5,
        Event::Reset(_) => 6,
        Event::TimeWait(_) => 7,
        Event::Shown(_) => 8,
    }
}

/// Writes the one record, at the end.
pub fn write(reading: &mut Reading<'_>) {
    let Reading { report, tracker, observer, totals, .. } = reading;
    let (counts, sizes) = (observer.counts(), tracker.sizes());
    let mut losses = tracker.losses();
    losses.add(totals.losses);
    let events: Vec<(&str, u64)> = KINDS.into_iter().zip(totals.events).collect();
    let mut skipped: Vec<(&str, u64)> = Skip::NAMES.into_iter().zip(totals.skipped).collect();
    skipped.extend([
        ("captured_twice", counts.copies),
        ("stray", counts.stray),
        ("out_of_window", counts.out_of_window),
        ("unwanted", counts.unwanted),
    ]);
    let table = |entries: usize| Table {
        entries: Some(entries as u64),
        capacity: Some(observer.max() as u64),
        evictions: 0,
    };
    let written = report.lines.totals();
    report.lines.wait_for_room();
    report.lines.write_reserved(&record::Stats {
        ts: start::now(),
        is_final: true,
        interval_s: totals.since.elapsed().as_secs_f64(),
        events: Map(&events),
        lost: Map(&[
            ("connections_full", counts.full + losses.connections_full),
            ("flows_full", losses.flows_full),
            ("unclaimed_exchanges", losses.unclaimed_exchanges),
            ("undecodable", totals.undecodable),
            ("output", written.dropped_lines),
        ]),
        tables: Map(&[
            ("connections", table(sizes.connections)),
            ("flows", table(sizes.flows)),
            ("past_connections", table(observer.past())),
        ]),
        segments: Segments {
            seen: Some(counts.segments),
            bytes_seen: Some(counts.payload_bytes),
            copied: Some(counts.handed),
            bytes_copied: Some(counts.bytes_handed),
        },
        capture: Some(Capture {
            files: totals.files,
            damaged_files: totals.damaged_files,
            packets: totals.packets,
            packet_bytes: totals.packet_bytes,
            skipped: Map(&skipped),
        }),
        output_bytes: written.bytes,
        output_lines: written.lines,
        cpu: cpu(),
        selfcheck: None,
    });
}
