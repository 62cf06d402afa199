//! All hosts of a world, and whose turn it is.

use std::time::Instant;

use rand::rngs::StdRng;

use super::host::Host;
use crate::scenario::Drive;

/// The hosts, and when each must be called: only those that were touched are asked again.
pub(super) struct Hosts {
    hosts: Vec<Host>,
    turns: Vec<Turn>,
}

/// When a host must be called at the latest.
#[derive(Clone, Copy)]
enum Turn {
    /// It was touched.
    Unknown,
    At(Instant),
    Never,
}

impl Hosts {
    pub(super) fn new(hosts: Vec<Host>) -> Self {
        Self {
            turns: vec![Turn::Unknown; hosts.len()],
            hosts,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    pub(super) fn get(&self, host: usize) -> Option<&Host> {
        self.hosts.get(host)
    }

    pub(super) fn get_mut(&mut self, host: usize) -> Option<&mut Host> {
        *self.turns.get_mut(host)? = Turn::Unknown;

        self.hosts.get_mut(host)
    }

    /// When the first of them must be called at the latest.
    pub(super) fn due_at(
        &mut self,
        now: Instant,
        drive: Drive,
        rng: &mut StdRng,
    ) -> Option<Instant> {
        let mut first = None;
        for (host, turn) in self.hosts.iter_mut().zip(&mut self.turns) {
            if let Turn::Unknown = turn {
                *turn = host.due_at(now, drive, rng).map_or(Turn::Never, Turn::At);
            }
            if let Turn::At(at) = *turn {
                first = Some(first.map_or(at, |first: Instant| first.min(at)));
            }
        }

        first
    }

    /// Whether a host has something to do.
    pub(super) fn wants_turn(&self, host: usize, now: Instant) -> bool {
        match self.turns.get(host) {
            Some(Turn::At(at)) => *at <= now,
            Some(Turn::Never) | None => false,
            Some(Turn::Unknown) => self
                .hosts
                .get(host)
                .is_some_and(|host| host.is_awake(now) && host.wants_turn(now)),
        }
    }
}
