//! Reading kernel structures at the offsets that the daemon found in BTF.
//!
//! Pointers here are BTF-typed (`tp_btf`, iterators), so a plain load is allowed and the verifier checks it against
//! the running kernel's types; the offsets are constants to it.

use core::{arch::asm, ptr};

use aya_ebpf::{
    bindings::tcp_sock,
    helpers::{bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_skc_to_tcp_sock},
};
use tracer_ebpf::{CALL_CAST, Conn, MISSING, Tuple, state};

use crate::globals::{config, field, is_by_perf};

pub const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;

/// A way to read the members of a `tcp_sock`.
pub trait Members: Copy {
    /// Reads a `T` at a byte offset, or `missing` when the kernel has no such member.
    fn read<T: Copy>(self, offset: u32, missing: T) -> T;

    #[inline(always)]
    fn flags(self) -> u64 {
        self.read(field!(skc_flags), 0)
    }

    #[inline(always)]
    fn error(self) -> u16 {
        self.read::<i32>(field!(sk_err), 0) as u16
    }

    /// 0 when nobody has asked for it.
    #[inline(always)]
    fn known_cookie(self) -> u64 {
        self.read(field!(skc_cookie), 0)
    }

    #[inline(always)]
    fn total_retrans(self) -> u32 {
        self.read(field!(total_retrans), 0)
    }

    /// `inet_sport`: stays when `skc_num` is cleared at the end.
    #[inline(always)]
    fn local_port(self) -> u16 {
        u16::from_be(self.read(field!(inet_sport), 0))
    }

    /// Takes over the totals.
    #[inline(always)]
    fn totals(self, conn: &mut Conn) {
        conn.bytes_sent = self.read(field!(bytes_sent), 0);
        conn.bytes_retrans = self.read(field!(bytes_retrans), 0);
        conn.bytes_received = self.read(field!(bytes_received), 0);
        conn.segs_in = self.read(field!(segs_in), 0);
        conn.segs_out = self.read(field!(segs_out), 0);
        conn.retrans = self.total_retrans();
        // srtt_us holds 8 times the value (tcp_rtt_estimator); rtt_min is a `struct minmax` whose best sample's
        // value follows its 4-byte time.
        conn.srtt_us = self.read::<u32>(field!(srtt_us), 0) >> 3;
        let rtt_min = field!(rtt_min);
        conn.min_rtt_us = if rtt_min == MISSING { u32::MAX } else { self.read(rtt_min + 4, u32::MAX) };
    }
}

/// A socket's address that has no BTF type. It may not be a socket any more: whoever asks has to know.
#[derive(Clone, Copy)]
pub struct Untyped(pub *const u8);

impl Members for Untyped {
    #[inline(always)]
    fn read<T: Copy>(self, offset: u32, missing: T) -> T {
        if offset == MISSING { missing } else { probe(self.0, offset).unwrap_or(missing) }
    }
}

impl Members for TcpSock {
    #[inline(always)]
    fn read<T: Copy>(self, offset: u32, missing: T) -> T {
        if offset == MISSING { missing } else { load(self.0, offset) }
    }
}

/// A full TCP socket (`struct tcp_sock`, whose first members are `inet_sock`, `sock`, `sock_common`).
#[derive(Clone, Copy)]
pub struct TcpSock(*const u8);

impl TcpSock {
    /// None when the socket is not a full TCP socket (another protocol, a request or TIME_WAIT mini-socket).
    #[inline(always)]
    pub fn from_sock(sk: *const u8) -> Option<Self> {
        if is_by_perf() {
            return Self::cast(sk);
        }
        // SAFETY: `sk` is a BTF-typed socket pointer; the verifier rejects anything else.
        let tp: *mut tcp_sock = unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast()) };
        if tp.is_null() { None } else { Some(Self(tp.cast::<u8>().cast_const())) }
    }

    /// As [`Self::from_sock`], for programs that may not call its helper (`sk_to_full_sk`, `sk_is_tcp`).
    #[inline(always)]
    fn cast(sk: *const u8) -> Option<Self> {
        let tp = Self(cast(sk, config!(tcp_sock_type)));
        let is_full = !matches!(tp.state(), state::TIME_WAIT | state::NEW_SYN_RECV);
        (is_full && tp.read(field!(sk_protocol), 0u16) == IPPROTO_TCP).then_some(tp)
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        self.read(field!(skc_family), 0)
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        self.read(field!(skc_state), 0)
    }

    #[inline(always)]
    pub fn snd_nxt(self) -> u32 {
        self.read(field!(snd_nxt), 0)
    }

    #[inline(always)]
    pub fn write_seq(self) -> u32 {
        self.read(field!(write_seq), 0)
    }

    #[inline(always)]
    pub fn rcv_nxt(self) -> u32 {
        self.read(field!(rcv_nxt), 0)
    }

    /// `TCP_LINGER2`: how long an orphan may stay in FIN_WAIT2; negative for not at all.
    #[inline(always)]
    pub fn linger2(self) -> i32 {
        self.read(field!(linger2), 0)
    }

    /// Whether it is still bound to its port (`icsk_bind_hash`). `tcp_set_state` gives the port up before it traces CLOSE.
    #[inline(always)]
    pub fn is_bound(self) -> bool {
        self.read::<u64>(field!(icsk_bind_hash), 0) != 0
    }

    /// The socket's cookie. Where no helper gives it to these programs, it is 0 until something else has asked for it.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        if config!(socket_cookies) == 0 {
            return self.known_cookie();
        }
        // SAFETY: a BTF-typed socket pointer.
        unsafe { bpf_get_socket_cookie(self.0.cast_mut().cast()) }
    }

    /// (inode, cookie) of the socket's network namespace.
    #[inline(always)]
    pub fn netns(self) -> (u32, u64) {
        netns_of(self.0)
    }

    /// Fills in both ends. The local port is `inet_sport`: `skc_num` is 0 for an auto-bound socket at its end.
    #[inline(always)]
    pub fn tuple(self, tuple: &mut Tuple) {
        let dport: u16 = load(self.0, field!(skc_dport));
        tuple.local_port = self.local_port();
        tuple.remote_port = u16::from_be(dport);
        if self.family() == AF_INET6 {
            tuple.local_addr = self.ip_address(field!(skc_v6_rcv_saddr));
            tuple.remote_addr = self.ip_address(field!(skc_v6_daddr));
        } else {
            tuple.local_addr = mapped(load(self.0, field!(skc_rcv_saddr)));
            tuple.remote_addr = mapped(load(self.0, field!(skc_daddr)));
        }
    }

    /// Of the `struct sock`, by which the connection table knows it.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn ip_address(self, offset: u32) -> [u8; 16] {
        let high: u64 = load(self.0, offset);
        let low: u64 = load(self.0, offset + 8);
        // SAFETY: two u64 are 16 bytes.
        unsafe { core::mem::transmute([high, low]) }
    }
}

/// (inode, cookie) of a socket's network namespace. Before 5.12 a namespace has no cookie until it is asked for: there its
/// inode takes the cookie's place, which is as good while it lives.
#[inline(always)]
pub fn netns_of(sk: *const u8) -> (u32, u64) {
    let net: *const u8 = load(sk, field!(skc_net));
    let inode: u32 = load(net, field!(net_inum));
    let cookie = if field!(net_cookie) == MISSING { inode.into() } else { load(net, field!(net_cookie)) };
    (inode, cookie)
}

/// `::ffff:a.b.c.d`
#[inline(always)]
pub fn mapped(v4: u32) -> [u8; 16] {
    // SAFETY: two u64 are 16 bytes.
    unsafe { core::mem::transmute([0u64, u64::from(0xffff_0000_u32.to_le()) | u64::from(v4) << 32]) }
}

#[inline(always)]
pub fn is_mapped(addr: [u8; 16]) -> bool {
    // SAFETY: 16 bytes either way.
    let words: [u32; 4] = unsafe { core::mem::transmute(addr) };
    words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be()
}

/// Gives an address a type of the kernel's, so that the verifier allows loads from it: `bpf_rdonly_cast`.
#[inline(always)]
pub fn cast(address: *const u8, kind: u32) -> *const u8 {
    let typed: *const u8;
    // SAFETY: a call may change the registers that are named.
    unsafe {
        asm!(
            "call {cast}",
            cast = const CALL_CAST,
            inout("r1") address => _, inout("r2") u64::from(kind) => _, out("r0") typed,
            out("r3") _, out("r4") _, out("r5") _,
        );
    }
    typed
}

#[inline(always)]
pub fn load<T: Copy>(base: *const u8, offset: u32) -> T {
    // SAFETY: the verifier checks the access against the kernel's BTF.
    unsafe { ptr::read(base.add(offset as usize).cast::<T>()) }
}

/// Reads through a pointer that has no BTF type.
#[inline(always)]
pub fn probe<T: Copy>(base: *const u8, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()).ok() }
}
