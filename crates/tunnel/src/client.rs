//! The client: packets ask for access, grants let them through.

mod access;
mod announcements;
mod arriving;
mod grants;
mod name_server;
mod names;
mod reasons;
mod requests;
mod resources;
mod sentinels;
mod setups;
mod sites;
mod traffic;
mod upstreams;
mod why;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_link::{self as link, Links, PeerId, RelayServer};
use connlib_wire::buffer::Buffer;
use connlib_wire::dns::ExtendedError;
use connlib_wire::id::GatewayId;
use connlib_wire::ip::IcmpError;
use connlib_wire::key::PublicKey;
use connlib_wire::portal::Empty;
use connlib_wire::portal::client::{FromPortal, GatewayCandidates, Init, ToPortal};
use connlib_wire::train::Transmit;
use ipnet::IpNet;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::candidates::{Candidates, Change};
use crate::dns::{Exchange, Server};
use crate::drops::Drops;
use crate::reassembly::Reassembly;
use crate::status::{ResourceStatus, Status};
use crate::{PortalState, Reason, Settings, ranges};
use grants::Grants;
use name_server::NameServer;
use reasons::told;
use requests::{Due, Requests};
use resources::Resources;
use setups::Setups;
use sites::Sites;

pub use names::{NameRecord, RecordError};
pub use resources::ResourceView;
pub use sites::Reachability;

/// Something that the operating system or a person should know.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The TUN device must have these addresses and routes.
    InterfaceChanged(Interface),
    /// The list of what can be reached changed.
    ResourcesChanged(Vec<ResourceView>),
    /// Our key changed: the portal must be told by a new connection.
    KeyChanged(PublicKey),
    /// Names were given addresses, which they keep for good: to be kept, and given to the next client
    /// ([`restore_name`](Client::restore_name)).
    NamesAssigned(Vec<NameRecord>),
    /// Questions will go to other servers over HTTPS than before: connections to these may be opened ahead of the first.
    HttpsServersChanged(Vec<Server>),
}

/// What the TUN device must look like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its address, a /32.
    pub ipv4: Ipv4Addr,
    /// Its address, a /128.
    pub ipv6: Ipv6Addr,
    /// What leads into it, in order.
    pub routes: Vec<IpNet>,
    /// The addresses at which we answer for name servers, in the order in which they are to be asked. None: the system's
    /// settings are to be left alone.
    pub name_servers: Vec<IpAddr>,
    /// What names of one label are completed with.
    pub search_domain: Option<String>,
}

/// A client's state machine.
#[derive(Debug)]
pub struct Client {
    links: Links,
    portal: PortalState,
    addresses: Option<(Ipv4Addr, Ipv6Addr)>,
    search_domain: Option<String>,
    resources: Resources,
    sites: Sites,
    requests: Requests,
    grants: Grants,
    setups: Setups,
    name_server: NameServer,
    candidates: Candidates,
    /// Gateways that never answered or serve nothing any more, which the portal may name again.
    deserted: BTreeSet<PeerId>,
    announced: Option<Interface>,
    announced_https: Vec<Server>,
    /// What was told last of what can be reached.
    listed: Vec<ResourceView>,
    packets: VecDeque<Buffer>,
    messages: VecDeque<ToPortal>,
    events: VecDeque<Event>,
    exchanges: VecDeque<Exchange>,
    /// Counts what may have changed where packets go.
    revision: u64,
    /// Of packets that come in parts.
    parts: Reassembly,
    dropped_from_tun: Drops,
    dropped_from_peers: Drops,
    last_now: Instant,
}

impl Client {
    /// Creates a client that knows nothing yet. Use fresh entropy for `seed` but in tests.
    pub fn new(now: Instant, seed: [u8; 32], settings: Settings) -> Self {
        let unix = settings.unix;
        let mut random = StdRng::from_seed(seed);
        let mut links = Links::new(now, seed, link::Settings { unix });
        links.set_inside(&ranges::TUNNEL);

        Self {
            links,
            portal: PortalState::Away,
            addresses: None,
            search_domain: None,
            resources: Resources::default(),
            sites: Sites::default(),
            requests: Requests::default(),
            grants: Grants::default(),
            setups: Setups::default(),
            name_server: NameServer::new(now, random.random()),
            candidates: Candidates::default(),
            deserted: BTreeSet::new(),
            announced: None,
            announced_https: Vec::new(),
            listed: Vec::new(),
            packets: VecDeque::new(),
            messages: VecDeque::new(),
            events: VecDeque::new(),
            exchanges: VecDeque::new(),
            revision: 0,
            parts: Reassembly::new(),
            dropped_from_tun: Drops::default(),
            dropped_from_peers: Drops::default(),
            last_now: now,
        }
    }

    /// Takes back what an earlier client gave out ([`Event::NamesAssigned`]). To be called before anything is asked.
    ///
    /// # Errors
    ///
    /// The record is not one of a client's, or not the only one of its name; it is left out.
    pub fn restore_name(&mut self, record: &NameRecord) -> Result<(), RecordError> {
        self.name_server.names.restore(record)
    }

    /// The key to connect to the portal with.
    pub fn public_key(&self) -> PublicKey {
        self.links.public_key()
    }

    /// Takes a message of the portal.
    pub fn handle_message(&mut self, now: Instant, message: FromPortal) {
        self.last_now = now;
        match message {
            FromPortal::Init(init) => self.handle_init(now, init),
            FromPortal::ConfigChanged(config) => {
                self.set_interface(now, &config.interface);
                self.announce_interface();
            }
            FromPortal::ResourceCreatedOrUpdated(resource) => {
                if let Some(replaced) = self.resources.upsert(resource) {
                    self.revoke(now, replaced);
                }
                self.resources_changed();
            }
            FromPortal::ResourceDeleted(id) => {
                self.resources.remove(id);
                self.revoke(now, id);
                self.resources_changed();
            }
            FromPortal::RelaysPresence(presence) => {
                let relays = RelayServer::from_portal(&presence.connected);
                let are_there = !relays.is_empty();
                self.links
                    .update_relays(now, &presence.disconnected_ids, relays);
                if are_there {
                    self.requests.retry_without_relay(now);
                }
            }
            FromPortal::AuthorizationCreated(created) => self.handle_authorized(now, created),
            FromPortal::AuthorizationCreationFailed(failed) => self.handle_refused(now, &failed),
            FromPortal::IceCandidates(told) => {
                for line in &told.candidates {
                    self.links
                        .add_remote_candidate(now, told.gateway_id.into(), line);
                }
            }
            FromPortal::InvalidateIceCandidates(told) => {
                for line in &told.candidates {
                    self.links
                        .remove_remote_candidate(now, told.gateway_id.into(), line);
                }
            }
            // Connections among clients are not for this version.
            FromPortal::ClientIceCandidates(_)
            | FromPortal::InvalidateClientIceCandidates(_)
            | FromPortal::ClientIceCandidateError(_)
            | FromPortal::DeviceAccessAuthorized(_)
            | FromPortal::DeviceAccessDenied(_)
            | FromPortal::ResourceFiltersUpdated(_)
            | FromPortal::RejectAccess(_)
            | FromPortal::DevicePoolDomainResolved(_)
            | FromPortal::DevicePoolDomainResolutionFailed(_)
            | _ => tracing::debug!("Ignoring a message that this version doesn't act on"),
        }
        self.settle(now);
    }

    /// The portal's channel was joined or lost.
    pub fn handle_portal_state(&mut self, now: Instant, state: PortalState) {
        self.last_now = now;
        self.portal = state;
        if state == PortalState::Joined {
            // Requests that were lost on the way are asked again.
            self.requests.ask_again(now);
        }
        self.settle(now);
    }

    /// Whether what belongs to no other resource goes to the Internet resource, if there is one. At first it doesn't.
    pub fn want_internet(&mut self, now: Instant, is_wanted: bool) {
        self.last_now = now;
        if self.resources.wants_internet() == is_wanted {
            return;
        }
        for given_up in self.resources.want_internet(is_wanted) {
            self.revoke(now, given_up);
        }
        self.resources_changed();
        self.settle(now);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.last_now = now;
        self.links.handle_timeout(now);
        self.name_server.handle_timeout(now);
        self.settle(now);
    }

    /// A datagram that leaves before all data.
    pub fn poll_control(&mut self) -> Option<Transmit> {
        self.links.poll_control()
    }

    /// The train that leaves next, control before data.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.links.poll_transmit()
    }

    /// A packet made here, for the TUN device.
    pub fn poll_packet(&mut self) -> Option<Buffer> {
        self.packets.pop_front()
    }

    /// A message for the portal. There are none while it is away.
    pub fn poll_message(&mut self) -> Option<ToPortal> {
        if self.portal == PortalState::Away {
            return None;
        }
        if let Some(message) = self.messages.pop_front() {
            return Some(message);
        }

        Some(match self.candidates.poll()? {
            Change::Added(peer, candidates) => ToPortal::NewIceCandidates(GatewayCandidates {
                gateway_id: GatewayId(peer.0),
                candidates,
            }),
            Change::Removed(peer, candidates) => {
                ToPortal::InvalidateIceCandidates(GatewayCandidates {
                    gateway_id: GatewayId(peer.0),
                    candidates,
                })
            }
        })
    }

    /// Something that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A question to be carried to a name server, outside of the tunnel. The outcome goes to
    /// [`handle_exchanged`](Self::handle_exchanged).
    pub fn poll_exchange(&mut self) -> Option<Exchange> {
        self.exchanges.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, and what for.
    pub fn poll_timeout(&mut self) -> Option<(Instant, Reason)> {
        let can_speak = self.portal == PortalState::Joined;
        let has_messages = can_speak && (!self.messages.is_empty() || !self.candidates.is_empty());
        let has_output = !self.packets.is_empty() || !self.events.is_empty();
        if has_messages || has_output || !self.exchanges.is_empty() {
            return Some((self.last_now, Reason::Output));
        }
        let links = self
            .links
            .poll_timeout()
            .map(|(at, reason)| (at, Reason::Link(reason)));
        let requests = self.requests.poll_timeout();
        let requests = requests
            .into_iter()
            .chain(self.setups.poll_timeout())
            .chain(self.sites.poll_timeout())
            .min();
        let requests = requests.map(|at| (at, Reason::Request));
        let names = self.name_server.poll_timeout(self.last_now);
        let names = names.map(|at| (at, Reason::Names));

        links.into_iter().chain(requests).chain(names).min()
    }

    /// Our network changed and the sockets were bound anew: every link goes on (see [`Links::network_changed`]).
    pub fn network_changed(&mut self, now: Instant) {
        self.last_now = now;
        self.links.network_changed(now);
        self.exchanges.clear();
        self.name_server.start_over(now);
        self.settle(now);
    }

    /// Starts over: every link ends, and there is a new key. The sockets must have been bound anew.
    pub fn reset(&mut self, now: Instant) {
        self.last_now = now;
        self.links.reset(now);
        self.exchanges.clear();
        self.name_server.start_over(now);
        self.events
            .push_back(Event::KeyChanged(self.links.public_key()));
        self.settle(now);
    }

    /// Says goodbye to every gateway.
    pub fn shut_down(&mut self, now: Instant) {
        self.last_now = now;
        self.links.close_all(now);
        self.settle(now);
    }

    /// What `status` shows.
    pub fn status(&self, now: Instant) -> Status {
        let resources = self
            .resources
            .views(&self.sites)
            .into_iter()
            .map(|view| ResourceStatus {
                id: view.id.to_string(),
                name: view.name,
                address: view.address,
                reach: Some(view.reach.as_str()),
                gateway: self.grants.gateway_of(view.id).map(|id| id.to_string()),
                clients: Vec::new(),
            });
        let addresses = self
            .addresses
            .into_iter()
            .flat_map(|(v4, v6)| [IpAddr::V4(v4), IpAddr::V6(v6)]);

        Status {
            addresses: addresses.collect(),
            name_servers: self.name_server.sentinels.status(),
            resources: resources.collect(),
            dropped_from_tun: self.dropped_from_tun.total(),
            dropped_from_peers: self.dropped_from_peers.total(),
            drops_from_tun: self.dropped_from_tun.by_reason(),
            drops_from_peers: self.dropped_from_peers.by_reason(),
            ..Status::of_links(now, &self.links)
        }
    }

    fn handle_init(&mut self, now: Instant, init: Init) {
        // In this order: routes need the interface, requests need the relays.
        self.set_interface(now, &init.interface);
        for gone in self.resources.replace_all(init.resources) {
            self.revoke(now, gone);
        }
        self.resources_changed();
        let relays = RelayServer::from_portal(&init.relays);
        self.links.update_relays(now, &[], relays);
        self.requests.retry_without_relay(now);
    }

    /// Takes in what the links have to say, asks for what is due, and answers who asked for names.
    fn settle(&mut self, now: Instant) {
        self.revision += 1;
        self.hear_links();
        let Due { ask, unanswered } = self.requests.due(now);
        for resource in ask {
            self.ask(resource);
        }
        let silence = "there is no connection to the resource's site";
        let silence = told(ExtendedError::NOT_READY, silence);
        self.fail_held(now, unanswered, &silence);
        let (again, unanswered) = self.setups.due(now);
        for key in again {
            self.tell_gateway(now, &key);
        }
        self.refuse_held(unanswered, IcmpError::Unreachable);
        self.leave_deserted(now);
        self.sites.expire(now);
        if self.sites.take_changed() && self.resources.views(&self.sites) != self.listed {
            self.list_resources();
        }
        self.serve_names(now);
    }

    fn hear_links(&mut self) {
        while let Some(event) = self.links.poll_event() {
            match event {
                link::Event::NewCandidate { peer, line } => self.candidates.add(peer, line),
                link::Event::InvalidatedCandidate { peer, line } => {
                    self.candidates.remove(peer, line)
                }
                link::Event::Established(peer) => {
                    tracing::info!(gateway = %peer, "Connected");
                    self.sites.connected(GatewayId(peer.0));
                }
                link::Event::PathChanged { peer, kind } => {
                    let path = if kind.is_relayed() {
                        "relayed"
                    } else {
                        "direct"
                    };
                    tracing::info!(gateway = %peer, path, "Path changed");
                }
                // Another gateway may serve the same resources, and the portal knows which. Without the portal, waiting for
                // this one is all there is to do.
                link::Event::Silent(peer) if self.portal == PortalState::Joined => {
                    tracing::info!(gateway = %peer, "No answer; the next packet asks for a gateway anew");
                    self.links.remove(peer);
                    self.forget_gateway(peer);
                }
                // It may have ended in the instant it was chosen.
                link::Event::Unanswered(peer) if self.portal == PortalState::Joined => {
                    self.turn_from(peer);
                }
                link::Event::Failed(peer) => {
                    tracing::info!(gateway = %peer, "Connection lost; the next packet starts over");
                    self.forget_gateway(peer);
                }
                link::Event::Closed(peer) => self.forget_gateway(peer),
                link::Event::NoRelays => self.messages.push_back(ToPortal::NoRelays(Empty {})),
                link::Event::Silent(_) | link::Event::Unanswered(_) | _ => {}
            }
        }
    }
}

fn is_one_of(ip: IpAddr, own: Option<(Ipv4Addr, Ipv6Addr)>) -> bool {
    own.is_some_and(|(v4, v6)| ip == v4 || ip == v6)
}
