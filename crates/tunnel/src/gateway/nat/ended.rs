//! Flows that have ended, for a while.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::flows::Outside;

/// Where sessions were that have ended, until when. Without them what is still under way would look like of a network.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) until: HashMap<Outside, Instant>,
    pub(super) in_order: VecDeque<(Instant, Outside)>,
}

/// How long ended flows are remembered, how many, and how much later they may be forgotten: many at once.
const REMEMBER_ENDED: Duration = Duration::from_secs(600);
pub(super) const MAX_ENDED: usize = 16_384;
const FORGET_WITHIN: Duration = Duration::from_secs(60);

impl Ended {
    pub(super) fn insert(&mut self, now: Instant, outside: Outside) {
        let until = now + REMEMBER_ENDED;
        self.until.insert(outside, until);
        self.in_order.push_back((until, outside));
        if self.in_order.len() > MAX_ENDED {
            self.pop();
        }
    }

    pub(super) fn contains(&self, now: Instant, outside: &Outside) -> bool {
        self.until.get(outside).is_some_and(|until| *until > now)
    }

    pub(super) fn forget(&mut self, now: Instant) {
        while self
            .in_order
            .front()
            .is_some_and(|(until, _)| *until <= now)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        // Unless it has ended once more since.
        if let Some((until, outside)) = self.in_order.pop_front()
            && self.until.get(&outside) == Some(&until)
        {
            self.until.remove(&outside);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let (until, _) = self.in_order.front()?;

        Some(*until + FORGET_WITHIN)
    }
}
