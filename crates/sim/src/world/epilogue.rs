//! What follows when everything has happened: all leave, and nothing may be left of them.

use std::time::Duration;

use super::host::Role;
use super::{Happening, World};
use crate::scenario::{self, Gone};

/// When clients are gone: gateways have heard their goodbyes.
const CLIENTS_GONE: Duration = Duration::from_secs(2);

/// When links have ended that never came up: the longest patience of ICE, and some more.
const LINKS_GONE: Duration = Duration::from_secs(18 * 60);

/// When allocations of nodes that are gone have ended: their longest lifetime, and some more (RFC 8656 §3.2).
const ALLOCATIONS_GONE: Duration = Duration::from_secs(70 * 60);

impl World {
    pub(super) fn epilogue(&mut self, act: u32) {
        match act {
            0 => {
                self.watch.flows_are_over(self.now);
                self.interfaces_are_announced();
                self.end_all(|role| matches!(role, scenario::Role::Client { .. }));
                self.post(CLIENTS_GONE, Happening::Epilogue(1));
            }
            1 => {
                if self.is_calm() {
                    self.gateways_are_empty(Left::Connected);
                }
                self.post(LINKS_GONE, Happening::Epilogue(2));
            }
            2 => {
                self.gateways_are_empty(Left::Any);
                self.end_all(|role| matches!(role, scenario::Role::Gateway { .. }));
                self.post(ALLOCATIONS_GONE, Happening::Epilogue(3));
            }
            _ => {
                self.relays_are_empty();
                self.has_ended = true;
            }
        }
    }

    fn interfaces_are_announced(&mut self) {
        for host in 0..self.hosts.len() {
            let is_awake = self.hosts.get(host).is_some_and(|entry| {
                matches!(entry.role, Role::Client(_)) && entry.is_awake(self.now)
            });
            // Nobody tells anything to one whose token had ended before it began.
            let ends_at = self.scenario.token_ends_at(host);
            let has_session = ends_at.is_none_or(|ends_at| self.elapsed() < ends_at);
            let names = &self.names;
            let verdict =
                (names.is_announced(self.now, host)).and_then(|()| names.is_listed(self.now, host));
            if is_awake
                && has_session
                && let Err(what) = verdict
            {
                let name = self.scenario.host(host);
                self.violate(format!("{name}: {what}"));
            }
        }
    }

    fn end_all(&mut self, is_meant: fn(&scenario::Role) -> bool) {
        for host in 0..self.hosts.len() {
            let plan = self.scenario.hosts.get(host);
            let runs = self
                .hosts
                .get(host)
                .is_some_and(|entry| !matches!(entry.role, Role::Down));
            if runs && plan.is_some_and(|plan| is_meant(&plan.role)) {
                self.end(host, Gone::Stopped);
            }
        }
    }

    /// Whether no link can have been given up, so that each one ends by a goodbye.
    fn is_calm(&self) -> bool {
        let portal = self.scenario.portal;
        let is_orderly = portal.reorders.0 == 0 && portal.duplicates.0 == 0;

        is_orderly && !self.scenario.loses() && !self.watch.was_disturbed()
    }

    /// A goodbye leaves nothing behind, and silence nothing in the end.
    fn gateways_are_empty(&mut self, left: Left) {
        for host in 0..self.hosts.len() {
            let entry = self.hosts.get(host);
            let Some(Role::Gateway(_)) = entry.map(|entry| &entry.role) else {
                continue;
            };
            let peers = entry
                .and_then(|entry| entry.status(self.now))
                .map(|status| status.peers);
            let peers = peers.into_iter().flatten();
            let count = match left {
                Left::Connected => peers.filter(|peer| peer.handshake_age_ms.is_some()).count(),
                Left::Any => peers.count(),
            };
            if count > 0 {
                let name = self.scenario.host(host);
                self.violate(format!(
                    "{name} keeps {count} links of clients that are gone"
                ));
            }
        }
    }

    fn relays_are_empty(&mut self) {
        for host in 0..self.hosts.len() {
            let Some(Role::Relay(node)) = self.hosts.get(host).map(|entry| &entry.role) else {
                continue;
            };
            let (allocations, channels) = (node.stats().allocations, node.stats().channels);
            if allocations > 0 || channels > 0 {
                let name = self.scenario.host(host);
                let what =
                    format!("{name} keeps {allocations} allocations and {channels} channels");
                self.violate(format!("{what} of nodes that are gone"));
            }
        }
    }
}

/// Which links must not be there.
#[derive(Clone, Copy)]
enum Left {
    /// Those that were up: their clients said goodbye.
    Connected,
    /// Any: whoever said nothing was given up.
    Any,
}
