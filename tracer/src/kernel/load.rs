//! Loading the object and attaching it.

use anyhow::{Context, Result, anyhow, bail};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, MapData, RingBuf},
    programs::SchedClassifier,
};
use tracer_ebpf::{ABI_VERSION, CALL_CAST, Config, PORT_WORDS, running, tables};

use super::{
    calls::Calls,
    cgroup,
    hooks::{self, Hook, say},
    object::Object,
    perf,
    privileges::sees_others,
    refused,
    registers::REGISTERS,
    snapshot,
    tables::Tables,
    types::Types,
    ways::{Tier, Ways},
};
use crate::{cli::Shown, filter::Filter, netns, selfcheck};

/// The kernel programs, built from `tracer-ebpf`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TRACER_BPF_OBJECT"));

/// TIME_WAITs followed where memory for all of them is taken at once: some 20 MiB. It is the kernel's own usual bound.
const MAX_PREALLOCATED: u32 = 131_072;

/// Where segments are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Capture {
    /// On the interfaces of every network namespace, as they come and go
    Tc,
    /// At the root control group: the sockets of every network namespace
    Cgroup,
}

impl Capture {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Cgroup => "cgroup",
        }
    }
}

/// What this run wants of the kernel side.
#[derive(Clone, Debug)]
pub struct Options {
    pub filter: Filter,
    pub events: bool,
    pub payload: bool,
    pub segments: Option<Shown>,
    /// None: at the root control group, or where that is not possible by tc.
    pub capture: Option<Capture>,
    /// None: the best that this kernel allows.
    pub hooks: Option<Tier>,
    /// Size of the ring in bytes, a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    pub max_connections: u32,
}

/// The loaded programs. Dropping it detaches all of them.
pub struct Kernel {
    ebpf: Ebpf,
    pub hooks: Vec<Hook>,
    /// `enum sk_rst_reason` of this kernel.
    pub reset_reasons: Vec<(u32, String)>,
    /// Iterators that it does not run, and why.
    refused: snapshot::Refused,
    /// Why the root control group cannot be had, if it is wanted.
    pub at_root: Result<(), String>,
    calls: Calls,
    /// Where segments are captured.
    pub capture: Capture,
    /// What its counters mean.
    pub counters: selfcheck::Kernel,
    #[cfg(feature = "ebpf-log")]
    log: Option<super::log::KernelLog>,
}

impl Kernel {
    /// Loads every program into the kernel: what `tracer check` reports. Attaches only those that there are other ways for,
    /// and has none of them do anything.
    ///
    /// # Errors
    /// The kernel has no usable BTF, or refuses a map.
    pub fn check(options: &Options, capture: Capture) -> Result<Self> {
        Self::load(options, capture, false)
    }

    /// Loads and attaches every tracepoint, and enters the sockets that exist already.
    ///
    /// # Errors
    /// The kernel has no usable BTF, refuses a map, or lacks a hook that the main job needs.
    pub fn attach(options: &Options) -> Result<Self> {
        let capture = options.capture.unwrap_or(Capture::Cgroup);
        let mut kernel = Self::load(options, capture, true)?;
        if capture == Capture::Cgroup {
            match kernel.at_root.clone().and_then(|()| cgroup::attach(&mut kernel.ebpf)) {
                Ok(hook) => kernel.hooks.push(hook),
                Err(reason) if options.capture.is_some() => {
                    bail!(
                        "--capture cgroup: {reason}. Leave --capture out: then segments are read on interfaces"
                    )
                }
                Err(reason) => {
                    drop(kernel);
                    kernel = Self::load(options, Capture::Tc, true)?;
                    kernel.hooks.push(cgroup::refused(reason));
                }
            }
        }
        if let Some(hook) = kernel.hooks.iter().find(|hook| hook.required && !hook.attached) {
            bail!(
                "cannot attach {}: {}. Without it the main job cannot run; `tracer check` lists every hook and its remedy",
                hook.name,
                hook.reason.as_deref().unwrap_or("unknown reason"),
            );
        }
        kernel.running()?.set(running::PROGRAMS, 1, 0)?;
        let hooks = snapshot::existing_sockets(&mut kernel.ebpf, &kernel.refused);
        // The first pass enters them; the others say whose they are.
        let whole = hooks.first().is_some_and(|entered| entered.attached) && sees_others();
        kernel.hooks.extend(hooks);
        kernel.tables_are_whole(whole)?;
        Ok(kernel)
    }

    fn load(options: &Options, capture: Capture, attach: bool) -> Result<Self> {
        let types = Types::of_running_kernel()?;
        let limit = refused::memlock_limit(&types);
        let btf = Btf::from_sys_fs()
            .map_err(|error| anyhow!("the kernel's BTF does not parse: {}", say(&error)))?;
        let (fields, missing) = types.fields();
        let needed =
            [fields.skc_family, fields.skc_dport, fields.skc_net, fields.inet_sport, fields.net_inum];
        if needed.contains(&tracer_ebpf::MISSING) {
            bail!(
                "the kernel's type information lacks what every connection needs: {}. This kernel is not supported; \
                 please report it with the output of `uname -a`",
                missing.join(", ")
            );
        }
        let by_perf = perf::is_wanted(&types);
        let structure = |name: &str| types.structure(name).filter(|_| by_perf).unwrap_or(0);
        let config = Config {
            abi: ABI_VERSION,
            events: u32::from(options.events),
            payload: u32::from(options.payload),
            capture: match capture {
                Capture::Tc => tracer_ebpf::capture::TC,
                Capture::Cgroup => tracer_ebpf::capture::CGROUP,
            },
            segments: match options.segments {
                None => tracer_ebpf::shown::NONE,
                Some(Shown::Control) => tracer_ebpf::shown::CONTROL,
                Some(Shown::All) => tracer_ebpf::shown::ALL,
            },
            filter_ports: u32::from(!options.filter.ports.is_empty()),
            filter_hosts: u32::from(!options.filter.hosts.is_empty()),
            filter_pids: u32::from(!options.filter.pids.is_empty()),
            filter_comms: u32::from(!options.filter.comms.is_empty()),
            netns: netns::own(),
            register_first: REGISTERS.first,
            register_third: REGISTERS.third,
            register_returned: REGISTERS.returned,
            netns_cookie: match fields.net_cookie {
                tracer_ebpf::MISSING => netns::own().into(),
                _ => netns::own_cookie(),
            },
            tw_timer_handler: time_wait_timer(&types, &fields),
            wake_bytes: u64::from(options.ring_bytes) / 8,
            socket_cookies: u32::from(!by_perf && types.has_function("bpf_get_socket_ptr_cookie")),
            tcp_sock_type: structure("tcp_sock"),
            request_sock_type: structure("request_sock"),
            sk_buff_type: structure("sk_buff"),
            pad: 0,
            start_ns: monotonic_ns(),
        };
        let mut ports = [0u64; PORT_WORDS];
        for port in &options.filter.ports {
            ports[usize::from(*port) / 64] |= 1 << (port % 64);
        }
        let mut object = Object::new(OBJECT);
        let mut time_waits = options.max_connections;
        // Programs at the timers' tracepoints run with a lock of the timers held. Before 6.1 a map's new entry is memory from
        // the page allocator there, which may wake a thread, which may start a timer.
        if !types.has_structure("bpf_mem_alloc") && object.preallocate("TIME_WAITS") {
            time_waits = time_waits.min(MAX_PREALLOCATED);
        }
        object.complete_calls(CALL_CAST, types.function("bpf_rdonly_cast"));
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("FIELDS", &fields, true)
            .override_global("CONFIG", &config, true)
            .override_global("PORTS", &ports[..], true)
            .map_max_entries("RING", options.ring_bytes)
            .map_max_entries("CONNS", options.max_connections)
            .map_max_entries("FLOWS", options.max_connections)
            .map_max_entries("TIME_WAITS", time_waits)
            .load(object.bytes())
            .map_err(|error| refused::maps(&error, options, limit))?;
        #[cfg(feature = "ebpf-log")]
        let log = super::log::KernelLog::start(&mut ebpf);
        super::tables::set_filters(&mut ebpf, &options.filter)?;
        let ways = Ways::attach(&mut ebpf, &types, &btf, options.hooks)?;
        let mut hooks =
            hooks::tracepoints(&mut ebpf, &types, &btf, attach, &ways, config.tw_timer_handler != 0);
        let untold = hooks.iter().find(|hook| hook.lost == Some(hooks::TIME_WAIT));
        if let (Some(tier), Some(hook)) = (options.hooks, untold) {
            bail!(tier.refused(&format!("{}: {}", hook.name, hook.reason.as_deref().unwrap_or_default())));
        }
        let follows_time_wait = untold.is_none();
        hooks.extend(ways.hooks);
        let mut kernel = Self {
            ebpf,
            hooks,
            refused: snapshot::Refused::new(),
            at_root: Ok(()),
            calls: Calls::new(by_perf),
            capture,
            reset_reasons: types.enumerators("sk_rst_reason"),
            counters: selfcheck::Kernel {
                tw_counts_begins: types.member("inet_timewait_sock", "tw_kill").is_none(),
                shows_resets_without_socket: types.tracepoint_arguments("tcp_send_reset") == Some(3),
                follows_time_wait,
            },
            #[cfg(feature = "ebpf-log")]
            log,
        };
        kernel.running()?.set(running::TIME_WAIT, u32::from(follows_time_wait), 0)?;
        kernel
            .classifier()?
            .load()
            .map_err(|error| anyhow!("the kernel refused the classifier: {}", say(&error)))?;
        if capture == Capture::Tc {
            kernel
                .classifier_elsewhere()?
                .load()
                .map_err(|error| anyhow!("the kernel refused the classifier: {}", say(&error)))?;
        } else {
            kernel.at_root = cgroup::load(&mut kernel.ebpf);
        }
        kernel.refused = snapshot::load(&mut kernel.ebpf, &btf);
        kernel.hooks.extend(snapshot::later(&kernel.refused));
        Ok(kernel)
    }

    /// Reads the totals of open connections into the table.
    ///
    /// # Errors
    /// The iterator cannot run.
    pub fn refresh_totals(&mut self) -> Result<(), String> {
        snapshot::refresh_totals(&mut self.ebpf)
    }

    /// Has all programs end at one moment: detaching goes one by one.
    ///
    /// # Errors
    /// The object lacks the map.
    pub fn stop(&mut self) -> Result<()> {
        Ok(self.running()?.set(running::PROGRAMS, 0, 0)?)
    }

    /// What is in no table from now on is there because its beginning was not seen.
    fn tables_are_whole(&mut self, whole: bool) -> Result<()> {
        let mut running = self.running()?;
        if whole && running.get(&running::TABLES, 0)? == tables::BEGUN {
            running.set(running::TABLES, tables::WHOLE, 0)?;
        }
        Ok(())
    }

    fn running(&mut self) -> Result<Array<&mut MapData, u32>> {
        let map = self.ebpf.map_mut("RUNNING").context("the object lacks the map RUNNING")?;
        Ok(Array::try_from(map)?)
    }

    /// Finds connections whose end was missed, and has them reported.
    ///
    /// # Errors
    /// The iterator cannot run.
    pub fn reconcile(&mut self) -> Result<(), String> {
        snapshot::reconcile(&mut self.ebpf)
    }

    /// Times that the kernel did not run a program because it had interrupted it (`recursion_misses`, 5.12+).
    /// Only those that matter.
    pub fn missed(&self) -> u64 {
        let alone = self.ebpf.programs().filter(|(name, _)| !hooks::may_miss(&self.ebpf, name));
        alone.filter_map(|(_, program)| missed(program)).sum()
    }

    /// Writes out what the kernel side logged; does nothing without the feature `ebpf-log`.
    pub fn flush_log(&mut self) {
        #[cfg(feature = "ebpf-log")]
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// The tc program.
    ///
    /// # Errors
    /// The object lacks it.
    pub fn classifier(&mut self) -> Result<&mut SchedClassifier> {
        let program = self.ebpf.program_mut("segments").context("the object lacks the classifier")?;
        Ok(program.try_into()?)
    }

    /// The tc program for other network namespaces.
    ///
    /// # Errors
    /// The object lacks it.
    pub fn classifier_elsewhere(&mut self) -> Result<&mut SchedClassifier> {
        let program =
            self.ebpf.program_mut("segments_elsewhere").context("the object lacks the classifier")?;
        Ok(program.try_into()?)
    }

    /// The ring that all records come through; once.
    ///
    /// # Errors
    /// It was taken before.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>> {
        let map = self.ebpf.take_map("RING").context("the object lacks its ring")?;
        Ok(RingBuf::try_from(map)?)
    }

    /// The maps that the daemon reads and writes; once.
    ///
    /// # Errors
    /// They were taken before.
    pub fn take_tables(&mut self) -> Result<Tables> {
        Tables::take(&mut self.ebpf, self.calls)
    }

    /// Verified instructions of every loaded program, by name.
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        let mut counts: Vec<(String, u32)> = self
            .ebpf
            .programs()
            .filter_map(|(name, program)| {
                let info = program.info().ok()?;
                Some((name.to_owned(), info.verified_instruction_count()?))
            })
            .collect();
        counts.sort();
        counts
    }
}

fn missed(program: &aya::programs::Program) -> Option<u64> {
    use std::os::fd::{AsFd, AsRawFd};
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

/// `bpf_ktime_get_ns` reads CLOCK_MONOTONIC.
pub fn monotonic_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Address of `tw_timer_handler`, by which a TIME_WAIT's timer is recognised; 0 when it cannot be: the
/// symbol is hidden (`kernel.kptr_restrict`), or the kernel lacks a piece.
fn time_wait_timer(types: &Types, fields: &tracer_ebpf::Fields) -> u64 {
    let members =
        [fields.tw_timer, fields.tw_substate, fields.timer_function, fields.skc_cookie, fields.skc_refcnt];
    let hooks = ["timer_start", "timer_cancel", "timer_expire_entry"];
    if members.contains(&tracer_ebpf::MISSING)
        || hooks.iter().any(|hook| types.tracepoint_arguments(hook).is_none())
    {
        return 0;
    }
    symbol_address("tw_timer_handler").unwrap_or(0)
}

/// Looks a kernel function up in `/proc/kallsyms`.
fn symbol_address(name: &str) -> Option<u64> {
    let symbols = std::fs::read("/proc/kallsyms").ok()?;
    let needle = format!(" {name}\n");
    let at = memchr::memmem::find(&symbols, needle.as_bytes())?;
    let line = memchr::memrchr(b'\n', &symbols[..at]).map_or(0, |end| end + 1);
    let address = std::str::from_utf8(&symbols[line..at]).ok()?.split(' ').next()?;
    u64::from_str_radix(address, 16).ok()
}
