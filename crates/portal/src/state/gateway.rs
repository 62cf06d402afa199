//! The gateway's socket (portal-protocol.md §6).

use std::collections::BTreeSet;

use connlib_wire::id::{ClientId, GatewayId, ResourceId};
use connlib_wire::portal::gateway::{
    BroadcastCandidates, FromPortal, Init, MasqueradeConfig, ToPortal,
};
use connlib_wire::portal::phoenix::Envelope;
use connlib_wire::portal::{Authorization, RelaysPresence, client};

use super::relays::{Among, Choice, Holder};
use super::session::SocketId;
use super::{State, render};

impl State {
    pub(super) fn join_gateway(
        &mut self,
        socket: SocketId,
        id: GatewayId,
        envelope: &Envelope<'_>,
    ) {
        let gateway = self.directory.gateways().get(&id);
        let addresses = gateway.map(|gateway| gateway.device.addresses);
        let Some((interface, session)) = addresses.zip(self.gateways.get_mut(&id)) else {
            self.reply_error(socket, envelope, "unmatched topic");
            return;
        };
        session.joined = true;
        let choice = Choice {
            now: self.clock.now,
            among: Among::All,
            locations: &self.locations,
        };
        let relays = (self.relays).choose(&Holder::gateway(id, session), choice);
        session.held.replace(choice.now, relays.clone());
        let authorizations = self.live_grants_of(id);
        let granted: BTreeSet<ResourceId> = (authorizations.iter())
            .map(|grant| grant.resource_id)
            .collect();
        let init = Init {
            interface,
            config: MasqueradeConfig::default(),
            account_slug: Some(self.directory.account().slug.clone()),
            relays,
            authorizations,
            flow_logs: Some(render::no_flow_logs()),
        };

        self.reply_ok(socket, envelope);
        self.tell_gateway(id, &FromPortal::Init(init));
        self.schedule.is_told_all(id);
        self.tell_filters(id, &granted);
        tracing::info!(gateway = %id, "Gateway joined");
        self.repeat_requests(id);
    }

    pub(super) fn handle_gateway(
        &mut self,
        socket: SocketId,
        id: GatewayId,
        envelope: &Envelope<'_>,
        message: ToPortal,
    ) {
        match message {
            ToPortal::AuthorizationCreated(acknowledged) => {
                let request = (self.requests).take_acknowledged(id, &acknowledged.reference);
                match request {
                    Some(request) => {
                        self.reply_ok(socket, envelope);
                        self.confirm(request);
                    }
                    None => self.reply_error(socket, envelope, "invalid_ref"),
                }
            }
            ToPortal::BroadcastIceCandidates(candidates) => {
                self.forward_to_clients(id, &candidates, client::FromPortal::IceCandidates);
            }
            ToPortal::BroadcastInvalidatedIceCandidates(candidates) => {
                let event = client::FromPortal::InvalidateIceCandidates;
                self.forward_to_clients(id, &candidates, event);
            }
            ToPortal::NoRelays(_) => self.answer_no_relays_of_gateway(id),
            // No connection of this version does without ICE, whatever its ends can do.
            ToPortal::SetCapabilities(_) => {}
            // The enum may grow; a message that is parsed and not handled is worth nothing to anyone.
            message => {
                tracing::debug!(gateway = %id, event = message.event(), "Ignoring a message");
            }
        }
    }

    /// Tells a gateway what may pass to resources that it gives access to: while it was away, that may have changed, and `init`
    /// says nothing of it.
    fn tell_filters(&mut self, id: GatewayId, granted: &BTreeSet<ResourceId>) {
        let resources = granted
            .iter()
            .filter_map(|id| self.directory.resources().get(id));
        let messages: Vec<_> = resources
            .map(|resource| FromPortal::ResourceUpdated(render::gateway_resource(resource)))
            .collect();
        for message in messages {
            self.tell_gateway(id, &message);
        }
    }

    /// Every grant that is in force: a gateway revokes what it isn't told here.
    fn live_grants_of(&self, id: GatewayId) -> Vec<Authorization> {
        (self.directory.grants().values())
            .filter(|grant| grant.key.gateway == id && grant.is_live(self.clock.unix))
            .map(|grant| Authorization {
                client_id: grant.key.client,
                resource_id: grant.key.resource,
                expires_at: grant.expires_at,
            })
            .collect()
    }

    fn forward_to_clients(
        &mut self,
        gateway_id: GatewayId,
        broadcast: &BroadcastCandidates,
        message: fn(client::GatewayCandidates) -> client::FromPortal,
    ) {
        let clients: BTreeSet<ClientId> = broadcast.client_ids.iter().copied().collect();
        for id in clients {
            if !self.share_a_grant(id, gateway_id) {
                tracing::debug!(client = %id, gateway = %gateway_id, "Dropping candidates between strangers");
                continue;
            }
            let candidates = client::GatewayCandidates {
                gateway_id,
                candidates: broadcast.candidates.clone(),
            };
            self.tell_client(id, &message(candidates));
        }
    }

    fn answer_no_relays_of_gateway(&mut self, id: GatewayId) {
        let Some(session) = self.gateways.get_mut(&id) else {
            return;
        };
        let choice = Choice {
            now: self.clock.now,
            among: Among::Connected,
            locations: &self.locations,
        };
        session.held.lose(choice.now);
        let connected = (self.relays).choose(&Holder::gateway(id, session), choice);
        session.held.replace(choice.now, connected.clone());
        let presence = RelaysPresence {
            disconnected_ids: vec![],
            connected,
        };

        self.tell_gateway(id, &FromPortal::RelaysPresence(presence));
    }
}
