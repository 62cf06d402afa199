//! The relay's host: the shipped server and loop over the fakes of `os`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib::event_loop::relay::{RelayIo, RelayLoop};
use connlib::event_loop::{Error, Watched};
use connlib_os::fake::{FakeTrain, FakeUdp, SentTrain};
use connlib_os::udp::Udp as _;
use connlib_relay::{AllocationPort, Config, Credentials, LoopbackPeers, Server, Via};
use connlib_wire::buffer::Pool;
use connlib_wire::secret::Secret;
use connlib_wire::stun::Family;

use crate::portal::RELAY_SECRET;

/// Where the relay listens.
pub(super) const PORT: u16 = 3_478;

pub(super) struct RelayHost {
    event_loop: RelayLoop,
    io: FakeIo,
    pub(super) due_at: Option<Instant>,
    has_work: bool,
}

impl RelayHost {
    pub(super) fn new(addr: SocketAddr, seed: [u8; 32]) -> Self {
        let (public_v4, public_v6) = match addr.ip() {
            IpAddr::V4(ip) => (Some(ip), None),
            IpAddr::V6(ip) => (None, Some(ip)),
        };
        let config = Config {
            public_v4,
            public_v6,
            listen_port: addr.port(),
            ports: 49_152..=65_535,
            credentials: Credentials::Stamped(Secret::from(RELAY_SECRET)),
            loopback_peers: LoopbackPeers::Refused,
        };
        let server = Server::new(config, seed, Pool::new(2_048, 64));

        Self {
            event_loop: RelayLoop::new(server, 0),
            io: FakeIo {
                listen: Watched::new(FakeUdp::new(addr)),
                allocations: BTreeMap::new(),
                ready: VecDeque::new(),
                unix: Duration::ZERO,
            },
            due_at: None,
            has_work: true,
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.io.listen.device.local_addr()
    }

    /// A train for a port that nobody holds goes nowhere.
    pub(super) fn receive(&mut self, train: FakeTrain) {
        let via = self.io.via(train.to.port());
        let Some(socket) = self.io.socket(via) else {
            return;
        };
        socket.device.inbox.push_back(train);
        socket.ready.readable = true;
        self.io.ready.push_back(via);
        self.has_work = true;
    }

    pub(super) fn wants_turn(&self, now: Instant) -> bool {
        self.has_work || self.due_at.is_some_and(|at| at <= now)
    }

    /// The trains that leave, each with the address it leaves from, or what went wrong and can't be mended.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        unix: Duration,
    ) -> Result<Vec<(SocketAddr, SentTrain)>, String> {
        self.io.unix = unix;
        let mut wait = self.event_loop.turn(now, &mut self.io);
        self.due_at = wait.until;
        self.has_work = false;
        let mut fatal = None;
        for error in wait.errors.drain() {
            if let Error::Fatal(error) = error {
                fatal.get_or_insert_with(|| error.to_string());
            }
        }
        if let Some(fatal) = fatal {
            return Err(fatal);
        }

        let sockets = self.io.allocations.values_mut();
        let trains = std::iter::once(&mut self.io.listen).chain(sockets);
        Ok(trains
            .flat_map(|socket| {
                let local = socket.device.local_addr();
                let sent = std::mem::take(&mut socket.device.sent);
                sent.into_iter().map(move |train| (local, train))
            })
            .collect())
    }
}

struct FakeIo {
    listen: Watched<FakeUdp>,
    allocations: BTreeMap<u16, Watched<FakeUdp>>,
    ready: VecDeque<Via>,
    unix: Duration,
}

impl FakeIo {
    fn family(&self) -> Family {
        Family::of(self.listen.device.local_addr())
    }

    fn via(&self, port: u16) -> Via {
        if port == self.listen.device.local_addr().port() {
            Via::Listen(self.family())
        } else {
            Via::Allocation(AllocationPort(port), self.family())
        }
    }
}

impl RelayIo for FakeIo {
    type Udp = FakeUdp;

    fn socket(&mut self, via: Via) -> Option<&mut Watched<FakeUdp>> {
        let ours = self.family();
        match via {
            Via::Listen(family) if family == ours => Some(&mut self.listen),
            Via::Allocation(port, family) if family == ours => self.allocations.get_mut(&port.0),
            Via::Listen(_) | Via::Allocation(..) => None,
        }
    }

    fn open(&mut self, port: AllocationPort, family: Family) -> io::Result<()> {
        if family != self.family() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let addr = SocketAddr::new(self.listen.device.local_addr().ip(), port.0);
        self.allocations
            .insert(port.0, Watched::new(FakeUdp::new(addr)));
        self.ready.push_back(Via::Allocation(port, family));

        Ok(())
    }

    fn close(&mut self, port: AllocationPort, _: Family) {
        self.allocations.remove(&port.0);
    }

    fn next_ready(&mut self) -> Option<Via> {
        self.ready.pop_front()
    }

    fn unix(&self) -> Duration {
        self.unix
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}
