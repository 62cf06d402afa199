//! Any sequence of what clients by the standard do, against a model that is too simple to be wrong.

mod data;
mod ops;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_relay::{AllocationPort, Config, Limits};
use connlib_wire::stun::{Attribute, Family};
use proptest::prelude::*;

use ops::{Kind, Op, Target, op};

use crate::support::{
    Answer, Ask, PUBLIC_V4, PUBLIC_V6, Rig, User, client, client_v6, peer, peer_v6, rest_user,
    secs, standard, user,
};

const PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_003;
const QUOTA: usize = 3;

struct Allocation {
    port: u16,
    user: usize,
    families: Vec<Family>,
    expires_at: Instant,
    /// By number: the peer, and when the binding began.
    channels: BTreeMap<u16, (SocketAddr, Instant)>,
    permissions: BTreeMap<IpAddr, Instant>,
}

impl Allocation {
    fn channel_to(&self, peer: SocketAddr, now: Instant) -> Option<u16> {
        let mut bound = self.channels.iter();
        let (number, _) = bound.find(|(_, (to, at))| *to == peer && now < *at + secs(600))?;

        Some(*number)
    }
}

struct Reservation {
    port: u16,
    user: usize,
    until: Instant,
}

struct World {
    rig: Rig,
    users: Vec<User>,
    sockets: Vec<SocketAddr>,
    model: BTreeMap<usize, Allocation>,
    reservations: BTreeMap<[u8; 8], Reservation>,
    tokens: Vec<[u8; 8]>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_server_does_what_the_model_says(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in ops {
            world.perform(op);
            world.compare();
        }

        // Time alone empties it.
        world.perform(Op::Pass(3_600));
        world.compare();
        assert!(world.rig.open.is_empty() && world.rig.server.is_empty());
        assert_eq!(world.rig.server.poll_timeout(), None);
    }
}

impl World {
    fn new() -> Self {
        let limits = Limits {
            allocations_per_user: QUOTA,
            ..Limits::default()
        };
        let config = Config {
            ports: PORTS,
            ..standard()
        };

        Self {
            rig: Rig::limited(config, limits),
            users: ["a", "b"].map(rest_user).to_vec(),
            sockets: vec![client(1), client(2), client_v6(3), client(4), client_v6(5)],
            model: BTreeMap::new(),
            reservations: BTreeMap::new(),
            tokens: Vec::new(),
        }
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Allocate(socket, user, kind) => self.allocate(socket, user, kind),
            Op::Refresh(socket, user, lifetime, family) => {
                self.refresh(socket, user, secs(lifetime), family);
            }
            Op::Permit(socket, user, peers) => self.permit(socket, user, peers),
            Op::Bind(socket, user, number, to) => self.bind(socket, user, number, to),
            Op::Introduce(a, b) => {
                for (one, other) in [(a, b), (b, a)] {
                    let user = self.model.get(&one).map_or(0, |it| it.user);
                    let to = Target::Relayed(other, Family::V4);
                    self.permit(one, user, [to, to]);
                }
            }
            Op::Send(socket, to) => self.send(socket, to),
            Op::Data(socket, number) => self.data(socket, number),
            Op::PeerData(socket, from) => self.peer_data(socket, from),
            Op::Forge(socket, kind) => self.forge(socket, kind),
            Op::Pass(time) => {
                self.rig.pass(secs(time));
                self.rig.forget_nonces();
                self.forget_old();
            }
        }
    }

    fn forget_old(&mut self) {
        let now = self.rig.now;
        self.model.retain(|_, it| now < it.expires_at);
        self.reservations.retain(|_, it| now < it.until);
        for it in self.model.values_mut() {
            it.channels.retain(|_, (_, at)| now < *at + secs(900));
            it.permissions.retain(|_, until| now < *until);
        }
    }

    fn ask(&mut self, socket: usize, user: usize, ask: &Ask<'_>) -> Answer {
        let user = self.users[user].clone();

        self.rig.ask(self.sockets[socket], &user, ask).unwrap()
    }

    fn allocate(&mut self, socket: usize, user: usize, kind: Kind) {
        let token = match kind {
            Kind::Redeem(n) if self.tokens.is_empty() => [n as u8; 8],
            Kind::Redeem(n) => self.tokens[n % self.tokens.len()],
            Kind::V4 | Kind::Both | Kind::Even | Kind::Pair => [0; 8],
        };
        let ask = match kind {
            Kind::V4 => Ask::allocate(),
            Kind::Both => Ask::allocate().both(),
            Kind::Even => Ask::allocate().with(Attribute::EvenPort { reserve: false }),
            Kind::Pair => Ask::allocate().with(Attribute::EvenPort { reserve: true }),
            Kind::Redeem(_) => Ask::allocate().with(Attribute::ReservationToken(token)),
        };
        let expected = self.expected_code(socket, user, kind, token);
        let answer = self.ask(socket, user, &ask);
        assert_eq!(answer.code(), expected, "{kind:?}");
        if expected.is_some() {
            return;
        }

        let port = answer.port().0;
        match kind {
            Kind::Redeem(_) => {
                let kept = self.reservations.remove(&token).unwrap();
                assert_eq!(port, kept.port);
            }
            Kind::V4 | Kind::Both => assert!(self.is_free(port)),
            Kind::Even => assert!(self.is_free(port) && port.is_multiple_of(2)),
            Kind::Pair => {
                assert!(self.is_free(port) && self.is_free(port + 1) && port.is_multiple_of(2));
                let token = answer.message().attributes().find_map(|it| match it {
                    Ok(Attribute::ReservationToken(token)) => Some(token),
                    _ => None,
                });
                let (token, until) = (token.unwrap(), self.rig.now + secs(30));
                self.tokens.push(token);
                let kept = Reservation {
                    port: port + 1,
                    user,
                    until,
                };
                self.reservations.insert(token, kept);
            }
        }
        let families = answer.relayed().into_iter().map(Family::of).collect();
        self.model.insert(
            socket,
            Allocation {
                port,
                user,
                families,
                expires_at: self.rig.now + secs(600),
                channels: BTreeMap::new(),
                permissions: BTreeMap::new(),
            },
        );
    }

    fn expected_code(&self, socket: usize, user: usize, kind: Kind, token: [u8; 8]) -> Option<u16> {
        if self.model.contains_key(&socket) {
            return Some(437);
        }
        let is_redeemed = matches!(kind, Kind::Redeem(_));
        let kept = self.reservations.get(&token).filter(|_| is_redeemed);
        if is_redeemed && kept.is_none() {
            return Some(508);
        }
        let held = self.model.values().filter(|it| it.user == user).count()
            + self
                .reservations
                .values()
                .filter(|it| it.user == user)
                .count();
        let wanted = if matches!(kind, Kind::Pair) { 2 } else { 1 };
        let own = usize::from(kept.is_some_and(|it| it.user == user));
        if held + wanted - own > QUOTA {
            return Some(486);
        }
        let has_port = match kind {
            Kind::V4 | Kind::Both => PORTS.into_iter().any(|port| self.is_free(port)),
            Kind::Even => [50_000, 50_002].into_iter().any(|port| self.is_free(port)),
            Kind::Pair => [50_000, 50_002]
                .into_iter()
                .any(|port| self.is_free(port) && self.is_free(port + 1)),
            Kind::Redeem(_) => true,
        };

        (!has_port).then_some(508)
    }

    fn is_free(&self, port: u16) -> bool {
        let is_taken = self.model.values().any(|it| it.port == port);

        !is_taken && !self.reservations.values().any(|it| it.port == port)
    }

    /// The allocation that a request is about, or the code.
    fn owned(&mut self, socket: usize, user: usize) -> Result<&mut Allocation, u16> {
        let allocation = self.model.get_mut(&socket).ok_or(437_u16)?;
        if allocation.user != user {
            return Err(441);
        }

        Ok(allocation)
    }

    fn refresh(&mut self, socket: usize, user: usize, lifetime: Duration, family: Option<Family>) {
        let mut ask = Ask::refresh(lifetime);
        ask.attributes
            .extend(family.map(Attribute::RequestedAddressFamily));
        let answer = self.ask(socket, user, &ask);

        let now = self.rig.now;
        let expected = match self.owned(socket, user) {
            Err(code) => Some(code),
            Ok(it) if family.is_some_and(|family| !it.families.contains(&family)) => Some(443),
            Ok(it) if lifetime.is_zero() => {
                let mut rest = it.families.clone();
                rest.retain(|it| family.is_some_and(|family| *it != family));
                if rest.is_empty() {
                    self.model.remove(&socket);
                } else {
                    let stays = |ip: IpAddr| rest.contains(&Family::of((ip, 0).into()));
                    it.channels.retain(|_, (peer, _)| stays(peer.ip()));
                    it.permissions.retain(|ip, _| stays(*ip));
                    it.families.clone_from(&rest);
                }
                None
            }
            Ok(it) => {
                it.expires_at = now + lifetime.clamp(secs(600), secs(3_600));
                None
            }
        };
        assert_eq!(answer.code(), expected);
    }

    fn permit(&mut self, socket: usize, user: usize, peers: [Target; 2]) {
        let peers = peers.map(|peer| self.resolve(peer));
        let answer = self.ask(socket, user, &Ask::create_permission(&peers));

        let until = self.rig.now + secs(300);
        let expected = match self.owned(socket, user) {
            Err(code) => Some(code),
            Ok(it)
                if peers
                    .iter()
                    .any(|peer| !it.families.contains(&Family::of(*peer))) =>
            {
                Some(443)
            }
            Ok(it) => {
                it.permissions
                    .extend(peers.iter().map(|peer| (peer.ip(), until)));
                None
            }
        };
        assert_eq!(answer.code(), expected);
    }

    fn bind(&mut self, socket: usize, user: usize, number: u16, to: Target) {
        let to = self.resolve(to);
        let answer = self.ask(socket, user, &Ask::channel_bind(number, to));

        let now = self.rig.now;
        let expected = match self.owned(socket, user) {
            Err(code) => Some(code),
            Ok(it) if !it.families.contains(&Family::of(to)) => Some(443),
            Ok(it) => {
                let mut others = it.channels.iter();
                if others.any(|(other, (peer, _))| (*other == number) != (*peer == to)) {
                    Some(400)
                } else {
                    it.channels.insert(number, (to, now));
                    it.permissions.insert(to.ip(), now + secs(300));
                    None
                }
            }
        };
        assert_eq!(answer.code(), expected);
    }

    fn forge(&mut self, socket: usize, kind: u8) {
        let impostor = User {
            name: self.users[usize::from(kind) % 2].name.clone(),
            key: user("somebody else").key,
        };
        let ask = match kind % 4 {
            0 => Ask::allocate().with(Attribute::EvenPort { reserve: true }),
            1 => Ask::refresh(secs(0)),
            2 => Ask::create_permission(&[peer(1)]),
            _ => Ask::channel_bind(0x4000, peer(1)),
        };
        let from = self.sockets[socket];
        let request = self.rig.request(from, &impostor, &ask);
        let _ = self.rig.send(from, &request);

        assert_eq!(self.rig.answer().unwrap().code(), Some(401));
    }

    fn resolve(&self, target: Target) -> SocketAddr {
        match target {
            Target::Peer(n) => peer(n),
            Target::PeerV6(n) => peer_v6(n),
            Target::Relayed(socket, family) => {
                let port = self.model.get(&socket).map_or(50_000, |it| it.port);
                match family {
                    Family::V4 => (PUBLIC_V4, port).into(),
                    Family::V6 => (PUBLIC_V6, port).into(),
                }
            }
        }
    }

    fn compare(&self) {
        let now = self.rig.now;
        let stats = self.rig.server.stats();
        assert_eq!(stats.allocations, self.model.len());
        assert_eq!(stats.reservations, self.reservations.len());
        let channels = || self.model.values().flat_map(|it| it.channels.values());
        let bound = channels().filter(|(_, at)| now < *at + secs(600)).count();
        assert_eq!(stats.channels, bound);
        let permissions = self.model.values().map(|it| it.permissions.len());
        assert_eq!(stats.permissions, permissions.sum::<usize>());

        let open: Vec<_> = self.rig.open.iter().copied().collect();
        let mut expected: Vec<_> = self
            .model
            .values()
            .flat_map(|it| {
                let port = AllocationPort(it.port);
                it.families.iter().map(move |family| (port, *family))
            })
            .collect();
        expected.sort();
        assert_eq!(open, expected);

        let channel_deadlines = channels().map(|(_, at)| {
            let expires_at = *at + secs(600);
            if now < expires_at {
                expires_at
            } else {
                *at + secs(900)
            }
        });
        let permissions = self.model.values().flat_map(|it| it.permissions.values());
        let deadlines = channel_deadlines
            .chain(permissions.copied())
            .chain(self.model.values().map(|it| it.expires_at))
            .chain(self.reservations.values().map(|it| it.until));
        let next = self.rig.server.poll_timeout().map(|(at, _)| at);
        assert_eq!(next, deadlines.min());
    }
}
