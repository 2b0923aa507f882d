//! The mirrors of Debian that the machine's own apt sources name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// A mirror of Debian, as the machine's apt sources name it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    uri: String,
    /// The value of `Signed-By`, which may go on over several lines.
    signed_by: Option<String>,
}

impl Mirror {
    /// Another suite of it, as a paragraph of a `.sources` file.
    pub fn source_entry(&self, suite: &str) -> String {
        let Self { uri, signed_by } = self;
        let mut entry = format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n");
        if let Some(signed_by) = signed_by {
            entry.push_str(&format!("Signed-By: {signed_by}\n"));
        }
        entry
    }
}

/// A field of /etc/os-release.
fn os_release(name: &str) -> Result<Option<String>> {
    let os = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value = os.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    Ok(value.map(|value| value.trim_matches('"').to_owned()))
}

/// The code name of the machine's Debian release, such as `bookworm`.
pub fn release() -> Result<String> {
    ensure!(
        os_release("ID")?.as_deref() == Some("debian"),
        "this is not Debian: {}",
        os_release("PRETTY_NAME")?.as_deref().unwrap_or("unknown")
    );
    os_release("VERSION_CODENAME")?.context("/etc/os-release names no VERSION_CODENAME")
}

/// The mirrors that can have a suite: those that the machine takes its own Debian release from, or its security updates.
pub fn with_suite(suite: &str) -> Result<Vec<Mirror>> {
    let release = release()?;
    let known = ["stable", "testing", "unstable", "sid", &release];
    let security = known.map(|known| format!("{known}-security"));
    let of_the_kind: Vec<&str> = match suite.ends_with("-security") {
        true => security.iter().map(String::as_str).collect(),
        false => known.into(),
    };

    let mut mirrors: Vec<Mirror> = Vec::new();
    for file in source_files()? {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let found = match file.extension().is_some_and(|extension| extension == "sources") {
            true => mirrors_in_deb822(&text, &of_the_kind),
            false => mirrors_in_list(&text, &of_the_kind),
        };
        for mirror in found {
            if !mirrors.contains(&mirror) {
                mirrors.push(mirror);
            }
        }
    }
    ensure!(
        !mirrors.is_empty(),
        "no apt source in /etc/apt has component main of {}",
        of_the_kind.last().expect("the list is of constants and the release")
    );
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
        let entry = mirrors[0].source_entry("trixie-backports");
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
}
