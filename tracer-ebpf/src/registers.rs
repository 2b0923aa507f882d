//! What a probed function was called with and what it returned. The object is the same for all machines, so the daemon
//! says where each keeps these (`Config`). What cannot be read is 0, which is nobody's address.

use aya_ebpf::{
    EbpfContext,
    programs::{ProbeContext, RetProbeContext},
};

use crate::{fields::probe, globals::config};

#[inline(always)]
pub fn first(ctx: &ProbeContext) -> u64 {
    probe(ctx.as_ptr().cast::<u8>(), config!(register_first)).unwrap_or(0)
}

#[inline(always)]
pub fn third(ctx: &ProbeContext) -> u64 {
    probe(ctx.as_ptr().cast::<u8>(), config!(register_third)).unwrap_or(0)
}

#[inline(always)]
pub fn returned(ctx: &RetProbeContext) -> u64 {
    probe(ctx.as_ptr().cast::<u8>(), config!(register_returned)).unwrap_or(0)
}
