//! How much one source may do in one turn.

use std::time::Duration;

/// The most packets or datagrams that one source handles per turn; its last train may go beyond.
pub const MAX_PACKETS: usize = 256;

/// The most bytes that one source handles per turn; its last train may go beyond. Eight full trains.
pub const MAX_BYTES: usize = 512 * 1024;

/// How long all sources together may take per turn, the last batch of each not counted. A sparse packet waits about a turn
/// at each end; shorter ones cost more system calls than they are worth (measured).
pub const MAX_TIME: Duration = Duration::from_micros(200);

/// The most that is read from the TUN device per turn: more than the device holds in ordinary times, less than would hold
/// up the other sources for a millisecond or two.
const MAX_READ_PACKETS: usize = 1_024;
const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

/// What a source has left in this turn.
#[derive(Debug)]
pub(super) struct Budget {
    packets: usize,
    bytes: usize,
    ends: Duration,
}

impl Budget {
    /// The budget of the next of `sources` that are still to come, `elapsed` after the turn's start. What earlier ones
    /// left of their time is shared among those.
    pub(super) fn share(elapsed: Duration, sources: usize) -> Self {
        let sources = u32::try_from(sources.max(1)).unwrap_or(u32::MAX);

        Self {
            packets: MAX_PACKETS,
            bytes: MAX_BYTES,
            ends: elapsed + MAX_TIME.saturating_sub(elapsed) / sources,
        }
    }

    /// The same, but not shorter than `least` from now on.
    pub(super) fn share_of_at_least(elapsed: Duration, sources: usize, least: Duration) -> Self {
        let mut budget = Self::share(elapsed, sources);
        budget.ends = budget.ends.max(elapsed + least);

        budget
    }

    /// The budget for reading the TUN device, which is to be emptied: reading costs a third of sealing, and what stands in
    /// the device stands in front of everybody.
    pub(super) fn for_reading() -> Self {
        Self {
            packets: MAX_READ_PACKETS,
            bytes: MAX_READ_BYTES,
            ends: Duration::MAX,
        }
    }

    /// Counts what was handled.
    pub(super) fn spend(&mut self, packets: usize, bytes: usize) {
        self.packets = self.packets.saturating_sub(packets);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether the source has to leave the rest to the next turn. Asked after each batch, so that there is always one.
    pub(super) fn is_spent(&self, elapsed: Duration) -> bool {
        self.packets == 0 || self.bytes == 0 || elapsed >= self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_packets_bytes_and_time_ends_it() {
        let mut by_packets = Budget::share(Duration::ZERO, 1);
        by_packets.spend(MAX_PACKETS - 1, 1);
        assert!(!by_packets.is_spent(Duration::ZERO));
        by_packets.spend(2, 1);
        assert!(by_packets.is_spent(Duration::ZERO));

        let mut by_bytes = Budget::share(Duration::ZERO, 1);
        by_bytes.spend(1, MAX_BYTES + 1);
        assert!(by_bytes.is_spent(Duration::ZERO));

        let by_time = Budget::share(Duration::ZERO, 1);
        assert!(!by_time.is_spent(MAX_TIME - Duration::from_nanos(1)));
        assert!(by_time.is_spent(MAX_TIME));
    }

    #[test]
    fn time_is_shared_and_what_is_left_passes_on() {
        let micros = Duration::from_micros;

        let first = Budget::share(Duration::ZERO, 5);
        assert!(!first.is_spent(micros(39)));
        assert!(first.is_spent(micros(40)));

        let second = Budget::share(micros(20), 4);
        assert!(!second.is_spent(micros(64)));
        assert!(second.is_spent(micros(65)));

        let late = Budget::share(micros(900), 1);
        assert!(late.is_spent(micros(900)), "one batch, then no more");
    }
}
