//! docs/compatibility.md: what the last run of all tests on each kernel found.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use super::{
    kernels,
    report::{Hook, Report},
};

const FILE: &str = "docs/compatibility.md";

const HEAD: &str = "\
# Kernels

Written by `cargo xtask vm --docs`, which boots Debian's kernels in emulated machines and runs the integration tests there.
The tracer chooses by itself, by what a kernel offers, not by its version; `start.hooks` and `tracer check` tell the same of
the kernel at hand.

## Hooks

How each is attached; — where it cannot be, or where another one tells the same.

";

/// A kernel's series and what it told when all tests were last run on it.
struct Column {
    series: String,
    report: Report,
}

/// Its report, in the folder of its runs.
const WHOLE: &str = "whole.log";

/// Keeps a report of all tests.
pub fn keep(report: &Path) -> Result<()> {
    let kept = report.with_file_name(WHOLE);
    fs::copy(report, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
    Ok(())
}

/// Writes the file, from what is kept of each kernel: `runs` has a folder for each.
pub fn write(root: &Path, runs: &Path) -> Result<()> {
    let mut columns = Vec::new();
    for folder in fs::read_dir(runs).with_context(|| format!("cannot list {}", runs.display()))? {
        let folder = folder?;
        if let Ok(kept) = fs::read_to_string(folder.path().join(WHOLE)) {
            let series = folder.file_name().to_string_lossy().into_owned();
            columns.push(Column { series, report: Report::parse(&kept) });
        }
    }
    columns.sort_by(|one, other| kernels::compare(&one.series, &other.series));
    let path = root.join(FILE);
    fs::write(&path, text(&columns)).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("{FILE} tells of {} kernels", columns.len());
    Ok(())
}

fn text(columns: &[Column]) -> String {
    let mut text = HEAD.to_owned();
    let mut row = |name: &str, cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.collect();
        writeln!(text, "| {name} | {} |", cells.join(" | ")).expect("a String takes all");
    };
    row("", &mut columns.iter().map(|column| column.series.clone()));
    row("---", &mut columns.iter().map(|_| "---".to_owned()));
    for name in names(columns) {
        let cell = |column: &Column| hook(&column.report, name).and_then(|hook| hook.way.clone());
        row(&format!("`{name}`"), &mut columns.iter().map(|column| cell(column).unwrap_or("—".to_owned())));
    }
    let passed = |report: &Report| {
        let passed = report.outcomes.iter().filter(|outcome| outcome.passed()).count();
        format!("{passed} of {}", report.outcomes.len())
    };
    row("tests passed", &mut columns.iter().map(|column| passed(&column.report)));
    let seconds =
        |report: &Report| report.outcomes.iter().map(|outcome| outcome.milliseconds).sum::<u64>() / 1000;
    row("seconds for them", &mut columns.iter().map(|column| seconds(&column.report).to_string()));
    row("kernel", &mut columns.iter().map(|column| column.report.release.clone().unwrap_or_default()));

    for Column { series, report } in columns {
        let missing: Vec<&Hook> =
            report.hooks.iter().filter(|hook| hook.way.is_none() && !hook.lost.is_empty()).collect();
        let notes: BTreeSet<&String> = report.outcomes.iter().flat_map(|outcome| &outcome.notes).collect();
        if missing.is_empty() && notes.is_empty() {
            continue;
        }
        write!(text, "\n## Less on {series}\n\n").expect("a String takes all");
        for Hook { name, reason, lost, .. } in missing {
            writeln!(text, "- `{name}`: {reason}. Not known for that: {lost}.").expect("a String takes all");
        }
        for note in notes {
            writeln!(text, "- Tests: {note}.").expect("a String takes all");
        }
    }
    text
}

/// Of all hooks, in the order in which kernels tell of them.
fn names(columns: &[Column]) -> Vec<&str> {
    let mut names = Vec::new();
    for hook in columns.iter().flat_map(|column| &column.report.hooks) {
        if !names.contains(&hook.name.as_str()) {
            names.push(hook.name.as_str());
        }
    }
    names
}

fn hook<'a>(report: &'a Report, name: &str) -> Option<&'a Hook> {
    report.hooks.iter().find(|hook| hook.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_has_a_row_and_what_is_missing_a_reason() {
        let old = Report::parse(
            "release 5.10.0-1\nhook a:b\ttp_btf\t\t\nhook c:d\t\tnone here\tsome\nbegin x y\nnote less of z\nend ok 1\n",
        );
        let new = Report::parse("release 6.12.9\nhook a:b\ttp_btf\t\t\nhook c:d\ttp_btf\t\t\n");
        let [old, new] = [("5.10", old), ("6.12", new)];
        let column = |(series, report): (&str, Report)| Column { series: series.to_owned(), report };
        let text = text(&[column(old), column(new)]);
        for line in [
            "|  | 5.10 | 6.12 |",
            "| `c:d` | — | tp_btf |",
            "| tests passed | 1 of 1 | 0 of 0 |",
            "| seconds for them | 0 | 0 |",
            "- `c:d`: none here. Not known for that: some.",
            "- Tests: less of z.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("Less on 6.12"));
    }
}
