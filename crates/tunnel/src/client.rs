//! The client: packets ask for access, grants let them through.

mod grants;
mod requests;
mod resources;
mod traffic;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_link::{self as link, Links, PeerConfig, PeerId, RelayServer, Role};
use connlib_wire::buffer::Buffer;
use connlib_wire::id::{GatewayId, ResourceId};
use connlib_wire::ip::{IcmpError, Packet};
use connlib_wire::key::PublicKey;
use connlib_wire::portal::client::{
    AuthorizationCreated, AuthorizationCreationFailed, FromPortal, GatewayCandidates, Init,
    RequestAuthorization, ToPortal,
};
use connlib_wire::portal::{Empty, client as portal};
use connlib_wire::train::Transmit;
use ipnet::IpNet;

use crate::candidates::{Candidates, Change};
use crate::status::{ResourceStatus, Status};
use crate::{PortalState, Reason, Settings, ranges};
use grants::Grants;
use requests::Requests;
use resources::Resources;

pub use resources::ResourceView;

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
}

/// A client's state machine.
#[derive(Debug)]
pub struct Client {
    links: Links,
    portal: PortalState,
    addresses: Option<(Ipv4Addr, Ipv6Addr)>,
    resources: Resources,
    requests: Requests,
    grants: Grants,
    candidates: Candidates,
    /// Gateways without an answer that the portal may name again.
    deserted: Vec<PeerId>,
    announced: Option<Interface>,
    packets: VecDeque<Buffer>,
    messages: VecDeque<ToPortal>,
    events: VecDeque<Event>,
    /// Counts what may have changed where packets go.
    revision: u64,
    dropped_from_tun: u64,
    dropped_from_peers: u64,
    last_now: Instant,
}

impl Client {
    /// Creates a client that knows nothing yet. Use fresh entropy for `seed` but in tests.
    pub fn new(now: Instant, seed: [u8; 32], settings: Settings) -> Self {
        let unix = settings.unix;
        let mut links = Links::new(now, seed, link::Settings { unix });
        links.set_inside(&ranges::TUNNEL);

        Self {
            links,
            portal: PortalState::Away,
            addresses: None,
            resources: Resources::default(),
            requests: Requests::default(),
            grants: Grants::default(),
            candidates: Candidates::default(),
            deserted: Vec::new(),
            announced: None,
            packets: VecDeque::new(),
            messages: VecDeque::new(),
            events: VecDeque::new(),
            revision: 0,
            dropped_from_tun: 0,
            dropped_from_peers: 0,
            last_now: now,
        }
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
                self.set_interface(&config.interface);
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
            _ => tracing::debug!("Ignoring a message that this version doesn't act on"),
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

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.last_now = now;
        self.links.handle_timeout(now);
        for resource in self.requests.due(now) {
            self.ask(resource);
        }
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

    /// When to call [`handle_timeout`](Self::handle_timeout) next, and what for.
    pub fn poll_timeout(&mut self) -> Option<(Instant, Reason)> {
        let can_speak = self.portal == PortalState::Joined;
        let has_messages = can_speak && (!self.messages.is_empty() || !self.candidates.is_empty());
        if has_messages || !self.packets.is_empty() || !self.events.is_empty() {
            return Some((self.last_now, Reason::Output));
        }
        let links = self
            .links
            .poll_timeout()
            .map(|(at, reason)| (at, Reason::Link(reason)));
        let requests = self.requests.poll_timeout().map(|at| (at, Reason::Request));

        links.into_iter().chain(requests).min()
    }

    /// Our network changed and the sockets were bound anew: every link goes on (see [`Links::network_changed`]).
    pub fn network_changed(&mut self, now: Instant) {
        self.last_now = now;
        self.links.network_changed(now);
        self.settle(now);
    }

    /// Starts over: every link ends, and there is a new key. The sockets must have been bound anew.
    pub fn reset(&mut self, now: Instant) {
        self.last_now = now;
        self.links.reset(now);
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
            .views()
            .into_iter()
            .map(|view| ResourceStatus {
                id: view.id.to_string(),
                name: view.name,
                address: view.address,
                gateway: self.grants.gateway_of(view.id).map(|id| id.to_string()),
                clients: Vec::new(),
            });
        let addresses = self
            .addresses
            .into_iter()
            .flat_map(|(v4, v6)| [IpAddr::V4(v4), IpAddr::V6(v6)]);

        Status {
            addresses: addresses.collect(),
            resources: resources.collect(),
            dropped_from_tun: self.dropped_from_tun,
            dropped_from_peers: self.dropped_from_peers,
            ..Status::of_links(now, &self.links)
        }
    }

    fn handle_init(&mut self, now: Instant, init: Init) {
        // In this order: routes need the interface, requests need the relays.
        self.set_interface(&init.interface);
        for gone in self.resources.replace_all(init.resources) {
            self.revoke(now, gone);
        }
        self.resources_changed();
        let relays = RelayServer::from_portal(&init.relays);
        self.links.update_relays(now, &[], relays);
        self.requests.retry_without_relay(now);
    }

    fn set_interface(&mut self, interface: &portal::Interface) {
        self.addresses = Some((interface.ipv4, interface.ipv6));
    }

    fn resources_changed(&mut self) {
        self.announce_interface();
        self.events
            .push_back(Event::ResourcesChanged(self.resources.views()));
    }

    /// Tells of the interface if it differs from what was told last.
    fn announce_interface(&mut self) {
        let Some((ipv4, ipv6)) = self.addresses else {
            return;
        };
        let mut routes = ranges::TUNNEL.to_vec();
        routes.extend(self.resources.networks());
        let interface = Interface { ipv4, ipv6, routes };
        if self.announced.as_ref() != Some(&interface) {
            self.announced = Some(interface.clone());
            self.events.push_back(Event::InterfaceChanged(interface));
        }
    }

    fn ask(&mut self, resource: ResourceId) {
        if self.portal == PortalState::Away || !self.resources.contains(resource) {
            return;
        }
        tracing::debug!(%resource, "Asking for access");
        self.messages
            .push_back(ToPortal::RequestAuthorization(RequestAuthorization {
                resource_id: resource,
                connected_gateway_ids: self.grants.preferred(resource),
            }));
    }

    fn handle_authorized(&mut self, now: Instant, created: AuthorizationCreated) {
        let resource = created.resource_id;
        if !self.resources.contains(resource) || !self.requests.is_pending(resource) {
            tracing::debug!(%resource, "Ignoring access that nobody waits for");
            return;
        }
        let gateway = created.gateway_id;
        let config = PeerConfig {
            public_key: created.gateway_public_key,
            preshared_key: created.preshared_key,
            local: created.client_ice_credentials,
            remote: created.gateway_ice_credentials,
            role: Role::Controlling,
        };
        if let Err(why) = self.links.upsert(now, gateway.into(), config) {
            tracing::debug!(%gateway, %why, "No link to the gateway");
            self.requests.wait_for_relay(resource);
            self.messages.push_back(ToPortal::NoRelays(Empty {}));
            return;
        }
        tracing::debug!(%resource, %gateway, "Access granted");
        self.grants.grant(
            resource,
            gateway,
            (created.gateway_ipv4, created.gateway_ipv6),
        );
        for held in self.requests.granted(resource) {
            self.encapsulate(now, gateway, &held);
        }
        self.leave_deserted(now);
    }

    fn handle_refused(&mut self, now: Instant, failed: &AuthorizationCreationFailed) {
        let resource = failed.resource_id;
        tracing::debug!(%resource, reason = ?failed.reason, "Access refused");
        self.leave_deserted(now);
        let error = match failed.reason {
            portal::Refusal::Offline | portal::Refusal::VersionMismatch => IcmpError::Unreachable,
            portal::Refusal::NotFound
            | portal::Refusal::Forbidden
            | portal::Refusal::Disabled
            | portal::Refusal::Unknown
            | _ => IcmpError::Prohibited,
        };
        // So that programs fail at once instead of waiting for a reply that can't come.
        for held in self.requests.refused(now, resource, error) {
            if let Ok(packet) = Packet::parse(&*held) {
                self.answer(&packet, error);
            }
        }
    }

    /// A resource is gone or another: nothing of it may flow. A gateway that serves no other is left.
    fn revoke(&mut self, now: Instant, resource: ResourceId) {
        self.requests.forget(resource);
        if let Some(gateway) = self.grants.revoke(resource) {
            self.links.close(now, gateway.into());
            self.forget_gateway(gateway.into());
        }
    }

    fn forget_gateway(&mut self, peer: PeerId) {
        self.grants.forget(GatewayId(peer.0));
        self.candidates.forget(peer);
    }

    /// A gateway that was never reached may have ended in the instant it was chosen: what waits for it asks anew. The link
    /// is tried on until there is an answer, which may name the same one again.
    fn turn_from(&mut self, peer: PeerId) {
        let now = self.last_now;
        let waiting = self.links.take_waiting(now, peer);
        if waiting.is_empty() {
            return;
        }
        tracing::info!(gateway = %peer, "No answer; asking for a gateway anew");
        self.grants.forget(GatewayId(peer.0));
        self.grants.prefer_no_more(GatewayId(peer.0));
        self.deserted.push(peer);
        for packet in waiting {
            self.route_again(now, packet);
        }
    }

    /// The portal has answered: a gateway that was not named again is left.
    fn leave_deserted(&mut self, now: Instant) {
        for peer in std::mem::take(&mut self.deserted) {
            if !self.grants.serves(GatewayId(peer.0)) {
                self.links.close(now, peer);
                self.forget_gateway(peer);
            }
        }
    }

    /// Takes in what the links have to say, and asks for what is due.
    fn settle(&mut self, now: Instant) {
        self.revision += 1;
        self.hear_links();
        for resource in self.requests.due(now) {
            self.ask(resource);
        }
    }

    fn hear_links(&mut self) {
        while let Some(event) = self.links.poll_event() {
            match event {
                link::Event::NewCandidate { peer, line } => self.candidates.add(peer, line),
                link::Event::InvalidatedCandidate { peer, line } => {
                    self.candidates.remove(peer, line)
                }
                link::Event::Established(peer) => tracing::info!(gateway = %peer, "Connected"),
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
