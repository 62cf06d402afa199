//! Letting a client in (portal-protocol.md §9.4, §10.4).
//!
//! ```text
//! client ── request_authorization ──► decide, choose a gateway, derive keys, keep the grant
//!                                     └── create_authorization ──► gateway
//!        ◄── authorization_created ────── authorization_created ──┘   (or 15 s: offline)
//! ```

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use connlib_wire::id::{ClientId, GatewayId, ResourceId};
use connlib_wire::portal::client::{
    self, AuthorizationCreated, AuthorizationCreationFailed, Refusal, RequestAuthorization,
};
use connlib_wire::portal::gateway::{self, CreateAuthorization, RejectAccess};
use connlib_wire::portal::{Authorization, Generation};
use rand::Rng as _;

use super::requests::{ACKNOWLEDGE_WITHIN, Request};
use super::version;
use super::{SWEEP_EVERY, State, render};
use crate::derive::ingest::{self, Claims};
use crate::derive::{Ends, FAR_FUTURE};
use crate::model::{Address, Edit, Grant, GrantId, GrantKey};
use crate::policy::{self, Denied, Property};

/// What the two ends of a grant are told.
struct Introduction {
    to_gateway: CreateAuthorization,
    to_client: AuthorizationCreated,
}

/// Why a client isn't let in, and all that is against it.
struct No(Refusal, BTreeSet<Property>);

impl From<Refusal> for No {
    fn from(reason: Refusal) -> Self {
        Self(reason, BTreeSet::new())
    }
}

impl From<Denied> for No {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NotFound => Refusal::NotFound.into(),
            Denied::Forbidden(violated) => Self(Refusal::Forbidden, violated),
        }
    }
}

impl State {
    pub(super) fn authorize(&mut self, client: ClientId, request: &RequestAuthorization) {
        let resource = request.resource_id;
        if let Err(No(reason, violated)) = self.try_authorize(client, request) {
            tracing::debug!(%client, %resource, ?reason, ?violated, "Refusing access");
            self.refuse(client, resource, reason, &violated);
        }
    }

    /// The gateway let the client in.
    pub(super) fn confirm(&mut self, request: Request) {
        let GrantKey {
            client,
            resource,
            gateway,
        } = request.key;
        if !request.is_asked_for {
            tracing::debug!(%client, %resource, %gateway, "Access prolonged");
            return;
        }
        tracing::info!(%client, %resource, %gateway, "Access granted");

        let message = client::FromPortal::AuthorizationCreated(request.answer);
        self.tell_client(client, &message);
    }

    /// The gateway didn't answer in time.
    pub(super) fn give_up(&mut self, request: Request) {
        let GrantKey {
            client, resource, ..
        } = request.key;
        tracing::debug!(%client, %resource, gateway = %request.key.gateway, "The gateway does not acknowledge");

        self.withdraw(&request);
        // Clients of the older generation never hear of it, and ask again by themselves (portal-protocol.md §9.4).
        if request.is_asked_for && self.generation_of_client(client) == Generation::V2 {
            self.refuse(client, resource, Refusal::Offline, &BTreeSet::new());
        }
    }

    /// Asks a gateway once more that was gone and came back, by now perhaps with another key.
    pub(super) fn repeat_requests(&mut self, gateway: GatewayId) {
        for (client, resource) in self.requests.of_gateway(gateway) {
            let key = GrantKey {
                client,
                resource,
                gateway,
            };
            let Some(grant) = self.directory.grants().get(&key).cloned() else {
                continue;
            };
            let reference = match self.requests.waiting_mut(client, resource) {
                Some(request) => request.reference.clone(),
                None => continue,
            };
            let Some(introduction) = self.introduce(&grant, reference) else {
                continue;
            };
            if let Some(request) = self.requests.waiting_mut(client, resource) {
                request.answer = introduction.to_client;
            }
            self.introduce_to_gateway(key, introduction.to_gateway);
        }
    }

    /// Lets the gateway know that a grant lasts longer. False if that can't be done now.
    pub(super) fn prolong(&mut self, grant: &Grant) -> bool {
        let GrantKey {
            client,
            resource,
            gateway,
        } = grant.key;
        if self.generation_of_gateway(gateway) == Generation::V1 {
            let moved = Authorization {
                client_id: client,
                resource_id: resource,
                expires_at: grant.expires_at,
            };
            self.schedule.is_told(grant.key);
            self.tell_gateway(gateway, &gateway::FromPortal::ExpiryUpdated(moved));
            return true;
        }
        let waiting = self.requests.waiting_mut(client, resource);
        let known = waiting.map(|request| (request.key, request.reference.clone()));
        let reference = match known {
            Some((key, reference)) if key == grant.key => reference,
            // The client is about to go through another gateway.
            Some(_) => return false,
            None => self.new_reference(),
        };
        let Some(introduction) = self.introduce(grant, reference.clone()) else {
            return false;
        };
        match self.requests.waiting_mut(client, resource) {
            Some(request) => request.answer = introduction.to_client,
            None => {
                self.requests.add(Request {
                    key: grant.key,
                    reference,
                    due_at: self.clock.now + ACKNOWLEDGE_WITHIN,
                    is_first: false,
                    is_asked_for: false,
                    answer: introduction.to_client,
                });
            }
        }
        self.introduce_to_gateway(grant.key, introduction.to_gateway);

        true
    }

    /// Takes back a grant that was in force, or may have been.
    pub(super) fn reject(&mut self, key: GrantKey) {
        self.requests.forget_grant(key);
        self.schedule.is_told(key);
        let message = gateway::FromPortal::RejectAccess(RejectAccess {
            client_id: key.client,
            resource_id: key.resource,
        });
        self.tell_gateway(key.gateway, &message);
    }

    fn try_authorize(
        &mut self,
        client: ClientId,
        request: &RequestAuthorization,
    ) -> Result<(), No> {
        let session = self.clients.get(&client).ok_or(Refusal::NotFound)?;
        let (actor, token) = (session.actor, session.token);
        let (token_ends_at, remote_ip) = (session.token_ends_at, session.remote_ip);
        let version = session.version;
        let circumstances = self.circumstances(client, None);
        let resource = request.resource_id;
        let decision = policy::decide(&self.directory, actor, resource, &circumstances)?;
        let expires_at = policy::earlier(decision.until, token_ends_at);
        let policy = decision.policy.id;
        if !version::knows(version, &decision.resource.address) {
            return Err(Refusal::NotFound.into());
        }
        let gateway = self.choose_gateway(client, resource, &request.connected_gateway_ids)?;

        let grant = Grant {
            id: GrantId(self.new_id()),
            key: GrantKey {
                client,
                resource,
                gateway,
            },
            policy,
            token,
            created_at: self.clock.unix,
            expires_at,
            remote_ip,
        };
        let reference = self.new_reference();
        let introduction = (self.introduce(&grant, reference.clone())).ok_or(Refusal::NotFound)?;
        self.keep(grant, reference, introduction);

        Ok(())
    }

    fn keep(&mut self, grant: Grant, reference: String, introduction: Introduction) {
        let key = grant.key;
        let known = self.directory.grants().get(&key);
        let is_first = known.is_none_or(|known| !known.is_live(self.clock.unix))
            || self.requests.is_first(key);
        let request = Request {
            key,
            reference,
            due_at: self.clock.now + ACKNOWLEDGE_WITHIN,
            is_first,
            is_asked_for: true,
            answer: introduction.to_client,
        };
        let replaced = self.requests.add(request);
        if let Some(replaced) = replaced.filter(|replaced| replaced.key != key) {
            self.withdraw(&replaced);
        }

        self.edit(Edit::PutGrant(grant));
        self.sweep_at.get_or_insert(self.clock.now + SWEEP_EVERY);
        self.introduce_to_gateway(key, introduction.to_gateway);
    }

    fn introduce_to_gateway(&mut self, key: GrantKey, introduction: CreateAuthorization) {
        self.schedule.is_told(key);
        let message = gateway::FromPortal::CreateAuthorization(introduction);
        self.tell_gateway(key.gateway, &message);
    }

    /// Takes back what was asked of a gateway. One that acknowledged the same grant before keeps that.
    fn withdraw(&mut self, request: &Request) {
        if !request.is_first {
            return;
        }
        let message = gateway::FromPortal::RejectAccess(RejectAccess {
            client_id: request.key.client,
            resource_id: request.key.resource,
        });
        self.tell_gateway(request.key.gateway, &message);
        self.edit(Edit::DropGrant(request.key));
    }

    fn refuse(
        &mut self,
        client: ClientId,
        resource_id: ResourceId,
        reason: Refusal,
        violated: &BTreeSet<Property>,
    ) {
        let failure = AuthorizationCreationFailed {
            resource_id,
            reason,
            violated_properties: (violated.iter())
                .map(|property| property.name().to_owned())
                .collect(),
        };
        let message = client::FromPortal::AuthorizationCreationFailed(failure);
        self.tell_client(client, &message);
    }

    /// A text that nobody can guess.
    fn new_reference(&mut self) -> String {
        let mut bytes = [0; 24];
        self.random.fill_bytes(&mut bytes);

        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What the two ends are told. `None` if one of them isn't connected, or the directory lacks a part of the grant.
    fn introduce(&self, grant: &Grant, reference: String) -> Option<Introduction> {
        let GrantKey {
            client: client_id,
            resource: resource_id,
            gateway: gateway_id,
        } = grant.key;
        let client_key = self.clients.get(&client_id)?.key;
        let gateway_key = self.gateways.get(&gateway_id)?.key;
        let client = self.directory.clients().get(&client_id)?;
        let gateway = self.directory.gateways().get(&gateway_id)?;
        let resource = self.directory.resources().get(&resource_id)?;

        let ends = Ends {
            client: client_id,
            client_key,
            gateway: gateway_id,
            gateway_key,
        };
        let preshared_key = ends.preshared_key(&client.device.psk_base, &gateway.device.psk_base);
        let ice = ends.ice_credentials();
        let to_gateway = CreateAuthorization {
            reference,
            resource: render::gateway_resource(resource),
            client: gateway::Client {
                id: client_id,
                public_key: client_key,
                preshared_key: preshared_key.clone(),
                ipv4: client.device.addresses.ipv4,
                ipv6: client.device.addresses.ipv6,
            },
            client_ice_credentials: ice.client.clone(),
            gateway_ice_credentials: ice.gateway.clone(),
            expires_at: grant.expires_at,
            use_iceless: Some(false),
            flow_logs_ingest_token: Some(self.ingest_token(grant, ingest::Role::Responder)?),
        };
        let to_client = AuthorizationCreated {
            resource_id,
            gateway_id,
            gateway_public_key: gateway_key,
            gateway_ipv4: gateway.device.addresses.ipv4,
            gateway_ipv6: gateway.device.addresses.ipv6,
            preshared_key,
            client_ice_credentials: ice.client,
            gateway_ice_credentials: ice.gateway,
            site_id: gateway.site,
            use_iceless: Some(false),
            flow_logs_ingest_token: Some(self.ingest_token(grant, ingest::Role::Initiator)?),
        };

        Some(Introduction {
            to_gateway,
            to_client,
        })
    }

    fn ingest_token(&self, grant: &Grant, role: ingest::Role) -> Option<String> {
        let directory = &self.directory;
        let client = directory.clients().get(&grant.key.client)?;
        let actor = directory.actors().get(&client.actor)?;
        let resource = directory.resources().get(&grant.key.resource)?;
        let resource_address = match &resource.address {
            Address::Cidr(_) | Address::Dns { .. } => Some(resource.address.to_string()),
            Address::Internet => None,
        };
        let claims = Claims {
            account_id: directory.account().id,
            iat: grant.created_at,
            exp: ingest::expiry(grant.expires_at),
            uploads_enabled: false,
            role,
            initiator_device_id: grant.key.client,
            responder_device_id: grant.key.gateway,
            policy_authorization_id: grant.id,
            policy_id: grant.policy,
            resource_id: resource.id,
            resource_name: resource.name.clone(),
            resource_address,
            initiator_actor_id: actor.id,
            initiator_actor_name: actor.name.clone(),
            authorized_at: ingest::iso_8601(grant.created_at),
            authorization_expires_at: ingest::iso_8601(grant.expires_at.unwrap_or(FAR_FUTURE)),
        };

        Some(ingest::mint(&directory.account().ingest_key, &claims))
    }
}
