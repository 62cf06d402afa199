//! The time, asked of the operating system.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sys;

/// A clock that goes on while the machine is suspended (`CLOCK_BOOTTIME`).
///
/// What it says never goes back, and all clocks of a process agree. It runs ahead of [`Instant::now`] by the time the
/// machine was suspended, so instants of the two must not be compared.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Origin,
}

impl Clock {
    /// Creates a clock.
    pub fn new() -> Self {
        static ORIGIN: OnceLock<Origin> = OnceLock::new();

        Self {
            origin: *ORIGIN.get_or_init(Origin::of_now),
        }
    }

    /// The time for deadlines and intervals.
    pub fn now(&self) -> Instant {
        let elapsed = sys::time::since_boot().saturating_sub(self.origin.since_boot);

        self.origin.at + elapsed
    }

    /// The time of day, as what has passed since 1970 in UTC. An administrator can change it in either direction.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the edge that reads the clock"
    )]
    pub fn unix(&self) -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// One moment in the terms of both clocks.
#[derive(Clone, Copy, Debug)]
struct Origin {
    at: Instant,
    since_boot: Duration,
}

impl Origin {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the edge that reads the clock"
    )]
    fn of_now() -> Self {
        Self {
            at: Instant::now(),
            since_boot: sys::time::since_boot(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn time_never_goes_back_and_clocks_agree() {
        let mut last = Clock::new().now();

        for _ in 0..1000 {
            let now = thread::spawn(|| Clock::new().now()).join().unwrap();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_time_of_day_is_that_of_this_century() {
        let years = Clock::new().unix().as_secs() / (365 * 24 * 3600);

        assert!((50..130).contains(&years));
    }
}
