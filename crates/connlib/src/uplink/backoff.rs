//! How long to wait before the next attempt.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Delays that grow: 0.5 s, then one and a half times as long each, up to a minute (portal-protocol.md §3.4).
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    waited: Duration,
    /// The most that all delays since the last success may add up to.
    budget: Option<Duration>,
    rng: StdRng,
}

const FIRST: Duration = Duration::from_millis(500);
const FACTOR: f64 = 1.5;
const LONGEST: Duration = Duration::from_mins(1);

/// Each delay is that much shorter or longer by chance, so that not all peers of a portal come back in the same moment.
const JITTER: f64 = 0.5;

/// What a portal asks for is honoured within these bounds: not so soon that it is a flood, not so late that it is never.
const SOONEST_RETRY: Duration = Duration::from_millis(250);
const LATEST_RETRY: Duration = Duration::from_hours(1);

impl Backoff {
    /// `budget` is the sum of delays after which to give up; `None` for never.
    pub(super) fn new(budget: Option<Duration>, seed: [u8; 32]) -> Self {
        Self {
            next: FIRST,
            waited: Duration::ZERO,
            budget,
            rng: StdRng::from_seed(seed),
        }
    }

    /// It worked, or the network is another one: the next delay is the first again.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
        self.waited = Duration::ZERO;
    }

    /// How long to wait; `None` when it is time to give up. `asked` is what the portal wants instead, which costs nothing
    /// of the budget.
    pub(super) fn delay(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if let Some(asked) = asked {
            return Some(asked.clamp(SOONEST_RETRY, LATEST_RETRY));
        }
        let left = self.budget.map(|budget| budget.saturating_sub(self.waited));
        if left == Some(Duration::ZERO) {
            return None;
        }

        let jitter = self.rng.random_range(1.0 - JITTER..=1.0 + JITTER);
        let delay = self.next.mul_f64(jitter);
        let delay = left.map_or(delay, |left| delay.min(left));
        self.next = self.next.mul_f64(FACTOR).min(LONGEST);
        self.waited += delay;

        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_success_or_another_network_starts_over() {
        let mut backoff = Backoff::new(Some(Duration::from_mins(1)), [7; 32]);
        while backoff.delay(None).is_some() {}

        backoff.reset();

        assert!(backoff.delay(None).unwrap() <= FIRST.mul_f64(1.0 + JITTER));
    }

    #[test]
    fn what_the_portal_asks_for_counts_instead_and_costs_nothing() {
        let mut backoff = Backoff::new(Some(FIRST / 2), [7; 32]);
        for _ in 0..100 {
            let asked = Some(Duration::from_secs(7));
            assert_eq!(backoff.delay(asked), asked);
        }

        assert!(backoff.delay(None).is_some(), "the budget is untouched");
        assert_eq!(backoff.delay(Some(Duration::ZERO)), Some(SOONEST_RETRY));
        assert_eq!(backoff.delay(Some(Duration::MAX)), Some(LATEST_RETRY));
    }

    proptest! {
        #[test]
        fn delays_grow_within_bounds_and_add_up_to_the_budget(
            seed: [u8; 32],
            budget in proptest::option::of(0..10_000u64),
        ) {
            let budget = budget.map(Duration::from_secs);
            let mut backoff = Backoff::new(budget, seed);
            let mut middle = FIRST;
            let mut sum = Duration::ZERO;
            for _ in 0..200 {
                let Some(delay) = backoff.delay(None) else {
                    prop_assert_eq!(Some(sum), budget);
                    return Ok(());
                };
                sum += delay;
                let is_last = Some(sum) == budget;
                prop_assert!(is_last || delay >= middle.mul_f64(1.0 - JITTER - 0.001));
                prop_assert!(delay <= middle.mul_f64(1.0 + JITTER + 0.001));
                middle = middle.mul_f64(FACTOR).min(LONGEST);
            }
            prop_assert!(budget.is_none_or(|budget| sum <= budget));
        }
    }
}
