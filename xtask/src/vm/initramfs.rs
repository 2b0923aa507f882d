//! The root file system of a guest: one part for all kernels, and the modules of one.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use xtask::cmd;

use super::{
    cpio::Archive,
    kernels::Kernel,
    modules,
    plan::{self, Run},
    programs::Programs,
};

/// Where guests have the daemon.
pub const TRACER: &str = "/tracer";
/// What `tests/src/bin/guest.rs` reads.
const PLAN: &str = "/plan";
const MODULES: &str = "/modules";
const TESTS: &str = "/tests";

/// The first process, the daemon, the tests and what they call.
pub fn common(programs: &Programs, runs: &[Run<'_>], repeat: usize) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "sbin", "lib", "lib64"] {
        let usr = Path::new("usr").join(folder);
        archive.directory(&Path::new("/").join(&usr));
        archive.symlink(&Path::new("/").join(folder), &usr);
    }
    for folder in ["proc", "sys", "dev", "run", "tmp", "etc"] {
        archive.directory(&Path::new("/").join(folder));
    }
    let mut files = vec![
        (PathBuf::from("/init"), programs.init.clone()),
        (PathBuf::from(TRACER), programs.tracer.clone()),
    ];
    let used: BTreeSet<&str> = runs.iter().map(|run| run.program).collect();
    files.extend(used.iter().map(|name| (Path::new(TESTS).join(name), programs.tests[*name].clone())));
    for name in plan::PROGRAMS {
        let path = installed(name).with_context(|| format!("{name} is not installed"))?;
        files.push((merged(&path), path));
    }
    add_with_libraries(&mut archive, &files)?;
    archive.file(Path::new(PLAN), plan_text(runs, repeat).as_bytes());
    Ok(archive.finish())
}

/// The kernel's modules, named so that their order is the order in which to load them.
pub fn modules(kernel: &Kernel) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.directory(Path::new(MODULES));
    for (number, (name, content)) in modules::wanted(&kernel.modules)?.into_iter().enumerate() {
        archive.file(&Path::new(MODULES).join(format!("{number:02}-{name}.ko")), &content);
    }
    Ok(archive.finish())
}

fn plan_text(runs: &[Run<'_>], repeat: usize) -> String {
    let mut text = String::new();
    for (name, value) in plan::ENVIRONMENT {
        text.push_str(&format!("env {name} {value}\n"));
    }
    text.push_str(&format!("env TRACER_REPEAT {repeat}\nenv TRACER_PATIENCE {}\n", plan::PATIENCE));
    for Run { hooks, program, test } in runs {
        match hooks {
            None => text.push_str(&format!("test {TESTS}/{program} {test}\n")),
            Some(hooks) => text.push_str(&format!("test-by {hooks} {TESTS}/{program} {test}\n")),
        }
    }
    text
}

/// Programs, and the libraries of this machine that they are linked with.
fn add_with_libraries(archive: &mut Archive, programs: &[(PathBuf, PathBuf)]) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for (there, here) in programs {
        archive.copy(there, here)?;
        libraries.extend(linked(&cmd::output(Command::new("ldd").arg(here))?));
    }
    for library in libraries {
        archive.copy(&merged(&library), &library)?;
    }
    Ok(())
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let mut folders = system.into_iter().chain(env::split_paths(&path));
    folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()))
}

/// A guest has everything below /usr.
fn merged(path: &Path) -> PathBuf {
    if path.starts_with("/usr") {
        return path.to_owned();
    }
    Path::new("/usr").join(path.strip_prefix("/").unwrap_or(path))
}

/// The files in the output of ldd: `name => /path (address)`, or `/path (address)`.
fn linked(ldd: &str) -> impl Iterator<Item = PathBuf> {
    ldd.lines().filter_map(|line| {
        let file = line.split_once("=> ").map_or(line, |(_, file)| file).trim();
        let path = file.split_once(" (")?.0;
        path.starts_with('/').then(|| path.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(linked(ldd).collect::<Vec<_>>(), expected);
        assert_eq!(merged(&expected[1]), Path::new("/usr/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(merged(Path::new("/usr/bin/ip")), Path::new("/usr/bin/ip"));
    }
}
