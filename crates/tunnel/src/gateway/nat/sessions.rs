//! The flows of a client, found by either of their ends: each is kept once, and what finds it are numbers.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hash};
use std::time::Instant;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::flows::{Inside, Outside};
use super::session::Session;

#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: Slab<Session>,
    by_inside: HashTable<u32>,
    by_outside: HashTable<u32>,
    /// When each is to be looked at, which is not after its end, in their order; and by number.
    schedule: BTreeSet<(Instant, u32)>,
    looks: Vec<Instant>,
    /// Random, as clients choose what is hashed.
    hasher: RandomState,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn get(&self, inside: &Inside) -> Option<&Session> {
        self.all.get(self.number_of(inside)?)
    }

    /// The same to be changed, but for its two ends.
    pub(super) fn get_mut(&mut self, inside: &Inside) -> Option<&mut Session> {
        let number = self.number_of(inside)?;

        self.all.get_mut(number)
    }

    /// What a flow is to the client.
    pub(super) fn inside_of(&self, outside: &Outside) -> Option<Inside> {
        let session = |number: &u32| self.all.get(*number as usize);
        let is_it = |number: &u32| session(number).is_some_and(|it| it.outside == *outside);
        let number = self.by_outside.find(self.hash(outside), is_it)?;

        session(number).map(|session| session.inside)
    }

    /// Adds a flow, neither of whose ends another one has, to be looked at when it would end.
    pub(super) fn insert(&mut self, session: Session) {
        let look_at = session.ends_at();
        let [by_inside, by_outside] = [self.hash(&session.inside), self.hash(&session.outside)];
        let index = self.all.insert(session);
        // There are never so many.
        let Ok(number) = u32::try_from(index) else {
            return;
        };
        match self.looks.get_mut(index) {
            Some(former) => *former = look_at,
            None => self.looks.push(look_at),
        }
        let (all, hasher) = (&self.all, &self.hasher);
        let again = |number: &u32| {
            let session = all.get(*number as usize);
            session.map_or(0, |session| hasher.hash_one(session.inside))
        };
        self.by_inside.insert_unique(by_inside, number, again);
        let again = |number: &u32| {
            let session = all.get(*number as usize);
            session.map_or(0, |session| hasher.hash_one(session.outside))
        };
        self.by_outside.insert_unique(by_outside, number, again);
        self.schedule.insert((look_at, number));
    }

    pub(super) fn remove(&mut self, inside: &Inside) -> Option<Session> {
        let index = self.number_of(inside)?;
        let session = self.all.try_remove(index)?;
        let number = u32::try_from(index).ok()?;
        if let Some(look_at) = self.looks.get(index) {
            self.schedule.remove(&(*look_at, number));
        }
        for (table, hash) in [
            (&mut self.by_inside, self.hasher.hash_one(session.inside)),
            (&mut self.by_outside, self.hasher.hash_one(session.outside)),
        ] {
            if let Ok(entry) = table.find_entry(hash, |other| *other == number) {
                entry.remove();
            }
        }

        Some(session)
    }

    /// Has a flow looked at another time.
    pub(super) fn look_at(&mut self, inside: &Inside, at: Instant) {
        let Some(index) = self.number_of(inside) else {
            return;
        };
        let (Some(look), Ok(number)) = (self.looks.get_mut(index), u32::try_from(index)) else {
            return;
        };
        self.schedule.remove(&(*look, number));
        *look = at;
        self.schedule.insert((at, number));
    }

    /// The flow that is to be looked at first, and when.
    pub(super) fn first(&self) -> Option<(Instant, &Session)> {
        let (at, number) = self.schedule.first()?;

        Some((*at, self.all.get(*number as usize)?))
    }

    fn number_of(&self, inside: &Inside) -> Option<usize> {
        let is_it = |number: &u32| {
            let session = self.all.get(*number as usize);
            session.is_some_and(|session| session.inside == *inside)
        };
        let number = self.by_inside.find(self.hash(inside), is_it)?;

        Some(*number as usize)
    }

    fn hash(&self, end: &impl Hash) -> u64 {
        self.hasher.hash_one(end)
    }

    /// That each flow is found by what it should be, for tests.
    #[cfg(test)]
    pub(super) fn assert_whole(&self) {
        let lens = [
            self.by_inside.len(),
            self.by_outside.len(),
            self.schedule.len(),
        ];
        assert_eq!(lens, [self.all.len(); 3]);
        for (_, session) in &self.all {
            assert!(self.get(&session.inside).is_some());
            assert_eq!(self.inside_of(&session.outside), Some(session.inside));
        }
    }
}
