//! The relay's host: the shipped server and loop over the fakes of `os`.

mod machine;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib::event_loop::relay::{RelayIo, RelayLoop};
use connlib::event_loop::{Error, Watched};
use connlib_os::fake::{FakeTrain, FakeUdp, SentTrain};
use connlib_os::udp::Udp as _;
use connlib_relay::{
    AllocationPort, Config, Credentials, LoopbackPeers, PrivatePeers, Server, Stats, Via,
};
use connlib_wire::buffer::Pool;
use connlib_wire::secret::Secret;
use connlib_wire::stun::Family;

use crate::faults::Faults;
use crate::scenario::Place;
use machine::{Machine, Socket};
use wire::Wire;

/// Where the relay listens.
pub(crate) const PORT: u16 = 3_478;

pub(crate) struct RelayNode {
    event_loop: RelayLoop,
    io: FakeIo,
    due_at: Option<Instant>,
    has_work: bool,
    /// Until when its machine works on the latest turn.
    busy_until: Option<Instant>,
}

impl RelayNode {
    pub(crate) fn new(place: &Place, secret: Secret, seed: [u8; 32], faults: &Faults) -> Self {
        let config = Config {
            public_v4: place.ip4,
            public_v6: place.ip6,
            listen_port: PORT,
            ports: 49_152..=65_535,
            credentials: Credentials::Stamped(secret),
            loopback_peers: LoopbackPeers::Refused,
            private_peers: PrivatePeers::Allowed,
        };
        let server = Server::new(config, seed, Pool::new(2_048, 16));
        let machine = Machine::new(faults.pace);
        let listen = [true, false].map(|is_ipv4| {
            let ip = place.ip(is_ipv4)?;
            let socket = FakeUdp::new(SocketAddr::new(ip, PORT));
            Some(Watched::new(machine.watches(socket)))
        });

        Self {
            event_loop: RelayLoop::new(server, 0),
            io: FakeIo {
                place: *place,
                listen,
                allocations: BTreeMap::new(),
                touched: BTreeSet::new(),
                ready: VecDeque::new(),
                unix: Duration::ZERO,
                machine,
                wire: faults.wire.map(Wire::new),
            },
            due_at: None,
            has_work: true,
            busy_until: None,
        }
    }

    /// What it counted.
    pub(crate) fn stats(&self) -> &Stats {
        self.event_loop.server().stats()
    }

    /// A train for a port that nobody holds goes nowhere.
    pub(crate) fn receive(&mut self, train: FakeTrain) {
        let family = Family::of(train.to);
        let via = match train.to.port() {
            PORT => Via::Listen(family),
            port => Via::Allocation(AllocationPort(port), family),
        };
        let Some(socket) = self.io.socket(via) else {
            return;
        };
        socket.device.udp.inbox.push_back(train);
        socket.ready.readable = true;
        self.io.ready.push_back(via);
        self.has_work = true;
    }

    /// When it must be called, and whether there is something to do at once.
    pub(crate) fn due(&self, now: Instant) -> (Option<Instant>, bool) {
        let leaves_at = self.io.wire.as_ref().and_then(Wire::due_at);
        let due_at = self.due_at.into_iter().chain(leaves_at).min();
        match self.busy_until.filter(|until| *until > now) {
            None => (due_at, self.has_work),
            Some(until) if self.has_work => (Some(until), false),
            Some(until) => (due_at.map(|at| at.max(until)), false),
        }
    }

    /// Whether a turn would do more than look at the clock.
    pub(crate) fn has_work(&self) -> bool {
        let has_wire = self.io.wire.as_ref().is_some_and(Wire::is_busy);

        self.has_work || self.busy_until.is_some() || has_wire
    }

    /// The trains that leave, each with the address it leaves from, or what went wrong and can't be mended.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        unix: Duration,
    ) -> Result<Vec<(SocketAddr, SentTrain)>, String> {
        self.io.unix = unix;
        let mut trains = self.io.has_left(now);
        let mut wait = self.event_loop.turn(now, &mut self.io);
        self.due_at = wait.until;
        self.has_work = false;
        self.busy_until = self.io.machine.ends_turn().map(|took| now + took);
        let mut fatal = None;
        for error in wait.errors.drain() {
            if let Error::Fatal(error) = error {
                fatal.get_or_insert_with(|| error.to_string());
            }
        }
        if let Some(fatal) = fatal {
            return Err(fatal);
        }

        self.io.send(now, &mut trains);

        Ok(trains)
    }
}

struct FakeIo {
    place: Place,
    /// IPv4, IPv6.
    listen: [Option<Watched<Socket>>; 2],
    allocations: BTreeMap<(u16, bool), Watched<Socket>>,
    /// The allocations that may have sent something.
    touched: BTreeSet<Via>,
    ready: VecDeque<Via>,
    unix: Duration,
    machine: Machine,
    wire: Option<Wire>,
}

impl FakeIo {
    fn find(&mut self, via: Via) -> Option<&mut Watched<Socket>> {
        let [v4, v6] = &mut self.listen;
        match via {
            Via::Listen(Family::V4) => v4.as_mut(),
            Via::Listen(Family::V6) => v6.as_mut(),
            Via::Allocation(port, family) => self.allocations.get_mut(&key(port, family)),
        }
    }

    /// Takes what has left by the wire; its sockets have room again.
    fn has_left(&mut self, now: Instant) -> Vec<(SocketAddr, SentTrain)> {
        let mut trains = Vec::new();
        while let Some(leaving) = self.wire.as_mut().and_then(|wire| wire.take(now)) {
            trains.push((leaving.local, leaving.train));
            if let Some(socket) = self.find(leaving.via)
                && !socket.ready.writable
            {
                socket.ready.writable = true;
                self.ready.push_back(leaving.via);
            }
        }

        trains
    }

    /// What the sockets were given leaves at once, or by the wire.
    fn send(&mut self, now: Instant, trains: &mut Vec<(SocketAddr, SentTrain)>) {
        let listen = [Family::V4, Family::V6].map(Via::Listen);
        let touched = std::mem::take(&mut self.touched);
        for via in listen.into_iter().chain(touched) {
            let Some(socket) = self.find(via) else {
                continue;
            };
            let local = socket.device.local_addr();
            let sent: Vec<_> = socket.device.udp.sent.drain(..).collect();
            for train in sent {
                match &mut self.wire {
                    Some(wire) => wire.put(now, via, (local, train)),
                    None => trains.push((local, train)),
                }
            }
        }
    }
}

impl RelayIo for FakeIo {
    type Udp = Socket;

    fn socket(&mut self, via: Via) -> Option<&mut Watched<Socket>> {
        if matches!(via, Via::Allocation(..)) {
            self.touched.insert(via);
        }
        let room = self.wire.as_ref().map(|wire| wire.room(via));
        let socket = self.find(via)?;
        if let Some(room) = room {
            socket.device.udp.limit_queue(room);
        }

        Some(socket)
    }

    fn open(&mut self, port: AllocationPort, family: Family) -> io::Result<()> {
        let ip = self.place.ip(family == Family::V4);
        let ip = ip.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = FakeUdp::new(SocketAddr::new(ip, port.0));
        let socket = Watched::new(self.machine.watches(socket));
        self.allocations.insert(key(port, family), socket);
        self.ready.push_back(Via::Allocation(port, family));

        Ok(())
    }

    fn close(&mut self, port: AllocationPort, family: Family) {
        self.allocations.remove(&key(port, family));
    }

    fn next_ready(&mut self) -> Option<Via> {
        self.ready.pop_front()
    }

    fn unix(&self) -> Duration {
        self.unix
    }

    fn elapsed(&self) -> Duration {
        self.machine.elapsed()
    }
}

fn key(port: AllocationPort, family: Family) -> (u16, bool) {
    (port.0, family == Family::V4)
}
