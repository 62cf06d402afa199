//! The ports that allocations can get.

use std::ops::RangeInclusive;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::config::AllocationPort;
use crate::share::Share;

/// The free ports; taking any and giving back cost the same however many are in use.
#[derive(Debug)]
pub(crate) struct Ports {
    free: Vec<AllocationPort>,
    /// Where each port lies in `free`, by its distance from the lowest one, or [`TAKEN`].
    position: Vec<u16>,
    lowest: u16,
}

/// No position: port 0 is never free, so that the last of them all is one lower.
const TAKEN: u16 = u16::MAX;

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>, listen_port: u16, share: Share) -> Self {
        let lowest = *range.start();
        let mut ports = Self {
            free: Vec::with_capacity(range.len()),
            position: vec![TAKEN; range.len()],
            lowest,
        };
        let is_ours = |port: &u16| *port != listen_port && *port != 0 && share.has(*port);
        for port in range.filter(is_ours) {
            ports.give_back(AllocationPort(port));
        }

        ports
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
            next.is_some_and(|next| ports.position_of(next).is_some())
        })?;
        let odd = next_of(even)?;
        let at = self.position_of(odd)?;
        self.remove(at);

        Some((even, odd))
    }

    pub(crate) fn give_back(&mut self, port: AllocationPort) {
        self.set_position(port, self.free.len());
        self.free.push(port);
    }

    /// Where a port lies; `None` if it is taken or none of ours.
    fn position_of(&self, port: AllocationPort) -> Option<usize> {
        let distance = port.0.checked_sub(self.lowest)?;
        let position = self.position.get(usize::from(distance))?;

        (*position != TAKEN).then_some(usize::from(*position))
    }

    fn set_position(&mut self, port: AllocationPort, at: usize) {
        let distance = usize::from(port.0.saturating_sub(self.lowest));
        if let Some(position) = self.position.get_mut(distance) {
            *position = u16::try_from(at).unwrap_or(TAKEN);
        }
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
        self.set_position(port, usize::from(TAKEN));
        if let Some(moved) = self.free.get(at).copied() {
            self.set_position(moved, at);
        }

        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn what_is_taken_and_given_back_is_never_lost_or_doubled() {
        let mut rng = StdRng::from_seed([3; 32]);
        let mut ports = Ports::new(100..=140, 120, Share::WHOLE);
        let mut taken = BTreeSet::new();
        for round in 0..2_000 {
            match rng.random_range(0..5) {
                0 => taken.extend(ports.take(&mut rng)),
                1 => {
                    let even = ports.take_even(&mut rng);
                    assert!(even.is_none_or(|port| port.0.is_multiple_of(2)));
                    assert!(even.is_none_or(|port| taken.insert(port)));
                }
                2 => {
                    if let Some((even, odd)) = ports.take_pair(&mut rng) {
                        assert!(even.0.is_multiple_of(2) && odd.0 == even.0 + 1);
                        assert!(taken.insert(even) && taken.insert(odd));
                    }
                }
                _ => {
                    if let Some(port) = taken.pop_first() {
                        ports.give_back(port);
                    }
                }
            }
            assert_eq!(ports.free.len() + taken.len(), 40, "round {round}");
            for (at, port) in ports.free.iter().enumerate() {
                assert_eq!(ports.position_of(*port), Some(at));
            }
            assert!(taken.iter().all(|port| ports.position_of(*port).is_none()));
        }
    }

    #[test]
    fn an_odd_range_ends_at_its_ends() {
        let mut rng = StdRng::from_seed([3; 32]);
        let mut all = Ports::new(0..=u16::MAX, 3_478, Share::WHOLE);
        let mut count = 0;
        while all.take(&mut rng).is_some() {
            count += 1;
        }
        assert_eq!(count, 65_534);
        #[expect(clippy::reversed_empty_ranges, reason = "an operator may write one")]
        let mut none = Ports::new(2..=1, 3_478, Share::WHOLE);
        assert_eq!(none.take(&mut rng), None);
    }
}
