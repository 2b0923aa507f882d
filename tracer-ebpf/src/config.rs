//! What the daemon tells the programs before load, through frozen globals.

use crate::contract;

/// Marks a [`Fields`] member that this kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// Byte offsets of kernel structure members, looked up by the daemon in the running kernel's BTF.
///
/// A member that the kernel lacks is [`MISSING`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    // struct sock_common
    pub skc_family: u32,
    pub skc_num: u32,
    pub skc_dport: u32,
    pub skc_daddr: u32,
    pub skc_rcv_saddr: u32,
    pub skc_v6_daddr: u32,
    pub skc_v6_rcv_saddr: u32,
    pub skc_state: u32,
    pub skc_flags: u32,
    pub skc_net: u32,
    // struct sock, struct inet_sock
    pub sk_err: u32,
    pub sk_protocol: u32,
    pub inet_sport: u32,
    // struct tcp_sock
    pub bytes_sent: u32,
    pub bytes_retrans: u32,
    pub bytes_received: u32,
    pub segs_in: u32,
    pub segs_out: u32,
    pub total_retrans: u32,
    pub srtt_us: u32,
    pub rtt_min: u32,
    pub snd_nxt: u32,
    pub write_seq: u32,
    pub rcv_nxt: u32,
    pub linger2: u32,
    // struct net
    pub net_inum: u32,
    pub net_cookie: u32,
    // struct task_struct
    pub task_group_leader: u32,
    pub task_start_boottime: u32,
    pub task_tgid: u32,
    pub task_comm: u32,
    // struct socket
    pub socket_sk: u32,
    // struct inet_timewait_sock, whose first member is the sock_common too
    pub skc_cookie: u32,
    pub skc_refcnt: u32,
    pub tw_timer: u32,
    pub tw_substate: u32,
    // struct timer_list
    pub timer_function: u32,
    // struct sk_buff, struct net_device, struct tcp_skb_cb
    pub skb_dev: u32,
    pub dev_net: u32,
    /// `sk_buff.cb` and `tcp_skb_cb.tcp_gso_segs` in it.
    pub skb_gso_segs: u32,
    pub skb_head: u32,
    pub skb_network_header: u32,
    pub skb_transport_header: u32,
    // struct inet_connection_sock
    pub icsk_bind_hash: u32,
    // struct task_struct, mm_struct, file: the executable
    pub task_mm: u32,
    pub mm_exe_file: u32,
    /// `file.f_path.mnt` and `file.f_path.dentry`.
    pub file_mount: u32,
    pub file_dentry: u32,
    pub dentry_parent: u32,
    /// `dentry.d_name.name`.
    pub dentry_name: u32,
    // struct vfsmount, and struct mount around it
    pub mount_root: u32,
    pub mount_self: u32,
    pub mount_parent: u32,
    pub mount_point: u32,
    // struct task_struct, css_set, cgroup, kernfs_node: the control group
    pub task_cgroups: u32,
    pub css_set_cgroup: u32,
    pub cgroup_node: u32,
    pub node_name: u32,
    pub node_parent: u32,
}

impl Fields {
    /// Every member missing.
    pub const NONE: Self = Self {
        skc_family: MISSING,
        skc_num: MISSING,
        skc_dport: MISSING,
        skc_daddr: MISSING,
        skc_rcv_saddr: MISSING,
        skc_v6_daddr: MISSING,
        skc_v6_rcv_saddr: MISSING,
        skc_state: MISSING,
        skc_flags: MISSING,
        skc_net: MISSING,
        sk_err: MISSING,
        sk_protocol: MISSING,
        inet_sport: MISSING,
        bytes_sent: MISSING,
        bytes_retrans: MISSING,
        bytes_received: MISSING,
        segs_in: MISSING,
        segs_out: MISSING,
        total_retrans: MISSING,
        srtt_us: MISSING,
        rtt_min: MISSING,
        snd_nxt: MISSING,
        write_seq: MISSING,
        rcv_nxt: MISSING,
        linger2: MISSING,
        net_inum: MISSING,
        net_cookie: MISSING,
        task_group_leader: MISSING,
        task_start_boottime: MISSING,
        task_tgid: MISSING,
        task_comm: MISSING,
        socket_sk: MISSING,
        skc_cookie: MISSING,
        skc_refcnt: MISSING,
        tw_timer: MISSING,
        tw_substate: MISSING,
        timer_function: MISSING,
        skb_dev: MISSING,
        dev_net: MISSING,
        skb_gso_segs: MISSING,
        skb_head: MISSING,
        skb_network_header: MISSING,
        skb_transport_header: MISSING,
        icsk_bind_hash: MISSING,
        task_mm: MISSING,
        mm_exe_file: MISSING,
        file_mount: MISSING,
        file_dentry: MISSING,
        dentry_parent: MISSING,
        dentry_name: MISSING,
        mount_root: MISSING,
        mount_self: MISSING,
        mount_parent: MISSING,
        mount_point: MISSING,
        task_cgroups: MISSING,
        css_set_cgroup: MISSING,
        cgroup_node: MISSING,
        node_name: MISSING,
        node_parent: MISSING,
    };
}

/// Where segments are captured.
pub mod capture {
    /// By the classifier, on the interfaces of our own network namespace.
    pub const TC: u32 = 0;
    /// At the root control group: those of every socket of every namespace. The classifier still sees what has no socket.
    pub const CGROUP: u32 = 1;
}

/// Which segments have a `SHOWN` record of their own.
pub mod shown {
    pub const NONE: u32 = 0;
    /// Those with SYN, FIN or RST.
    pub const CONTROL: u32 = 1;
    pub const ALL: u32 = 2;
}

/// What this run wants.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub abi: u32,
    /// Write `STATE`, `RETRANSMIT` and `RESET` records (1) or not (0).
    pub events: u32,
    /// Copy payload for HTTP (1) or look at control segments only (0).
    pub payload: u32,
    /// One of [`capture`].
    pub capture: u32,
    /// One of [`shown`].
    pub segments: u32,
    /// `PORTS` restricts what is traced (1).
    pub filter_ports: u32,
    /// `HOSTS` restricts what is traced (1).
    pub filter_hosts: u32,
    /// `PIDS` restricts client sockets (1).
    pub filter_pids: u32,
    /// `COMMS` restricts client sockets (1).
    pub filter_comms: u32,
    /// Inode and cookie of our own network namespace, in which the classifiers are attached.
    pub netns: u32,
    /// Where `struct pt_regs` has a function's first and third argument and what it returned, in bytes.
    pub register_first: u32,
    pub register_third: u32,
    pub register_returned: u32,
    /// Tracing programs may call `bpf_get_socket_cookie` (1), as from 5.12 on.
    pub socket_cookies: u32,
    /// Types in the kernel's BTF that perf's programs give to addresses; 0 where there are no such programs.
    pub tcp_sock_type: u32,
    pub request_sock_type: u32,
    pub sk_buff_type: u32,
    pub pad: u32,
    pub netns_cookie: u64,
    /// Address of `tw_timer_handler`, by which a TIME_WAIT's timer is recognised; 0 when it is not known.
    pub tw_timer_handler: u64,
    /// Unread bytes in the ring at which the daemon is woken.
    pub wake_bytes: u64,
    /// `bpf_ktime_get_ns` before load: ids count from here.
    pub start_ns: u64,
}

/// The function that a call is completed with before load, by the number in its place: `bpf_rdonly_cast`, which gives an
/// address a type (6.2). No kernel has so many helpers.
pub const CALL_CAST: i32 = 0x7ace_0001;

/// Words of the port bitmap: one bit for each port.
pub const PORT_WORDS: usize = 65536 / 64;

/// Key of `HOSTS`, a longest-prefix-match trie: an IPv6 prefix (IPv4 is mapped, so /24 is /120).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostKey {
    pub prefix_len: u32,
    pub addr: [u8; 16],
}

contract!(Fields = 236, Config = 104, HostKey = 20);
