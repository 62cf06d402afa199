//! How allocations and channels come and go.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::stun::Family;

use super::{Command, Queued, Server};
use crate::address::{Families, Lacking};
use crate::allocation::{Allocation, OPENING, State};
use crate::answer::{Asker, Refusal};
use crate::auth::User;
use crate::channel::Channels;
use crate::config::AllocationPort;
use crate::deadlines::Due;
use crate::permissions::Permissions;
use crate::reservations::Token;
use crate::stats::DropReason;

/// What an allocation shall be.
pub(super) struct Plan {
    pub(super) port: AllocationPort,
    pub(super) families: Families,
    pub(super) lacks: Option<Lacking>,
    pub(super) token: Option<Token>,
    pub(super) granted: Duration,
}

impl Server {
    /// The socket of an [`OpenPort`](Command::OpenPort) is bound. When all of an allocation are, its client gets the
    /// answer.
    pub fn handle_port_opened(&mut self, now: Instant, port: AllocationPort, family: Family) {
        self.handle_timeout(now);
        let Some(allocation) = self.allocations.at_mut(port) else {
            return;
        };
        let State::Opening { missing, .. } = &mut allocation.state else {
            return;
        };
        if let Some(still_missing) = missing.without(family) {
            *missing = still_missing;
            return;
        }

        self.finish_allocation(now, port);
    }

    /// The socket of an [`OpenPort`](Command::OpenPort) can't be bound, or broke later: its allocation ends. A client
    /// that still waits for it is told that there is no capacity; if it is no client of the portal and the other family's
    /// socket can be bound, it gets that one.
    pub fn handle_port_failed(&mut self, now: Instant, port: AllocationPort, family: Family) {
        self.handle_timeout(now);
        if self.allocations.at(port).is_none() {
            return;
        }

        tracing::warn!(%port, ?family, "A port for an allocation can't be used: is something else bound to it?");
        if !self.do_without(now, port, family) {
            self.fail_allocation(port, Some(family));
        }
    }

    /// Goes on with one family of two (RFC 8656 §7.2); whether that is possible.
    fn do_without(&mut self, now: Instant, port: AllocationPort, family: Family) -> bool {
        let is_standard = self.conduct.is_standard();
        let Some(allocation) = self.allocations.at_mut(port).filter(|_| is_standard) else {
            return false;
        };
        let (State::Opening { missing, .. }, Some(rest)) =
            (&mut allocation.state, allocation.families.without(family))
        else {
            return false;
        };
        if !allocation.families.contains(family) {
            return false;
        }

        let still_missing = missing.without(family);
        if let Some(still_missing) = still_missing {
            *missing = still_missing;
        }
        allocation.families = rest;
        allocation.lacks = Some((family, Refusal::InsufficientCapacity));
        if still_missing.is_none() {
            self.finish_allocation(now, port);
        }

        true
    }

    /// All its sockets are bound: the client is told.
    fn finish_allocation(&mut self, now: Instant, port: AllocationPort) {
        let Some(allocation) = self.allocations.at_mut(port) else {
            return;
        };
        let (due_before, expires_at) = (allocation.due(), now + allocation.granted);
        let opened = State::Open { expires_at };
        let State::Opening { asker, seal, .. } = std::mem::replace(&mut allocation.state, opened)
        else {
            return;
        };
        let due = allocation.due();
        self.deadlines.remove(due_before.0, due_before.1);
        self.deadlines.add(due.0, due.1);
        self.stats.allocations_made += 1;
        tracing::debug!(client = %asker.client, %port, "Made an allocation");

        let answered = self.tell_addresses(&asker, port, &seal);
        self.count_unanswered(answered);
    }

    pub(super) fn begin_allocation(
        &mut self,
        now: Instant,
        asker: Asker,
        user: &User<'_>,
        plan: Plan,
    ) {
        let Plan { port, families, .. } = plan;
        let allocation = Allocation {
            port,
            client: asker.client,
            server: asker.server,
            user: user.identity.to_owned(),
            families,
            lacks: plan.lacks,
            token: plan.token,
            granted: plan.granted,
            made_by: asker.transaction_id,
            begun_at: now,
            state: State::Opening {
                missing: families,
                asker,
                seal: user.seal,
                until: now + OPENING,
            },
            channels: Channels::default(),
            permissions: Permissions::default(),
        };
        let (at, due) = allocation.due();
        self.deadlines.add(at, due);
        self.allocations.insert(allocation);
        self.stats.allocations = self.allocations.len();
        self.commands.extend(families.iter().map(|family| Queued {
            command: Command::OpenPort { port, family },
            frees: None,
        }));
    }

    /// Gives one address of two back, with all that led there; `rest` is what stays.
    pub(super) fn give_back_family(
        &mut self,
        port: AllocationPort,
        family: Family,
        rest: Families,
    ) {
        let Some(allocation) = self.allocations.at_mut(port) else {
            return;
        };
        allocation.families = rest;
        let is_gone = |ip: IpAddr| Family::of(SocketAddr::new(ip, 0)) == family;
        let channels: Vec<_> = allocation
            .channels
            .iter()
            .filter(|(_, channel)| is_gone(channel.peer.ip()))
            .map(|(number, channel)| (number, *channel))
            .collect();
        let permissions: Vec<_> = allocation
            .permissions
            .iter()
            .filter(|(peer, _)| is_gone(*peer))
            .collect();
        for (number, channel) in channels {
            allocation.channels.remove(number);
            let (at, due) = channel.due(port, number);
            self.deadlines.remove(at, due);
            let carried_data = usize::from(channel.is_bound());
            self.stats.channels = self.stats.channels.saturating_sub(carried_data);
        }
        for (peer, until) in permissions {
            allocation.permissions.remove(peer);
            self.deadlines.remove(until, Due::Permission(port, peer));
            self.stats.permissions = self.stats.permissions.saturating_sub(1);
        }
        self.commands.push_back(Queued {
            command: Command::ClosePort { port, family },
            frees: None,
        });
    }

    /// Deletes an allocation with all its channels, at once and without a cool-down.
    pub(super) fn delete_allocation(&mut self, port: AllocationPort) {
        self.delete_and_close(port, None);
    }

    pub(super) fn fall_due(&mut self, at: Instant, due: Due) {
        match due {
            Due::Opening(port) => self.fail_allocation(port, None),
            Due::Allocation(port) => {
                tracing::debug!(%port, "An allocation expired");
                self.delete_allocation(port);
            }
            Due::Channel(port, number) => {
                let Some(allocation) = self.allocations.at_mut(port) else {
                    return;
                };
                let Some(channel) = allocation.channels.unbind(number, at) else {
                    return;
                };
                let (at, due) = channel.due(port, number);
                self.deadlines.add(at, due);
                self.stats.channels = self.stats.channels.saturating_sub(1);
                tracing::debug!(%port, ?number, "A channel expired");
            }
            Due::CoolDown(port, number) => {
                if let Some(allocation) = self.allocations.at_mut(port) {
                    allocation.channels.remove(number);
                }
            }
            Due::Permission(port, peer) => {
                let Some(allocation) = self.allocations.at_mut(port) else {
                    return;
                };
                if allocation.permissions.remove(peer).is_some() {
                    self.stats.permissions = self.stats.permissions.saturating_sub(1);
                    tracing::debug!(%port, %peer, "A permission expired");
                }
            }
            Due::Reservation(token) => {
                if let Some(port) = self.end_reservation(token) {
                    self.ports.give_back(port);
                }
            }
        }
    }

    fn fail_allocation(&mut self, port: AllocationPort, broken: Option<Family>) {
        let Some(allocation) = self.delete_and_close(port, broken) else {
            return;
        };

        // Nobody knows the token of a port that was kept with it.
        if let Some(port) = allocation
            .token
            .filter(|_| !allocation.is_open())
            .and_then(|token| self.end_reservation(token))
        {
            self.ports.give_back(port);
        }
        if let State::Opening { asker, seal, .. } = allocation.state {
            let answered = self.refuse(&asker, Refusal::InsufficientCapacity, &[], Some(&seal));
            self.count_unanswered(answered);
        }
    }

    /// Closes all sockets but the `broken` one.
    fn delete_and_close(
        &mut self,
        port: AllocationPort,
        broken: Option<Family>,
    ) -> Option<Allocation> {
        let allocation = self.allocations.remove(port)?;
        let (at, due) = allocation.due();
        self.deadlines.remove(at, due);
        for (number, channel) in allocation.channels.iter() {
            let (at, due) = channel.due(port, number);
            self.deadlines.remove(at, due);
            let carried_data = usize::from(channel.is_bound());
            self.stats.channels = self.stats.channels.saturating_sub(carried_data);
        }
        for (peer, until) in allocation.permissions.iter() {
            self.deadlines.remove(until, Due::Permission(port, peer));
            self.stats.permissions = self.stats.permissions.saturating_sub(1);
        }
        self.stats.allocations = self.allocations.len();

        let open = allocation
            .families
            .iter()
            .filter(|family| Some(*family) != broken);
        let mut closing: Vec<_> = open
            .map(|family| Queued {
                command: Command::ClosePort { port, family },
                frees: None,
            })
            .collect();
        match closing.last_mut() {
            Some(last) => last.frees = Some(port),
            None => self.ports.give_back(port),
        }
        self.commands.extend(closing);

        Some(allocation)
    }

    fn count_unanswered(&mut self, answered: Result<(), DropReason>) {
        if let Err(reason) = answered {
            self.stats.count_dropped(reason, 1);
        }
    }
}
