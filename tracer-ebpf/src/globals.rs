//! Maps, and the globals that the daemon sets before load (frozen, so the verifier folds them).

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr,
};

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use tracer_ebpf::{
    Config, Conn, Fields, Flow, FlowKey, MAX_NETNS, Mark, MarkKey, NetnsCounts, Owner, PORT_WORDS, TimeWait,
    Tuple, counter, netns_count, running, tables,
};

#[unsafe(no_mangle)]
static FIELDS: Fields = Fields::NONE;
#[unsafe(no_mangle)]
static CONFIG: Config = Config {
    abi: tracer_ebpf::ABI_VERSION,
    events: 0,
    payload: 0,
    capture: 0,
    segments: 0,
    filter_ports: 0,
    filter_hosts: 0,
    filter_pids: 0,
    filter_comms: 0,
    netns: 0,
    register_first: 0,
    register_third: 0,
    register_returned: 0,
    socket_cookies: 0,
    tcp_sock_type: 0,
    request_sock_type: 0,
    sk_buff_type: 0,
    pad: 0,
    netns_cookie: 0,
    tw_timer_handler: 0,
    wake_bytes: 0,
    start_ns: 0,
};
#[unsafe(no_mangle)]
static PORTS: [u64; PORT_WORDS] = [0; PORT_WORDS];

/// Where [`FIELDS`] and [`CONFIG`] are; read through [`field!`] and [`config!`].
pub const FIELDS_AT: *const Fields = &raw const FIELDS;
pub const CONFIG_AT: *const Config = &raw const CONFIG;

/// One member of [`FIELDS`], read so that the compiler does not take the initial value for the real one.
macro_rules! field {
    ($name:ident) => {{
        // SAFETY: a member of a static.
        #[allow(unused_unsafe, reason = "also used where unsafe is already open")]
        unsafe {
            core::ptr::read_volatile(&raw const (*$crate::globals::FIELDS_AT).$name)
        }
    }};
}
pub(crate) use field;

/// One member of [`CONFIG`], read as [`field!`] does.
macro_rules! config {
    ($name:ident) => {{
        // SAFETY: a member of a static.
        #[allow(unused_unsafe, reason = "also used where unsafe is already open")]
        unsafe {
            core::ptr::read_volatile(&raw const (*$crate::globals::CONFIG_AT).$name)
        }
    }};
}
pub(crate) use config;

/// Whether `--port` names this port.
#[inline(always)]
pub fn port_named(port: u16) -> bool {
    let word = (port >> 6) as usize & (PORT_WORDS - 1);
    // SAFETY: `word` is masked to the array.
    let bits = unsafe { ptr::read_volatile((&raw const PORTS).cast::<u64>().add(word)) };
    bits >> (port & 63) & 1 == 1
}

/// Everything goes through this one ring, so that its order is the order of events.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Connections by `struct sock` address. Memory follows use; `--max-connections` bounds it.
#[map]
pub static CONNS: HashMap<u64, Conn> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Finished connections whose record found the ring full, by id; the daemon collects them.
#[map]
pub static UNSENT: HashMap<u64, Conn> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

#[map]
pub static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The daemon's marks. Least recently used ones make room: a lost mark costs copies, not truth.
#[map]
pub static MARKS: LruHashMap<MarkKey, Mark> = LruHashMap::with_max_entries(65536, 0);

/// Processes already reported, by pid.
#[map]
pub static PROCESSES: LruHashMap<u32, Owner> = LruHashMap::with_max_entries(16384, 0);

/// TIME_WAIT mini-sockets by the ends as the local one sees them.
#[map]
pub static TIME_WAITS: HashMap<Tuple, TimeWait> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// By [`running`]. Attaching and detaching go one by one: what some programs see and others do not is no
/// connection's story.
#[map]
pub static RUNNING: Array<u32> = Array::with_max_entries(running::COUNT, 0);

#[inline(always)]
pub fn running() -> bool {
    RUNNING.get(running::PROGRAMS).is_some_and(|running| *running != 0)
}

/// Whether what is in no table is there because its beginning was not seen.
#[inline(always)]
pub fn tables_are_whole() -> bool {
    RUNNING.get(running::TABLES).is_some_and(|held| *held == tables::WHOLE)
}

/// Whether programs are attached that tell of TIME_WAIT.
#[inline(always)]
pub fn time_wait_is_followed() -> bool {
    RUNNING.get(running::TIME_WAIT).is_some_and(|followed| *followed != 0)
}

/// Something found no room.
#[inline(always)]
pub fn tables_are_full() {
    let _ = RUNNING.set(running::TABLES, tables::FULL, 0);
}

/// Whether the first programs at the tracepoints are perf's.
#[inline(always)]
pub fn is_by_perf() -> bool {
    config!(tcp_sock_type) != 0
}

/// The socket that a task last called `connect` on, by its pid and tgid.
#[map]
pub static CONNECTING: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);

#[map]
pub static HOSTS: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub static COMMS: HashMap<[u8; 16], u8> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// By inode; namespaces that are gone are taken out by the daemon. Allocated at once, as entries are made in programs that
/// run with the timers' lock held.
#[map]
pub static NETNS_COUNTS: HashMap<u32, NetnsCounts> = HashMap::with_max_entries(MAX_NETNS, 0);
static NO_COUNTS: NetnsCounts = NetnsCounts { cookie: 0, counts: [0; netns_count::COUNT] };

#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// An all-zero connection to insert and fill in place: it does not fit the 512-byte stack beside the rest.
pub static ZERO_CONN: Conn = Conn::ZERO;
/// The same for a flow.
pub static ZERO_FLOW: Flow = Flow::ZERO;

/// Adds to a per-CPU counter.
#[inline(always)]
pub fn count(index: u32, by: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: aligned, and only ever added to atomically: a softirq may interrupt a task's program here.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, by) };
    }
}

/// Adds to a count of a network namespace (inode, and cookie or 0) that is kept beside the kernel's own.
#[inline(never)]
pub fn count_in(netns: u32, cookie: u64, index: usize, by: u64) {
    let counts = match NETNS_COUNTS.get_ptr_mut(&netns) {
        Some(counts) => counts,
        None => {
            // Another CPU may be first.
            let _ = NETNS_COUNTS.insert(&netns, &NO_COUNTS, u64::from(BPF_NOEXIST));
            let Some(counts) = NETNS_COUNTS.get_ptr_mut(&netns) else {
                return count(counter::NETNS_FULL, 1);
            };
            counts
        }
    };
    if index < netns_count::COUNT {
        // SAFETY: a live map value and a member of its array; only ever added to atomically.
        unsafe {
            if cookie != 0 && (*counts).cookie != cookie {
                if (*counts).cookie != 0 {
                    (*counts).counts = [0; netns_count::COUNT];
                }
                (*counts).cookie = cookie;
            }
            let value = (&raw mut (*counts).counts).cast::<u64>().add(index);
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, by);
        }
    }
}

/// An id unique for the life of the programs: nanoseconds since load, with the CPU's number below.
///
/// A fetched atomic count would be shorter but needs 5.12.
#[inline(always)]
pub fn next_id(now_ns: u64) -> u64 {
    // SAFETY: a helper without arguments.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    (now_ns - config!(start_ns)) << 10 | (cpu & 1023)
}

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Hides from the compiler what it knows of a value, so that it keeps the bound check that the verifier wants to see.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // SAFETY: moves a register onto itself. (Without any instruction the object's line information would be invalid.)
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags))
    };
    value
}

/// A size, when it is from 1 to `most`, so that every verifier sees both: before 6.8 it learns nothing from a comparison
/// with 0.
#[inline(always)]
pub fn size_up_to(size: u64, most: u64) -> Option<u64> {
    let less_one = opaque(size.wrapping_sub(1));
    if less_one < most { Some(less_one + 1) } else { None }
}

/// A line of the kernel-side log; nothing at all without the feature `log`.
#[cfg(feature = "log")]
macro_rules! debug {
    ($($line:tt)*) => { aya_log_ebpf::debug!($($line)*) };
}
#[cfg(not(feature = "log"))]
macro_rules! debug {
    ($($line:tt)*) => {};
}
pub(crate) use debug;
