//! What strangers do to a relay: some have no credentials, one has some of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use connlib_wire::buffer::Pool;
use connlib_wire::channel;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{
    Attribute, Builder, Class, Key, Message, Method, TransactionId, relay_password,
};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::super::World;
use super::super::host::Role;
use super::garbage;
use crate::oracle::{INSIDER, OUTSIDER};
use crate::relay::PORT;

/// The realm of relays.
const REALM: &str = "firezone";

/// How many sockets the one with credentials uses.
const SOCKETS: u16 = 6;

/// How large the datagrams of a flood are: as large as most of those in a bulk transfer.
const LARGE: usize = 1_200;

/// A datagram to a relay, and where it says it is from.
type Sent = (SocketAddr, SocketAddr, Vec<u8>);

/// What strangers know of a relay.
struct Scene<'a> {
    relay: SocketAddr,
    secret: &'a Secret,
    expiry: u64,
    /// What hosts of the world sent to it.
    heard: Vec<&'a super::Datagram>,
    nonces: &'a super::Nonces,
    /// Somebody whom a relay would send data to.
    victim: SocketAddr,
}

impl World {
    /// Anything that isn't allowed, and some that is.
    pub(super) fn attack_relay(&mut self, host: usize, count: u32) {
        self.with_relay(host, |scene, rng| {
            (0..count).filter_map(|_| scene.any(rng)).collect()
        });
    }

    /// Somebody with credentials and a channel of its own sends more through it than the relay can serve, all at once. Each
    /// time it first does what it takes to have the channel.
    pub(super) fn flood_relay(&mut self, host: usize, count: u32) {
        self.with_relay(host, |scene, rng| {
            let from = insider(0);
            let mut sent = vec![scene.asks(rng, from, Method::Allocate)];
            if scene.nonces.contains_key(&from) {
                sent.push(scene.asks(rng, from, Method::ChannelBind));
            }
            let data = (0..count).map(|_| {
                let mut payload = vec![0; LARGE];
                rng.fill_bytes(&mut payload);
                (from, scene.relay, framed(0x4000, &payload))
            });
            sent.extend(data);
            sent
        });
    }

    fn with_relay(&mut self, host: usize, act: impl FnOnce(&Scene<'_>, &mut StdRng) -> Vec<Sent>) {
        let Some(relay) = self.network.place(host).and_then(|place| place.ip4) else {
            return;
        };
        let Some(entry) = self.hosts.get(host) else {
            return;
        };
        if !matches!(entry.role, Role::Relay(_)) {
            return;
        }
        let others = 0..self.hosts.len();
        let victim = others
            .filter_map(|other| self.network.place(other))
            .filter(|place| place.behind.is_none())
            .find_map(|place| place.ip4.filter(|ip| *ip != relay));
        let heard = self.overheard.datagrams.iter();
        let scene = Scene {
            relay: (relay, PORT).into(),
            secret: &entry.secret,
            expiry: (self.unix() + Duration::from_secs(24 * 60 * 60)).as_secs(),
            heard: heard.filter(|(_, to, _)| to.ip() == relay).collect(),
            nonces: &self.overheard.nonces,
            victim: (victim.unwrap_or(relay), 52_625).into(),
        };
        for (from, to, bytes) in act(&scene, &mut self.rng) {
            self.network
                .inject(self.now, (from, to), &bytes, &mut self.deliveries);
        }
        self.deliver();
    }
}

impl Scene<'_> {
    fn any(&self, rng: &mut StdRng) -> Option<Sent> {
        let outsider = socket(OUTSIDER, rng.random_range(1..u16::MAX));
        let own = insider(rng.random_range(0..SOCKETS));

        Some(match rng.random_range(0..12) {
            // In the name of addresses that nobody has, and of its own.
            0 => (anybody(rng), self.relay, bare(rng, Method::Binding)),
            1 => (anybody(rng), self.relay, bare(rng, Method::Allocate)),
            2 => (outsider, self.relay, bare(rng, Method::Allocate)),
            // What others sent, from elsewhere: requests that were good, data under their channels.
            3 | 4 => {
                let (_, to, bytes) = self.heard_of(rng, |_| true)?;
                (outsider, *to, bytes.clone())
            }
            // Under the channel of somebody whose socket it knows, from its own.
            5 => {
                let (.., bytes) = self.heard_of(rng, |bytes| channel::decode(bytes).is_some())?;
                (own, self.relay, bytes.clone())
            }
            // Good credentials, and the nonce of another socket.
            6 => {
                let nonce = self.nonces.values().next()?;
                let method = [Method::Allocate, Method::Refresh][rng.random_range(0..2)];
                (outsider, self.relay, self.signed(rng, method, Some(nonce)))
            }
            // Data to ports that are lent.
            7 => {
                let (_, to, _) = self.heard_of(rng, |_| true)?;
                let port = match to.port() {
                    PORT => rng.random_range(49_152..=u16::MAX),
                    lent => lent,
                };
                (outsider, (self.relay.ip(), port).into(), garbage(rng))
            }
            8 => (outsider, self.relay, garbage(rng)),
            // One user on many sockets: only the last one keeps an allocation.
            9 => self.asks(rng, own, Method::Allocate),
            10 => self.asks(rng, own, Method::ChannelBind),
            _ => (own, self.relay, framed(0x4000, &garbage(rng))),
        })
    }

    /// A datagram that a host of the world sent to the relay.
    fn heard_of(&self, rng: &mut StdRng, suits: fn(&[u8]) -> bool) -> Option<&super::Datagram> {
        let start = rng.random_range(0..self.heard.len().max(1));
        let (before, after) = self.heard.split_at_checked(start)?;
        let mut all = after.iter().chain(before);

        all.find(|(.., bytes)| suits(bytes)).copied()
    }

    /// A request of who has credentials, as good as it can be by now.
    fn asks(&self, rng: &mut StdRng, from: SocketAddr, method: Method) -> Sent {
        let nonce = self.nonces.get(&from).map(String::as_str);

        (from, self.relay, self.signed(rng, method, nonce))
    }

    fn signed(&self, rng: &mut StdRng, method: Method, nonce: Option<&str>) -> Vec<u8> {
        let name = format!("{}:mallory", self.expiry);
        let password = relay_password(self.expiry, "mallory", self.secret);
        let key = Key::long_term(&name, REALM, &password);
        let builder = begun(rng, method)
            .attribute(Attribute::Username(&name))
            .attribute(Attribute::Realm(REALM))
            .maybe(nonce.map(Attribute::Nonce));
        let is_bind = method == Method::ChannelBind;
        let builder = builder
            .maybe(is_bind.then_some(Attribute::ChannelNumber(0x4000)))
            .maybe(is_bind.then_some(Attribute::XorPeerAddress(self.victim)));
        let request = builder.integrity(key.expose()).finish();

        request.map(|bytes| bytes.to_vec()).unwrap_or_default()
    }
}

/// The nonce in an answer.
pub(super) fn nonce_in(datagram: &[u8]) -> Option<String> {
    Message::parse(datagram).ok()?.nonce().map(str::to_owned)
}

fn begun(rng: &mut StdRng, method: Method) -> Builder {
    let id = TransactionId(rng.random());
    let transport = (method == Method::Allocate).then_some(Attribute::RequestedTransport(17));

    Builder::new(Pool::new(2_048, 1).take(0), method, Class::Request, id).maybe(transport)
}

fn bare(rng: &mut StdRng, method: Method) -> Vec<u8> {
    let request = begun(rng, method).finish();

    request.map(|bytes| bytes.to_vec()).unwrap_or_default()
}

fn framed(number: u16, payload: &[u8]) -> Vec<u8> {
    let number = channel::ChannelNumber::new(number);
    let header = number.and_then(|number| channel::header(number, payload.len()));

    [&header.unwrap_or_default(), payload].concat()
}

/// An address that no host of any world has (RFC 2544).
fn anybody(rng: &mut StdRng) -> SocketAddr {
    let [a, b]: [u8; 2] = rng.random();

    (
        Ipv4Addr::new(198, 19, a, b),
        rng.random_range(1_024..u16::MAX),
    )
        .into()
}

fn insider(number: u16) -> SocketAddr {
    socket(INSIDER, 6_660 + number)
}

fn socket(ip: &str, port: u16) -> SocketAddr {
    let ip = ip.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);

    (ip, port).into()
}
