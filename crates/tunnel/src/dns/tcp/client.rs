//! The asking end: connections to name servers behind the tunnel.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::buffer::Buffer;
use connlib_wire::ip::Packet;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::stack::{Handle, Stack, Standing};
use super::{Frames, framed};
use crate::dns::{ExchangeError, ExchangeId};

/// Carries questions over one connection per server, as many at once as there are (RFC 7766 §6.2.1).
#[derive(Debug)]
pub(crate) struct TcpClient {
    stack: Stack,
    random: StdRng,
    connections: BTreeMap<SocketAddr, Connection>,
    outcomes: VecDeque<(ExchangeId, Result<Vec<u8>, ExchangeError>)>,
    /// Both ends of those that ended lately, ours first: what is still under way is nobody else's.
    ended: VecDeque<(SocketAddr, SocketAddr)>,
}

#[derive(Debug)]
struct Connection {
    handle: Handle,
    local: SocketAddr,
    incoming: Frames,
    outgoing: VecDeque<u8>,
    /// What is asked, by the id that it has on this connection: two askers may have chosen the same.
    waiting: BTreeMap<u16, Waiting>,
    next_id: u16,
    /// Whether it has ever brought an answer.
    is_proven: bool,
    active_at: Instant,
}

#[derive(Debug)]
struct Waiting {
    exchange: ExchangeId,
    /// The question, with its own id.
    message: Vec<u8>,
    until: Instant,
}

/// A connection that nothing is asked on ends after this long (RFC 7766 §6.2.3: seconds).
const IDLE: Duration = Duration::from_secs(10);

/// A server that confirms nothing for that long is gone.
const UNRESPONSIVE: Duration = Duration::from_secs(10);

/// How many connections are remembered that ended (client.md §4.6).
const MAX_ENDED: usize = 32;

/// How many questions wait on one connection.
const MAX_WAITING: usize = 1_024;

/// The ports that connections come from (RFC 6335 §6).
const PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

impl TcpClient {
    pub(crate) fn new(now: Instant, seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);

        Self {
            stack: Stack::new(now, random.random()),
            random,
            connections: BTreeMap::new(),
            outcomes: VecDeque::new(),
            ended: VecDeque::new(),
        }
    }

    /// Asks `server` from the address `from`.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        exchange: ExchangeId,
        (from, server): (IpAddr, SocketAddr),
        message: &[u8],
        within: Duration,
    ) {
        if !self.connections.contains_key(&server) {
            let local = SocketAddr::new(from, self.random.random_range(PORTS));
            let Some(handle) = self.stack.connect(local, server) else {
                return self.fail(exchange, unreachable("it is no address to connect to"));
            };
            let connection = Connection {
                handle,
                local,
                incoming: Frames::default(),
                outgoing: VecDeque::new(),
                waiting: BTreeMap::new(),
                next_id: self.random.random(),
                is_proven: false,
                active_at: now,
            };
            self.connections.insert(server, connection);
        }
        let Some(connection) = self.connections.get_mut(&server) else {
            return;
        };
        let until = now + within;
        if !connection.queue(now, exchange, message, until) {
            self.fail(exchange, ExchangeError::Busy);
        }
        self.work(now);
    }

    /// Whether there are no connections, nor were there any lately.
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.ended.is_empty()
    }

    /// Whether a packet from `remote` to our port belongs to one of the connections, or to one that has ended.
    pub(crate) fn owns(&self, remote: SocketAddr, local: SocketAddr) -> bool {
        self.ended.contains(&(local, remote))
            || self
                .connections
                .get(&remote)
                .is_some_and(|connection| connection.local == local)
    }

    pub(crate) fn handle_packet<T: AsRef<[u8]>>(&mut self, now: Instant, packet: &Packet<T>) {
        if let Some(copy) = self.stack.pool().copy(packet.bytes()) {
            self.stack.handle_packet(copy);
        }
        self.work(now);
    }

    /// The way to a server is closed: an ICMP error says so.
    pub(crate) fn handle_unreachable(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: SocketAddr,
    ) {
        if (self.connections.get(&remote)).is_some_and(|connection| connection.local == local) {
            self.end(
                now,
                remote,
                &unreachable("the network says that it can't be reached"),
            );
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout(now).is_none_or(|at| at > now) {
            return;
        }
        for connection in self.connections.values_mut() {
            let late: Vec<u16> = connection
                .waiting
                .iter()
                .filter(|(_, waiting)| waiting.until <= now)
                .map(|(id, _)| *id)
                .collect();
            for id in late {
                if let Some(waiting) = connection.waiting.remove(&id) {
                    self.outcomes
                        .push_back((waiting.exchange, Err(ExchangeError::TimedOut)));
                }
            }
        }
        self.work(now);
    }

    /// Takes back the questions whose answers nobody wants: what a connection was given it would send until it is confirmed,
    /// so it ends. What else is asked on it is asked by a new one. Whether there were any.
    pub(crate) fn retain(
        &mut self,
        now: Instant,
        mut is_wanted: impl FnMut(ExchangeId) -> bool,
    ) -> bool {
        let mut has_unwanted = |connection: &mut Connection| {
            let before = connection.waiting.len();
            let waiting = &mut connection.waiting;
            waiting.retain(|_, waiting| is_wanted(waiting.exchange));

            waiting.len() < before
        };
        let servers = (self.connections.iter_mut())
            .filter_map(|(server, connection)| has_unwanted(connection).then_some(*server));
        let servers: Vec<_> = servers.collect();
        for server in &servers {
            self.ask_by_another(now, *server);
        }

        !servers.is_empty()
    }

    /// Whether a packet of ours carries what is to be asked no more: its connection has ended.
    pub(crate) fn has_given_up<T: AsRef<[u8]>>(
        &self,
        packet: &Packet<T>,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> bool {
        self.ended.contains(&(local, remote)) && !packet.payload().is_empty()
    }

    /// Ends every connection: what they went through has changed.
    pub(crate) fn reset(&mut self, now: Instant) {
        let servers: Vec<_> = self.connections.keys().copied().collect();
        for server in servers {
            self.end(now, server, &ExchangeError::Interrupted);
        }
    }

    pub(crate) fn poll_outcome(&mut self) -> Option<(ExchangeId, Result<Vec<u8>, ExchangeError>)> {
        self.outcomes.pop_front()
    }

    /// A packet for a server.
    pub(crate) fn poll_packet(&mut self) -> Option<Buffer> {
        self.stack.poll_packet()
    }

    pub(crate) fn has_output(&self) -> bool {
        self.stack.has_packets() || !self.outcomes.is_empty()
    }

    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        if self.connections.is_empty() {
            return None;
        }
        let own = self.connections.values().map(Connection::due_at).min();

        self.stack.poll_timeout(now).into_iter().chain(own).min()
    }

    fn work(&mut self, now: Instant) {
        self.stack.poll(now);
        loop {
            let mut has_moved = false;
            for connection in self.connections.values_mut() {
                has_moved |= connection.exchange(now, &mut self.stack, &mut self.outcomes);
            }
            if !has_moved {
                break;
            }
            self.stack.poll(now);
        }
        let over: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                let is_idle = connection.waiting.is_empty() && now >= connection.due_at();
                let standing = self.stack.standing(connection.handle);
                is_idle || !matches!(standing, Standing::Opening | Standing::Open)
            })
            .map(|(server, _)| *server)
            .collect();
        for server in over {
            self.closed(now, server);
        }
    }

    /// A server may close a connection just when it is asked something (RFC 7766 §6.2.4): it is asked by a new one.
    fn closed(&mut self, now: Instant, server: SocketAddr) {
        let Some(connection) = self.connections.get(&server) else {
            return;
        };
        if connection.is_proven {
            self.ask_by_another(now, server);
        } else {
            self.end(now, server, &unreachable("it closed the connection"));
        }
    }

    /// Ends a connection and asks what waits on it by a new one.
    fn ask_by_another(&mut self, now: Instant, server: SocketAddr) {
        let Some(connection) = self.connections.get_mut(&server) else {
            return;
        };
        let from = connection.local.ip();
        let waiting = std::mem::take(&mut connection.waiting);
        self.end(now, server, &ExchangeError::Interrupted);
        for waiting in waiting.into_values() {
            let within = waiting.until.saturating_duration_since(now);
            self.ask(
                now,
                waiting.exchange,
                (from, server),
                &waiting.message,
                within,
            );
        }
    }

    fn end(&mut self, now: Instant, server: SocketAddr, why: &ExchangeError) {
        let Some(connection) = self.connections.remove(&server) else {
            return;
        };
        self.stack.abort(now, connection.handle);
        self.ended.push_back((connection.local, server));
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_front();
        }
        for waiting in connection.waiting.into_values() {
            self.fail(waiting.exchange, why.clone());
        }
    }

    fn fail(&mut self, exchange: ExchangeId, error: ExchangeError) {
        self.outcomes.push_back((exchange, Err(error)));
    }
}

fn unreachable(why: &str) -> ExchangeError {
    ExchangeError::Unreachable(why.to_owned())
}

impl Connection {
    /// Puts a question into the stream, under an id of its own; false if too many wait.
    fn queue(
        &mut self,
        now: Instant,
        exchange: ExchangeId,
        message: &[u8],
        until: Instant,
    ) -> bool {
        let Some((_, rest)) = message.split_first_chunk::<2>() else {
            return false;
        };
        if self.waiting.len() >= MAX_WAITING {
            return false;
        }
        while self.waiting.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let Some(frame) = framed(&[&id.to_be_bytes(), rest].concat()) else {
            return false;
        };
        self.outgoing.extend(frame);
        self.active_at = now;
        let waiting = Waiting {
            exchange,
            message: message.to_vec(),
            until,
        };
        self.waiting.insert(id, waiting);

        true
    }

    fn exchange(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        outcomes: &mut VecDeque<(ExchangeId, Result<Vec<u8>, ExchangeError>)>,
    ) -> bool {
        let (front, _) = self.outgoing.as_slices();
        let sent = stack.send(self.handle, front);
        self.outgoing.drain(..sent);
        stack.expect_within(self.handle, UNRESPONSIVE);
        let incoming = &mut self.incoming;
        let received = stack.receive(self.handle, |bytes| incoming.extend(bytes));
        while let Some(mut message) = self.incoming.next() {
            let Some(id) = message.first_chunk_mut::<2>() else {
                continue;
            };
            // What nobody waits for any longer is ignored, and so is what nobody asked.
            if let Some(waiting) = self.waiting.remove(&u16::from_be_bytes(*id)) {
                *id = waiting.message.first_chunk().copied().unwrap_or_default();
                self.is_proven = true;
                self.active_at = now;
                outcomes.push_back((waiting.exchange, Ok(message)));
            }
        }

        sent > 0 || received > 0
    }

    /// When something of it is due: the end of a question, or its own.
    fn due_at(&self) -> Instant {
        let first = self.waiting.values().map(|waiting| waiting.until).min();

        first.unwrap_or(self.active_at + IDLE)
    }
}
