//! What was measured, run by run, and what it comes to.

use std::collections::BTreeMap;

use super::contestant::Contestant;
use super::load::Outcome;
use super::stats::{Delays, RoundTrips, median, rounded, spread};

/// One measurement of one contestant in one run.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) measurement: &'static str,
    pub(super) contestant: Contestant,
    pub(super) outcome: Outcome,
}

/// What all runs of a measurement say of a contestant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) runs: usize,
    pub(super) bps: f64,
    pub(super) spread: f64,
    /// Nanoseconds per byte of payload, by role.
    pub(super) cpu: BTreeMap<&'static str, f64>,
    /// The same of everything on the machine.
    pub(super) machine: f64,
    pub(super) loss: Option<f64>,
    /// TCP segments that were sent again in a run.
    pub(super) retransmits: Option<f64>,
    pub(super) rtt: Option<Delays>,
}

impl Summary {
    /// `None` if there is no such sample.
    pub(super) fn of(
        samples: &[Sample],
        measurement: &str,
        contestant: Contestant,
    ) -> Option<Self> {
        let outcomes: Vec<&Outcome> = samples
            .iter()
            .filter(|sample| sample.measurement == measurement && sample.contestant == contestant)
            .map(|sample| &sample.outcome)
            .collect();
        let middle = |value: &dyn Fn(&Outcome) -> Option<f64>| {
            let values: Vec<f64> = outcomes.iter().copied().filter_map(value).collect();
            median(&values)
        };
        let rates: Vec<f64> = outcomes.iter().map(|outcome| outcome.carried.bps).collect();
        let mut cpu = BTreeMap::new();
        for role in outcomes.first()?.spent.processes.keys() {
            let cost = |outcome: &Outcome| {
                let time = outcome.spent.processes.get(role)?;
                per_byte(time.as_nanos() as f64, outcome)
            };
            cpu.extend(middle(&cost).map(|cost| (*role, rounded(cost, 3))));
        }
        let mut trips = RoundTrips::default();
        for seen in outcomes.iter().filter_map(|outcome| outcome.trips.as_ref()) {
            trips.extend(seen);
        }

        Some(Self {
            runs: outcomes.len(),
            bps: rounded(median(&rates)?, 0),
            spread: rounded(spread(&rates).unwrap_or_default(), 3),
            cpu,
            machine: middle(&|outcome| per_byte(outcome.spent.machine.as_nanos() as f64, outcome))
                .map_or(0.0, |cost| rounded(cost, 3)),
            loss: middle(&|outcome| outcome.carried.loss).map(|loss| rounded(loss, 5)),
            retransmits: middle(&|outcome| outcome.carried.retransmits),
            rtt: trips.delays(),
        })
    }
}

fn per_byte(nanos: f64, outcome: &Outcome) -> Option<f64> {
    (outcome.carried.bytes > 0.0).then(|| nanos / outcome.carried.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cost::Spent;
    use crate::bench::iperf::Carried;
    use std::time::Duration;

    pub(crate) fn sample(contestant: Contestant, bps: f64) -> Sample {
        Sample {
            measurement: "tcp1-up",
            contestant,
            outcome: Outcome {
                carried: Carried {
                    bytes: 1000.0,
                    bps,
                    ..Carried::default()
                },
                spent: Spent {
                    processes: [("client", Duration::from_nanos(1_500))].into(),
                    machine: Duration::from_nanos(4_000),
                },
                trips: Some(RoundTrips {
                    millis: vec![0.5],
                    sent: 1,
                }),
            },
        }
    }

    #[test]
    fn runs_become_medians_and_their_round_trips_one_lot() {
        let samples = [1e9, 3e9, 2e9].map(|bps| sample(Contestant::Ours, bps));

        let summary = Summary::of(&samples, "tcp1-up", Contestant::Ours).unwrap();
        assert_eq!((summary.runs, summary.bps, summary.spread), (3, 2e9, 1.0));
        assert_eq!(summary.cpu, [("client", 1.5)].into());
        assert_eq!(summary.machine, 4.0);
        assert_eq!(summary.rtt.unwrap().p99, 0.5);
        assert_eq!(summary.loss, None);
    }

    #[test]
    fn what_was_not_measured_has_no_summary() {
        let samples = [sample(Contestant::Ours, 1e9)];

        assert_eq!(Summary::of(&samples, "tcp1-up", Contestant::Raw), None);
        assert_eq!(Summary::of(&samples, "tcp4-up", Contestant::Ours), None);
    }
}
