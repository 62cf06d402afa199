//! NATs and firewalls (RFC 4787).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::scenario::{Dependence, Edge as Plan, EdgeKind, Nat};

/// The ports that a NAT draws from.
const PORTS: std::ops::RangeInclusive<u16> = 1_024..=65_535;

/// How many ports a NAT tries before it gives up.
const ATTEMPTS: usize = 64;

/// An edge, and what it remembers.
pub(super) struct Edge {
    kind: EdgeKind,
    pub(super) behind: Option<usize>,
    /// Of a NAT, by the inner address and what else it looks at.
    mappings: BTreeMap<(SocketAddr, Option<Seen>), u16>,
    /// Of a NAT, by outer port.
    ports: BTreeMap<u16, Mapping>,
    /// Of a firewall: inside and outside, and when something left last.
    talks: BTreeMap<(SocketAddr, SocketAddr), Instant>,
}

/// What a NAT looks at of the other end.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Seen {
    Address(IpAddr),
    Both(SocketAddr),
}

struct Mapping {
    key: (SocketAddr, Option<Seen>),
    sent_at: Instant,
    /// To whom something left, and when last.
    talks: BTreeMap<SocketAddr, Instant>,
}

impl Edge {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            kind: plan.kind,
            behind: plan.behind,
            mappings: BTreeMap::new(),
            ports: BTreeMap::new(),
            talks: BTreeMap::new(),
        }
    }

    pub(super) fn forget(&mut self) {
        self.mappings.clear();
        self.ports.clear();
        self.talks.clear();
    }

    /// Whether it is this edge that has an address.
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        matches!(self.kind, EdgeKind::Nat(nat) if IpAddr::V4(nat.ip4) == ip)
    }

    pub(super) fn has_hairpin(&self) -> bool {
        matches!(self.kind, EdgeKind::Nat(nat) if nat.hairpin)
    }

    /// Whether those behind it keep their addresses on the outside.
    pub(super) fn is_seen_through(&self, is_ipv4: bool) -> bool {
        !(is_ipv4 && matches!(self.kind, EdgeKind::Nat(_)))
    }

    /// A datagram leaves: the address that it is from on the outside.
    pub(super) fn leave(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        rng: &mut StdRng,
    ) -> Option<SocketAddr> {
        match self.kind {
            EdgeKind::Nat(_) if from.is_ipv6() => Some(from),
            EdgeKind::Nat(nat) => self.map(now, nat, from, to, rng),
            EdgeKind::Firewall { .. } => {
                self.talks.insert((from, to), now);
                Some(from)
            }
            EdgeKind::OnlyPort(port) => (to.port() == port).then(|| {
                self.talks.insert((from, to), now);
                from
            }),
            EdgeKind::Blocked => None,
        }
    }

    /// A datagram comes in: the address that it is for on the inside.
    pub(super) fn enter(
        &self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<SocketAddr> {
        match self.kind {
            EdgeKind::Nat(_) if to.is_ipv6() => Some(to),
            EdgeKind::Nat(nat) => {
                let mapping = self.ports.get(&to.port())?;
                if now > mapping.sent_at + nat.expiry {
                    return None;
                }
                let is_recent = |at: &Instant| now <= *at + nat.expiry;
                let is_known = match nat.filtering {
                    Dependence::Endpoint => true,
                    Dependence::Address => {
                        let mut talks = mapping.talks.iter();
                        talks.any(|(talk, at)| talk.ip() == from.ip() && is_recent(at))
                    }
                    Dependence::AddressAndPort => mapping.talks.get(&from).is_some_and(is_recent),
                };

                is_known.then_some(mapping.key.0)
            }
            EdgeKind::Firewall { expiry } => self.is_answer(now, from, to, expiry).then_some(to),
            EdgeKind::OnlyPort(_) => {
                let expiry = Duration::from_secs(60);
                self.is_answer(now, from, to, expiry).then_some(to)
            }
            EdgeKind::Blocked => None,
        }
    }

    fn is_answer(&self, now: Instant, from: SocketAddr, to: SocketAddr, expiry: Duration) -> bool {
        let sent_at = self.talks.get(&(to, from));

        sent_at.is_some_and(|sent_at| now <= *sent_at + expiry)
    }

    fn map(
        &mut self,
        now: Instant,
        nat: Nat,
        from: SocketAddr,
        to: SocketAddr,
        rng: &mut StdRng,
    ) -> Option<SocketAddr> {
        let seen = match nat.mapping {
            Dependence::Endpoint => None,
            Dependence::Address => Some(Seen::Address(to.ip())),
            Dependence::AddressAndPort => Some(Seen::Both(to)),
        };
        let key = (from, seen);
        let known = self.mappings.get(&key).copied().filter(|port| {
            let mapping = self.ports.get(port);
            mapping.is_some_and(|mapping| now <= mapping.sent_at + nat.expiry)
        });
        let port = match known {
            Some(port) => port,
            None => self.open(now, nat, key, rng)?,
        };
        let mapping = self.ports.get_mut(&port)?;
        mapping.sent_at = now;
        mapping.talks.insert(to, now);

        Some(SocketAddr::new(nat.ip4.into(), port))
    }

    fn open(
        &mut self,
        now: Instant,
        nat: Nat,
        key: (SocketAddr, Option<Seen>),
        rng: &mut StdRng,
    ) -> Option<u16> {
        let is_free = |ports: &BTreeMap<u16, Mapping>, port: u16| {
            let mapping = ports.get(&port);
            mapping.is_none_or(|mapping| now > mapping.sent_at + nat.expiry)
        };
        let own = key.0.port();
        let port = match nat.keeps_ports && is_free(&self.ports, own) {
            true => own,
            false => (0..ATTEMPTS)
                .map(|_| rng.random_range(PORTS))
                .find(|port| is_free(&self.ports, *port))?,
        };
        if let Some(old) = self.ports.remove(&port) {
            self.mappings.remove(&old.key);
        }
        if let Some(old) = self.mappings.insert(key, port).filter(|old| *old != port) {
            self.ports.remove(&old);
        }
        self.ports.insert(
            port,
            Mapping {
                key,
                sent_at: now,
                talks: BTreeMap::new(),
            },
        );

        Some(port)
    }
}

#[cfg(test)]
mod tests;
