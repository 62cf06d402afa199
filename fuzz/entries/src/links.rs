//! A node with a live peer and a live relay, and whatever else may arrive.
//!
//! Bytes decide what happens next: datagrams of any contents from anywhere to any of the node's sockets, recorded ones
//! with changes, forged checks, candidates, packets, time with and without a network. Then
//!
//! * nothing goes to a stranger that isn't paid for by what came from there: no amplification;
//! * what comes out of the tunnel was put into it by the peer, once;
//! * after time has passed, all that was due is done, and the next instant lies in the future;
//! * peers and relays are no more than we were told of;
//! * a link that only strangers meddled with works as before.

mod world;

use std::net::SocketAddr;
use std::time::Duration;

use connlib_link::{NotSent, RelayServer};
use connlib_wire::buffer::Pool;
use connlib_wire::id::RelayId;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Attribute, Builder, Class, Method, TransactionId};
use uuid::Uuid;

use crate::choices::Choices;
use world::{Network, PEER, PEER_ADDR, RELAY_ADDR, World};

/// More steps than that only take longer.
const MAX_STEPS: usize = 48;

/// Addresses that nobody was told of.
const STRANGERS: [&str; 3] = ["198.51.100.99:9", "203.0.113.9:9", "[2001:db8::99]:9"];

/// Where datagrams arrive: at the node's sockets, and at addresses that it may or may not have.
const SOCKETS: [&str; 4] = [
    world::OUR_ADDR,
    "[2001:db8::7]:52625",
    "10.0.0.7:52625",
    "127.0.0.1:52625",
];

/// What is done, as bytes say.
pub fn links(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut scene = Scene {
        world: World::connected(choices.byte()),
        is_meddled_with: false,
    };
    for _ in 0..MAX_STEPS {
        if choices.is_over() {
            break;
        }
        scene.step(&mut choices);
        scene.world.check();
    }

    if !scene.is_meddled_with {
        scene.world.still_works();
    }
}

struct Scene {
    world: World,
    /// Something was done that only the portal, the owner, the relay, the peer or the network can do.
    is_meddled_with: bool,
}

impl Scene {
    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 12 {
            0 | 1 => self.inject_anything(choices),
            2 | 3 => self.inject_changed(choices),
            4 => self.inject_forged(choices),
            5 => self
                .world
                .pass(Duration::from_millis(choices.word().into()), Network::Works),
            6 => {
                self.is_meddled_with = true;
                let time = Duration::from_millis(u64::from(choices.word()) * 50);
                self.world.pass(time, Network::IsAway);
            }
            7 => self.candidate(choices),
            8 => self.packet(choices),
            9 => self.relays(choices),
            10 => self.owner(choices),
            _ => self.train(choices),
        }
    }

    /// Any bytes from anywhere.
    fn inject_anything(&mut self, choices: &mut Choices<'_>) {
        let (from, to) = (source(choices), socket(choices));
        let bytes = choices.chunk();
        self.world.inject(from, to, 0, bytes);
    }

    /// Many datagrams in one.
    fn train(&mut self, choices: &mut Choices<'_>) {
        let (from, to) = (source(choices), socket(choices));
        let stride = usize::from(choices.byte());
        let bytes = choices.chunk().repeat(4);
        self.world.inject(from, to, stride, &bytes);
    }

    /// A recorded datagram from a stranger, or from where it came, with some bytes changed, or none.
    fn inject_changed(&mut self, choices: &mut Choices<'_>) {
        let Some((recorded_from, to, mut bytes)) = self.world.recorded(choices.word().into())
        else {
            return;
        };
        let from = match choices.byte() % 4 {
            0 => recorded_from,
            n => STRANGERS[usize::from(n) - 1].parse().unwrap(),
        };
        let original = bytes.clone();
        for _ in 0..choices.byte() % 8 {
            let at = usize::from(choices.word()) % bytes.len();
            bytes[at] ^= choices.byte();
        }
        // From where it came: an answer of the relay without integrity can be forged by who sees the request.
        self.is_meddled_with |= from == recorded_from;
        // Who replays what proves something is not a stranger to be protected from answers.
        if bytes == original || world::is_authentic(&bytes) {
            self.world.forgive(from);
        }
        self.world.inject(from, to, 0, &bytes);
    }

    /// A check or an answer of a relay whose key is wrong.
    fn inject_forged(&mut self, choices: &mut Choices<'_>) {
        let (from, to) = (source(choices), socket(choices));
        let method = choices.one_of(&[
            Method::Binding,
            Method::Allocate,
            Method::Refresh,
            Method::ChannelBind,
        ]);
        let class = choices.one_of(&[
            Class::Request,
            Class::Success,
            Class::Error,
            Class::Indication,
        ]);
        let code = 300 + choices.word() % 400;
        let name = choices.one_of(&["clnt:gate", "gate:clnt", "gate", "nobody:gate"]);
        let id = TransactionId(choices.array());
        let address = source(choices);
        let mut builder = Builder::new(Pool::new(2_048, 1).take(0), method, class, id);
        let flags = choices.byte();
        for (bit, attribute) in [
            Attribute::Username(name),
            Attribute::ErrorCode(code, "forged"),
            Attribute::XorMappedAddress(address),
            Attribute::XorRelayedAddress(address),
            Attribute::Lifetime(Duration::from_secs(u64::from(code))),
            Attribute::IceControlling(code.into()),
            Attribute::Priority(code.into()),
            Attribute::UseCandidate,
        ]
        .into_iter()
        .enumerate()
        {
            builder = builder.maybe((flags >> bit & 1 == 1).then_some(attribute));
        }
        if choices.byte() & 1 == 1 {
            builder = builder.integrity(b"not the key");
        }
        let message = builder.fingerprint().finish().expect("it fits");
        self.world.inject(from, to, 0, &message);
    }

    /// What the portal says of the peer's addresses.
    fn candidate(&mut self, choices: &mut Choices<'_>) {
        let is_new = choices.byte() & 1 == 0;
        let line = match choices.byte() & 1 {
            0 => String::from_utf8_lossy(choices.chunk()).into_owned(),
            _ => {
                let (addr, kind) = (source(choices), choices.one_of(&["host", "srflx", "relay"]));
                let priority = choices.word();
                format!(
                    "candidate:1 1 udp {priority} {} {} typ {kind}",
                    addr.ip(),
                    addr.port()
                )
            }
        };
        self.is_meddled_with = true;
        self.world.candidate(&line, is_new);
    }

    fn packet(&mut self, choices: &mut Choices<'_>) {
        if choices.byte() & 1 == 0 {
            let payload = choices.chunk();
            self.world.send_to_us(payload);
        } else {
            let sent = self
                .world
                .ours
                .encapsulate(self.world.now, PEER, choices.chunk());
            assert_ne!(sent, Err(NotSent::TooLarge));
        }
    }

    /// What the portal says of relays.
    fn relays(&mut self, choices: &mut Choices<'_>) {
        self.is_meddled_with = true;
        let ids = [world::RELAY, Uuid::from_u128(77), Uuid::from_u128(78)].map(RelayId);
        let remove: Vec<RelayId> = (0..choices.byte() % 3)
            .map(|_| choices.one_of(&ids))
            .collect();
        let add = (0..choices.byte() % 3).map(|_| {
            let (id, addr) = (choices.one_of(&ids), source(choices));
            self.world.forgive(addr);
            RelayServer {
                id,
                v4: Some(addr).filter(SocketAddr::is_ipv4),
                v6: Some(addr).filter(SocketAddr::is_ipv6),
                username: String::from_utf8_lossy(choices.chunk()).into_owned(),
                password: Secret::from("password"),
            }
        });
        let add = add.collect();
        self.world.ours.update_relays(self.world.now, &remove, add);
    }

    /// What the node's owner does.
    fn owner(&mut self, choices: &mut Choices<'_>) {
        self.is_meddled_with = true;
        let now = self.world.now;
        match choices.byte() % 6 {
            0 => self.world.ours.close(now, PEER),
            1 => self.world.ours.remove(PEER),
            2 => self.world.ours.reset(now),
            3 => self.world.describe(choices.byte()),
            4 => {
                let to = choices.one_of(&[PEER_ADDR, RELAY_ADDR]).parse().unwrap();
                self.world.ours.handle_too_large(to, choices.word().into());
            }
            _ => self.world.ours.trim(),
        }
    }
}

/// Strangers, and those who aren't.
fn source(choices: &mut Choices<'_>) -> SocketAddr {
    match choices.byte() % 8 {
        0 => PEER_ADDR.parse().unwrap(),
        1 => RELAY_ADDR.parse().unwrap(),
        2 => world::OUR_ADDR.parse().unwrap(),
        3 => SocketAddr::new(
            [203, 0, 113, 9].into(),
            49_152 + choices.word() % world::RELAY_PORTS,
        ),
        4 => "127.0.0.1:52625".parse().unwrap(),
        n => STRANGERS[usize::from(n) - 5].parse().unwrap(),
    }
}

fn socket(choices: &mut Choices<'_>) -> SocketAddr {
    choices.one_of(&SOCKETS).parse().unwrap()
}
