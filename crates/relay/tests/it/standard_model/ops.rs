//! What clients do.

use connlib_wire::stun::Family;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    V4,
    Both,
    Even,
    Pair,
    /// With the n-th token that was ever told.
    Redeem(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Allocate(usize, usize, Kind),
    Refresh(usize, usize, u64, Option<Family>),
    Permit(usize, usize, [Target; 2]),
    Bind(usize, usize, u16, Target),
    /// Two clients permit each other.
    Introduce(usize, usize),
    Send(usize, Target),
    Data(usize, u16),
    PeerData(usize, Target),
    Forge(usize, u8),
    Pass(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Peer(u8),
    PeerV6(u16),
    /// The relayed address of a client.
    Relayed(usize, Family),
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let socket = 0_usize..5;
    let user = prop_oneof![3 => Just(0_usize), 1 => Just(1_usize)];
    let number = 0x4000_u16..0x4003;
    let kind = prop_oneof![
        1 => Just(Kind::V4),
        2 => Just(Kind::Both),
        1 => Just(Kind::Even),
        2 => Just(Kind::Pair),
        2 => (0_usize..4).prop_map(Kind::Redeem),
    ];
    let family = prop::sample::select(vec![Family::V4, Family::V6]);
    let lifetime = prop::sample::select(vec![0_u64, 0, 1, 600, 3_600, 5_000]);
    let time = prop::sample::select(vec![0_u64, 1, 29, 30, 100, 299, 300, 301, 599, 600, 900]);
    let target = prop_oneof![
        2 => (1_u8..3).prop_map(Target::Peer),
        1 => (1_u16..3).prop_map(Target::PeerV6),
        3 => (socket.clone(), family.clone()).prop_map(|(socket, family)| Target::Relayed(socket, family)),
    ];
    let refresh = (
        socket.clone(),
        user.clone(),
        lifetime,
        prop::option::of(family),
    );
    let two = [target.clone(), target.clone()];

    prop_oneof![
        5 => (socket.clone(), user.clone(), kind).prop_map(|(s, u, kind)| Op::Allocate(s, u, kind)),
        3 => refresh.prop_map(|(s, u, lifetime, family)| Op::Refresh(s, u, lifetime, family)),
        4 => (socket.clone(), user.clone(), two).prop_map(|(s, u, peers)| Op::Permit(s, u, peers)),
        4 => (socket.clone(), user, number.clone(), target.clone())
            .prop_map(|(s, u, number, to)| Op::Bind(s, u, number, to)),
        3 => (socket.clone(), socket.clone()).prop_map(|(a, b)| Op::Introduce(a, b)),
        5 => (socket.clone(), target.clone()).prop_map(|(s, to)| Op::Send(s, to)),
        4 => (socket.clone(), number).prop_map(|(s, number)| Op::Data(s, number)),
        4 => (socket.clone(), target).prop_map(|(s, from)| Op::PeerData(s, from)),
        1 => (socket, any::<u8>()).prop_map(|(s, kind)| Op::Forge(s, kind)),
        2 => time.prop_map(Op::Pass),
    ]
}
