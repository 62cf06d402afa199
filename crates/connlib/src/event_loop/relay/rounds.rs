//! Which allocation's socket is read next: a deficit round robin, so that each gets the same share of bytes however large its
//! datagrams and trains are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use connlib_relay::AllocationPort;
use connlib_wire::stun::Family;

use super::super::turns::Turns;

/// One socket of an allocation.
pub(super) type Key = (AllocationPort, Family);

/// What a socket may read before another's turn. It reads more at a time if there is more, and waits for as many rounds.
const QUANTUM: i64 = 16 * 1024;

/// Sockets that may have something to read, in the order of their turns, each once. One that had nothing goes before those
/// that had.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    turns: Turns<Key>,
    /// What each of them may still read in its turn. Looked up, never iterated.
    deficits: HashMap<Key, i64>,
}

impl Rounds {
    pub(super) fn is_empty(&self) -> bool {
        self.deficits.is_empty()
    }

    /// Lets a socket take turns.
    pub(super) fn list(&mut self, key: Key) {
        if let Entry::Vacant(place) = self.deficits.entry(key) {
            place.insert(QUANTUM);
            self.turns.new.push_back(key);
        }
    }

    /// The socket whose turn it is. It stays so until it has [read](Self::has_read) its share or [leaves](Self::leave).
    pub(super) fn front(&mut self) -> Option<Key> {
        loop {
            let key = self.turns.front()?;
            let deficit = self.deficits.entry(key).or_default();
            if *deficit > 0 {
                return Some(key);
            }
            *deficit += QUANTUM;
            self.turns.rotate();
        }
    }

    /// The socket in front has read something.
    pub(super) fn has_read(&mut self, cost: i64) {
        let front = self.turns.front();
        if let Some(deficit) = front.and_then(|key| self.deficits.get_mut(&key)) {
            *deficit -= cost;
        }
    }

    /// The socket in front has nothing left to read. One that was new stays for another round.
    pub(super) fn leave(&mut self) {
        if let Some(key) = self.turns.front()
            && self.turns.leave()
        {
            self.deficits.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reads_the_same_number_of_bytes_whatever_it_reads_at_a_time() {
        let costs = [4 * QUANTUM, QUANTUM / 20, QUANTUM];
        let mut rounds = Rounds::default();
        for number in 0..3 {
            rounds.list(key(number));
        }

        let mut read = [0; 3];
        while read.iter().sum::<i64>() < 3_000 * QUANTUM {
            let (port, _) = rounds.front().unwrap();
            let index = usize::from(port.0);
            rounds.has_read(costs[index]);
            read[index] += costs[index];
        }

        let (least, most) = (read.iter().min().unwrap(), read.iter().max().unwrap());
        assert!(most - least <= 8 * QUANTUM, "{read:?}");
    }

    #[test]
    fn who_is_listed_twice_has_one_turn_and_who_leaves_has_none() {
        let mut rounds = Rounds::default();
        rounds.list(key(1));
        rounds.list(key(2));
        rounds.list(key(1));

        assert_eq!(rounds.front(), Some(key(1)));
        rounds.leave();
        assert_eq!(rounds.front(), Some(key(2)));
        rounds.leave();
        assert_eq!(rounds.front(), None);
        assert!(rounds.is_empty());
    }

    #[test]
    fn one_that_had_nothing_goes_before_those_that_had() {
        let mut rounds = Rounds::default();
        for number in 0..3 {
            rounds.list(key(number));
        }
        for _ in 0..3 {
            rounds.front().unwrap();
            rounds.has_read(10 * QUANTUM);
        }
        rounds.front().unwrap();
        rounds.list(key(9));

        assert_eq!(rounds.front(), Some(key(9)));
        rounds.leave();
        assert_ne!(rounds.front(), None);
    }

    fn key(port: u16) -> Key {
        (AllocationPort(port), Family::V4)
    }
}
