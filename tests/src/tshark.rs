//! What Wireshark's dissector says of a capture.

use crate::process;
use anyhow::{Context as _, Result};
use serde_json::{Map, Value};
use std::{collections::HashMap, path::Path, process::Command, time::Duration};

const LIMIT: Duration = Duration::from_secs(120);

/// One message, by what it is named: a target, or a reason phrase.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub count: usize,
    pub method: String,
    pub version: String,
    pub status: Option<u16>,
    /// As the head says.
    pub content_length: Option<u64>,
    /// What was found behind the head, without its framing.
    pub content: u64,
    /// From the request, as it pairs them.
    pub time_ns: Option<i64>,
    /// Of the request that it is paired with.
    pub answers: Option<String>,
}

/// All messages of a capture.
#[derive(Clone, Debug, Default)]
pub struct Dissected {
    pub requests: HashMap<String, Message>,
    pub responses: HashMap<String, Message>,
}

pub fn dissect(path: &Path) -> Result<Dissected> {
    let mut command = Command::new("tshark");
    // Off by default; without it, disordered segments are no stream.
    command.args(["-o", "tcp.reassemble_out_of_order:TRUE", "-n", "-Y", "http"]);
    command.args(["-T", "json", "--no-duplicate-keys", "-J", "http", "-r"]).arg(path);
    let text = process::run(&mut command, LIMIT)?;
    let packets: Vec<Value> = serde_json::from_str(&text).context("tshark's JSON")?;
    let mut all = Dissected::default();
    for packet in &packets {
        match packet.pointer("/_source/layers/http") {
            Some(Value::Array(layers)) => layers.iter().try_for_each(|layer| all.add(layer))?,
            Some(layer) => all.add(layer)?,
            None => {}
        }
    }
    Ok(all)
}

impl Dissected {
    fn add(&mut self, layer: &Value) -> Result<()> {
        let mut fields = Map::new();
        flatten(layer, &mut fields);
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| text(name).and_then(|text| text.parse().ok());
        let (map, name) = match (text("http.request.uri"), text("http.response.phrase")) {
            (Some(target), _) => (&mut self.requests, target),
            (None, Some(reason)) => (&mut self.responses, reason),
            // Content that it found no head to.
            (None, None) => return Ok(()),
        };
        let message = map.entry(name).or_default();
        message.count += 1;
        message.method = text("http.request.method").unwrap_or_default();
        message.version =
            text("http.request.version").or_else(|| text("http.response.version")).unwrap_or_default();
        message.status = number("http.response.code").map(|code| code as u16);
        message.content_length = number("http.content_length_header");
        message.content = number("data.len").unwrap_or_default();
        message.answers = text("http.response_for.uri");
        message.time_ns = match text("http.time") {
            Some(time) => Some((time.parse::<f64>().context(time)? * 1e9).round() as i64),
            None => None,
        };
        Ok(())
    }
}

/// The leaves of a tree by name; of several, the first.
fn flatten(value: &Value, into: &mut Map<String, Value>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => flatten(value, into),
            Value::Array(values) if values.iter().any(Value::is_object) => {
                values.iter().for_each(|value| flatten(value, into));
            }
            _ => {
                into.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
}
