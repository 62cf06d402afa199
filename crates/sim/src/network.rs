//! What lies between the hosts: their links, the edges they are behind, and a core that connects everything.

mod edge;
mod link;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use connlib_os::fake::FakeTrain;
use connlib_wire::ecn::Ecn;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::scenario::{Link, Place, Scenario};
use edge::Edge;
use link::Pipe;

/// How often a datagram may pass an edge: real ones have a TTL.
const MAX_EDGES: usize = 8;

/// What a UDP header and an IP header take of a link's MTU.
const fn headers(is_ipv4: bool) -> usize {
    if is_ipv4 { 28 } else { 48 }
}

/// Decides what becomes of datagrams.
pub(crate) struct Network {
    places: Vec<HostPlace>,
    edges: Vec<Edge>,
    blocked: BTreeSet<(usize, usize)>,
    rng: StdRng,
}

struct HostPlace {
    place: Place,
    is_attached: bool,
    up: Pipe,
    down: Pipe,
}

/// Where a datagram is on its way: at a host or an edge of a realm.
#[derive(Clone, Copy)]
enum Hop {
    Host(usize),
    Edge(usize),
}

/// What is left of a train, for one host.
pub(crate) struct Delivery {
    pub(crate) at: Instant,
    pub(crate) host: usize,
    pub(crate) train: FakeTrain,
    pub(crate) origin: Origin,
}

/// Whom a train is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// A host of the world, as it sent it.
    Host,
    /// A host of the world, and the way has changed it.
    Corrupt,
    /// Somebody who isn't part of the world, in whoever's name.
    Stranger,
}

impl Network {
    pub(crate) fn new(scenario: &Scenario, seed: [u8; 32]) -> Self {
        let places = scenario.hosts.iter().map(|host| HostPlace {
            place: host.place,
            is_attached: true,
            up: Pipe::new(host.link),
            down: Pipe::new(host.link),
        });

        Self {
            places: places.collect(),
            edges: scenario.edges.iter().map(Edge::new).collect(),
            blocked: BTreeSet::new(),
            rng: StdRng::from_seed(seed),
        }
    }

    /// The address that a host sends from unless it says another.
    pub(crate) fn source(&self, host: usize, is_ipv4: bool) -> Option<IpAddr> {
        self.places.get(host)?.place.ip(is_ipv4)
    }

    pub(crate) fn place(&self, host: usize) -> Option<Place> {
        self.places.get(host).map(|entry| entry.place)
    }

    pub(crate) fn detach(&mut self, host: usize) {
        if let Some(entry) = self.places.get_mut(host) {
            entry.is_attached = false;
        }
    }

    pub(crate) fn attach(&mut self, host: usize, place: Place) {
        if let Some(entry) = self.places.get_mut(host) {
            (entry.place, entry.is_attached) = (place, true);
        }
    }

    pub(crate) fn is_attached(&self, host: usize) -> bool {
        self.places.get(host).is_some_and(|entry| entry.is_attached)
    }

    pub(crate) fn set_link(&mut self, host: usize, link: Link) {
        if let Some(entry) = self.places.get_mut(host) {
            entry.up.link = link;
            entry.down.link = link;
        }
    }

    pub(crate) fn block(&mut self, [one, two]: [usize; 2]) {
        self.blocked.insert((one.min(two), one.max(two)));
    }

    pub(crate) fn unblock(&mut self, [one, two]: [usize; 2]) {
        self.blocked.remove(&(one.min(two), one.max(two)));
    }

    /// A NAT restarts.
    pub(crate) fn forget(&mut self, edge: usize) {
        if let Some(edge) = self.edges.get_mut(edge) {
            edge.forget();
        }
    }

    /// Carries a train of datagrams that `host` sends, and says what arrives where and when.
    pub(crate) fn carry(
        &mut self,
        now: Instant,
        host: usize,
        (from, to): (SocketAddr, SocketAddr),
        ecn: Ecn,
        datagrams: &[&[u8]],
        deliveries: &mut Vec<Delivery>,
    ) {
        let Some(entry) = self.places.get(host).filter(|entry| entry.is_attached) else {
            return;
        };
        if entry.place.ip(from.is_ipv4()) != Some(from.ip()) {
            // An address that the host has no longer.
            return;
        }
        let realm = entry.place.behind;
        let Some((target, from, to)) = self.route(now, realm, from, to) else {
            return;
        };
        if self.blocked.contains(&(host.min(target), host.max(target))) {
            return;
        }

        self.pass(
            now,
            Some(host),
            target,
            (from, to),
            ecn,
            datagrams,
            deliveries,
        );
    }

    /// Carries a datagram of somebody who isn't part of the world, and says it is from wherever they like.
    pub(crate) fn inject(
        &mut self,
        now: Instant,
        (from, to): (SocketAddr, SocketAddr),
        datagram: &[u8],
        deliveries: &mut Vec<Delivery>,
    ) {
        if let Some((target, from, to)) = self.route(now, None, from, to) {
            let datagrams = [datagram];
            self.pass(
                now,
                None,
                target,
                (from, to),
                Ecn::NotEct,
                &datagrams,
                deliveries,
            );
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a datagram has that many sides")]
    fn pass(
        &mut self,
        now: Instant,
        source: Option<usize>,
        target: usize,
        (from, to): (SocketAddr, SocketAddr),
        ecn: Ecn,
        datagrams: &[&[u8]],
        deliveries: &mut Vec<Delivery>,
    ) {
        let first = deliveries.len();
        for datagram in datagrams {
            let size = datagram.len() + headers(from.is_ipv4());
            let up = match source.and_then(|source| self.places.get_mut(source)) {
                Some(entry) => entry.up.pass(now, size, &mut self.rng),
                None => link::Passed::at_once(now),
            };
            for left_at in up.times() {
                let Some(entry) = self.places.get_mut(target) else {
                    return;
                };
                let down = entry.down.pass(left_at, size, &mut self.rng);
                let is_corrupt = up.is_corrupt || down.is_corrupt;
                for at in down.times() {
                    let mut bytes = datagram.to_vec();
                    if is_corrupt {
                        link::corrupt(&mut bytes, &mut self.rng);
                    }
                    let origin = match source {
                        None => Origin::Stranger,
                        Some(_) if is_corrupt => Origin::Corrupt,
                        Some(_) => Origin::Host,
                    };
                    match deliveries.get_mut(first..).and_then(<[Delivery]>::last_mut) {
                        Some(last) if last.origin == origin && joins(last, at, bytes.len()) => {
                            last.train.bytes.extend(bytes);
                        }
                        Some(_) | None => deliveries.push(Delivery {
                            at,
                            host: target,
                            train: FakeTrain {
                                from,
                                to,
                                ecn,
                                stride: bytes.len(),
                                bytes,
                            },
                            origin,
                        }),
                    }
                }
            }
        }
    }

    /// Finds who gets a datagram that is in `realm`, and what addresses it bears by then.
    fn route(
        &mut self,
        now: Instant,
        mut realm: Option<usize>,
        mut from: SocketAddr,
        mut to: SocketAddr,
    ) -> Option<(usize, SocketAddr, SocketAddr)> {
        for _ in 0..MAX_EDGES {
            match self.find(realm, to.ip()) {
                Some(Hop::Host(host)) => {
                    let is_there = self.places.get(host)?.is_attached;
                    return is_there.then_some((host, from, to));
                }
                Some(Hop::Edge(edge)) => {
                    to = self.edges.get_mut(edge)?.enter(now, from, to)?;
                    realm = Some(edge);
                }
                None => {
                    let edge = realm?;
                    let rng = &mut self.rng;
                    let entry = self.edges.get_mut(edge)?;
                    from = entry.leave(now, from, to, rng)?;
                    realm = entry.behind;
                    let is_hairpin = entry.is_own(to.ip());
                    if is_hairpin && !entry.has_hairpin() {
                        return None;
                    }
                }
            }
        }

        None
    }

    /// Who has an address in a realm, or the edge that it lies behind.
    fn find(&self, realm: Option<usize>, ip: IpAddr) -> Option<Hop> {
        let own = self.edges.iter().position(|edge| edge.is_own(ip));
        if let Some(edge) = own
            && let Some(hop) = self.climb(realm, Hop::Edge(edge), self.edges.get(edge)?.behind, ip)
        {
            return Some(hop);
        }

        self.places.iter().enumerate().find_map(|(host, entry)| {
            if entry.place.ip(ip.is_ipv4()) != Some(ip) {
                return None;
            }
            self.climb(realm, Hop::Host(host), entry.place.behind, ip)
        })
    }

    /// Climbs from an owner of an address up to a realm through edges that it can be seen through.
    fn climb(
        &self,
        realm: Option<usize>,
        owner: Hop,
        behind: Option<usize>,
        ip: IpAddr,
    ) -> Option<Hop> {
        let (mut hop, mut at) = (owner, behind);
        for _ in 0..MAX_EDGES {
            if at == realm {
                return Some(hop);
            }
            let edge = at?;
            let entry = self.edges.get(edge)?;
            if !entry.is_seen_through(ip.is_ipv4()) {
                return None;
            }
            (hop, at) = (Hop::Edge(edge), entry.behind);
        }

        None
    }
}

/// Whether a datagram arrives together with those before it: only the last one of a train may be shorter.
fn joins(last: &Delivery, at: Instant, len: usize) -> bool {
    let is_full = last
        .train
        .bytes
        .len()
        .is_multiple_of(last.train.stride.max(1));

    last.at == at && is_full && len <= last.train.stride && len > 0
}
