//! Whose a socket is. `current` is asked only where it is truly the actor: connect, listen, send and receive.

use aya_ebpf::{
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use tracer_ebpf::{MISSING, Owner, OwnerRecord, ProcessRecord, kind, owner_source};

use crate::{
    fields::{TcpSock, probe},
    globals::{CONNS, PROCESSES, field, now},
    paths, ring,
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
    learn(ctx.arg(0))
}

/// `sock:sock_send_length` (6.5+): as for the reader.
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    learn(ctx.arg(0))
}

#[inline(always)]
fn learn(sk: *const u8) -> i32 {
    let Some(conn) = CONNS.get_ptr_mut(&(sk as u64)) else { return 0 };
    // SAFETY: a live map value.
    let conn = unsafe { &mut *conn };
    if conn.owner.source >= owner_source::IO || TcpSock::from_sock(sk).is_none() {
        return 0;
    }
    current(&mut conn.owner, owner_source::IO);
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
