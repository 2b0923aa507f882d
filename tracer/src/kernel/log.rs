//! The kernel side's debug lines (`--features ebpf-log`), on stderr.

use aya::Ebpf;
use aya_log::EbpfLogger;

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("tracer: kernel side: {}", record.args());
    }

    fn flush(&self) {}
}

/// The log's ring, read by [`KernelLog::flush`].
pub struct KernelLog(EbpfLogger<&'static Stderr>);

impl KernelLog {
    pub fn start(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, &Stderr)
            .inspect_err(|error| eprintln!("tracer: no kernel-side log: {error}"))
            .ok()
            .map(Self)
    }

    pub fn flush(&mut self) {
        self.0.flush();
    }
}
