//! The emulator. Older ones than 10 crash some kernels now and then, so where the machine has none, or an old one,
//! Debian's is unpacked into the cache; nothing is installed.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::{
    apt::{self, Archive},
    cmd,
};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
const OLDEST: u32 = 10;

const MEMORY_MIB: u32 = 1024;

/// What every x86-64 processor can, and no page tables of their own for user space or of five levels, as `max` has them:
/// emulated, those take almost as long again.
const CPU: &str = "qemu64,+rdrand";

/// A program and what it needs around it.
pub struct Qemu {
    program: PathBuf,
    /// Where its libraries and firmware are, when it is not installed.
    root: Option<PathBuf>,
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// By its own report: the code it wrote.
    Code(i32),
    /// Otherwise: it panicked or hung.
    Other(String),
}

impl Qemu {
    /// The machine's own, or Debian's in the cache, which is filled when it must be.
    pub fn find(cache: &Path) -> Result<Self> {
        let own = Self { program: PROGRAM.into(), root: None };
        if own.is_usable() {
            return Ok(own);
        }
        let root = cache.join("qemu");
        let unpacked = Self { program: root.join("usr/bin").join(PROGRAM), root: Some(root.clone()) };
        if unpacked.is_usable() {
            return Ok(unpacked);
        }
        fetch(cache, &root).with_context(|| {
            format!(
                "QEMU {OLDEST} or newer is needed ({PROGRAM}); by hand: install {PACKAGE} from a newer suite"
            )
        })?;
        ensure!(unpacked.is_usable(), "{} does not run", unpacked.program.display());
        Ok(unpacked)
    }

    fn is_usable(&self) -> bool {
        let version = cmd::output(self.command().arg("--version"));
        version.is_ok_and(|text| major(&text).is_some_and(|major| major >= OLDEST))
    }

    fn command(&self) -> Command {
        // Guests are not in a hurry; whoever works beside them may be.
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(&self.program);
        if let Some(root) = &self.root {
            let libraries = root.join("usr/lib/x86_64-linux-gnu");
            command.env("LD_LIBRARY_PATH", &libraries);
            command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(root.join(firmware)).arg("-L").arg(Path::new("/").join(firmware));
            }
        }
        command
    }

    /// Runs a guest to its end. What it prints on its first serial port goes to `console`, on the second one to `report`.
    /// `tell` gets all that was reported so far, whenever that is more.
    pub fn run(&self, boot: &Boot<'_>, tell: impl FnMut(&str)) -> Result<End> {
        let file = |path: &Path| -> Result<OsString> {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            let mut option = OsString::from("file:");
            option.push(path);
            Ok(option)
        };
        let mut command = self.command();
        // Without /dev/kvm: where that can be opened it need not work.
        command.args(["-accel", "tcg", "-cpu", CPU, "-M", "q35", "-smp", "1", "-no-reboot", "-nodefaults"]);
        command.args(["-m", &MEMORY_MIB.to_string(), "-display", "none"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"]);
        command.arg("-serial").arg(file(boot.console)?).arg("-serial").arg(file(boot.report)?);
        command.arg("-kernel").arg(boot.image).arg("-initrd").arg(boot.initramfs);
        // Where the host is busy, the kernel may find no timer working in the time that it gives it at boot.
        command.args(["-append", "console=ttyS0 panic=-1 loglevel=6 net.ifnames=0 no_timer_check"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().context("cannot start QEMU")?;
        Guest(child).wait(boot, tell)
    }
}

/// What to boot, and where its output goes.
pub struct Boot<'a> {
    pub image: &'a Path,
    pub initramfs: &'a Path,
    pub console: &'a Path,
    pub report: &'a Path,
    /// A guest that reports nothing for so long hangs.
    pub silence: Duration,
}

/// A running guest; ended when dropped.
struct Guest(Child);

impl Guest {
    fn wait(mut self, boot: &Boot<'_>, mut tell: impl FnMut(&str)) -> Result<End> {
        let mut heard = (0, Instant::now());
        loop {
            let ended = self.0.try_wait().context("cannot wait for QEMU")?;
            let report = read(boot.report)?;
            if report.len() != heard.0 {
                heard = (report.len(), Instant::now());
                tell(&report);
            }
            if let Some(status) = ended {
                // isa-debug-exit: the value written, doubled, and one.
                return Ok(match status.code() {
                    Some(code) if code % 2 == 1 => End::Code(code / 2),
                    Some(0) => End::Other("the kernel panicked, or the guest switched itself off".to_owned()),
                    _ => End::Other(format!("QEMU: {status}")),
                });
            }
            if heard.1.elapsed() > boot.silence {
                return Ok(End::Other(format!("nothing heard for {} s", boot.silence.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What a serial port wrote, which may be no text.
pub fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fetch(cache: &Path, root: &Path) -> Result<()> {
    let release = apt::release()?;
    let backports = format!("{release}-backports");
    let archive = Archive::open(&cache.join("apt").join("qemu"), &[&release, &backports])?;
    let suite = match newest_of(&release, &archive)? {
        Some(version) if major_of_package(&version).is_some_and(|major| major >= OLDEST) => release,
        _ => backports,
    };
    eprintln!("QEMU: fetching {PACKAGE} of {suite}");
    let packages = archive.download_with_dependencies(PACKAGE, &suite)?;
    let partial = root.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    for package in packages {
        apt::extract(&package, &partial)?;
    }
    let _ = fs::remove_dir_all(root);
    fs::rename(&partial, root).with_context(|| format!("cannot move {} into place", partial.display()))
}

fn newest_of(suite: &str, archive: &Archive) -> Result<Option<String>> {
    // Backports carry the release that they are for in their versions.
    let versions = archive.versions(PACKAGE)?;
    if versions.is_empty() {
        bail!("{suite} has no {PACKAGE}");
    }
    Ok(versions.into_iter().find(|version| !version.contains("~bpo")))
}

/// `QEMU emulator version 10.0.2 (…)`
fn major(text: &str) -> Option<u32> {
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// `1:10.0.2+ds-2`
fn major_of_package(version: &str) -> Option<u32> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    upstream.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some(10));
        assert_eq!(major_of_package("1:7.2+dfsg-7"), Some(7));
        assert_eq!(major_of_package("11.1.3+ds-1"), Some(11));
    }
}
