//! Where segments are captured. None of these programs alters a packet or holds it up.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    helpers::bpf_get_socket_cookie,
    macros::{cgroup_skb, classifier},
    programs::{SkBuffContext, TcContext},
};
use tracer_ebpf::{capture, tcp_flag};

use crate::{
    fields::TcpSock,
    globals::{FLOWS, config, debug, now, running},
    headers::{self, Seen},
    segment, shown,
    sockets::{self, Netns},
    timewait,
};

/// All devices that have a link header at this hook and segments too long for the IP header's length are Ethernet's.
const ETHERNET: u32 = 14;

/// `LOOPBACK_IFINDEX` (include/net/flow.h).
const LOOPBACK: u32 = 1;

/// The classifier: both directions of every interface of our own network namespace, egress only on loopback.
#[classifier]
pub fn segments(ctx: TcContext) -> i32 {
    if on_interface(ctx.skb.skb).is_none() {
        debug!(&ctx, "segment of {} bytes: nothing wanted of it", ctx.len());
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn on_interface(skb: *mut __sk_buff) -> Option<()> {
    if !running() {
        return None;
    }
    let mut seen = Seen::default();
    if !headers::read(skb, ETHERNET, &mut seen) {
        return None;
    }
    let netns = Netns { inode: config!(netns), cookie: config!(netns_cookie) };
    hint(skb, &seen, netns);
    if config!(capture) == capture::TC {
        return on_any_interface(skb, &seen, netns);
    }
    if seen.flags & tcp_flag::FIN != 0 { for_mini_socket(&seen, netns) } else { None }
}

/// The classifier for the interfaces of other network namespaces.
#[classifier]
pub fn segments_elsewhere(ctx: TcContext) -> i32 {
    let _ = elsewhere(ctx.skb.skb);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn elsewhere(skb: *mut __sk_buff) -> Option<()> {
    if !running() {
        return None;
    }
    let mut seen = Seen::default();
    if !headers::read(skb, ETHERNET, &mut seen) {
        return None;
    }
    let netns = sockets::netns(skb, &seen, is_sent(skb))?;
    hint(skb, &seen, netns);
    on_any_interface(skb, &seen, netns)
}

#[inline(always)]
fn on_any_interface(skb: *mut __sk_buff, seen: &Seen, netns: Netns) -> Option<()> {
    shown::show(skb, seen, netns.inode, 0, is_sent(skb));
    segment::take(skb, seen, netns)
}

#[inline(always)]
fn is_sent(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context's own field.
    unsafe { (*skb).ingress_ifindex == 0 }
}

/// What may end a TIME_WAIT.
#[inline(never)]
fn hint(skb: *mut __sk_buff, seen: &Seen, netns: Netns) {
    if seen.flags & tcp_flag::RST != 0 || seen.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN {
        timewait::hint(&seen.as_receiver(netns.inode), seen.flags, now());
    }
    // Up to 6.10 `tcp_send_reset` does not tell of a mini-socket's answer.
    if seen.flags & tcp_flag::RST != 0 && is_sent(skb) {
        timewait::reset_left(&seen.as_sender(netns.inode));
    }
}

/// A mini-socket is in no control group.
#[inline(always)]
fn for_mini_socket(seen: &Seen, netns: Netns) -> Option<()> {
    let (key, dir) = seen.flow_key(netns.cookie);
    let flow = FLOWS.get_ptr_mut(&key)?;
    // SAFETY: a live map value.
    segment::await_fin(unsafe { &mut *flow }, &key, dir, seen, now());
    Some(())
}

/// The root control group's: what sockets of any namespace send and receive (`ip_finish_output`, `tcp_filter`). On
/// loopback what they send only, as everything passes twice there.
#[cgroup_skb]
pub fn socket_segments(ctx: SkBuffContext) -> i32 {
    let _ = of_socket(ctx.skb.skb);
    // Let it go on.
    1
}

#[inline(always)]
fn of_socket(skb: *mut __sk_buff) -> Option<()> {
    // SAFETY: the context's own fields.
    let (sk, ifindex, arrived_on) =
        unsafe { ((*skb).__bindgen_anon_2.sk, (*skb).ifindex, (*skb).ingress_ifindex) };
    if !running() || arrived_on != 0 && ifindex == LOOPBACK || sk.is_null() {
        return None;
    }
    let tp = TcpSock::from_sock(sk.cast::<u8>().cast_const())?;
    if config!(socket_cookies) == 0 {
        // Gives the socket its cookie, which the tracing programs then find.
        // SAFETY: the program's own context.
        let _ = unsafe { bpf_get_socket_cookie(skb.cast()) };
    }
    let (inode, cookie) = tp.netns();
    let mut seen = Seen::default();
    if !headers::read(skb, 0, &mut seen) {
        return None;
    }
    shown::show(skb, &seen, inode, tp.address(), arrived_on == 0);
    segment::take(skb, &seen, Netns { inode, cookie })
}
