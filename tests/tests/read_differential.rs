//! Thousands of conversations made at random: the records must say what their makers meant.

use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeMap, fs, path::Path, process::Command, time::SystemTime};
use tests::{
    capture::Capture,
    carry::Carried,
    conversation::Conversation,
    meant::{self, Known},
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

/// Other conversations than the usual ones, for a search by hand: `TRACER_SEED=7`.
fn first_seed() -> u64 {
    std::env::var("TRACER_SEED").map_or(0, |seed| seed.parse::<u64>().expect("a number") << 16)
}

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
        let capture = Capture::new(first_seed() + seed as u64, link, COUNT, false);
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
    told.iter().enumerate().find_map(|(index, record)| {
        let differ = differences(&meant::exchange(conversation, carried, index), record);
        (!differ.is_empty()).then(|| format!("{differ:?} {:?}\n  {record:?}", conversation.traits))
    })
}

#[test]
fn what_a_gap_hides_is_not_claimed() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<(Known, &str), usize> = BTreeMap::new();
    for (seed, link) in LINKS.into_iter().enumerate() {
        let capture = Capture::new(first_seed() + 1000 + seed as u64, link, COUNT, true);
        let records = read(&capture, &scratch.file("a.pcap"))?;
        for ((conversation, carried), told) in capture.conversations.iter().zip(https(&capture, &records)?) {
            lossy(conversation, carried, &told, &mut counts, &mut wrong);
        }
    }
    println!("{counts:?}");
    let count = |known, claim| counts.get(&(known, claim)).copied().unwrap_or_default();
    // It would be right to claim nothing at all, and of no use.
    ensure!(count(Known::Whole, "exact") > 10 * count(Known::Whole, "inexact"), "{counts:?}");
    ensure!(count(Known::Part, "inexact") > COUNT, "losses that decide: {counts:?}");
    ensure!(
        wrong.is_empty(),
        "{} wrong {counts:?}:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
    Ok(())
}

/// `Part`: nothing may be claimed. `Whole`, with all before it on its connection: all must be told.
fn lossy(
    conversation: &Conversation,
    carried: &Carried,
    told: &[Record],
    counts: &mut BTreeMap<(Known, &'static str), usize>,
    wrong: &mut Vec<String>,
) {
    let mut so_far = Known::Whole;
    for (index, meant) in conversation.exchanges.iter().enumerate() {
        let known = meant::known(carried, meant);
        so_far = so_far.max(known);
        let record = told.iter().find(|record| record.text("/request/target") == meant.target);
        let claim = match record {
            None => "no record",
            Some(record) if record.is_true("/exact") => "exact",
            Some(_) => "inexact",
        };
        *counts.entry((known, claim)).or_default() += 1;
        let differ = record.map_or(Vec::new(), |record| {
            let mut fields = meant::exchange(conversation, carried, index);
            fields.retain(|(path, meant)| {
                // A place among those observed, and times of bytes that nobody saw, or saw late.
                let place = ["/seq", "/reused", "/pipelined"].contains(path);
                let time = path.ends_with("_us");
                let time = time && (meant.is_null() || record.is_null(path));
                so_far == Known::Whole || !place && !time
            });
            differences(&fields, record)
        });
        let is_wrong = match claim {
            "exact" => known == Known::Part || !differ.is_empty(),
            _ => so_far == Known::Whole,
        };
        if is_wrong {
            let traits = &conversation.traits;
            wrong.push(format!(
                "{} {known:?} {so_far:?} {claim} {differ:?} {traits:?}\n  {record:?}",
                meant.target
            ));
        }
    }
}
