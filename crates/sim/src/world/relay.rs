//! The relay's host: the shipped server, and sockets that are only numbers.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_os::fake::FakeTrain;
use connlib_relay::{
    AllocationPort, Command, Config, Credentials, LoopbackPeers, Server, Verdict, Via, runs,
};
use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::secret::Secret;
use connlib_wire::stun::Family;
use connlib_wire::train::Arrival;

use crate::portal::RELAY_SECRET;

/// Where the relay listens.
pub(super) const PORT: u16 = 3_478;

pub(super) struct RelayHost {
    server: Server,
    addr: SocketAddr,
    open: BTreeSet<u16>,
    sent: VecDeque<Sent>,
}

/// A train that leaves the relay.
pub(super) struct Sent {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ecn: Ecn,
    pub(super) datagrams: Vec<Vec<u8>>,
}

impl RelayHost {
    pub(super) fn new(addr: SocketAddr, seed: [u8; 32]) -> Self {
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
        };

        Self {
            server: Server::new(config, seed, Pool::new(2_048, 64)),
            addr,
            open: BTreeSet::new(),
            sent: VecDeque::new(),
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.server.poll_timeout().map(|(at, _)| at)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
    }

    pub(super) fn receive(&mut self, now: Instant, unix: Duration, train: &FakeTrain) {
        let whole = Arrival {
            from: train.from,
            to: train.to,
            ecn: train.ecn,
            stride: train.stride,
            bytes: &train.bytes,
        };
        let mut arrivals = vec![whole];
        while let Some(arrival) = arrivals.pop() {
            let port = arrival.to.port();
            let verdict = if port == self.addr.port() {
                self.server.handle_client(now, unix, &arrival)
            } else if self.open.contains(&port) {
                self.server.handle_peer(now, AllocationPort(port), &arrival)
            } else {
                continue;
            };
            match verdict {
                Verdict::Mixed => {
                    arrivals.extend(runs(&arrival).collect::<Vec<_>>().into_iter().rev())
                }
                Verdict::Forward(forward) => {
                    let from = match forward.via {
                        Via::Listen(_) => self.addr,
                        Via::Allocation(port, _) => SocketAddr::new(self.addr.ip(), port.0),
                    };
                    let datagrams = forward.payloads(&arrival).map(|payload| {
                        let header = forward.header(payload);
                        [header.as_ref().map_or(&[][..], |header| header), payload].concat()
                    });
                    self.sent.push_back(Sent {
                        from,
                        to: forward.to,
                        ecn: forward.ecn,
                        datagrams: datagrams.collect(),
                    });
                }
                Verdict::Handled | Verdict::Drop(_) => {}
            }
        }
    }

    /// What leaves now: forwarded data and answers.
    pub(super) fn take_sent(&mut self, now: Instant) -> Vec<Sent> {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::OpenPort { port, family } if family == Family::of(self.addr) => {
                    self.open.insert(port.0);
                    self.server.handle_port_opened(now, port, family);
                }
                Command::OpenPort { port, family } => {
                    self.server.handle_port_failed(now, port, family)
                }
                Command::ClosePort { port, .. } => {
                    self.open.remove(&port.0);
                }
            }
        }
        while let Some(transmit) = self.server.poll_transmit() {
            self.sent.push_back(Sent {
                from: self.addr,
                to: transmit.route.dst,
                ecn: transmit.route.ecn,
                datagrams: transmit.datagrams().map(<[u8]>::to_vec).collect(),
            });
        }

        self.sent.drain(..).collect()
    }
}
