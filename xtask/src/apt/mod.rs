//! Debian packages of a suite that the machine does not use: a private apt state, and the machine's own mirror.

mod mirrors;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

pub use self::mirrors::release;
use crate::cmd;

/// A folder below the system's temporary one, removed with the value.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> Result<Self> {
        let path = env::temp_dir().join(format!("tracer-{name}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Nothing depends on it; the system clears its temporary folder in time.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Fetches the package of this upstream version from the first suite that has it, and unpacks it without
/// installing it. Needs no root.
pub fn unpack(package: &str, upstream: &str, suites: &[&str]) -> Result<TempDir> {
    let mut reasons = String::new();
    for suite in suites {
        let dir = TempDir::new(package)?;
        match unpack_from(&dir, suite, package, upstream) {
            Ok(()) => return Ok(dir),
            Err(error) => reasons.push_str(&format!("\n    {suite}: {error:#}")),
        }
    }
    bail!("no suite has {package} {upstream}:{reasons}")
}

fn unpack_from(dir: &TempDir, suite: &str, package: &str, upstream: &str) -> Result<()> {
    let archive = Archive::open(&dir.path().join("apt"), &[suite])?;
    let versions = archive.versions(package)?;
    let version = versions
        .iter()
        .find(|version| has_upstream(version, upstream))
        .with_context(|| format!("has no {package} {upstream}"))?;
    extract(&archive.download(package, version)?, dir.path())
}

/// Takes a package's files out of it.
pub fn extract(package: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    cmd::output(Command::new("dpkg").arg("-x").arg(package).arg(to)).map(drop)
}

/// Suites of Debian, with an apt state of their own in a folder.
pub struct Archive {
    dir: PathBuf,
}

impl Archive {
    /// Fetches the lists of all suites, from every mirror that may have them.
    pub fn open(dir: &Path, suites: &[&str]) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial", "state"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut sources = String::new();
        for suite in suites {
            for mirror in mirrors::with_suite(suite)? {
                sources.push_str(&mirror.source_entry(suite));
                sources.push('\n');
            }
        }
        for (file, content) in [("private.sources", sources), ("state/status", String::new())] {
            let file = dir.join(file);
            fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let archive = Self { dir: dir.to_owned() };
        cmd::output(archive.apt("apt-get").args(["--quiet", "update"]))?;
        Ok(archive)
    }

    /// Names of packages that begin so.
    pub fn names(&self, beginning: &str) -> Result<Vec<String>> {
        let names = cmd::output(self.apt("apt-cache").args(["pkgnames", beginning]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The versions of a package, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let offered = cmd::output(self.apt("apt-cache").args(["madison", package]))?;
        Ok(offered_versions(&offered).map(str::to_owned).collect())
    }

    /// Where it puts the package.
    pub fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        // The file gets its name from apt; in a folder of its own it is found.
        let to = self.dir.join("download").join(package);
        let _ = fs::remove_dir_all(&to);
        fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
        let wanted = format!("{package}={version}");
        cmd::output(self.apt("apt-get").current_dir(&to).args(["--quiet", "download", &wanted]))?;
        let mut packages = packages_in(&to)?;
        ensure!(packages.len() == 1, "apt-get download left {} packages in {}", packages.len(), to.display());
        Ok(packages.remove(0))
    }

    /// Downloads what installing a package of a suite would add to this machine; nothing is installed.
    pub fn download_with_dependencies(&self, package: &str, suite: &str) -> Result<Vec<PathBuf>> {
        let mut command = self.apt("apt-get");
        command.args(["-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "Debug::NoLocking=1"]);
        command.args(["--quiet", "--yes", "--no-install-recommends", "--download-only", "-t", suite]);
        cmd::output(command.args(["--reinstall", "install", package]))?;
        packages_in(&self.dir.join("cache/archives"))
    }

    /// An apt that reads and writes nothing of the machine's own state.
    fn apt(&self, program: &str) -> Command {
        let dir = &self.dir;
        let mut command = Command::new(program);
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        command.current_dir(dir).env("LC_ALL", "C").args([
            "-o",
            &option("Dir::Etc::sourcelist", &dir.join("private.sources")),
            "-o",
            "Dir::Etc::sourceparts=/dev/null",
            "-o",
            &option("Dir::State", &dir.join("state")),
            "-o",
            &option("Dir::State::lists", &dir.join("lists")),
            "-o",
            &option("Dir::State::status", &dir.join("state/status")),
            "-o",
            &option("Dir::Cache", &dir.join("cache")),
            // Apt's own unprivileged user cannot write to the folder of whoever runs this.
            "-o",
            "APT::Sandbox::User=",
        ]);
        command
    }
}

fn packages_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    Ok(packages)
}

/// The versions in the output of `apt-cache madison`: `package | version | where`.
fn offered_versions(madison: &str) -> impl Iterator<Item = &str> {
    madison.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim)
}

/// Whether a Debian version (`[epoch:]upstream[+extra][-revision]`) is of this upstream release, not of a
/// pre-release (`~`) or a longer number.
fn has_upstream(version: &str, upstream: &str) -> bool {
    let version = version.split_once(':').map_or(version, |(_epoch, version)| version);
    version.strip_prefix(upstream).is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_matches_only_the_same_release() {
        for version in ["1.95.0", "1.95.0-1", "1.95.0+dfsg1-2~bpo13+1", "2:1.95.0+dfsg1-1"] {
            assert!(has_upstream(version, "1.95.0"), "{version}");
        }
        for version in ["1.95.0~beta.5+dfsg1-1", "1.95.01-1", "1.95.0.1-1", "1.95.1-1", "11.95.0-1", "1.9-1"]
        {
            assert!(!has_upstream(version, "1.95.0"), "{version}");
        }
    }

    #[test]
    fn offered_versions_are_the_second_column() {
        let madison = " rust-src | 1.95.0+dfsg1-2 | http://a.example/debian x/main amd64 Packages\n\
                       \x20 rust-src | 1.85.0-1 | http://a.example/debian y/main amd64 Packages\n";
        assert_eq!(offered_versions(madison).collect::<Vec<_>>(), ["1.95.0+dfsg1-2", "1.85.0-1"]);
    }
}
