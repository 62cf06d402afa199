//! Asking name servers that are reached through the tunnel: our own UDP and TCP, as packets (client.md §4.6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::dns::is_answer_to;
use connlib_wire::ip::{self, Packet, PortsOrId, Transport};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::tcp::TcpClient;
use super::{Carrier, Exchange, ExchangeError, ExchangeId};

/// Carries exchanges from our own address.
#[derive(Debug)]
pub(crate) struct Inside {
    random: StdRng,
    tcp: TcpClient,
    /// Who waits at which port.
    udp: BTreeMap<u16, Waiting>,
    /// When each of them ends, and the port is forgotten.
    ends: BTreeSet<(Instant, u16)>,
    pool: Pool,
    packets: VecDeque<Buffer>,
    outcomes: VecDeque<(ExchangeId, Result<Vec<u8>, ExchangeError>)>,
}

#[derive(Debug)]
struct Waiting {
    /// `None` once it has its outcome: what comes then is swallowed, the programs here have nothing to do with it.
    exchange: Option<ExchangeId>,
    server: SocketAddr,
    message: Vec<u8>,
    ends_at: Instant,
}

/// How many ports are waited at, or remembered.
const MAX_PORTS: usize = 1_024;

/// How long a port is remembered once nobody waits there.
const SWALLOW_FOR: Duration = Duration::from_secs(30);

/// The ports that questions come from (RFC 6335 §6).
const PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

impl Inside {
    pub(crate) fn new(now: Instant, seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);

        Self {
            tcp: TcpClient::new(now, random.random()),
            random,
            udp: BTreeMap::new(),
            ends: BTreeSet::new(),
            pool: Pool::new(MAX_PACKET, 64),
            packets: VecDeque::new(),
            outcomes: VecDeque::new(),
        }
    }

    /// Carries `exchange` to `server`, from that of our addresses that is of its family.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        exchange: Exchange,
        server: SocketAddr,
        (ipv4, ipv6): (Ipv4Addr, Ipv6Addr),
    ) {
        let from: IpAddr = match server {
            SocketAddr::V4(_) => ipv4.into(),
            SocketAddr::V6(_) => ipv6.into(),
        };
        let (id, within) = (exchange.id, exchange.within);
        if exchange.carrier == Carrier::Tcp {
            return self
                .tcp
                .ask(now, id, (from, server), &exchange.message, within);
        }
        let Some(port) = self.free_port() else {
            return self.outcomes.push_back((id, Err(ExchangeError::Busy)));
        };
        let Some(packet) = ip::udp(&self.pool, (from, port).into(), server, &exchange.message)
        else {
            return self.outcomes.push_back((id, Err(ExchangeError::Busy)));
        };
        self.packets.push_back(packet.into_inner());
        let waiting = Waiting {
            exchange: Some(id),
            server,
            message: exchange.message,
            ends_at: now + within,
        };
        self.ends.insert((waiting.ends_at, port));
        self.udp.insert(port, waiting);
    }

    /// Whether a packet of the tunnel, for our own address, is an answer to one of ours, or an error about it. Such a packet
    /// is dealt with here.
    pub(crate) fn handle_packet<T: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        packet: &Packet<T>,
    ) -> bool {
        if self.udp.is_empty() && self.tcp.is_empty() {
            return false;
        }
        if packet.is_icmp_error() {
            return self.handle_icmp_error(now, packet);
        }
        let (Some(to), Some(from)) = (packet.destination_port(), packet.source_port()) else {
            return false;
        };
        let remote = SocketAddr::new(packet.source(), from);
        match packet.transport() {
            Transport::Tcp => {
                let local = SocketAddr::new(packet.destination(), to);
                if !self.tcp.owns(remote, local) {
                    return false;
                }
                self.tcp.handle_packet(now, packet);

                true
            }
            Transport::Udp => {
                let Some(waiting) = self.udp.get_mut(&to).filter(|it| it.server == remote) else {
                    return false;
                };
                if let Some(exchange) = waiting.exchange
                    && is_answer_to(&waiting.message, packet.payload())
                {
                    waiting.exchange = None;
                    let answer = Ok(packet.payload().to_vec());
                    self.outcomes.push_back((exchange, answer));
                    self.swallow(now, to);
                }

                true
            }
            Transport::Icmp | Transport::Other(_) => false,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, port)) = self.ends.first().copied() {
            if at > now {
                break;
            }
            self.ends.remove(&(at, port));
            let exchange = match self.udp.get_mut(&port) {
                Some(waiting) => waiting.exchange.take(),
                None => continue,
            };
            match exchange {
                Some(exchange) => {
                    self.outcomes
                        .push_back((exchange, Err(ExchangeError::TimedOut)));
                    self.swallow(now, port);
                }
                None => {
                    self.udp.remove(&port);
                }
            }
        }
        self.tcp.handle_timeout(now);
    }

    /// Takes back the exchanges whose outcome nobody wants, so that what of them hasn't left yet never does. Whether there were
    /// any.
    pub(crate) fn retain(
        &mut self,
        now: Instant,
        mut is_wanted: impl FnMut(ExchangeId) -> bool,
    ) -> bool {
        let has_unwanted = |(port, waiting): (&u16, &Waiting)| {
            let exchange = waiting.exchange?;

            (!is_wanted(exchange)).then_some(*port)
        };
        let ports: Vec<u16> = self.udp.iter().filter_map(has_unwanted).collect();
        for port in &ports {
            if let Some(waiting) = self.udp.get_mut(port) {
                waiting.exchange = None;
            }
            self.swallow(now, *port);
        }

        self.tcp.retain(now, is_wanted) || !ports.is_empty()
    }

    /// Whether a packet is a question of ours that was taken back.
    pub(crate) fn has_given_up<T: AsRef<[u8]>>(&self, packet: &Packet<T>) -> bool {
        let (Some(from), Some(to)) = (packet.source_port(), packet.destination_port()) else {
            return false;
        };
        let local = SocketAddr::new(packet.source(), from);
        let remote = SocketAddr::new(packet.destination(), to);
        match packet.transport() {
            Transport::Udp => (self.udp.get(&from))
                .is_some_and(|waiting| waiting.server == remote && waiting.exchange.is_none()),
            Transport::Tcp => self.tcp.has_given_up(packet, local, remote),
            Transport::Icmp | Transport::Other(_) => false,
        }
    }

    /// Gives everything up: what it went through has changed. Answers that are under way are swallowed still.
    pub(crate) fn reset(&mut self, now: Instant) {
        let ports: Vec<u16> = self.udp.keys().copied().collect();
        for port in ports {
            let waiting = self.udp.get_mut(&port);
            if let Some(id) = waiting.and_then(|waiting| waiting.exchange.take()) {
                self.outcomes
                    .push_back((id, Err(ExchangeError::Interrupted)));
                self.swallow(now, port);
            }
        }
        self.packets.clear();
        self.tcp.reset(now);
    }

    pub(crate) fn poll_outcome(&mut self) -> Option<(ExchangeId, Result<Vec<u8>, ExchangeError>)> {
        self.outcomes
            .pop_front()
            .or_else(|| self.tcp.poll_outcome())
    }

    /// A packet for a server, to be routed like any other.
    pub(crate) fn poll_packet(&mut self) -> Option<Buffer> {
        self.packets.pop_front().or_else(|| self.tcp.poll_packet())
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.packets.is_empty() || !self.outcomes.is_empty() || self.tcp.has_output()
    }

    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let udp = self.ends.first().map(|(at, _)| *at);

        udp.into_iter().chain(self.tcp.poll_timeout(now)).min()
    }

    fn handle_icmp_error<T: AsRef<[u8]>>(&mut self, now: Instant, packet: &Packet<T>) -> bool {
        let Some(quoted) = packet.quoted() else {
            return false;
        };
        let PortsOrId::Ports {
            source: local,
            destination: remote,
        } = quoted.ports_or_id
        else {
            return false;
        };
        let server = SocketAddr::new(quoted.destination, remote);
        match quoted.transport {
            Transport::Udp => {
                let Some(waiting) = self.udp.get_mut(&local).filter(|it| it.server == server)
                else {
                    return false;
                };
                if let Some(exchange) = waiting.exchange.take() {
                    let error = "the network says that it can't be reached".to_owned();
                    let error = ExchangeError::Unreachable(error);
                    self.outcomes.push_back((exchange, Err(error)));
                    self.swallow(now, local);
                }

                true
            }
            Transport::Tcp => {
                let local = SocketAddr::new(quoted.source, local);
                if !self.tcp.owns(server, local) {
                    return false;
                }
                self.tcp.handle_unreachable(now, server, local);

                true
            }
            Transport::Icmp | Transport::Other(_) => false,
        }
    }

    /// Remembers a port for a while after its question.
    fn swallow(&mut self, now: Instant, port: u16) {
        if let Some(waiting) = self.udp.get_mut(&port) {
            self.ends.remove(&(waiting.ends_at, port));
            waiting.message = Vec::new();
            waiting.ends_at = now + SWALLOW_FOR;
            self.ends.insert((waiting.ends_at, port));
        }
    }

    /// A port that nobody waits at. If all are taken, the one that is only remembered and ends first.
    fn free_port(&mut self) -> Option<u16> {
        if self.udp.len() >= MAX_PORTS {
            let is_over = |port: &u16| {
                let waiting = self.udp.get(port);
                waiting.is_some_and(|waiting| waiting.exchange.is_none())
            };
            let (at, port) = self.ends.iter().find(|(_, port)| is_over(port)).copied()?;
            self.ends.remove(&(at, port));
            self.udp.remove(&port);
        }
        loop {
            let port = self.random.random_range(PORTS);
            if !self.udp.contains_key(&port) {
                return Some(port);
            }
        }
    }
}

#[cfg(test)]
mod tests;
