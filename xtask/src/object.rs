//! The kernel object: built from `tracer-ebpf`, committed beside it with a hash of what it was built from, so
//! that a stable compiler alone builds the daemon and nobody ever runs a stale object.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::{
    cmd,
    toolchain::{self, BPF_LINKER_VERSION, Toolchain},
};

/// The committed object and what is known of it, relative to the root of the repository.
const OBJECT: &str = "tracer-ebpf/tracer.bpf.o";
const RECORD: &str = "tracer-ebpf/tracer.bpf.o.sha256";

/// Not the folder of the outer cargo, which holds that one's lock.
const TARGET_DIR: &str = "target/ebpf";

/// `bpf_target_arch` shapes only `pt_regs` and the sign of `c_char` in aya-ebpf. One value for every machine
/// makes one object; programs must not read `pt_regs`.
const RUSTC_FLAGS: [&str; 4] =
    ["--cfg=bpf_target_arch=\"x86_64\"", "-Clinker=bpf-linker", "-Cdebuginfo=2", "-Clink-arg=--btf"];

/// The whole profile, so that tuning the daemon's does not change the object.
const PROFILE: [(&str, &str); 9] = [
    ("OPT_LEVEL", "3"),
    ("DEBUG", "2"),
    ("STRIP", "none"),
    ("DEBUG_ASSERTIONS", "false"),
    ("OVERFLOW_CHECKS", "false"),
    ("LTO", "false"),
    ("PANIC", "abort"),
    ("INCREMENTAL", "false"),
    ("CODEGEN_UNITS", "1"),
];

/// Builds the object and writes the committed files; with `check` compares with them instead.
pub fn build_or_check(root: &Path, check: bool) -> Result<()> {
    let sources = source_hash(root)?;
    let recorded = Record::read(root)?;
    if check && recorded.as_ref().is_none_or(|recorded| recorded.sources != sources) {
        bail!(
            "{OBJECT} is not built from the sources as they are now: run `cargo xtask build-ebpf` and commit \
             {OBJECT} and {RECORD}"
        );
    }
    let object = build(root, &root.join(TARGET_DIR), false)?;
    if !check {
        write(&root.join(OBJECT), &object)?;
        let record = Record { sources, object: sha256(&object) };
        write(&root.join(RECORD), record.to_string().as_bytes())?;
        eprintln!("{OBJECT}: {} bytes", object.len());
        return Ok(());
    }
    let committed = read(&root.join(OBJECT))?;
    if committed != object {
        let rebuilt = root.join(TARGET_DIR).join("tracer.bpf.o");
        write(&rebuilt, &object)?;
        bail!(
            "{OBJECT} ({} bytes) is not what its sources build to ({} bytes, kept as {}): run `cargo xtask \
             build-ebpf` and commit {OBJECT} and {RECORD}",
            committed.len(),
            object.len(),
            rebuilt.display()
        );
    }
    ensure!(
        recorded.is_some_and(|recorded| recorded.object == sha256(&committed)),
        "{RECORD} does not hold the hash of {OBJECT}: run `cargo xtask build-ebpf` and commit both"
    );
    eprintln!("{OBJECT} is what its sources build to ({} bytes)", object.len());
    Ok(())
}

/// The object for the daemon's build: the committed one while it matches the sources, else one built into
/// `out_dir`. With `log` always the latter: the committed object is without debug output.
pub fn for_daemon(root: &Path, out_dir: &Path, log: bool) -> Result<PathBuf> {
    let committed = root.join(OBJECT);
    if !log
        && committed.exists()
        && let Some(record) = Record::read(root)?
        && record.sources == source_hash(root)?
        && record.object == sha256(&read(&committed)?)
    {
        return Ok(committed);
    }
    let object = build(root, &out_dir.join("ebpf"), log).with_context(|| match log {
        true => {
            "the kernel object with debug output (feature `ebpf-log`) must be built from source".to_owned()
        }
        false => format!("{OBJECT} does not match the sources and must be built from them"),
    })?;
    let built = out_dir.join("tracer.bpf.o");
    write(&built, &object)?;
    Ok(built)
}

/// All that decides which object the daemon gets.
pub fn inputs(root: &Path) -> Vec<PathBuf> {
    ["tracer-ebpf", "Cargo.toml", "Cargo.lock", toolchain::PIN].map(|path| root.join(path)).into()
}

/// Lints the kernel programs, which a `clippy` for the machine's own target does not see.
pub fn clippy(root: &Path) -> Result<()> {
    let target_dir = root.join(TARGET_DIR);
    let remaps = remaps(root, &target_dir, &Toolchain::find(root)?)?;
    let mut cargo = bpf_cargo(root, "clippy", &target_dir, "log", &remaps)?;
    cmd::run(cargo.args(["--", "--deny", "warnings"]))
}

fn build(root: &Path, target_dir: &Path, log: bool) -> Result<Vec<u8>> {
    let tools = Toolchain::find(root)?;
    let remaps = remaps(root, target_dir, &tools)?;
    cmd::run(&mut bpf_cargo(root, "build", target_dir, if log { "log" } else { "programs" }, &remaps)?)?;

    let linked = target_dir.join("bpfel-unknown-none/release/tracer-ebpf");
    let stripped = target_dir.join("stripped.o");
    cmd::run(Command::new(&tools.objcopy).arg("--strip-debug").arg(&linked).arg(&stripped))
        .context("cannot strip the DWARF from the kernel object")?;
    let object = read(&stripped)?;
    ensure!(contains(&object, b".BTF.ext\0"), "the kernel object has no BTF: is bpf-linker the right one?");
    for (path, _) in &remaps {
        let bytes = path.as_os_str().as_encoded_bytes();
        ensure!(
            !contains(&object, bytes),
            "the kernel object names {}, a path of this machine",
            path.display()
        );
    }
    Ok(object)
}

fn bpf_cargo(
    root: &Path,
    verb: &str,
    target_dir: &Path,
    feature: &str,
    remaps: &[(PathBuf, &str)],
) -> Result<Command> {
    let mut cargo = cmd::pinned(root, "cargo")?;
    cargo
        .args([verb, "--quiet", "--locked", "--release", "--package", "tracer-ebpf", "--bin", "tracer-ebpf"])
        .args(["--features", feature, "--target", "bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"])
        .arg(target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        // Set to nothing, they also switch off a wrapper from the user's cargo configuration.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "");
    for (key, value) in PROFILE {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    let mut flags: Vec<String> = RUSTC_FLAGS.map(str::to_owned).into();
    for (from, to) in remaps {
        let from = from.to_str().with_context(|| format!("path {} is not UTF-8", from.display()))?;
        flags.push(format!("--remap-path-prefix={from}={to}"));
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    Ok(cargo)
}

/// What to call the folders of this machine, so that the object is the same wherever it is built. The last match
/// counts. The repository becomes `.`, where the linker still finds the sources whose lines go into the BTF for
/// the verifier's log.
fn remaps(root: &Path, target_dir: &Path, tools: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    let cargo_home = cmd::cargo_home()?;
    let mut remaps = vec![(root.to_owned(), "."), (cargo_home.clone(), "/cargo")];
    // One folder per registry, named after its address: a mirror of crates.io gets another name.
    let registries = cargo_home.join("registry/src");
    if registries.exists() {
        for entry in
            fs::read_dir(&registries).with_context(|| format!("cannot list {}", registries.display()))?
        {
            remaps.push((entry?.path(), "/registry"));
        }
    }
    remaps.push((tools.sysroot.clone(), "/rust"));
    remaps.push((target_dir.to_owned(), "/target"));
    Ok(remaps)
}

/// What the committed files say the object was built from, and what it is.
struct Record {
    sources: String,
    object: String,
}

impl Record {
    fn read(root: &Path) -> Result<Option<Self>> {
        let path = root.join(RECORD);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
        };
        Some(Self { sources: field("sources")?, object: field("object")? })
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sources, object } = self;
        writeln!(f, "sources {sources}\nobject {object}")
    }
}

/// The hash of all that shapes the object: sources, the packages it is built from, compiler, linker, flags.
fn source_hash(root: &Path) -> Result<String> {
    let crate_dir = root.join("tracer-ebpf");
    let mut files = vec![crate_dir.join("Cargo.toml")];
    rust_files(&crate_dir, &mut files)?;
    files.sort();

    let mut hash = Sha256::new();
    let mut add = |name: &str, content: &[u8]| {
        for part in [name.as_bytes(), content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    };
    for file in files {
        let name = file.strip_prefix(root).expect("the list was made below the root");
        add(&name.to_string_lossy(), &read(&file)?);
    }
    add("packages", locked_packages(&text(root, "Cargo.lock")?).as_bytes());
    add("workspace", inherited_settings(&text(root, "Cargo.toml")?).as_bytes());
    add("rustc", toolchain::pinned_rustc(root)?.as_bytes());
    add("bpf-linker", BPF_LINKER_VERSION.as_bytes());
    add("flags", format!("{RUSTC_FLAGS:?} {PROFILE:?}").as_bytes());
    Ok(hex(&hash.finalize()))
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Name, version and checksum of the packages that the object is built from, out of `Cargo.lock`.
fn locked_packages(lock: &str) -> String {
    let mut kept = String::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ")).unwrap_or_default()
        };
        let name = field("name");
        if name == "\"tracer-ebpf\"" || name.starts_with("\"aya-ebpf") {
            kept.extend([name, " ", field("version"), " ", field("checksum"), "\n"]);
        }
    }
    kept
}

/// What `tracer-ebpf` takes over from the workspace's `Cargo.toml` and `Cargo.lock` does not tell.
fn inherited_settings(manifest: &str) -> String {
    let kept = |line: &&str| line.starts_with("edition") || line.starts_with("aya-ebpf");
    manifest.lines().filter(kept).collect::<Vec<_>>().join("\n")
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn text(root: &Path, name: &str) -> Result<String> {
    let path = root.join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Leaves an unchanged file alone: its time stamp would make cargo build again.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "\
version = 4

[[package]]
name = \"aya-ebpf\"
version = \"0.2.1\"
checksum = \"c0ffee\"
dependencies = [
 \"aya-ebpf-bindings\",
]

[[package]]
name = \"clap\"
version = \"4.0.0\"
checksum = \"beef\"

[[package]]
name = \"tracer-ebpf\"
version = \"0.1.0\"
";

    /// A workspace with just what the hash looks at, removed with the value.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("tracer-object-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("tracer-ebpf/src/deep")).unwrap();
            let tree = Self(root);
            tree.put("tracer-ebpf/Cargo.toml", "[package]");
            tree.put("tracer-ebpf/src/main.rs", "fn main() {}");
            tree.put("tracer-ebpf/src/deep/a.rs", "const A: u32 = 1;");
            tree.put("Cargo.lock", LOCK);
            tree.put("Cargo.toml", "edition = \"2024\"\naya-ebpf = \"=0.2.1\"\nclap = \"4\"\n");
            tree.put(toolchain::PIN, "[toolchain]\nchannel = \"1.95.0\"\n");
            tree
        }

        fn put(&self, name: &str, content: &str) {
            fs::write(self.0.join(name), content).unwrap();
        }

        fn hash(&self) -> String {
            source_hash(&self.0).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn hash_is_the_same_in_another_folder_and_blind_to_what_does_not_matter() {
        let (one, other) = (Tree::new("one"), Tree::new("other"));
        let hash = one.hash();
        assert_eq!(other.hash(), hash);
        other.put("tracer-ebpf/tracer.bpf.o", "object");
        other.put("tracer-ebpf/src/.main.rs.swp", "editor");
        other.put("Cargo.toml", "edition = \"2024\"\naya-ebpf = \"=0.2.1\"\nclap = \"5\"\n");
        other.put("Cargo.lock", &LOCK.replace("beef", "dead"));
        assert_eq!(other.hash(), hash);
    }

    #[test]
    fn hash_changes_with_all_that_shapes_the_object() {
        let original = Tree::new("original").hash();
        let changes = [
            ("tracer-ebpf/Cargo.toml", "[package] "),
            ("tracer-ebpf/src/main.rs", "fn main() { }"),
            ("tracer-ebpf/src/deep/a.rs", "const A: u32 = 2;"),
            ("tracer-ebpf/src/deep/b.rs", ""),
            ("tracer-ebpf/build.rs", "fn main() {}"),
            ("Cargo.lock", &LOCK.replace("c0ffee", "c0ffe1")),
            ("Cargo.lock", &LOCK.replace("0.1.0", "0.2.0")),
            ("Cargo.toml", "edition = \"2027\"\naya-ebpf = \"=0.2.1\"\n"),
            (toolchain::PIN, "[toolchain]\nchannel = \"1.96.0\"\n"),
        ];
        for (number, (name, content)) in changes.into_iter().enumerate() {
            let tree = Tree::new(&format!("change{number}"));
            tree.put(name, content);
            assert_ne!(tree.hash(), original, "{name}: {content}");
        }
    }

    #[test]
    fn daemon_gets_the_committed_object_while_it_is_the_sources() {
        let tree = Tree::new("daemon");
        tree.put(OBJECT, "object");
        let record = Record { sources: tree.hash(), object: sha256(b"object") };
        tree.put(RECORD, &record.to_string());
        assert_eq!(for_daemon(&tree.0, &tree.0.join("out"), false).unwrap(), tree.0.join(OBJECT));
    }

    #[test]
    fn record_is_read_as_written() {
        let record = Record { sources: "12".into(), object: "ab".into() };
        assert_eq!(record.to_string(), "sources 12\nobject ab\n");
        let read = Record::parse(&record.to_string()).unwrap();
        assert_eq!((read.sources, read.object), (record.sources, record.object));
        assert!(Record::parse("sources 12\n").is_none());
    }
}
