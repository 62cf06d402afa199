//! Lets packets gather that come fast and one by one.
//!
//! Whoever is woken for each packet pays for waking, reading, sealing and sending once per packet, and the other end, and
//! every hop between, pays again. So a loop that was about to sleep while packets come at a high rate leaves its devices
//! alone for a moment first: what comes meanwhile is read, sealed and sent as trains. Network cards do the same with their
//! interrupts. A sparse flow is nowhere near such a rate, nor is a stream, where the device gives super-packets: neither waits.
//! What is counted is the device's packets: the kernel has joined datagrams before a socket hands them out.

use std::time::{Duration, Instant};

/// Counts how fast packets come.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// The window that is being counted.
    began_at: Option<Instant>,
    count: u64,
    /// Whether the last full window had a high rate.
    is_fast: bool,
}

/// How long a rate is measured for.
const WINDOW: Duration = Duration::from_millis(1);

/// From how many packets per second on it is worth it: so many that at least four come in a pause.
const FAST: u64 = 40_000;

/// How long a loop leaves its devices alone: less than one turn under load takes, enough for ten packets at 1 Gbit/s.
pub(super) const PAUSE: Duration = Duration::from_micros(100);

impl Gathering {
    /// So many packets or super-packets of the TUN device were read by a turn that began at `now`.
    pub(super) fn count(&mut self, now: Instant, packets: u64) {
        let began_at = *self.began_at.get_or_insert(now);
        let lasted = now.saturating_duration_since(began_at);
        if lasted >= WINDOW {
            let allowed = lasted.as_nanos() * u128::from(FAST) / 1_000_000_000;
            self.is_fast = u128::from(self.count) >= allowed;
            self.began_at = Some(now);
            self.count = 0;
        }
        self.count += packets;
    }

    /// How long to leave the devices alone before waiting for them.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.is_fast.then_some(PAUSE)
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
    fn only_a_fast_stream_of_packets_is_worth_a_pause() {
        let micros = Duration::from_micros;
        let mut now = Instant::now();
        let mut gathering = Gathering::default();

        for _ in 0..1_000 {
            gathering.count(now, 1);
            now += micros(50);
        }
        assert_eq!(gathering.pause(), None, "20,000 a second");

        for _ in 0..1_000 {
            gathering.count(now, 1);
            now += micros(20);
        }
        assert_eq!(gathering.pause(), Some(PAUSE), "50,000 a second");

        now += micros(20_000);
        gathering.count(now, 1);
        assert_eq!(gathering.pause(), None, "the first one after a rest");
    }
}
