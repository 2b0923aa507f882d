//! What different tracers must tell alike of the same connections.

use crate::records::{Record, Records};
use anyhow::{Result, ensure};
use serde_json::Value;

/// How much later one tracer may see a thing than another one.
const LATE_US: f64 = 200e3;

/// The `conn` and `time_wait` records of some namespaces, each with its essence, in an order that depends on nothing else.
pub struct Lives(Vec<(String, Record)>);

impl Lives {
    pub fn of(records: &Records, netns: &[u64]) -> Self {
        let both = ["conn", "time_wait"].into_iter().flat_map(|kind| records.of(kind));
        let mut lives: Vec<(String, Record)> = both
            .filter(|record| record.count("/netns").is_some_and(|inode| netns.contains(&inode)))
            .map(|record| (essence(record.at("")).to_string(), record))
            .collect();
        lives.sort_by_key(|(essence, record)| (essence.clone(), record.text("/ts").to_owned()));
        Self(lives)
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Each says the same, and lasted as long.
    pub fn compare(&self, other: &Self) -> Result<()> {
        for ((essence, record), (other_essence, other_record)) in self.0.iter().zip(&other.0) {
            ensure!(essence == other_essence, "not the same:\n  {record:?}\n  {other_record:?}");
            let lasted = [record, other_record].map(|record| record.number("/duration_us"));
            let close = match lasted {
                [Some(one), Some(other)] => (one - other).abs() < LATE_US,
                [one, other] => one == other,
            };
            ensure!(close, "not for the same time:\n  {record:?}\n  {other_record:?}");
        }
        ensure!(self.count() == other.count(), "{} records and {}", self.count(), other.count());
        Ok(())
    }
}

/// Without times, the tracer's own numbers, and how a thing is known.
fn essence(value: &Value) -> Value {
    const NOT: [&str; 12] = [
        "id",
        "peer",
        "conn",
        "ts",
        "source",
        "end_source",
        "opened",
        "established",
        "closed",
        "first_seen",
        "began",
        "ended",
    ];
    match value {
        Value::Object(members) => {
            let kept =
                members.iter().filter(|(name, _)| !NOT.contains(&name.as_str()) && !name.ends_with("_us"));
            Value::Object(kept.map(|(name, value)| (name.clone(), essence(value))).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(essence).collect()),
        value => value.clone(),
    }
}
