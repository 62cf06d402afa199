//! The crate `smoltcp` behind names of our own.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::{Buffer, Pool};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

/// A TCP of its own, which any address may be the local one of.
pub(super) struct Stack {
    epoch: Instant,
    queues: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
}

/// Names a connection of a [`Stack`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Handle(SocketHandle);

/// How a connection stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// On its way up.
    Opening,
    /// Data goes both ways.
    Open,
    /// The other end sends nothing any more.
    HalfClosed,
    /// We send nothing any more; what was sent before is on its way.
    Closing,
    /// It is over, or never began.
    Closed,
}

/// What a connection keeps for each direction, in bytes. More waits with whoever has it.
const BUFFER: usize = 8 * 1024;

/// The stack's own addresses, which nothing is ever sent to: it needs them to take packets for any other (RFC 5737, RFC 3849).
const HOME_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HOME_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

impl Stack {
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        let mut queues = Queues {
            received: VecDeque::new(),
            sent: VecDeque::new(),
            pool: Pool::new(MAX_PACKET, 64),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queues, time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(IpCidr::new(HOME_V4.into(), 32));
            let _ = addresses.push(IpCidr::new(HOME_V6.into(), 128));
        });
        let routes = interface.routes_mut();
        let _ = routes.add_default_ipv4_route(HOME_V4);
        let _ = routes.add_default_ipv6_route(HOME_V6);
        interface.set_any_ip(true);

        Self {
            epoch: now,
            queues,
            interface,
            sockets: SocketSet::new(Vec::new()),
        }
    }

    /// Takes the first packet of a connection from anybody to `local`.
    pub(super) fn listen(&mut self, local: SocketAddr) -> Option<Handle> {
        let mut socket = socket();
        socket.listen(endpoint(local)).ok()?;

        Some(Handle(self.sockets.add(socket)))
    }

    pub(super) fn connect(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<Handle> {
        let mut socket = socket();
        socket
            .connect(self.interface.context(), endpoint(remote), endpoint(local))
            .ok()?;

        Some(Handle(self.sockets.add(socket)))
    }

    /// Ends a connection whose other end says nothing for that long, though it has something to confirm. One that has nothing
    /// to say may be silent for as long as it likes; as that changes, this is to be called again.
    pub(super) fn expect_within(&mut self, handle: Handle, timeout: Duration) {
        let timeout = time::Duration::from_millis(timeout.as_millis() as u64);
        let socket = self.socket(handle);
        let may_be_silent = matches!(socket.state(), State::Established | State::CloseWait)
            && socket.send_queue() == 0;
        socket.set_timeout((!may_be_silent).then_some(timeout));
    }

    pub(super) fn standing(&self, handle: Handle) -> Standing {
        match self.sockets.get::<Socket<'_>>(handle.0).state() {
            State::SynSent | State::SynReceived => Standing::Opening,
            State::Established => Standing::Open,
            State::CloseWait => Standing::HalfClosed,
            State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => {
                Standing::Closing
            }
            // Who listens has taken no first packet, and would take anybody's.
            State::Listen | State::Closed | State::TimeWait => Standing::Closed,
        }
    }

    /// The bytes that have come, in order.
    pub(super) fn receive(&mut self, handle: Handle, take: impl FnOnce(&[u8])) -> usize {
        self.socket(handle)
            .recv(|bytes| {
                take(bytes);
                (bytes.len(), bytes.len())
            })
            .unwrap_or_default()
    }

    /// Takes as much as there is room for.
    pub(super) fn send(&mut self, handle: Handle, bytes: &[u8]) -> usize {
        self.socket(handle).send_slice(bytes).unwrap_or_default()
    }

    /// Sends what is left, and then nothing more.
    pub(super) fn close(&mut self, handle: Handle) {
        self.socket(handle).close();
    }

    /// Ends a connection at once; the other end is told.
    pub(super) fn abort(&mut self, now: Instant, handle: Handle) {
        self.socket(handle).abort();
        self.poll(now);
        self.sockets.remove(handle.0);
    }

    /// Forgets a connection that is over.
    pub(super) fn remove(&mut self, handle: Handle) {
        self.sockets.remove(handle.0);
    }

    pub(super) fn handle_packet(&mut self, packet: Buffer) {
        self.queues.received.push_back(packet);
    }

    /// Lets time pass and handles what came.
    pub(super) fn poll(&mut self, now: Instant) {
        let now = self.timestamp(now);
        self.interface
            .poll(now, &mut self.queues, &mut self.sockets);
    }

    pub(super) fn poll_packet(&mut self) -> Option<Buffer> {
        self.queues.sent.pop_front()
    }

    pub(super) fn has_packets(&self) -> bool {
        !self.queues.sent.is_empty()
    }

    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(self.timestamp(now), &self.sockets)?;
        let micros = u64::try_from(at.total_micros()).unwrap_or_default();

        Some(now.max(self.epoch + Duration::from_micros(micros)))
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.queues.pool
    }

    fn socket(&mut self, handle: Handle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle.0)
    }

    fn timestamp(&self, now: Instant) -> time::Instant {
        let micros = now.saturating_duration_since(self.epoch).as_micros();

        time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("connections", &self.sockets.iter().count())
            .finish_non_exhaustive()
    }
}

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    // Questions and answers are whole messages; waiting for more to send with them costs a round trip.
    socket.set_nagle_enabled(false);

    socket
}

fn endpoint(addr: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(addr.ip().into(), addr.port())
}

/// Packets on their way in and out.
struct Queues {
    received: VecDeque<Buffer>,
    sent: VecDeque<Buffer>,
    pool: Pool,
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: time::Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.pop_front()?;

        Some((Received(packet), Sending(self)))
    }

    fn transmit(&mut self, _: time::Instant) -> Option<Sending<'_>> {
        Some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MAX_PACKET;

        capabilities
    }
}

struct Received(Buffer);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sending<'a>(&'a mut Queues);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = self.0.pool.take(0);
        match packet.extend(len) {
            Some(bytes) => {
                bytes.fill(0);
                let result = f(bytes);
                self.0.sent.push_back(packet);
                result
            }
            // Never: it was told how large a packet may be.
            None => f(&mut vec![0; len]),
        }
    }
}
