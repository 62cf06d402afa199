//! How often a peer may connect (portal-protocol.md §1.6, §10.1).
//!
//! A peer that is caught in a loop, connecting and failing, costs a device look-up, a transaction and a full `init` each
//! time. Each pair of an address and a token has a bucket of its own, so that one such peer slows nobody else down. Only
//! tokens that are good count: the others are turned away more cheaply than they are counted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::model::TokenId;

/// How many connections a pair may open at once. A peer that connects for good needs one; but one token may be on many
/// devices behind one address, all of which come back when the portal was restarted.
const CAPACITY: u32 = 1_000;

/// How long it takes until a pair may open one more: what a peer in a loop costs is a few hundredths of a processor.
const REFILL: Duration = Duration::from_millis(REFILL_MILLIS);
const REFILL_MILLIS: u64 = 50;

/// How often those buckets are thrown away that are full again: as long as an empty one takes to fill.
const SWEEP_EVERY: Duration = Duration::from_millis(REFILL_MILLIS * CAPACITY as u64);

/// How many buckets there are at the most. Pairs beyond it aren't limited: they would lock out others.
const MAX: usize = 65_536;

/// The buckets that aren't full.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// When each bucket is full again.
    full_at: BTreeMap<(IpAddr, TokenId), Instant>,
    sweep_at: Option<Instant>,
}

impl Limits {
    /// Takes one from the bucket of a pair. False if there is none left.
    pub(super) fn take(&mut self, now: Instant, address: IpAddr, token: TokenId) -> bool {
        let key = (address, token);
        let full_at = self.full_at.get(&key).copied().unwrap_or(now).max(now);
        if full_at + REFILL > now + REFILL * CAPACITY {
            return false;
        }
        if now >= *self.sweep_at.get_or_insert(now + SWEEP_EVERY) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = Some(now + SWEEP_EVERY);
        }
        if self.full_at.len() < MAX || self.full_at.contains_key(&key) {
            self.full_at.insert(key, full_at + REFILL);
        }

        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::ids;

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let (mut limits, now) = (Limits::default(), begin());
        let take = |limits: &mut Limits, at| limits.take(at, ADDRESS, TokenId(ids(1)));
        for _ in 0..CAPACITY {
            assert!(take(&mut limits, now));
        }
        assert!(!take(&mut limits, now));
        assert!(!take(&mut limits, now + REFILL - Duration::from_millis(1)));
        assert!(take(&mut limits, now + REFILL));
        assert!(!take(&mut limits, now + REFILL));

        let later = now + REFILL * (2 * CAPACITY);
        let taken = (0..2 * CAPACITY)
            .filter(|_| take(&mut limits, later))
            .count();
        assert_eq!(taken, CAPACITY as usize);
    }

    #[test]
    fn each_pair_has_a_bucket_of_its_own() {
        let (mut limits, now) = (Limits::default(), begin());
        let other = IpAddr::from([198, 51, 100, 1]);
        while limits.take(now, ADDRESS, TokenId(ids(1))) {}

        assert!(limits.take(now, ADDRESS, TokenId(ids(2))));
        assert!(limits.take(now, other, TokenId(ids(1))));
    }

    #[test]
    fn buckets_are_not_kept_for_ever() {
        let (mut limits, now) = (Limits::default(), begin());
        let token = TokenId(ids(1));
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let many = 2 * u32::try_from(MAX).unwrap();

        for number in 0..many {
            assert!(limits.take(now, address(number), token));
        }
        assert_eq!(limits.full_at.len(), MAX);
        // One that is kept is limited as before.
        while limits.take(now, address(0), token) {}

        let later = now + REFILL * CAPACITY;
        assert!(limits.take(later, address(many), token));
        assert_eq!(limits.full_at.len(), 1);
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));

    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do to begin with"
    )]
    fn begin() -> Instant {
        Instant::now()
    }
}
