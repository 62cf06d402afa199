//! When memory that a load has left behind is let go.
//!
//! Pools are trimmed while there is traffic and once after it, so that an idle node is woken for nothing. What they free lies with
//! the allocator then; giving that back to the system takes a millisecond or two, so it happens once, when a load is over.

use std::time::{Duration, Instant};

/// Counts what the loop carries between two trims.
#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    due_at: Option<Instant>,
    /// How many trains and batches of packets were carried since the last trim.
    batches: u32,
    /// Whether there was a load before the last trim.
    was_loaded: bool,
}

/// How often pools are trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// Fewer batches between two trims are no load: a hundred a second.
const LOAD: u32 = 1_000;

impl Housekeeping {
    /// Something is carried at `now`.
    pub(super) fn traffic(&mut self, now: Instant) {
        self.batches = self.batches.saturating_add(1);
        self.due_at.get_or_insert(now + TRIM_EVERY);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due_at.is_some_and(|at| at <= now)
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Pools are trimmed at `now`. Returns whether a load is over, so that the system may have the memory.
    pub(super) fn trimmed(&mut self, now: Instant) -> bool {
        let batches = std::mem::take(&mut self.batches);
        self.due_at = (batches > 0).then(|| now + TRIM_EVERY);
        let is_loaded = batches >= LOAD;

        std::mem::replace(&mut self.was_loaded, is_loaded) && !is_loaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has to begin at some time"
    )]
    fn memory_goes_back_once_after_a_load() {
        let mut now = Instant::now();
        let mut housekeeping = Housekeeping::default();
        let mut trims = |batches: u32| {
            for _ in 0..batches {
                housekeeping.traffic(now);
            }
            now += TRIM_EVERY;
            housekeeping.is_due(now).then(|| housekeeping.trimmed(now))
        };

        assert_eq!(trims(0), None, "never woken while idle");
        assert_eq!(trims(LOAD), Some(false));
        assert_eq!(trims(LOAD), Some(false), "the load goes on");
        assert_eq!(trims(LOAD - 1), Some(true), "a few keepalives are no load");
        assert_eq!(trims(LOAD - 1), Some(false), "it was given back");
        assert_eq!(trims(0), Some(false));
        assert_eq!(trims(0), None, "idle again");
    }
}
