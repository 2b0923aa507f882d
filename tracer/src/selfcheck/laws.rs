//! Which of our totals must equal which counter of the kernel.

use super::{Kernel, Ours, counters::Counters};

/// One equality.
pub(super) struct Law {
    /// Name of our total.
    pub counter: &'static str,
    /// The kernel's name.
    pub kernel_counter: &'static str,
    /// What is counted.
    pub what: &'static str,
    pub ours: fn(&Ours) -> u64,
    pub kernel: fn(&Counters) -> Option<u64>,
    pub hidden: Hidden,
    /// Of a number at a moment, not one that grows: what the kernel counts of that which moves it.
    pub moves: Option<fn(&Counters) -> Option<u64>>,
}

/// Events that the kernel counts and no hook shows.
#[derive(Clone, Copy)]
pub(super) enum Hidden {
    None,
    /// At most as many as this counter says.
    UpTo(fn(&Counters) -> Option<u64>),
    /// Any number.
    Any,
}

/// The laws of this kernel.
pub(super) fn of(kernel: Kernel) -> [Law; 9] {
    let (time_waits, what): (fn(&Ours) -> u64, _) = if kernel.tw_counts_begins {
        (|ours| ours.time_wait_begun, "begins of TIME_WAIT")
    } else {
        (|ours| ours.time_wait_expired, "TIME_WAITs run out")
    };
    // Before 5.17 the kernel counts some of the ends instead of the begins.
    let moves: fn(&Counters) -> Option<u64> = if kernel.tw_counts_begins {
        |counters| counters.time_waits
    } else {
        |counters| Some(counters.time_waits?.saturating_add(counters.time_waits_recycled.unwrap_or(0)))
    };
    let time_wait_hidden = if kernel.follows_time_wait { Hidden::None } else { Hidden::Any };
    [
        Law::same(
            "active_opens",
            "Tcp ActiveOpens",
            "active opens",
            |ours| ours.active_opens,
            |counters| counters.active_opens,
        ),
        Law::same(
            "passive_opens",
            "Tcp PassiveOpens",
            "passive opens",
            |ours| ours.passive_opens,
            |counters| counters.passive_opens,
        ),
        // Request sockets fail as well, and no tracepoint shows them.
        Law {
            hidden: Hidden::Any,
            ..Law::same(
                "attempt_fails",
                "Tcp AttemptFails",
                "failed handshakes",
                |ours| ours.attempt_fails,
                |counters| counters.attempt_fails,
            )
        },
        Law::same(
            "estab_resets",
            "Tcp EstabResets",
            "connections aborted",
            |ours| ours.estab_resets,
            |counters| counters.estab_resets,
        ),
        // Before 6.10 `tcp_v4_send_reset` traces those of full sockets only.
        Law {
            hidden: if kernel.shows_resets_without_socket { Hidden::None } else { Hidden::Any },
            ..Law::same(
                "out_rsts",
                "Tcp OutRsts",
                "resets sent",
                |ours| ours.out_rsts,
                |counters| counters.out_rsts,
            )
        },
        // `__tcp_retransmit_skb` counts before it sends, and before 6.17 traces only what could be sent.
        Law {
            hidden: Hidden::UpTo(|counters| counters.retrans_fails),
            ..Law::same(
                "retrans_segs",
                "Tcp RetransSegs",
                "segments sent again",
                |ours| ours.retrans_segs,
                |counters| counters.retrans_segs,
            )
        },
        Law {
            hidden: time_wait_hidden,
            ..Law::same(
                if kernel.tw_counts_begins { "time_wait_begun" } else { "time_wait_expired" },
                "TcpExt TW + TWKilled",
                what,
                time_waits,
                |counters| counters.time_waits,
            )
        },
        Law {
            hidden: time_wait_hidden,
            ..Law::same(
                "time_wait_recycled",
                "TcpExt TWRecycled",
                "TIME_WAITs reused by connect",
                |ours| ours.time_wait_recycled,
                |counters| counters.time_waits_recycled,
            )
        },
        Law {
            hidden: time_wait_hidden,
            moves: Some(moves),
            ..Law::same(
                "time_wait_now",
                "sockstat TCP tw",
                "sockets in TIME_WAIT",
                |ours| ours.time_wait_now,
                |counters| counters.time_waits_now,
            )
        },
    ]
}

impl Law {
    fn same(
        counter: &'static str,
        kernel_counter: &'static str,
        what: &'static str,
        ours: fn(&Ours) -> u64,
        kernel: fn(&Counters) -> Option<u64>,
    ) -> Self {
        Self { counter, kernel_counter, what, ours, kernel, hidden: Hidden::None, moves: None }
    }
}
