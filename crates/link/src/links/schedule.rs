//! Who is due when, and who asked what: no search through all peers per timeout or per datagram.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use connlib_wire::id::RelayId;
use connlib_wire::stun::{Class, Message, TransactionId};

use super::Reason;
use crate::peer::PeerId;

/// How long the answer to a check may take (connections.md §2).
const CHECK_LIFETIME: Duration = Duration::from_secs(10);

/// Whoever has a timer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Due {
    Relay(RelayId),
    Peer(PeerId),
}

/// One deadline for each.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    queue: BTreeSet<(Instant, Due)>,
    deadlines: BTreeMap<Due, (Instant, Reason)>,
}

impl Schedule {
    pub(super) fn set(&mut self, due: Due, deadline: Option<(Instant, Reason)>) {
        // Mostly nothing moved.
        if self.deadlines.get(&due).copied() == deadline {
            return;
        }
        let former = match deadline {
            Some(deadline) => self.deadlines.insert(due, deadline),
            None => self.deadlines.remove(&due),
        };
        if let Some((at, _)) = former {
            self.queue.remove(&(at, due));
        }
        if let Some((at, _)) = deadline {
            self.queue.insert((at, due));
        }
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Due> {
        let (at, due) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.set(due, None);

        Some(due)
    }

    pub(super) fn next(&self) -> Option<(Instant, Reason)> {
        let (_, due) = self.queue.first()?;

        self.deadlines.get(due).copied()
    }
}

/// The connectivity checks that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Checks {
    askers: HashMap<TransactionId, PeerId>,
    in_order: VecDeque<(Instant, TransactionId)>,
}

impl Checks {
    /// Remembers a request that leaves; answers to the peer's own requests need no memory.
    pub(super) fn sent(&mut self, now: Instant, peer: PeerId, bytes: &[u8]) {
        if let Ok(message) = Message::parse(bytes)
            && message.class() == Class::Request
        {
            let id = message.transaction_id();
            self.askers.insert(id, peer);
            self.in_order.push_back((now, id));
        }
    }

    /// Who asked; each answer counts once.
    pub(super) fn answered(&mut self, id: TransactionId) -> Option<PeerId> {
        self.askers.remove(&id)
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        while let Some((at, id)) = self.in_order.front() {
            if now.saturating_duration_since(*at) < CHECK_LIFETIME {
                break;
            }
            self.askers.remove(id);
            self.in_order.pop_front();
        }
    }

    pub(super) fn forget(&mut self, peer: PeerId) {
        self.askers.retain(|_, asker| *asker != peer);
    }
}
