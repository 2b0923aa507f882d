//! Recordings that are damaged: no panic, no more memory than stated, every line valid.

use std::io::Cursor;

use clap::Parser;

use super::{Ending, Reading, tests};
use crate::{
    cli::{Cli, Command},
    filter::Filter,
    fuzz::{Input, Written},
    report::{Clock, Report},
    source::{capture, recorded::Recording},
};

thread_local! {
    static RECORDING: Vec<u8> = tests::recording("fuzz");
}

/// Where the entries begin: behind the magic and the version.
const ENTRIES_AT: usize = 12;
const ENTRY_HEAD_BYTES: usize = 5;

pub(crate) fn recording(input: &mut Input<'_>) {
    let mut bytes = RECORDING.with(Clone::clone);
    if input.once_in(20) {
        bytes = [&bytes[..ENTRIES_AT], input.bytes(400)].concat();
    } else {
        let mut entries = entries(&bytes);
        for _ in 0..input.below(12) {
            rearrange(&mut entries, input);
        }
        bytes = of(&entries);
        if input.once_in(3) {
            // A length that is not the entry's, of any but the header's: that ends all.
            let entry = 1 + input.below(entries.len() - 1);
            let at = of(&entries[..entry]).len() + 1;
            let len = if input.once_in(2) { 1 << (20 + input.below(12)) } else { input.number() as u32 };
            bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        }
        if input.once_in(3) {
            damage(&mut bytes, input);
        }
    }
    assert!(held(&bytes) <= 2 * (16 << 20));
    replay(bytes);
}

/// Reads all entries as they are, and returns the memory that took.
fn held(bytes: &[u8]) -> usize {
    let source = capture::Input::new(Box::new(Cursor::new(bytes.to_vec()))).expect("memory");
    let Ok((mut recording, _)) = Recording::open(source) else { return 0 };
    while let Ok(Some(_)) = recording.entry() {}
    recording.held()
}

fn replay(bytes: Vec<u8>) {
    let args =
        Cli::try_parse_from(["tracer", "read", "--events", "--segments=all", "x"]).expect("a command line");
    let Command::Read(args) = args.into_command() else { unreachable!("it reads") };
    let headers = args.common.header_policy();
    let (written, lines) = Written::begin();
    let report = Report {
        clock: Clock::new(0, 0),
        headers: &headers,
        reset_reasons: [].into(),
        lines,
        written: 0,
        limit: u64::MAX,
    };
    let mut reading = Reading::new(report, &args, &Filter::default(), Ending::default());
    let source = capture::Input::new(Box::new(Cursor::new(bytes))).expect("memory");
    if let Err(error) = reading.recording("x", source) {
        assert!(!error.to_string().is_empty());
    }
    reading.finish().expect("memory has room");
    let values = written.values();
    assert!(values.last().is_some_and(|value| value["type"] == "stats"));
}

type Entry = (u8, Vec<u8>);

fn entries(mut bytes: &[u8]) -> Vec<Entry> {
    bytes = &bytes[ENTRIES_AT..];
    let mut entries = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<ENTRY_HEAD_BYTES>() {
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        entries.push((head[0], rest[..len].to_vec()));
        bytes = &rest[len..];
    }
    entries
}

fn of(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = RECORDING.with(|bytes| bytes[..ENTRIES_AT].to_vec());
    for (kind, content) in entries {
        bytes.push(*kind);
        bytes.extend((content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(content);
    }
    bytes
}

/// Entries that stay entries, in another order or with other content.
fn rearrange(entries: &mut Vec<Entry>, input: &mut Input<'_>) {
    // The first is the header.
    let at = 1 + input.below(entries.len() - 1);
    let other = 1 + input.below(entries.len() - 1);
    match input.below(6) {
        0 => entries.swap(at, other),
        1 if entries.len() > 2 => {
            entries.remove(at);
        }
        2 => {
            let copy = entries[at].clone();
            entries.insert(other, copy);
        }
        _ => {
            let content = &mut entries[at].1;
            for _ in 0..=input.below(4) {
                // A number somewhere: kinds, times, ids, flags and counts have the kernel side's alignment.
                let width = *input.choose(&[1, 2, 4, 8]);
                let place = input.below(content.len() + 1) / width * width;
                let number = input.number().to_le_bytes();
                if let Some(bytes) = content.get_mut(place..place + width) {
                    bytes.copy_from_slice(&number[..width]);
                }
            }
        }
    }
}

/// Bytes changed anywhere, lengths too.
fn damage(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..=input.below(3) {
        let at = input.below(bytes.len() + 1);
        match input.below(3) {
            0 => bytes.truncate(at),
            1 => {
                let to = (at + input.below(20)).min(bytes.len());
                bytes.splice(at..to, input.bytes(20).to_vec());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = input.byte();
                }
            }
        }
    }
}

/// No sum goes beyond the last time that can be told.
#[test]
fn the_latest_times_are_survived() {
    const HEADER: usize = size_of::<tracer_ebpf::Header>();
    let whole = RECORDING.with(|bytes| entries(bytes));
    // When it was handled, the record's own time, and that of its connection.
    let opened = std::mem::offset_of!(tracer_ebpf::Conn, opened_ns);
    for place in [0, HEADER, 8 + HEADER + opened, 8 + opened, opened] {
        let mut entries = whole.clone();
        for (_, content) in entries.iter_mut().filter(|(_, content)| !content.starts_with(b"{")) {
            if let Some(bytes) = content.get_mut(place..place + 8) {
                bytes.fill(0xff);
            }
        }
        replay(of(&entries));
    }
    // The segment is of no connection, and time goes on.
    let mut entries = whole;
    entries.retain(|(_, content)| content.get(8) != Some(&(tracer_ebpf::kind::CONN as u8)));
    for (_, content) in entries.iter_mut().filter(|(kind, _)| *kind == 1) {
        content[HEADER..HEADER + 8].fill(0xff);
    }
    replay(of(&entries));
}
