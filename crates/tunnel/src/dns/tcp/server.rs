//! The answering end: a name server's TCP.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::buffer::Buffer;
use connlib_wire::ip::Packet;

use super::stack::{Handle, Stack, Standing};
use super::{Frames, framed};

/// Takes questions and gives answers on one port of many addresses.
#[derive(Debug)]
pub(crate) struct TcpServer {
    stack: Stack,
    connections: BTreeMap<ConnectionId, Connection>,
    queries: VecDeque<(ConnectionId, Vec<u8>)>,
}

/// Both ends of a connection, the server's first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct ConnectionId {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

#[derive(Debug)]
struct Connection {
    handle: Handle,
    incoming: Frames,
    outgoing: VecDeque<u8>,
    /// Questions without an answer yet.
    unanswered: usize,
    /// When it was last asked something, or took any part of an answer.
    active_at: Instant,
    /// Whether it is being ended, and only what was sent is still to be confirmed.
    is_closing: bool,
}

/// How a connection goes on.
enum Next {
    /// As before.
    Stays,
    /// It is of no use any more, and told so when all that was sent has come.
    Closes,
    /// It ends now.
    Ends,
}

/// How many connections one program may have to one address: the eleventh is refused (client.md §4.7).
const MAX_PER_PAIR: usize = 10;

/// How many there are in all.
const MAX_CONNECTIONS: usize = 256;

/// How many questions of one connection are answered at once; more wait in the stream.
const MAX_UNANSWERED: usize = 32;

/// How many bytes may wait to be sent before another question is read: the asker has to read, too.
const MAX_OUTGOING: usize = 64 * 1024;

/// How many bytes may wait to be sent on all connections together: an asker who leaves that much to the rest, and has more
/// waiting than others may, is not worth it.
const MAX_OUTGOING_IN_ALL: usize = 16 * 1024 * 1024;

/// A connection without questions ends after this long (RFC 7766 §6.2.3: seconds), and so does one whose asker takes nothing of
/// the answers.
const IDLE: Duration = Duration::from_secs(10);

/// A peer that confirms nothing for that long is gone.
const UNRESPONSIVE: Duration = Duration::from_secs(10);

impl TcpServer {
    pub(crate) fn new(now: Instant, seed: u64) -> Self {
        Self {
            stack: Stack::new(now, seed),
            connections: BTreeMap::new(),
            queries: VecDeque::new(),
        }
    }

    /// Takes a TCP packet for the server.
    pub(crate) fn handle_packet<T: AsRef<[u8]>>(&mut self, now: Instant, packet: &Packet<T>) {
        let (Some(local), Some(remote)) = (packet.destination_port(), packet.source_port()) else {
            return;
        };
        let id = ConnectionId {
            local: (packet.destination(), local).into(),
            remote: (packet.source(), remote).into(),
        };
        let is_first = packet
            .tcp_flags()
            .is_some_and(|flags| flags.is_syn() && !flags.is_ack());
        let is_new = is_first && !self.connections.contains_key(&id);
        if is_new
            && self.has_room(id)
            && let Some(handle) = self.stack.listen(id.local)
        {
            let connection = Connection {
                handle,
                incoming: Frames::default(),
                outgoing: VecDeque::new(),
                unanswered: 0,
                active_at: now,
                is_closing: false,
            };
            self.connections.insert(id, connection);
        }
        // Without somebody who listens the stack refuses it; and whoever listens only does so for this packet: the next first
        // one is perhaps somebody else's.
        if let Some(copy) = self.stack.pool().copy(packet.bytes()) {
            self.stack.handle_packet(copy);
        }
        self.work(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout(now).is_some_and(|at| at <= now) {
            self.work(now);
        }
    }

    /// A question that has come in.
    pub(crate) fn poll_query(&mut self) -> Option<(ConnectionId, Vec<u8>)> {
        self.queries.pop_front()
    }

    /// Answers a question. The asker may be gone.
    pub(crate) fn answer(&mut self, now: Instant, id: ConnectionId, message: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.unanswered = connection.unanswered.saturating_sub(1);
        connection.active_at = now;
        connection
            .outgoing
            .extend(framed(message).unwrap_or_default());
        if connection.outgoing.len() > MAX_OUTGOING {
            let waiting = self.connections.values().map(|other| other.outgoing.len());
            if waiting.sum::<usize>() > MAX_OUTGOING_IN_ALL {
                self.abort(now, id);
            }
        }
        self.work(now);
    }

    /// Ends a connection whose asker makes no sense.
    pub(crate) fn abort(&mut self, now: Instant, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            self.stack.abort(now, connection.handle);
        }
    }

    /// Ends all connections to addresses that are no longer the server's.
    pub(crate) fn retain(&mut self, now: Instant, is_ours: impl Fn(IpAddr) -> bool) {
        let gone: Vec<_> = self
            .connections
            .keys()
            .filter(|id| !is_ours(id.local.ip()))
            .copied()
            .collect();
        for id in gone {
            self.abort(now, id);
        }
    }

    /// A packet for whoever asked.
    pub(crate) fn poll_packet(&mut self) -> Option<Buffer> {
        self.stack.poll_packet()
    }

    pub(crate) fn has_output(&self) -> bool {
        self.stack.has_packets() || !self.queries.is_empty()
    }

    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        if self.connections.is_empty() {
            return None;
        }
        let idle = self
            .connections
            .values()
            .filter(|connection| connection.unanswered == 0 && !connection.is_closing)
            .map(|connection| connection.active_at + IDLE)
            .min();

        self.stack.poll_timeout(now).into_iter().chain(idle).min()
    }

    fn has_room(&self, new: ConnectionId) -> bool {
        let same_pair =
            |id: &&ConnectionId| (id.local, id.remote.ip()) == (new.local, new.remote.ip());

        self.connections.len() < MAX_CONNECTIONS
            && self.connections.keys().filter(same_pair).count() < MAX_PER_PAIR
    }

    /// Moves bytes between connections and the stack until none moves any more.
    fn work(&mut self, now: Instant) {
        self.stack.poll(now);
        loop {
            let mut has_moved = false;
            for (id, connection) in &mut self.connections {
                has_moved |= connection.exchange(now, *id, &mut self.stack, &mut self.queries);
            }
            if !has_moved {
                break;
            }
            self.stack.poll(now);
        }
        let mut ended = Vec::new();
        let mut has_closed = false;
        for (id, connection) in &mut self.connections {
            match connection.next(now, &self.stack) {
                Next::Stays => {}
                Next::Closes => {
                    self.stack.close(connection.handle);
                    self.stack.expect_within(connection.handle, UNRESPONSIVE);
                    connection.is_closing = true;
                    has_closed = true;
                }
                Next::Ends => ended.push(*id),
            }
        }
        for id in ended {
            let Some(connection) = self.connections.remove(&id) else {
                continue;
            };
            if self.stack.standing(connection.handle) == Standing::Closed {
                self.stack.remove(connection.handle);
            } else {
                self.stack.abort(now, connection.handle);
            }
        }
        if has_closed {
            self.stack.poll(now);
        }
    }
}

impl Connection {
    fn exchange(
        &mut self,
        now: Instant,
        id: ConnectionId,
        stack: &mut Stack,
        queries: &mut VecDeque<(ConnectionId, Vec<u8>)>,
    ) -> bool {
        if self.is_closing {
            return false;
        }
        let (front, _) = self.outgoing.as_slices();
        let sent = stack.send(self.handle, front);
        self.outgoing.drain(..sent);
        if sent > 0 {
            self.active_at = now;
        }
        stack.expect_within(self.handle, UNRESPONSIVE);

        let mut received = 0;
        while self.unanswered < MAX_UNANSWERED && self.outgoing.len() < MAX_OUTGOING {
            if let Some(message) = self.incoming.next() {
                self.unanswered += 1;
                self.active_at = now;
                queries.push_back((id, message));
                continue;
            }
            let incoming = &mut self.incoming;
            match stack.receive(self.handle, |bytes| incoming.extend(bytes)) {
                0 => break,
                count => received += count,
            }
        }

        sent > 0 || received > 0
    }

    fn next(&self, now: Instant, stack: &Stack) -> Next {
        let is_done = self.unanswered == 0 && self.outgoing.is_empty();
        let is_idle = self.unanswered == 0 && now >= self.active_at + IDLE;

        match stack.standing(self.handle) {
            Standing::Closed => Next::Ends,
            Standing::Closing => Next::Stays,
            // What was asked is answered first; half a question is worth nothing.
            Standing::HalfClosed if is_done => Next::Closes,
            Standing::Open if is_done && is_idle => Next::Closes,
            // Nobody takes the answers.
            Standing::Opening | Standing::Open | Standing::HalfClosed if is_idle => Next::Ends,
            Standing::Opening | Standing::Open | Standing::HalfClosed => Next::Stays,
        }
    }
}
