//! How busy the data plane is, as `status` shows it.

use std::time::Duration;

use serde::Serialize;

use crate::event_loop::{DropReason, Histogram, Stats};

/// How busy the data plane is, and what it lost. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Load {
    turns: u64,
    /// How long turns took.
    turn_ms: Quantiles,
    /// How long packets of the TUN device waited to be sealed.
    wait_ms: Quantiles,
    /// How long trains waited to be opened, in their socket and beyond.
    stood_ms: Quantiles,
    /// How late timers were served.
    timer_delay_ms: Quantiles,
    /// What stands in the sockets.
    sockets: [Option<Socket>; 2],
    /// Packets marked instead of dropped because their queue stood.
    marked: u64,
    dropped: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct Socket {
    family: &'static str,
    /// What its receive buffer holds, the kernel's book-keeping included, and can hold.
    bytes: usize,
    limit_bytes: usize,
    /// What the kernel dropped because it was full, in trains.
    dropped: u64,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl From<&Stats> for Load {
    fn from(stats: &Stats) -> Self {
        let dropped = DropReason::ALL.into_iter().filter_map(|reason| {
            let count = stats.dropped(reason);
            (count > 0).then(|| (format!("{reason:?}"), count.into()))
        });

        Self {
            turns: stats.turns,
            turn_ms: Quantiles::from(&stats.turn_times),
            wait_ms: Quantiles::from(&stats.waits),
            stood_ms: Quantiles::from(&stats.stood),
            timer_delay_ms: Quantiles::from(&stats.timer_delays),
            sockets: [("ipv4", stats.backlogs[0]), ("ipv6", stats.backlogs[1])].map(
                |(family, backlog)| {
                    backlog.map(|backlog| Socket {
                        family,
                        bytes: backlog.bytes,
                        limit_bytes: backlog.limit,
                        dropped: backlog.dropped,
                    })
                },
            ),
            marked: stats.marked,
            dropped: dropped.collect(),
        }
    }
}

impl From<&Histogram> for Quantiles {
    fn from(histogram: &Histogram) -> Self {
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;

        Self {
            p50: millis(histogram.quantile(0.5)),
            p99: millis(histogram.quantile(0.99)),
            p999: millis(histogram.quantile(0.999)),
            max: millis(histogram.quantile(1.0)),
        }
    }
}
