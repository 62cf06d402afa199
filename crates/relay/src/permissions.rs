//! Which peers may talk to an allocation (RFC 8656 §9).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a permission lasts (RFC 8656 §9).
pub(crate) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);

/// The permitted peers of one allocation; they have no ports.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    until: BTreeMap<IpAddr, Instant>,
}

impl Permissions {
    /// Whether data may go to this address and come from it.
    pub(crate) fn permit(&self, peer: IpAddr) -> bool {
        self.until.contains_key(&peer)
    }

    /// When one ends.
    pub(crate) fn until(&self, peer: IpAddr) -> Option<Instant> {
        self.until.get(&peer).copied()
    }

    /// Whether these addresses would be no more than `limit` together with those that are there.
    pub(crate) fn have_room(&self, peers: &[IpAddr], limit: usize) -> bool {
        let mut fresh: Vec<_> = peers.iter().filter(|peer| !self.permit(**peer)).collect();
        fresh.sort_unstable();
        fresh.dedup();

        fresh.is_empty() || self.until.len() + fresh.len() <= limit
    }

    /// Installs or refreshes one; returns when it ended before.
    pub(crate) fn install(&mut self, now: Instant, peer: IpAddr) -> Option<Instant> {
        self.until.insert(peer, now + PERMISSION_LIFETIME)
    }

    pub(crate) fn remove(&mut self, peer: IpAddr) -> Option<Instant> {
        self.until.remove(&peer)
    }

    /// In the order of the addresses.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, Instant)> {
        self.until.iter().map(|(peer, until)| (*peer, *until))
    }
}
