//! Nodes with fixed peers on a network without relays, on virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_link::{FixedPeer, Links, NotSent, Packets, PeerId, PrivateKey, Settings};
use connlib_wire::key::PresharedKey;
use uuid::Uuid;

use crate::world::{arrival, packet};

const LATENCY: Duration = Duration::from_millis(10);
const UNIX: Duration = Duration::from_secs(1_800_000_000);

/// What the first byte of a datagram says.
pub const INITIATION: u8 = 1;
pub const RESPONSE: u8 = 2;
pub const COOKIE: u8 = 3;
pub const DATA: u8 = 4;

pub struct Host {
    pub links: Links,
    pub addr: SocketAddr,
    pub received: Vec<Vec<u8>>,
    seed: u8,
}

#[derive(Clone)]
pub struct Sent {
    pub at: Duration,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

pub struct Lan {
    pub start: Instant,
    pub now: Instant,
    pub hosts: Vec<Host>,
    /// Whatever is sent to these addresses is lost.
    pub dark: BTreeSet<SocketAddr>,
    in_flight: BTreeMap<(Instant, usize), Sent>,
    /// All datagrams, as they left.
    pub trace: Vec<Sent>,
}

pub fn key(host: usize) -> PrivateKey {
    PrivateKey::new([u8::try_from(host).unwrap() + 1; 32])
}

pub fn id(host: usize) -> PeerId {
    PeerId(Uuid::from_u128(host as u128))
}

pub fn addr(host: usize) -> SocketAddr {
    format!("192.0.2.{}:51820", host + 1).parse().unwrap()
}

/// The host as another one knows it.
pub fn peer(host: usize) -> FixedPeer {
    FixedPeer {
        public_key: key(host).public_key(),
        preshared_key: Some(PresharedKey::new([9; 32])),
        endpoint: Some(addr(host)),
        keepalive: None,
    }
}

impl Lan {
    /// So many hosts, none of which knows another one.
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    pub fn new(hosts: usize) -> Self {
        let start = Instant::now();
        let mut lan = Self {
            start,
            now: start,
            hosts: Vec::new(),
            dark: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            trace: Vec::new(),
        };
        for number in 0..hosts {
            let seed = u8::try_from(number).unwrap();
            let host = lan.host(number, seed);
            lan.hosts.push(host);
        }

        lan
    }

    /// Two hosts that know each other.
    pub fn pair() -> Self {
        let mut lan = Self::new(2);
        lan.add(0, 1, peer(1));
        lan.add(1, 0, peer(0));

        lan
    }

    /// A pair with a session.
    pub fn connected() -> Self {
        let mut lan = Self::pair();
        lan.send(0, 1, b"first");
        lan.run_for(Duration::from_secs(1));
        assert_eq!(lan.hosts[1].received, [b"first"]);

        lan
    }

    fn host(&self, number: usize, seed: u8) -> Host {
        let unix = UNIX + (self.now - self.start);

        Host {
            links: Links::with_key(self.now, [seed; 32], Settings { unix }, &key(number)),
            addr: addr(number),
            received: Vec::new(),
            seed,
        }
    }

    pub fn add(&mut self, at: usize, other: usize, peer: FixedPeer) {
        let links = &mut self.hosts[at].links;
        links.add_fixed(self.now, id(other), peer).unwrap();
        self.drain();
    }

    /// The host forgets all but its configuration.
    pub fn restart(&mut self, number: usize, other: usize) {
        let seed = self.hosts[number].seed + 100;
        self.hosts[number] = self.host(number, seed);
        self.add(number, other, peer(other));
    }

    pub fn send(&mut self, from: usize, to: usize, payload: &[u8]) {
        match self.try_send(from, to, payload) {
            Ok(()) | Err(NotSent::Waiting) => {}
            Err(why) => panic!("the packet is refused: {why}"),
        }
    }

    pub fn try_send(&mut self, from: usize, to: usize, payload: &[u8]) -> Result<(), NotSent> {
        let links = &mut self.hosts[from].links;
        let result = links.encapsulate(self.now, id(to), &packet(payload));
        self.drain();

        result
    }

    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    fn step(&mut self, end: Instant) -> bool {
        let arrival_at = self.in_flight.keys().next().map(|(at, _)| *at);
        let hosts = self.hosts.iter_mut();
        let timers = hosts.filter_map(|host| host.links.poll_timeout().map(|(at, _)| at));
        let next = timers.chain(arrival_at).min();
        let Some(next) = next.filter(|at| *at < end) else {
            return false;
        };
        self.now = self.now.max(next);
        let now = self.now;
        for host in &mut self.hosts {
            if host.links.poll_timeout().is_some_and(|(at, _)| at <= now) {
                host.links.handle_timeout(now);
            }
        }
        self.drain();
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let sent = entry.remove();
            self.deliver(&sent);
        }

        true
    }

    /// Hands a datagram to whoever has the address.
    pub fn deliver(&mut self, sent: &Sent) {
        let now = self.now;
        for host in self.hosts.iter_mut().filter(|host| host.addr == sent.to) {
            let mut packets = Packets::new();
            let arrival = arrival(sent.from, sent.to, &sent.bytes);
            host.links.handle_arrival(now, &arrival, &mut packets);
            // The headers of the packets are all alike.
            host.received
                .extend(packets.iter().map(|packet| packet[28..].to_vec()));
        }
        self.drain();
    }

    fn drain(&mut self) {
        for number in 0..self.hosts.len() {
            let host = &mut self.hosts[number];
            let mut sent = Vec::new();
            while let Some(transmit) = host.links.poll_transmit() {
                let from = transmit.route.src.unwrap_or(host.addr);
                // A source that is no longer ours: the kernel would refuse it.
                if from != host.addr {
                    continue;
                }
                let datagrams = transmit.datagrams();
                sent.extend(datagrams.map(|bytes| (from, transmit.route.dst, bytes.to_vec())));
            }
            while host.links.poll_event().is_some() {}
            for (from, to, bytes) in sent {
                self.launch(from, to, bytes);
            }
        }
    }

    pub fn launch(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let at = self.now - self.start;
        let sent = Sent {
            at,
            from,
            to,
            bytes,
        };
        if !self.dark.contains(&to) {
            let number = self.trace.len();
            self.in_flight
                .insert((self.now + LATENCY, number), sent.clone());
        }
        self.trace.push(sent);
    }

    /// When datagrams of a kind left from an address.
    pub fn times(&self, kind: u8, from: SocketAddr) -> Vec<Duration> {
        self.trace
            .iter()
            .filter(|sent| sent.bytes[0] == kind && sent.from == from)
            .map(|sent| sent.at)
            .collect()
    }
}
