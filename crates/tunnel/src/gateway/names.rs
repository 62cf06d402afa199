//! Names at the site of a gateway: which addresses they have, and what its name servers say of them (gateway.md §9.3, §11, §12).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_link::PeerId;
use connlib_wire::buffer::Buffer;
use connlib_wire::control::{AssignedIps, Control, DomainStatus, NatStatus};
use connlib_wire::dns::{ExtendedError, Name, Query, Rcode, RecordType, respond};
use connlib_wire::id::ResourceId;
use connlib_wire::ip::Packet;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Gateway;
use super::nat::Found;
use super::set_ups::{Finding, SetUp, SetUps};
use crate::dns::{
    Ask, Asker, Carrier, Done, ExchangeError, ExchangeId, Failure, Listener, Lookups, Outcome,
    Resolvers, Server, is_sentinel, not_understood,
};

/// Resolves the names of resources, and answers clients' questions for the site's name servers.
#[derive(Debug)]
pub(super) struct Names {
    listener: Listener,
    lookups: Lookups<Wants>,
    servers: Vec<Server>,
    search: Vec<String>,
    hosts: BTreeMap<String, Vec<IpAddr>>,
    set_ups: SetUps,
    asked: Asked,
    /// What clients were told of names, for tests: without a link they don't hear it.
    #[cfg(test)]
    told: Vec<(String, NatStatus)>,
}

/// How many questions each client waits for the answers of: as many as it may ask at once, and none at the cost of others.
#[derive(Debug, Default)]
struct Asked(BTreeMap<IpAddr, usize>);

/// Who asked for a look-up.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Wants {
    /// A client, by our name server.
    Answer(Asker),
    /// One of the look-ups of a set-up, and how it is asked.
    Addresses(u64, Carrier),
}

/// Where we answer questions for our site (gateway.md §1).
const PORT: u16 = 53_535;

/// How long the addresses of a name may take to be found, and an answer of our name server (gateway.md §1).
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How many questions of one client are under way to name servers at once.
const MAX_ASKED: usize = 500;

/// How many bytes of an answer travel by UDP (gateway.md §12).
const MAX_UDP_ANSWER: usize = 1_200;

impl Names {
    pub(super) fn new(now: Instant, seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);

        Self {
            listener: Listener::new(now, random.random(), PORT),
            lookups: Lookups::new(random.random()),
            servers: Vec::new(),
            search: Vec::new(),
            hosts: BTreeMap::new(),
            set_ups: SetUps::default(),
            asked: Asked::default(),
            #[cfg(test)]
            told: Vec::new(),
        }
    }

    /// Whether a client's packet to our own address is one for our name server.
    pub(super) fn wants<T: AsRef<[u8]>>(packet: &Packet<T>) -> bool {
        packet.destination_port() == Some(PORT)
    }

    pub(super) fn handle_packet<T: AsRef<[u8]>>(&mut self, now: Instant, packet: &Packet<T>) {
        self.listener.handle_packet(now, packet);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.listener.handle_timeout(now);
        self.lookups.handle_timeout(now);
    }

    pub(super) fn start_over(&mut self, now: Instant) {
        self.lookups.start_over(now);
    }

    pub(super) fn has_output(&self) -> bool {
        self.listener.has_output() || self.lookups.has_output() || self.set_ups.has_finished()
    }

    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let listener = self.listener.poll_timeout(now);

        listener
            .into_iter()
            .chain(self.lookups.poll_timeout())
            .min()
    }

    fn set_resolvers(&mut self, resolvers: &Resolvers) {
        // A client on this machine would ask us.
        let others = resolvers
            .servers
            .iter()
            .filter(|server| !is_sentinel(server.ip()));
        self.servers = others.copied().map(Server::Plain).collect();
        self.search.clone_from(&resolvers.search);
        self.hosts = resolvers.hosts.iter().cloned().collect();
        self.lookups.forget_answers();
    }

    /// Looks for the addresses of a name, or lets it wait for its turn.
    fn resolve(&mut self, now: Instant, set_up: SetUp) {
        self.set_ups.push(set_up);
        self.serve_queued(now);
    }

    fn serve_queued(&mut self, now: Instant) {
        while let Some(set_up) = self.set_ups.next() {
            self.look_up(now, set_up);
        }
    }

    fn look_up(&mut self, now: Instant, mut set_up: SetUp) {
        if let Some(known) = self.hosts.get(set_up.name.as_str()) {
            set_up.found.addresses = known.iter().copied().collect();
            return self.set_ups.finish(set_up, Finding::Known);
        }

        let candidates = self.candidates(&set_up.name);
        let until = now + RESOLVE_WITHIN;
        let number = self.set_ups.begin(set_up, candidates.len() * 2, until);
        for name in candidates {
            for record_type in [RecordType::A, RecordType::AAAA] {
                let query = Query::new(&name, record_type);
                self.ask_addresses(now, number, query, Carrier::Udp);
            }
        }
    }

    fn ask_addresses(&mut self, now: Instant, number: u64, query: Query, carrier: Carrier) {
        let until = self.set_ups.until(number).unwrap_or(now);
        let ask = Ask {
            query,
            servers: self.lookups.by_health(now, &self.servers),
            carrier,
            site: None,
            within: until.saturating_duration_since(now),
        };
        self.lookups
            .ask(now, Wants::Addresses(number, carrier), ask);
    }

    /// The names that a name may be short for: one of a single label is completed as the system would.
    fn candidates(&self, name: &Name) -> Vec<Name> {
        let completed = |domain: &String| Name::parse(&format!("{name}.{domain}")).ok();
        let mut candidates: Vec<_> = match name.as_str().contains('.') {
            true => Vec::new(),
            false => self.search.iter().filter_map(completed).collect(),
        };
        // Networks of one organization have one domain; a name is asked for once.
        let mut seen = BTreeSet::new();
        candidates.retain(|name| seen.insert(name.clone()));
        if candidates.is_empty() {
            candidates.push(name.clone());
        }

        candidates
    }

    fn handle_addresses(&mut self, now: Instant, number: u64, query: &Query, outcome: &Outcome) {
        self.set_ups.answered(number, |found| match outcome {
            Outcome::Answer { answer, .. } => {
                found.addresses.extend(answer.addresses().map(|(ip, _)| ip));
            }
            Outcome::Failed(Failure::TimedOut | Failure::Busy) => {
                match query.record_type == RecordType::A {
                    true => found.lacks_v4 = true,
                    false => found.lacks_v6 = true,
                }
            }
            // Asked, and told nothing (gateway.md §11).
            Outcome::Failed(
                Failure::NoServers | Failure::Unreachable(_) | Failure::Interrupted,
            ) => {}
        });
        self.serve_queued(now);
    }

    fn answer(&mut self, now: Instant, asker: Asker, query: &Query, outcome: &Outcome) {
        let message = match outcome {
            Outcome::Answer { answer, age, note } => {
                let max = match asker.carrier() {
                    Carrier::Udp => asker.max_answer(query).min(MAX_UDP_ANSWER),
                    Carrier::Tcp => asker.max_answer(query),
                };
                let note = note.clone().or_else(|| answer.reason());
                answer.for_asker(query, *age, max, note.as_ref())
            }
            Outcome::Failed(failure) => {
                let text = match failure {
                    Failure::NoServers => "the gateway has no name server to ask",
                    Failure::Busy => "the gateway is asked too much at once",
                    Failure::TimedOut | Failure::Unreachable(_) | Failure::Interrupted => {
                        "no name server of the site answered"
                    }
                };
                let why = ExtendedError::new(ExtendedError::NO_REACHABLE_AUTHORITY, text);
                respond(query, Rcode::SERVFAIL, 0, &[], Some(&why))
            }
        };
        self.listener.answer(now, asker, &message);
    }
}

impl Asked {
    /// Counts one more of a client's questions; false if it has asked enough.
    fn add(&mut self, client: IpAddr) -> bool {
        let asked = self.0.entry(client).or_default();
        let may_ask = *asked < MAX_ASKED;
        *asked += usize::from(may_ask);

        may_ask
    }

    fn remove(&mut self, client: IpAddr) {
        if let Entry::Occupied(mut asked) = self.0.entry(client) {
            *asked.get_mut() -= 1;
            if *asked.get() == 0 {
                asked.remove();
            }
        }
    }
}

impl Gateway {
    /// Takes the name servers, search domains and hosts of the system.
    pub fn set_resolvers(&mut self, now: Instant, resolvers: &Resolvers) {
        self.last_now = now;
        self.names.set_resolvers(resolvers);
        self.settle(now);
    }

    /// Takes the outcome of an exchange that [`poll_exchange`](Self::poll_exchange) gave out.
    pub fn handle_exchanged(
        &mut self,
        now: Instant,
        id: ExchangeId,
        outcome: Result<Vec<u8>, ExchangeError>,
    ) {
        self.last_now = now;
        self.names.lookups.handle_outcome(now, id, outcome);
        self.settle(now);
    }

    /// A client says which addresses stand for a name.
    pub(super) fn handle_assigned(&mut self, now: Instant, client: PeerId, assigned: AssignedIps) {
        let name = Name::parse(&assigned.domain).ok();
        let set_up = |name: Name| SetUp {
            client,
            resource: assigned.resource,
            name,
            domain: assigned.domain.clone(),
            proxies: assigned.proxy_ips.iter().copied().collect(),
            found: Found::default(),
        };
        match name {
            Some(name) if self.peers.may_name(now, client, assigned.resource, &name) => {
                self.names.resolve(now, set_up(name));
            }
            // Nothing is looked up for who may not reach it.
            Some(_) | None => {
                tracing::debug!(%client, resource = %assigned.resource, "A name that the client may not use");
                self.tell_status(
                    now,
                    client,
                    assigned.resource,
                    assigned.domain,
                    NatStatus::Inactive,
                );
            }
        }
    }

    /// Lets questions, answers and packets go where they belong until none is left.
    pub(super) fn serve_names(&mut self, now: Instant) {
        while self.names.has_output() {
            while let Some((asker, query)) = self.names.listener.poll_query() {
                self.answer_question(now, asker, query);
            }
            while let Some(exchange) = self.names.lookups.poll_exchange() {
                self.exchanges.push_back(exchange);
            }
            while let Some(done) = self.names.lookups.poll_done() {
                let Done {
                    asker,
                    query,
                    outcome,
                } = done;
                match asker {
                    Wants::Answer(asker) => {
                        self.names.asked.remove(asker.from());
                        self.names.answer(now, asker, &query, &outcome);
                    }
                    // More addresses than a datagram has room for.
                    Wants::Addresses(number, Carrier::Udp) if outcome.is_truncated() => {
                        self.names.ask_addresses(now, number, query, Carrier::Tcp);
                    }
                    Wants::Addresses(number, _) => {
                        self.names.handle_addresses(now, number, &query, &outcome);
                    }
                }
            }
            while let Some((set_up, finding)) = self.names.set_ups.poll_finished() {
                self.finish_set_up(now, set_up, finding);
            }
            while let Some(packet) = self.names.listener.poll_packet() {
                self.send_to_client(now, &packet);
            }
        }
    }

    fn answer_question(&mut self, now: Instant, asker: Asker, query: Query) {
        let names = &mut self.names;
        let refused = if let Some(rcode) = not_understood(&query) {
            Some((rcode, None))
        } else if !self.peers.may_ask(now, asker.from(), &query.name) {
            // Others' names are no business of a client: our servers may know all of the site's.
            let text = "the name belongs to no resource of this client";
            let why = ExtendedError::new(ExtendedError::PROHIBITED, text);
            Some((Rcode::REFUSED, Some(why)))
        } else {
            None
        };
        if let Some((rcode, why)) = refused {
            let message = respond(&query, rcode, 0, &[], why.as_ref());
            return names.listener.answer(now, asker, &message);
        }
        if !names.asked.add(asker.from()) {
            return names.answer(now, asker, &query, &Outcome::Failed(Failure::Busy));
        }
        let ask = Ask {
            servers: names.lookups.by_health(now, &names.servers),
            query,
            carrier: asker.carrier(),
            site: None,
            within: ANSWER_WITHIN,
        };
        if !names.lookups.ask(now, Wants::Answer(asker), ask) {
            names.asked.remove(asker.from());
        }
    }

    fn finish_set_up(&mut self, now: Instant, set_up: SetUp, finding: Finding) {
        let SetUp {
            client,
            resource,
            name,
            domain,
            proxies,
            found,
            ..
        } = set_up;
        let is_done = finding == Finding::Known
            && self
                .peers
                .set_up_name(now, client, resource, &name, (&proxies, &found));
        let status = if is_done {
            NatStatus::Active
        } else {
            NatStatus::Inactive
        };
        self.revision += 1;
        self.tell_status(now, client, resource, domain, status);
    }

    fn tell_status(
        &mut self,
        now: Instant,
        client: PeerId,
        resource: ResourceId,
        domain: String,
        status: NatStatus,
    ) {
        #[cfg(test)]
        self.names.told.push((domain.clone(), status));
        let status = Control::DomainStatus(DomainStatus {
            resource,
            domain,
            status,
        });
        if let Some(packet) = status.to_packet(self.links.pool()) {
            self.send(now, client, packet.bytes());
        }
    }

    /// Sends a packet that was made here to the client it is for.
    fn send_to_client(&mut self, now: Instant, packet: &Buffer) {
        let client = Packet::parse(&**packet)
            .ok()
            .and_then(|packet| self.peers.client_at(packet.destination()));
        if let Some(client) = client {
            self.send(now, client.into(), packet);
        }
    }
}

#[cfg(test)]
mod tests;
