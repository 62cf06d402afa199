//! One direction of a host's link.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::scenario::{Link, PerMille};

/// How much later those arrive that are overtaken, at most.
const OVERTAKEN: Duration = Duration::from_millis(50);

/// A link's direction, and what is on it.
pub(super) struct Pipe {
    pub(super) link: Link,
    /// When what was sent so far has left.
    free_at: Option<Instant>,
    /// When the latest one arrives that keeps its place.
    last_at: Option<Instant>,
}

/// When a datagram arrives: never, once or twice.
pub(super) struct Passed {
    times: [Option<Instant>; 2],
    pub(super) is_corrupt: bool,
}

impl Passed {
    pub(super) fn at_once(now: Instant) -> Self {
        Self {
            times: [Some(now), None],
            is_corrupt: false,
        }
    }

    fn never() -> Self {
        Self {
            times: [None, None],
            is_corrupt: false,
        }
    }

    pub(super) fn times(&self) -> impl Iterator<Item = Instant> + use<> {
        self.times.into_iter().flatten()
    }
}

impl Pipe {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            free_at: None,
            last_at: None,
        }
    }

    /// A datagram whose IP packet has `size` bytes is put on the link at `at`.
    pub(super) fn pass(&mut self, at: Instant, size: usize, rng: &mut StdRng) -> Passed {
        if size > usize::from(self.link.mtu) || hits(self.link.loss, rng) {
            return Passed::never();
        }
        let Some(left_at) = self.transmit(at, size) else {
            return Passed::never();
        };

        let mut arrives_at = left_at + self.link.latency;
        if !self.link.jitter.is_zero() {
            arrives_at += self.link.jitter.mul_f64(rng.random::<f64>());
        }
        if hits(self.link.reorders, rng) {
            arrives_at += OVERTAKEN.mul_f64(rng.random::<f64>());
        } else {
            arrives_at = self
                .last_at
                .map_or(arrives_at, |last_at| last_at.max(arrives_at));
            self.last_at = Some(arrives_at);
        }
        let again = hits(self.link.duplicates, rng).then(|| arrives_at + Duration::from_millis(1));

        Passed {
            times: [Some(arrives_at), again],
            is_corrupt: hits(self.link.corrupts, rng),
        }
    }

    /// When it has left; `None` if it would wait for too long.
    fn transmit(&mut self, at: Instant, size: usize) -> Option<Instant> {
        let Some(rate) = self.link.rate else {
            return Some(at);
        };
        let begins_at = self.free_at.map_or(at, |free_at| free_at.max(at));
        if begins_at - at > self.link.queue {
            return None;
        }
        let takes = Duration::from_nanos(size as u64 * 8 * 1_000_000_000 / rate.max(1));
        self.free_at = Some(begins_at + takes);

        self.free_at
    }
}

/// Turns a bit over.
pub(super) fn corrupt(bytes: &mut [u8], rng: &mut StdRng) {
    if bytes.is_empty() {
        return;
    }
    let index = rng.random_range(0..bytes.len());
    let bit = rng.random_range(0..8);
    if let Some(byte) = bytes.get_mut(index) {
        *byte ^= 1 << bit;
    }
}

/// Draws only where there is something to draw.
fn hits(share: PerMille, rng: &mut StdRng) -> bool {
    share.0 > 0 && rng.random_range(0..1_000) < share.0
}
