//! `finding`: a diagnosis, with its evidence and its remedy.

use crate::emit::time::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// Something that is wrong or wasteful, and what to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "finding")]
pub struct Finding {
    /// When it was last seen.
    pub ts: Timestamp,
    /// What it is, such as `selfcheck`.
    pub kind: &'static str,
    /// `info`, `warning` or `error`.
    pub severity: &'static str,
    /// Whom it is about, an object: process, destination, addresses, ….
    pub subject: Value,
    /// One sentence.
    pub summary: String,
    /// An object with the figures and the ids of example connections.
    pub evidence: Value,
    /// What to change.
    pub remedy: String,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// Cases of it so far.
    pub count: u64,
}
