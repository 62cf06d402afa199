//! The client as the name server of its machine: what it answers itself, and whom it asks for the rest (client.md §4).
//!
//! ```text
//! question ──► a name of a resource? ── A, AAAA, ANY ──► addresses that stand for it, and the connection begins
//!                    │                ── HTTPS, SVCB ──► nothing: they would lead around the tunnel
//!                    │                ── others ───────► the site's own servers, through its gateway
//!                    ├─ PTR of such an address ────────► the name
//!                    └─ neither ───────────────────────► the server that the address asked stands for, and then the others
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::dns::{Data, ExtendedError, Name, Query, Rcode, RecordType, class, respond};
use connlib_wire::id::ResourceId;
use connlib_wire::ip::Packet;
use connlib_wire::portal::client as portal;
use connlib_wire::portal::resource::IpStack;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::names::{self, Names};
use super::reasons::{reason, refusal, told};
use super::requests::Asked;
use super::sentinels::Sentinels;
use super::setups::Key;
use super::upstreams::configured;
use super::{Client, Event};
use crate::dns::{
    Ask, Asker, Done, Exchange, ExchangeError, ExchangeId, Inside, Listener, Lookups, Outcome,
    Resolvers, Server, not_understood,
};
use crate::ranges;

/// All that the client needs to answer questions.
#[derive(Debug)]
pub(super) struct NameServer {
    pub(super) listener: Listener,
    pub(super) inside: Inside,
    pub(super) sentinels: Sentinels,
    pub(super) names: Names,
    lookups: Lookups<Asker>,
    /// What the portal wants to be asked, best first; `None` until it has said so.
    configured: Option<Vec<Server>>,
    /// What the system would ask.
    system: Vec<Server>,
    /// Whether others count than when questions were asked last.
    pub(super) has_other_servers: bool,
}

/// How long a synthesised answer may be kept, in seconds: resources come and go (client.md §4.3).
const TTL: u32 = 1;

/// Where questions are answered.
const PORT: u16 = 53;

/// Where a gateway answers questions for its site (client.md §0).
pub(crate) const SITE_PORT: u16 = 53_535;

/// Firefox asks its own servers instead of us unless this name doesn't exist.
const CANARY: &str = "use-application-dns.net";

/// How long a question may take by the network that we are in, and through the tunnel (client.md §4.5, §4.6).
const OUTSIDE: Duration = Duration::from_secs(5);
const INSIDE: Duration = Duration::from_secs(10);

impl NameServer {
    pub(super) fn new(now: Instant, seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);

        Self {
            listener: Listener::new(now, random.random(), PORT),
            inside: Inside::new(now, random.random()),
            sentinels: Sentinels::default(),
            names: Names::default(),
            lookups: Lookups::new(random.random()),
            configured: None,
            system: Vec::new(),
            has_other_servers: false,
        }
    }

    /// Takes in what the portal wants to be asked (client.md §1).
    pub(super) fn configure(&mut self, now: Instant, interface: &portal::Interface) {
        self.configured = Some(configured(interface));
        self.update(now);
    }

    fn set_system(&mut self, now: Instant, resolvers: &Resolvers) {
        self.system = resolvers
            .servers
            .iter()
            .copied()
            .map(Server::Plain)
            .collect();
        self.update(now);
    }

    /// Lets our addresses stand for the servers that count now. Before the portal has said which do, none does: addresses that
    /// stood for others would be passed over.
    fn update(&mut self, now: Instant) {
        let Some(configured) = &self.configured else {
            return;
        };
        let is_usable = |server: &&Server| !matches!(server, Server::Plain(addr) if ranges::is_sentinel(addr.ip()));
        let configured: Vec<_> = configured.iter().filter(is_usable).cloned().collect();
        let servers = if configured.is_empty() {
            &self.system
        } else {
            &configured
        };
        if !self.sentinels.set(servers) {
            return;
        }
        self.has_other_servers = true;
        let sentinels = &self.sentinels;
        self.listener.retain(now, |ip| sentinels.contains(ip));
        self.inside.reset(now);
    }

    pub(super) fn abandon_site(&mut self, resource: ResourceId) {
        self.lookups.abandon_site(resource);
    }

    /// The network changed: what is under way is asked anew, by what is there now.
    pub(super) fn start_over(&mut self, now: Instant) {
        self.inside.reset(now);
        self.lookups.start_over(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.listener.handle_timeout(now);
        self.inside.handle_timeout(now);
        self.lookups.handle_timeout(now);
    }

    pub(super) fn has_output(&self) -> bool {
        self.listener.has_output()
            || self.inside.has_output()
            || self.lookups.has_output()
            || self.names.has_fresh()
    }

    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        [
            self.listener.poll_timeout(now),
            self.inside.poll_timeout(now),
            self.lookups.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Answers without asking anybody.
    fn respond(
        &mut self,
        now: Instant,
        asker: Asker,
        query: &Query,
        (rcode, records): (Rcode, &[Data]),
        why: Option<&ExtendedError>,
    ) {
        let message = respond(query, rcode, TTL, records, why);
        self.listener.answer(now, asker, &message);
    }

    fn fail(&mut self, now: Instant, asker: Asker, query: &Query, why: &ExtendedError) {
        self.respond(now, asker, query, (Rcode::SERVFAIL, &[]), Some(why));
    }

    fn finish(&mut self, now: Instant, done: Done<Asker>) {
        let Done {
            asker,
            query,
            outcome,
        } = done;
        match outcome {
            Outcome::Answer { answer, age, note } => {
                let max = asker.max_answer(&query);
                let note = note.or_else(|| answer.reason());
                let message = answer.for_asker(&query, age, max, note.as_ref());
                self.listener.answer(now, asker, &message);
            }
            Outcome::Failed(failure) => self.fail(now, asker, &query, &reason(&failure)),
        }
    }
}

impl Client {
    /// Takes the name servers that the system would use.
    pub fn set_resolvers(&mut self, now: Instant, resolvers: &Resolvers) {
        self.last_now = now;
        self.name_server.set_system(now, resolvers);
        if self.name_server.has_other_servers {
            self.ask_anew(now);
        }
        self.announce_interface();
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
        self.name_server.lookups.handle_outcome(now, id, outcome);
        self.settle(now);
    }

    /// Lets questions, answers and packets go where they belong until none is left.
    pub(super) fn serve_names(&mut self, now: Instant) {
        while self.name_server.has_output() {
            while let Some((asker, query)) = self.name_server.listener.poll_query() {
                self.answer_question(now, asker, query);
            }
            while let Some(exchange) = self.name_server.lookups.poll_exchange() {
                self.start_exchange(now, exchange);
            }
            while let Some(packet) = self.name_server.inside.poll_packet() {
                self.route_again(now, packet);
            }
            while let Some((id, outcome)) = self.name_server.inside.poll_outcome() {
                self.name_server.lookups.handle_outcome(now, id, outcome);
            }
            while let Some(done) = self.name_server.lookups.poll_done() {
                self.name_server.finish(now, done);
            }
            while let Some(packet) = self.name_server.listener.poll_packet() {
                self.packets.push_back(packet);
            }
            let fresh = self.name_server.names.take_fresh();
            if !fresh.is_empty() {
                self.events.push_back(Event::NamesAssigned(fresh));
            }
        }
    }

    fn answer_question(&mut self, now: Instant, asker: Asker, query: Query) {
        let server = &mut self.name_server;
        if let Some(rcode) = not_understood(&query) {
            return server.respond(now, asker, &query, (rcode, &[]), None);
        }
        if query.name.as_str() == CANARY {
            return server.respond(now, asker, &query, (Rcode::NXDOMAIN, &[]), None);
        }
        if query.record_type == RecordType::PTR
            && let Some(name) = query.name.reverse().and_then(|ip| server.names.name_at(ip))
        {
            let records = [Data::Ptr(name.clone())];
            return server.respond(now, asker, &query, (Rcode::NOERROR, &records), None);
        }
        let resources = self.resources.named(&query.name);
        let Some(resource) = resources.first().copied() else {
            return self.ask_upstream(now, asker, query);
        };
        match query.record_type {
            _ if query.class != class::IN => {
                self.name_server
                    .respond(now, asker, &query, (Rcode::NOERROR, &[]), None);
            }
            RecordType::A | RecordType::AAAA | RecordType::ANY => {
                self.answer_with_addresses(now, asker, &query, &resources);
            }
            RecordType::HTTPS | RecordType::SVCB => {
                self.name_server
                    .respond(now, asker, &query, (Rcode::NOERROR, &[]), None);
            }
            _ => self.ask_site(now, asker, query, resource),
        }
    }

    /// Resources or servers have changed: what was answered may no longer be true, a name that the public was asked for may be one
    /// that it must not hear of again, and servers that count no longer are not waited for.
    pub(super) fn ask_anew(&mut self, now: Instant) {
        let has_other_servers = std::mem::take(&mut self.name_server.has_other_servers);
        let NameServer {
            lookups, inside, ..
        } = &mut self.name_server;
        let resources = &mut self.resources;
        lookups.forget_answers();
        let taken = lookups.take_back(|name, site, _| {
            site.is_none() && (has_other_servers || !resources.named(name).is_empty())
        });
        self.exchanges
            .retain(|exchange| lookups.still_wants(exchange.id));
        if inside.retain(now, |id| lookups.still_wants(id)) {
            self.links.forget_waiting(|packet| {
                Packet::parse(packet).is_ok_and(|packet| inside.has_given_up(&packet))
            });
        }
        for (asker, query) in taken {
            self.answer_question(now, asker, query);
        }
    }

    /// Other gateways serve resources than before, or none does: what is asked of those that did is asked anew, or waits for
    /// one that will.
    pub(super) fn follow_sites(&mut self, now: Instant) {
        let grants = &self.grants;
        let is_elsewhere = |_: &Name, site: Option<ResourceId>, server: &Server| {
            let Some(resource) = site else {
                return false;
            };
            let gateway = grants.gateway_of(resource);
            let addresses = gateway.and_then(|gateway| grants.addresses_of(gateway));
            let is_its = |addr: &SocketAddr| {
                addresses.is_some_and(|(v4, v6)| addr.ip() == v4 || addr.ip() == v6)
            };

            !matches!(server, Server::Plain(addr) if is_its(addr))
        };
        for (asker, query) in self.name_server.lookups.take_back(is_elsewhere) {
            self.answer_question(now, asker, query);
        }
    }

    /// Answers with the addresses that stand for a name, and lets the connection begin: whoever asks for an address is about to
    /// use it.
    fn answer_with_addresses(
        &mut self,
        now: Instant,
        asker: Asker,
        query: &Query,
        resources: &[ResourceId],
    ) {
        let Some(block) = self.name_server.names.assign(&query.name) else {
            let why = told(ExtendedError::OTHER, "all addresses for names are taken");
            return self.name_server.fail(now, asker, query, &why);
        };
        let (mut has_v4, mut has_v6) = (false, false);
        for resource in resources {
            let stack = self.resources.ip_stack(*resource);
            has_v4 |= stack != IpStack::Ipv6Only;
            has_v6 |= stack != IpStack::Ipv4Only;
        }
        let wants = |record_type| [record_type, RecordType::ANY].contains(&query.record_type);
        let v4 = names::v4_addresses(block)
            .filter(|_| has_v4 && wants(RecordType::A))
            .map(Data::A);
        let v6 = names::v6_addresses(block)
            .filter(|_| has_v6 && wants(RecordType::AAAA))
            .map(Data::Aaaa);
        let records: Vec<Data> = v4.chain(v6).collect();

        let mut why = None;
        if let Some(resource) = resources.first() {
            match self.requests.refusal(now, *resource) {
                Some(refused) => why = Some(refusal(refused)),
                None => self.prepare(now, *resource, &query.name),
            }
        }
        self.name_server
            .respond(now, asker, query, (Rcode::NOERROR, &records), why.as_ref());
    }

    /// Makes the way to a name, or makes sure of it.
    pub(super) fn prepare(&mut self, now: Instant, resource: ResourceId, name: &Name) {
        match self.grants.gateway_of(resource) {
            Some(gateway) => {
                let key = Key {
                    gateway,
                    resource,
                    name: name.clone(),
                };
                if self.setups.refresh(now, key.clone()) {
                    self.tell_gateway(now, &key);
                }
            }
            None => {
                if let Asked::Now = self.requests.want(now, resource, name) {
                    self.ask(resource);
                }
            }
        }
    }

    /// Asks the servers of the site that a name's resource is at.
    fn ask_site(&mut self, now: Instant, asker: Asker, query: Query, resource: ResourceId) {
        let Some(gateway) = self.grants.gateway_of(resource) else {
            match self
                .requests
                .hold_question(now, resource, (asker, query), now + INSIDE)
            {
                Ok(Asked::Now) => self.ask(resource),
                Ok(Asked::Already | Asked::Refused(_)) => {}
                Err((asker, query, refused)) => {
                    self.name_server.fail(now, asker, &query, &refusal(refused));
                }
            }
            return;
        };
        let Some((ipv4, ipv6)) = self.grants.addresses_of(gateway) else {
            return;
        };
        let address: IpAddr = match asker.at() {
            IpAddr::V4(_) => ipv4.into(),
            IpAddr::V6(_) => ipv6.into(),
        };
        let ask = Ask {
            query,
            servers: vec![Server::Plain((address, SITE_PORT).into())],
            carrier: asker.carrier(),
            site: Some(resource),
            within: INSIDE,
        };
        self.name_server.lookups.ask(now, asker, ask);
    }

    /// Access to `resource` is granted: what waits to be asked at its site is asked.
    pub(super) fn ask_held(
        &mut self,
        now: Instant,
        resource: ResourceId,
        held: Vec<(Asker, Query)>,
    ) {
        for (asker, query) in held {
            self.ask_site(now, asker, query, resource);
        }
    }

    /// Nobody gives access: who asked is told why.
    pub(super) fn fail_held(
        &mut self,
        now: Instant,
        held: Vec<(Asker, Query)>,
        why: &ExtendedError,
    ) {
        for (asker, query) in held {
            self.name_server.fail(now, asker, &query, why);
        }
    }

    fn ask_upstream(&mut self, now: Instant, asker: Asker, query: Query) {
        let server = &mut self.name_server;
        let servers = server.sentinels.servers_from(asker.at());
        let servers = server.lookups.dead_last(now, servers);
        let ask = Ask {
            query,
            servers,
            carrier: asker.carrier(),
            site: None,
            within: OUTSIDE,
        };
        server.lookups.ask(now, asker, ask);
    }

    /// Carries an exchange through the tunnel, or lets it be carried outside.
    ///
    /// What the system would ask is asked as the system would: in the network that we are in, an address means something else
    /// than behind a gateway (client.md §4.6).
    fn start_exchange(&mut self, now: Instant, exchange: Exchange) {
        let through_tunnel = match &exchange.server {
            // The system may ask somebody in that range, too, which providers use (RFC 6598).
            Server::Plain(addr) if addr.port() == SITE_PORT && ranges::is_tunnel(addr.ip()) => {
                Some(*addr)
            }
            Server::Plain(addr) if self.is_behind_a_gateway(*addr) => Some(*addr),
            Server::Plain(_) | Server::Tls { .. } | Server::Https(_) => None,
        };
        match (through_tunnel, self.addresses) {
            (Some(addr), Some(own)) => self.name_server.inside.start(now, exchange, addr, own),
            _ => self.exchanges.push_back(exchange),
        }
    }

    fn is_behind_a_gateway(&mut self, addr: SocketAddr) -> bool {
        let mut configured = self.name_server.configured.iter().flatten();
        let is_configured = configured.any(|it| *it == Server::Plain(addr));

        is_configured && self.resources.carries_questions(addr)
    }
}
