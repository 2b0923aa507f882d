//! Sockets older than the tracer: `iter/tcp` enters them into the table, `iter/task_file` finds their owners. Both
//! see the network namespace, or the tasks, of whoever opens the iterator.

use aya_ebpf::helpers::bpf_sock_from_file;
use tracer_ebpf::{Owner, conn_flag, milestone, owner_source, role, state};

use crate::{
    connections,
    fields::{TcpSock, load},
    flows,
    globals::{CONNS, field, now},
    timewait,
};

/// `struct bpf_iter__tcp { meta, sk_common, uid }`
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn existing_sockets(ctx: *mut core::ffi::c_void) -> i32 {
    let sk: *const u8 = load(ctx.cast::<u8>().cast_const(), 8);
    if sk.is_null() {
        return 0;
    }
    let now_ns = now();
    if load::<u8>(sk, field!(skc_state)) == state::TIME_WAIT {
        if timewait::followed() {
            timewait::found(sk);
        }
        return 0;
    }
    let Some(tp) = TcpSock::from_sock(sk) else { return 0 };
    // The live hooks are attached first: what they already know is theirs.
    if CONNS.get_ptr(&(sk as u64)).is_some() {
        return 0;
    }
    let state = tp.state();
    if state == state::CLOSE {
        return 0;
    }
    let listener = state == state::LISTEN;
    let role = if listener { role::LISTENER } else { role::UNKNOWN };
    let Some(conn) = connections::open(sk, tp, role, now_ns) else { return 0 };
    connections::identify(tp, conn);
    conn.flags |= conn_flag::PREEXISTING;
    conn.state = state;
    if !listener {
        if !connections::wanted(&conn.tuple) {
            connections::forget(sk);
            return 0;
        }
        connections::push_state(conn, state, now_ns);
        connections::refresh(tp, conn);
        conn.retrans_seen = conn.retrans;
        flows::join(conn, tp.snd_nxt(), tp.rcv_nxt(), false, now_ns);
    }
    0
}

/// `struct bpf_iter__task_file { meta, task, fd, file }`
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn socket_owners(ctx: *mut core::ffi::c_void) -> i32 {
    let ctx = ctx.cast::<u8>().cast_const();
    let task: *const u8 = load(ctx, 8);
    let file: *const u8 = load(ctx, 24);
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: a BTF-typed file pointer.
    let socket: *const u8 = unsafe { bpf_sock_from_file(file.cast_mut().cast()) }.cast();
    if socket.is_null() {
        return 0;
    }
    let sk: u64 = load(socket, field!(socket_sk));
    let Some(conn) = CONNS.get_ptr_mut(&sk) else { return 0 };
    // SAFETY: a live map value.
    let conn = unsafe { &mut *conn };
    if conn.owner.source != owner_source::NONE {
        return 0;
    }
    let leader: *const u8 = load(task, field!(task_group_leader));
    conn.owner = Owner {
        start_ns: load(leader, field!(task_start_boottime)),
        cgroup: 0,
        comm: load(leader, field!(task_comm)),
        pid: load(task, field!(task_tgid)),
        source: owner_source::FILE_TABLE,
        pad: [0; 3],
    };
    0
}

/// Third pass: reports what the first two put together.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn existing_report(ctx: *mut core::ffi::c_void) -> i32 {
    let sk: *const u8 = load(ctx.cast::<u8>().cast_const(), 8);
    if sk.is_null() {
        return 0;
    }
    if let Some(conn) = CONNS.get_ptr_mut(&(sk as u64)) {
        // SAFETY: a live map value.
        let conn = unsafe { &mut *conn };
        if conn.flags & conn_flag::PREEXISTING != 0 {
            let what =
                if conn.role == role::LISTENER { milestone::LISTENING } else { milestone::PREEXISTING };
            connections::report(conn, what, now());
        }
    }
    0
}
