//! Debian packages of a suite that the machine does not use: a private apt state, and the machine's own mirror.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cmd;

/// A mirror of Debian, as the machine's apt sources name it.
#[derive(Debug, Clone, PartialEq)]
struct Mirror {
    uri: String,
    /// The value of `Signed-By`, which may go on over several lines.
    signed_by: Option<String>,
}

/// A folder below the system's temporary one, removed with the value.
pub struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Result<Self> {
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
    let mirrors = debian_mirrors()?;
    let mut reasons = String::new();
    for mirror in &mirrors {
        for suite in suites {
            let dir = TempDir::new(package)?;
            match unpack_from(&dir, mirror, suite, package, upstream) {
                Ok(()) => return Ok(dir),
                Err(error) => reasons.push_str(&format!("\n    {suite}: {error:#}")),
            }
        }
    }
    bail!("no suite has {package} {upstream}:{reasons}")
}

fn unpack_from(dir: &TempDir, mirror: &Mirror, suite: &str, package: &str, upstream: &str) -> Result<()> {
    let dir = dir.path();
    for folder in ["lists/partial", "cache/archives/partial", "state"] {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for (file, content) in [("private.sources", source_entry(mirror, suite)), ("state/status", String::new())]
    {
        fs::write(dir.join(file), content)
            .with_context(|| format!("cannot write {}", dir.join(file).display()))?;
    }
    cmd::output(private(dir, "apt-get").args(["--quiet", "update"]))?;
    let offered = cmd::output(private(dir, "apt-cache").args(["madison", package]))?;
    let version = offered_versions(&offered)
        .find(|version| has_upstream(version, upstream))
        .with_context(|| format!("has no {package} {upstream}"))?;
    cmd::output(private(dir, "apt-get").args(["--quiet", "download", &format!("{package}={version}")]))?;
    let mut debs = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            debs.push(path);
        }
    }
    ensure!(debs.len() == 1, "apt-get download left {} packages in {}", debs.len(), dir.display());
    cmd::output(Command::new("dpkg").arg("-x").arg(&debs[0]).arg(dir)).map(drop)
}

/// An apt that reads and writes nothing of the machine's own state.
fn private(dir: &Path, program: &str) -> Command {
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

fn source_entry(mirror: &Mirror, suite: &str) -> String {
    let Mirror { uri, signed_by } = mirror;
    let mut entry = format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n");
    if let Some(signed_by) = signed_by {
        entry.push_str(&format!("Signed-By: {signed_by}\n"));
    }
    entry
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

/// The mirrors that the machine takes its own Debian release from.
fn debian_mirrors() -> Result<Vec<Mirror>> {
    let os = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let field = |name: &str| {
        os.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    };
    ensure!(
        field("ID") == Some("debian"),
        "this is not Debian: {:?}",
        field("PRETTY_NAME").unwrap_or("unknown")
    );
    let mut suites = vec!["stable", "testing", "unstable", "sid"];
    suites.extend(field("VERSION_CODENAME"));

    let mut mirrors: Vec<Mirror> = Vec::new();
    for file in source_files()? {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let found = match file.extension().is_some_and(|extension| extension == "sources") {
            true => mirrors_in_deb822(&text, &suites),
            false => mirrors_in_list(&text, &suites),
        };
        for mirror in found {
            if !mirrors.contains(&mirror) {
                mirrors.push(mirror);
            }
        }
    }
    ensure!(!mirrors.is_empty(), "no apt source in /etc/apt has component main of this Debian release");
    Ok(mirrors)
}

fn source_files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let main = PathBuf::from("/etc/apt/sources.list");
    if main.exists() {
        files.push(main);
    }
    let parts = Path::new("/etc/apt/sources.list.d");
    if parts.exists() {
        for entry in fs::read_dir(parts).with_context(|| format!("cannot list {}", parts.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "list" || extension == "sources") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// One line: `deb [option=value …] uri suite component…`.
fn mirrors_in_list(text: &str, suites: &[&str]) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t'])) else {
            continue;
        };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            continue;
        };
        if suites.contains(&suite) && words.any(|component| component == "main") && fetchable(uri) {
            let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
            mirrors.push(Mirror {
                uri: uri.to_owned(),
                signed_by: signed_by.map(|keys| keys.replace(',', " ")),
            });
        }
    }
    mirrors
}

/// Paragraphs of `Field: value`, where a value goes on in lines that begin with a space.
fn mirrors_in_deb822(text: &str, suites: &[&str]) -> Vec<Mirror> {
    let text: String =
        text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line.trim_end(), "\n"]).collect();
    let mut mirrors = Vec::new();
    for paragraph in text.split("\n\n") {
        let has = |name: &str, wanted: &[&str]| {
            deb822_field(paragraph, name)
                .is_some_and(|value| value.split_whitespace().any(|word| wanted.contains(&word)))
        };
        if !has("Types", &["deb"]) || !has("Suites", suites) || !has("Components", &["main"]) {
            continue;
        }
        if has("Enabled", &["no", "false", "0"]) {
            continue;
        }
        let signed_by = deb822_field(paragraph, "Signed-By");
        for uri in deb822_field(paragraph, "URIs").unwrap_or_default().split_whitespace() {
            if fetchable(uri) {
                mirrors.push(Mirror { uri: uri.to_owned(), signed_by: signed_by.clone() });
            }
        }
    }
    mirrors
}

fn deb822_field(paragraph: &str, name: &str) -> Option<String> {
    let mut lines = paragraph
        .lines()
        .skip_while(|line| line.split_once(':').is_none_or(|(field, _)| !field.eq_ignore_ascii_case(name)));
    let (_, first) = lines.next()?.split_once(':')?;
    let mut value = first.trim().to_owned();
    for line in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        value.push('\n');
        value.push_str(line);
    }
    Some(value)
}

/// A disc or a folder holds only the suites it was made with.
fn fetchable(uri: &str) -> bool {
    !uri.starts_with("cdrom:") && !uri.starts_with("file:") && !uri.starts_with("copy:")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITES: [&str; 2] = ["stable", "bookworm"];

    fn mirror(uri: &str, signed_by: Option<&str>) -> Mirror {
        Mirror { uri: uri.into(), signed_by: signed_by.map(str::to_owned) }
    }

    #[test]
    fn deb822_gives_the_mirror_of_the_release_only() {
        let text = "\
# written by an installer
Types: deb deb-src
# where it came from
URIs: http://a.example/debian http://b.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /k/debian.gpg

Types: deb
URIs: http://a.example/debian-security
Suites: bookworm-security
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://vendor.example/apt
Suites: bookworm
Components: vendor
";
        let keys = Some("/k/debian.gpg");
        let expected = [mirror("http://a.example/debian", keys), mirror("http://b.example/debian", keys)];
        assert_eq!(mirrors_in_deb822(text, &SUITES), expected);
    }

    #[test]
    fn deb822_keeps_a_key_of_several_lines() {
        let text = "types: deb\nuris: http://a.example/debian\nsuites: stable\ncomponents: main\n\
                    signed-by:\n -----BEGIN\n .\n abc\n";
        let mirrors = mirrors_in_deb822(text, &SUITES);
        assert_eq!(mirrors, [mirror("http://a.example/debian", Some("\n -----BEGIN\n .\n abc"))]);
        let entry = source_entry(&mirrors[0], "trixie-backports");
        assert!(entry.ends_with("Components: main\nSigned-By: \n -----BEGIN\n .\n abc\n"), "{entry}");
        assert!(entry.contains("\nSuites: trixie-backports\n"), "{entry}");
    }

    #[test]
    fn list_gives_the_mirror_of_the_release_only() {
        let text = "\
# deb http://commented.example/debian bookworm main
deb\thttp://a.example/debian bookworm main contrib # ours
deb [arch=amd64 signed-by=/k/1.gpg,/k/2.gpg] http://b.example/debian stable main
deb-src http://source.example/debian bookworm main
deb http://a.example/debian bookworm-updates main
deb http://vendor.example/apt bookworm vendor
deb cdrom:[Debian]/ bookworm main
deb file:/srv/debian bookworm main
deb http://incomplete.example
";
        let expected = [
            mirror("http://a.example/debian", None),
            mirror("http://b.example/debian", Some("/k/1.gpg /k/2.gpg")),
        ];
        assert_eq!(mirrors_in_list(text, &SUITES), expected);
    }

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
