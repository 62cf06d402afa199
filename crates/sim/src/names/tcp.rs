//! TCP for programs on clients and for name servers behind gateways: the crate `smoltcp`, and messages behind their length.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::MAX_PACKET;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

use super::message::{framed, unframed};

/// What a connection keeps for each direction, in bytes.
const BUFFER: usize = 16 * 1024;

/// A peer that confirms nothing for that long is gone.
const UNRESPONSIVE: Duration = Duration::from_secs(20);

/// The stack's own addresses, which nothing is ever sent to: it needs them to take packets for any other (RFC 5737).
const HOME_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HOME_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// A TCP of its own, which any address may be the local one of.
pub(crate) struct Tcp {
    epoch: Instant,
    queues: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: BTreeMap<usize, Connection>,
    last: usize,
}

struct Connection {
    handle: SocketHandle,
    local: SocketAddr,
    remote: SocketAddr,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
}

/// What came of connections.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message on one, whose own end has this address.
    Message(usize, SocketAddr, Vec<u8>),
    /// It is over.
    Over(usize),
}

impl Tcp {
    pub(crate) fn new(now: Instant, seed: u64) -> Self {
        let mut queues = Queues::default();
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
            connections: BTreeMap::new(),
            last: 0,
        }
    }

    /// Connects, and sends a message. Returns the connection's number.
    pub(crate) fn ask(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        message: &[u8],
    ) -> Option<usize> {
        let mut socket = socket();
        let context = self.interface.context();
        socket
            .connect(context, endpoint(remote), endpoint(local))
            .ok()?;
        let number = self.add(socket, local, remote);
        self.send(number, message);

        Some(number)
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, number: usize, message: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.outgoing.extend(framed(message));
        }
    }

    /// The other end of a connection.
    pub(crate) fn remote(&self, number: usize) -> Option<SocketAddr> {
        self.connections.get(&number).map(|it| it.remote)
    }

    /// Ends a connection at once.
    pub(crate) fn abort(&mut self, now: Instant, number: usize) {
        if let Some(connection) = self.connections.remove(&number) {
            self.sockets
                .get_mut::<Socket<'_>>(connection.handle)
                .abort();
            self.poll(now);
            self.sockets.remove(connection.handle);
        }
    }

    /// Takes a packet between two ends. Whoever opens a connection to where `listens` is accepted.
    pub(crate) fn handle_packet(
        &mut self,
        (local, remote): (SocketAddr, SocketAddr),
        packet: &[u8],
        opens: bool,
    ) {
        let mut connections = self.connections.values();
        let is_known = connections.any(|it| (it.local, it.remote) == (local, remote));
        if opens && !is_known {
            let mut socket = socket();
            if socket.listen(endpoint(local)).is_ok() {
                self.add(socket, local, remote);
            }
        }
        self.queues.received.push_back(packet.to_vec());
    }

    /// Lets time pass, and says what came of it.
    pub(crate) fn work(&mut self, now: Instant) -> Vec<Heard> {
        let mut heard = Vec::new();
        loop {
            self.poll(now);
            let mut has_moved = false;
            for (number, connection) in &mut self.connections {
                let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
                let (front, _) = connection.outgoing.as_slices();
                let sent = socket.send_slice(front).unwrap_or_default();
                connection.outgoing.drain(..sent);
                let incoming = &mut connection.incoming;
                let received = socket.recv(|bytes| {
                    incoming.extend_from_slice(bytes);
                    (bytes.len(), bytes.len())
                });
                has_moved |= sent > 0 || received.unwrap_or_default() > 0;
                while let Some(message) = unframed(&mut connection.incoming) {
                    heard.push(Heard::Message(*number, connection.local, message));
                }
            }
            if !has_moved {
                break;
            }
        }
        let is_over = |connection: &Connection| {
            let socket = self.sockets.get::<Socket<'_>>(connection.handle);
            matches!(
                socket.state(),
                State::Closed | State::CloseWait | State::TimeWait | State::LastAck
            )
        };
        let over = self.connections.iter().filter(|(_, it)| is_over(it));
        let over: Vec<usize> = over.map(|(number, _)| *number).collect();
        for number in over {
            heard.push(Heard::Over(number));
            self.abort(now, number);
        }

        heard
    }

    /// The packets that it sends.
    pub(crate) fn take_packets(&mut self) -> Vec<Vec<u8>> {
        self.queues.sent.drain(..).collect()
    }

    /// When time has to pass.
    pub(crate) fn due_at(&mut self, now: Instant) -> Option<Instant> {
        if self.connections.is_empty() {
            return None;
        }
        let timestamp = self.timestamp(now);
        let delay = self.interface.poll_delay(timestamp, &self.sockets)?;

        Some(now + Duration::from_micros(delay.total_micros()))
    }

    fn add(&mut self, mut socket: Socket<'static>, local: SocketAddr, remote: SocketAddr) -> usize {
        let timeout = time::Duration::from_secs(UNRESPONSIVE.as_secs());
        socket.set_timeout(Some(timeout));
        self.last += 1;
        let connection = Connection {
            handle: self.sockets.add(socket),
            local,
            remote,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
        };
        self.connections.insert(self.last, connection);

        self.last
    }

    fn poll(&mut self, now: Instant) {
        let now = self.timestamp(now);
        self.interface
            .poll(now, &mut self.queues, &mut self.sockets);
    }

    fn timestamp(&self, now: Instant) -> time::Instant {
        let elapsed = now.saturating_duration_since(self.epoch).as_micros();

        time::Instant::from_micros(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }
}

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);

    socket
}

fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(address.ip().into(), address.port())
}

/// Packets on their way in and out.
#[derive(Default)]
struct Queues {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: time::Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.received.pop_front()?;

        Some((Incoming(packet), Outgoing(&mut self.sent)))
    }

    fn transmit(&mut self, _: time::Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MAX_PACKET;

        capabilities
    }
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut packet = vec![0; len];
        let result = fill(&mut packet);
        self.0.push(packet);

        result
    }
}
