//! Packets through both roles, whatever state they are in.
//!
//! A client, a gateway and a relay are joined; a second client and a second gateway seal what they like. Bytes decide what
//! happens: packets of any contents on every side, what the portal says, what names have become, what time it is. Then
//!
//! * a gateway passes on what is from the client that sealed it, and for what that client was granted, by address and filters,
//!   until the grant ends; and sends a client nothing else;
//! * a client gives its programs what is for them, from what is served by whom it came from, or its own answers;
//! * whatever comes out is one whole packet, no larger than a tunnel carries, with checksums as right as they were;
//! * at each instant there is an end to what is due, and to datagrams.
//!
//! [`law`] and [`strict`] judge that. They share no code with what is judged.

mod judge;
mod law;
mod packets;
mod portal;
mod rogue;
mod strict;
mod told;
mod world;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use connlib_tunnel::PortalState;
use connlib_wire::buffer::Pool;
use connlib_wire::control::{AssignedIps, Control, DomainStatus, NatStatus};
use connlib_wire::dns::{Name, Query, RecordType};
use connlib_wire::id::{ClientId, GatewayId, ResourceId};
use connlib_wire::ip;
use connlib_wire::portal::client::Refusal;
use uuid::Uuid;

use crate::choices::Choices;
use portal::{GATEWAYS, HOLDERS, Policy, resource_id};
use told::{filter, reach};
use world::World;

const CLIENT: ClientId = ClientId(Uuid::from_u128(1));
const ROGUE: ClientId = ClientId(Uuid::from_u128(2));
const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(11));
const ROGUE_GATEWAY: GatewayId = GatewayId(Uuid::from_u128(12));

const CLIENT_V4: &str = "100.64.0.1";
const CLIENT_V6: &str = "fd00:2021:1111::1";
const ROGUE_V4: &str = "100.64.0.2";
const ROGUE_V6: &str = "fd00:2021:1111::2";
const GATEWAY_V4: &str = "100.64.0.9";
const GATEWAY_V6: &str = "fd00:2021:1111::9";
const ROGUE_GATEWAY_V4: &str = "100.64.0.10";
const ROGUE_GATEWAY_V6: &str = "fd00:2021:1111::a";
const SENTINEL: &str = "100.100.111.1";

/// The names that are asked for.
const NAMES: [&str; 4] = ["wiki.corp.test", "db.corp.test", "corp.test", "other.test"];

/// What is often reached: of resources, of names, of the Internet, and the gateway itself.
const REACHED: [&str; 10] = [
    "10.20.0.10",
    "fd20::10",
    "100.96.0.1",
    "fd00:2021:1111:8000::",
    "100.96.0.2",
    "10.20.0.10",
    "192.0.2.80",
    "2001:db8::80",
    GATEWAY_V4,
    "8.8.8.8",
];

/// More steps than that only take longer.
const MAX_STEPS: usize = 40;

/// What is done, as bytes say.
pub fn roles(bytes: &[u8]) {
    run(bytes);
}

fn run(bytes: &[u8]) -> world::Counts {
    let mut choices = Choices::new(bytes);
    let mut world = World::new(choices.byte());
    // Some of what there is has filters.
    let filtered = choices.byte();
    for n in (1..=4).filter(|n| filtered >> n & 1 == 0) {
        let id = resource_id(n);
        let (reach, _) = world.portal.table[&id];
        let filters = (0..=choices.byte() % 2).map(|_| filter(&mut choices));
        let filters = filters.collect();
        world.change(id, reach, filters);
    }
    // The rogue may use some of it.
    let granted = choices.byte();
    for n in (1..=4).filter(|n| granted >> n & 1 == 0) {
        world.grant(ROGUE, resource_id(n), None);
    }
    world.settle();
    if choices.byte() & 1 == 0 {
        connect(&mut world);
    }
    for _ in 0..MAX_STEPS {
        if choices.is_over() {
            break;
        }
        step(&mut world, &mut choices);
    }
    world.pass(Duration::from_secs(1));

    world.counts
}

/// The client reaches a name and a network through the gateway, and another network through the rogue one; the rogue has set up
/// the same name.
fn connect(world: &mut World) {
    let now = world.now;
    world.client.want_internet(now, true);
    let message = Query::new(&Name::parse(NAMES[0]).unwrap(), RecordType::A).to_upstream(7, true);
    for (to, policy, payload) in [
        ((SENTINEL, 53), Policy::Grant(GATEWAY), &*message),
        (("100.96.0.1", 80), Policy::Grant(GATEWAY), b"a name"),
        (("10.20.0.10", 80), Policy::Grant(GATEWAY), b"a network"),
        (("8.8.8.8", 80), Policy::Grant(GATEWAY), b"the Internet"),
        (
            ("fd20::10", 80),
            Policy::Grant(ROGUE_GATEWAY),
            b"another network",
        ),
    ] {
        world.portal.policy = policy;
        let (ip, port) = to;
        let to = SocketAddr::new(ip.parse().unwrap(), port);
        let own = if to.is_ipv4() { CLIENT_V4 } else { CLIENT_V6 };
        let from = SocketAddr::new(own.parse().unwrap(), 4_000);
        let packet = ip::udp(&Pool::new(2_048, 1), from, to, payload).unwrap();
        world.programs_send(packet.bytes());
        world.pass(Duration::from_millis(300));
    }
    world.portal.policy = Policy::Grant(GATEWAY);
    let assigned = AssignedIps {
        resource: resource_id(2),
        domain: NAMES[0].to_owned(),
        proxy_ips: proxies(0).collect(),
    };
    let assigned = Control::AssignedIps(assigned).to_packet(&Pool::new(2_048, 1));
    world.rogue_sends(assigned.unwrap().bytes());
}

/// The addresses that stand for one of the names, by how many are given to others before.
fn proxies(first: u8) -> impl Iterator<Item = IpAddr> {
    let v4 = (1..=4).map(move |n| IpAddr::from([100, 96, 0, first + n]));
    let v6 = (0..4).map(move |n| {
        let text = format!("fd00:2021:1111:8000::{:x}", first + n);
        text.parse().unwrap()
    });

    v4.chain(v6)
}

fn step(world: &mut World, choices: &mut Choices<'_>) {
    match choices.byte() % 20 {
        0..=2 => {
            let packet = packets::packet(choices, [CLIENT_V4, CLIENT_V6], &REACHED);
            world.programs_send(&packet);
        }
        3..=6 => {
            let packet = packets::packet(choices, [ROGUE_V4, ROGUE_V6], &REACHED);
            world.rogue_sends(&packet);
        }
        7..=9 => {
            let to = [CLIENT_V4, CLIENT_V6, ROGUE_V4, ROGUE_V6];
            let packet = packets::packet(choices, ["10.20.0.10", "fd20::10"], &to);
            world.network_sends(&packet);
        }
        10 | 11 => {
            let to = [CLIENT_V4, CLIENT_V6];
            let packet = packets::packet(choices, ["10.20.0.10", "fd20::10"], &to);
            world.rogue_gateway_sends(&packet);
        }
        12 => told_inside(world, choices),
        13 => question(world, choices),
        14 => time(world, choices),
        15 | 16 => resources(world, choices),
        17 => access(world, choices),
        18 => policy(world, choices),
        _ => owner(world, choices),
    }
}

/// In-tunnel messages of the rogues: true ones, and such as are for others.
fn told_inside(world: &mut World, choices: &mut Choices<'_>) {
    let resource = any_resource(choices);
    let domain = choices.one_of(&NAMES).to_owned();
    let control = match choices.byte() % 8 {
        0 => Control::Goodbye,
        1 => Control::DomainStatus(DomainStatus {
            resource,
            domain,
            status: choices.one_of(&[NatStatus::Active, NatStatus::Inactive]),
        }),
        2 => {
            let proxy_ips = (0..4).map(|_| packets::address(choices)).collect();
            Control::AssignedIps(AssignedIps {
                resource,
                domain,
                proxy_ips,
            })
        }
        n => {
            // Those of the first name, or of the second.
            let proxy_ips = proxies(u8::from(n > 6) * 4).collect();
            Control::AssignedIps(AssignedIps {
                resource,
                domain,
                proxy_ips,
            })
        }
    };
    let Some(packet) = control.to_packet(&Pool::new(2_048, 1)) else {
        return;
    };
    match choices.byte() % 4 {
        0 => world.rogue_gateway_sends(packet.bytes()),
        _ => world.rogue_sends(packet.bytes()),
    }
}

/// A program asks for a name, or the rogue asks the gateway.
fn question(world: &mut World, choices: &mut Choices<'_>) {
    let name = Name::parse(choices.one_of(&NAMES)).unwrap();
    let record_type = choices.one_of(&[
        RecordType::A,
        RecordType::AAAA,
        RecordType::PTR,
        RecordType(33),
    ]);
    let message = Query::new(&name, record_type).to_upstream(choices.word(), true);
    let end = |text: &str, port: u16| SocketAddr::new(text.parse().unwrap(), port);
    let send = |from: SocketAddr, to: SocketAddr| {
        ip::udp(&Pool::new(2_048, 1), from, to, &message).unwrap()
    };
    match choices.byte() % 4 {
        0 => {
            let packet = send(end(ROGUE_V4, 4_000), end(GATEWAY_V4, 53_535));
            world.rogue_sends(packet.bytes());
        }
        _ => {
            let packet = send(end(CLIENT_V4, 4_000), end(SENTINEL, 53));
            world.programs_send(packet.bytes());
        }
    }
}

fn time(world: &mut World, choices: &mut Choices<'_>) {
    let n = u64::from(choices.byte());
    let time = match choices.byte() % 6 {
        0 | 1 => Duration::from_millis(n),
        2 | 3 => Duration::from_millis(n * 40),
        4 => Duration::from_secs(n * 10),
        _ => Duration::from_secs(n * 100_000),
    };
    world.pass(time);
}

fn resources(world: &mut World, choices: &mut Choices<'_>) {
    let id = any_resource(choices);
    let known = world.portal.table.get(&id).map(|(reach, _)| *reach);
    let reach = match (choices.byte() % 4, known) {
        (0, _) => return world.delete(id),
        // Only its filters are others.
        (1 | 2, Some(reach)) => reach,
        _ => reach(choices),
    };
    let filters = (0..choices.byte() % 3).map(|_| filter(choices)).collect();
    world.change(id, reach, filters);
}

/// What the portal tells the gateway of who may use what.
fn access(world: &mut World, choices: &mut Choices<'_>) {
    let (holder, id) = (choices.one_of(&HOLDERS), any_resource(choices));
    match choices.byte() % 6 {
        0 => world.reject(holder, id),
        1 => {
            let all: Vec<_> = world.law.grants.keys().copied().collect();
            let kept = choices.byte();
            let kept = all
                .into_iter()
                .enumerate()
                .filter(|(n, _)| kept >> (n % 8) & 1 == 0);
            let until = until(choices);
            let kept: Vec<_> = kept.map(|(_, (client, id))| (client, id, until)).collect();
            world.init_gateway(&kept);
        }
        _ => {
            world.portal.doubles = choices.byte() > 240;
            let until = until(choices);
            world.grant(holder, id, until);
            world.settle();
        }
    }
}

/// When a grant ends, in seconds after the start: in the past, soon, or never.
fn until(choices: &mut Choices<'_>) -> Option<u64> {
    match choices.byte() % 6 {
        0 => Some(0),
        1 => Some(u64::from(choices.byte())),
        2 => Some(u64::MAX),
        _ => None,
    }
}

fn policy(world: &mut World, choices: &mut Choices<'_>) {
    world.portal.policy = match choices.byte() % 8 {
        0 => Policy::SayNothing,
        1 => Policy::Refuse(choices.one_of(&[
            Refusal::Forbidden,
            Refusal::Offline,
            Refusal::NotFound,
        ])),
        n => Policy::Grant(GATEWAYS[usize::from(n > 4)]),
    };
    world.portal.until = until(choices);
}

/// What whoever runs the two roles does.
fn owner(world: &mut World, choices: &mut Choices<'_>) {
    let now = world.now;
    match choices.byte() % 8 {
        0 | 1 => {
            let is_wanted = choices.byte() & 1 == 0;
            if !is_wanted {
                world.give_up_internet();
            }
            world.client.want_internet(now, is_wanted);
        }
        2 | 3 => {
            world.real = (0..choices.byte() % 5)
                .map(|_| packets::address(choices))
                .collect()
        }
        4 => world.client.network_changed(now),
        5 => world.gateway.network_changed(now),
        6 => {
            let state = choices.one_of(&[PortalState::Joined, PortalState::Away]);
            match choices.byte() & 1 {
                0 => world.client.handle_portal_state(now, state),
                _ => world.gateway.handle_portal_state(now, state),
            }
        }
        _ => world.init_client(),
    }
    world.settle();
}

fn any_resource(choices: &mut Choices<'_>) -> ResourceId {
    resource_id(1 + choices.byte() % 6)
}

/// The tunnel addresses of a gateway.
fn addresses_of(gateway: GatewayId) -> [IpAddr; 2] {
    let addresses = match gateway {
        GATEWAY => [GATEWAY_V4, GATEWAY_V6],
        _ => [ROGUE_GATEWAY_V4, ROGUE_GATEWAY_V6],
    };

    addresses.map(|ip| ip.parse().unwrap())
}
