//! What a probed function was called with and what it returned. The object is the same for all machines, so the daemon
//! says where each keeps these (`Config`).

use aya_ebpf::{
    EbpfContext,
    programs::{ProbeContext, RetProbeContext},
};

use crate::{fields::probe, globals::config};

#[inline(always)]
pub fn first(ctx: &ProbeContext) -> Option<u64> {
    probe(ctx.as_ptr().cast::<u8>(), config!(register_first))
}

#[inline(always)]
pub fn third(ctx: &ProbeContext) -> Option<u64> {
    probe(ctx.as_ptr().cast::<u8>(), config!(register_third))
}

#[inline(always)]
pub fn returned(ctx: &RetProbeContext) -> Option<u64> {
    probe(ctx.as_ptr().cast::<u8>(), config!(register_returned))
}
