//! What the engine hands out: one request/response exchange, with its times and what its heads said.

/// A header field: name and value as they were on the wire, the value without surrounding whitespace.
pub type Field = (Vec<u8>, Vec<u8>);

/// How the end of a message's content is found (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Framing {
    /// The message has no content.
    #[default]
    None,
    /// A Content-Length field gives the size.
    ContentLength,
    /// The chunked transfer coding.
    Chunked,
    /// The content ends with the connection.
    UntilClose,
}

impl Framing {
    /// The name used in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ContentLength => "content-length",
            Self::Chunked => "chunked",
            Self::UntilClose => "until-close",
        }
    }
}

/// How an exchange ended. It speaks of the response; only where none came does it speak of the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// The response came to its end.
    Complete,
    /// The connection ended, or its server side did, before any byte of a response.
    #[default]
    NoResponse,
    /// The response, or without a response the request, was cut short. With `exact: false` it may have been
    /// complete on the wire, in bytes that were not captured.
    Truncated,
    /// The connection was reset while the exchange ran.
    Reset,
    /// 101: the connection speaks another protocol from here on (RFC 9110 §7.8).
    Upgraded,
    /// 2xx to CONNECT: the connection is a tunnel from here on (RFC 9110 §9.3.6).
    Tunnel,
    /// A message broke the rules so that its end cannot be known.
    Malformed,
}

impl Outcome {
    /// The name used in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::NoResponse => "no_response",
            Self::Truncated => "truncated",
            Self::Reset => "reset",
            Self::Upgraded => "upgraded",
            Self::Tunnel => "tunnel",
            Self::Malformed => "malformed",
        }
    }
}

/// What the heads said about persistence, the defaults of their versions included (RFC 9112 §9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeepAlive {
    /// Whether the request lets the connection persist; `None` when its head was not seen whole.
    pub request: Option<bool>,
    /// Whether the response lets the connection persist; `None` when its head was not seen whole.
    pub response: Option<bool>,
    /// `timeout` of the response's Keep-Alive field, in seconds.
    pub timeout_s: Option<u64>,
    /// `max` of the response's Keep-Alive field, in requests.
    pub max: Option<u64>,
}

/// The request of an exchange.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    pub method: Vec<u8>,
    /// The request target as sent (RFC 9112 §3.2).
    pub target: Vec<u8>,
    /// Major and minor version.
    pub version: (u8, u8),
    /// Authority of the target where it gives one (RFC 9112 §3.3), else the value of the Host field.
    pub host: Option<Vec<u8>>,
    /// Size of the head in bytes, from its first byte to the end of its empty line (or to where it was cut).
    pub header_bytes: u64,
    /// Content bytes that passed, without chunked framing; `None` when that is not known.
    pub body_bytes: Option<u64>,
    /// `None` when its head was cut short, or contradicts itself.
    pub framing: Option<Framing>,
    /// Fields in the order of the head, up to [`Config::fields_max`](super::Config::fields_max).
    pub headers: Vec<Field>,
}

/// The final response of an exchange.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Response {
    pub status: u16,
    /// The reason phrase, empty when there was none.
    pub reason: Vec<u8>,
    /// Major and minor version.
    pub version: (u8, u8),
    /// Size of the head in bytes, from its first byte to the end of its empty line (or to where it was cut).
    pub header_bytes: u64,
    /// Content bytes that passed, without chunked framing; `None` when that is not known.
    pub body_bytes: Option<u64>,
    /// `None` when its head was cut short, or contradicts itself.
    pub framing: Option<Framing>,
    /// Fields in the order of the head, up to [`Config::fields_max`](super::Config::fields_max).
    pub headers: Vec<Field>,
}

/// One request and what answered it. All times are nanoseconds of the caller's clock, each the time of the
/// segment that carried the byte; `None` where that segment was not seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Exchange {
    /// Place on its connection, from 1, counting what was observed.
    pub seq: u64,
    /// `None` when the response answers a request that was not seen, or whose request line was not.
    pub request: Option<Request>,
    /// `None` when no response came, or its status line was not seen whole.
    pub response: Option<Response>,
    /// Statuses of interim (1xx) responses, in order (RFC 9110 §15.2), at most 64.
    pub informational: Vec<u16>,
    /// First byte of the request.
    pub started_ns: Option<u64>,
    /// Last byte of the request.
    pub request_end_ns: Option<u64>,
    /// First byte of the final response.
    pub response_start_ns: Option<u64>,
    /// Last byte of the final response.
    pub response_end_ns: Option<u64>,
    /// Silence before this request, in nanoseconds: since the previous exchange ended, or since the
    /// handshake. `None` when it was pipelined or neither is known.
    pub idle_before_ns: Option<u64>,
    /// Not the first exchange observed on its connection.
    pub reused: bool,
    /// Its first byte was sent before the previous response was complete (RFC 9112 §9.3.2).
    pub pipelined: bool,
    pub keep_alive: KeepAlive,
    pub outcome: Outcome,
    /// Segments retransmitted, either way, while the exchange ran.
    pub retransmits: u32,
    /// False when bytes that decide framing or pairing were not captured, so that an end, a size or the
    /// pairing itself was inferred.
    /// After a gap, pairing is taken up again at a turn: a client
    /// that was never seen to pipeline is taken to have all its answers before it asks again.
    pub exact: bool,
    /// The first rule that a message of this exchange broke. Set as well where the violation could be
    /// tolerated and `outcome` is not [`Outcome::Malformed`].
    pub malformed_reason: Option<&'static str>,
}
