//! Values that several records share.

use crate::emit::text::Text;
use serde::{Serialize, Serializer};
use std::net::{IpAddr, SocketAddr};

/// A connection's identifier, unique for the run: a string of lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// The kernel's socket cookie in the form in which `ss -e` prints it behind `sk:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cookie(pub u64);

impl Serialize for ConnId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:x}", self.0))
    }
}

impl Serialize for Cookie {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ConnId(self.0).serialize(serializer)
    }
}

/// A duration held in nanoseconds and written in microseconds, exact to three decimals.
///
/// From 2^43 µs (101 days) on, the fraction is left out: beside such a number a double, which is what readers of JSON
/// use, has no room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl Micros {
    /// Whole microseconds; saturates at the largest number of nanoseconds, 584 years.
    pub const fn from_us(us: u64) -> Self {
        Self(us.saturating_mul(1000))
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const EXACT_BELOW_NS: u64 = (1 << 43) * 1000;
        if self.0.is_multiple_of(1000) || self.0 >= EXACT_BELOW_NS {
            serializer.serialize_u64(self.0 / 1000)
        } else {
            // Below 2^43 doubles lie less than 0.001 apart, so the shortest text that reads back as the nearest
            // double has our three decimals.
            serializer.serialize_f64(self.0 as f64 / 1000.0)
        }
    }
}

/// Address family of the packets, which is not that of the socket when the address is IPv4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4, RFC 791.
    Ipv4,
    /// IPv6, RFC 8200.
    Ipv6,
}

/// One end of a connection, its address in canonical text (RFC 5952 for IPv6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Addr {
    /// Never an IPv4-mapped address: [`Tuple::new`] turns those into IPv4.
    pub addr: IpAddr,
    /// TCP port.
    pub port: u16,
}

/// Both ends as this host sees them; flattened into the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tuple {
    /// Family of the addresses shown.
    pub family: Family,
    /// An IPv6 socket carries this IPv4 connection (RFC 4291 §2.5.5.2).
    pub mapped: bool,
    /// This socket's end.
    pub local: Addr,
    /// The other end.
    pub remote: Addr,
}

impl Tuple {
    /// A socket's addresses as the kernel holds them.
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        let mapped = is_mapped(local.ip()) || is_mapped(remote.ip());
        let end = |end: SocketAddr| Addr { addr: shown(end.ip(), mapped), port: end.port() };
        let (local, remote) = (end(local), end(remote));
        let family = if local.addr.is_ipv4() && remote.addr.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        Self { family, mapped, local, remote }
    }
}

fn is_mapped(addr: IpAddr) -> bool {
    addr.is_ipv6() && addr.to_canonical().is_ipv4()
}

fn shown(addr: IpAddr, mapped: bool) -> IpAddr {
    // A socket that is not bound yet has `::` beside its mapped destination.
    if mapped && addr.is_unspecified() { IpAddr::from([0, 0, 0, 0]) } else { addr.to_canonical() }
}

/// The process that owns a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Process<'a> {
    /// Process (thread group) id in the tracer's pid namespace.
    pub pid: u32,
    /// The kernel's name for it, at most 15 bytes.
    pub comm: Option<Text<'a>>,
    /// Path of the executable, as `/proc/PID/exe` shows it.
    pub exe: Option<Text<'a>>,
    /// Path of its control group.
    pub cgroup: Option<Text<'a>>,
    /// Container id found in the control group's path.
    pub container: Option<Text<'a>>,
    /// How the owner is known: it called `connect`, `listen` or `accept`, it used the socket (`socket_io`), had it open when
    /// the tracer started (`file_table`), or owns its `listener`.
    pub source: &'static str,
}

/// Names with their values, written as an object in this order.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a, V>(pub &'a [(&'a str, V)]);

impl<V: Serialize> Serialize for Map<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(value: impl Serialize) -> String {
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn ids_are_hexadecimal_strings() {
        assert_eq!(json(ConnId(0x1a2b)), r#""1a2b""#);
        assert_eq!(json(Cookie(u64::MAX)), r#""ffffffffffffffff""#);
    }

    #[test]
    fn microseconds_are_exact() {
        assert_eq!(json(Micros(0)), "0");
        assert_eq!(json(Micros(1)), "0.001");
        assert_eq!(json(Micros(1_234_567)), "1234.567");
        assert_eq!(json(Micros(1_234_560)), "1234.56");
        assert_eq!(json(Micros(1_234_000)), "1234");
        // 90 days, and the last value with a fraction.
        assert_eq!(json(Micros(7_776_000_000_000_001)), "7776000000000.001");
        assert_eq!(json(Micros(8_796_093_022_207_999)), "8796093022207.999");
        assert_eq!(json(Micros(8_796_093_022_208_001)), "8796093022208");
        assert_eq!(json(Micros(u64::MAX)), "18446744073709551");
        assert_eq!(json(Micros::from_us(u64::MAX)), "18446744073709551");
    }

    #[test]
    fn mapped_addresses_are_shown_as_ipv4() {
        let tuple =
            Tuple::new("[::ffff:1.2.3.4]:80".parse().unwrap(), "[::ffff:5.6.7.8]:4000".parse().unwrap());
        let expected = r#"{"family":"ipv4","mapped":true,"local":{"addr":"1.2.3.4","port":80},"remote":{"addr":"5.6.7.8","port":4000}}"#;
        assert_eq!(json(tuple), expected);
        let unbound = Tuple::new("[::]:0".parse().unwrap(), "[::ffff:5.6.7.8]:4000".parse().unwrap());
        assert_eq!((unbound.family, unbound.mapped), (Family::Ipv4, true));
        assert_eq!(unbound.local.addr.to_string(), "0.0.0.0");
    }

    #[test]
    fn real_ipv6_is_canonical() {
        let tuple =
            Tuple::new("[2001:DB8:0:0:0:0:0:1]:80".parse().unwrap(), "[fe80::1%2]:4000".parse().unwrap());
        assert_eq!((tuple.family, tuple.mapped), (Family::Ipv6, false));
        assert_eq!(
            json((tuple.local, tuple.remote)),
            r#"[{"addr":"2001:db8::1","port":80},{"addr":"fe80::1","port":4000}]"#
        );
    }

    proptest! {
        #[test]
        fn microseconds_come_back_to_the_nanosecond(ns in 0..8_796_093_022_208_000_u64) {
            let text = json(Micros(ns));
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            prop_assert!(fraction.len() <= 3, "{text}");
            let read = whole.parse::<u64>().unwrap() * 1000 + format!("{fraction:0<3}").parse::<u64>().unwrap();
            prop_assert_eq!(read, ns);
        }
    }
}
