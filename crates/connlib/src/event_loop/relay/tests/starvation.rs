//! No source of a relay starves, and none of its allocations; see [the other loop's](super::super::super::tests).

use std::collections::BTreeMap;

use super::super::super::tests::{Random, seeds};
use super::*;

/// In how many turns a ready source is served at the latest.
const TURNS: usize = 2;

/// The same for each of the allocations, which take turns by bytes: one that has read four full trains has had the share of some
/// twenty rounds, and while the others catch up with the smallest datagrams, a turn has two.
const ALLOCATION_TURNS: usize = 12;

#[test]
fn every_ready_source_of_a_relay_is_served_within_two_turns() {
    for seed in 0..seeds(100) {
        if let Err(starved) = World::new(seed, None).run() {
            panic!("seed {seed}: {starved}");
        }
    }
}

#[test]
fn a_relay_that_skips_a_source_is_found_out() {
    for source in Source::ALL {
        let starved = (0..20).find_map(|seed| World::new(seed, Some(source)).run().err());

        let starved = starved.unwrap_or_else(|| panic!("nobody noticed that {source:?} starved"));
        assert!(starved.contains(&format!("{source:?}")), "{starved}");
    }
}

struct World {
    rig: Rig,
    random: Random,
    ports: Vec<AllocationPort>,
    /// For how many turns in a row each source was ready and not served.
    waits: [usize; Source::ALL.len()],
    /// The same of each allocation.
    allocation_waits: BTreeMap<AllocationPort, usize>,
}

impl World {
    fn new(seed: u64, skipped: Option<Source>) -> Self {
        let mut random = Random(seed);
        let mut rig = Rig::new();
        let clients = 1 + random.below(3) as u8;
        let ports = (1..=clients).map(|number| rig.connect(client(number), peer(number)));
        let ports = ports.collect();
        rig.relay_loop.skipped = skipped;
        let slow = [0, 0, 20, 120, 600];
        rig.io.tick = Duration::from_micros(slow[random.below(slow.len())]);

        Self {
            rig,
            random,
            ports,
            waits: [0; Source::ALL.len()],
            allocation_waits: BTreeMap::new(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..4 + self.random.below(8) {
            self.load();
            self.break_things();
            for _ in 0..=self.random.below(2) {
                self.step()?;
            }
        }

        Ok(())
    }

    fn load(&mut self) {
        // Whatever arrives serves the server's timer too, so there have to be quiet times.
        let is_quiet = self.random.one_in(3);
        let amounts: [usize; 3] = std::array::from_fn(|_| match self.random.below(8) {
            _ if is_quiet => 0,
            0 => 10,
            1..=4 => 1 + self.random.below(3),
            _ => 0,
        });
        let segments = [1, 1, 4, 60][self.random.below(4)];
        let len = [8, 8, 1_200][self.random.below(3)];
        let number = 1 + self.random.below(self.ports.len());
        for _ in 0..amounts[0] {
            let data = channel_data(&vec![7; len]).repeat(segments);
            self.rig.say_train(client(number as u8), len + 4, &data);
        }
        for _ in 0..amounts[1] {
            let request = self.rig.bare(Method::Binding).repeat(segments);
            let from = "[2001:db8::1]:5".parse().unwrap();
            let via = Via::Listen(Family::V6);
            self.rig.arrive(via, from, 20, &request);
        }
        for _ in 0..amounts[2] {
            let number = 1 + self.random.below(self.ports.len());
            let port = self.ports[number - 1];
            if self.is_open(port) {
                let from = peer(number as u8);
                self.rig.say_to(port, from, len, &vec![8; len * segments]);
            }
        }
        let by = Duration::from_micros(self.random.below(6_000) as u64);
        self.rig.now += by;
        if self.random.one_in(4)
            && let Some((due_at, _)) = self.rig.relay_loop.server().poll_timeout()
        {
            self.rig.now = self.rig.now.max(due_at);
        }
    }

    fn break_things(&mut self) {
        let calls = self.random.below(4) as u64;
        let kind = [
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::Interrupted,
            io::ErrorKind::WouldBlock,
            io::ErrorKind::Other,
        ][self.random.below(4)];
        let room = [0, 1, 10, usize::MAX][self.random.below(4)];
        let index = self.random.below(self.rig.io.sockets.len());
        let what = self.random.below(12);
        let Some((via, socket)) = self.rig.io.sockets.iter_mut().nth(index) else {
            return;
        };
        match what {
            0 => socket.device.storm_recv(calls),
            1 => socket.device.storm_send(calls),
            2 => socket.device.fail_recv(calls, kind.into()),
            3 => socket.device.fail_send(calls, kind.into()),
            4 => {
                let queued = socket.device.queued();
                socket.device.limit_queue(queued.saturating_add(room));
                socket.device.limit_accept(room.max(1));
            }
            5 if matches!(via, Via::Allocation(..)) => socket.device.vanish(),
            _ => {}
        }
    }

    fn step(&mut self) -> Result<(), String> {
        for (via, socket) in &mut self.rig.io.sockets {
            socket.ready.readable |= !socket.device.inbox.is_empty();
            socket.ready.writable = true;
            self.rig.io.ready.push_back(*via);
        }
        let ready = self.ready();
        let before = self.left();
        let allocations = self.allocations_left();
        let mut wait = self.rig.turn_with_errors();
        let failed = wait.errors.drain().count() > 0;

        let after = self.left();
        let still_ready = self.ready();
        if still_ready.contains(&true) && wait.until != Some(self.rig.now) {
            return Err(format!("it waits with {still_ready:?}"));
        }
        for (index, source) in Source::ALL.into_iter().enumerate() {
            let is_served = !still_ready[index] || after[index] < before[index] || failed;
            self.waits[index] = match ready[index] && !is_served {
                true => self.waits[index] + 1,
                false => 0,
            };
            if self.waits[index] >= TURNS {
                return Err(format!("{source:?} starves: {before:?} {after:?}"));
            }
        }
        self.check_allocations(&allocations, failed)
    }

    /// The allocations take turns among themselves.
    fn check_allocations(
        &mut self,
        before: &BTreeMap<AllocationPort, usize>,
        failed: bool,
    ) -> Result<(), String> {
        let after = self.allocations_left();
        for (port, left) in before {
            let is_served = failed || after.get(port).is_none_or(|after| after < left);
            let waits = self.allocation_waits.entry(*port).or_default();
            *waits = match is_served {
                true => 0,
                false => *waits + 1,
            };
            if *waits > ALLOCATION_TURNS {
                return Err(format!("Allocations: {port} starves"));
            }
        }

        Ok(())
    }

    fn ready(&mut self) -> [bool; 4] {
        let now = self.rig.now;
        let relay_loop = &self.rig.relay_loop;
        let due = relay_loop.server().poll_timeout();
        let [v4, v6] = [Family::V4, Family::V6].map(|family| {
            let ingress = relay_loop.listen.of(family);
            let socket = &self.rig.io.sockets[&Via::Listen(family)];
            ingress.is_ready(
                now,
                socket.ready.readable && !socket.device.inbox.is_empty(),
            )
        });

        [
            due.is_some_and(|(at, _)| at <= now),
            v4,
            v6,
            !self.allocations_left().is_empty(),
        ]
    }

    /// How much there is to do for each source.
    fn left(&self) -> [usize; 4] {
        let listen = &self.rig.relay_loop.listen;
        let inbox = |family| self.rig.io.sockets[&Via::Listen(family)].device.inbox.len();

        [
            0,
            listen.v4.left() + inbox(Family::V4),
            listen.v6.left() + inbox(Family::V6),
            self.allocations_left().values().sum(),
        ]
    }

    /// The allocations that have something to read, and how much.
    fn allocations_left(&self) -> BTreeMap<AllocationPort, usize> {
        let sockets = self.rig.io.sockets.iter();
        let left = sockets.filter_map(|(via, socket)| match via {
            Via::Allocation(port, _) if socket.ready.readable => {
                Some((*port, socket.device.inbox.len()))
            }
            Via::Allocation(..) | Via::Listen(_) => None,
        });

        left.filter(|(_, left)| *left > 0).collect()
    }

    fn is_open(&self, port: AllocationPort) -> bool {
        let via = Via::Allocation(port, Family::V4);

        self.rig.io.sockets.contains_key(&via)
    }
}
