//! The client's socket (portal-protocol.md §5).

use std::collections::{BTreeMap, BTreeSet};

use connlib_wire::id::{ClientId, GatewayId, ResourceId};
use connlib_wire::portal::client::{
    BroadcastCandidates, ConfigChanged, FromPortal, Init, Interface, Refusal, ToPortal,
};
use connlib_wire::portal::devices::{CandidateError, DomainResolutionFailed};
use connlib_wire::portal::phoenix::Envelope;
use connlib_wire::portal::resource::Resource;
use connlib_wire::portal::{RelaysPresence, gateway};

use super::relays::{Among, Choice, Holder};
use super::session::SocketId;
use super::{State, render, version};
use crate::policy;

/// What a client is to know of.
struct View {
    interface: Interface,
    resources: BTreeMap<ResourceId, Resource>,
    /// When one of the resources may go because a time window closes, in Unix seconds.
    until: Option<u64>,
}

impl State {
    pub(super) fn join_client(&mut self, socket: SocketId, id: ClientId, envelope: &Envelope<'_>) {
        let view = self.view_of(id);
        let Some((view, session)) = view.zip(self.clients.get_mut(&id)) else {
            self.reply_error(socket, envelope, "unmatched topic");
            return;
        };
        let View {
            interface,
            resources,
            until,
        } = view;
        session.joined = true;
        session.interface = Some(interface.clone());
        session.resources.clone_from(&resources);
        let choice = Choice {
            now: self.clock.now,
            among: Among::All,
            locations: &self.locations,
        };
        let relays = (self.relays).choose(&Holder::client(id, session), choice);
        session.held.replace(choice.now, relays.clone());
        let init = Init {
            interface,
            resources: resources.into_values().collect(),
            relays,
            authorizations: Some(vec![]),
            flow_logs: Some(render::no_flow_logs()),
        };

        self.note_end(id, until);
        self.reply_ok(socket, envelope);
        self.tell_client(id, &FromPortal::Init(init));
        tracing::info!(client = %id, "Client joined");
    }

    pub(super) fn handle_client(&mut self, id: ClientId, message: ToPortal) {
        match message {
            ToPortal::RequestAuthorization(request) => self.authorize(id, &request),
            ToPortal::NewIceCandidates(candidates) => {
                let event = gateway::FromPortal::IceCandidates;
                self.forward_to_gateways(id, candidates.into(), event);
            }
            ToPortal::InvalidateIceCandidates(candidates) => {
                let event = gateway::FromPortal::InvalidateIceCandidates;
                self.forward_to_gateways(id, candidates.into(), event);
            }
            ToPortal::BroadcastIceCandidates(candidates) => {
                let event = gateway::FromPortal::IceCandidates;
                self.forward_to_gateways(id, candidates, event);
            }
            ToPortal::BroadcastInvalidatedIceCandidates(candidates) => {
                let event = gateway::FromPortal::InvalidateIceCandidates;
                self.forward_to_gateways(id, candidates, event);
            }
            ToPortal::NoRelays(_) => self.answer_no_relays_of_client(id),
            // No client is connected with another one.
            ToPortal::NewClientIceCandidates(candidates) => {
                let error = CandidateError {
                    client_id: candidates.client_id,
                    reason: "offline".into(),
                };
                self.tell_client(id, &FromPortal::ClientIceCandidateError(error));
            }
            // There are no pools of devices, so no name is one's.
            ToPortal::ResolveDevicePoolDomain(asked) => {
                let failed = DomainResolutionFailed {
                    resource_id: asked.resource_id,
                    domain: asked.domain,
                    reason: Refusal::NotFound,
                };
                self.tell_client(id, &FromPortal::DevicePoolDomainResolutionFailed(failed));
            }
            // No connection of this version does without ICE, whatever its ends can do.
            ToPortal::SetCapabilities(_) | ToPortal::InvalidateClientIceCandidates(_) => {}
            // The enum may grow; a message that is parsed and not handled is worth nothing to anyone.
            message => tracing::debug!(client = %id, event = message.event(), "Ignoring a message"),
        }
    }

    /// Tells a client what changed since it was told last: first what is gone, then what is new.
    pub(super) fn update_client(&mut self, id: ClientId) {
        let view = self.view_of(id);
        let session = (self.clients.get_mut(&id)).filter(|session| session.joined);
        let Some((view, session)) = view.zip(session) else {
            return;
        };
        let View {
            interface,
            resources,
            until,
        } = view;
        let old_interface = session.interface.replace(interface.clone());
        let old_resources = std::mem::replace(&mut session.resources, resources.clone());
        self.note_end(id, until);

        if old_interface.as_ref() != Some(&interface) {
            let message = FromPortal::ConfigChanged(ConfigChanged { interface });
            self.tell_client(id, &message);
        }
        for gone in old_resources.keys() {
            if !resources.contains_key(gone) {
                self.tell_client(id, &FromPortal::ResourceDeleted(*gone));
            }
        }
        for (resource, now) in resources {
            if old_resources.get(&resource) != Some(&now) {
                self.tell_client(id, &FromPortal::ResourceCreatedOrUpdated(now));
            }
        }
    }

    /// What the client is to know of now.
    fn view_of(&self, id: ClientId) -> Option<View> {
        let client = self.directory.clients().get(&id)?;
        let version = self.clients.get(&id)?.version;
        let circumstances = self.circumstances(id, None);
        let mut reachable = policy::reachable(&self.directory, client.actor, &circumstances);
        reachable.retain(|_, decision| version::knows(version, &decision.resource.address));

        Some(View {
            interface: render::interface(&self.directory, client.device.addresses),
            until: (reachable.values())
                .filter_map(|decision| decision.until)
                .min(),
            resources: (reachable.into_iter())
                .map(|(id, decision)| (id, render::resource(&self.directory, decision.resource)))
                .collect(),
        })
    }

    fn forward_to_gateways(
        &mut self,
        client_id: ClientId,
        broadcast: BroadcastCandidates,
        message: fn(gateway::ClientCandidates) -> gateway::FromPortal,
    ) {
        let gateways: BTreeSet<GatewayId> = broadcast.gateway_ids.into_iter().collect();
        for gateway_id in gateways {
            if !self.share_a_grant(client_id, gateway_id) {
                tracing::debug!(client = %client_id, gateway = %gateway_id, "Dropping candidates between strangers");
                continue;
            }
            let candidates = gateway::ClientCandidates {
                client_id,
                candidates: broadcast.candidates.clone(),
            };
            self.tell_gateway(gateway_id, &message(candidates));
        }
    }

    fn answer_no_relays_of_client(&mut self, id: ClientId) {
        let Some(session) = self.clients.get_mut(&id) else {
            return;
        };
        let choice = Choice {
            now: self.clock.now,
            among: Among::Connected,
            locations: &self.locations,
        };
        session.held.lose(choice.now);
        let connected = (self.relays).choose(&Holder::client(id, session), choice);
        session.held.replace(choice.now, connected.clone());
        let presence = RelaysPresence {
            disconnected_ids: vec![],
            connected,
        };

        self.tell_client(id, &FromPortal::RelaysPresence(presence));
    }

    /// Whether the client may hear of the gateway and the other way round: a grant is in force between them, and the
    /// gateway acknowledged it.
    pub(super) fn share_a_grant(&self, client: ClientId, gateway: GatewayId) -> bool {
        self.directory.grants_of(client).any(|grant| {
            grant.key.gateway == gateway
                && grant.is_live(self.clock.unix)
                && !self.requests.is_first(grant.key)
        })
    }
}
