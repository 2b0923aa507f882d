//! Every program passes the running kernel's verifier, with a ceiling on the instructions that it looked at: a change
//! that makes one blow up is noticed here, long before the kernel's limit of a million.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, ensure};
use tests::{lacking::note, process, tracer, wait};

/// Instructions that a program may cost the verifier; some half above what it costs on the kernel where it costs most.
const CEILINGS: [(&str, u32); 52] = [
    ("accepted", 16_000),
    ("accepted_flags", 16_000),
    ("accepted_kretprobe", 16_000),
    ("current_totals", 1_000),
    ("existing_report", 1_000),
    ("existing_sockets", 7_000),
    ("inet_sock_set_state", 50_000),
    ("inet_sock_set_state_again", 50_000),
    ("inet_sock_set_state_perf", 50_000),
    ("reconcile", 5_000),
    ("segments", 90_000),
    ("segments_elsewhere", 90_000),
    ("sock_recv_length", 8_000),
    ("sock_recv_length_perf", 8_000),
    ("sock_send_length", 8_000),
    ("sock_send_length_perf", 8_000),
    ("socket_owners", 1_000),
    ("socket_segments", 90_000),
    ("tcp_destroy_sock", 3_000),
    ("tcp_destroy_sock_again", 3_000),
    ("tcp_destroy_sock_perf", 3_000),
    ("tcp_receive_reset", 2_000),
    ("tcp_receive_reset_again", 2_000),
    ("tcp_receive_reset_perf", 2_000),
    ("tcp_retransmit_skb", 1_500),
    ("tcp_retransmit_skb_again", 1_500),
    ("tcp_retransmit_skb_err", 1_500),
    ("tcp_retransmit_skb_err_again", 1_500),
    ("tcp_retransmit_skb_perf", 2_500),
    ("tcp_retransmit_synack", 1_500),
    ("tcp_retransmit_synack_again", 1_500),
    ("tcp_retransmit_synack_perf", 1_500),
    ("tcp_send_reset", 9_000),
    ("tcp_send_reset_again", 9_000),
    ("tcp_send_reset_perf", 9_000),
    ("tcp_send_reset_reason", 9_000),
    ("tcp_send_reset_reason_again", 9_000),
    ("time_wait_begins", 2_000),
    ("time_wait_begins_again", 2_000),
    ("time_wait_begins_kprobe", 2_000),
    ("time_wait_ends", 5_000),
    ("time_wait_ends_kprobe", 5_000),
    ("time_wait_expires", 100),
    ("time_wait_expires_kprobe", 100),
    ("time_wait_rearmed", 1_000),
    ("time_wait_rearmed_kprobe", 1_000),
    ("timer_cancel", 2_000),
    ("timer_cancel_again", 2_000),
    ("timer_expire_entry", 2_000),
    ("timer_expire_entry_again", 2_000),
    ("timer_start", 2_000),
    ("timer_start_again", 2_000),
];

#[test]
fn every_program_loads_at_a_bounded_cost() -> Result<()> {
    let text = check(None)?;
    ensure!(text.trim_end().ends_with("tracer can run"), "{text}");
    let mut costs = costs(&text)?;
    let mut refused = Vec::new();
    for kind in ["fentry", "kprobe", "tracepoint"] {
        match check(Some(kind)) {
            Ok(text) => costs.extend(self::costs(&text)?),
            Err(error) => {
                // The kernel's owner may refuse a kind of hooks, the verifier may not.
                ensure!(!format!("{error:#}").contains("Verifier output"), "--hooks {kind}: {error:#}");
                refused.push(kind);
            }
        }
    }
    let ceilings = BTreeMap::from(CEILINGS);
    for (program, cost) in &costs {
        let ceiling =
            ceilings.get(program.as_str()).with_context(|| format!("{program} has no ceiling yet"))?;
        ensure!(cost <= ceiling, "{program} cost the verifier {cost} instructions, more than {ceiling}");
    }
    if costs.is_empty() {
        note("the kernel does not tell what a program costs its verifier (5.16 does)");
        return Ok(());
    }
    let missing: Vec<&str> = text.lines().filter_map(missing).collect();
    for program in ceilings.keys().filter(|program| !costs.contains_key(**program)) {
        // A hook has one of its forms.
        let other_form = FORMS.iter().any(|[one, other]| {
            is_of(program, one) && costs.contains_key(*other)
                || is_of(program, other) && costs.contains_key(*one)
        });
        if other_form
            || is_by_perf(program, &costs)
            || kind(program).is_some_and(|kind| refused.contains(&kind))
        {
            continue;
        }
        ensure!(missing.iter().any(|hook| is_of(program, hook)), "{program} was not loaded:\n{text}");
        note(&format!("{program} is not loaded"));
    }
    Ok(())
}

/// What `tracer check` says, with all kinds of hooks or one.
fn check(hooks: Option<&str>) -> Result<String> {
    let mut check = Command::new(tracer::binary()?);
    let hooks = hooks.iter().flat_map(|hooks| ["--hooks", hooks]);
    process::run(check.args(["check", "-v"]).args(hooks), wait::LIMIT)
}

/// Instructions verified, by program.
fn costs(text: &str) -> Result<BTreeMap<String, u32>> {
    text.lines()
        .filter_map(|line| line.trim().strip_suffix(" instructions verified")?.split_once(": "))
        .map(|(program, cost)| Ok((program.to_owned(), cost.parse()?)))
        .collect()
}

/// The kind of hooks that a program belongs to, where there are others that tell the same.
fn kind(program: &str) -> Option<&'static str> {
    if program.ends_with("probe") {
        Some("kprobe")
    } else if program.starts_with("time_wait_") || program.starts_with("accepted") {
        Some("fentry")
    } else {
        program.starts_with("timer_").then_some("tracepoint")
    }
}

/// Whether a program is one of those at a tracepoint that perf's go with, where there are none, or instead of which there are.
fn is_by_perf(program: &str, costs: &BTreeMap<String, u32>) -> bool {
    let by_perf = |name: &str| costs.contains_key(&format!("{name}_perf"));
    let hook = program.trim_end_matches("_again").trim_end_matches("_err").trim_end_matches("_reason");
    match costs.keys().any(|name| name.ends_with("_perf")) {
        true => by_perf(hook),
        false => program.ends_with("_perf") || SECOND_TO_PERF.contains(&program),
    }
}

/// Those that run behind perf's only.
const SECOND_TO_PERF: [&str; 2] = ["tcp_receive_reset_again", "tcp_retransmit_synack_again"];

/// Programs of one hook whose arguments are not the same on all kernels.
const FORMS: [[&str; 2]; 3] = [
    ["tcp_send_reset", "tcp_send_reset_reason"],
    ["tcp_retransmit_skb", "tcp_retransmit_skb_err"],
    ["accepted", "accepted_flags"],
];

/// The name of a hook that `tracer check` misses: `missing   GROUP:NAME: REASON` or `missing   GROUP NAME: REASON`.
fn missing(line: &str) -> Option<&str> {
    let (hook, _) = line.strip_prefix("missing ")?.trim().split_once(": ")?;
    hook.rsplit([':', ' ']).next()
}

/// Whether a program is a hook's, be it the second one there.
fn is_of(program: &str, hook: &str) -> bool {
    program.strip_suffix("_again").unwrap_or(program) == hook
}
