//! A name server made of packets: one port of any address, UDP and TCP.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::dns::{MAX_MESSAGE, Query};
use connlib_wire::ip::{self, Packet, Transport};

use super::Carrier;
use super::tcp::{ConnectionId, TcpServer};

/// Takes questions and gives answers.
#[derive(Debug)]
pub(crate) struct Listener {
    port: u16,
    tcp: TcpServer,
    pool: Pool,
    packets: VecDeque<Buffer>,
    queries: VecDeque<(Asker, Query)>,
}

/// Whoever asks, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Asker {
    Udp { from: SocketAddr, at: SocketAddr },
    Tcp(ConnectionId),
}

impl Asker {
    /// The address that was asked.
    pub(crate) fn at(&self) -> IpAddr {
        match self {
            Self::Udp { at, .. } => at.ip(),
            Self::Tcp(id) => id.local.ip(),
        }
    }

    /// The address that the question came from.
    pub(crate) fn from(&self) -> IpAddr {
        match self {
            Self::Udp { from, .. } => from.ip(),
            Self::Tcp(id) => id.remote.ip(),
        }
    }

    pub(crate) fn carrier(&self) -> Carrier {
        match self {
            Self::Udp { .. } => Carrier::Udp,
            Self::Tcp(_) => Carrier::Tcp,
        }
    }

    /// The most bytes of an answer to `query`.
    pub(crate) fn max_answer(&self, query: &Query) -> usize {
        match self {
            Self::Udp { .. } => query.max_udp_answer(),
            Self::Tcp(_) => MAX_MESSAGE,
        }
    }
}

impl Listener {
    pub(crate) fn new(now: Instant, seed: u64, port: u16) -> Self {
        Self {
            port,
            tcp: TcpServer::new(now, seed),
            pool: Pool::new(MAX_PACKET, 256),
            packets: VecDeque::new(),
            queries: VecDeque::new(),
        }
    }

    /// Takes a packet for the server's address. What isn't for its port, and what is no question, is ignored: nobody could
    /// tell whom an answer would be for.
    pub(crate) fn handle_packet<T: AsRef<[u8]>>(&mut self, now: Instant, packet: &Packet<T>) {
        let (Some(to), Some(from)) = (packet.destination_port(), packet.source_port()) else {
            return;
        };
        if to != self.port {
            return;
        }
        match packet.transport() {
            Transport::Udp => {
                if let Ok(query) = Query::parse(packet.payload()) {
                    let asker = Asker::Udp {
                        from: (packet.source(), from).into(),
                        at: (packet.destination(), to).into(),
                    };
                    self.queries.push_back((asker, query));
                }
            }
            Transport::Tcp => {
                self.tcp.handle_packet(now, packet);
                self.hear_tcp(now);
            }
            Transport::Icmp | Transport::Other(_) => {}
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.tcp.handle_timeout(now);
        self.hear_tcp(now);
    }

    /// A question to be answered.
    pub(crate) fn poll_query(&mut self) -> Option<(Asker, Query)> {
        self.queries.pop_front()
    }

    /// Answers a question, from the very address that was asked.
    pub(crate) fn answer(&mut self, now: Instant, asker: Asker, message: &[u8]) {
        match asker {
            Asker::Udp { from, at } => {
                let packet = ip::udp(&self.pool, at, from, message);
                self.packets.extend(packet.map(Packet::into_inner));
            }
            Asker::Tcp(id) => {
                self.tcp.answer(now, id, message);
                self.hear_tcp(now);
            }
        }
    }

    /// Ends the connections to addresses that are no longer the server's.
    pub(crate) fn retain(&mut self, now: Instant, is_ours: impl Fn(IpAddr) -> bool) {
        self.tcp.retain(now, is_ours);
    }

    /// A packet for an asker.
    pub(crate) fn poll_packet(&mut self) -> Option<Buffer> {
        self.packets.pop_front().or_else(|| self.tcp.poll_packet())
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.packets.is_empty() || !self.queries.is_empty() || self.tcp.has_output()
    }

    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        self.tcp.poll_timeout(now)
    }

    fn hear_tcp(&mut self, now: Instant) {
        while let Some((id, message)) = self.tcp.poll_query() {
            match Query::parse(&message) {
                Ok(query) => self.queries.push_back((Asker::Tcp(id), query)),
                // Whatever follows in that stream can't be trusted to be in step.
                Err(_) => self.tcp.abort(now, id),
            }
        }
    }
}
