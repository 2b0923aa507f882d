//! Commands: run them, and say which one failed and how.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

/// The root of the repository. Cargo tells every program it runs, build scripts too, the folder of its package.
pub fn root() -> Result<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .context("CARGO_MANIFEST_DIR is not set: start this through cargo, as `cargo xtask …`")?;
    let package = PathBuf::from(package);
    let root = package.parent().with_context(|| format!("{} has no parent folder", package.display()))?;
    Ok(root.to_owned())
}

/// Where cargo keeps its registry and what `cargo install` built.
pub fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set: set CARGO_HOME")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// Runs to the end with our own stdout and stderr.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs to the end and returns what was printed on stdout.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}\n{}", shown(command), output.status, stderr.trim_end());
    }
    String::from_utf8(output.stdout)
        .map_err(|_| anyhow!("{} printed bytes that are not UTF-8", shown(command)))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    format!("`{}`", words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
}

/// The cargo we were started by, for builds with the user's own settings.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

pub fn is_root() -> Result<bool> {
    // The kernel gives a process's folder to its effective user.
    Ok(fs::metadata("/proc/self").context("cannot look at /proc/self: is /proc mounted?")?.uid() == 0)
}

/// Whether this program is installed, be it where only root's PATH looks.
pub fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}

/// A command run as root: as it is when we are root, else through sudo.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    let program = program.as_ref();
    if is_root()? {
        return Ok(Command::new(program));
    }
    let shown = program.to_string_lossy();
    ensure!(is_installed("sudo"), "{shown} must run as root: install sudo, or start this command as root");
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}

/// A command of the pinned tool chain, started in the repository (so that rustup reads `rust-toolchain.toml`)
/// and cleaned of what an outer cargo set for its own build.
pub fn pinned(root: &Path, program: &str) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(root);
    for (key, _) in env::vars_os() {
        if key.to_str().is_some_and(belongs_to_outer_build) {
            command.env_remove(key);
        }
    }
    command.env("PATH", path_with(&cargo_home()?.join("bin"))?);
    Ok(command)
}

fn path_with(first: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(first.to_owned()).chain(env::split_paths(&path)))
        .with_context(|| format!("cannot put {} in PATH", first.display()))
}

fn belongs_to_outer_build(key: &str) -> bool {
    // These say where packages come from and how to reach them: the user's, not the outer build's.
    const KEPT: [&str; 6] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];
    // LD_LIBRARY_PATH as cargo sets it would make bpf-linker load the LLVM of another tool chain.
    const SET: [&str; 11] = [
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "LD_LIBRARY_PATH",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "MAKEFLAGS",
        "MFLAGS",
    ];
    (key.starts_with("CARGO") && !KEPT.iter().any(|kept| key.starts_with(kept)))
        || key.starts_with("RUSTC")
        || key.starts_with("RUSTDOC")
        || key.starts_with("DEP_")
        || SET.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_build_is_cleaned_away_and_the_users_settings_stay() {
        for key in [
            "RUSTC",
            "RUSTC_WRAPPER",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MAKEFLAGS",
            "CARGO",
            "TARGET",
            "DEP_X",
        ] {
            assert!(belongs_to_outer_build(key), "{key}");
        }
        for key in
            ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_INDEX", "PATH", "RUSTUP_HOME", "HOME"]
        {
            assert!(!belongs_to_outer_build(key), "{key}");
        }
    }

    #[test]
    fn failure_names_the_command() {
        let error = run(Command::new("false").arg("x")).unwrap_err().to_string();
        assert_eq!(error, "`false x` failed: exit status: 1");
    }
}
