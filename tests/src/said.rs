//! What the programs themselves say about their exchanges, against which the tracer's records are checked.

use crate::records::Record;
use anyhow::{Context as _, Result, ensure};
use std::str::FromStr;

/// One exchange in the words of a program that took part in it. What it does not say is none.
///
/// The test programs write a line for each: the fields in this order, `-` for none, the last ones may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The client's port, by which both ends know their connection.
    pub port: u16,
    pub method: String,
    pub target: String,
    pub status: Option<u64>,
    /// Content, without chunk framing.
    pub request_body: Option<u64>,
    pub response_body: Option<u64>,
    /// Head and content.
    pub request_bytes: Option<u64>,
    pub response_bytes: Option<u64>,
}

impl Said {
    pub fn parse(line: &str) -> Result<Self> {
        let mut fields = line.split(' ');
        let mut next = || fields.next().context("too few fields");
        let mut said = Self {
            port: next()?.parse()?,
            method: next()?.to_owned(),
            target: next()?.to_owned(),
            ..Self::default()
        };
        let figures = [
            &mut said.status,
            &mut said.request_body,
            &mut said.response_body,
            &mut said.request_bytes,
            &mut said.response_bytes,
        ];
        for (figure, field) in figures.into_iter().zip(fields) {
            *figure = none_or(field)?;
        }
        Ok(said)
    }

    /// The lines of this form in what a program wrote; it may write others too.
    pub fn lines(text: &str) -> impl Iterator<Item = &str> {
        text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()))
    }

    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        Self::lines(text).map(|line| Self::parse(line).with_context(|| format!("`{line}`"))).collect()
    }

    /// The record must say the same.
    pub fn check(&self, http: &Record) -> Result<()> {
        let text = || format!("the program said {self:?}, the tracer {http:?}");
        ensure!(http.text("/request/method") == self.method, text());
        ensure!(http.text("/request/target") == self.target, text());
        let figures = [
            (self.status, http.count("/response/status")),
            (self.request_body, http.count("/request/body_bytes")),
            (self.response_body, http.count("/response/body_bytes")),
            (self.request_bytes, whole(http, "request")),
            (self.response_bytes, whole(http, "response")),
        ];
        for (said, seen) in figures {
            ensure!(said.is_none() || said == seen, "{said:?} and {seen:?}: {}", text());
        }
        Ok(())
    }
}

/// Size of a message that is not in chunks.
fn whole(http: &Record, message: &str) -> Option<u64> {
    let figure = |name| http.count(&format!("/{message}/{name}"));
    Some(figure("header_bytes")? + figure("body_bytes")?)
}

/// A field that may be `-`.
pub fn none_or<T: FromStr>(field: &str) -> Result<Option<T>, T::Err> {
    if field == "-" { Ok(None) } else { field.parse().map(Some) }
}
