//! What a TCP segment's headers say.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::bpf_skb_load_bytes_relative,
};
use tracer_ebpf::{Tuple, tcp_flag};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;

/// What a TCP segment's headers say. Offsets count from the network header.
#[derive(Default)]
pub struct Seen {
    pub source: [u32; 4],
    pub destination: [u32; 4],
    pub source_port: u16,
    pub destination_port: u16,
    /// Sequence number of the first payload byte.
    pub seq: u32,
    pub flags: u8,
    /// As in the header: unscaled.
    pub window: u16,
    /// Where the TCP header is.
    pub at: u32,
    pub payload_at: u32,
    pub len: u32,
    /// The first 16 bytes of the IP header.
    pub ip: [u64; 2],
}

impl Seen {
    /// The ends as the sending socket has them.
    #[inline(always)]
    pub fn as_sender(&self, netns: u32) -> Tuple {
        let Tuple { local_addr, remote_addr, local_port, remote_port, netns } = self.as_receiver(netns);
        Tuple {
            local_addr: remote_addr,
            remote_addr: local_addr,
            local_port: remote_port,
            remote_port: local_port,
            netns,
        }
    }

    /// The ends as the receiving socket has them.
    #[inline(always)]
    pub fn as_receiver(&self, netns: u32) -> Tuple {
        // SAFETY: 16 bytes either way.
        let (local_addr, remote_addr) = unsafe {
            (
                core::mem::transmute::<[u32; 4], [u8; 16]>(self.destination),
                core::mem::transmute::<[u32; 4], [u8; 16]>(self.source),
            )
        };
        let (local_port, remote_port) = (self.destination_port, self.source_port);
        Tuple { local_addr, remote_addr, local_port, remote_port, netns }
    }
}

/// Headers of a packet that is a whole TCP segment; false when it is none. `counted_link`: bytes of link header that
/// `skb->len` counts.
#[inline(never)]
pub fn read(skb: *mut __sk_buff, counted_link: u32, seen: &mut Seen) -> bool {
    // SAFETY: the context's own field.
    let protocol = u16::from_be(unsafe { (*skb).protocol } as u16);
    let read = match protocol {
        ETH_P_IP => ipv4(skb, counted_link, seen),
        ETH_P_IPV6 => ipv6(skb, counted_link, seen),
        _ => None,
    };
    read.is_some()
}

/// An IPv4 packet that is TCP and whole.
#[inline(always)]
fn ipv4(skb: *mut __sk_buff, counted_link: u32, seen: &mut Seen) -> Option<()> {
    let ip: [u8; 20] = load(skb, 0)?;
    let header_len = u32::from(ip[0] & 0x0f) * 4;
    // Fragments other than the first have no TCP header; the first one's payload is not the segment's.
    if ip[9] != IPPROTO_TCP || header_len < 20 || u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0 {
        return None;
    }
    let total = u32::from(u16::from_be_bytes([ip[2], ip[3]]));
    // BIG TCP leaves the length 0.
    // SAFETY: the context's own field.
    let total = if total == 0 { unsafe { (*skb).len }.wrapping_sub(counted_link) } else { total };
    let mapped = 0xffff_u32.to_be();
    seen.source = [0, 0, mapped, u32::from_ne_bytes([ip[12], ip[13], ip[14], ip[15]])];
    seen.destination = [0, 0, mapped, u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]])];
    // SAFETY: the first 16 of 20 bytes.
    seen.ip = unsafe { ip.as_ptr().cast::<[u64; 2]>().read_unaligned() };
    tcp(skb, header_len, total, seen)
}

/// An IPv6 packet that is TCP and whole, past up to four extension headers.
#[inline(always)]
fn ipv6(skb: *mut __sk_buff, counted_link: u32, seen: &mut Seen) -> Option<()> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    let ip: [u32; 10] = load(skb, 0)?;
    let lengths = ip[1].to_ne_bytes();
    let mut next = lengths[2];
    let mut at = 40;
    for _ in 0..4 {
        if next != HOP_BY_HOP && next != ROUTING && next != DESTINATION {
            break;
        }
        let extension: [u8; 2] = load(skb, at)?;
        next = extension[0];
        at += (u32::from(extension[1]) + 1) * 8;
    }
    if next != IPPROTO_TCP {
        return None;
    }
    let payload = u32::from(u16::from_be_bytes([lengths[0], lengths[1]]));
    // As for IPv4: a jumbogram.
    // SAFETY: the context's own field.
    let total = if payload == 0 { unsafe { (*skb).len }.wrapping_sub(counted_link) } else { payload + 40 };
    seen.source = [ip[2], ip[3], ip[4], ip[5]];
    seen.destination = [ip[6], ip[7], ip[8], ip[9]];
    // SAFETY: the first 16 of 40 bytes.
    seen.ip = unsafe { ip.as_ptr().cast::<[u64; 2]>().read_unaligned() };
    tcp(skb, at, total, seen)
}

#[inline(always)]
fn tcp(skb: *mut __sk_buff, at: u32, total: u32, seen: &mut Seen) -> Option<()> {
    let tcp: [u8; 16] = load(skb, at)?;
    let header_len = u32::from(tcp[12] >> 4) * 4;
    let payload_at = at + header_len;
    if header_len < 20 || total < payload_at {
        return None;
    }
    seen.flags = tcp[13];
    let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    // A SYN takes one sequence number before its data (RFC 9293 §3.4; TCP Fast Open, RFC 7413).
    seen.seq = if seen.flags & tcp_flag::SYN != 0 { seq.wrapping_add(1) } else { seq };
    seen.source_port = u16::from_be_bytes([tcp[0], tcp[1]]);
    seen.destination_port = u16::from_be_bytes([tcp[2], tcp[3]]);
    seen.window = u16::from_be_bytes([tcp[14], tcp[15]]);
    seen.at = at;
    seen.payload_at = payload_at;
    seen.len = total - payload_at;
    Some(())
}

/// Reads from the network header on.
#[inline(always)]
pub fn load<T: Copy>(skb: *mut __sk_buff, at: u32) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills the whole buffer or fails.
    unsafe {
        let size = size_of::<T>() as u32;
        let to = value.as_mut_ptr().cast();
        (bpf_skb_load_bytes_relative(skb.cast(), at, to, size, BPF_HDR_START_NET) == 0)
            .then(|| value.assume_init())
    }
}
