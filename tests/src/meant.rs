//! What the records of a made-up conversation must say.

use crate::{
    carry::Carried,
    conversation::{Conversation, Meant, Outcome, Placed},
    message::Framing,
    talk::{CLIENT, SERVER},
};
use serde_json::{Value, json};

/// Paths into a record, and what must be there.
pub type Fields = Vec<(&'static str, Value)>;

/// The `http` record of an exchange of which everything was captured.
pub fn exchange(conversation: &Conversation, carried: &Carried, index: usize) -> Fields {
    let meant = &conversation.exchanges[index];
    let request = &meant.request;
    let mut fields = vec![
        ("/seq", json!(index + 1)),
        ("/role", json!("client")),
        ("/request/method", json!(meant.method)),
        ("/request/target", json!(meant.target)),
        ("/request/version", json!(meant.versions[0])),
        ("/request/header_bytes", json!(request.message.head)),
        ("/request/body_bytes", json!(request.message.content)),
        ("/request/framing", json!(request.message.framing.name())),
        ("/informational", json!(meant.informational)),
        ("/reused", json!(index > 0)),
        ("/keep_alive/request", json!(meant.keep_alive[0])),
        ("/keep_alive/response", json!(meant.keep_alive[1])),
        ("/keep_alive/timeout_s", json!(meant.timeout_s)),
        ("/outcome", json!(meant.outcome.name())),
        ("/exact", json!(true)),
        ("/malformed", Value::Null),
    ];
    match &meant.response {
        Some(response) => fields.extend([
            ("/response/status", json!(meant.status)),
            ("/response/reason", json!(meant.name)),
            ("/response/version", json!(meant.versions[1])),
            ("/response/header_bytes", json!(response.message.head)),
            ("/response/body_bytes", json!(response.message.content)),
            ("/response/framing", json!(response.message.framing.name())),
        ]),
        None => fields.push(("/response", Value::Null)),
    }
    fields.extend(times(conversation, carried, index));
    fields
}

/// The part of it that tells of time.
fn times(conversation: &Conversation, carried: &Carried, index: usize) -> Fields {
    let meant = &conversation.exchanges[index];
    let [asked, asked_end] = span(carried, CLIENT, &meant.request);
    let [answered, answered_end] =
        meant.response.as_ref().map_or([None; 2], |response| span(carried, SERVER, response));
    let answered_end = answered_end.filter(|_| meant.outcome == Outcome::Complete);
    let before = index.checked_sub(1).and_then(|before| conversation.exchanges[before].response.as_ref());
    let before = before.and_then(|response| span(carried, SERVER, response)[1]);
    vec![
        ("/timeline/request_end_us", micros(asked, asked_end)),
        ("/timeline/response_start_us", micros(asked, answered)),
        ("/timeline/response_end_us", micros(asked, answered_end)),
        ("/ttfb_us", micros(asked_end, answered)),
        ("/duration_us", micros(asked, answered_end)),
        ("/pipelined", json!(asked < before)),
    ]
}

/// When the first and the last byte of a message were captured.
fn span(carried: &Carried, end: usize, placed: &Placed) -> [Option<u64>; 2] {
    let seen = &carried.seen_ns[end];
    [seen[placed.at.start], seen[placed.at.end - 1]]
}

/// Of disordered segments, the last byte may have come before the first one.
fn micros(from: Option<u64>, to: Option<u64>) -> Value {
    match (from, to) {
        (Some(from), Some(to)) => json!(to.saturating_sub(from) as f64 / 1000.0),
        _ => Value::Null,
    }
}

/// The seconds between the end of a request and the end of its response.
pub fn http_time_ns(carried: &Carried, meant: &Meant) -> Option<i64> {
    let response = meant.response.as_ref()?;
    let [_, asked] = span(carried, CLIENT, &meant.request);
    let [_, answered] = span(carried, SERVER, response);
    Some(answered?.cast_signed() - asked?.cast_signed())
}

/// How much of an exchange was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// Every byte that decides where a message begins and ends, and when.
    Whole,
    /// As well, but some of it when the other end had gone on already: a reader need not have waited for it.
    Late,
    Part,
}

pub fn known(carried: &Carried, meant: &Meant) -> Known {
    let byte = |end: usize, at: usize| match carried.seen_ns[end][at] {
        Some(_) if carried.late[end][at] => Known::Late,
        Some(_) => Known::Whole,
        None => Known::Part,
    };
    let message = |end: usize, placed: &Placed| {
        // What is cut short ends where the connection says.
        let cut = end == SERVER && meant.outcome != Outcome::Complete;
        let told = !cut && placed.message.framing != Framing::UntilClose;
        let last = told.then_some(placed.at.end - 1);
        placed.decisive().chain(last).map(|at| byte(end, at)).max().unwrap_or(Known::Whole)
    };
    let interim = meant.interim.clone().map(|at| byte(SERVER, at)).max().unwrap_or(Known::Whole);
    let response = meant.response.as_ref().map_or(Known::Whole, |response| message(SERVER, response));
    message(CLIENT, &meant.request).max(interim).max(response)
}
