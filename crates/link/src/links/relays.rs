//! The relays of a node, and what their coming and going means for its peers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::buffer::Pool;
use connlib_wire::channel::ChannelNumber;
use connlib_wire::ecn::Ecn;
use connlib_wire::id::RelayId;
use connlib_wire::stun::Message;
use connlib_wire::train::{Route, Transmit};
use is::Candidate;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::schedule::Due;
use super::silence::Silence;
use super::{Event, Links, Reason, RelayStatus};
use crate::RelayServer;
use crate::allocation::{self, Allocation};
use crate::path::Path;
use crate::peer::{Peer, PeerId};

/// How many addresses of former relays are remembered, so that their late datagrams aren't taken for a peer's.
const MAX_FORMER: usize = 64;

/// How many relays lend a link an address: one to be used where it must, and one that is ready when that one dies.
const RELAYS_PER_LINK: usize = 2;

#[derive(Default)]
pub(super) struct Relays {
    allocations: BTreeMap<RelayId, Allocation>,
    by_server: HashMap<SocketAddr, RelayId>,
    former: VecDeque<IpAddr>,
    /// There are others to choose from than when links last chose.
    has_changed: bool,
    silence: Silence,
}

/// A relay that is no more, and the addresses it lent us.
pub(super) struct Gone {
    pub(super) id: RelayId,
    pub(super) candidates: Vec<Candidate>,
}

pub(super) struct Update {
    pub(super) gone: Vec<Gone>,
}

impl Relays {
    pub(super) fn ids(&self) -> Vec<RelayId> {
        self.allocations.keys().copied().collect()
    }

    pub(super) fn update(
        &mut self,
        now: Instant,
        remove: &[RelayId],
        add: Vec<RelayServer>,
        rng: &mut StdRng,
        pool: &Pool,
    ) -> Update {
        let mut gone: Vec<_> = remove.iter().filter_map(|id| self.remove(*id)).collect();
        let named: Vec<_> = add.iter().map(|server| server.id).collect();
        for server in add {
            if self
                .allocations
                .get(&server.id)
                .is_some_and(|known| known.is_for(&server))
            {
                continue;
            }
            gone.extend(self.remove(server.id));
            for addr in server.addresses() {
                self.by_server.insert(addr, server.id);
            }
            let id = server.id;
            self.silence.ask(now);
            let allocation = Allocation::new(now, server, rng.next_u64(), pool.clone());
            self.allocations.insert(id, allocation);
            self.has_changed = true;
        }
        for (id, allocation) in &mut self.allocations {
            if !named.contains(id) {
                allocation.check(now);
            }
        }

        Update { gone }
    }

    pub(super) fn restart(&mut self, now: Instant) {
        self.ask_anew(now);
        for allocation in self.allocations.values_mut() {
            allocation.restart(now);
        }
    }

    pub(super) fn network_changed(&mut self, now: Instant) {
        self.ask_anew(now);
        for allocation in self.allocations.values_mut() {
            allocation.network_changed(now);
        }
    }

    /// For how long all relays have been silent in this network; `None` if one wasn't.
    pub(super) fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.silence.lasts(now)
    }

    /// What was heard in another network says nothing of this one.
    fn ask_anew(&mut self, now: Instant) {
        self.silence = Silence::default();
        if !self.allocations.is_empty() {
            self.silence.ask(now);
        }
    }

    /// Picks a relay for a link that has others already: any of those that answer about as fast as the best
    /// (connections.md §6.8). A link's first one may be a relay that hasn't answered yet, if none has.
    pub(super) fn choose(&self, rng: &mut StdRng, others: &[RelayId]) -> Option<RelayId> {
        let measured: Vec<_> = self
            .allocations
            .iter()
            .filter(|(id, _)| !others.contains(id))
            .filter_map(|(id, allocation)| Some((*id, allocation.rtt()?)))
            .collect();
        let limit = acceptable_rtt(measured.iter().map(|(_, rtt)| *rtt).collect());
        let mut eligible: Vec<_> = measured
            .into_iter()
            .filter(|(_, rtt)| Some(*rtt) <= limit)
            .map(|(id, _)| id)
            .collect();
        if eligible.is_empty() && others.is_empty() {
            eligible = self.ids();
        }
        if eligible.is_empty() {
            return None;
        }

        eligible.get(rng.random_range(0..eligible.len())).copied()
    }

    /// Whether datagrams can leave by `path` as far as its relay is concerned.
    pub(super) fn carries(&self, path: Path) -> bool {
        let Some(relay) = path.relay else {
            return true;
        };

        self.allocations
            .get(&relay)
            .is_some_and(|allocation| allocation.carries(path.remote))
    }

    /// What a peer that uses `relay` is told, best first.
    pub(super) fn candidates_for(&self, relay: RelayId) -> Vec<Candidate> {
        let own = self
            .allocations
            .values()
            .flat_map(Allocation::own_candidates);
        let relayed = self
            .allocations
            .get(&relay)
            .into_iter()
            .flat_map(|allocation| allocation.relayed_candidates().cloned());
        let mut candidates: Vec<_> = own.chain(relayed).collect();
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.prio()));

        candidates
    }

    pub(super) fn serving(&self, server: SocketAddr) -> Option<RelayId> {
        self.by_server.get(&server).copied()
    }

    pub(super) fn was_relay(&self, ip: IpAddr) -> bool {
        self.former.contains(&ip)
    }

    pub(super) fn get_mut(&mut self, id: RelayId) -> Option<&mut Allocation> {
        self.allocations.get_mut(&id)
    }

    /// Where a relay is talked to.
    pub(super) fn server_of(&self, id: RelayId) -> Option<SocketAddr> {
        self.allocations.get(&id)?.active()
    }

    /// Which relay lends us `addr`; there are only ever a few.
    pub(super) fn lender_of(&self, addr: SocketAddr) -> Option<RelayId> {
        self.allocations
            .iter()
            .find(|(_, allocation)| allocation.lends(addr))
            .map(|(id, _)| *id)
    }

    /// The relay's address and the channel by which `peer` is reached; it is asked for where it doesn't exist yet.
    pub(super) fn bind_channel(
        &mut self,
        now: Instant,
        relay: RelayId,
        peer: SocketAddr,
    ) -> Option<(SocketAddr, ChannelNumber)> {
        let allocation = self.allocations.get_mut(&relay)?;
        let number = allocation.bind_channel(now, peer)?;

        Some((allocation.active()?, number))
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, id: RelayId) {
        if let Some(allocation) = self.allocations.get_mut(&id) {
            allocation.handle_timeout(now);
        }
    }

    pub(super) fn status(&self) -> impl Iterator<Item = RelayStatus> {
        self.allocations.iter().map(|(id, allocation)| RelayStatus {
            relay: *id,
            server: allocation.active(),
            relayed: allocation
                .relayed_candidates()
                .map(Candidate::addr)
                .collect(),
            rtt: allocation.rtt(),
        })
    }

    fn remove(&mut self, id: RelayId) -> Option<Gone> {
        let allocation = self.allocations.remove(&id)?;
        self.has_changed = true;
        for addr in allocation.server().addresses() {
            if self.by_server.get(&addr) == Some(&id) {
                self.by_server.remove(&addr);
            }
            if self.former.len() >= MAX_FORMER {
                self.former.pop_front();
            }
            self.former.push_back(addr.ip());
        }

        Some(Gone {
            id,
            candidates: allocation.relayed_candidates().cloned().collect(),
        })
    }
}

impl Links {
    /// Takes in everything that a relay has to say, and schedules it anew.
    pub(super) fn settle_relay(&mut self, now: Instant, id: RelayId) {
        loop {
            let Some(allocation) = self.relays.get_mut(id) else {
                return;
            };
            if let Some((server, buffer)) = allocation.poll_transmit() {
                let route = Route {
                    src: None,
                    dst: server,
                    ecn: Ecn::NotEct,
                };
                self.control.push_back(Transmit::single(route, buffer));
                continue;
            }
            match allocation.poll_event() {
                Some(allocation::Event::Added(candidate)) => {
                    self.offer(now, id, &candidate);
                    continue;
                }
                Some(allocation::Event::Measured) => {
                    self.relays.has_changed = true;
                    continue;
                }
                Some(allocation::Event::Invalidated(candidate)) => {
                    self.withdraw(now, &candidate);
                    continue;
                }
                None => {}
            }
            if let Some(failure) = allocation.failure() {
                tracing::debug!(relay = %id, ?failure, "Giving up a relay");
                if let Some(gone) = self.relays.remove(id) {
                    self.lose_relay(now, gone.id, gone.candidates);
                }
                if self.relays.ids().is_empty() {
                    self.relays.silence.give_up();
                    self.events.push_back(Event::NoRelays);
                }
                return;
            }
            let deadline = allocation.poll_timeout().map(|(at, _)| (at, Reason::Relay));
            self.schedule.set(Due::Relay(id), deadline);
            return;
        }
    }

    pub(super) fn lose_relay(&mut self, now: Instant, id: RelayId, candidates: Vec<Candidate>) {
        self.schedule.set(Due::Relay(id), None);
        for peer in self.peers.values_mut() {
            let is_in_use = peer.path.is_some_and(|path| path.relay == Some(id));
            if let Some(negotiated) = peer.as_negotiated_mut() {
                negotiated.relays.retain(|relay| *relay != id);
                if is_in_use {
                    negotiated.path_withdrawn(now);
                }
            }
        }
        for candidate in candidates {
            self.withdraw(now, &candidate);
        }
    }

    /// Gives every link that has too few relays another one, if there is any.
    pub(super) fn migrate(&mut self, now: Instant) {
        if !std::mem::take(&mut self.relays.has_changed) {
            return;
        }
        let links: Vec<_> = self
            .peers
            .iter()
            .filter_map(|(id, peer)| Some((*id, peer.as_negotiated()?.relays.len())))
            .filter(|(_, relays)| *relays < RELAYS_PER_LINK)
            .map(|(id, _)| id)
            .collect();
        for id in links {
            while self.lend_another(now, id) {}
            self.settle(now, id);
        }
    }

    /// Offers a peer the address that one more relay lends us, if it has too few and there is one; whether it was so.
    pub(super) fn lend_another(&mut self, now: Instant, id: PeerId) -> bool {
        let Some(peer) = self.peers.get(&id).and_then(Peer::as_negotiated) else {
            return false;
        };
        if peer.relays.len() >= RELAYS_PER_LINK {
            return false;
        }
        let Some(relay) = self.relays.choose(&mut self.rng, &peer.relays) else {
            return false;
        };
        self.lend(now, id, relay);

        true
    }

    /// Offers a peer the address that `relay` lends us, and our own.
    pub(super) fn lend(&mut self, now: Instant, id: PeerId, relay: RelayId) {
        let candidates = self.relays.candidates_for(relay);
        let peer = self.peers.get_mut(&id);
        let Some(peer) = peer.and_then(Peer::as_negotiated_mut) else {
            return;
        };
        peer.relays.push(relay);
        for candidate in candidates {
            if let Some(line) = peer.add_local(now, candidate) {
                self.events
                    .push_back(Event::NewCandidate { peer: id, line });
            }
        }
    }

    /// A relay answered; whether it was to a question of ours.
    pub(super) fn handle_relay_message(
        &mut self,
        now: Instant,
        id: RelayId,
        (from, to): (SocketAddr, SocketAddr),
        message: &Message<'_>,
    ) -> bool {
        let handled = self
            .relays
            .get_mut(id)
            .is_some_and(|allocation| allocation.handle_response(now, from, to, message));
        if handled {
            self.relays.silence.hear();
        }
        self.settle_relay(now, id);
        self.migrate(now);

        handled
    }

    fn offer(&mut self, now: Instant, relay: RelayId, candidate: &Candidate) {
        let is_relayed = candidate.kind() == is::CandidateKind::Relayed;
        let peers: Vec<_> = self
            .peers
            .iter()
            .filter_map(|(id, peer)| Some((id, peer.as_negotiated()?)))
            .filter(|(_, peer)| !is_relayed || peer.relays.contains(&relay))
            .map(|(id, _)| *id)
            .collect();
        for id in peers {
            let peer = self.peers.get_mut(&id);
            let Some(peer) = peer.and_then(Peer::as_negotiated_mut) else {
                continue;
            };
            if let Some(line) = peer.add_local(now, candidate.clone()) {
                self.events
                    .push_back(Event::NewCandidate { peer: id, line });
            }
            self.settle(now, id);
        }
    }

    fn withdraw(&mut self, now: Instant, candidate: &Candidate) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for id in peers {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let is_in_use = peer.path.is_some_and(|path| path.local == candidate.addr());
            let Some(peer) = peer.as_negotiated_mut() else {
                continue;
            };
            if is_in_use {
                peer.path_withdrawn(now);
            }
            if peer.agent.remove_local(now, candidate) {
                // Rebuilt, not remembered: peers match it by its addresses (connections.md §4.5).
                let line = candidate.to_sdp_string();
                self.events
                    .push_back(Event::InvalidatedCandidate { peer: id, line });
                self.settle(now, id);
            }
        }
    }
}

/// The slowest answer that is still as good as any: of two, half as much again as the better; of more, three typical
/// deviations above the median (connections.md §6.8).
fn acceptable_rtt(mut rtts: Vec<Duration>) -> Option<Duration> {
    rtts.sort();
    let best = *rtts.first()?;
    if rtts.len() <= 2 {
        return Some(best * 3 / 2);
    }
    let median = median(&rtts)?;
    let mut deviations: Vec<_> = rtts.iter().map(|rtt| rtt.abs_diff(median)).collect();
    deviations.sort();
    let typical = self::median(&deviations)?.max(Duration::from_millis(2));

    Some(median + typical * 3)
}

fn median(sorted: &[Duration]) -> Option<Duration> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;

    Some((lower + upper) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// connections.md §13.1 no. 6.
    #[test]
    fn the_slowest_acceptable_relay() {
        let limit = |rtts: &[u64]| {
            let rtts = rtts.iter().copied().map(Duration::from_millis).collect();
            acceptable_rtt(rtts).map(|limit| limit.as_millis())
        };

        assert_eq!(limit(&[40]), Some(60));
        assert_eq!(limit(&[40, 60]), Some(60));
        assert_eq!(limit(&[30, 35, 200]), Some(50));
        assert_eq!(limit(&[30, 30, 30, 31]), Some(36));
        assert_eq!(limit(&[30, 40, 50, 60]), Some(75));
        assert_eq!(limit(&[]), None);
    }
}
