//! Whose a segment is, where the hook does not say: a look into the kernel's table of sockets.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, bpf_sock_tuple},
    helpers::{
        bpf_sk_release, bpf_skc_lookup_tcp, bpf_skc_to_tcp_request_sock, bpf_skc_to_tcp_sock,
        bpf_skc_to_tcp_timewait_sock,
    },
};
use tracer_ebpf::state;

use crate::{fields::netns_of, headers::Seen};

/// A network namespace.
#[derive(Clone, Copy)]
pub struct Netns {
    pub inode: u32,
    pub cookie: u64,
}

/// Whether a socket of the namespace at hand is the segment's receiver (or its sender).
#[inline(always)]
pub fn has(skb: *mut __sk_buff, seen: &Seen, sender: bool) -> bool {
    let sk = find(skb, seen, sender);
    if sk.is_null() {
        return false;
    }
    // SAFETY: a socket found; it is released.
    unsafe {
        let found = (*sk).state;
        bpf_sk_release(sk.cast());
        found != u32::from(state::TIME_WAIT) && found != u32::from(state::LISTEN)
    }
}

/// The namespace at hand, by the socket that receives the segment (or sends it).
#[inline(never)]
pub fn netns(skb: *mut __sk_buff, seen: &Seen, sender: bool) -> Option<Netns> {
    let sk = find(skb, seen, sender);
    if sk.is_null() {
        return None;
    }
    // SAFETY: a socket found, in one of its three forms; all begin with a `sock_common`. It is released.
    unsafe {
        let full: *const u8 = bpf_skc_to_tcp_sock(sk.cast()).cast();
        let request: *const u8 =
            if full.is_null() { bpf_skc_to_tcp_request_sock(sk.cast()).cast() } else { core::ptr::null() };
        let netns = if !full.is_null() {
            Some(of(full))
        } else if !request.is_null() {
            Some(of(request))
        } else {
            let waiting: *const u8 = bpf_skc_to_tcp_timewait_sock(sk.cast()).cast();
            if waiting.is_null() { None } else { Some(of(waiting)) }
        };
        bpf_sk_release(sk.cast());
        netns
    }
}

#[inline(always)]
fn of(sk: *const u8) -> Netns {
    let (inode, cookie) = netns_of(sk);
    Netns { inode, cookie }
}

/// The segment's receiver (or its sender) in the namespace at hand; to be released.
#[inline(always)]
fn find(skb: *mut __sk_buff, seen: &Seen, sender: bool) -> *mut bpf_sock {
    const CURRENT_NETNS: u64 = -1i32 as u64;
    let (from, from_port, to, to_port) = if sender {
        (&seen.destination, seen.destination_port, &seen.source, seen.source_port)
    } else {
        (&seen.source, seen.source_port, &seen.destination, seen.destination_port)
    };
    // SAFETY: plain integers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if from[2] == 0xffff_u32.to_be() && from[0] == 0 && from[1] == 0 {
        // SAFETY: all members are plain integers.
        let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        (v4.saddr, v4.sport, v4.daddr, v4.dport) = (from[3], from_port.to_be(), to[3], to_port.to_be());
        size_of_val(v4)
    } else {
        // SAFETY: as above.
        let v6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        (v6.saddr, v6.sport, v6.daddr, v6.dport) = (*from, from_port.to_be(), *to, to_port.to_be());
        size_of_val(v6)
    };
    // SAFETY: the tuple is initialised for `size` bytes.
    unsafe { bpf_skc_lookup_tcp(skb.cast(), &mut tuple, size as u32, CURRENT_NETNS, 0).cast() }
}
