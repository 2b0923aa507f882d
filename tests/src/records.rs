//! The tracer's output lines and questions to them.

use crate::netns::Netns;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{collections::HashSet, fmt, time::SystemTime};

/// One line, known to be a JSON object with `type` and `ts`.
#[derive(Clone, Debug)]
pub struct Line {
    pub kind: String,
    pub text: String,
    pub arrived: SystemTime,
}

impl Line {
    /// Checks one line of output.
    pub fn parse(arrived: SystemTime, bytes: Vec<u8>) -> Result<Self> {
        let text = String::from_utf8(bytes)?;
        ensure!(text.ends_with('\n'), "no line end after {text}");
        let value: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let kind = value["type"].as_str().with_context(|| format!("no type in {text}"))?.to_owned();
        ensure!(value["ts"].is_string(), "no ts in {text}");
        Ok(Self { kind, text, arrived })
    }
}

/// One record. Paths are JSON pointers, such as `/request/target`.
#[derive(Clone)]
pub struct Record {
    pub arrived: SystemTime,
    value: Value,
}

impl Record {
    pub fn at(&self, path: &str) -> &Value {
        self.value.pointer(path).unwrap_or(&Value::Null)
    }

    pub fn is_null(&self, path: &str) -> bool {
        self.at(path).is_null()
    }

    pub fn is_true(&self, path: &str) -> bool {
        self.at(path) == true
    }

    /// A text; empty when there is none.
    pub fn text(&self, path: &str) -> &str {
        self.at(path).as_str().unwrap_or_default()
    }

    pub fn count(&self, path: &str) -> Option<u64> {
        self.at(path).as_u64()
    }

    pub fn number(&self, path: &str) -> Option<f64> {
        self.at(path).as_f64()
    }

    /// The record's numbers below a path, by name.
    pub fn counts(&self, path: &str) -> Vec<(String, u64)> {
        let object = self.at(path).as_object();
        let entries = object.into_iter().flatten();
        entries.map(|(name, value)| (name.clone(), value.as_u64().unwrap_or_default())).collect()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)
    }
}

/// What a run wrote so far.
#[derive(Clone, Debug, Default)]
pub struct Records(pub Vec<Line>);

impl Records {
    /// The records of a type, in order; read one by one, since there may be very many.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = Record> + 'a {
        let lines = self.0.iter().filter(move |line| line.kind == kind);
        lines.map(|line| Record {
            arrived: line.arrived,
            value: serde_json::from_str(&line.text).expect("the line was checked on arrival"),
        })
    }

    /// The `conn` records of a namespace; the tracer sees those of all others too.
    pub fn conns(&self, netns: &Netns) -> Vec<Record> {
        self.of("conn").filter(|conn| conn.count("/netns") == Some(netns.inode())).collect()
    }

    /// The `http` records of these connections.
    pub fn https<'a>(&'a self, conns: &[Record]) -> impl Iterator<Item = Record> + 'a {
        let ids: HashSet<String> = conns.iter().map(|conn| conn.text("/id").to_owned()).collect();
        self.of("http").filter(move |http| ids.contains(http.text("/conn")))
    }

    /// The final `stats`.
    pub fn final_stats(&self) -> Option<Record> {
        self.of("stats").find(|stats| stats.is_true("/final"))
    }
}

/// The records, one a line and not too many, for the message of a failed check.
pub fn show(records: &[Record]) -> String {
    const MOST: usize = 24;
    let mut text: String = records.iter().take(MOST).map(|record| format!("\n  {record:?}")).collect();
    if records.len() > MOST {
        text += &format!("\n  and {} more", records.len() - MOST);
    }
    text
}

/// The records whose `role` is this one.
pub fn with_role(records: &[Record], role: &str) -> Vec<Record> {
    records.iter().filter(|record| record.text("/role") == role).cloned().collect()
}

/// The bytes behind an escaped text: `\\` is a backslash, `\xHH` a byte that is not part of valid UTF-8.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let (byte, length) = match after {
            _ if first != b'\\' => (first, 1),
            [b'\\', ..] => (b'\\', 2),
            [b'x', digits @ ..] if digits.len() >= 2 => match hex(&digits[..2]) {
                Some(byte) => (byte, 4),
                None => panic!("`{text}` is not escaped as the contract says"),
            },
            _ => panic!("`{text}` is not escaped as the contract says"),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}
