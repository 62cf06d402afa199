//! The ports or echo ids that are taken towards one address.

use std::collections::BTreeMap;

/// Taken ports, as runs of neighbours: the next free one is found at once, however many are taken.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// The first of each run, and its last. No two runs touch.
    runs: BTreeMap<u16, u16>,
}

impl Ports {
    /// Takes the first free port from `wanted` upwards, and behind 65,535 from 1 (gateway.md §8.3). `None` if all are taken.
    pub(super) fn take(&mut self, wanted: u16) -> Option<u16> {
        let free = self
            .free_from(wanted.max(1))
            .or_else(|| self.free_from(1))?;
        let before = free.checked_sub(1).and_then(|port| self.run_of(port));
        let after = free.checked_add(1).and_then(|port| self.run_of(port));
        let first = before.map_or(free, |(first, _)| first);
        let last = after.map_or(free, |(_, last)| last);
        if let Some((first, _)) = after {
            self.runs.remove(&first);
        }
        self.runs.insert(first, last);

        Some(free)
    }

    /// Lets a port be taken again.
    pub(super) fn release(&mut self, port: u16) {
        let Some((first, last)) = self.run_of(port) else {
            return;
        };
        self.runs.remove(&first);
        if first < port {
            self.runs.insert(first, port - 1);
        }
        if port < last {
            self.runs.insert(port + 1, last);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    fn free_from(&self, port: u16) -> Option<u16> {
        match self.run_of(port) {
            Some((_, last)) => last.checked_add(1),
            None => Some(port),
        }
    }

    /// The run that a port is in.
    fn run_of(&self, port: u16) -> Option<(u16, u16)> {
        let (first, last) = self.runs.range(..=port).next_back()?;

        (*last >= port).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Ports;

    proptest! {
        /// As a set that is searched one by one.
        #[test]
        fn the_first_free_port_is_taken(
            steps in proptest::collection::vec((any::<bool>(), prop_oneof![0_u16..20, 65_516_u16..=65_535]), 1..200),
        ) {
            let (mut ports, mut taken) = (Ports::default(), BTreeSet::new());
            for (takes, port) in steps {
                if takes {
                    let wanted = port.max(1);
                    let first = (wanted..=65_535).chain(1..wanted).find(|port| !taken.contains(port));
                    prop_assert_eq!(ports.take(port), first);
                    taken.extend(first);
                } else {
                    ports.release(port);
                    taken.remove(&port);
                }
                prop_assert_eq!(ports.is_empty(), taken.is_empty());
            }
        }
    }

    #[test]
    fn all_can_be_taken_and_then_none() {
        let mut ports = Ports::default();
        for _ in 1..=u16::MAX {
            assert!(ports.take(40_000).is_some());
        }
        assert_eq!(ports.take(1), None);
        ports.release(7);
        assert_eq!(ports.take(8), Some(7));
    }
}
