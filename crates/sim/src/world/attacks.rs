//! Hostile hosts: they read what others send, and send in anybody's name.

mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::World;
use crate::oracle::{INSIDER, OUTSIDER, OUTSIDER_V6};
use crate::scenario::Attack;

/// How many datagrams attackers remember.
const REMEMBERED: usize = 512;

/// The port of an attacker who doesn't pretend to be anybody.
const ELSEWHERE: u16 = 6_666;

/// The length of a handshake's first message, and its type (WireGuard §5.4.2).
const INITIATION: (usize, u8) = (148, 1);

/// From whom, to whom, and what.
type Datagram = (SocketAddr, SocketAddr, Vec<u8>);

/// The latest nonce that relays gave each socket of the attacker who has credentials.
type Nonces = BTreeMap<SocketAddr, String>;

/// What attackers have read.
pub(super) struct Overheard {
    /// Nobody listens in most worlds.
    is_on: bool,
    datagrams: VecDeque<Datagram>,
    nonces: Nonces,
}

impl Overheard {
    pub(super) fn new(is_on: bool) -> Self {
        Self {
            is_on,
            datagrams: VecDeque::new(),
            nonces: Nonces::new(),
        }
    }

    pub(super) fn hear(&mut self, from: SocketAddr, to: SocketAddr, datagrams: &[&[u8]]) {
        if !self.is_on {
            return;
        }
        let is_insider = to.ip().to_string() == INSIDER;
        for datagram in datagrams {
            if let Some(nonce) = turn::nonce_in(datagram).filter(|_| is_insider) {
                self.nonces.insert(to, nonce);
            }
            if self.datagrams.len() >= REMEMBERED {
                self.datagrams.pop_front();
            }
            self.datagrams.push_back((from, to, datagram.to_vec()));
        }
    }
}

impl World {
    pub(super) fn attack(&mut self, host: usize, attack: Attack, count: u32) {
        match attack {
            Attack::Turn => return self.attack_relay(host, count),
            Attack::Flood => return self.flood_relay(host, count),
            Attack::Replay
            | Attack::ReplayElsewhere
            | Attack::Garbage
            | Attack::Stun
            | Attack::Handshakes => {}
        }
        let place = self.network.place(host).unwrap_or_default();
        let own = [place.ip4.map(Into::into), place.ip6.map(Into::into)];
        let is_meant = |to: &SocketAddr| own.contains(&Some(to.ip()));
        let heard: Vec<_> = self
            .overheard
            .datagrams
            .iter()
            .filter(|(_, to, _)| is_meant(to))
            .cloned()
            .collect();
        if heard.is_empty() {
            return;
        }
        // Who listens inside of a NAT has addresses that nobody outside knows: to send from one is to send from elsewhere.
        let is_inside = |(from, ..): &(SocketAddr, _, _)| match from.ip() {
            IpAddr::V4(ip) => ip.is_private(),
            IpAddr::V6(_) => false,
        };
        match attack {
            Attack::Replay if heard.iter().any(is_inside) => self.watch.copied(self.now),
            Attack::Replay => self.watch.replayed(self.now),
            Attack::ReplayElsewhere => self.watch.copied(self.now),
            Attack::Garbage | Attack::Stun | Attack::Handshakes | Attack::Turn | Attack::Flood => {}
        }
        for _ in 0..count {
            let index = self.rng.random_range(0..heard.len());
            let Some((from, to, datagram)) = heard.get(index) else {
                return;
            };
            let elsewhere = if to.is_ipv4() { OUTSIDER } else { OUTSIDER_V6 };
            let elsewhere = elsewhere.parse().unwrap_or_else(|_| from.ip());
            let elsewhere = SocketAddr::new(elsewhere, ELSEWHERE);
            let (from, bytes) = match attack {
                Attack::Replay => (*from, datagram.clone()),
                Attack::ReplayElsewhere => (elsewhere, datagram.clone()),
                Attack::Garbage => (*from, garbage(&mut self.rng)),
                Attack::Stun => (*from, stun(&mut self.rng, datagram)),
                Attack::Handshakes => (elsewhere, handshake(&mut self.rng)),
                Attack::Turn | Attack::Flood => return,
            };
            self.network
                .inject(self.now, (from, *to), &bytes, &mut self.deliveries);
        }
        self.deliver();
    }
}

fn garbage(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(1..1_300)];
    rng.fill_bytes(&mut bytes);
    // Half of it begins like something that is understood.
    if let Some(first) = bytes.first_mut().filter(|_| rng.random_bool(0.5)) {
        *first = [0, 1, 2, 3, 4, 64][rng.random_range(0..6)];
    }

    bytes
}

/// A STUN message of somebody else with other contents, or one made up.
fn stun(rng: &mut StdRng, datagram: &[u8]) -> Vec<u8> {
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    let is_stun = datagram.get(4..8) == Some(&COOKIE[..]);
    if is_stun {
        let mut forged = datagram.to_vec();
        let index = rng.random_range(8..forged.len());
        if let Some(byte) = forged.get_mut(index) {
            *byte ^= 1 << rng.random_range(0..8);
        }
        return forged;
    }

    let attributes = rng.random_range(0..8_u16) * 4;
    let kind: [u8; 2] = [[0, 1], [1, 1], [1, 0x11], [0, 0x11], [1, 3]][rng.random_range(0..5)];
    let mut forged = kind.to_vec();
    forged.extend_from_slice(&attributes.to_be_bytes());
    forged.extend_from_slice(&COOKIE);
    let mut rest = vec![0; 12 + usize::from(attributes)];
    rng.fill_bytes(&mut rest);
    forged.extend(rest);

    forged
}

fn handshake(rng: &mut StdRng) -> Vec<u8> {
    let (len, kind) = INITIATION;
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    for (byte, value) in bytes.iter_mut().zip([kind, 0, 0, 0]) {
        *byte = value;
    }

    bytes
}
