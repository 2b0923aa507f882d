//! Every program passes the running kernel's verifier, with a ceiling on the instructions that it looked at: a change
//! that makes one blow up is noticed here, long before the kernel's limit of a million.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use tests::{lacking::note, process, tracer, wait};

/// Instructions that a program may cost the verifier; some half above what it costs on the kernel where it costs most.
const CEILINGS: [(&str, u32); 30] = [
    ("current_totals", 1_000),
    ("existing_report", 1_000),
    ("existing_sockets", 7_000),
    ("inet_sock_set_state", 50_000),
    ("inet_sock_set_state_again", 50_000),
    ("reconcile", 5_000),
    ("segments", 90_000),
    ("segments_elsewhere", 90_000),
    ("sock_recv_length", 8_000),
    ("sock_send_length", 8_000),
    ("socket_owners", 1_000),
    ("socket_segments", 90_000),
    ("tcp_destroy_sock", 3_000),
    ("tcp_destroy_sock_again", 3_000),
    ("tcp_receive_reset", 2_000),
    ("tcp_retransmit_skb", 1_000),
    ("tcp_retransmit_skb_again", 1_000),
    ("tcp_retransmit_skb_err", 1_000),
    ("tcp_retransmit_skb_err_again", 1_000),
    ("tcp_retransmit_synack", 1_500),
    ("tcp_send_reset", 9_000),
    ("tcp_send_reset_again", 9_000),
    ("tcp_send_reset_reason", 9_000),
    ("tcp_send_reset_reason_again", 9_000),
    ("timer_cancel", 2_000),
    ("timer_cancel_again", 2_000),
    ("timer_expire_entry", 2_000),
    ("timer_expire_entry_again", 2_000),
    ("timer_start", 2_000),
    ("timer_start_again", 2_000),
];

#[test]
fn every_program_loads_at_a_bounded_cost() -> Result<()> {
    let mut check = std::process::Command::new(tracer::binary()?);
    let text = process::run(check.args(["check", "-v"]), wait::LIMIT)?;
    ensure!(text.trim_end().ends_with("tracer can run"), "{text}");
    let costs: BTreeMap<&str, u32> = text
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" instructions verified")?.split_once(": "))
        .map(|(program, cost)| Ok((program, cost.parse()?)))
        .collect::<Result<_>>()?;
    let ceilings = BTreeMap::from(CEILINGS);
    for (program, cost) in &costs {
        let ceiling = ceilings.get(program).with_context(|| format!("{program} has no ceiling yet"))?;
        ensure!(cost <= ceiling, "{program} cost the verifier {cost} instructions, more than {ceiling}");
    }
    if costs.is_empty() {
        note("the kernel does not tell what a program costs its verifier (5.16 does)");
        return Ok(());
    }
    let missing: Vec<&str> = text.lines().filter_map(missing).collect();
    for program in ceilings.keys().filter(|program| !costs.contains_key(*program)) {
        // A tracepoint has one of its forms.
        let other_form = FORMS.iter().any(|[one, other]| {
            is_of(program, one) && costs.contains_key(other)
                || is_of(program, other) && costs.contains_key(one)
        });
        if other_form {
            continue;
        }
        ensure!(missing.iter().any(|hook| is_of(program, hook)), "{program} was not loaded:\n{text}");
        note(&format!("{program} is not loaded"));
    }
    Ok(())
}

/// Programs of one tracepoint whose arguments are not the same on all kernels.
const FORMS: [[&str; 2]; 2] =
    [["tcp_send_reset", "tcp_send_reset_reason"], ["tcp_retransmit_skb", "tcp_retransmit_skb_err"]];

/// The name of a hook that `tracer check` misses: `missing   GROUP:NAME: REASON` or `missing   GROUP NAME: REASON`.
fn missing(line: &str) -> Option<&str> {
    let (hook, _) = line.strip_prefix("missing ")?.trim().split_once(": ")?;
    hook.rsplit([':', ' ']).next()
}

/// Whether a program is a hook's, be it the second one there.
fn is_of(program: &str, hook: &str) -> bool {
    program.strip_suffix("_again").unwrap_or(program) == hook
}
