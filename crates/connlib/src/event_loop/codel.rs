//! When a queue has stood for too long: the law of CoDel (RFC 8289).
//!
//! A queue that empties now and then is a good one, however long it becomes in between. One in which even the luckiest
//! packet has waited longer than a target for a whole interval stands, and its senders are told so, a little more often each
//! time until they hear it.

use std::time::{Duration, Instant};

/// What one queue remembers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codel {
    target: Duration,
    interval: Duration,
    /// When the queue will have stood for an interval, if it goes on.
    stands_at: Option<Instant>,
    /// When the next packet is to tell, while they do.
    next_at: Option<Instant>,
    /// How many have told since they began.
    count: u32,
}

impl Codel {
    /// Lets packets wait for `target` in a queue, and longer for `interval`: about a round trip of those who fill it (RFC
    /// 8289 §4.3).
    pub(super) fn new(target: Duration, interval: Duration) -> Self {
        Self {
            target,
            interval,
            stands_at: None,
            next_at: None,
            count: 0,
        }
    }

    /// Judges a packet that leaves the queue at `now` after `waited`; whether it shall tell its sender to slow down. A
    /// queue with nothing behind the packet never stands.
    pub(super) fn judge(&mut self, now: Instant, waited: Duration, is_last: bool) -> bool {
        if waited < self.target || is_last {
            self.stands_at = None;
            self.next_at = None;
            return false;
        }
        let Some(stands_at) = self.stands_at else {
            self.stands_at = Some(now + self.interval);
            return false;
        };
        if now < stands_at {
            return false;
        }

        match self.next_at {
            None => {
                // Soon after the last time the same rate is about right, so it isn't searched for from the start.
                self.count = if self.count > 2 { self.count - 2 } else { 1 };
                self.next_at = Some(self.after(now));
                true
            }
            Some(next_at) if now >= next_at => {
                self.count = self.count.saturating_add(1);
                self.next_at = Some(self.after(next_at));
                true
            }
            Some(_) => false,
        }
    }

    fn after(&self, at: Instant) -> Instant {
        at + self.interval.div_f64(f64::from(self.count.max(1)).sqrt())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const TARGET: Duration = Duration::from_millis(5);

    /// Lets a packet that waited for `waited` leave each millisecond for `millis`; when those left that told.
    fn tells(codel: &mut Codel, start: Instant, waited: Duration, millis: u32) -> Vec<u128> {
        (0..millis)
            .map(|millis| start + MILLI * millis)
            .filter(|now| codel.judge(*now, waited, false))
            .map(|now| (now - start).as_millis())
            .collect()
    }

    #[test]
    fn a_queue_that_moves_tells_nobody() {
        let mut codel = Codel::new(TARGET, TARGET * 20);
        assert!(tells(&mut codel, Instant::now(), TARGET - MILLI, 1_000).is_empty());
    }

    #[test]
    fn a_queue_that_stands_tells_after_an_interval_and_then_more_and_more_often() {
        let mut codel = Codel::new(TARGET, TARGET * 20);
        let told = tells(&mut codel, Instant::now(), TARGET * 2, 500);

        assert_eq!(told, [100, 200, 271, 329, 379, 424, 464]);
    }

    #[test]
    fn one_lucky_packet_ends_it() {
        let mut codel = Codel::new(TARGET, TARGET * 20);
        let start = Instant::now();
        tells(&mut codel, start, TARGET * 2, 150);
        let later = start + MILLI * 150;
        assert!(!codel.judge(later, MILLI, false));

        assert!(tells(&mut codel, later + MILLI, TARGET * 2, 99).is_empty());
    }

    #[test]
    fn the_last_packet_of_a_queue_never_tells() {
        let mut codel = Codel::new(TARGET, TARGET * 20);
        let start = Instant::now();
        tells(&mut codel, start, TARGET * 2, 150);

        assert!(!codel.judge(start + MILLI * 300, TARGET * 2, true));
    }
}
