//! Our own addresses as a relay shows them, and what a change of our network does to them.

use std::net::SocketAddr;
use std::time::Instant;

use is::Candidate;

use super::{Allocation, Event};

/// One of each address family, where there is one.
#[derive(Debug)]
pub(super) struct PerFamily<T> {
    pub(super) v4: Option<T>,
    pub(super) v6: Option<T>,
}

impl<T> PerFamily<T> {
    pub(super) const fn empty() -> Self {
        Self { v4: None, v6: None }
    }

    pub(super) fn slot(&mut self, addr: SocketAddr) -> &mut Option<T> {
        if addr.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.v4.iter().chain(&self.v6)
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.v4.take().into_iter().chain(self.v6.take())
    }
}

/// How we and the relay saw each other before our network changed.
#[derive(Debug)]
pub(super) struct Before {
    active: Option<SocketAddr>,
    host: PerFamily<SocketAddr>,
    reflexive: PerFamily<SocketAddr>,
}

impl Allocation {
    /// Our own addresses as this relay showed them.
    pub(crate) fn own_candidates(&self) -> impl Iterator<Item = Candidate> {
        let hosts = self
            .host
            .iter()
            .filter_map(|addr| Candidate::host(*addr, "udp").ok());
        let reflexive = [
            (self.reflexive.v4, self.host.v4),
            (self.reflexive.v6, self.host.v6),
        ];
        let reflexive = reflexive
            .into_iter()
            .filter_map(|(addr, base)| reflexive_candidate(addr?, base?));

        hosts.chain(reflexive)
    }

    /// Our network changed. Which addresses are ours now the relay must say; if they are the same, all that it lent us
    /// stays.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        if self.before.is_none() {
            self.before = Some(Before {
                active: self.active.take(),
                host: std::mem::replace(&mut self.host, PerFamily::empty()),
                reflexive: std::mem::replace(&mut self.reflexive, PerFamily::empty()),
            });
        }
        self.active = None;
        self.requests.clear();
        self.transmits.clear();
        self.probe(now);
    }

    /// After a change of our network, nothing is heard in a family: our addresses of it are no more.
    pub(super) fn family_is_gone(&mut self, asked: SocketAddr) {
        let Some(before) = &mut self.before else {
            return;
        };
        let host = before.host.slot(asked).take();
        let reflexive = before.reflexive.slot(asked).take();
        self.retire(host, reflexive);
    }

    /// Withdraws addresses of our own.
    pub(super) fn retire(&mut self, host: Option<SocketAddr>, reflexive: Option<SocketAddr>) {
        let Some(host) = host else {
            return;
        };
        let reflexive = reflexive.and_then(|addr| reflexive_candidate(addr, host));
        let host = Candidate::host(host, "udp").ok();
        self.events
            .extend(reflexive.into_iter().chain(host).map(Event::Invalidated));
    }

    /// After a change of our network: withdraws the addresses that are no more, and says whether the relay that was
    /// `asked` still knows us as whom it did.
    pub(super) fn compare_with_before(
        &mut self,
        asked: SocketAddr,
        local: SocketAddr,
        mapped: Option<SocketAddr>,
    ) -> bool {
        let Some(before) = &mut self.before else {
            return true;
        };
        let host = before.host.slot(local).take();
        let reflexive = before.reflexive.slot(local).take();
        let is_known = before.active == Some(asked) && host == Some(local) && reflexive == mapped;
        if before.host.iter().next().is_none() {
            self.before = None;
        }
        self.retire(host.filter(|host| *host != local), reflexive);

        is_known
    }
}

/// Without a NAT the reflexive address is the host address, and one candidate is enough.
pub(super) fn reflexive_candidate(addr: SocketAddr, base: SocketAddr) -> Option<Candidate> {
    if addr == base {
        return None;
    }

    Candidate::server_reflexive(addr, base, "udp").ok()
}
