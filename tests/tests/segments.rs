//! `--segments`: a line for each segment, as many as the kernel's own totals say.

use anyhow::{Context as _, Result, ensure};
use tests::{
    blind_spots::outside_blind_spots,
    netns::Netns,
    nginx::{Nginx, Options, PORT},
    records::{Record, show, with_role},
    tracer::{Run, Tracer},
};

const HERE: &str = "10.34.0.1";
const THERE: &str = "10.34.0.2";

#[test]
fn every_segment_of_both_ends() -> Result<()> {
    outside_blind_spots(|| {
        let (run, here, there) = one_exchange("all")?;
        for (netns, role) in [(&here, "client"), (&there, "server")] {
            let conn = &with_role(&run.records.conns(netns), role)[0];
            let segments = of(&run, conn);
            let lines = |direction: &str| {
                segments.iter().filter(|segment| segment.text("/direction") == direction).count() as u64
            };
            // The child does not count the SYN-ACK, which its request sent.
            let request = u64::from(role == "server");
            let totals = [conn.count("/segments/sent"), conn.count("/segments/received")];
            let shown = [lines("sent") - request, lines("received")];
            ensure!(totals == shown.map(Some), "{shown:?} lines, {totals:?} segments: {}", show(&segments));

            let first = segments.first().context("no segment")?;
            ensure!(first.at("/flags") == &serde_json::json!(["SYN"]), "first: {first:?}");
            ensure!(first.count("/seq_relative") == Some(0) && first.is_null("/ack"), "first: {first:?}");
            ensure!(first.count("/options/mss") == Some(1460), "first: {first:?}");
            ensure!(!first.is_null("/options/window_scale"), "first: {first:?}");
            // All relative numbers come from the handshake, and end where the totals end.
            let reached = |path: &str, direction: &str| {
                let some = segments.iter().filter(|segment| segment.text("/direction") == direction);
                some.filter_map(|segment| segment.count(path)).max()
            };
            let sent = conn.count("/bytes_sent").context("no bytes_sent")?;
            // The SYN, the bytes, and what follows: the FIN.
            ensure!(
                reached("/seq_relative", "sent") == Some(sent + 2 - u64::from(role == "server")),
                "{}",
                show(&segments)
            );
            ensure!(reached("/ack_relative", "received") == Some(sent + 2), "{}", show(&segments));
            let unscaled = segments.iter().filter(|segment| segment.is_null("/window_bytes")).count();
            ensure!(unscaled == 0, "{}", show(&segments));
        }
        Ok(())
    })
}

#[test]
fn control_segments_only() -> Result<()> {
    outside_blind_spots(|| {
        let (run, here, _there) = one_exchange("control")?;
        let conn = &with_role(&run.records.conns(&here), "client")[0];
        let segments = of(&run, conn);
        let flags: Vec<String> = segments.iter().map(|segment| segment.at("/flags").to_string()).collect();
        let is = |index: usize, wanted: &str| flags[index].contains(wanted);
        ensure!(
            flags.len() == 4 && is(0, "SYN") && is(1, "SYN") && is(2, "FIN") && is(3, "FIN"),
            "{flags:?}"
        );
        Ok(())
    })
}

/// One exchange between two namespaces.
fn one_exchange(segments: &str) -> Result<(Run, Netns, Netns)> {
    let (here, there) = (Netns::new()?, Netns::new()?);
    here.join(&format!("{HERE}/24"), &there, &format!("{THERE}/24"))?;
    let nginx = Nginx::start(&there, Options::default())?;
    let mut tracer = Tracer::start(&here, &["--segments", segments])?;
    here.run("curl", &["-sS", &format!("http://{THERE}:{PORT}/hello")])?;
    tracer.wait_for("both ends", |records| {
        (!with_role(&records.conns(&here), "client").is_empty()
            && !with_role(&records.conns(&there), "server").is_empty())
        .then_some(())
    })?;
    nginx.finish()?;
    Ok((tracer.stop()?, here, there))
}

/// The segments of a connection, in the order of their time.
fn of(run: &Run, conn: &Record) -> Vec<Record> {
    let mut segments: Vec<Record> =
        run.records.of("segment").filter(|segment| segment.text("/conn") == conn.text("/id")).collect();
    segments.sort_by(|one, other| one.text("/ts").cmp(other.text("/ts")));
    segments
}
