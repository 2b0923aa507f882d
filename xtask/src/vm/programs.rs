//! The programs of this repository for guests: those that the host's tests run, without what only a debugger reads.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use xtask::cmd;

use super::plan::{self, Plan};
use crate::run;

/// Where they are in the cache.
const FOLDER: &str = "programs";

/// What was built.
pub struct Programs {
    pub tracer: PathBuf,
    pub init: PathBuf,
    /// Test programs by name.
    pub tests: BTreeMap<String, PathBuf>,
}

impl Programs {
    pub fn build(root: &Path, cache: &Path) -> Result<Self> {
        let tracer = run::build(root)?;
        let init = build(root, &["build", "--package", "tests", "--bin", "guest"])?;
        let names = plan::TESTS.iter().flat_map(|name| ["--test", *name]);
        let args = ["test", "--no-run", "--package", "tests"].into_iter().chain(names).collect::<Vec<_>>();
        let tests = build(root, &args)?;
        let folder = cache.join(FOLDER);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let one = |built: &BTreeMap<String, PathBuf>, name: &str| {
            let path = built.get(name).with_context(|| format!("cargo did not say where it put {name}"))?;
            strip(path, &folder.join(name))
        };
        let tests = plan::TESTS.iter().map(|name| Ok(((*name).to_owned(), one(&tests, name)?)));
        Ok(Self {
            tracer: strip(&tracer, &folder.join("tracer"))?,
            init: one(&init, "guest")?,
            tests: tests.collect::<Result<_>>()?,
        })
    }

    /// Program and name of every test that has one of the filters in its name, or of all where there are none.
    pub fn tests(&self, filters: &[String], plan: Plan) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for name in plan::TESTS {
            let program = self.tests.get(name).with_context(|| format!("no test program {name}"))?;
            let listed = cmd::output(Command::new(program).args(["--list", "--format", "terse"]))?;
            let ignored =
                cmd::output(Command::new(program).args(["--list", "--format", "terse", "--ignored"]))?;
            for test in named(&listed).filter(|test| !named(&ignored).any(|ignored| ignored == *test)) {
                let full = format!("{name} {test}");
                if !plan.has(name, test) {
                    continue;
                }
                if filters.is_empty() || filters.iter().any(|filter| full.contains(filter.as_str())) {
                    all.push((name.to_owned(), test.to_owned()));
                }
            }
        }
        ensure!(!all.is_empty(), "no test has {} in its name", filters.join(" or "));
        Ok(all)
    }
}

/// The names in `name: test`.
fn named(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| line.strip_suffix(": test"))
}

/// What cargo built, by the name of its target.
fn build(root: &Path, args: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut cargo = cmd::cargo(root);
    cargo.args(args).args(["--quiet", "--message-format=json-render-diagnostics"]);
    let messages = cmd::output(cargo.stderr(Stdio::inherit()))?;
    Ok(messages.lines().filter_map(built).collect())
}

/// A guest has all of its files in memory.
fn strip(program: &Path, stripped: &Path) -> Result<PathBuf> {
    cmd::run(Command::new("strip").arg("--strip-debug").arg("-o").arg(stripped).arg(program))?;
    Ok(stripped.to_owned())
}

/// `…"target":{…"name":"NAME"…}…"executable":"PATH"…`
fn built(message: &str) -> Option<(String, PathBuf)> {
    let between = |text: &'_ str, from: &str| -> Option<String> {
        Some(text.split_once(from)?.1.split_once('"')?.0.to_owned())
    };
    let path = between(message, "\"executable\":\"")?;
    let name = between(message.split_once("\"target\":{")?.1, "\"name\":\"")?;
    Some((name, path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_have_their_targets_names() {
        let message = concat!(
            r#"{"reason":"compiler-artifact","package_id":"x","target":{"kind":["test"],"crate_types":["bin"],"#,
            r#""name":"owners","src_path":"/x/owners.rs"},"executable":"/t/owners-12","fresh":false}"#
        );
        assert_eq!(built(message), Some(("owners".to_owned(), "/t/owners-12".into())));
        let library = r#"{"target":{"kind":["lib"],"name":"tests"},"executable":null}"#;
        assert_eq!(built(library), None);
    }
}
