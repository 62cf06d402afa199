//! The relays that a peer was told of, and what became of them (portal-protocol.md §10.5).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use connlib_wire::id::RelayId;
use connlib_wire::portal::{RelaysPresence, turn};
use uuid::Uuid;

/// Who has no relay again within this time couldn't reach those that it was given.
const TRIED_WITHIN: Duration = Duration::from_secs(60);

/// The relays of a peer.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// What it was told last.
    pub(super) relays: Vec<turn::Relay>,
    told_at: Option<Instant>,
    /// Those that it can't reach, as it seems.
    useless: BTreeSet<RelayId>,
}

impl Held {
    /// The peer says that it has none. If it was told of some a moment ago, it can't reach them.
    pub(super) fn lose(&mut self, now: Instant) {
        let lost = self.relays.drain(..).map(|entry| relay_of(&entry));
        if self.told_at.is_some_and(|at| now < at + TRIED_WITHIN) {
            self.useless.extend(lost);
        } else {
            self.useless.clear();
        }
    }

    /// The peer is told of these.
    pub(super) fn replace(&mut self, now: Instant, relays: Vec<turn::Relay>) {
        self.relays = relays;
        self.told_at = Some(now);
    }

    /// Whether the peer can't reach a relay, as it seems.
    pub(super) fn is_useless(&self, id: RelayId) -> bool {
        self.useless.contains(&id)
    }

    /// What to tell the peer if it is to hold these. `None` if they are what it holds.
    pub(super) fn difference(&self, chosen: Vec<turn::Relay>) -> Option<RelaysPresence> {
        if self.relays == chosen {
            return None;
        }
        let is_chosen = |id: &RelayId| chosen.iter().any(|entry| relay_of(entry) == *id);
        let mut disconnected_ids: Vec<RelayId> = self.relays.iter().map(relay_of).collect();
        disconnected_ids.dedup();
        disconnected_ids.retain(|id| !is_chosen(id));

        Some(RelaysPresence {
            disconnected_ids,
            connected: chosen,
        })
    }
}

/// Which relay an entry is of.
pub(super) fn relay_of(entry: &turn::Relay) -> RelayId {
    match entry {
        turn::Relay::Turn(turn) => turn.id,
        turn::Relay::Stun { id, .. } => *id,
        // The portal makes entries of the first kind alone.
        _ => RelayId(Uuid::nil()),
    }
}
