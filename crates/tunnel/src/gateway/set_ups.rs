//! What clients have told of names, until the names are looked up: so many at once, and clients take turns.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Instant;

use connlib_link::PeerId;
use connlib_wire::dns::Name;
use connlib_wire::id::ResourceId;

use super::nat::Found;

/// A client has told which addresses stand for a name.
#[derive(Debug)]
pub(super) struct SetUp {
    pub(super) client: PeerId,
    pub(super) resource: ResourceId,
    pub(super) name: Name,
    /// As the client wrote it.
    pub(super) domain: String,
    pub(super) proxies: BTreeSet<IpAddr>,
    /// What is known of the name's addresses.
    pub(super) found: Found,
}

/// What makes two set-ups one: client, resource, name, and the first of the addresses.
type Key = (PeerId, ResourceId, Name, Option<IpAddr>);

#[derive(Debug, Default)]
pub(super) struct SetUps {
    queued: BTreeMap<PeerId, VecDeque<SetUp>>,
    /// Whose turn was last.
    served: Option<PeerId>,
    under_way: BTreeMap<u64, UnderWay>,
    /// How many each client has under way.
    served_at_once: BTreeMap<PeerId, usize>,
    /// All that wait or are looked up.
    wanted: BTreeSet<Key>,
    next_number: u64,
    finished: VecDeque<(SetUp, Finding)>,
}

/// A set-up that is looked up.
#[derive(Debug)]
struct UnderWay {
    set_up: SetUp,
    /// How many questions about it have yet to end.
    missing: usize,
    until: Instant,
}

/// How a look-up has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Finding {
    /// The addresses are known, even if there are none.
    Known,
    /// Nobody said in time, or there was no time to ask.
    Unknown,
}

/// How many are looked up at once (gateway.md §1 has a thousand, each of which is two questions).
const MAX_UNDER_WAY: usize = 400;

/// How many of one client: names that nobody answers for are no reason to let others wait.
const MAX_OF_ONE: usize = 100;

/// How many of one client wait for that. One more is refused, so that the client knows.
const MAX_QUEUED: usize = 4_096;

impl SetUps {
    /// Lets a set-up wait for its turn, unless the same one does or is looked up: then its outcome is on the way.
    pub(super) fn push(&mut self, set_up: SetUp) {
        if !self.wanted.insert(set_up.key()) {
            return;
        }
        let queue = self.queued.entry(set_up.client).or_default();
        if queue.len() >= MAX_QUEUED {
            self.finish(set_up, Finding::Unknown);
        } else {
            queue.push_back(set_up);
        }
    }

    /// The one whose turn it is, if another one may be looked up.
    pub(super) fn next(&mut self) -> Option<SetUp> {
        if self.under_way.len() >= MAX_UNDER_WAY {
            return None;
        }
        let after = self.served.map_or(Unbounded, Excluded);
        let later = self.queued.range((after, Unbounded));
        let mut turns = later.chain(&self.queued).map(|(client, _)| *client);
        let has_enough = |client: &PeerId| {
            let served = self.served_at_once.get(client);
            served.is_some_and(|served| *served >= MAX_OF_ONE)
        };
        let client = turns.find(|client| !has_enough(client))?;
        self.served = Some(client);
        let queue = self.queued.get_mut(&client)?;
        let set_up = queue.pop_front();
        if queue.is_empty() {
            self.queued.remove(&client);
        }

        set_up
    }

    /// Notes that `questions` are asked about one, and returns the number to answer them with.
    pub(super) fn begin(&mut self, set_up: SetUp, questions: usize, until: Instant) -> u64 {
        self.next_number += 1;
        *self.served_at_once.entry(set_up.client).or_default() += 1;
        let under_way = UnderWay {
            set_up,
            missing: questions,
            until,
        };
        self.under_way.insert(self.next_number, under_way);

        self.next_number
    }

    /// When the questions about one have to be answered.
    pub(super) fn until(&self, number: u64) -> Option<Instant> {
        self.under_way.get(&number).map(|under_way| under_way.until)
    }

    /// One of the questions has ended; `note` takes in what was said.
    pub(super) fn answered(&mut self, number: u64, note: impl FnOnce(&mut Found)) {
        let Some(under_way) = self.under_way.get_mut(&number) else {
            return;
        };
        note(&mut under_way.set_up.found);
        under_way.missing = under_way.missing.saturating_sub(1);
        if under_way.missing > 0 {
            return;
        }
        let Some(UnderWay { set_up, .. }) = self.under_way.remove(&number) else {
            return;
        };
        if let Entry::Occupied(mut served) = self.served_at_once.entry(set_up.client) {
            *served.get_mut() -= 1;
            if *served.get() == 0 {
                served.remove();
            }
        }
        let finding = match set_up.found.is_nothing() {
            true => Finding::Unknown,
            false => Finding::Known,
        };
        self.finish(set_up, finding);
    }

    pub(super) fn finish(&mut self, set_up: SetUp, finding: Finding) {
        self.finished.push_back((set_up, finding));
    }

    pub(super) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    pub(super) fn poll_finished(&mut self) -> Option<(SetUp, Finding)> {
        let (set_up, finding) = self.finished.pop_front()?;
        self.wanted.remove(&set_up.key());

        Some((set_up, finding))
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.under_way.len(), self.wanted.len())
    }
}

impl SetUp {
    fn key(&self) -> Key {
        let first = self.proxies.first().copied();

        (self.client, self.resource, self.name.clone(), first)
    }
}
