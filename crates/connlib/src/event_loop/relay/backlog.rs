//! What waits for a listen socket, which all clients share: a lane for each client, and the lanes take turns.
//!
//! One queue for everybody would give most to whoever is sent most, and hold up all others behind it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use connlib_wire::train::Transmit;

use super::super::arrivals::{DATAGRAM_COST, QUANTUM};
use super::super::egress::weight;
use super::super::stats::{DropReason, Stats};
use super::super::turns::Turns;

/// Trains of data that wait, by the client they are for.
#[derive(Debug)]
pub(super) struct Backlog {
    lanes: Vec<Lane>,
    by_client: HashMap<SocketAddr, usize>,
    free: Vec<usize>,
    turns: Turns,
    weight: usize,
    limit: usize,
}

#[derive(Debug)]
struct Lane {
    client: SocketAddr,
    trains: VecDeque<Transmit>,
    weight: usize,
    deficit: i64,
}

impl Backlog {
    /// An empty one that holds no more than `limit` of [`weight`]: beyond it the lane that holds most loses its oldest train.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            lanes: Vec::new(),
            by_client: HashMap::new(),
            free: Vec::new(),
            turns: Turns::default(),
            weight: 0,
            limit,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.weight == 0
    }

    /// Adds a train to its client's lane.
    pub(super) fn push(&mut self, train: Transmit, stats: &mut Stats) {
        let index = self.lane_of(train.route.dst);
        let weight = weight(&train);
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.weight += weight;
            lane.trains.push_back(train);
            self.weight += weight;
        }
        while self.weight > self.limit && self.drop_of_fattest(stats) {}
    }

    /// Takes the train whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Transmit> {
        loop {
            let index = self.turns.front()?;
            let lane = self.lanes.get_mut(index)?;
            if lane.deficit <= 0 {
                lane.deficit += QUANTUM;
                self.turns.rotate();
                continue;
            }
            let Some(train) = lane.trains.pop_front() else {
                if self.turns.leave() {
                    self.by_client.remove(&lane.client);
                    self.free.push(index);
                }
                continue;
            };
            let cost = train.payload.len() + train.segments() * DATAGRAM_COST;
            lane.deficit -= i64::try_from(cost).unwrap_or(QUANTUM);
            let weight = weight(&train);
            lane.weight -= weight;
            self.weight -= weight;

            return Some(train);
        }
    }

    /// Drops everything: there is no socket.
    pub(super) fn discard(&mut self, reason: DropReason, stats: &mut Stats) {
        while let Some(train) = self.pop() {
            stats.count_dropped(reason, train.segments());
        }
    }

    fn lane_of(&mut self, client: SocketAddr) -> usize {
        if let Some(index) = self.by_client.get(&client) {
            return *index;
        }
        let lane = Lane {
            client,
            trains: VecDeque::new(),
            weight: 0,
            deficit: QUANTUM,
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.lanes.len(),
        };
        match self.lanes.get_mut(index) {
            Some(place) => *place = lane,
            None => self.lanes.push(lane),
        }
        self.by_client.insert(client, index);
        self.turns.new.push_back(index);

        index
    }

    /// Whether there was something to drop. Only who is sent too much looks at all lanes.
    fn drop_of_fattest(&mut self, stats: &mut Stats) -> bool {
        let fattest = self.lanes.iter_mut().max_by_key(|lane| lane.weight);
        let Some((lane, train)) = fattest.and_then(|lane| {
            let train = lane.trains.pop_front()?;
            Some((lane, train))
        }) else {
            return false;
        };
        let weight = weight(&train);
        lane.weight -= weight;
        self.weight -= weight;
        stats.count_dropped(DropReason::SocketFull, train.segments());

        true
    }
}

#[cfg(test)]
mod tests {
    use connlib_wire::buffer::Pool;
    use connlib_wire::ecn::Ecn;
    use connlib_wire::train::Route;

    use super::*;

    const LEN: usize = 1_000;

    #[test]
    fn clients_take_turns_however_much_one_is_sent() {
        let mut rig = Rig::new(usize::MAX);
        for _ in 0..500 {
            rig.push(1);
        }
        for _ in 0..100 {
            rig.push(2);
        }

        let order = rig.drain();
        let last = order.iter().rposition(|client| *client == 2).unwrap();
        assert!(last <= 260, "{last}");
        assert_eq!(order.len(), 600);
    }

    #[test]
    fn one_that_was_sent_nothing_goes_first() {
        let mut rig = Rig::new(usize::MAX);
        for _ in 0..500 {
            rig.push(1);
        }
        for _ in 0..100 {
            rig.backlog.pop();
        }
        rig.push(2);

        let order = rig.drain();
        assert!(order.iter().position(|client| *client == 2).unwrap() <= 52);
    }

    #[test]
    fn what_is_too_much_is_lost_by_whoever_is_sent_most() {
        let mut rig = Rig::new(20 * (LEN + DATAGRAM_COST));
        for _ in 0..5 {
            rig.push(2);
        }
        for _ in 0..100 {
            rig.push(1);
        }

        let order = rig.drain();
        assert_eq!(order.iter().filter(|client| **client == 2).count(), 5);
        assert_eq!(order.len(), 20);
        assert_eq!(rig.stats.dropped(DropReason::SocketFull), 85);
    }

    #[test]
    fn lanes_of_clients_that_left_are_for_the_next_ones() {
        let mut rig = Rig::new(usize::MAX);
        for client in 0..200 {
            rig.push(client);
            assert_eq!(rig.drain(), [client]);
        }

        assert_eq!(rig.backlog.lanes.len(), 1);
        assert!(rig.backlog.by_client.is_empty());
    }

    struct Rig {
        backlog: Backlog,
        pool: Pool,
        stats: Stats,
    }

    impl Rig {
        fn new(limit: usize) -> Self {
            Self {
                backlog: Backlog::new(limit),
                pool: Pool::new(LEN, 1),
                stats: Stats::default(),
            }
        }

        fn push(&mut self, client: u8) {
            let dst = SocketAddr::from(([198, 51, 100, client], 50_000));
            let train = Transmit {
                route: Route {
                    src: None,
                    dst,
                    ecn: Ecn::default(),
                },
                segment_size: LEN,
                payload: self.pool.copy(&[client; LEN]).unwrap(),
            };
            self.backlog.push(train, &mut self.stats);
        }

        /// Whom all that waits is for, in its order.
        fn drain(&mut self) -> Vec<u8> {
            std::iter::from_fn(|| self.backlog.pop())
                .map(|train| train.payload[0])
                .collect()
        }
    }
}
