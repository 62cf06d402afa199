//! The ports that allocations can get.

use std::ops::RangeInclusive;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::config::AllocationPort;

/// The free ports; taking and giving back cost the same however many are in use.
#[derive(Debug)]
pub(crate) struct Ports {
    free: Vec<AllocationPort>,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>, listen_port: u16) -> Self {
        Self {
            free: range
                .filter(|port| *port != listen_port && *port != 0)
                .map(AllocationPort)
                .collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes any of them, each as likely as another: a port that can be guessed invites strangers (RFC 8656 §7.2).
    pub(crate) fn take(&mut self, rng: &mut StdRng) -> Option<AllocationPort> {
        if self.is_empty() {
            return None;
        }
        let index = rng.random_range(0..self.free.len());

        Some(self.free.swap_remove(index))
    }

    pub(crate) fn give_back(&mut self, port: AllocationPort) {
        self.free.push(port);
    }
}
