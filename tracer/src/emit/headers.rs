//! Which header fields of a message are written, and how.
//!
//! By default only those that decide framing and persistence. Fields that carry credentials are written only when
//! the user names them; `all` keeps their names and hides their values.

use super::text::escape;
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::borrow::Cow;

/// Fields that decide where a message ends and whether its connection persists (RFC 9112 §6, §9; RFC 9110 §7.6, §10.1).
pub const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields whose values are credentials (RFC 9110 §11.6, §11.7; RFC 6265 §4).
pub const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

/// Fields whose value is a URI and may repeat the query of a request target (RFC 9110 §10.1.3, §10.2.2, §8.7).
const URIS: [&str; 3] = ["content-location", "location", "referer"];

/// What stands in place of a hidden value.
pub const REDACTED: &str = "[redacted]";

/// The user's choice of header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderPolicy {
    all: bool,
    /// Lower-case names written in full.
    named: Vec<String>,
    /// Lower-case names hidden on the user's wish, beside [`CREDENTIALS`].
    secret: Vec<String>,
    redact_query: bool,
}

impl HeaderPolicy {
    /// `wanted`: names to write beside [`FRAMING`], `all` among them meaning every field. `secret`: names to hide even
    /// so; hiding wins over naming. `redact_query`: hide what follows `?` in targets and in fields that hold a URI.
    pub fn new(wanted: &[String], secret: &[String], redact_query: bool) -> Self {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>();
        let mut named = lower(wanted);
        let before = named.len();
        named.retain(|name| name != "all");
        Self { all: named.len() < before, named, secret: lower(secret), redact_query }
    }

    /// The fields to write of those of one message, given in the order of its head.
    pub fn select<'a>(&'a self, fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Headers<'a> {
        let mut chosen: Vec<Field<'a>> =
            fields.into_iter().filter_map(|(name, value)| self.choose(name, value)).collect();
        // Stable: repeated fields keep their order (RFC 9110 §5.3).
        chosen.sort_by(|a, b| a.name.cmp(&b.name));
        Headers { fields: chosen }
    }

    /// The request target as it may be written.
    pub fn target<'a>(&self, target: &'a [u8]) -> Cow<'a, [u8]> {
        if self.redact_query { redact_query(target) } else { Cow::Borrowed(target) }
    }

    fn choose<'a>(&'a self, name: &'a [u8], value: &'a [u8]) -> Option<Field<'a>> {
        let named = find(&self.named, name);
        let framing = find(&FRAMING, name);
        let known = named.or(framing);
        if known.is_none() && !self.all {
            return None;
        }
        let hidden =
            find(&self.secret, name).is_some() || named.is_none() && find(&CREDENTIALS, name).is_some();
        let value = if hidden {
            Cow::Borrowed(REDACTED.as_bytes())
        } else if self.redact_query && find(&URIS, name).is_some() {
            redact_query(value)
        } else {
            Cow::Borrowed(value)
        };
        Some(Field { name: known.map_or_else(|| lower(name), Cow::Borrowed), value })
    }
}

/// The entry of `names` that equals `name` without regard to case (RFC 9110 §5.1).
fn find<'a, T: AsRef<str>>(names: &'a [T], name: &[u8]) -> Option<&'a [u8]> {
    names.iter().map(|known| known.as_ref().as_bytes()).find(|known| known.eq_ignore_ascii_case(name))
}

fn lower(name: &[u8]) -> Cow<'_, [u8]> {
    if name.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The target with everything behind its first `?` hidden; an empty query stays as it is.
pub fn redact_query(target: &[u8]) -> Cow<'_, [u8]> {
    match target.iter().position(|&byte| byte == b'?') {
        Some(at) if at + 1 < target.len() => Cow::Owned([&target[..=at], REDACTED.as_bytes()].concat()),
        _ => Cow::Borrowed(target),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field<'a> {
    name: Cow<'a, [u8]>,
    value: Cow<'a, [u8]>,
}

/// Chosen fields of one message: a JSON object from lower-case name to value, or to the values of a repeated field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    /// Sorted by name.
    fields: Vec<Field<'a>>,
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for group in self.fields.chunk_by(|a, b| a.name == b.name) {
            match group {
                [] => {}
                [one] => map.serialize_entry(&escape(&one.name), &escape(&one.value))?,
                [first, ..] => map.serialize_entry(&escape(&first.name), &Values(group))?,
            }
        }
        map.end()
    }
}

struct Values<'a>(&'a [Field<'a>]);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|field| escape(&field.value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const HEAD: [(&[u8], &[u8]); 8] = [
        (b"Host", b"example.org"),
        (b"Authorization", b"Basic c2VjcmV0"),
        (b"COOKIE", b"session=secret"),
        (b"X-Api-Key", b"secret"),
        (b"Referer", b"http://a/?token=secret"),
        (b"Connection", b"keep-alive"),
        (b"connection", b"upgrade"),
        (b"Content-Length", b"3"),
    ];

    fn written(wanted: &[&str], secret: &[&str], redact_query: bool) -> Value {
        let own = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let policy = HeaderPolicy::new(&own(wanted), &own(secret), redact_query);
        serde_json::to_value(policy.select(HEAD)).unwrap()
    }

    #[test]
    fn default_is_framing_and_persistence() {
        let framing = json!({"connection": ["keep-alive", "upgrade"], "content-length": "3"});
        assert_eq!(written(&[], &[], false), framing);
    }

    #[test]
    fn a_list_adds_to_the_default_whatever_its_case() {
        let fields = written(&["HOST", "x-absent"], &[], false);
        assert_eq!(fields["host"], "example.org");
        assert_eq!(fields["content-length"], "3");
        assert!(fields.get("authorization").is_none() && fields.get("x-api-key").is_none());
    }

    #[test]
    fn all_hides_credentials() {
        let fields = written(&["all"], &["x-api-KEY"], true);
        for name in ["authorization", "cookie", "x-api-key"] {
            assert_eq!(fields[name], REDACTED);
        }
        assert_eq!(fields["referer"], "http://a/?[redacted]");
        assert!(!fields.to_string().contains("secret"));
    }

    #[test]
    fn a_credential_named_by_the_user_is_written_alone() {
        let fields = written(&["all", "Authorization"], &[], false);
        assert_eq!(fields["authorization"], "Basic c2VjcmV0");
        assert_eq!(fields["cookie"], REDACTED);
        assert_eq!(written(&["cookie"], &["cookie"], false)["cookie"], REDACTED);
    }

    #[test]
    fn queries() {
        assert_eq!(&*redact_query(b"/a?b=c?d"), b"/a?[redacted]");
        assert_eq!(&*redact_query(b"/a?"), b"/a?");
        assert_eq!(&*redact_query(b"/a"), b"/a");
        assert_eq!(&*HeaderPolicy::default().target(b"/a?b"), b"/a?b");
    }

    proptest! {
        #[test]
        fn hostile_fields_are_valid_json_without_repeated_names(
            fields in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..20)
        ) {
            let policy = HeaderPolicy::new(&["all".to_owned()], &[], true);
            let chosen = policy.select(fields.iter().map(|(name, value)| (&name[..], &value[..])));
            let value: Value = serde_json::from_str(&serde_json::to_string(&chosen).unwrap()).unwrap();
            let written: usize =
                value.as_object().unwrap().values().map(|v| v.as_array().map_or(1, Vec::len)).sum();
            prop_assert_eq!(written, fields.len());
        }
    }
}
