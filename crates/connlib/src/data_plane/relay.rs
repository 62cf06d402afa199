//! The thread of a relay: two listen sockets, and one or two for each allocation.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::poll::{Interest, Poller, Token, Waker};
use connlib_os::process;
use connlib_os::udp::{UdpConfig, UdpError, UdpSocket};
use connlib_relay::{AllocationPort, Server, Via};
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

/// What the thread is told.
enum Order {
    /// Ends; allocations vanish with it.
    Stop,
    /// Makes no new allocation, and ends once there is none.
    Drain,
    /// Tells what was counted.
    Count(oneshot::Sender<Counts>),
}

/// What a relay has counted since it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) server: connlib_relay::Stats,
    pub(crate) event_loop: Stats,
}

/// The way into the thread.
pub(crate) struct RelayHandle {
    orders: Orders,
    thread: JoinHandle<Result<(), DataPlaneEnded>>,
    /// Closed when the thread ends, however it does.
    alive: oneshot::Receiver<()>,
}

/// Tells the thread something, and wakes it.
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
    orders: Orders,
}

impl Counters {
    /// What was counted until now; nothing once the relay has ended.
    pub(crate) async fn read(&self) -> Option<Counts> {
        let (sender, counts) = oneshot::channel();
        self.orders.give(Order::Count(sender));

        counts.await.ok()
    }
}

impl RelayHandle {
    /// Ends the thread; allocations vanish with it.
    pub(crate) fn stop(&self) {
        self.orders.give(Order::Stop);
    }

    /// From now on nobody gets a new allocation; the thread ends when none is left.
    pub(crate) fn drain(&self) {
        self.orders.give(Order::Drain);
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            orders: self.orders.clone(),
        }
    }

    /// Waits until the thread has ended.
    pub(crate) async fn ended(&mut self) {
        // Nothing is ever sent: the other end is only dropped.
        drop((&mut self.alive).await);
    }

    /// Waits until the thread has ended, and says why it did if nobody asked it to.
    pub(crate) fn join(self) -> Result<(), DataPlaneEnded> {
        self.thread.join().unwrap_or(Err(DataPlaneEnded::Crashed))
    }
}

/// Binds the listen sockets and starts the thread around `server`.
///
/// # Errors
///
/// A listen socket can't be bound, or the system has no thread or descriptor left.
pub(crate) fn spawn_relay(
    server: Server,
    clock: Clock,
    sockets: RelaySockets,
) -> Result<RelayHandle, DataPlaneError> {
    let poller = Poller::new().map_err(DataPlaneError::Os)?;
    let waker = Waker::new(&poller, WAKER).map_err(DataPlaneError::Os)?;
    let mut io = SocketsIo {
        turn_began_at: clock.now(),
        clock,
        poller,
        config: sockets,
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
    let mut host = Host {
        event_loop: RelayLoop::new(server, hash_seed()?),
        io,
        orders,
        is_draining: false,
        _waker: waker.clone(),
    };

    let (is_alive, alive) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("relay data".to_owned())
        .spawn(move || {
            let _is_alive: oneshot::Sender<()> = is_alive;
            host.run()
        })
        .map_err(DataPlaneError::Os)?;

    Ok(RelayHandle {
        orders: Orders { sender, waker },
        thread,
        alive,
    })
}

struct Host {
    event_loop: RelayLoop,
    io: SocketsIo,
    orders: mpsc::Receiver<Order>,
    is_draining: bool,
    _waker: Waker,
}

impl Host {
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

    /// Carries out what was ordered. Whether there is anything left to do.
    fn goes_on(&mut self) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Stop => return false,
                Order::Drain => {
                    self.is_draining = true;
                    self.event_loop.drain();
                }
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

        !self.is_draining || !self.event_loop.server().is_empty()
    }
}

struct SocketsIo {
    clock: Clock,
    turn_began_at: Instant,
    poller: Poller,
    config: RelaySockets,
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
        let socket = UdpSocket::bind(&UdpConfig::new(addr).with_buffers(send, recv))?;
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
