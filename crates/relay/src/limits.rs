//! How much of the server anybody may use.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The most sources whose answers are counted at a time; some 100 bytes each.
const MAX_SOURCES: usize = 16_384;

/// Bounds on what clients may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The most allocations at a time; beyond it ALLOCATE gets 508.
    pub allocations: usize,
    /// The most channels of one allocation, those in cool-down included; beyond it CHANNEL-BIND gets 508. A gateway binds
    /// one for each candidate of each of its clients, so the default is as many as there are numbers.
    pub channels_per_allocation: usize,
    /// The most answers in a row to one source (an IPv4 address, or an IPv6 /64) that hasn't proved who it is.
    pub unproven_burst: u32,
    /// How many such answers per second a source earns. An answer is larger than its request, so a relay without this
    /// bound multiplies what is sent to it in somebody else's name.
    pub unproven_per_sec: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations: usize::MAX,
            channels_per_allocation: 4_096,
            unproven_burst: 1_000, // an office behind one address, all at once
            unproven_per_sec: 250,
        }
    }
}

/// Counts the unproven answers to each source by token buckets. Full buckets are forgotten.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// How long one answer takes to be earned back.
    cost: Duration,
    /// How far into the future a bucket may be in debt.
    depth: Duration,
    /// When each source's bucket will be full. Looked up, never iterated.
    full_at: HashMap<IpAddr, Instant>,
    by_time: BTreeSet<(Instant, IpAddr)>,
}

impl Buckets {
    pub(crate) fn new(limits: &Limits) -> Self {
        let cost = Duration::from_secs(1) / limits.unproven_per_sec.max(1);

        Self {
            cost,
            depth: cost * limits.unproven_burst,
            full_at: HashMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    /// Whether one more answer may go to `source`; if so, it is counted.
    pub(crate) fn take(&mut self, now: Instant, source: IpAddr) -> bool {
        self.forget_full(now);

        let source = network_of(source);
        let full_at = self
            .full_at
            .get(&source)
            .map_or(now, |full_at| (*full_at).max(now));
        let after = full_at + self.cost;
        if after.saturating_duration_since(now) > self.depth {
            return false;
        }

        if let Some(before) = self.full_at.insert(source, after) {
            self.by_time.remove(&(before, source));
        }
        self.by_time.insert((after, source));
        if self.by_time.len() > MAX_SOURCES {
            // The bucket that is nearest to full says least.
            self.pop_first();
        }

        true
    }

    /// Each call adds one bucket at most and forgets two, so no timer is needed for it.
    fn forget_full(&mut self, now: Instant) {
        for _ in 0..2 {
            if self.by_time.first().is_some_and(|(at, _)| *at <= now) {
                self.pop_first();
            }
        }
    }

    fn pop_first(&mut self) {
        if let Some((_, source)) = self.by_time.pop_first() {
            self.full_at.remove(&source);
        }
    }
}

/// One subscriber has a whole /64 of IPv6.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}
