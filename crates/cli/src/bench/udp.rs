//! The highest rate of datagrams that loses less than a hundredth, by bisection over what is offered.

use std::time::Duration;

use super::cost::Cost;
use super::load::{Outcome, PORT, Run};
use super::names::{Direction, Traffic};
use super::standing::Standing;
use crate::exit::{Exit, Failure};
use crate::rig::plan::Place;

/// What is known about the rate so far, in bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Search {
    /// The highest that passed.
    passed: Option<f64>,
    /// The lowest that did not.
    failed: Option<f64>,
    /// What arrived when everything was offered: where to look first.
    hint: f64,
}

/// More loss is a failure.
const MAX_LOSS: f64 = 0.01;

/// How often a rate is tried.
const PROBES: usize = 6;

/// How long each rate is tried, at most.
const PROBE: Duration = Duration::from_secs(2);

/// What makes iperf3 send as fast as it can.
const UNLIMITED: f64 = 0.0;

impl Standing<'_> {
    /// Loads the way with datagrams at several rates; the outcome is that of the highest which lost little enough, or of
    /// the lowest if none did.
    ///
    /// # Errors
    ///
    /// Exit 1: iperf3 failed.
    pub(super) async fn udp(
        &self,
        direction: Direction,
        duration: Duration,
    ) -> Result<Outcome, Failure> {
        let mut search = Search::default();
        let mut best = None;
        let mut last = None;
        for _ in 0..PROBES {
            let Some(rate) = search.next() else {
                break;
            };
            let outcome = self.probe(rate, direction, duration.min(PROBE)).await?;
            let has_passed = search.learn(rate, &outcome);
            if has_passed {
                best = Some(outcome.clone());
            }
            last = Some(outcome);
        }

        best.or(last)
            .ok_or_else(|| Failure::new(Exit::Failed, "no rate of datagrams was tried"))
    }

    async fn probe(
        &self,
        rate: f64,
        direction: Direction,
        duration: Duration,
    ) -> Result<Outcome, Failure> {
        let run = Run {
            place: Place::Client,
            port: PORT,
            traffic: Traffic::Udp,
            direction,
            rate: Some(rate),
            duration,
            omitted: Duration::ZERO,
        };
        let before = Cost::read(&self.processes)?;
        let carried = self.iperf(run).await?;
        let spent = Cost::read(&self.processes)?.since(&before);

        Ok(Outcome {
            carried,
            spent,
            trips: None,
        })
    }
}

impl Search {
    /// The rate to try; `None` if nothing can be won any more.
    fn next(&self) -> Option<f64> {
        match (self.passed, self.failed) {
            (None, None) => Some(UNLIMITED),
            // It has carried all that iperf3 can send.
            (Some(_), None) => None,
            (None, Some(failed)) if self.hint < failed => Some(self.hint),
            (None, Some(failed)) => Some(failed / 2.0),
            // Equal steps in proportion.
            (Some(passed), Some(failed)) => Some((passed * failed).sqrt()),
        }
    }

    /// Takes in how a rate has done; whether it passed.
    fn learn(&mut self, rate: f64, outcome: &Outcome) -> bool {
        let carried = &outcome.carried;
        let offered = match rate == UNLIMITED {
            true => carried.sent_bps,
            false => rate,
        };
        let has_passed = carried.loss.is_some_and(|loss| loss < MAX_LOSS) && carried.bytes > 0.0;
        match has_passed {
            true => self.passed = Some(offered),
            false => self.failed = Some(offered),
        }
        if rate == UNLIMITED {
            self.hint = carried.bps;
        }

        has_passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cost::Spent;
    use crate::bench::iperf::Carried;

    /// Searches where no more than `limit` gets through, and under overload only `collapsed`.
    fn search(sendable: f64, limit: f64, collapsed: f64) -> (f64, usize) {
        let mut search = Search::default();
        let mut best = 0.0;
        for number in 0..PROBES {
            let Some(rate) = search.next() else {
                return (best, number);
            };
            let sent = match rate == UNLIMITED {
                true => sendable,
                false => rate.min(sendable),
            };
            let bps = if sent <= limit { sent } else { collapsed };
            let outcome = Outcome {
                carried: Carried {
                    bytes: bps,
                    bps,
                    loss: Some(1.0 - bps / sent),
                    sent_bps: sent,
                    retransmits: None,
                },
                spent: Spent::default(),
                trips: None,
            };
            if search.learn(rate, &outcome) {
                best = bps;
            }
        }

        (best, PROBES)
    }

    #[test]
    fn a_way_that_carries_everything_is_tried_once() {
        assert_eq!(search(1e9, 2e9, 0.0), (1e9, 1));
    }

    #[test]
    fn the_limit_is_found_but_for_a_seventh() {
        for (limit, collapsed) in [(4e8, 3.5e8), (4e8, 4e8), (9e8, 5e8), (5e8, 1e8)] {
            let (found, _) = search(1.1e9, limit, collapsed);

            assert!(found <= limit && found > limit * 0.85, "{found} of {limit}");
        }
    }

    #[test]
    fn a_way_that_carries_nothing_has_no_rate() {
        assert_eq!(search(1e9, 0.0, 0.0), (0.0, PROBES));
    }
}
