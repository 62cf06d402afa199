//! Grants that a gateway was told of and has not acknowledged yet (portal-protocol.md §9.4).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use connlib_wire::id::{ClientId, GatewayId, ResourceId};
use connlib_wire::portal::client::AuthorizationCreated;

use crate::model::GrantKey;

/// How long a gateway may take to acknowledge.
pub(super) const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(15);

/// One grant that waits for its acknowledgement.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) key: GrantKey,
    /// What the gateway must echo. Nobody else knows it.
    pub(super) reference: String,
    pub(super) due_at: Instant,
    /// Whether the gateway never acknowledged this grant before.
    pub(super) is_first: bool,
    /// Whether the client waits for it. It doesn't when a grant of its is only to last longer.
    pub(super) is_asked_for: bool,
    /// What the client is told then.
    pub(super) answer: AuthorizationCreated,
}

/// All that wait: at most one for each client and resource.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: BTreeMap<(ClientId, ResourceId), Request>,
}

impl Requests {
    /// Adds one. Returns the one that it replaces.
    pub(super) fn add(&mut self, request: Request) -> Option<Request> {
        let key = (request.key.client, request.key.resource);

        self.waiting.insert(key, request)
    }

    /// Takes out the one that `gateway` acknowledges by `reference`.
    pub(super) fn take_acknowledged(
        &mut self,
        gateway: GatewayId,
        reference: &str,
    ) -> Option<Request> {
        let is_meant =
            |request: &Request| request.key.gateway == gateway && request.reference == reference;
        let key = *self
            .waiting
            .iter()
            .find(|(_, request)| is_meant(request))?
            .0;

        self.waiting.remove(&key)
    }

    /// Takes out those that waited too long.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Request> {
        (self.waiting)
            .extract_if(.., |_, request| request.due_at <= now)
            .map(|(_, request)| request)
            .collect()
    }

    /// What waits for `gateway`.
    pub(super) fn of_gateway(&self, gateway: GatewayId) -> Vec<(ClientId, ResourceId)> {
        (self.waiting.iter())
            .filter(|(_, request)| request.key.gateway == gateway)
            .map(|(key, _)| *key)
            .collect()
    }

    /// The one that waits for this client and resource.
    pub(super) fn waiting_mut(
        &mut self,
        client: ClientId,
        resource: ResourceId,
    ) -> Option<&mut Request> {
        self.waiting.get_mut(&(client, resource))
    }

    /// Whether this grant waits for its very first acknowledgement.
    pub(super) fn is_first(&self, key: GrantKey) -> bool {
        let request = self.waiting.get(&(key.client, key.resource));

        request.is_some_and(|request| request.key == key && request.is_first)
    }

    /// Nobody waits for the answers of `client` any longer.
    pub(super) fn forget_client(&mut self, client: ClientId) {
        self.waiting.retain(|(asking, _), _| *asking != client);
    }

    /// The grant fell.
    pub(super) fn forget_grant(&mut self, key: GrantKey) {
        self.waiting.retain(|_, request| request.key != key);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.values().map(|request| request.due_at).min()
    }
}
