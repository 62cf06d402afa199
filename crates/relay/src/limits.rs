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
    /// The most allocations of one user, ports that are kept for it included; beyond it ALLOCATE gets 486. For
    /// [`Conduct::Standard`](crate::Conduct::Standard) only: the portal's users have one each.
    pub allocations_per_user: usize,
    /// The most channels of one allocation, those in cool-down included; beyond it CHANNEL-BIND gets 508. A gateway binds
    /// one for each candidate of each of its clients, so the default is as many as there are numbers.
    pub channels_per_allocation: usize,
    /// The most IP addresses that one allocation permits; beyond it CREATE-PERMISSION and CHANNEL-BIND get 508.
    pub permissions_per_allocation: usize,
    /// The most answers in a row to one source (an IPv4 address, or an IPv6 /64) that hasn't proved who it is.
    pub unproven_burst: u32,
    /// How many such answers per second a source earns. An answer is larger than its request, so a relay without this
    /// bound multiplies what is sent to it in somebody else's name.
    pub unproven_per_sec: u32,
    /// The most requests in a row with wrong credentials from one source, as above; what it sends then is dropped unread,
    /// but for sockets that hold an allocation. Only requests with a nonce of their socket count, which can't be sent in
    /// somebody else's name.
    pub failed_burst: u32,
    /// How many such requests per second a source earns.
    pub failed_per_sec: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations: usize::MAX,
            allocations_per_user: 1_024,
            channels_per_allocation: 4_096,
            permissions_per_allocation: 1_024,
            unproven_burst: 1_000, // an office behind one address, all at once
            unproven_per_sec: 250,
            failed_burst: 1_000,
            failed_per_sec: 50,
        }
    }
}

impl Limits {
    /// What one of `of` servers with the same port may give. A source or user is one server's or is spread over them, so that
    /// what belongs to a source stays as it is.
    #[must_use]
    pub fn share(self, of: usize) -> Self {
        let of = of.max(1);

        Self {
            allocations: self.allocations.div_ceil(of),
            allocations_per_user: self.allocations_per_user.div_ceil(of),
            ..self
        }
    }
}

/// Counts what happens to each source by token buckets. Full buckets are forgotten.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// How long one takes to be earned back.
    cost: Duration,
    /// How far into the future a bucket may be in debt.
    depth: Duration,
    /// When each source's bucket will be full. Looked up, never iterated.
    full_at: HashMap<IpAddr, Instant>,
    by_time: BTreeSet<(Instant, IpAddr)>,
}

impl Buckets {
    /// For answers to those who didn't prove who they are.
    pub(crate) fn of_unproven(limits: &Limits) -> Self {
        Self::new(limits.unproven_burst, limits.unproven_per_sec)
    }

    /// For requests with wrong credentials.
    pub(crate) fn of_failed(limits: &Limits) -> Self {
        Self::new(limits.failed_burst, limits.failed_per_sec)
    }

    fn new(burst: u32, per_sec: u32) -> Self {
        let cost = Duration::from_secs(1) / per_sec.max(1);

        Self {
            cost,
            depth: cost * burst,
            full_at: HashMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    /// Whether `source` may have one more.
    pub(crate) fn have_room(&self, now: Instant, source: IpAddr) -> bool {
        self.after_one_more(now, network_of(source)).is_some()
    }

    /// Whether `source` may have one more; if so, it is counted.
    pub(crate) fn take(&mut self, now: Instant, source: IpAddr) -> bool {
        self.forget_full(now);

        let source = network_of(source);
        let Some(after) = self.after_one_more(now, source) else {
            return false;
        };

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

    fn after_one_more(&self, now: Instant, source: IpAddr) -> Option<Instant> {
        let full_at = self
            .full_at
            .get(&source)
            .map_or(now, |full_at| (*full_at).max(now));
        let after = full_at + self.cost;

        (after.saturating_duration_since(now) <= self.depth).then_some(after)
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
