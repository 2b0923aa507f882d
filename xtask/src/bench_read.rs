//! `cargo xtask bench read`: `tracer read`, tshark and tcpflow on the same capture file.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    mem::MaybeUninit,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use xtask::cmd;

use crate::run;

const CAPTURE_BYTES: u64 = 1 << 30;
/// tshark gets the capture's first bytes only, as it would take many minutes.
const TSHARK_BYTES: u64 = 64 << 20;
/// Segments as an offload leaves them.
const SEGMENT: usize = 60_000;
const SMALL: usize = 500;
const LARGE: usize = 10 << 20;
/// Exchanges without much content to one with a lot of it: half of the bytes each.
const SMALL_PER_LARGE: usize = 10_000;
const PER_CONNECTION: usize = 100;

/// What one program took.
struct Cost {
    name: &'static str,
    seconds: f64,
    bytes: u64,
    max_rss_kib: i64,
    note: &'static str,
}

pub fn bench(root: &Path) -> Result<()> {
    let tracer = run::build(root)?;
    let folder = tracer.parent().context("a folder")?.join("bench-read");
    fs::create_dir_all(&folder)?;
    let outcome = measure(&tracer, &folder);
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    outcome
}

fn measure(tracer: &Path, folder: &Path) -> Result<()> {
    let (whole, prefix) = (folder.join("whole.pcap"), folder.join("prefix.pcap"));
    let exchanges = capture(&whole, CAPTURE_BYTES)?;
    capture(&prefix, TSHARK_BYTES)?;
    eprintln!(
        "capture: {} MiB, {exchanges} exchanges: for each with {} MiB of content, {SMALL_PER_LARGE} with {SMALL} bytes; \
         {PER_CONNECTION} on a connection, segments of up to {SEGMENT} bytes",
        CAPTURE_BYTES >> 20,
        LARGE >> 20
    );
    let mut costs = Vec::new();
    for (file, note) in [(&whole, ""), (&prefix, "prefix")] {
        let mut command = Command::new(tracer);
        command.arg("read").arg(file).args(["-o", "/dev/null"]);
        costs.push(cost("tracer read", &mut command, file, note)?);
    }
    if cmd::is_installed("tshark") {
        let mut command = Command::new("tshark");
        command.args(["-n", "-Y", "http", "-T", "json", "-J", "http", "-r"]).arg(&prefix);
        costs.push(cost("tshark -Y http -T json", &mut command, &prefix, "prefix")?);
    } else {
        eprintln!("tshark: not installed, so not measured (apt-get install tshark)");
    }
    if cmd::is_installed("tcpflow") {
        let mut command = Command::new("tcpflow");
        // The content of each connection, and nothing decoded of it.
        command.arg("-r").arg(&whole).arg("-o").arg(folder.join("flows"));
        costs.push(cost("tcpflow", &mut command, &whole, "writes the content")?);
    } else {
        eprintln!("tcpflow: not installed, so not measured (apt-get install tcpflow)");
    }
    println!("{:24} {:>8} {:>8} {:>8} {:>8}", "", "s", "MiB/s", "times", "MiB RSS");
    let best = costs.first().map_or(1.0, Cost::speed);
    for cost in &costs {
        println!(
            "{:24} {:8.2} {:8.1} {:8.3} {:8.1}  {}",
            cost.name,
            cost.seconds,
            cost.speed(),
            cost.speed() / best,
            cost.max_rss_kib as f64 / 1024.0,
            cost.note
        );
    }
    Ok(())
}

impl Cost {
    fn speed(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.seconds
    }
}

/// Runs a program to its end, without its output, and asks the kernel what it took. What this program itself had in
/// memory when it started the other counts as well, so it is kept small.
fn cost(name: &'static str, command: &mut Command, file: &Path, note: &'static str) -> Result<Cost> {
    // Not the disk's speed.
    std::io::copy(&mut File::open(file)?, &mut std::io::sink())?;
    let begin = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let pid = child.with_context(|| format!("cannot start {name}"))?.id();
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: our own child, which nobody else waits for; both places are ours, and any bytes are an `rusage`.
    let (waited, usage) = unsafe {
        let waited = libc::wait4(pid.cast_signed(), &mut status, 0, usage.as_mut_ptr());
        (waited, usage.assume_init())
    };
    ensure!(waited == pid.cast_signed(), "cannot wait for {name}: {}", std::io::Error::last_os_error());
    let status = ExitStatus::from_raw(status);
    ensure!(status.success(), "{name}: {status}");
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Cost { name, seconds, bytes: fs::metadata(file)?.len(), max_rss_kib: usage.ru_maxrss, note })
}

/// Writes a capture of this size, and returns the number of exchanges. Small and large ones alternate in such a way
/// that every part of it has about the same of both.
fn capture(path: &PathBuf, size: u64) -> Result<usize> {
    let mut file = Capture::new(path)?;
    let mut exchanges = 0;
    while file.written < size {
        let connection = exchanges / PER_CONNECTION;
        let large = exchanges % SMALL_PER_LARGE == SMALL_PER_LARGE / 2;
        if exchanges % PER_CONNECTION == 0 {
            file.open(connection)?;
        }
        file.exchange(exchanges, if large { LARGE } else { SMALL })?;
        exchanges += 1;
        if exchanges % PER_CONNECTION == 0 {
            file.close()?;
        }
    }
    file.out.flush()?;
    Ok(exchanges)
}

/// A pcap file with one connection at a time.
struct Capture {
    out: BufWriter<File>,
    written: u64,
    time_us: u64,
    client: [u8; 4],
    port: u16,
    /// Next sequence number of each end.
    next: [u32; 2],
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;

impl Capture {
    fn new(path: &PathBuf) -> Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        // Microseconds, Ethernet.
        let head: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1];
        head.iter().try_for_each(|word| out.write_all(&word.to_le_bytes()))?;
        Ok(Self { out, written: 24, time_us: 0, client: [10, 0, 0, 1], port: 0, next: [0; 2] })
    }

    fn open(&mut self, connection: usize) -> Result<()> {
        let host = connection / 20_000;
        self.client = [10, 1, (host >> 8) as u8, host as u8];
        self.port = 20_000 + (connection % 20_000) as u16;
        self.next = [1000, 2000];
        self.segment(0, SYN, &[])?;
        self.segment(1, SYN | ACK, &[])?;
        self.segment(0, ACK, &[])
    }

    fn close(&mut self) -> Result<()> {
        self.segment(0, FIN | ACK, &[])?;
        self.segment(1, FIN | ACK, &[])?;
        self.segment(0, ACK, &[])
    }

    fn exchange(&mut self, number: usize, content: usize) -> Result<()> {
        let request = format!("GET /item/{number} HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n");
        self.segment(0, ACK, request.as_bytes())?;
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {content}\r\n\r\n");
        let mut rest = content;
        let mut payload = head.into_bytes();
        loop {
            let part = rest.min(SEGMENT - payload.len());
            payload.resize(payload.len() + part, b'x');
            self.segment(1, ACK, &payload)?;
            rest -= part;
            if rest == 0 {
                break;
            }
            payload.clear();
        }
        self.segment(0, ACK, &[])
    }

    fn segment(&mut self, end: usize, flags: u8, payload: &[u8]) -> Result<()> {
        let server = [10, 0, 0, 2];
        let ends = [(self.client, self.port), (server, 80)];
        let ((from, from_port), (to, to_port)) = (ends[end], ends[1 - end]);
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        frame.extend((40 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend([from, to].concat());
        frame.extend([from_port.to_be_bytes(), to_port.to_be_bytes()].concat());
        let ack = if flags & ACK == 0 { 0 } else { self.next[1 - end] };
        frame.extend([self.next[end].to_be_bytes(), ack.to_be_bytes()].concat());
        frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend(payload);
        let taken = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.next[end] = self.next[end].wrapping_add(taken);
        self.time_us += 20;
        let len = frame.len() as u32;
        for word in [(self.time_us / 1_000_000) as u32, (self.time_us % 1_000_000) as u32, len, len] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(&frame)?;
        self.written += 16 + u64::from(len);
        Ok(())
    }
}
