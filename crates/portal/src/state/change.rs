//! What an admin changed, and who is told (portal-protocol.md §10.6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use connlib_wire::id::{ClientId, GatewayId, ResourceId};
use connlib_wire::portal::gateway::FromPortal;

use super::session::{SocketId, Who};
use super::{Clock, State, render};
use crate::model::{Edit, GrantKey, Resource};

impl State {
    /// Takes edits that the store has already, and tells everyone concerned.
    ///
    /// [`State::poll_edit`] doesn't repeat them.
    pub fn handle_edits(&mut self, now: Instant, unix: u64, edits: &[Edit]) {
        self.clock = Clock { now, unix };
        let grants: BTreeSet<GrantKey> = self.directory.grants().keys().copied().collect();
        let resources = self.directory.resources().clone();
        for edit in edits {
            self.directory.apply(edit);
        }

        self.end_sessions();
        for key in grants {
            if !self.directory.grants().contains_key(&key) {
                self.reject(key);
            }
        }
        self.judge_grants();
        self.update_filters(&resources);
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for client in clients {
            self.update_client(client);
        }
    }

    /// Ends the sessions whose token or device is gone.
    fn end_sessions(&mut self) {
        let directory = &self.directory;
        let unix = self.clock.unix;
        let ended: Vec<SocketId> = (self.sockets.iter())
            .filter(|(_, entry)| {
                let token = directory.tokens().get(&entry.token);
                let has_device = match entry.who {
                    Who::Client(id) => directory.clients().contains_key(&id),
                    Who::Gateway(id) => directory.gateways().contains_key(&id),
                    Who::Relay(..) => true,
                };
                !has_device || !token.is_some_and(|token| token.is_usable(unix))
            })
            .map(|(socket, _)| *socket)
            .collect();

        for socket in ended {
            self.end_session(socket);
        }
    }

    /// Tells gateways of resources whose filters are not what they were, where they let someone in.
    fn update_filters(&mut self, before: &BTreeMap<ResourceId, Resource>) {
        let mut messages: Vec<(GatewayId, FromPortal)> = vec![];
        for (id, resource) in self.directory.resources() {
            let old = before.get(id);
            if old.is_none_or(|old| old.filters == resource.filters) {
                continue;
            }
            let gateways: BTreeSet<GatewayId> = (self.directory.grants().keys())
                .filter(|key| key.resource == *id)
                .map(|key| key.gateway)
                .collect();
            let message = FromPortal::ResourceUpdated(render::gateway_resource(resource));
            messages.extend(
                gateways
                    .into_iter()
                    .map(|gateway| (gateway, message.clone())),
            );
        }

        for (gateway, message) in messages {
            self.tell_gateway(gateway, &message);
        }
    }
}
