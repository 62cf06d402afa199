//! What a detour costs: relayed beside direct, and our relay beside another one.

use std::fmt;

use serde::Serialize;

use super::contestant::Contestant;
use super::record::{Sample, Summary};
use super::stats::rounded;

/// One direction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// `up` or `down`.
    direction: &'static str,
    /// Relayed throughput of ours as a share of the direct one.
    relayed_to_direct: Option<f64>,
    /// Bytes of payload per second of processor time of the relay.
    ours_bytes_per_cpu_second: f64,
    turnserver_bytes_per_cpu_second: Option<f64>,
    /// How many times as many ours carries.
    ratio: Option<f64>,
    /// Seconds of processor time of our relay per GB of payload.
    ours_cpu_seconds_per_gb: f64,
}

/// What stands above the rows.
pub(super) const HEADS: &str =
    "relay       relayed/direct   ours, MB/CPU s   turnserver, MB/CPU s   ratio   ours, CPU s/GB";

/// The directions that were measured over our relay.
pub(super) fn rows(samples: &[Sample]) -> Vec<Row> {
    let directions = [
        ("up", "tcp1-up", "relayed-tcp1-up"),
        ("down", "tcp1-down", "relayed-tcp1-down"),
    ];

    directions
        .into_iter()
        .filter_map(|(direction, direct, relayed)| row(samples, direction, direct, relayed))
        .collect()
}

fn row(samples: &[Sample], direction: &'static str, direct: &str, relayed: &str) -> Option<Row> {
    let ours = Summary::of(samples, relayed, Contestant::Ours)?;
    let direct = Summary::of(samples, direct, Contestant::Ours);
    let other = Summary::of(samples, relayed, Contestant::Turnserver);
    // Nanoseconds per byte.
    let cost = |summary: &Summary| summary.cpu.get("relay").copied().filter(|cost| *cost > 0.0);
    let (cost, other) = (cost(&ours)?, other.as_ref().and_then(cost));
    let per_second = |cost: f64| rounded(1e9 / cost, 0);

    Some(Row {
        direction,
        relayed_to_direct: direct.map(|direct| rounded(ours.bps / direct.bps, 3)),
        ours_bytes_per_cpu_second: per_second(cost),
        turnserver_bytes_per_cpu_second: other.map(per_second),
        ratio: other.map(|other| rounded(other / cost, 2)),
        ours_cpu_seconds_per_gb: rounded(cost, 3),
    })
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |value: Option<f64>, decimals: usize| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
        };
        let megabytes = |value: f64| value / 1e6;

        write!(
            f,
            "  {:<10}{:>14}{:>17.0}{:>23}{:>8}{:>17.2}",
            self.direction,
            known(self.relayed_to_direct, 2),
            megabytes(self.ours_bytes_per_cpu_second),
            known(self.turnserver_bytes_per_cpu_second.map(megabytes), 0),
            known(self.ratio, 2),
            self.ours_cpu_seconds_per_gb,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::cost::Spent;
    use crate::bench::iperf::Carried;
    use crate::bench::load::Outcome;

    fn sample(measurement: &'static str, contestant: Contestant, bps: f64, relay: u64) -> Sample {
        Sample {
            measurement,
            contestant,
            outcome: Outcome {
                carried: Carried {
                    bytes: 1000.0,
                    bps,
                    ..Carried::default()
                },
                spent: Spent {
                    processes: [("relay", Duration::from_nanos(relay))].into(),
                    machine: Duration::from_nanos(4_000),
                },
                trips: None,
            },
        }
    }

    #[test]
    fn what_is_cheaper_is_so_many_times_as_good() {
        let samples = [
            sample("tcp1-up", Contestant::Ours, 4e9, 0),
            sample("relayed-tcp1-up", Contestant::Ours, 3e9, 2_000),
            sample("relayed-tcp1-up", Contestant::Turnserver, 1e9, 8_000),
        ];

        let rows = rows(&samples);
        assert_eq!(
            rows,
            [Row {
                direction: "up",
                relayed_to_direct: Some(0.75),
                ours_bytes_per_cpu_second: 5e8,
                turnserver_bytes_per_cpu_second: Some(1.25e8),
                ratio: Some(4.0),
                ours_cpu_seconds_per_gb: 2.0,
            }]
        );
        assert_eq!(HEADS.chars().count(), rows[0].to_string().chars().count());
    }

    #[test]
    fn without_our_relay_there_is_nothing_to_tell() {
        assert_eq!(rows(&[sample("tcp1-up", Contestant::Ours, 4e9, 0)]), []);
    }
}
