//! The ports that allocations can get.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::config::AllocationPort;

/// The free ports; taking any and giving back cost the same however many are in use.
#[derive(Debug)]
pub(crate) struct Ports {
    free: Vec<AllocationPort>,
    /// Where each lies in `free`. Looked up, never iterated.
    position: HashMap<AllocationPort, usize>,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>, listen_port: u16) -> Self {
        let free: Vec<_> = range
            .filter(|port| *port != listen_port && *port != 0)
            .map(AllocationPort)
            .collect();
        let position = free.iter().copied().zip(0..).collect();

        Self { free, position }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes any of them, each as likely as another: a port that can be guessed invites strangers (RFC 8656 §7.2).
    pub(crate) fn take(&mut self, rng: &mut StdRng) -> Option<AllocationPort> {
        self.take_where(rng, |_, _| true)
    }

    /// Takes an even one (RFC 8656 §7.2).
    pub(crate) fn take_even(&mut self, rng: &mut StdRng) -> Option<AllocationPort> {
        self.take_where(rng, |_, port| port.0.is_multiple_of(2))
    }

    /// Takes an even one and the next higher one.
    pub(crate) fn take_pair(
        &mut self,
        rng: &mut StdRng,
    ) -> Option<(AllocationPort, AllocationPort)> {
        let next_of = |port: AllocationPort| port.0.checked_add(1).map(AllocationPort);
        let even = self.take_where(rng, |ports, port| {
            let next = next_of(port).filter(|_| port.0.is_multiple_of(2));
            next.is_some_and(|next| ports.position.contains_key(&next))
        })?;
        let odd = next_of(even)?;
        let at = *self.position.get(&odd)?;
        self.remove(at);

        Some((even, odd))
    }

    pub(crate) fn give_back(&mut self, port: AllocationPort) {
        self.position.insert(port, self.free.len());
        self.free.push(port);
    }

    /// The first that suits, from a random one on.
    fn take_where(
        &mut self,
        rng: &mut StdRng,
        suits: impl Fn(&Self, AllocationPort) -> bool,
    ) -> Option<AllocationPort> {
        if self.is_empty() {
            return None;
        }
        let start = rng.random_range(0..self.free.len());
        let mut candidates = (start..self.free.len()).chain(0..start);
        let at = candidates.find(|at| {
            let port = self.free.get(*at);
            port.is_some_and(|port| suits(self, *port))
        })?;

        self.remove(at)
    }

    fn remove(&mut self, at: usize) -> Option<AllocationPort> {
        if at >= self.free.len() {
            return None;
        }
        let port = self.free.swap_remove(at);
        self.position.remove(&port);
        if let Some(moved) = self.free.get(at) {
            self.position.insert(*moved, at);
        }

        Some(port)
    }
}
