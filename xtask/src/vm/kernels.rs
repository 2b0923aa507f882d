//! Debian's kernels: the newest of a series that some suite has, unpacked into the cache.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use xtask::apt::{self, Archive};

/// The first one that has kernels of a series counts.
const SUITES: [&str; 4] = ["bookworm-security", "trixie-security", "trixie-backports", "bullseye-security"];

/// The kind of kernel: a small one for virtual machines.
const FLAVOUR: &str = "-cloud-amd64";

/// Newer kernels are split into these; a part that a release does not have is in another one.
const PARTS: [&str; 4] = ["linux-image-", "linux-base-", "linux-binary-", "linux-modules-"];

/// How long an answer of the archive is good for.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// A kernel, unpacked.
#[derive(Debug)]
pub struct Kernel {
    /// Such as `6.12.9+deb12-cloud-amd64`: `uname -r`.
    pub release: String,
    pub image: PathBuf,
    /// The folder `kernel` of its modules.
    pub modules: PathBuf,
}

/// The suites' lists, fetched when they are needed first.
pub struct Kernels {
    cache: PathBuf,
    archives: Vec<(&'static str, Option<Result<Archive, String>>)>,
}

impl Kernels {
    pub fn new(cache: &Path) -> Self {
        let archives = SUITES.iter().map(|suite| (*suite, None)).collect();
        Self { cache: cache.to_owned(), archives }
    }

    /// The newest kernel of a series such as `6.12`. One that was found within a day is taken again; so is an older
    /// one when the archive cannot be asked.
    pub fn find(&mut self, series: &str) -> Result<Kernel> {
        let folder = self.cache.join("kernels").join(series);
        let name = folder.join("newest");
        let known = fs::read_to_string(&name).ok().and_then(|release| {
            let found = unpacked(&folder, release.trim()).ok()?;
            let age = SystemTime::now().duration_since(fs::metadata(&name).ok()?.modified().ok()?);
            Some((found, age.unwrap_or_default()))
        });
        if let Some((found, age)) = known {
            if age < FRESH {
                return Ok(found);
            }
            return self.fetch(series, &folder).or_else(|error| {
                eprintln!(
                    "{series}: {} from the cache, as no newer one can be had: {error:#}",
                    found.release
                );
                Ok(found)
            });
        }
        self.fetch(series, &folder)
    }

    fn fetch(&mut self, series: &str, folder: &Path) -> Result<Kernel> {
        let (archive, release) = self.newest(series)?;
        if unpacked(folder, &release).is_err() {
            let partial = folder.join("partial");
            let _ = fs::remove_dir_all(&partial);
            for part in PARTS {
                let package = format!("{part}{release}");
                if let Some(version) = archive.versions(&package)?.first() {
                    apt::extract(&archive.download(&package, version)?, &partial)?;
                }
            }
            // Renamed when complete, so that an interrupted unpacking is never taken for the whole.
            let whole = folder.join(&release);
            let _ = fs::remove_dir_all(&whole);
            fs::rename(&partial, &whole)
                .with_context(|| format!("cannot move {} into place", partial.display()))?;
        }
        let name = folder.join("newest");
        fs::write(&name, &release).with_context(|| format!("cannot write {}", name.display()))?;
        unpacked(folder, &release)
    }

    /// The archive and the release.
    fn newest(&mut self, series: &str) -> Result<(&Archive, String)> {
        let mut reasons = String::new();
        let mut found = None;
        for (index, (suite, archive)) in self.archives.iter_mut().enumerate() {
            let opened = archive.get_or_insert_with(|| {
                let dir = self.cache.join("apt").join(*suite);
                Archive::open(&dir, &[*suite]).map_err(|error| format!("{error:#}"))
            });
            let newest = match opened {
                Ok(archive) => newest(&archive.names(&format!("{}{series}", PARTS[0]))?, series),
                Err(error) => {
                    let first = error.lines().next().unwrap_or_default();
                    reasons.push_str(&format!("\n    {suite}: {first}"));
                    continue;
                }
            };
            if let Some(release) = newest {
                found = Some((index, release));
                break;
            }
            reasons.push_str(&format!("\n    {suite}: has none"));
        }
        if let Some((index, release)) = found
            && let Some(Ok(archive)) = &self.archives[index].1
        {
            return Ok((archive, release));
        }
        bail!("no suite has a kernel {series}:{reasons}")
    }
}

/// The newest release of a series among packages' names. Names without a full version only refer to others.
fn newest(names: &[String], series: &str) -> Option<String> {
    let releases = names.iter().filter_map(|name| {
        let release = name.strip_prefix(PARTS[0])?;
        let rest = release.strip_suffix(FLAVOUR)?.strip_prefix(series)?;
        rest.starts_with('.').then_some(release)
    });
    releases.max_by(|one, other| compare(one, other)).map(str::to_owned)
}

/// By the numbers in them.
pub fn compare(one: &str, other: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(one).cmp(&numbers(other))
}

fn unpacked(folder: &Path, release: &str) -> Result<Kernel> {
    let root = folder.join(release);
    let find = |places: [String; 2]| {
        let places = places.map(|place| root.join(place));
        let missing = || format!("{release}: no {}", places[0].display());
        places.iter().find(|place| place.exists()).cloned().with_context(missing)
    };
    Ok(Kernel {
        release: release.to_owned(),
        image: find([format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")])?,
        modules: find([
            format!("lib/modules/{release}/kernel"),
            format!("usr/lib/modules/{release}/kernel"),
        ])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_is_by_number_and_of_the_series() {
        let names = [
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-60-cloud-amd64-dbg",
            "linux-image-6.1.0-61-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.95+deb12-cloud-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&names, "6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest(&names, "6.12").as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest(&names, "6.2"), None);
    }
}
