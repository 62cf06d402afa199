//! The gateway: lets in what is granted, for as long as it is granted.

mod arriving;
#[cfg(test)]
mod figures;
mod grant;
mod names;
mod nat;
mod peers;
mod set_ups;
mod traffic;
mod why;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_link::{self as link, Links, PeerConfig, PeerId, RelayServer, Role};
use connlib_wire::buffer::Buffer;
use connlib_wire::id::ClientId;
use connlib_wire::key::PublicKey;
use connlib_wire::portal::Empty;
use connlib_wire::portal::gateway::{
    AuthorizationRef, BroadcastCandidates, CreateAuthorization, FromPortal, Init, ToPortal,
};
use connlib_wire::train::Transmit;
use ipnet::IpNet;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::candidates::{Candidates, Change};
use crate::dns::Exchange;
use crate::drops::Drops;
use crate::reassembly::Reassembly;
use crate::{Calendar, PortalState, Reason, Settings, Status, ranges};
use names::Names;
use peers::Peers;

/// Something that the operating system should know.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The TUN device must have these addresses and routes.
    InterfaceChanged(Interface),
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
    /// What leads into it: the ranges that clients' addresses are from.
    pub routes: Vec<IpNet>,
}

/// A gateway's state machine.
#[derive(Debug)]
pub struct Gateway {
    links: Links,
    portal: PortalState,
    calendar: Calendar,
    addresses: Option<(Ipv4Addr, Ipv6Addr)>,
    peers: Peers,
    names: Names,
    candidates: Candidates,
    announced: Option<Interface>,
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

impl Gateway {
    /// Creates a gateway that lets nobody in. Use fresh entropy for `seed` but in tests.
    pub fn new(now: Instant, seed: [u8; 32], settings: Settings) -> Self {
        let unix = settings.unix;
        let mut random = StdRng::from_seed(seed);
        let mut links = Links::new(now, seed, link::Settings { unix });
        links.set_inside(&ranges::TUNNEL);

        Self {
            links,
            portal: PortalState::Away,
            calendar: Calendar {
                start: now,
                unix: settings.unix,
            },
            addresses: None,
            peers: Peers::default(),
            names: Names::new(now, random.random()),
            candidates: Candidates::default(),
            announced: None,
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

    /// The key to connect to the portal with.
    pub fn public_key(&self) -> PublicKey {
        self.links.public_key()
    }

    /// Takes a message of the portal.
    pub fn handle_message(&mut self, now: Instant, message: FromPortal) {
        self.last_now = now;
        match message {
            FromPortal::Init(init) => self.handle_init(now, &init),
            FromPortal::CreateAuthorization(request) => self.authorize(now, request),
            FromPortal::RejectAccess(rejected) => {
                tracing::debug!(client = %rejected.client_id, resource = %rejected.resource_id, "Access revoked");
                self.peers.revoke(rejected.client_id, rejected.resource_id);
            }
            FromPortal::ResourceUpdated(resource) => self.peers.update_filters(&resource),
            FromPortal::IceCandidates(told) => {
                for line in &told.candidates {
                    self.links
                        .add_remote_candidate(now, told.client_id.into(), line);
                }
            }
            FromPortal::InvalidateIceCandidates(told) => {
                for line in &told.candidates {
                    self.links
                        .remove_remote_candidate(now, told.client_id.into(), line);
                }
            }
            FromPortal::RelaysPresence(presence) => {
                let relays = RelayServer::from_portal(&presence.connected);
                self.links
                    .update_relays(now, &presence.disconnected_ids, relays);
            }
            FromPortal::ExpiryUpdated(grant) => {
                let until = grant.expires_at.map(|secs| self.calendar.instant(secs));
                self.peers
                    .set_end(grant.client_id, grant.resource_id, until);
                self.peers.expire(now);
            }
            _ => tracing::debug!("Ignoring a message that this version doesn't act on"),
        }
        self.settle(now);
    }

    /// The portal's channel was joined or lost.
    pub fn handle_portal_state(&mut self, now: Instant, state: PortalState) {
        self.last_now = now;
        self.portal = state;
        if state == PortalState::Away {
            // An acknowledgement that comes late is worth nothing: the portal asks again.
            self.messages.clear();
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.last_now = now;
        self.links.handle_timeout(now);
        self.peers.expire(now);
        self.peers.expire_flows(now);
        self.names.handle_timeout(now);
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
        let broadcast = |peer: PeerId, candidates| BroadcastCandidates {
            client_ids: vec![ClientId(peer.0)],
            candidates,
        };

        Some(match self.candidates.poll()? {
            Change::Added(peer, lines) => ToPortal::BroadcastIceCandidates(broadcast(peer, lines)),
            Change::Removed(peer, lines) => {
                ToPortal::BroadcastInvalidatedIceCandidates(broadcast(peer, lines))
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
        let expiry = self.peers.next_expiry().map(|at| (at, Reason::Expiry));
        let flows = self.peers.next_flow_end().map(|at| (at, Reason::Flow));
        let names = self.names.poll_timeout(self.last_now);
        let names = names.map(|at| (at, Reason::Names));

        [links, expiry, flows, names].into_iter().flatten().min()
    }

    /// Our network changed and the sockets were bound anew: every link goes on (see [`Links::network_changed`]).
    pub fn network_changed(&mut self, now: Instant) {
        self.last_now = now;
        self.links.network_changed(now);
        self.exchanges.clear();
        self.names.start_over(now);
        self.settle(now);
    }

    /// Starts over: every link ends, and there is a new key. The sockets must have been bound anew.
    pub fn reset(&mut self, now: Instant) {
        self.last_now = now;
        self.links.reset(now);
        self.exchanges.clear();
        self.names.start_over(now);
        self.events
            .push_back(Event::KeyChanged(self.links.public_key()));
        self.settle(now);
    }

    /// Says goodbye to every client.
    pub fn shut_down(&mut self, now: Instant) {
        self.last_now = now;
        self.links.close_all(now);
        self.settle(now);
    }

    /// What `status` shows.
    pub fn status(&self, now: Instant) -> Status {
        let addresses = self
            .addresses
            .into_iter()
            .flat_map(|(v4, v6)| [IpAddr::V4(v4), IpAddr::V6(v6)]);

        Status {
            addresses: addresses.collect(),
            resources: self.peers.status(),
            dropped_from_tun: self.dropped_from_tun.total(),
            dropped_from_peers: self.dropped_from_peers.total(),
            drops_from_tun: self.dropped_from_tun.by_reason(),
            drops_from_peers: self.dropped_from_peers.by_reason(),
            ..Status::of_links(now, &self.links)
        }
    }

    fn handle_init(&mut self, now: Instant, init: &Init) {
        let relays = RelayServer::from_portal(&init.relays);
        self.links.update_relays(now, &[], relays);

        let (ipv4, ipv6) = (init.interface.ipv4, init.interface.ipv6);
        self.addresses = Some((ipv4, ipv6));
        // What isn't listed was revoked while we were away.
        let calendar = self.calendar;
        let listed = init.authorizations.iter().map(|grant| {
            let until = grant.expires_at.map(|secs| calendar.instant(secs));
            ((grant.client_id, grant.resource_id), until)
        });
        self.peers.retain(&listed.collect());
        self.peers.expire(now);

        let interface = Interface {
            ipv4,
            ipv6,
            routes: ranges::TUNNEL.to_vec(),
        };
        if self.announced.as_ref() != Some(&interface) {
            self.announced = Some(interface.clone());
            self.events.push_back(Event::InterfaceChanged(interface));
        }
    }

    /// Makes the link, then the grant, and only then says so: the client must find both.
    fn authorize(&mut self, now: Instant, request: CreateAuthorization) {
        let client = request.client;
        let config = PeerConfig {
            public_key: client.public_key,
            preshared_key: client.preshared_key,
            local: request.gateway_ice_credentials,
            remote: request.client_ice_credentials,
            role: Role::Controlled,
        };
        if let Err(why) = self.links.upsert(now, client.id.into(), config) {
            tracing::debug!(client = %client.id, %why, "No link to the client");
            self.messages.push_back(ToPortal::NoRelays(Empty {}));
            return;
        }
        let until = request.expires_at.map(|secs| self.calendar.instant(secs));
        tracing::debug!(client = %client.id, resource = %request.resource.id(), "Access granted");
        self.peers.grant(
            client.id,
            (client.ipv4, client.ipv6),
            request.resource,
            until,
        );
        self.messages
            .push_back(ToPortal::AuthorizationCreated(AuthorizationRef {
                reference: request.reference,
            }));
    }

    /// Takes in what the links have to say, and leaves clients that may use nothing any longer.
    fn settle(&mut self, now: Instant) {
        for client in self.peers.take_idle() {
            tracing::info!(%client, "The last grant ended");
            self.links.close(now, client.into());
        }
        self.revision += 1;
        self.hear_links();
        self.serve_names(now);
    }

    fn hear_links(&mut self) {
        while let Some(event) = self.links.poll_event() {
            match event {
                link::Event::NewCandidate { peer, line } => self.candidates.add(peer, line),
                link::Event::InvalidatedCandidate { peer, line } => {
                    self.candidates.remove(peer, line)
                }
                link::Event::Established(peer) => tracing::info!(client = %peer, "Connected"),
                link::Event::PathChanged { peer, kind } => {
                    let path = if kind.is_relayed() {
                        "relayed"
                    } else {
                        "direct"
                    };
                    tracing::info!(client = %peer, path, "Path changed");
                }
                // The grants stay: a client that comes back still counts on them (gateway.md §2).
                link::Event::Failed(peer) => {
                    tracing::info!(client = %peer, "Connection lost");
                    self.candidates.forget(peer);
                }
                link::Event::Closed(peer) => self.candidates.forget(peer),
                link::Event::NoRelays => self.messages.push_back(ToPortal::NoRelays(Empty {})),
                // A client comes back by itself; there is no other to turn to.
                link::Event::Silent(_) | _ => {}
            }
        }
    }
}
