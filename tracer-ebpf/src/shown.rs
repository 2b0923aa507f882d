//! Segments shown one by one (`--segments`).

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::bpf_skb_load_bytes_relative,
};
use tracer_ebpf::{OPTIONS_BYTES, ShownRecord, kind, role, shown, tcp_flag};

use crate::{
    connections,
    globals::{CONNS, config, now, size_up_to},
    headers::{self, Seen},
    ring,
};

/// Writes the segment's record, when it is asked for. `sk`: the socket's address, or 0.
#[inline(always)]
pub fn show(skb: *mut __sk_buff, seen: &Seen, netns: u32, sk: u64, sent: bool) {
    const CONTROL: u8 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST;
    if config!(segments) == shown::ALL || config!(segments) == shown::CONTROL && seen.flags & CONTROL != 0 {
        write(skb, seen, netns, sk, sent);
    }
}

#[inline(never)]
fn write(skb: *mut __sk_buff, seen: &Seen, netns: u32, sk: u64, sent: bool) -> Option<()> {
    let tuple = if sent { seen.as_sender(netns) } else { seen.as_receiver(netns) };
    if !connections::wanted(&tuple) {
        return None;
    }
    let tcp: [u8; 20] = headers::load(skb, seen.at)?;
    let known = CONNS.get_ptr(&sk);
    // SAFETY: a live map value.
    let conn = known.map_or(0, |conn| unsafe { (*conn).id });
    // A request's segments go through its listener.
    // SAFETY: as above.
    let is_listener = known.is_some_and(|conn| unsafe { (*conn).role } == role::LISTENER);
    let slot = ring::reserve::<ShownRecord>(kind::SHOWN, 0, now())?;
    // SAFETY: the slot's members, and its size.
    unsafe {
        let record = &mut *slot.0;
        record.conn = if is_listener { 0 } else { conn };
        record.tuple = tuple;
        record.seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        record.ack = u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]);
        record.len = seen.len;
        record.ifindex = (*skb).ifindex;
        record.window = seen.window;
        record.flags = u16::from_be_bytes([tcp[12], tcp[13]]);
        record.sent = u8::from(sent);
        record.pad = [0; 2];
        record.options = [0; OPTIONS_BYTES];
        record.options_len = 0;
        let len = u64::from(seen.payload_at - seen.at).wrapping_sub(20);
        if let Some(len) = size_up_to(len, OPTIONS_BYTES as u64) {
            let to = record.options.as_mut_ptr().cast();
            if bpf_skb_load_bytes_relative(skb.cast(), seen.at + 20, to, len as u32, BPF_HDR_START_NET) == 0 {
                record.options_len = len as u8;
            }
        }
    }
    slot.submit(ring::wake_flags());
    Some(())
}
