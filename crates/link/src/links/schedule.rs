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
    askers: HashMap<TransactionId, Asker>,
    in_order: VecDeque<(Instant, TransactionId)>,
}

/// Who waits for the answer to a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asker {
    /// A peer's agent.
    Agent(PeerId),
    /// We ourselves, to see whether the path in use still works.
    Liveness {
        peer: PeerId,
        /// When the question left.
        sent_at: Instant,
    },
}

impl Asker {
    fn peer(self) -> PeerId {
        match self {
            Self::Agent(peer) | Self::Liveness { peer, .. } => peer,
        }
    }
}

impl Checks {
    /// Remembers a request of an agent that leaves; answers to the peer's own requests need no memory.
    pub(super) fn sent(&mut self, now: Instant, peer: PeerId, bytes: &[u8]) {
        if let Ok(message) = Message::parse(bytes)
            && message.class() == Class::Request
        {
            self.remember(now, message.transaction_id(), Asker::Agent(peer));
        }
    }

    /// Remembers who asked.
    pub(super) fn remember(&mut self, now: Instant, id: TransactionId, asker: Asker) {
        self.askers.insert(id, asker);
        self.in_order.push_back((now, id));
    }

    /// Who asked. An answer that is not believed leaves it to the true one to come.
    pub(super) fn asker(&self, id: TransactionId) -> Option<Asker> {
        self.askers.get(&id).copied()
    }

    /// The answer was believed; each question has one.
    pub(super) fn answered(&mut self, id: TransactionId) {
        self.askers.remove(&id);
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
        self.askers.retain(|_, asker| asker.peer() != peer);
    }
}
