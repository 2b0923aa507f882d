//! A look at a message head, to know where the next one begins without asking the daemon.
//!
//! It only saves copies: the daemon frames messages by itself from the bytes it gets. So anything unusual is
//! [`next::UNKNOWN`], after which all is copied (within the budget) until the daemon says what it does not need.

use core::ptr;

use crate::{
    globals::opaque,
    scratch::{CHUNK, SCRATCH, SLACK, Scratch},
};

/// What follows a head (RFC 9112 §6.3).
pub mod next {
    /// Anything: the daemon decides.
    pub const UNKNOWN: u32 = 0;
    /// The next message at once.
    pub const MESSAGE: u32 = 1;
    /// Content of [`super::Found::length`] bytes, then the next message.
    pub const BODY: u32 = 2;
    /// No message of HTTP/1 begins like this: not with a letter, nor with the empty line that RFC 9112 §2.2 allows.
    pub const OTHER: u32 = 3;
    /// A chunked body (RFC 9112 §7.1).
    pub const CHUNKS: u32 = 4;
    /// More bytes are needed to tell.
    pub const MORE: u32 = 5;
    /// No HTTP any more, in either direction.
    pub const TUNNEL: u32 = 6;
}

/// What is known of the requests that a response may answer: HEAD requests were seen on this connection.
pub const HEAD: u32 = 1;
/// The only one that is not answered is a CONNECT.
pub const CONNECT: u32 = 2;

/// What the search found; it and where it is. In memory, because the verifier follows the value of every register
/// through every step of a loop, and takes a million of them; of memory it knows nothing.
#[repr(C)]
pub struct Found {
    /// Indices into the data.
    pub at: u32,
    pub line: u32,
    pub length_at: u32,
    /// 1: the transfer coding is `chunked` and no other.
    pub chunked: u32,
    /// Just past the head's empty line.
    pub end: u32,
    pub length: u64,
}

/// Steps of the search: one for each 16 bytes without a line end, and one for each line. The verifier looks at a stride of
/// them once.
const STEPS: u32 = CHUNK as u32 / 16 + 96;
const STRIDE: u32 = 16;

const LOWER: u64 = 0x2020_2020_2020_2020;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

const fn word(text: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*text)
}

type Data = [u8; CHUNK + SLACK];

/// 8 bytes at any index below `CHUNK` (and the slack behind). Unaligned: the verifier allows it where the CPU does.
#[inline(always)]
fn load(data: &Data, at: u32) -> u64 {
    let at = (opaque(at.into()) as usize) & (CHUNK - 1);
    // SAFETY: `at` is masked to the buffer, and the slack holds what is read past it.
    u64::from_le(unsafe { ptr::read_volatile(data.as_ptr().add(at).cast::<u64>()) })
}

#[inline(always)]
fn byte(data: &Data, at: u32) -> u8 {
    let at = (opaque(at.into()) as usize) & (CHUNK - 1);
    // SAFETY: `at` is masked to the buffer.
    unsafe { ptr::read_volatile(data.as_ptr().add(at)) }
}

/// Bit 7 of each byte that is a line feed (and perhaps of some behind the first one).
#[inline(always)]
fn line_feeds(bytes: u64) -> u64 {
    let zero_at_lf = bytes ^ (ONES * b'\n' as u64);
    zero_at_lf.wrapping_sub(ONES) & !zero_at_lf & HIGHS
}

/// Index of the first byte whose bit 7 is set: the lowest bit picks its byte's number out of a product.
#[inline(always)]
fn first(bits: u64) -> u32 {
    let lowest = (bits & bits.wrapping_neg()) >> 7;
    (lowest.wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32
}

/// A member of [`Found`] during the search.
macro_rules! found {
    ($place:expr) => {
        // SAFETY: a member of a map value.
        unsafe { ptr::read_volatile(&raw const $place) }
    };
    ($place:expr, $value:expr) => {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut $place, $value) }
    };
}

/// A CONNECT request: with a successful answer the connection becomes a tunnel (RFC 9110 §9.3.6).
pub fn is_connect_request(scratch: &Scratch) -> bool {
    load(&scratch.data, 0) == word(b"CONNECT ")
}

pub fn is_response(scratch: &Scratch) -> bool {
    load(&scratch.data, 0) & 0x00ff_ffff_ffff_ffff == word(b"HTTP/1.\0")
}

/// A HEAD request: the answer's Content-Length is not that of its body.
pub fn is_head_request(scratch: &Scratch) -> bool {
    load(&scratch.data, 0) & 0x0000_00ff_ffff_ffff == word(b"HEAD \0\0\0")
}

/// Looks at the message that begins `Scratch::data`, of which `size` bytes are there. `asked`: [`HEAD`] and [`CONNECT`].
/// `place`: which `Scratch`. Returns one of [`next`], with `Scratch::found` filled in unless it is unknown.
///
/// A global function, so that the verifier looks at it once and not for each way to get here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn scan_head(size: u32, asked: u32, place: u32) -> u32 {
    let (head_seen, connect) = (asked & HEAD, asked & CONNECT != 0);
    let Some(scratch) = SCRATCH.get_ptr_mut(place) else { return next::UNKNOWN };
    // SAFETY: this CPU's own.
    let Scratch { data, found, .. } = unsafe { &mut *scratch };
    let start = load(data, 0);
    let response = start & 0x00ff_ffff_ffff_ffff == word(b"HTTP/1.\0");
    let mut bodyless = false;
    let mut tunnel = false;
    if response {
        // "HTTP/1.1 NNN"
        let status = load(data, 8) & 0x0000_0000_ffff_ffff;
        if status == word(b" 204\0\0\0\0")
            || status == word(b" 304\0\0\0\0")
            || status == word(b" 100\0\0\0\0")
        {
            bodyless = true;
        } else if status == word(b" 101\0\0\0\0") || connect && status & 0xffff == word(b" 2\0\0\0\0\0\0") {
            tunnel = true;
        } else if status & 0xffff == word(b" 1\0\0\0\0\0\0") || head_seen != 0 {
            return next::UNKNOWN;
        }
    } else if !(start as u8).is_ascii_alphabetic() && start as u8 != b'\r' && start as u8 != b'\n' {
        return next::OTHER;
    } else if !(start as u8).is_ascii_uppercase() || start == word(b"PRI * HT") {
        return next::UNKNOWN;
    }
    found!(found.at, 0);
    found!(found.line, 0);
    found!(found.length_at, 0);
    found!(found.chunked, 0);
    if !whole_head(size, place) {
        return next::UNKNOWN;
    }
    if tunnel {
        return next::TUNNEL;
    }
    let length_at = found!(found.length_at);
    if found!(found.chunked) != 0 {
        // With a length as well, or where no body may be, the daemon decides.
        return if length_at == 0 && !bodyless { next::CHUNKS } else { next::UNKNOWN };
    }
    if bodyless || !response && length_at == 0 {
        return next::MESSAGE;
    }
    match number(data, length_at) {
        Some(length) if length_at != 0 => {
            found.length = length;
            next::BODY
        }
        _ => next::UNKNOWN,
    }
}

/// Finds where the head ends, and where Content-Length's value begins (0: no such field). False when the head does not
/// end in this data, or holds what the daemon should decide: a transfer coding or a second length.
#[inline(always)]
fn whole_head(size: u32, place: u32) -> bool {
    for _ in 0..STEPS / STRIDE {
        match scan_fields(size, place) {
            fields::MORE => {}
            end => return end == fields::WHOLE,
        }
    }
    false
}

/// What a look at some of a head's lines came to.
mod fields {
    /// The head does not end here, or is unusual.
    pub const NOT: u32 = 0;
    pub const WHOLE: u32 = 1;
    pub const MORE: u32 = 2;
}

/// A stride of the search. Returns one of [`fields`].
///
/// A global function, as [`scan_head`] is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn scan_fields(size: u32, place: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(place) else { return fields::NOT };
    // SAFETY: a live map value, and its taker's alone.
    let Scratch { data, found, .. } = unsafe { &mut *scratch };
    for _ in 0..STRIDE {
        let at = found!(found.at);
        if at >= size {
            return fields::NOT;
        }
        let (low, high) = (line_feeds(load(data, at)), line_feeds(load(data, at + 8)));
        if low | high == 0 {
            found!(found.at, at + 16);
            continue;
        }
        let at = if low != 0 { at + first(low) } else { at + 8 + first(high) };
        found!(found.at, at + 1);
        let line = found!(found.line);
        found!(found.line, at + 1);
        if line == 0 {
            continue;
        }
        let text = load(data, line);
        if at == line || text as u16 == u16::from_le_bytes(*b"\r\n") {
            found.end = at + 1;
            // Behind the data may be what an earlier segment left there.
            return if at < size { fields::WHOLE } else { fields::NOT };
        }
        let name = text | LOWER;
        if name == word(b"content-") {
            let rest = load(data, line + 8) | LOWER;
            if rest & 0x0000_ffff_ffff_ffff == word(b"length\0\0") {
                if found!(found.length_at) != 0 || rest & 0x00ff_ffff_ffff_ffff != word(b"length:\0") {
                    return fields::NOT;
                }
                found!(found.length_at, line + 15);
            }
        } else if name == word(b"transfer") {
            let (rest, coding) = (load(data, line + 8) | LOWER, load(data, line + 16) | LOWER);
            // Carriage return and line feed are not letters: with that bit they would be others.
            let last = (load(data, line + 24) | 0x2020) & 0x0000_0000_ffff_ffff;
            let alone =
                rest == word(b"-encodin") && coding == word(b"g: chunk") && last == word(b"ed\r\n\0\0\0\0");
            if !alone || found!(found.chunked) != 0 {
                return fields::NOT;
            }
            found!(found.chunked, 1);
        }
    }
    fields::MORE
}

/// Looks at the line that begins `Scratch::data`, of which `size` bytes are there: the end of a chunk's content and the
/// size of the next chunk, or with `first` that size alone (RFC 9112 §7.1). Returns one of [`next`]: `BODY` with the
/// chunk's size, `MESSAGE` behind the last chunk. Extensions and trailers are the daemon's.
///
/// A global function, as [`scan_head`] is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn scan_chunk(size: u32, first: u32, place: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(place) else { return next::UNKNOWN };
    // SAFETY: this CPU's own.
    let Scratch { data, found, .. } = unsafe { &mut *scratch };
    let mut at = 0;
    if first == 0 {
        match line_end(data, at, size) {
            next::MESSAGE => at += 2,
            other => return other,
        }
    }
    let mut value = 0u64;
    // 8 digits: 4 GiB.
    for digits in 0..9 {
        if at >= size {
            return next::MORE;
        }
        let digit = match byte(data, at) {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ (b'a'..=b'f' | b'A'..=b'F') => (digit | 0x20) - b'a' + 10,
            _ if digits > 0 => break,
            _ => return next::UNKNOWN,
        };
        value = value << 4 | u64::from(digit);
        at += 1;
    }
    match line_end(data, at, size) {
        next::MESSAGE => at += 2,
        other => return other,
    }
    found!(found.length, value);
    if value != 0 {
        found!(found.end, at);
        return next::BODY;
    }
    found!(found.end, at + 2);
    line_end(data, at, size)
}

/// `MESSAGE` when a line ends here.
#[inline(always)]
fn line_end(data: &Data, at: u32, size: u32) -> u32 {
    if at + 2 > size {
        next::MORE
    } else if load(data, at) as u16 == u16::from_le_bytes(*b"\r\n") {
        next::MESSAGE
    } else {
        next::UNKNOWN
    }
}

/// A decimal number up to the line's end.
#[inline(always)]
fn number(data: &Data, at: u32) -> Option<u64> {
    let mut at = at;
    if byte(data, at) == b' ' {
        at += 1;
    }
    let mut value = 0u64;
    // 15 digits: no overflow, and more than anything sent.
    for digits in 0..16 {
        let digit = byte(data, at);
        if !digit.is_ascii_digit() {
            return (digits > 0 && (digit == b'\r' || digit == b'\n')).then_some(value);
        }
        value = value * 10 + u64::from(digit - b'0');
        at += 1;
    }
    None
}
