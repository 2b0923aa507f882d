//! What is said about a difference.

use super::Difference;
use crate::emit::{record::Finding, time::Timestamp};
use serde_json::json;

impl Difference {
    /// The record that tells of it.
    pub fn finding(&self, first_seen: Timestamp, last_seen: Timestamp) -> Finding {
        let Self { netns, counter, kernel_counter, what, ours, kernel, certain } = *self;
        let wrong = if ours < kernel { "missing" } else { "too many" };
        let are = if certain == 1 { "is" } else { "are" };
        let place =
            netns.map_or("its network namespace".to_owned(), |netns| format!("network namespace {netns}"));
        Finding {
            ts: last_seen,
            kind: "selfcheck",
            severity: "warning",
            subject: match netns {
                None => json!({"counter": counter, "kernel_counter": kernel_counter}),
                Some(netns) => json!({"counter": counter, "kernel_counter": kernel_counter, "netns": netns}),
            },
            summary: format!(
                "The tracer counted {ours} {what} in {place} and the kernel {kernel}: at least {certain} \
                 {are} {wrong}, and no loss that was counted explains it."
            ),
            evidence: json!({"ours": ours, "kernel": kernel, "at_least": certain}),
            remedy: "Report this with the `start` line and the last `stats` line of this run, the output of `uname -a`, \
                     and what the host was doing; until it is solved, do not rely on this total."
                .into(),
            first_seen,
            last_seen,
            count: certain,
        }
    }
}
