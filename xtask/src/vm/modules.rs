//! Kernel modules, each behind those that it needs. A package has no `modules.dep`; every module names its own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// What the tests need of the kernel. One that a kernel lacks is built in, or its test says what it misses.
const WANTED: [&str; 10] = [
    "veth",
    "tun",
    "dummy",
    "cls_bpf",
    "sch_ingress",
    "tcp_diag",
    "nf_tables",
    "nft_numgen",
    "nft_reject_ipv4",
    "nft_ct",
];

/// A module's name and its uncompressed content, in the order in which to load them.
pub fn wanted(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    list(folder, &mut files)?;
    let mut modules = Modules { files, ordered: Vec::new() };
    for name in WANTED {
        if modules.files.contains_key(name) {
            modules.add(name)?;
        }
    }
    Ok(modules.ordered)
}

struct Modules {
    files: BTreeMap<String, PathBuf>,
    ordered: Vec<(String, Vec<u8>)>,
}

impl Modules {
    fn add(&mut self, name: &str) -> Result<()> {
        if self.ordered.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        let path = self.files.get(name).with_context(|| format!("there is no module {name}"))?;
        let content = uncompressed(path)?;
        for needed in needs(&content) {
            self.add(&needed)?;
        }
        self.ordered.push((name.to_owned(), content));
        Ok(())
    }
}

/// By name, with `_` where a file's name has `-`.
fn list(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else if let Some((name, _)) =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once(".ko"))
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn uncompressed(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let output = Command::new(program).arg("-dc").arg(path).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} -dc {}: {}", path.display(), output.status);
    Ok(output.stdout)
}

/// The names behind `depends=` in its section `.modinfo`.
fn needs(content: &[u8]) -> Vec<String> {
    const LABEL: &[u8] = b"\0depends=";
    let Some(at) = content.windows(LABEL.len()).position(|bytes| bytes == LABEL) else { return Vec::new() };
    let names = content[at + LABEL.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(names);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        let info = b"\0license=GPL\0depends=inet_diag,nf-tables\0name=x\0";
        assert_eq!(needs(info), ["inet_diag", "nf_tables"]);
        assert!(needs(b"\0depends=\0").is_empty());
        assert!(needs(b"ELF").is_empty());
    }
}
