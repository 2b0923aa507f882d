//! The kernel's own counters of a network namespace, from the text of `/proc/PID/net/{snmp,netstat,sockstat}`.

use std::fs;

/// One reading, in events since the namespace was made. `None`: this kernel does not show the counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `Tcp: ActiveOpens`, SYNs sent by `connect` (`tcp_connect`).
    pub active_opens: Option<u64>,
    /// `Tcp: PassiveOpens`, sockets made for accepted SYNs (`tcp_create_openreq_child`).
    pub passive_opens: Option<u64>,
    /// `Tcp: AttemptFails`, handshakes that failed (`tcp_done`, and for request sockets `tcp_check_req`).
    pub attempt_fails: Option<u64>,
    /// `Tcp: EstabResets`, ESTABLISHED or CLOSE_WAIT to CLOSE (`tcp_set_state`).
    pub estab_resets: Option<u64>,
    /// `Tcp: OutRsts`, resets sent.
    pub out_rsts: Option<u64>,
    /// `Tcp: RetransSegs`, segments sent again, SYN and SYN-ACK included.
    pub retrans_segs: Option<u64>,
    /// `TcpExt: TCPRetransFail`, of these the ones that the layers below refused; no tracepoint before 6.17 shows them.
    pub retrans_fails: Option<u64>,
    /// `TcpExt: TW` + `TWKilled`; the second are those of less than 4 s.
    pub time_waits: Option<u64>,
    /// `TcpExt: TWRecycled`, TIME_WAITs that a `connect` took over (`__inet_check_established`).
    pub time_waits_recycled: Option<u64>,
    /// `sockstat` `TCP: tw`, TIME_WAITs at this moment, FIN_WAIT2 without an owner included.
    pub time_waits_now: Option<u64>,
}

/// In which order they are read.
pub(super) type Files = [&'static str; 3];
/// Before and after what we counted is read: what a number at a moment does in between, the counters that grow have seen.
pub(super) const BEFORE: Files = ["snmp", "netstat", "sockstat"];
pub(super) const AFTER: Files = ["sockstat", "snmp", "netstat"];

impl Counters {
    /// Reads those of the calling thread's namespace. (`/proc/self/net` would be the main thread's.)
    pub fn read(files: Files) -> Self {
        Self::read_of("thread-self", files)
    }

    /// Reads those of the namespace that a process is in, by its name in `/proc`.
    pub(super) fn read_of(process: &str, files: Files) -> Self {
        let mut text = String::new();
        for name in files {
            text.push_str(&fs::read_to_string(format!("/proc/{process}/net/{name}")).unwrap_or_default());
            text.push('\n');
        }
        Self::parse(&text)
    }

    /// A counter is behind what it was: these are another namespace's.
    pub(super) fn is_younger_than(&self, earlier: &Self) -> bool {
        let growing = |counters: &Self| {
            [
                counters.active_opens,
                counters.passive_opens,
                counters.attempt_fails,
                counters.estab_resets,
                counters.out_rsts,
                counters.retrans_segs,
                counters.time_waits,
                counters.time_waits_recycled,
            ]
        };
        growing(self).into_iter().zip(growing(earlier)).any(|(now, then)| now < then)
    }

    /// From the text of all three files; any text will do.
    pub(super) fn parse(text: &str) -> Self {
        let tcp = |name| in_columns(text, "Tcp:", name);
        let ext = |name| in_columns(text, "TcpExt:", name);
        Self {
            active_opens: tcp("ActiveOpens"),
            passive_opens: tcp("PassiveOpens"),
            attempt_fails: tcp("AttemptFails"),
            estab_resets: tcp("EstabResets"),
            out_rsts: tcp("OutRsts"),
            retrans_segs: tcp("RetransSegs"),
            retrans_fails: ext("TCPRetransFail"),
            time_waits: ext("TW").zip(ext("TWKilled")).and_then(|(long, short)| long.checked_add(short)),
            time_waits_recycled: ext("TWRecycled"),
            time_waits_now: in_pairs(text, "TCP:", "tw"),
        }
    }
}

/// `snmp` and `netstat`: a line of names, then a line of values, both behind the same word.
fn in_columns(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut columns = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
    columns.find(|(found, _)| *found == name)?.1.parse().ok()
}

/// `sockstat`: names and values in turn on one line.
fn in_pairs(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().find_map(|line| line.strip_prefix(group))?.split_ascii_whitespace();
    while let (Some(found), Some(value)) = (words.next(), words.next()) {
        if found == name {
            return value.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_kernel() {
        let text = include_str!("samples/5.10.txt");
        let expected = Counters {
            active_opens: Some(8026),
            passive_opens: Some(8022),
            attempt_fails: Some(7),
            estab_resets: Some(17),
            out_rsts: Some(11),
            retrans_segs: Some(25),
            retrans_fails: Some(2),
            time_waits: Some(8013),
            time_waits_recycled: Some(941),
            time_waits_now: Some(7069),
        };
        assert_eq!(Counters::parse(text), expected);
        // The columns of `TcpExt` move: what follows them must not.
        for text in [include_str!("samples/6.1.txt"), include_str!("samples/6.18.txt")] {
            assert_eq!(Counters::parse(text), expected);
        }
    }

    #[test]
    fn reads_the_running_kernel() {
        let Counters {
            active_opens,
            passive_opens,
            attempt_fails,
            estab_resets,
            out_rsts,
            retrans_segs,
            retrans_fails,
            time_waits,
            time_waits_recycled,
            time_waits_now,
        } = Counters::read(BEFORE);
        assert!(active_opens.is_some() && passive_opens.is_some() && attempt_fails.is_some());
        assert!(estab_resets.is_some() && out_rsts.is_some() && retrans_segs.is_some());
        assert!(retrans_fails.is_some() && time_waits.is_some() && time_waits_recycled.is_some());
        assert!(time_waits_now.is_some());
    }

    #[test]
    fn what_is_not_there_is_not_zero() {
        assert_eq!(Counters::parse(""), Counters::default());
        let names_only = Counters::parse("Tcp: ActiveOpens PassiveOpens\n");
        assert_eq!(names_only, Counters::default());
        let cut = Counters::parse("Tcp: ActiveOpens PassiveOpens OutRsts\nTcp: 5 -1\nTCP: inuse 3 tw\n");
        assert_eq!(cut, Counters { active_opens: Some(5), ..Counters::default() });
        let huge = Counters::parse(
            "TcpExt: TW TWRecycled TWKilled\nTcpExt: 18446744073709551615 18446744073709551616 1\n",
        );
        assert_eq!(huge, Counters::default());
    }

    #[test]
    fn groups_are_whole_words() {
        let text = "TcpExt: ActiveOpens\nTcpExt: 1\nMPTcp: ActiveOpens\nMPTcp: 2\nTCP: ActiveOpens 3\n";
        assert_eq!(Counters::parse(text).active_opens, None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,400}") {
            Counters::parse(&text);
        }

        #[test]
        fn text_of_the_right_words_is_survived(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "Tcp:", "TcpExt:", "TCP:", " ", "\n", "\n", "\t", "\0", "\u{2003}", "ActiveOpens", "TW", "TWKilled", "tw",
                    "0", "7", "-1", "+3", "18446744073709551615", "99999999999999999999", "1e3", "nan", "é",
                ]),
                0..60,
            ),
        ) {
            Counters::parse(&words.concat());
            Counters::parse(&words.join(" "));
        }

        #[test]
        fn cut_off_anywhere_it_is_right_or_absent(at in 0..5000_usize) {
            let text = include_str!("samples/6.18.txt");
            let whole = Counters::parse(text);
            let cut = Counters::parse(text.get(..at).unwrap_or(text));
            // A number that is cut in itself is not seen to be: the kernel writes whole files.
            for (cut, whole) in [(cut.active_opens, whole.active_opens), (cut.time_waits_now, whole.time_waits_now)] {
                prop_assert!(cut.is_none_or(|cut| whole.is_some_and(|whole| whole.to_string().starts_with(&cut.to_string()))));
            }
        }
    }
}
