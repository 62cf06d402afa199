//! Our ICE checks paths with aioice, in both roles, and WireGuard runs over what they find.
//!
//! One end is a `Links` on a real socket. The other one is aioice, which carries datagrams for a plain WireGuard node that lives in
//! the test: whatever passes between the two nodes went over the pair that both agents chose.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use connlib_link::{
    Event, FixedPeer, Links, Packets, PathKind, PeerConfig, PeerId, PeerStatus, RelayServer, Role,
    Settings,
};
use connlib_os::clock::Clock;
use connlib_os::namespace::run_in;
use connlib_wire::id::RelayId;
use connlib_wire::key::PresharedKey;
use connlib_wire::portal::IceCredentials;
use connlib_wire::secret::Secret;
use serde_json::json;
use uuid::Uuid;

use crate::aioice::has_aioice;
use crate::carrier::{SOMEWHERE, Stranger, US, arrival, packet};
use crate::scene::{Scene, credentials};

const STRANGER: PeerId = PeerId(Uuid::from_u128(1));
const RELAY: RelayId = RelayId(Uuid::from_u128(3));
const PRESHARED_KEY: PresharedKey = PresharedKey::new([5; 32]);

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long the socket is listened to before all else is looked after.
const GLANCE: Duration = Duration::from_millis(10);

/// What a WireGuard message begins with, and how long it is: the first two of a session.
const INITIATION: (u8, usize) = (1, 148);
const RESPONSE: (u8, usize) = (2, 92);

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn we_control_and_aioice_is_controlled() {
    for family in [0, 1] {
        meet(Role::Controlling, family, Direct::Open);
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn aioice_controls_and_we_are_controlled() {
    for family in [0, 1] {
        meet(Role::Controlled, family, Direct::Open);
    }
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn aioice_is_reached_through_our_relay_in_either_role() {
    for role in [Role::Controlling, Role::Controlled] {
        meet(role, 0, Direct::Blocked);
    }
}

/// Whether the two ends can reach each other without the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direct {
    Open,
    Blocked,
}

/// Lets the two ends find a path, and WireGuard agree on keys and carry a packet each way.
fn meet(role: Role, family: usize, direct: Direct) {
    if !has_aioice() {
        return;
    }
    let mut scene = Scene::lay();
    if direct == Direct::Blocked {
        scene.network.block("client", "peer");
    }
    let mut stranger = Stranger::start(&scene, role);
    let mut us = Us::new(&scene, family);
    us.until("an address by the relay", &mut stranger, |us, _| {
        us.links.relays().any(|relay| !relay.relayed.is_empty())
    });
    us.introduce(&mut stranger, role);

    us.until("a pair at aioice", &mut stranger, |_, stranger| {
        stranger.pair.is_some()
    });
    if role == Role::Controlled {
        stranger.send(&us.clock, b"from afar");
    }
    us.until("a session at both ends", &mut stranger, |us, stranger| {
        us.is_established() && stranger.has_session(&us.clock)
    });
    // Who controls chooses. As the controlling end aioice nominates all pairs that work and sends by the latest, where the
    // standard has the best one used (RFC 5245 §8.1.1.2); we follow whom we hear.
    us.until("a path as it should be", &mut stranger, |us, _| {
        let kind = us.status().kind;
        match (direct, role) {
            (Direct::Blocked, _) => kind == PathKind::OurRelay,
            (Direct::Open, Role::Controlling) => kind == PathKind::Direct,
            (Direct::Open, Role::Controlled) => true,
        }
    });
    us.send(b"to afar");
    stranger.send(&us.clock, b"and back");
    us.until("a packet each way", &mut stranger, |us, stranger| {
        stranger.has(b"to afar") && us.has(b"and back")
    });

    us.until("the same pair", &mut stranger, |us, stranger| {
        us.send(b"more");
        match role {
            Role::Controlling => stranger.pair == us.pair(),
            Role::Controlled => stranger.nominated.contains(&us.pair().unwrap()),
        }
    });
    let [theirs, ours] = us.pair().unwrap();
    let first = match role {
        Role::Controlling => INITIATION,
        Role::Controlled => RESPONSE,
    };
    assert_eq!(stranger.first, Some(first), "what aioice got as data");
    let kind = us.status().kind;
    println!(
        "aioice {}: we are {role:?}, {kind:?}, {} <-> {}, first datagram of kind {} with {} bytes",
        stranger.version, theirs, ours, first.0, first.1,
    );
    let seen = scene.finish(&format!("aioice and we, who are {role:?}, {kind:?}"));
    let is_relayed = direct == Direct::Blocked;
    assert!(seen.is_none_or(|seen| !is_relayed || seen.channel_data > 0));
}

/// Our end, on a socket of the place for clients.
struct Us {
    links: Links,
    socket: UdpSocket,
    clock: Clock,
    candidates: Vec<String>,
    events: Vec<Event>,
    received: Vec<Vec<u8>>,
}

impl Us {
    fn new(scene: &Scene, family: usize) -> Self {
        let clock = Clock::new();
        let settings = Settings { unix: clock.unix() };
        let address = scene.addresses("client")[family];
        let bind = || UdpSocket::bind((address, 0));
        let socket = run_in(scene.network.namespace("client"), bind);
        let socket = socket.unwrap().unwrap();
        socket.set_read_timeout(Some(GLANCE)).unwrap();

        let mut links = Links::new(clock.now(), [7; 32], settings);
        let server = SocketAddr::new(scene.addresses("relay")[family], 3478);
        let (username, password) = credentials("us");
        let relay = RelayServer {
            id: RELAY,
            v4: Some(server).filter(SocketAddr::is_ipv4),
            v6: Some(server).filter(SocketAddr::is_ipv6),
            username,
            password,
        };
        links.update_relays(clock.now(), &[], vec![relay]);

        Self {
            links,
            socket,
            clock,
            candidates: Vec::new(),
            events: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Tells each end of the other one, as a portal does.
    fn introduce(&mut self, stranger: &mut Stranger, role: Role) {
        let now = self.clock.now();
        let local = IceCredentials {
            username: "ours".to_owned(),
            password: Secret::from("twentytwocharactersofours"),
        };
        let config = PeerConfig {
            public_key: stranger.links.public_key(),
            preshared_key: PRESHARED_KEY,
            local: local.clone(),
            remote: stranger.credentials.clone(),
            role,
        };
        self.links.upsert(now, STRANGER, config).unwrap();
        for line in &stranger.candidates {
            self.links.add_remote_candidate(now, STRANGER, line);
        }
        self.drain();

        let peer = FixedPeer {
            public_key: self.links.public_key(),
            preshared_key: Some(PRESHARED_KEY),
            endpoint: Some(SOMEWHERE.parse().unwrap()),
            keepalive: None,
        };
        stranger.links.add_fixed(now, US, peer).unwrap();
        stranger.say(&json!({
            "username": local.username,
            "password": local.password.expose(),
            "candidates": self.candidates,
        }));
    }

    /// Looks after both ends until `is_done`.
    fn until(
        &mut self,
        what: &str,
        stranger: &mut Stranger,
        mut is_done: impl FnMut(&mut Self, &mut Stranger) -> bool,
    ) {
        let end_at = self.clock.now() + PATIENCE;
        while !is_done(self, stranger) {
            let now = self.clock.now();
            assert!(
                now < end_at,
                "{what}: {:?} {:?} {:?}",
                self.links.peers(now).next(),
                self.events,
                stranger.pair,
            );
            self.links.handle_timeout(now);
            self.drain();
            stranger.turn(&self.clock);
            self.listen();
        }
    }

    fn listen(&mut self) {
        let mut bytes = [0; 2_048];
        let (len, from) = match self.socket.recv_from(&mut bytes) {
            Ok(datagram) => datagram,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        };
        let arrival = arrival(from, self.socket.local_addr().unwrap(), &bytes[..len]);
        let mut packets = Packets::new();
        self.links
            .handle_arrival(self.clock.now(), &arrival, &mut packets);
        self.received.extend(packets.iter().map(<[u8]>::to_vec));
        self.drain();
    }

    /// Lets out what waits.
    fn drain(&mut self) {
        while let Some(transmit) = self.links.poll_transmit() {
            for datagram in transmit.datagrams() {
                self.socket.send_to(datagram, transmit.route.dst).unwrap();
            }
        }
        while let Some(event) = self.links.poll_event() {
            if let Event::NewCandidate { line, .. } = &event {
                self.candidates.push(line.clone());
            }
            self.events.push(event);
        }
    }

    fn send(&mut self, payload: &[u8]) {
        let sent = self
            .links
            .encapsulate(self.clock.now(), STRANGER, &packet(payload));
        assert_eq!(sent, Ok(()));
        self.drain();
    }

    fn status(&self) -> PeerStatus {
        self.links.peers(self.clock.now()).next().unwrap()
    }

    /// The other end's address and ours.
    fn pair(&self) -> Option<[String; 2]> {
        let path = self.status().path?;

        Some([path.remote, path.local].map(|end| end.to_string()))
    }

    fn is_established(&self) -> bool {
        self.events.contains(&Event::Established(STRANGER))
    }

    fn has(&self, payload: &[u8]) -> bool {
        self.received.contains(&packet(payload))
    }
}
