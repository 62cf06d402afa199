//! The thread of a client or a gateway.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_os::poll::{Interest, Poller, Readiness, Token, Waker};
use connlib_os::process;
use connlib_os::tun::{Joins, Tun, TunDevice};
use connlib_os::udp::UdpSocket;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::stun::Family;
use tokio::sync::mpsc;

use super::sockets::{Pair, Sockets, token};
use super::{DataPlaneEnded, DataPlaneError, hash_seed};
use crate::event_loop::{Command, Core, Degraded, Error, EventLoop, Inline, Io, Output, Watched};

/// How many orders and outputs may wait on either side (io.md §1.1).
const CHANNEL: usize = 128;

/// How long goodbyes may take to leave (io.md C9).
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// How soon a stopping loop looks again whether everything has left.
const FLUSH_POLL: Duration = Duration::from_millis(5);

const WAKER: Token = Token(0);
const TUN: Token = Token(3);

/// Something for the thread to do.
pub(crate) enum Order<C: Core> {
    /// Something for the loop.
    Command(Command<C::FromPortal>),
    /// The TUN device to use from here on. Until the first one comes, packets for it are dropped.
    Tun(TunDevice),
    /// The network changed: bind the sockets that are missing, and let every link find its way.
    Adapt,
    /// Bind new sockets and start every link over.
    Rebind,
    /// Say goodbye, send what waits, and end.
    Stop,
}

/// The thread is gone, and with it whatever it could have done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the data plane has ended")]
pub(crate) struct Stopped;

/// The way into the thread.
pub(crate) struct NodeHandle<C: Core> {
    orders: mpsc::Sender<Order<C>>,
    waker: Waker,
    thread: JoinHandle<Result<(), DataPlaneEnded>>,
}

impl<C: Core> NodeHandle<C> {
    /// Gives an order, waiting while too many wait already.
    pub(crate) async fn order(&self, order: Order<C>) -> Result<(), Stopped> {
        self.orders.send(order).await.map_err(|_| Stopped)?;

        self.wake()
    }

    /// Waits until the thread has ended, and says why it did if nobody asked it to.
    pub(crate) fn join(self) -> Result<(), DataPlaneEnded> {
        drop(self.orders);
        // A thread that is gone needs no waking.
        drop(self.waker.wake());

        self.thread.join().unwrap_or(Err(DataPlaneEnded::Crashed))
    }

    /// Lets the thread look at the clock: what it waits with stands still while the machine sleeps.
    pub(crate) fn nudge(&self) {
        // A thread that is gone has no timers.
        let _ = self.wake();
    }

    fn wake(&self) -> Result<(), Stopped> {
        self.waker.wake().map_err(|_| Stopped)
    }
}

/// The way out of the thread.
pub(crate) struct Outputs<C: Core> {
    receiver: mpsc::Receiver<Output<C>>,
    waker: Waker,
}

impl<C: Core> Outputs<C> {
    /// The next output; `None` once the thread has ended and all were taken.
    pub(crate) async fn recv(&mut self) -> Option<Output<C>> {
        let output = self.receiver.recv().await;
        // The loop keeps its outputs while there is no room; if there was none, now there is one place.
        if self.receiver.len() + 1 >= CHANNEL {
            drop(self.waker.wake());
        }

        output
    }
}

/// Binds sockets and starts the thread `name` around `core`.
///
/// # Errors
///
/// No socket can be bound, or the system has no thread or descriptor left.
pub(crate) fn spawn_node<C>(
    name: &str,
    core: C,
    clock: Clock,
    sockets: Sockets,
) -> Result<(NodeHandle<C>, Outputs<C>), DataPlaneError>
where
    C: Core + Send + 'static,
    C::FromPortal: Send,
    C::ToPortal: Send,
    C::Event: Send,
    C::Status: Send,
    C::Packets: Send,
    C::Lane: Send,
    C::Job: Send,
{
    let poller = Poller::new().map_err(DataPlaneError::Os)?;
    let waker = Waker::new(&poller, WAKER).map_err(DataPlaneError::Os)?;
    let pair = Pair::bind(sockets, &poller)?;
    let flow_seed = hash_seed()?;
    let (orders, receive_orders) = mpsc::channel(CHANNEL);
    let (send_outputs, outputs) = mpsc::channel(CHANNEL);
    let mut node = Node {
        event_loop: EventLoop::new(core, flow_seed),
        io: NodeIo {
            turn_began_at: clock.now(),
            clock,
            sockets: pair,
            tun: Watched::new(Device { device: None }),
            workers: Inline::default(),
            commands: VecDeque::new(),
            outputs: send_outputs,
        },
        poller,
        config: sockets,
        orders: receive_orders,
        stop_by: None,
        // The thread's own, so that orders that come while it waits are never lost.
        _waker: waker.clone(),
    };

    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || node.run())
        .map_err(DataPlaneError::Os)?;
    let handle = NodeHandle {
        orders,
        waker: waker.clone(),
        thread,
    };
    let outputs = Outputs {
        receiver: outputs,
        waker,
    };

    Ok((handle, outputs))
}

struct Node<C: Core> {
    event_loop: EventLoop<C>,
    io: NodeIo<C>,
    poller: Poller,
    config: Sockets,
    orders: mpsc::Receiver<Order<C>>,
    /// Set once it was told to stop: when it ends whatever still waits.
    stop_by: Option<Instant>,
    _waker: Waker,
}

impl<C: Core> Node<C> {
    fn run(&mut self) -> Result<(), DataPlaneEnded> {
        let mut ready = Vec::new();
        loop {
            self.take_orders();
            let now = self.io.clock.now();
            self.io.turn_began_at = now;
            let mut wait = self.event_loop.turn(now, &mut self.io);
            let mut fatal = None;
            for error in wait.errors.drain() {
                // Each is handled, also behind a fatal one.
                if let Some(error) = self.handle_error(error) {
                    fatal.get_or_insert(error);
                }
            }
            if let Some(fatal) = fatal {
                return Err(fatal.into());
            }
            let mut now = self.io.clock.now();
            if self.has_stopped(now) {
                return Ok(());
            }

            if wait.load_is_over {
                process::release_memory();
            }
            if let Some(pause) = wait.pause {
                leave_alone(pause);
                now = self.io.clock.now();
            }
            let timeout = wait.until.map(|at| at.saturating_duration_since(now));
            let timeout = match self.stop_by {
                Some(_) => Some(timeout.map_or(FLUSH_POLL, |timeout| timeout.min(FLUSH_POLL))),
                None => timeout,
            };
            self.poller
                .wait(timeout, &mut ready)
                .map_err(DataPlaneEnded::Wait)?;
            for readiness in ready.drain(..) {
                self.io.mark_ready(readiness);
            }
        }
    }

    /// Takes the orders that wait, as many as the loop has room for.
    fn take_orders(&mut self) {
        while self.io.commands.len() < CHANNEL {
            match self.orders.try_recv() {
                Ok(Order::Command(command)) => self.io.commands.push_back(command),
                Ok(Order::Tun(device)) => self.set_tun(device),
                Ok(Order::Adapt) => self.adapt(),
                Ok(Order::Rebind) => self.rebind(),
                Ok(Order::Stop) | Err(mpsc::error::TryRecvError::Disconnected) => {
                    return self.stop();
                }
                Err(mpsc::error::TryRecvError::Empty) => return,
            }
        }
    }

    fn set_tun(&mut self, device: TunDevice) {
        if let Err(error) = self.poller.register(&device, TUN, Interest::ReadWrite) {
            tracing::error!(%error, "Can't wait for the TUN device");
            return;
        }
        self.io.tun = Watched::new(Device {
            device: Some(device),
        });
    }

    /// A socket that is bound to no address in particular goes on in another network, and what it has received is still
    /// good.
    fn adapt(&mut self) {
        for family in [Family::V4, Family::V6] {
            if self.io.sockets.get(family).is_none() {
                self.io.sockets.rebind(self.config, family, &self.poller);
            }
        }
        self.io.commands.push_back(Command::NetworkChanged);
    }

    fn rebind(&mut self) {
        for family in [Family::V4, Family::V6] {
            self.io.sockets.rebind(self.config, family, &self.poller);
        }
        self.io.commands.push_back(Command::Reset);
    }

    fn stop(&mut self) {
        if self.stop_by.is_none() {
            self.stop_by = Some(self.io.clock.now() + FLUSH_WITHIN);
            self.io.commands.push_back(Command::ShutDown);
        }
    }

    fn has_stopped(&self, now: Instant) -> bool {
        let Some(stop_by) = self.stop_by else {
            return false;
        };
        let is_done = self.io.commands.is_empty() && self.event_loop.is_flushed();

        is_done || now >= stop_by
    }

    /// What can be mended is mended; what can't be ends the thread.
    fn handle_error(&mut self, error: Error) -> Option<crate::event_loop::Fatal> {
        match error {
            Error::Fatal(fatal) => return Some(fatal),
            Error::Degraded(Degraded::SocketLost { addr, source }) => {
                let family = Family::of(addr);
                tracing::info!(?family, error = %source, "Binding a socket anew");
                self.io.sockets.rebind(self.config, family, &self.poller);
            }
            Error::Degraded(error) => tracing::debug!(%error, "Going on"),
            // Counted and told by the loop itself.
            Error::PerPacket(error) => tracing::trace!(%error, "Going on"),
        }

        None
    }
}

/// Waits in spite of whatever is ready.
#[expect(
    clippy::disallowed_methods,
    reason = "it is an edge that waits, on a thread of its own"
)]
fn leave_alone(pause: Duration) {
    thread::sleep(pause);
}

struct NodeIo<C: Core> {
    clock: Clock,
    turn_began_at: Instant,
    sockets: Pair,
    tun: Watched<Device>,
    workers: Inline<C::Job>,
    commands: VecDeque<Command<C::FromPortal>>,
    outputs: mpsc::Sender<Output<C>>,
}

impl<C: Core> NodeIo<C> {
    /// A flag that is set stays so until the device would block.
    fn mark_ready(&mut self, readiness: Readiness) {
        let ready = if readiness.token == TUN {
            &mut self.tun.ready
        } else {
            let families = [Family::V4, Family::V6].into_iter();
            let family = families
                .into_iter()
                .find(|family| token(*family) == readiness.token);
            match family.and_then(|family| self.sockets.get(family)) {
                Some(socket) => &mut socket.ready,
                // The waker: it has done its work.
                None => return,
            }
        };
        ready.readable |= readiness.readable;
        ready.writable |= readiness.writable;
    }
}

impl<C: Core> Io<C> for NodeIo<C> {
    type Udp = UdpSocket;
    type Tun = Device;
    type Workers = Inline<C::Job>;

    fn udp(&mut self, family: Family) -> Option<&mut Watched<UdpSocket>> {
        self.sockets.get(family)
    }

    fn tun(&mut self) -> &mut Watched<Device> {
        &mut self.tun
    }

    fn workers(&mut self) -> &mut Inline<C::Job> {
        &mut self.workers
    }

    fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    fn next_command(&mut self) -> Option<Command<C::FromPortal>> {
        self.commands.pop_front()
    }

    fn has_room(&self) -> bool {
        self.outputs.capacity() > 0
    }

    fn deliver(&mut self, output: Output<C>) {
        // Nobody listens any longer only while everything ends.
        if let Err(error) = self.outputs.try_send(output) {
            tracing::debug!(%error, "Nobody takes this output");
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock
            .now()
            .saturating_duration_since(self.turn_began_at)
    }
}

/// A TUN device that may have yet to come.
struct Device {
    device: Option<TunDevice>,
}

impl Tun for Device {
    fn name(&self) -> &str {
        self.device.as_ref().map_or("", Tun::name)
    }

    fn joins(&self) -> Joins {
        self.device.as_ref().map_or_else(Joins::default, Tun::joins)
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<(VirtioHeader, usize)> {
        match &mut self.device {
            Some(device) => device.read(buf),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write(&mut self, header: VirtioHeader, parts: &[IoSlice<'_>]) -> io::Result<()> {
        match &mut self.device {
            Some(device) => device.write(header, parts),
            // Nobody can have asked for it.
            None => Ok(()),
        }
    }
}
