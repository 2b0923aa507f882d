//! `http`: one request with its response, written when the response is complete or can no longer come.

use super::value::{ConnId, Micros, Process, Tuple};
use crate::emit::{headers::Headers, text::Text, time::Timestamp};
use serde::Serialize;

/// One exchange.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "http")]
pub struct Http<'a> {
    /// Last byte of the response, or when it was clear that none would come.
    pub ts: Timestamp,
    /// The connection that carried it.
    pub conn: ConnId,
    /// Place on that connection, from 1.
    pub seq: u64,
    /// This host's end: `client`, `server` or `unknown`.
    pub role: &'static str,
    /// Addresses and ports.
    #[serde(flatten)]
    pub tuple: Tuple,
    /// The owner of this host's end.
    pub process: Option<Process<'a>>,
    /// Null when it passed before the tracer saw the connection.
    pub request: Option<Request<'a>>,
    /// The final response; null when none came.
    pub response: Option<Response<'a>>,
    /// Statuses of interim (1xx) responses, in order.
    pub informational: &'a [u16],
    /// First byte of the request.
    pub started: Option<Timestamp>,
    /// Offsets from `started`.
    pub timeline: Timeline,
    /// First byte of the request to last byte of the response.
    pub duration_us: Option<Micros>,
    /// Last byte of the request to first byte of the response; null when the response began first.
    pub ttfb_us: Option<Micros>,
    /// Silence before the request: since the previous exchange, or since the handshake.
    pub idle_before_us: Option<Micros>,
    /// Not the first exchange on its connection; null when that was before the tracer.
    pub reused: Option<bool>,
    /// Sent before the previous response was complete.
    pub pipelined: bool,
    /// What both heads said about persistence.
    pub keep_alive: KeepAlive,
    /// `complete`, `no_response`, `truncated`, `reset`, `upgraded`, `tunnel` or `malformed`.
    pub outcome: &'static str,
    /// False when bytes that decide framing or pairing were not seen, so that an end, a size or the pairing itself is
    /// inferred.
    pub exact: bool,
    /// The rule of RFC 9112 that a message broke, when one did.
    pub malformed: Option<&'static str>,
    /// Segments sent again in either direction while it ran.
    pub retransmits: Option<u64>,
}

/// A request as it was sent (RFC 9112 §3).
#[derive(Clone, Debug, Serialize)]
pub struct Request<'a> {
    /// Such as `GET`.
    pub method: Option<Text<'a>>,
    /// The request target, with its query hidden if the user chose so.
    pub target: Option<Text<'a>>,
    /// Digits only, such as `1.1`.
    pub version: Option<Text<'a>>,
    /// Authority of the target, else the Host field.
    pub host: Option<Text<'a>>,
    /// Head, from its first byte to the end of its empty line.
    pub header_bytes: Option<u64>,
    /// Content, without chunk framing.
    pub body_bytes: Option<u64>,
    /// `none`, `content-length`, `chunked` or `until-close`; null when the head was cut short, or contradicts itself.
    pub framing: Option<&'static str>,
    /// The fields that were chosen.
    pub headers: Headers<'a>,
}

/// A final response as it was received or sent (RFC 9112 §4).
#[derive(Clone, Debug, Serialize)]
pub struct Response<'a> {
    /// Status code.
    pub status: Option<u16>,
    /// Reason phrase.
    pub reason: Option<Text<'a>>,
    /// Digits only, such as `1.1`.
    pub version: Option<Text<'a>>,
    /// Head, from its first byte to the end of its empty line.
    pub header_bytes: Option<u64>,
    /// Content, without chunk framing.
    pub body_bytes: Option<u64>,
    /// `none`, `content-length`, `chunked` or `until-close`; null when the head was cut short, or contradicts itself.
    pub framing: Option<&'static str>,
    /// The fields that were chosen.
    pub headers: Headers<'a>,
}

/// Offsets from the request's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// Last byte of the request.
    pub request_end_us: Option<Micros>,
    /// First byte of the final response.
    pub response_start_us: Option<Micros>,
    /// Last byte of the final response.
    pub response_end_us: Option<Micros>,
}

/// Persistence (RFC 9112 §9.3), the defaults of each version included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeepAlive {
    /// The request allows another one.
    pub request: Option<bool>,
    /// The response allows another request.
    pub response: Option<bool>,
    /// `timeout` parameter of the response's Keep-Alive field.
    pub timeout_s: Option<u64>,
    /// `max` parameter of the response's Keep-Alive field.
    pub max: Option<u64>,
}
