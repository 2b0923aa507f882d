//! What a guest reports on its second serial port, and what its kernel complains of on the first.

use std::fmt;

use super::qemu::End;

/// One test.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Program and test.
    pub name: String,
    /// `ok`, or what went wrong; none while it runs.
    pub result: Option<String>,
    pub milliseconds: u64,
    /// What the test says is not to be had on this kernel.
    pub notes: Vec<String>,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.result.as_deref() == Some("ok")
    }

    pub fn has_ended(&self) -> bool {
        self.result.is_some()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, result, milliseconds, notes } = self;
        let seconds = *milliseconds as f64 / 1000.0;
        writeln!(f, "{seconds:8.1} s  {name}: {}", result.as_deref().unwrap_or("not ended"))?;
        notes.iter().try_for_each(|note| writeln!(f, "            {note}"))
    }
}

/// One hook of the tracer, as its `start` line tells of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Hook {
    pub name: String,
    /// How it is attached; none when it is not.
    pub way: Option<String>,
    /// Why not.
    pub reason: String,
    /// What is not known for that.
    pub lost: String,
}

impl Hook {
    /// Name, way, reason, loss, with tabs between.
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('\t').collect();
        let &[name, way, reason, lost] = &parts[..] else { return None };
        let way = (!way.is_empty()).then(|| way.to_owned());
        Some(Self { name: name.to_owned(), way, reason: reason.to_owned(), lost: lost.to_owned() })
    }
}

/// All that a guest told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `uname -r`
    pub release: Option<String>,
    pub outcomes: Vec<Outcome>,
    pub hooks: Vec<Hook>,
    /// Whether it came to the end of its plan.
    pub complete: bool,
}

impl Report {
    /// Lines: `release RELEASE`, `hook NAME…`, `begin NAME`, `note TEXT`, `end RESULT MILLISECONDS`, `complete`.
    pub fn parse(text: &str) -> Self {
        let mut report = Self::default();
        // The last line may not be whole yet.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let line = line.trim_end_matches(['\r', '\n']);
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = rest.to_owned();
            match word {
                "release" => report.release = Some(rest),
                "hook" => report.hooks.extend(Hook::parse(&rest)),
                "complete" => report.complete = true,
                "begin" => {
                    let outcome = Outcome { name: rest, result: None, milliseconds: 0, notes: Vec::new() };
                    report.outcomes.push(outcome);
                }
                "note" => {
                    if let Some(outcome) = report.outcomes.last_mut()
                        && !outcome.notes.contains(&rest)
                    {
                        outcome.notes.push(rest);
                    }
                }
                "end" => {
                    if let (Some(outcome), Some((result, time))) =
                        (report.outcomes.last_mut(), rest.rsplit_once(' '))
                    {
                        outcome.result = Some(result.to_owned());
                        outcome.milliseconds = time.parse().unwrap_or(0);
                    }
                }
                _ => {}
            }
        }
        report
    }

    /// What is wrong with the run as a whole.
    pub fn trouble(&self, end: &End, console: &str) -> Vec<String> {
        let mut trouble = Vec::new();
        if let End::Other(reason) = end {
            trouble.push(reason.clone());
        }
        if !self.complete {
            let last = self.outcomes.last().map_or("its first test", |outcome| outcome.name.as_str());
            trouble.push(format!("the guest did not come to the end of its plan, only to {last}"));
        }
        trouble.extend(complaints(console).map(|line| format!("the kernel complained: {line}")));
        trouble
    }
}

/// Lines with which the kernel tells of a fault of its own.
fn complaints(console: &str) -> impl Iterator<Item = &str> {
    const BEGINNINGS: [&str; 5] =
        ["WARNING: CPU", "WARNING: kernel", "BUG: ", "Oops", "general protection fault"];
    console.lines().filter_map(|line| {
        // `[   12.345678] TEXT`
        let text = line.split_once("] ").filter(|(time, _)| time.starts_with('['))?.1.trim();
        BEGINNINGS.iter().any(|beginning| text.starts_with(beginning)).then_some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_have_results_notes_and_times() {
        let report = Report::parse(
            "release 6.1.0-5\r\nhook a:b\ttp_btf\t\t\r\nbegin owners role\r\nnote no x\r\nnote no x\r\nend ok 1200\r\nbegin \
             owners two\r\n",
        );
        assert_eq!(report.release.as_deref(), Some("6.1.0-5"));
        let [hook] = &report.hooks[..] else { panic!("{report:?}") };
        assert_eq!((hook.name.as_str(), hook.way.as_deref()), ("a:b", Some("tp_btf")));
        let [first, second] = &report.outcomes[..] else { panic!("{report:?}") };
        assert_eq!((first.name.as_str(), first.passed(), first.milliseconds), ("owners role", true, 1200));
        assert_eq!(first.notes, ["no x"]);
        assert!(!second.passed());
        assert_eq!(report.trouble(&End::Code(0), "").len(), 1);
    }

    #[test]
    fn the_kernels_complaints_are_found() {
        let console =
            "[    1.5] WARNING: CPU: 0 PID: 1 at x.c:1\nWARNING: of a program\n[ 2.0] Oops: 0000 [#1]\n";
        assert_eq!(complaints(console).count(), 2);
    }
}
