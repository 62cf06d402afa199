//! How allocations and channels come and go.

use std::time::{Duration, Instant};

use connlib_wire::stun::Family;

use super::{Command, Queued, Server};
use crate::address::Families;
use crate::allocation::{Allocation, OPENING, State};
use crate::answer::{Asker, Refusal};
use crate::auth::User;
use crate::channel::Channels;
use crate::config::AllocationPort;
use crate::deadlines::Due;
use crate::stats::DropReason;

impl Server {
    /// The socket of an [`OpenPort`](Command::OpenPort) is bound. When all of an allocation are, its client gets the
    /// answer.
    pub fn handle_port_opened(&mut self, now: Instant, port: AllocationPort, family: Family) {
        self.handle_timeout(now);
        let Some(allocation) = self.allocations.at_mut(port) else {
            return;
        };
        let due_before = allocation.due();
        let State::Opening {
            missing,
            asker,
            key,
            ..
        } = &mut allocation.state
        else {
            return;
        };
        if let Some(still_missing) = missing.without(family) {
            *missing = still_missing;
            return;
        }

        let (asker, key) = (*asker, *key);
        allocation.state = State::Open {
            expires_at: now + allocation.granted,
        };
        let due = allocation.due();
        self.deadlines.remove(due_before.0, due_before.1);
        self.deadlines.add(due.0, due.1);
        self.stats.allocations_made += 1;
        tracing::debug!(client = %asker.client, %port, "Made an allocation");

        let answered = self.tell_addresses(&asker, port, &key);
        self.count_unanswered(answered);
    }

    /// The socket of an [`OpenPort`](Command::OpenPort) can't be bound, or broke later: its allocation ends. A client
    /// that still waits for it is told that there is no capacity.
    pub fn handle_port_failed(&mut self, now: Instant, port: AllocationPort, family: Family) {
        self.handle_timeout(now);
        if self.allocations.at(port).is_none() {
            return;
        }

        tracing::warn!(%port, ?family, "A port for an allocation can't be used: is something else bound to it?");
        self.fail_allocation(port, Some(family));
    }

    pub(super) fn begin_allocation(
        &mut self,
        now: Instant,
        asker: Asker,
        user: &User<'_>,
        families: Families,
        granted: Duration,
    ) -> Result<(), Refusal> {
        let port = self
            .ports
            .take(&mut self.rng)
            .ok_or(Refusal::InsufficientCapacity)?;
        let allocation = Allocation {
            port,
            client: asker.client,
            server: asker.server,
            username: user.name.to_owned(),
            families,
            granted,
            made_by: asker.transaction_id,
            state: State::Opening {
                missing: families,
                asker,
                key: user.key,
                until: now + OPENING,
            },
            channels: Channels::default(),
        };
        let (at, due) = allocation.due();
        self.deadlines.add(at, due);
        self.allocations.insert(allocation);
        self.stats.allocations = self.allocations.len();
        self.commands.extend(families.iter().map(|family| Queued {
            command: Command::OpenPort { port, family },
            frees: None,
        }));

        Ok(())
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
        }
    }

    fn fail_allocation(&mut self, port: AllocationPort, broken: Option<Family>) {
        let Some(allocation) = self.delete_and_close(port, broken) else {
            return;
        };

        if let State::Opening { asker, key, .. } = allocation.state {
            let answered = self.refuse(&asker, Refusal::InsufficientCapacity, &[], Some(&key));
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
