//! The threads of a relay, each with two listen sockets, and one or two for each of its allocations.
//!
//! The listen sockets share the port, and the kernel gives each client's datagrams to the same one of them. What threads tell
//! each other is who has moved; data from a client of one to a client of another goes through the kernel.

use std::collections::{HashMap, VecDeque};
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::poll::{Interest, Poller, Token, Waker};
use connlib_os::process;
use connlib_os::udp::{UdpConfig, UdpError, UdpSocket};
use connlib_relay::{AllocationPort, Claim, Server, Via};
use connlib_wire::stun::Family;
use tokio::sync::oneshot;

use super::{DataPlaneEnded, DataPlaneError, hash_seed};
use crate::event_loop::relay::{RelayIo, RelayLoop};
use crate::event_loop::{Degraded, Error, Stats, Watched};

/// All clients share the listen sockets.
const LISTEN_BUFFERS: (usize, usize) = (2 * 1024 * 1024, 8 * 1024 * 1024);

/// One client's data alone.
const ALLOCATION_BUFFERS: (usize, usize) = (512 * 1024, 2 * 1024 * 1024);

const WAKER: Token = Token(0);

/// Where a relay listens; allocations' ports are bound on the same addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RelaySockets {
    pub(crate) listen_v4: Option<SocketAddr>,
    pub(crate) listen_v6: Option<SocketAddr>,
}

impl RelaySockets {
    fn of(&self, family: Family) -> Option<SocketAddr> {
        match family {
            Family::V4 => self.listen_v4,
            Family::V6 => self.listen_v6,
        }
    }
}

/// What a thread is told.
enum Order {
    /// Ends; allocations vanish with it.
    Stop,
    /// Makes no new allocation, and tells when there is none left.
    Drain(oneshot::Sender<()>),
    /// Forgets a user whom another thread serves now.
    Yield(Claim),
    /// Tells what was counted.
    Count(oneshot::Sender<Counts>),
}

/// What a relay has counted since it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) server: connlib_relay::Stats,
    /// Errors and drops alone.
    pub(crate) event_loop: Stats,
}

/// The way into the threads.
pub(crate) struct RelayHandle {
    threads: Vec<Thread>,
}

struct Thread {
    orders: Orders,
    joins: JoinHandle<Result<(), DataPlaneEnded>>,
    /// Closed when the thread ends, however it does.
    alive: oneshot::Receiver<()>,
    /// Told when the thread has nobody to serve any more; `None` while that is not asked for, or once it was told.
    drained: Option<oneshot::Receiver<()>>,
}

/// Tells a thread something, and wakes it.
#[derive(Clone)]
struct Orders {
    sender: mpsc::Sender<Order>,
    waker: Waker,
}

impl Orders {
    fn give(&self, order: Order) {
        // A thread that is gone needs neither orders nor waking.
        drop(self.sender.send(order));
        drop(self.waker.wake());
    }
}

/// Where a relay's counters can be asked for.
#[derive(Clone)]
pub(crate) struct Counters {
    threads: Vec<Orders>,
}

impl Counters {
    /// What all threads have counted until now, but those that have ended.
    pub(crate) async fn read(&self) -> Counts {
        let mut all = Counts::default();
        for orders in &self.threads {
            let (sender, counts) = oneshot::channel();
            orders.give(Order::Count(sender));
            if let Ok(counts) = counts.await {
                all.server.absorb(&counts.server);
                all.event_loop.absorb_failures(&counts.event_loop);
            }
        }

        all
    }
}

impl RelayHandle {
    /// Ends the threads; allocations vanish with them.
    pub(crate) fn stop(&self) {
        self.tell_all(|| Order::Stop);
    }

    /// From now on nobody gets a new allocation. All threads go on until they are stopped: if one left, the kernel would give
    /// its place among the sockets to another, and clients to the wrong ones.
    pub(crate) fn drain(&mut self) {
        for thread in &mut self.threads {
            let (sender, drained) = oneshot::channel();
            thread.orders.give(Order::Drain(sender));
            thread.drained = Some(drained);
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            threads: self.orders(),
        }
    }

    /// Waits until a thread has ended, or all of them have drained; for ever if neither happens.
    pub(crate) async fn ended(&mut self) {
        let is_draining = self.threads.iter().any(|thread| thread.drained.is_some());
        poll_fn(|context| {
            let mut has_ended = false;
            let mut are_drained = is_draining;
            for thread in &mut self.threads {
                // Nothing is ever sent: the other end is only dropped.
                has_ended |= Pin::new(&mut thread.alive).poll(context).is_ready();
                if let Some(drained) = &mut thread.drained {
                    match Pin::new(drained).poll(context) {
                        Poll::Ready(_) => thread.drained = None,
                        Poll::Pending => are_drained = false,
                    }
                }
            }

            match has_ended || are_drained {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Waits until all threads have ended, and says why the first of them did that nobody asked to.
    pub(crate) fn join(self) -> Result<(), DataPlaneEnded> {
        let joined = self
            .threads
            .into_iter()
            .map(|thread| thread.joins.join().unwrap_or(Err(DataPlaneEnded::Crashed)));
        // Each is waited for before any is looked at.
        let ends: Vec<_> = joined.collect();

        ends.into_iter().collect()
    }

    fn orders(&self) -> Vec<Orders> {
        let orders = self.threads.iter().map(|thread| thread.orders.clone());

        orders.collect()
    }

    fn tell_all(&self, order: impl Fn() -> Order) {
        for thread in &self.threads {
            thread.orders.give(order());
        }
    }
}

/// Binds the listen sockets and starts a thread around each of `servers`, which share the ports.
///
/// # Errors
///
/// A listen socket can't be bound, or the system has no thread or descriptor left.
pub(crate) fn spawn_relay(
    servers: Vec<Server>,
    clock: Clock,
    sockets: RelaySockets,
) -> Result<RelayHandle, DataPlaneError> {
    let shares_port = servers.len() > 1;
    // All sockets are bound before the first datagram is read: each new one changes whose a client is.
    let mut hosts = Vec::new();
    let mut orders = Vec::new();
    for server in servers {
        let (host, to_host) = Host::new(server, clock, sockets, shares_port)?;
        hosts.push(host);
        orders.push(to_host);
    }

    let mut handle = RelayHandle {
        threads: Vec::new(),
    };
    for (index, (mut host, to_host)) in hosts.into_iter().zip(&orders).enumerate() {
        let others = orders
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        host.siblings = others.map(|(_, orders)| orders.clone()).collect();
        let (is_alive, alive) = oneshot::channel();
        let spawned = thread::Builder::new()
            .name("relay data".to_owned())
            .spawn(move || {
                let _is_alive: oneshot::Sender<()> = is_alive;
                host.run()
            });
        match spawned {
            Ok(joins) => handle.threads.push(Thread {
                orders: to_host.clone(),
                joins,
                alive,
                drained: None,
            }),
            Err(error) => {
                handle.stop();
                return Err(DataPlaneError::Os(error));
            }
        }
    }

    Ok(handle)
}

struct Host {
    event_loop: RelayLoop,
    io: SocketsIo,
    orders: mpsc::Receiver<Order>,
    /// The other threads.
    siblings: Vec<Orders>,
    /// To be told once there is no allocation left.
    drained: Option<oneshot::Sender<()>>,
    _waker: Waker,
}

impl Host {
    fn new(
        server: Server,
        clock: Clock,
        sockets: RelaySockets,
        shares_port: bool,
    ) -> Result<(Self, Orders), DataPlaneError> {
        let poller = Poller::new().map_err(DataPlaneError::Os)?;
        let waker = Waker::new(&poller, WAKER).map_err(DataPlaneError::Os)?;
        let mut io = SocketsIo {
            turn_began_at: clock.now(),
            clock,
            poller,
            config: sockets,
            shares_port,
            sockets: HashMap::new(),
            by_token: HashMap::new(),
            last_token: WAKER.0,
            ready: VecDeque::new(),
        };
        for family in [Family::V4, Family::V6] {
            if let Some(addr) = sockets.of(family) {
                io.bind(Via::Listen(family), addr, LISTEN_BUFFERS)?;
            }
        }
        let (sender, orders) = mpsc::channel();
        let host = Self {
            event_loop: RelayLoop::new(server, hash_seed()?),
            io,
            orders,
            siblings: Vec::new(),
            drained: None,
            _waker: waker.clone(),
        };

        Ok((host, Orders { sender, waker }))
    }

    fn run(&mut self) -> Result<(), DataPlaneEnded> {
        let mut ready = Vec::new();
        while self.goes_on() {
            let now = self.io.clock.now();
            self.io.turn_began_at = now;
            let mut wait = self.event_loop.turn(now, &mut self.io);
            let mut fatal = None;
            for error in wait.errors.drain() {
                match error {
                    Error::Fatal(error) => {
                        fatal.get_or_insert(error);
                    }
                    Error::Degraded(Degraded::SocketLost { addr, source }) => {
                        self.io.rebind_listen(Family::of(addr), &source);
                    }
                    Error::Degraded(error) => tracing::debug!(%error, "Going on"),
                    Error::PerPacket(error) => tracing::trace!(%error, "Going on"),
                }
            }
            if let Some(fatal) = fatal {
                return Err(fatal.into());
            }

            self.tell_if_drained();
            while let Some(claim) = self.event_loop.poll_claim() {
                for sibling in &self.siblings {
                    sibling.give(Order::Yield(claim.clone()));
                }
            }
            if wait.load_is_over {
                process::release_memory();
            }
            let now = self.io.clock.now();
            let timeout = wait.until.map(|at| at.saturating_duration_since(now));
            self.io
                .poller
                .wait(timeout, &mut ready)
                .map_err(DataPlaneEnded::Wait)?;
            for readiness in ready.drain(..) {
                let Some(via) = self.io.by_token.get(&readiness.token).copied() else {
                    continue;
                };
                if let Some((_, socket)) = self.io.sockets.get_mut(&via) {
                    socket.ready.readable |= readiness.readable;
                    socket.ready.writable |= readiness.writable;
                    self.io.ready.push_back(via);
                }
            }
        }

        Ok(())
    }

    /// Carries out what was ordered. Whether it is to go on.
    fn goes_on(&mut self) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Stop => return false,
                Order::Drain(sender) => {
                    self.drained = Some(sender);
                    self.event_loop.drain();
                }
                Order::Yield(claim) => self.event_loop.yield_to(&claim),
                Order::Count(sender) => {
                    let counts = Counts {
                        server: self.event_loop.server().stats().clone(),
                        event_loop: self.event_loop.stats().clone(),
                    };
                    // Whoever asked may have left.
                    drop(sender.send(counts));
                }
            }
        }

        true
    }

    /// Tells who waits for it that nobody has an allocation any more.
    fn tell_if_drained(&mut self) {
        if self.event_loop.server().is_empty()
            && let Some(drained) = self.drained.take()
        {
            // Whoever asked may have left.
            let _ = drained.send(());
        }
    }
}

struct SocketsIo {
    clock: Clock,
    turn_began_at: Instant,
    poller: Poller,
    config: RelaySockets,
    /// The listen sockets are several threads'.
    shares_port: bool,
    sockets: HashMap<Via, (Token, Watched<UdpSocket>)>,
    by_token: HashMap<Token, Via>,
    last_token: usize,
    ready: VecDeque<Via>,
}

impl SocketsIo {
    fn bind(
        &mut self,
        via: Via,
        addr: SocketAddr,
        (send, recv): (usize, usize),
    ) -> Result<(), DataPlaneError> {
        let mut config = UdpConfig::new(addr).with_buffers(send, recv);
        if self.shares_port && matches!(via, Via::Listen(_)) {
            config = config.with_shared_port();
        }
        let socket = UdpSocket::bind(&config)?;
        // Never the same twice: readiness that was read before a socket was closed must not be the next one's.
        self.last_token += 1;
        let token = Token(self.last_token);
        self.poller
            .register(&socket, token, Interest::ReadWrite)
            .map_err(DataPlaneError::Os)?;
        self.sockets.insert(via, (token, Watched::new(socket)));
        self.by_token.insert(token, via);
        self.ready.push_back(via);

        Ok(())
    }

    /// A listen socket no longer works. Clients ask again when they hear nothing.
    fn rebind_listen(&mut self, family: Family, why: &io::Error) {
        let via = Via::Listen(family);
        let Some(addr) = self.config.of(family) else {
            return;
        };
        if let Some((token, _)) = self.sockets.remove(&via) {
            self.by_token.remove(&token);
        }
        match self.bind(via, addr, LISTEN_BUFFERS) {
            Ok(()) => tracing::info!(?family, %why, "Bound the listen socket anew"),
            Err(error) => tracing::error!(?family, %error, "Serving one IP version less"),
        }
    }

    fn addr(&self, port: AllocationPort, family: Family) -> Option<SocketAddr> {
        let ip: IpAddr = self.config.of(family)?.ip();

        Some(SocketAddr::new(ip, port.0))
    }
}

impl RelayIo for SocketsIo {
    type Udp = UdpSocket;

    fn socket(&mut self, via: Via) -> Option<&mut Watched<UdpSocket>> {
        self.sockets.get_mut(&via).map(|(_, socket)| socket)
    }

    fn open(&mut self, port: AllocationPort, family: Family) -> io::Result<()> {
        let addr = self
            .addr(port, family)
            .ok_or(io::ErrorKind::AddrNotAvailable)?;

        self.bind(Via::Allocation(port, family), addr, ALLOCATION_BUFFERS)
            .map_err(|error| match error {
                DataPlaneError::Udp(UdpError::AddrInUse { .. }) => io::ErrorKind::AddrInUse.into(),
                DataPlaneError::Udp(error) => io::Error::other(error),
                DataPlaneError::Os(error) => error,
            })
    }

    fn close(&mut self, port: AllocationPort, family: Family) {
        if let Some((token, _)) = self.sockets.remove(&Via::Allocation(port, family)) {
            self.by_token.remove(&token);
        }
    }

    fn next_ready(&mut self) -> Option<Via> {
        self.ready.pop_front()
    }

    fn unix(&self) -> Duration {
        self.clock.unix()
    }

    fn elapsed(&self) -> Duration {
        self.clock
            .now()
            .saturating_duration_since(self.turn_began_at)
    }
}
