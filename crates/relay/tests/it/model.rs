//! Any sequence of requests, data and time, against a model that is too simple to be wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_relay::{AllocationPort, Config, DropReason, Verdict, Via};
use connlib_wire::stun::Family;
use proptest::prelude::*;

use crate::support::{
    Ask, PUBLIC_V4, PUBLIC_V6, Rig, User, client, client_v6, config, number, peer, peer_v6, secs,
    user,
};

#[derive(Clone, Copy, Debug)]
enum Op {
    Allocate {
        socket: usize,
        user: usize,
        lifetime: u64,
        wants_both: bool,
    },
    Refresh {
        socket: usize,
        user: usize,
        lifetime: u64,
    },
    Bind {
        socket: usize,
        user: usize,
        channel: u16,
        to: Target,
    },
    /// Two clients of the relay bind each other and talk.
    Introduce {
        sockets: [usize; 2],
        channels: [u16; 2],
        family: Family,
    },
    /// A request of somebody without the password.
    Forge {
        socket: usize,
        kind: u8,
    },
    Data {
        socket: usize,
        channel: u16,
    },
    PeerData {
        socket: usize,
        from: Target,
    },
    Pass(Duration),
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Peer(u8),
    PeerV6(u16),
    /// The relayed address of a client.
    Relayed(usize, Family),
}

#[derive(Debug)]
struct Allocation {
    port: u16,
    user: usize,
    has_v6: bool,
    expires_at: Instant,
    /// By number: the peer, and when the binding began.
    channels: BTreeMap<u16, (SocketAddr, Instant)>,
}

impl Allocation {
    fn forget_old_channels(&mut self, now: Instant) {
        self.channels
            .retain(|_, (_, bound_at)| now < *bound_at + secs(900));
    }

    fn bound(&self, now: Instant) -> impl Iterator<Item = (u16, SocketAddr)> {
        self.channels
            .iter()
            .filter(move |(_, (_, bound_at))| now < *bound_at + secs(600))
            .map(|(number, (peer, _))| (*number, *peer))
    }
}

struct World {
    rig: Rig,
    users: Vec<User>,
    sockets: Vec<SocketAddr>,
    model: BTreeMap<usize, Allocation>,
}

const PORTS: usize = 3;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_server_does_what_the_model_says(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in ops {
            world.perform(op);
            world.compare();
        }

        // P9: time alone empties it.
        world.perform(Op::Pass(secs(3_600)));
        world.compare();
        assert!(world.rig.open.is_empty());
        assert_eq!(world.rig.server.poll_timeout(), None);
    }
}

impl World {
    fn new() -> Self {
        Self {
            rig: Rig::with(Config {
                ports: 50_000..=50_000 + PORTS as u16 - 1,
                ..config()
            }),
            users: ["a", "b", "c", "d"].map(user).to_vec(),
            sockets: vec![client(1), client(2), client_v6(3), client(4), client_v6(5)],
            model: BTreeMap::new(),
        }
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Allocate {
                socket,
                user,
                lifetime,
                wants_both,
            } => self.allocate(socket, user, lifetime, wants_both),
            Op::Refresh {
                socket,
                user,
                lifetime,
            } => self.refresh(socket, user, lifetime),
            Op::Bind {
                socket,
                user,
                channel,
                to,
            } => self.bind(socket, user, channel, to),
            Op::Introduce {
                sockets: [a, b],
                channels: [to_b, to_a],
                family,
            } => {
                self.bind(a, a % 4, to_b, Target::Relayed(b, family));
                self.bind(b, b % 4, to_a, Target::Relayed(a, family));
                self.data(a, to_b);
                self.data(b, to_a);
            }
            Op::Forge { socket, kind } => self.forge(socket, kind),
            Op::Data { socket, channel } => self.data(socket, channel),
            Op::PeerData { socket, from } => self.peer_data(socket, from),
            Op::Pass(time) => {
                self.rig.pass(time);
                self.rig.forget_nonces();
                let now = self.rig.now;
                self.model
                    .retain(|_, allocation| now < allocation.expires_at);
                for allocation in self.model.values_mut() {
                    allocation.forget_old_channels(now);
                }
            }
        }
    }

    fn ask(&mut self, socket: usize, user: usize, ask: &Ask<'_>) -> crate::support::Answer {
        let user = self.users[user].clone();

        self.rig.ask(self.sockets[socket], &user, ask).unwrap()
    }

    fn allocate(&mut self, socket: usize, user: usize, lifetime: u64, wants_both: bool) {
        let ask = Ask::allocate().lifetime(secs(lifetime));
        let ask = if wants_both { ask.both() } else { ask };
        let answer = self.ask(socket, user, &ask);

        let expected = if self.model.contains_key(&socket) {
            Some(437)
        } else if self.model.len() == PORTS {
            Some(508)
        } else {
            None
        };
        assert_eq!(answer.code(), expected);
        if expected.is_some() {
            return;
        }
        self.model.retain(|_, allocation| allocation.user != user);
        self.model.insert(
            socket,
            Allocation {
                port: answer.port().0,
                user,
                has_v6: answer.relayed().len() == 2,
                expires_at: self.rig.now + answer.lifetime(),
                channels: BTreeMap::new(),
            },
        );
        assert_eq!(self.model[&socket].has_v6, wants_both);
        assert_eq!(answer.lifetime(), secs(lifetime.min(3_600)));
        self.perform(Op::Pass(Duration::ZERO));
    }

    fn refresh(&mut self, socket: usize, user: usize, lifetime: u64) {
        let answer = self.ask(socket, user, &Ask::refresh(secs(lifetime)));

        let Some(allocation) = self.model.get_mut(&socket) else {
            assert_eq!(answer.code(), Some(437));
            return;
        };
        assert_eq!(answer.lifetime(), secs(lifetime.min(3_600)));
        allocation.expires_at = self.rig.now + answer.lifetime();
        if lifetime == 0 {
            self.model.remove(&socket);
        }
    }

    fn bind(&mut self, socket: usize, user: usize, channel: u16, to: Target) {
        let to = self.resolve(to);
        let answer = self.ask(socket, user, &Ask::channel_bind(channel, to));

        let now = self.rig.now;
        let expected = match self.model.get_mut(&socket) {
            None => Some(437),
            Some(allocation) if to.is_ipv6() && !allocation.has_v6 => Some(443),
            Some(allocation) => {
                let conflict = allocation
                    .channels
                    .iter()
                    .any(|(number, (peer, _))| (*number == channel) != (*peer == to));
                if conflict {
                    Some(400)
                } else {
                    allocation.channels.insert(channel, (to, now));
                    None
                }
            }
        };
        assert_eq!(answer.code(), expected);
    }

    fn forge(&mut self, socket: usize, kind: u8) {
        let impostor = User {
            name: self.users[usize::from(kind) % 4].name.clone(),
            key: user("somebody else").key,
        };
        let ask = match kind % 3 {
            0 => Ask::allocate(),
            1 => Ask::refresh(secs(0)),
            _ => Ask::channel_bind(0x4000, peer(1)),
        };
        let from = self.sockets[socket];
        let request = self.rig.request(from, &impostor, &ask);
        let before = (self.rig.next_deadline(), self.rig.commands.len());
        let _ = self.rig.send(from, &request);

        assert_eq!(self.rig.answer().unwrap().code(), Some(401));
        assert_eq!((self.rig.next_deadline(), self.rig.commands.len()), before);
    }

    fn data(&mut self, socket: usize, channel: u16) {
        let verdict = self
            .rig
            .send_data(self.sockets[socket], channel, b"payload");

        let expected = self.expected_data(socket, channel);
        let got = match verdict {
            Verdict::Forward(forward) => Ok((forward.via, forward.to, forward.channel)),
            Verdict::Drop(reason) => Err(reason),
            Verdict::Handled | Verdict::Mixed => panic!("{verdict:?}"),
        };
        assert_eq!(got, expected);
    }

    fn expected_data(
        &self,
        socket: usize,
        channel: u16,
    ) -> Result<
        (
            Via,
            SocketAddr,
            Option<connlib_wire::channel::ChannelNumber>,
        ),
        DropReason,
    > {
        let now = self.rig.now;
        let allocation = self.model.get(&socket).ok_or(DropReason::NoAllocation)?;
        let (_, to) = allocation
            .bound(now)
            .find(|(number, _)| *number == channel)
            .ok_or(DropReason::NoChannel)?;
        let is_own = to.ip() == PUBLIC_V4 || to.ip() == PUBLIC_V6;
        let twin = self.model.iter().find(|(_, twin)| twin.port == to.port());
        let Some((twin_socket, twin)) = twin.filter(|_| is_own) else {
            let via = Via::Allocation(AllocationPort(allocation.port), Family::of(to));
            return Ok((via, to, None));
        };

        let seen_as = SocketAddr::new(to.ip(), allocation.port);
        let (back, _) = twin
            .bound(now)
            .find(|(_, peer)| *peer == seen_as)
            .ok_or(DropReason::NoChannel)?;
        let client = self.sockets[*twin_socket];

        Ok((Via::Listen(Family::of(client)), client, Some(number(back))))
    }

    fn peer_data(&mut self, socket: usize, from: Target) {
        let from = self.resolve(from);
        let Some(allocation) = self.model.get(&socket) else {
            return;
        };
        let expected = allocation
            .bound(self.rig.now)
            .find(|(_, peer)| *peer == from)
            .map(|(channel, _)| (self.sockets[socket], Some(number(channel))));
        let port = AllocationPort(allocation.port);
        let verdict = self.rig.send_from_peer(port, from, b"payload");

        let got = match verdict {
            Verdict::Forward(forward) => Some((forward.to, forward.channel)),
            Verdict::Drop(reason) => {
                assert_eq!(reason, DropReason::NoChannel);
                None
            }
            Verdict::Handled | Verdict::Mixed => panic!("{verdict:?}"),
        };
        assert_eq!(got, expected);
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
        let bound = self.model.values().map(|it| it.bound(now).count());
        assert_eq!(stats.channels, bound.sum::<usize>());

        // Commands replayed give the allocations' sockets, no two the same.
        let open: Vec<_> = self.rig.open.iter().copied().collect();
        let mut expected: Vec<_> = self
            .model
            .values()
            .flat_map(|it| {
                let port = AllocationPort(it.port);
                let v6 = it.has_v6.then_some((port, Family::V6));
                [Some((port, Family::V4)), v6].into_iter().flatten()
            })
            .collect();
        expected.sort();
        assert_eq!(open, expected);

        let expiries = self.model.values().map(|it| it.expires_at);
        let channels = self.model.values().flat_map(|it| {
            it.channels.values().map(|(_, bound_at)| {
                let expires_at = *bound_at + secs(600);
                if now < expires_at {
                    expires_at
                } else {
                    *bound_at + secs(900)
                }
            })
        });
        let next = self.rig.server.poll_timeout().map(|(at, _)| at);
        assert_eq!(next, expiries.chain(channels).min());
    }
}

fn op() -> impl Strategy<Value = Op> {
    let socket = 0_usize..5;
    let user = 0_usize..4;
    let channel = 0x4000_u16..0x4003;
    let lifetime = prop::sample::select(vec![0_u64, 1, 600, 3_600, 3_600, 5_000]);
    let family = prop::sample::select(vec![Family::V4, Family::V6]);
    let target = prop_oneof![
        (1_u8..3).prop_map(Target::Peer),
        (1_u16..3).prop_map(Target::PeerV6),
        (socket.clone(), family.clone())
            .prop_map(|(socket, family)| Target::Relayed(socket, family)),
    ];
    let time = prop::sample::select(vec![0_u64, 1, 100, 299, 300, 301, 599, 600, 601, 900]);

    prop_oneof![
        3 => (socket.clone(), user.clone(), lifetime.clone(), any::<bool>()).prop_map(
            |(socket, user, lifetime, wants_both)| Op::Allocate { socket, user, lifetime, wants_both }
        ),
        1 => (socket.clone(), user.clone(), lifetime)
            .prop_map(|(socket, user, lifetime)| Op::Refresh { socket, user, lifetime }),
        6 => (socket.clone(), user, channel.clone(), target.clone())
            .prop_map(|(socket, user, channel, to)| Op::Bind { socket, user, channel, to }),
        3 => ([socket.clone(), socket.clone()], [channel.clone(), channel.clone()], family)
            .prop_map(|(sockets, channels, family)| Op::Introduce { sockets, channels, family }),
        1 => (socket.clone(), any::<u8>()).prop_map(|(socket, kind)| Op::Forge { socket, kind }),
        4 => (socket.clone(), channel).prop_map(|(socket, channel)| Op::Data { socket, channel }),
        4 => (socket, target).prop_map(|(socket, from)| Op::PeerData { socket, from }),
        2 => time.prop_map(|time| Op::Pass(secs(time))),
    ]
}
