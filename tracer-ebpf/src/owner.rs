//! Whose a socket is. `current` is asked only where it is truly the actor: connect, listen, accept, send and receive.

use aya_ebpf::{
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
    },
    macros::{btf_tracepoint, fexit, kretprobe},
    programs::{BtfTracePointContext, FExitContext, RetProbeContext},
};
use tracer_ebpf::{Conn, MISSING, Owner, OwnerRecord, ProcessRecord, kind, owner_source};

use crate::{
    fields::{TcpSock, probe},
    globals::{CONNS, PROCESSES, field, now},
    paths, registers, ring,
};

/// Fills in the running task's process. Name and start are those of the thread group's leader, as `/proc/PID` shows them.
#[inline(always)]
pub fn current(owner: &mut Owner, source: u8) {
    // SAFETY: helpers without arguments.
    let (pid, cgroup, task) = unsafe {
        ((bpf_get_current_pid_tgid() >> 32) as u32, bpf_get_current_cgroup_id(), bpf_get_current_task())
    };
    owner.cgroup = cgroup;
    owner.pid = pid;
    owner.source = source;
    match leader(task as *const u8) {
        Some((start_ns, comm)) => (owner.start_ns, owner.comm) = (start_ns, comm),
        None => (owner.start_ns, owner.comm) = (0, bpf_get_current_comm().unwrap_or_default()),
    }
}

/// Start (CLOCK_BOOTTIME ns) and name of a task's thread group leader; `None` when the kernel's types do not tell.
#[inline(always)]
fn leader(task: *const u8) -> Option<(u64, [u8; 16])> {
    let members = [field!(task_group_leader), field!(task_start_boottime), field!(task_comm)];
    if members.contains(&MISSING) {
        return None;
    }
    let leader = probe::<u64>(task, members[0])? as *const u8;
    Some((probe(leader, members[1])?, probe(leader, members[2])?))
}

/// Tells the daemon of a process not seen before, which is the running one, with what is only to be had while it
/// lives; and at once, since `/proc` knows more.
#[inline(never)]
pub fn introduce(owner: &Owner, now_ns: u64) {
    // SAFETY: read at once.
    if let Some(known) = unsafe { PROCESSES.get(&owner.pid) }
        && known.start_ns == owner.start_ns
        && known.comm == owner.comm
    {
        return;
    }
    let Some(slot) = ring::reserve::<ProcessRecord>(kind::PROCESS, 0, now_ns) else { return };
    // SAFETY: the slot's members.
    unsafe {
        (*slot.0).owner = *owner;
        // A path that cannot be read is marked so.
        let _ = paths::executable(&mut (*slot.0).executable);
        let _ = paths::control_group(&mut (*slot.0).control_group);
    }
    slot.submit(ring::WAKE_NOW);
    // A full map evicts; a failed insert only costs a second introduction.
    let _ = PROCESSES.insert(&owner.pid, owner, 0);
}

/// `sock:sock_recv_length` (6.5+): the reader is an owner; the first one is kept.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    used(ctx.arg(0))
}

/// `sock:sock_send_length` (6.5+): as for the reader.
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    used(ctx.arg(0))
}

/// `inet_csk_accept(sk, arg)` returns (6.11+): who accepted is the owner, until another one is seen to use the socket.
#[fexit]
pub fn accepted(ctx: FExitContext) -> i32 {
    took(ctx.arg(2))
}

/// `inet_csk_accept(sk, flags, err, kern)`
#[fexit]
pub fn accepted_flags(ctx: FExitContext) -> i32 {
    took(ctx.arg(4))
}

/// The same where there is no `fexit`. Of tasks that wait in `accept`, more than some two for each CPU, it tells nothing.
#[kretprobe]
pub fn accepted_kretprobe(ctx: RetProbeContext) -> i32 {
    took(registers::returned(&ctx) as *const u8)
}

#[inline(always)]
fn took(sk: *const u8) -> i32 {
    less_known(sk, owner_source::ACCEPT).map_or(0, |conn| learn(conn, owner_source::ACCEPT))
}

#[inline(always)]
pub fn used(sk: *const u8) -> i32 {
    match less_known(sk, owner_source::IO) {
        // Sockets of all protocols come here.
        Some(conn) if TcpSock::from_sock(sk).is_some() => learn(conn, owner_source::IO),
        _ => 0,
    }
}

/// A connection whose owner is not known so well yet.
#[inline(always)]
fn less_known(sk: *const u8, source: u8) -> Option<&'static mut Conn> {
    // SAFETY: a live map value.
    CONNS
        .get_ptr_mut(&(sk as u64))
        .map(|conn| unsafe { &mut *conn })
        .filter(|conn| conn.owner.source < source)
}

/// The running process is the owner.
#[inline(always)]
fn learn(conn: &mut Conn, source: u8) -> i32 {
    current(&mut conn.owner, source);
    let now_ns = now();
    introduce(&conn.owner, now_ns);
    let Some(slot) = ring::reserve::<OwnerRecord>(kind::OWNER, 0, now_ns) else {
        conn.lost += 1;
        return 0;
    };
    // SAFETY: the slot's members.
    unsafe {
        (*slot.0).conn = conn.id;
        (*slot.0).owner = conn.owner;
    }
    slot.submit(ring::wake_flags());
    0
}
