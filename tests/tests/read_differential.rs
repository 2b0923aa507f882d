//! Thousands of conversations made at random: the records must say what their makers meant.

use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeMap, fs, path::Path, process::Command, time::SystemTime};
use tests::{
    capture::Capture,
    carry::Carried,
    conversation::Conversation,
    meant,
    pcap::link,
    records::{Line, Record, Records},
    scratch::Scratch,
    tracer::binary,
};

const LINKS: [u16; 8] = [
    link::ETHERNET,
    link::LINUX_SLL,
    link::LINUX_SLL2,
    link::RAW,
    link::IPV4,
    link::IPV6,
    link::NULL,
    link::LOOP,
];
/// Conversations of each capture.
const COUNT: usize = 400;

/// What `tracer read` says of a capture.
fn read(capture: &Capture, path: &Path) -> Result<Records> {
    fs::write(path, &capture.bytes)?;
    let output = Command::new(binary()?).arg("read").arg(path).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
    let lines = output.stdout.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.map(|line| Line::parse(SystemTime::now(), line.to_vec())).collect::<Result<_>>()?;
    Ok(Records(lines))
}

/// The `http` records of each conversation, in the order of their requests.
fn https(capture: &Capture, records: &Records) -> Result<Vec<Vec<Record>>> {
    let mut all = vec![Vec::new(); capture.conversations.len()];
    for record in records.of("http") {
        let index = capture.index(&record).with_context(|| format!("of no conversation: {record:?}"))?;
        all[index].push(record);
    }
    all.iter_mut().for_each(|records| records.sort_by_key(|record: &Record| record.count("/seq")));
    Ok(all)
}

/// Where a record differs from what was meant.
fn differences(fields: &meant::Fields, record: &Record) -> Vec<String> {
    let differs = fields.iter().filter(|(path, meant)| match (meant.as_f64(), record.number(path)) {
        (Some(meant), Some(told)) => (meant - told).abs() > 1e-6,
        _ => meant != record.at(path),
    });
    differs.map(|(path, meant)| format!("{path} is {}, meant {meant}", record.at(path))).collect()
}

#[test]
fn what_was_meant_is_told() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut wrong = Vec::new();
    let mut exchanges = 0;
    for (seed, link) in LINKS.into_iter().enumerate() {
        let capture = Capture::new(seed as u64, link, COUNT, false);
        let records = read(&capture, &scratch.file("a.pcap"))?;
        for ((conversation, carried), told) in capture.conversations.iter().zip(https(&capture, &records)?) {
            exchanges += told.len();
            wrong.extend(
                lossless(conversation, carried, &told).map(|text| format!("{text} link type {link}")),
            );
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {exchanges} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    Ok(())
}

fn lossless(conversation: &Conversation, carried: &Carried, told: &[Record]) -> Option<String> {
    if told.len() != conversation.exchanges.len() {
        return Some(format!(
            "{} exchanges, meant {} {:?} {told:?}",
            told.len(),
            conversation.exchanges.len(),
            conversation.traits
        ));
    }
    let wrong = told.iter().enumerate().find_map(|(index, record)| {
        let differ = differences(&meant::exchange(conversation, carried, index), record);
        (!differ.is_empty()).then(|| format!("{differ:?} {:?}\n  {record:?}", conversation.traits))
    });
    wrong
}

#[test]
fn what_a_gap_hides_is_not_claimed() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (seed, link) in LINKS.into_iter().enumerate() {
        let capture = Capture::new(1000 + seed as u64, link, COUNT, true);
        let records = read(&capture, &scratch.file("a.pcap"))?;
        for ((conversation, carried), told) in capture.conversations.iter().zip(https(&capture, &records)?) {
            lossy(conversation, carried, &told, &mut counts, &mut wrong);
        }
    }
    println!("{counts:?}");
    ensure!(
        wrong.is_empty(),
        "{} wrong {counts:?}:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
    Ok(())
}

fn lossy(
    conversation: &Conversation,
    carried: &Carried,
    told: &[Record],
    counts: &mut BTreeMap<&'static str, usize>,
    wrong: &mut Vec<String>,
) {
    let mut count = |name| *counts.entry(name).or_default() += 1;
    let mut all_decided = true;
    for (index, meant) in conversation.exchanges.iter().enumerate() {
        let decided = meant::is_decided(carried, meant);
        all_decided &= decided;
        let record = told.iter().find(|record| record.text("/request/target") == meant.target);
        let fields = meant::exchange(conversation, carried, index);
        let Some(record) = record else {
            count("without record");
            if all_decided {
                wrong.push(format!("no record of {} {:?} {told:?}", meant.target, conversation.traits));
            }
            continue;
        };
        let exact = record.is_true("/exact");
        count(match (decided, exact) {
            (true, true) => "decided, exact",
            (true, false) => "decided, inexact",
            (false, true) => "undecided, exact",
            (false, false) => "undecided, inexact",
        });
        let differ: Vec<String> = differences(&fields, record)
            .into_iter()
            .filter(|text| {
                all_decided
                    || !text.starts_with("/seq")
                        && !text.starts_with("/reused")
                        && !text.starts_with("/pipelined")
            })
            .collect();
        if exact && !decided || (exact || all_decided) && !differ.is_empty() {
            wrong.push(format!(
                "decided {decided} all {all_decided} {differ:?} {:?}\n  {record:?}",
                conversation.traits
            ));
        }
    }
}
