//! Conversations made at random, read by us and by Wireshark's dissector: both must find the same messages. Where that one
//! differs from what was meant is listed here, and explained in docs/tshark-differences.md.

use anyhow::{Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};
use tests::{
    capture::Capture,
    carry::Carried,
    conversation::{Conversation, Meant, Outcome},
    meant,
    message::{Framing, Trait},
    pcap::link,
    process,
    scratch::Scratch,
    tshark::{self, Dissected, Message},
    wait,
};

/// Conversations of each capture. It takes tshark some seconds.
const COUNT: usize = 400;
const CAPTURES: [(u64, u16); 4] =
    [(0, link::ETHERNET), (1, link::LINUX_SLL), (2, link::LINUX_SLL2), (3, link::RAW)];
/// The list was made with this one.
const VERSION: &str = "4.0.";

/// In what the two can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A message that it does not find, or finds again.
    Missing,
    Head,
    Content,
    /// Which request a response is to.
    Pairing,
    /// From the end of the request to the end of its response.
    Time,
}

use Kind::{Content, Head, Missing, Pairing, Time};

/// In conversations with this trait it differs in these, in all of them or in some. Each has a section in the document.
const DIFFERENCES: [(Trait, &[Kind], Often); 8] = [
    (Trait::Pipelining, &[Missing, Content, Pairing, Time], Always),
    (Trait::OutOfOrder, &[Time], Sometimes),
    (Trait::Interim, &[Time], Sometimes),
    (Trait::UntilClose, &[Time], Always),
    (Trait::Blank, &[Missing, Content, Pairing, Time], Always),
    (Trait::Chunked, &[Missing, Content, Pairing, Time], Rarely),
    (Trait::Connect, &[Content, Pairing, Time], Sometimes),
    (Trait::Cut, &[Missing], Sometimes),
];

/// How many of the conversations with this trait and no other of the list differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Often {
    Always,
    Sometimes,
    /// Less than one in five.
    Rarely,
}

use Often::{Always, Rarely, Sometimes};

#[test]
fn tshark_finds_the_same() -> Result<()> {
    let version = process::run(Command::new("tshark").arg("--version"), wait::LIMIT)?;
    let version = version.lines().next().unwrap_or_default().to_owned();
    let scratch = Scratch::new()?;
    let mut wrong = Vec::new();
    // Of those with one trait of the list: all, and those that differ.
    let (mut same, mut seen) = (0, BTreeMap::<Trait, [usize; 2]>::new());
    for (seed, link) in CAPTURES {
        let capture = Capture::new(seed, link, COUNT, false);
        let path = scratch.file("a.pcap");
        fs::write(&path, &capture.bytes)?;
        let dissected = tshark::dissect(&path)?;
        for (conversation, carried) in &capture.conversations {
            let found = differences(conversation, carried, &dissected);
            // Chunks are the lesser of two.
            let blank = conversation.traits.contains(&Trait::Blank);
            let listed = DIFFERENCES.iter().filter(|(of, ..)| conversation.traits.contains(of));
            let listed: Vec<_> = listed.filter(|(of, ..)| !(blank && *of == Trait::Chunked)).collect();
            let allowed: BTreeSet<Kind> =
                listed.iter().flat_map(|(_, kinds, _)| kinds.iter().copied()).collect();
            if let [(of, ..)] = listed[..] {
                let [all, differ] = seen.entry(*of).or_default();
                *all += 1;
                *differ += usize::from(!found.is_empty());
            }
            same += usize::from(found.is_empty());
            let more = found.iter().filter(|(kind, _)| !allowed.contains(kind));
            wrong.extend(more.map(|found| format!("link type {link}: {found:?} {:?}", conversation.traits)));
        }
    }
    println!("{version}: {same} of {} agree; of one trait, and differing: {seen:?}", CAPTURES.len() * COUNT);
    ensure!(
        wrong.is_empty(),
        "{} more differences:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    ensure!(same > COUNT, "only {same} agree");
    for (of, _, often) in DIFFERENCES {
        let [all, differ] = seen.get(&of).copied().unwrap_or_default();
        let as_listed = match often {
            Always => differ > 0 && differ == all,
            Sometimes => differ > 0,
            Rarely => differ > 0 && differ * 5 < all,
        };
        ensure!(
            as_listed || !version.contains(VERSION),
            "{of:?}: {differ} of {all} differ, listed as {often:?}"
        );
        if !as_listed {
            println!("{of:?}: not checked, since {version} does not differ as {VERSION}x does");
        }
    }
    Ok(())
}

/// Where it differs from what was meant, which is what our records say (`read_differential`).
fn differences(conversation: &Conversation, carried: &Carried, dissected: &Dissected) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    for meant in &conversation.exchanges {
        let mut note =
            |kind, told: &dyn std::fmt::Debug| found.push((kind, format!("{} {told:?}", meant.name)));
        match dissected.requests.get(&meant.target) {
            Some(told) => {
                let (message, version) = (&meant.request.message, format!("HTTP/{}", meant.versions[0]));
                let head = told.method == meant.method && told.version == version;
                if !head || message.framing == Framing::Length && !has_length(told, message.content) {
                    note(Head, told);
                }
                if told.count != 1 {
                    note(Missing, told);
                }
                if told.content != message.content as u64 {
                    note(Content, told);
                }
            }
            None => note(Missing, &"request"),
        }
        let Some(response) = &meant.response else { continue };
        let Some(told) = dissected.responses.get(&meant.name) else {
            note(Missing, &"response");
            continue;
        };
        let version = format!("HTTP/{}", meant.versions[1]);
        let complete = meant.outcome == Outcome::Complete;
        let framed = complete && response.message.framing == Framing::Length;
        let head = told.status == Some(meant.status) && told.version == version;
        if !head || framed && !has_length(told, response.message.content) {
            note(Head, told);
        }
        if told.count != 1 {
            note(Missing, told);
        }
        if complete && told.content != response.message.content as u64 {
            note(Content, told);
        }
        if !is_paired(told, meant) {
            note(Pairing, told);
        }
        if complete && told.time_ns != meant::http_time_ns(carried, meant) {
            note(Time, told);
        }
    }
    found
}

fn has_length(told: &Message, content: usize) -> bool {
    told.content_length == Some(content as u64)
}

/// It shows an absolute form of the target.
fn is_paired(told: &Message, meant: &Meant) -> bool {
    told.answers.as_ref().is_some_and(|answers| answers.ends_with(&meant.target))
}
