//! Reading the values of options. Each error says what is wrong with the value and what to write instead.

use ipnet::IpNet;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::time::Duration;

/// The kernel's longest interface name (`IFNAMSIZ` is 16, with the zero at its end).
const INTERFACE_BYTES: usize = 15;
/// A ring's size must be a power of two and a multiple of the page size (`ringbuf_map_alloc()`); no page is larger.
const RING_MIN: u64 = 64 << 10;
/// The largest ring on offer; the kernel locks its memory for the whole run.
const RING_MAX: u64 = 1 << 30;
/// Each connection takes some hundreds of bytes of kernel memory.
const CONNECTIONS_MAX: u32 = 1 << 24;
/// Far beyond any use, and small enough to be added to any clock.
const TIME_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

pub fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) => Err("port 0 is never used by a connection; give a number from 1 to 65535".into()),
        Ok(port) => Ok(port),
        Err(_) if text.contains('-') => {
            Err("ranges are not supported; give single ports, separated by commas".into())
        }
        Err(_) => {
            Err("a port is a number from 1 to 65535, such as 80 (names such as http are not read)".into())
        }
    }
}

pub fn host(text: &str) -> Result<IpNet, String> {
    let (addr, bits) = match text.split_once('/') {
        Some((addr, bits)) => (addr, Some(bits)),
        None => (text, None),
    };
    let bare = addr.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(addr);
    let addr: IpAddr = bare.parse().map_err(|_| why_no_address(bare))?;
    let longest = if addr.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => longest,
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= longest).ok_or_else(|| {
            format!(
                "`{bits}` is no length of a network prefix; give a number from 0 to {longest} behind the `/`"
            )
        })?,
    };
    IpNet::new(addr, bits).map_err(|error| error.to_string())
}

fn why_no_address(text: &str) -> String {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return "an address without a port is wanted; give the port with --port".into();
    }
    if text.contains('%') {
        return "an address without a zone is wanted; give the interface with --interface".into();
    }
    if text.is_empty() || text.bytes().all(|byte| byte.is_ascii_hexdigit() || b".:".contains(&byte)) {
        return "this is no complete IPv4 or IPv6 address; write 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32"
            .into();
    }
    "names are not looked up; give an address or a network, such as 10.0.0.1 or 2001:db8::/32 \
     (`getent ahosts NAME` prints the addresses of a name)"
        .into()
}

pub fn pid(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(pid) if pid > 0 && pid <= i32::MAX as u32 => Ok(pid),
        _ => Err("a process id is a positive number; for a name use --comm".into()),
    }
}

pub fn comm(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("give the name of a program, as `ps -o comm` prints it".into());
    }
    Ok(text.to_owned())
}

pub fn interface(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > INTERFACE_BYTES || text.contains(['/', ' ', ':']) {
        return Err("this cannot be the name of an interface; `ip link` lists them".into());
    }
    Ok(text.to_owned())
}

/// The name of a header field: a token (RFC 9110 §5.6.2).
pub fn header(text: &str) -> Result<String, String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(token) {
        return Err("give names of header fields separated by commas, such as user-agent,content-type".into());
    }
    Ok(text.to_ascii_lowercase())
}

/// As [`header`], where `all` has no meaning.
pub fn secret_header(text: &str) -> Result<String, String> {
    match header(text)?.as_str() {
        "all" => {
            Err("give the names of the fields to hide; without --headers only framing fields are written"
                .into())
        }
        name => Ok(name.to_owned()),
    }
}

/// A time that may be zero.
pub fn interval(text: &str) -> Result<Duration, String> {
    const USAGE: &str = "give a number with ms, s, m, h or d behind it, such as 500ms, 10s, 5m or 1.5h; \
                         without a unit it is seconds";
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(USAGE.into()),
    };
    let number: f64 = number.parse().map_err(|_| USAGE.to_owned())?;
    match Duration::try_from_secs_f64(number * scale) {
        Ok(time) if time <= TIME_MAX => Ok(time),
        _ => Err("this is more than ten years; give a shorter time".into()),
    }
}

pub fn duration(text: &str) -> Result<Duration, String> {
    match interval(text)? {
        Duration::ZERO => {
            Err("nothing can be seen in no time; leave the option out to run until Ctrl-C".into())
        }
        time => Ok(time),
    }
}

pub fn count(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| "give a number of lines from 1 on; leave the option out for no limit".to_owned())
}

pub fn ring_size(text: &str) -> Result<u32, String> {
    const USAGE: &str =
        "give a number of bytes from 64K to 1G, with K, M or G for powers of 1024, such as 8M";
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        _ => return Err(USAGE.into()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| (RING_MIN..=RING_MAX).contains(bytes))
        .and_then(|bytes| u32::try_from(bytes.next_power_of_two()).ok())
        .ok_or_else(|| USAGE.to_owned())
}

pub fn max_connections(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=CONNECTIONS_MAX).contains(number));
    number.ok_or_else(|| format!("give a number of connections from 1 to {CONNECTIONS_MAX}"))
}
