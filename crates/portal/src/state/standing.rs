//! What time and place do to access that was given (portal-protocol.md §10.3, §10.4, §10.6).
//!
//! Conditions change without an edit: a window closes, a client connects from elsewhere. What a client sees is looked
//! at again at the end of a window, which is known, and each minute for windows that open.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_wire::id::{ClientId, GatewayId};

use super::{Clock, SWEEP_EVERY, State};
use crate::model::{Condition, Edit, Grant, GrantKey, Locations};
use crate::policy::{Circumstances, Fate, fate, lateness, policies_of};

/// How often clients are looked at whose policies have time windows (portal-protocol.md §10.3).
const RECHECK_EVERY: Duration = Duration::from_secs(60);

/// When conditions are to be looked at again.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// When connected clients may reach less than now, in Unix seconds.
    ends: BTreeSet<(u64, ClientId)>,
    /// When grants end of which their gateways think that they last longer, in Unix seconds.
    cut_short: BTreeMap<GrantKey, u64>,
    recheck_at: Option<Instant>,
}

impl Schedule {
    /// What a client sees ends at another time.
    fn move_end(&mut self, client: ClientId, before: Option<u64>, after: Option<u64>) {
        self.forget_end(client, before);
        self.ends.extend(after.map(|end| (end, client)));
    }

    /// A client is gone that saw something until `end`.
    pub(super) fn forget_end(&mut self, client: ClientId, end: Option<u64>) {
        if let Some(end) = end {
            self.ends.remove(&(end, client));
        }
    }

    /// A gateway was told when this grant ends.
    pub(super) fn is_told(&mut self, key: GrantKey) {
        self.cut_short.remove(&key);
    }

    /// A gateway was told when all of its grants end.
    pub(super) fn is_told_all(&mut self, gateway: GatewayId) {
        self.cut_short.retain(|key, _| key.gateway != gateway);
    }

    pub(super) fn poll_timeout(&self, clock: Clock) -> Option<Instant> {
        let view = self.ends.first().map(|(end, _)| *end);
        let grant = self.cut_short.values().min().copied();
        let end = view.into_iter().chain(grant).min();
        let end = end.and_then(|end| clock.instant_of(end));

        end.into_iter().chain(self.recheck_at).min()
    }
}

impl State {
    /// Takes another file of where addresses are, and tells everyone concerned.
    pub fn set_locations(&mut self, now: Instant, unix: u64, locations: Locations) {
        self.clock = Clock { now, unix };
        self.locations = locations;
        self.recheck();
    }

    /// The circumstances of `client`; `otherwise` is its address if it isn't connected.
    pub(super) fn circumstances(
        &self,
        client: ClientId,
        otherwise: Option<IpAddr>,
    ) -> Circumstances {
        let session = self.clients.get(&client);
        let remote_ip = session.map_or(otherwise, |session| session.remote_ip);
        let location = remote_ip.and_then(|address| self.locations.locate(address));
        let device = self.directory.clients().get(&client);

        Circumstances {
            remote_ip,
            country: location.map(|location| location.country),
            verified: device.is_some_and(|device| device.verified),
            unix: self.clock.unix,
        }
    }

    /// Notes until when a client sees what it was just told.
    pub(super) fn note_end(&mut self, id: ClientId, end: Option<u64>) {
        let Some(session) = self.clients.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut session.sees_until, end);
        self.schedule.move_end(id, before, end);

        let is_window = |condition: &Condition| matches!(condition, Condition::Time(_));
        let mut policies = policies_of(&self.directory, session.actor);
        if policies.any(|policy| policy.conditions.iter().any(is_window)) {
            let recheck_at = self.clock.now + RECHECK_EVERY;
            self.schedule.recheck_at.get_or_insert(recheck_at);
        }
    }

    /// Does what is due by time.
    pub(super) fn handle_conditions(&mut self) {
        let Clock { now, unix } = self.clock;
        if self.schedule.recheck_at.is_some_and(|at| at <= now) {
            self.recheck();
        }
        while let Some((end, client)) = self.schedule.ends.first().copied() {
            if end > unix {
                break;
            }
            self.schedule.ends.pop_first();
            self.judge_grants_of(client);
            self.update_client(client);
        }
        let due = (self.schedule.cut_short).extract_if(.., |_, end| *end <= unix);
        let due: Vec<GrantKey> = due.map(|(key, _)| key).collect();
        for key in due {
            // It may have been swept out already, or last longer again: a gateway that was away isn't told at once.
            let grant = self.directory.grants().get(&key);
            if !grant.is_some_and(|grant| grant.is_live(unix)) {
                self.withdraw_grant(key);
            }
        }
    }

    /// Looks at everyone's conditions.
    fn recheck(&mut self) {
        self.schedule.recheck_at = None;
        self.judge_grants();
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for client in clients {
            self.update_client(client);
        }
    }

    /// Takes out grants that are over or stand no longer, and looks again in a minute if any are left.
    pub(super) fn sweep(&mut self) {
        self.judge_grants();

        let has_grants = !self.directory.grants().is_empty();
        self.sweep_at = has_grants.then(|| self.clock.now + SWEEP_EVERY);
    }

    /// Judges all grants by what is true now.
    pub(super) fn judge_grants(&mut self) {
        let keys: Vec<GrantKey> = self.directory.grants().keys().copied().collect();
        for key in keys {
            self.judge(key);
        }
    }

    /// Judges the grants of one client by what is true now.
    pub(super) fn judge_grants_of(&mut self, client: ClientId) {
        let keys: Vec<GrantKey> = self
            .directory
            .grants_of(client)
            .map(|grant| grant.key)
            .collect();
        for key in keys {
            self.judge(key);
        }
    }

    fn judge(&mut self, key: GrantKey) {
        let Some(grant) = self.directory.grants().get(&key).cloned() else {
            return;
        };
        let unix = self.clock.unix;
        if !grant.is_live(unix) {
            // The gateway knows when it ends, or the schedule that it doesn't.
            return self.edit(Edit::DropGrant(key));
        }
        let token = self.directory.tokens().get(&grant.token);
        if !token.is_some_and(|token| token.is_usable(unix)) {
            return self.withdraw_grant(key);
        }

        let circumstances = self.circumstances(key.client, grant.remote_ip);
        match fate(&self.directory, &grant, &circumstances) {
            Fate::Stands => {}
            Fate::Renewed(renewed) => self.renew(&grant, renewed),
            Fate::Falls => self.withdraw_grant(key),
        }
    }

    fn withdraw_grant(&mut self, key: GrantKey) {
        self.reject(key);
        self.edit(Edit::DropGrant(key));
    }

    /// Puts `renewed` in the place of `grant`, and keeps its gateway in step: it is told of a later end at once, and of an
    /// earlier one when that comes.
    fn renew(&mut self, grant: &Grant, renewed: Grant) {
        let key = grant.key;
        let gateway = self.gateways.get(&key.gateway);
        let is_there = gateway.is_some_and(|session| session.joined);
        let renewed = match lateness(renewed.expires_at).cmp(&lateness(grant.expires_at)) {
            Ordering::Greater if is_there && !self.prolong(&renewed) => Grant {
                expires_at: grant.expires_at,
                ..renewed
            },
            Ordering::Less if is_there => {
                let end = renewed.expires_at.map(|end| (key, end));
                self.schedule.cut_short.extend(end);
                renewed
            }
            Ordering::Greater | Ordering::Less | Ordering::Equal => renewed,
        };
        if renewed != *grant {
            self.edit(Edit::PutGrant(renewed));
        }
    }
}
