//! Access to resources: asked for, granted, refused, lost (client.md §6).

use std::time::Instant;

use connlib_link::{PeerConfig, PeerId, Role};
use connlib_wire::buffer::Buffer;
use connlib_wire::id::{GatewayId, ResourceId};
use connlib_wire::ip::{IcmpError, Packet, PortsOrId};
use connlib_wire::portal::Empty;
use connlib_wire::portal::client::{
    AuthorizationCreated, AuthorizationCreationFailed, Refusal, RequestAuthorization, ToPortal,
};

use super::reasons::{reason, refusal};
use super::setups::{Key, Known};
use super::{Client, is_one_of};
use crate::PortalState;
use crate::dns::Failure;
use crate::drops::DropReason;

impl Client {
    pub(super) fn ask(&mut self, resource: ResourceId) {
        if self.portal == PortalState::Away || !self.resources.contains(resource) {
            return;
        }
        tracing::debug!(%resource, "Asking for access");
        self.messages
            .push_back(ToPortal::RequestAuthorization(RequestAuthorization {
                resource_id: resource,
                connected_gateway_ids: self.grants.preferred(resource),
                ipv4: None,
                ipv6: None,
            }));
    }

    pub(super) fn handle_authorized(&mut self, now: Instant, created: AuthorizationCreated) {
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
        self.sites.named(gateway, created.site_id);
        self.grants.grant(
            resource,
            gateway,
            (created.gateway_ipv4, created.gateway_ipv6),
        );
        let granted = self.requests.granted(resource);
        for name in granted.names {
            self.prepare(now, resource, &name);
        }
        for packet in granted.packets {
            self.route_again(now, packet);
        }
        self.ask_held(now, resource, granted.questions);
        self.follow_sites(now);
    }

    pub(super) fn handle_refused(&mut self, now: Instant, failed: &AuthorizationCreationFailed) {
        let resource = failed.resource_id;
        if !self.requests.is_pending(resource) {
            tracing::debug!(%resource, "Ignoring a refusal that nobody waits for");
            return;
        }
        tracing::debug!(%resource, reason = ?failed.reason, "Access refused");
        let error = match failed.reason {
            Refusal::Offline | Refusal::VersionMismatch => IcmpError::Unreachable,
            Refusal::NotFound | Refusal::Forbidden | Refusal::Disabled | Refusal::Unknown | _ => {
                IcmpError::Prohibited
            }
        };
        if failed.reason == Refusal::Offline {
            let sites = self.resources.sites(resource);
            self.sites.went_offline(now, sites);
        }
        // So that programs fail at once instead of waiting for a reply that can't come.
        let refused = self.requests.refused(now, resource, error);
        self.refuse_held(refused.packets, error);
        self.fail_held(now, refused.questions, &refusal(error));
    }

    /// A resource is gone or another: nothing of it may flow. A gateway that serves no other, and is about to serve none, is left.
    pub(super) fn revoke(&mut self, now: Instant, resource: ResourceId) {
        let forgotten = self.requests.forget(resource);
        self.fail_held(now, forgotten.questions, &reason(&Failure::Interrupted));
        self.name_server.abandon_site(resource);
        let setups = self.setups.forget_resource(resource);
        if let Some(gateway) = self.grants.revoke(resource) {
            self.deserted.insert(gateway.into());
            self.follow_sites(now);
        }
        let told = setups.into_iter().flat_map(|(_, held)| held);
        for packet in forgotten.packets.into_iter().chain(told) {
            self.route_again(now, packet);
        }
    }

    /// A gateway says that there is no access to what a packet of ours was for: a grant has ended that we still believed in. It is
    /// asked for anew, and what follows waits for that. False if programs should hear of it: the gateway serves no such resource, or
    /// access was asked for a moment ago.
    pub(super) fn renew_access(
        &mut self,
        now: Instant,
        gateway: GatewayId,
        error: &Packet<&[u8]>,
    ) -> bool {
        let Some(quoted) = error.quoted() else {
            return false;
        };
        let port = match quoted.ports_or_id {
            PortsOrId::Ports { destination, .. } => Some(destination),
            PortsOrId::EchoId(_) | PortsOrId::Neither => None,
        };
        if quoted.destination != error.source() || !is_one_of(quoted.source, self.addresses) {
            return false;
        }
        let resource = self.resource_at((quoted.destination, quoted.transport, port));
        let is_served = |resource: &ResourceId| self.grants.gateway_of(*resource) == Some(gateway);
        let Some(resource) = resource.filter(is_served) else {
            return false;
        };
        if let Some(name) = self.name_server.names.name_at(quoted.destination) {
            let key = Key {
                gateway,
                resource,
                name: name.clone(),
            };
            // It left when the name was another resource's, whose access has ended. The next packet tells the gateway first.
            if matches!(self.setups.known(&key), Known::Not | Known::Asked) {
                return true;
            }
        }
        if !self.requests.renew(now, resource) {
            return false;
        }
        tracing::debug!(%resource, %gateway, "Access has ended");
        if self.grants.revoke(resource).is_some() {
            self.deserted.insert(gateway.into());
        }
        self.ask(resource);
        for (_, held) in self.setups.forget_resource(resource) {
            for packet in held {
                self.route_again(now, packet);
            }
        }
        self.follow_sites(now);
        self.revision += 1;

        true
    }

    /// Resources have changed: what waits for one of them may have to go to another, and must not be overtaken by what
    /// follows.
    pub(super) fn route_waiting_again(&mut self, now: Instant) {
        let told = self.setups.take_waiting();
        for packet in told.into_iter().chain(self.requests.take_waiting()) {
            self.route_again(now, packet);
        }
    }

    pub(super) fn forget_gateway(&mut self, peer: PeerId) {
        let gateway = GatewayId(peer.0);
        self.grants.forget(gateway);
        self.sites.lost(gateway);
        self.candidates.forget(peer);
        // What waited for it may go through another one.
        let now = self.last_now;
        for (_, packets) in self.setups.forget_gateway(gateway) {
            for packet in packets {
                self.route_again(now, packet);
            }
        }
        self.follow_sites(now);
    }

    /// Answers packets that waited for what didn't come.
    pub(super) fn refuse_held(&mut self, held: impl IntoIterator<Item = Buffer>, error: IcmpError) {
        let now = self.last_now;
        for packet in held {
            self.dropped_from_tun.add(DropReason::NoAccess, 1);
            if let Ok(packet) = Packet::parse(&*packet) {
                self.answer(now, &packet, error);
            }
        }
    }

    /// A gateway that was never reached may have ended in the instant it was chosen: what waits for it asks anew. The link
    /// is tried on until there is an answer, which may name the same one again.
    pub(super) fn turn_from(&mut self, peer: PeerId) {
        let now = self.last_now;
        let waiting = self.links.take_waiting(now, peer);
        if waiting.is_empty() {
            return;
        }
        tracing::info!(gateway = %peer, "No answer; asking for a gateway anew");
        let gateway = GatewayId(peer.0);
        self.grants.forget(gateway);
        self.grants.prefer_no_more(gateway);
        self.deserted.insert(peer);
        for packet in waiting {
            self.route_again(now, packet);
        }
        for (key, packets) in self.setups.forget_gateway(gateway) {
            self.prepare(now, key.resource, &key.name);
            for packet in packets {
                self.route_again(now, packet);
            }
        }
        self.follow_sites(now);
    }

    /// Leaves gateways that serve nothing any more. As long as the portal has a question of ours before it, its answer may name
    /// one of them: that gateway has the grant already, and a goodbye would take it back.
    pub(super) fn leave_deserted(&mut self, now: Instant) {
        if self.deserted.is_empty() || self.requests.is_any_pending() {
            return;
        }
        for peer in std::mem::take(&mut self.deserted) {
            if !self.grants.serves(GatewayId(peer.0)) {
                self.links.close(now, peer);
                self.forget_gateway(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests;
