//! The shipped loops between pipes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib::event_loop::relay::{RelayIo, RelayLoop};
use connlib::event_loop::{Command, Core, EventLoop, Io, Output, Watched, Workers};
use connlib_relay::{
    AllocationPort, Config, Credentials, LoopbackPeers, PrivatePeers, Server, Via,
};
use connlib_tunnel::Status;
use connlib_wire::buffer::Pool;
use connlib_wire::secret::Secret;
use connlib_wire::stun::Family;

use super::devices::{Cables, Load, PipeTun, PipeUdp, Train};
use super::portal::RELAY_SECRET;
use super::{Carried, message_of};

/// Where the relay listens.
pub(super) const RELAY_PORT: u16 = 3_478;

/// A client or a gateway.
pub(super) struct Node<C: Core, W> {
    event_loop: EventLoop<C>,
    io: NodeIo<C, W>,
    due_at: Option<Instant>,
    has_work: bool,
}

struct NodeIo<C: Core, W> {
    udp: Watched<PipeUdp>,
    tun: Watched<PipeTun>,
    workers: W,
    commands: VecDeque<Command<C::FromPortal>>,
    outputs: Vec<Output<C>>,
}

impl<C: Core<Status = Status>, W: Workers<C::Job>> Node<C, W> {
    pub(super) fn new(core: C, cables: &Cables, addr: SocketAddr, workers: W) -> Self {
        Self {
            event_loop: EventLoop::new(core, 0),
            io: NodeIo {
                udp: Watched::new(PipeUdp::new(addr, cables)),
                tun: Watched::new(PipeTun::default()),
                workers,
                commands: VecDeque::new(),
                outputs: Vec::new(),
            },
            due_at: None,
            has_work: true,
        }
    }

    pub(super) fn command(&mut self, command: Command<C::FromPortal>) {
        self.io.commands.push_back(command);
        self.has_work = true;
    }

    pub(super) fn load(&mut self, load: Load) {
        self.io.tun.device.load(load);
        self.io.tun.ready.readable = true;
        self.has_work = true;
    }

    pub(super) fn receive(&mut self, train: Train) {
        self.io.udp.device.receive(train);
        self.io.udp.ready.readable = true;
        self.has_work = true;
    }

    /// Takes a turn if there is anything to do; whether there was.
    pub(super) fn turn(&mut self, now: Instant) -> bool {
        let is_due = self.due_at.is_some_and(|at| at <= now);
        if !self.has_work && !is_due && !self.io.workers.is_busy() {
            return false;
        }
        self.has_work = false;
        // Trains have left since.
        self.io.udp.ready.writable = true;
        let mut wait = self.event_loop.turn(now, &mut self.io);
        let errors = wait.errors.drain().count();
        assert_eq!(errors, 0, "nothing goes wrong here");
        self.due_at = wait.until;

        true
    }

    pub(super) fn take_messages(&mut self) -> Vec<C::ToPortal> {
        self.io.outputs.drain(..).filter_map(message_of).collect()
    }

    pub(super) fn take_carried(&mut self) -> Carried {
        std::mem::take(&mut self.io.tun.device.carried)
    }

    /// The kind of the path to the one peer.
    pub(super) fn path(&self, now: Instant) -> Option<&'static str> {
        let status = self.event_loop.core().status(now);

        status.peers.first().and_then(|peer| peer.path)
    }
}

impl<C: Core, W: Workers<C::Job>> Io<C> for NodeIo<C, W> {
    type Udp = PipeUdp;
    type Tun = PipeTun;
    type Workers = W;

    fn udp(&mut self, family: Family) -> Option<&mut Watched<PipeUdp>> {
        use connlib_os::udp::Udp as _;

        (Family::of(self.udp.device.local_addr()) == family).then_some(&mut self.udp)
    }

    fn tun(&mut self) -> &mut Watched<PipeTun> {
        &mut self.tun
    }

    fn workers(&mut self) -> &mut W {
        &mut self.workers
    }

    fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    fn next_command(&mut self) -> Option<Command<C::FromPortal>> {
        self.commands.pop_front()
    }

    fn has_room(&self) -> bool {
        true
    }

    fn deliver(&mut self, output: Output<C>) {
        self.outputs.push(output);
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

impl<C: Core, W> fmt::Debug for Node<C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

/// The relay.
#[derive(Debug)]
pub(super) struct Relay {
    event_loop: RelayLoop,
    io: RelayPipes,
    due_at: Option<Instant>,
    has_work: bool,
}

#[derive(Debug)]
struct RelayPipes {
    listen: Watched<PipeUdp>,
    addr: SocketAddr,
    cables: Cables,
    allocations: BTreeMap<u16, Watched<PipeUdp>>,
    ready: VecDeque<Via>,
    unix: Duration,
}

impl Relay {
    pub(super) fn new(cables: &Cables, addr: SocketAddr) -> Self {
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
            private_peers: PrivatePeers::Allowed,
        };
        let server = Server::new(config, [3; 32], Pool::new(2_048, 64));

        Self {
            event_loop: RelayLoop::new(server, 0),
            io: RelayPipes {
                listen: Watched::new(PipeUdp::new(addr, cables)),
                addr,
                cables: cables.clone(),
                allocations: BTreeMap::new(),
                ready: VecDeque::with_capacity(64),
                unix: Duration::ZERO,
            },
            due_at: None,
            has_work: true,
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.io.addr
    }

    pub(super) fn receive(&mut self, train: Train) {
        let via = self.io.via(train.to.port());
        let Some(socket) = self.io.socket(via) else {
            self.io.cables.give_back(train);
            return;
        };
        socket.device.receive(train);
        socket.ready.readable = true;
        self.io.ready.push_back(via);
        self.has_work = true;
    }

    pub(super) fn turn(&mut self, now: Instant, unix: Duration) -> bool {
        let is_due = self.due_at.is_some_and(|at| at <= now);
        if !self.has_work && !is_due {
            return false;
        }
        self.has_work = false;
        self.io.unix = unix;
        let sockets = self.io.allocations.values_mut();
        for socket in std::iter::once(&mut self.io.listen).chain(sockets) {
            socket.ready.writable = true;
        }
        let mut wait = self.event_loop.turn(now, &mut self.io);
        let errors = wait.errors.drain().count();
        assert_eq!(errors, 0, "nothing goes wrong here");
        self.due_at = wait.until;

        true
    }
}

impl RelayPipes {
    fn family(&self) -> Family {
        Family::of(self.addr)
    }

    fn via(&self, port: u16) -> Via {
        if port == self.addr.port() {
            Via::Listen(self.family())
        } else {
            Via::Allocation(AllocationPort(port), self.family())
        }
    }
}

impl RelayIo for RelayPipes {
    type Udp = PipeUdp;

    fn socket(&mut self, via: Via) -> Option<&mut Watched<PipeUdp>> {
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
        let addr = SocketAddr::new(self.addr.ip(), port.0);
        let socket = Watched::new(PipeUdp::new(addr, &self.cables));
        self.allocations.insert(port.0, socket);
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
