//! Telling gateways what the addresses of names stand for, and holding packets until they know (client.md §7).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::control::NatStatus;
use connlib_wire::dns::Name;
use connlib_wire::id::{GatewayId, ResourceId};
use connlib_wire::super_packet::SuperPacket;

use super::requests::keep;

/// What one gateway was told.
#[derive(Debug, Default)]
pub(super) struct Setups {
    by_key: BTreeMap<Key, Setup>,
    /// When each is to be told again.
    schedule: BTreeSet<(Instant, Key)>,
    /// How many packets wait in all.
    held: usize,
}

/// A name, the resource that it is reached as, and the gateway that serves it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) gateway: GatewayId,
    pub(super) resource: ResourceId,
    pub(super) name: Name,
}

#[derive(Debug)]
enum Setup {
    /// The gateway was asked. Few are, and of the others there may be very many.
    Pending(Box<Pending>),
    /// It translates.
    Active,
    /// It doesn't, and says so to whoever sends.
    Failed,
}

#[derive(Debug)]
struct Pending {
    /// Whether packets wait for the answer. They don't where they were flowing before.
    holds: bool,
    held: VecDeque<Buffer>,
    first_told_at: Instant,
    told_at: Instant,
    again_at: Instant,
}

/// What to do with a packet for a name.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Gate {
    /// Send it.
    Pass,
    /// It waits.
    Held,
    /// It waits, and the gateway is to be told.
    Tell,
}

/// What a gateway knows of a name, as far as we know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    /// It translates.
    Active,
    /// It has found no address.
    Failed,
    /// It was asked, and packets wait.
    Asked,
    /// Nothing.
    Not,
}

/// The first pause before a gateway is told again, and the longest (client.md §7: at least two seconds).
const REPEAT_AFTER: Duration = Duration::from_secs(2);
const MAX_REPEAT: Duration = Duration::from_secs(8);

/// How many packets wait in all: about twenty megabytes. What comes then is lost, as it would be in a full queue.
const MAX_HELD_IN_ALL: usize = 16_384;

/// How many questions are told to gateways without an answer yet.
const MAX_PENDING: usize = 512;

/// How many are told again in one go: others want their turns.
const MAX_AGAIN: usize = 64;

/// After this much silence nobody waits for an answer any longer. A gateway gives up a name after ten (gateway.md §1).
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

impl Setups {
    /// Judges a packet for a name.
    pub(super) fn gate(
        &mut self,
        now: Instant,
        key: &Key,
        packet: &mut SuperPacket<Buffer>,
        pool: &Pool,
    ) -> Gate {
        let gate = match self.by_key.get(key) {
            Some(Setup::Pending(pending)) if pending.holds => Gate::Held,
            Some(Setup::Active | Setup::Failed | Setup::Pending(_)) => return Gate::Pass,
            None => {
                self.begin(now, key.clone(), true);
                Gate::Tell
            }
        };
        if self.held < MAX_HELD_IN_ALL
            && let Some(Setup::Pending(pending)) = self.by_key.get_mut(key)
        {
            let before = pending.held.len();
            keep(&mut pending.held, packet, pool);
            self.held = self.held + pending.held.len() - before;
        }

        gate
    }

    /// What a gateway knows of a name.
    pub(super) fn known(&self, key: &Key) -> Known {
        match self.by_key.get(key) {
            Some(Setup::Pending(pending)) if pending.holds => Known::Asked,
            Some(Setup::Active | Setup::Pending(_)) => Known::Active,
            Some(Setup::Failed) => Known::Failed,
            None => Known::Not,
        }
    }

    /// A program asked for the name: its addresses may have changed. Returns whether the gateway is to be told.
    ///
    /// A program that asks for very many names hardly uses them all: those that are too many wait for their first packet.
    pub(super) fn refresh(&mut self, now: Instant, key: Key) -> bool {
        let is_busy = self.schedule.len() >= MAX_PENDING;
        match self.by_key.get_mut(&key) {
            Some(Setup::Active | Setup::Failed) | None if is_busy => return false,
            // What flows goes on flowing meanwhile.
            Some(Setup::Active) => self.begin(now, key, false),
            Some(Setup::Failed) | None => self.begin(now, key, true),
            Some(Setup::Pending(pending)) => {
                if pending.told_at + REPEAT_AFTER > now {
                    return false;
                }
                pending.told_at = now;
                let again_at = now + REPEAT_AFTER;
                let former = std::mem::replace(&mut pending.again_at, again_at);
                self.schedule.remove(&(former, key.clone()));
                self.schedule.insert((again_at, key));
            }
        }

        true
    }

    /// Takes the gateway's answer. Returns the packets that waited for it.
    pub(super) fn handle_status(&mut self, key: &Key, status: NatStatus) -> VecDeque<Buffer> {
        // It answers what it was asked, or takes back what it answered.
        if !self.by_key.contains_key(key) {
            return VecDeque::new();
        }
        let new = match status {
            NatStatus::Active => Setup::Active,
            NatStatus::Inactive => Setup::Failed,
        };
        match self.by_key.insert(key.clone(), new) {
            Some(Setup::Pending(pending)) => {
                self.schedule.remove(&(pending.again_at, key.clone()));
                self.held -= pending.held.len();
                pending.held
            }
            Some(Setup::Active | Setup::Failed) | None => VecDeque::new(),
        }
    }

    /// Whom to tell again; and the packets of those that never answered.
    pub(super) fn due(&mut self, now: Instant) -> (Vec<Key>, VecDeque<Buffer>) {
        let (mut again, mut unanswered) = (Vec::new(), VecDeque::new());
        while let Some((at, key)) = self.schedule.first().cloned() {
            if at > now || again.len() >= MAX_AGAIN {
                break;
            }
            self.schedule.remove(&(at, key.clone()));
            let Some(Setup::Pending(pending)) = self.by_key.get_mut(&key) else {
                continue;
            };
            let give_up_at = pending.first_told_at + GIVE_UP_AFTER;
            if give_up_at <= now {
                self.held -= pending.held.len();
                unanswered.append(&mut pending.held);
                self.by_key.remove(&key);
                continue;
            }
            // As long as it has taken so far: 2, 4, 8 seconds.
            let pause = now.saturating_duration_since(pending.first_told_at);
            pending.told_at = now;
            pending.again_at = (now + pause.clamp(REPEAT_AFTER, MAX_REPEAT)).min(give_up_at);
            self.schedule.insert((pending.again_at, key.clone()));
            again.push(key);
        }

        (again, unanswered)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.first().map(|(at, _)| *at)
    }

    /// Takes the packets that wait, for they may have to go elsewhere now.
    pub(super) fn take_waiting(&mut self) -> Vec<Buffer> {
        if self.held == 0 {
            return Vec::new();
        }
        self.held = 0;
        let mut waiting = Vec::new();
        for setup in self.by_key.values_mut() {
            if let Setup::Pending(pending) = setup {
                waiting.extend(pending.held.drain(..));
            }
        }

        waiting
    }

    /// A gateway is lost, with all it was told. Returns what that was, and the packets that waited for its answers.
    pub(super) fn forget_gateway(&mut self, gateway: GatewayId) -> Vec<(Key, VecDeque<Buffer>)> {
        self.forget(|key| key.gateway == gateway)
    }

    /// A resource is gone.
    pub(super) fn forget_resource(&mut self, resource: ResourceId) -> Vec<(Key, VecDeque<Buffer>)> {
        self.forget(|key| key.resource == resource)
    }

    fn forget(&mut self, is_meant: impl Fn(&Key) -> bool) -> Vec<(Key, VecDeque<Buffer>)> {
        let keys = self.by_key.keys().filter(|key| is_meant(key));
        let mut forgotten: Vec<_> = keys.map(|key| (key.clone(), VecDeque::new())).collect();
        for (key, waited) in &mut forgotten {
            if let Some(Setup::Pending(pending)) = self.by_key.remove(key) {
                self.held -= pending.held.len();
                *waited = pending.held;
                self.schedule.remove(&(pending.again_at, key.clone()));
            }
        }

        forgotten
    }

    fn begin(&mut self, now: Instant, key: Key, holds: bool) {
        let again_at = now + REPEAT_AFTER;
        self.schedule.insert((again_at, key.clone()));
        let pending = Pending {
            holds,
            held: VecDeque::new(),
            first_told_at: now,
            told_at: now,
            again_at,
        };
        self.by_key.insert(key, Setup::Pending(Box::new(pending)));
    }
}

#[cfg(test)]
mod tests;
