//! The tool chain for the kernel object: the pinned rustc, the source of its `core` library, and bpf-linker.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{apt, cmd};

/// Names the one rustc version of the project.
pub const PIN: &str = "rust-toolchain.toml";
/// Its LLVM is the pinned rustc's own; the object's bytes depend on both.
pub const BPF_LINKER_VERSION: &str = "0.10.3";

/// Where the parts are. Exists only when all are there, in the right versions.
pub struct Toolchain {
    pub sysroot: PathBuf,
    pub objcopy: PathBuf,
}

impl Toolchain {
    pub fn find(root: &Path) -> Result<Self> {
        let missing = "the tool chain for the kernel object is not complete: run `cargo xtask setup`";
        let rustc = Rustc::find(root)?;
        ensure!(rustc.has_rust_src(), "{missing}\nmissing: {}", rustc.library().display());
        let linker = installed_linker(root)?;
        ensure!(
            linker.as_deref() == Some(BPF_LINKER_VERSION),
            "{missing}\nneeded: bpf-linker {BPF_LINKER_VERSION}; found: {}",
            linker.as_deref().unwrap_or("none")
        );
        let objcopy = rustc.sysroot.join("lib/rustlib").join(&rustc.host).join("bin/rust-objcopy");
        ensure!(objcopy.exists(), "rustc {} came without {}", rustc.version, objcopy.display());
        Ok(Self { sysroot: rustc.sysroot, objcopy })
    }
}

/// Installs what is missing; does nothing when all is there.
pub fn setup(root: &Path) -> Result<()> {
    let rustc = Rustc::find(root)?;
    if rustc.has_rust_src() {
        eprintln!("rust-src {}: there", rustc.version);
    } else {
        install_rust_src(root, &rustc)?;
        eprintln!("rust-src {}: installed", rustc.version);
    }
    match installed_linker(root)? {
        Some(version) if version == BPF_LINKER_VERSION => eprintln!("bpf-linker {version}: there"),
        found => install_linker(root, found.as_deref())?,
    }
    Toolchain::find(root).map(drop)
}

/// The version that `rust-toolchain.toml` pins.
pub fn pinned_rustc(root: &Path) -> Result<String> {
    let path = root.join(PIN);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let channel = text.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    Ok(channel.with_context(|| format!("{} has no line `channel = \"…\"`", path.display()))?.to_owned())
}

struct Rustc {
    version: String,
    host: String,
    sysroot: PathBuf,
}

impl Rustc {
    fn find(root: &Path) -> Result<Self> {
        let pinned = pinned_rustc(root)?;
        let told = cmd::output(cmd::pinned(root, "rustc")?.arg("-vV"))
            .with_context(|| format!("the kernel object needs rustc {pinned} ({PIN}): install rustup"))?;
        let field = |name: &str| {
            told.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::to_owned)
                .with_context(|| format!("`rustc -vV` has no line `{name}…`; it printed:\n{told}"))
        };
        let version = field("release: ")?;
        ensure!(
            version == pinned,
            "the kernel object needs rustc {pinned} ({PIN}), and `rustc` is {version}: put rustup's first in PATH"
        );
        let sysroot = cmd::output(cmd::pinned(root, "rustc")?.args(["--print", "sysroot"]))?;
        Ok(Self { version, host: field("host: ")?, sysroot: sysroot.trim_end().into() })
    }

    /// Where cargo's `-Z build-std` looks for the source of `core`.
    fn library(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }

    fn has_rust_src(&self) -> bool {
        self.library().join("Cargo.lock").exists() && self.library().join("core/src/lib.rs").exists()
    }
}

fn install_rust_src(root: &Path, rustc: &Rustc) -> Result<()> {
    eprintln!("rust-src {}: asking rustup", rustc.version);
    let rustup = match cmd::output(cmd::pinned(root, "rustup")?.args(["component", "add", "rust-src"])) {
        Ok(_) if rustc.has_rust_src() => return Ok(()),
        Ok(_) => anyhow!("says it is installed, but {} is not complete", rustc.library().display()),
        Err(error) => error,
    };
    eprintln!("rust-src {}: not from rustup; looking for Debian's package of that version", rustc.version);
    let debian = rust_src_from_debian(rustc);
    debian.map_err(|debian| {
        // Rustup prints its reason first, and, in a crash, a long trace after it.
        let rustup = format!("{rustup:#}").lines().take(6).collect::<Vec<_>>().join("\n    ");
        anyhow!(
            "cannot get rust-src {version}, the source of `core`.\n  rustup: {rustup}\n  Debian: {debian:#}\n\
             By hand: `rustup component add rust-src --toolchain {version}`, or put the folder `library` of \
             Rust {version}'s source at {}",
            rustc.library().display(),
            version = rustc.version,
        )
    })
}

fn rust_src_from_debian(rustc: &Rustc) -> Result<()> {
    let unpacked = apt::unpack("rust-src", &rustc.version, &["trixie-backports", "testing", "unstable"])?;
    let source = unpacked.path().join(format!("usr/src/rustc-{}/library", rustc.version));
    ensure!(source.exists(), "the package rust-src holds no usr/src/rustc-{}/library", rustc.version);
    let library = rustc.library();
    let parent = library.parent().expect("the path was joined from several parts");
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    // Copied beside its place and then renamed, so that an interrupted copy is never taken for the whole.
    let partial = parent.join("library.partial");
    cmd::run(Command::new("rm").arg("-rf").arg(&partial).arg(&library))?;
    cmd::run(Command::new("cp").arg("-r").arg(&source).arg(&partial))?;
    fs::rename(&partial, &library).with_context(|| format!("cannot move {} into place", partial.display()))
}

fn installed_linker(root: &Path) -> Result<Option<String>> {
    // Not there, or not able to load its LLVM: either way it must be installed.
    let Ok(told) = cmd::output(cmd::pinned(root, "bpf-linker")?.arg("--version")) else {
        return Ok(None);
    };
    Ok(told.trim().strip_prefix("bpf-linker ").map(str::to_owned))
}

fn install_linker(root: &Path, found: Option<&str>) -> Result<()> {
    match found {
        Some(found) => {
            eprintln!("bpf-linker {found}: replacing it by {BPF_LINKER_VERSION}; this takes minutes")
        }
        None => eprintln!("bpf-linker {BPF_LINKER_VERSION}: installing; this takes minutes"),
    }
    let package = format!("bpf-linker@{BPF_LINKER_VERSION}");
    let by_hand = format!("by hand: `cargo install {package} --locked` with the tool chain of {PIN}");
    cmd::run(cmd::pinned(root, "cargo")?.args(["install", "--quiet", "--locked", &package]))
        .with_context(|| format!("cannot install bpf-linker; {by_hand}"))?;
    if installed_linker(root)?.as_deref() != Some(BPF_LINKER_VERSION) {
        bail!(
            "bpf-linker was installed, but the one in PATH is another; {by_hand}, and put it first in PATH"
        );
    }
    Ok(())
}
