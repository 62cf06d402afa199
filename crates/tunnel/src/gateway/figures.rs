//! What deciding costs: `cargo test --release -p connlib-tunnel figures -- --ignored --nocapture` prints it. Memory is judged as
//! well, since it is the same each time; times are not.
#![allow(clippy::print_stdout, reason = "figures are printed")]
#![expect(clippy::disallowed_methods, reason = "time is what is measured")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::dns::Name;
use connlib_wire::id::ResourceId;
use connlib_wire::ip::{Packet, Transport, udp};
use connlib_wire::portal::resource::{Filter, PortRange};
use ipnet::{IpNet, Ipv4Net};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::nat::{Found, Incoming, Nat};
use crate::networks::Networks;

/// Flows of each of two clients.
const FLOWS: u16 = 50_000;

/// How many addresses the flows of one client go to.
const ADDRESSES: u8 = 100;

const CLIENT: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 7);

fn proxy(n: u8) -> IpAddr {
    Ipv4Addr::new(100, 96, 1, n).into()
}

fn real(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 20, 1, n).into()
}

fn id(n: u128) -> ResourceId {
    ResourceId(Uuid::from_u128(n))
}

fn packet(pool: &Pool, from: (IpAddr, u16), to: (IpAddr, u16)) -> Packet<Buffer> {
    udp(pool, SocketAddr::from(from), SocketAddr::from(to), b"x").unwrap()
}

/// The flow by its number: the client's port, and which address.
fn flow(n: u16) -> (u16, u8) {
    (
        10_000 + n / u16::from(ADDRESSES),
        (n % u16::from(ADDRESSES)) as u8,
    )
}

fn with_flows(now: Instant, pool: &Pool) -> Nat {
    let mut nat = Nat::default();
    for n in 0..ADDRESSES {
        let name = Name::parse(&format!("host-{n}.corp.example")).unwrap();
        let found = Found {
            addresses: BTreeSet::from([real(n)]),
            ..Found::default()
        };
        assert!(nat.set_up(&name, id(1), &BTreeSet::from([proxy(n)]), &found));
    }
    for n in 0..FLOWS {
        let (port, address) = flow(n);
        let sent = packet(pool, (CLIENT.into(), port), (proxy(address), 443));
        assert!(nat.outgoing(now, &sent).is_ok());
    }
    nat
}

/// How long one of many takes.
fn each(count: usize, work: impl FnOnce()) -> Duration {
    let before = Instant::now();
    work();

    before.elapsed() / u32::try_from(count).unwrap()
}

#[test]
#[ignore = "measures, and prints what it measured"]
fn a_hundred_thousand_flows_are_found_quickly_and_are_small() {
    let (now, pool) = (Instant::now(), Pool::new(2_048, 16));
    let mut nats = Vec::new();
    let counted = allocation_counter::measure(|| {
        nats.extend([(); 2].map(|()| with_flows(now, &pool)));
    });
    let flows = usize::from(FLOWS) * nats.len();
    let bytes = usize::try_from(counted.bytes_current).unwrap() / flows;

    let mut order: Vec<u16> = (0..FLOWS).collect();
    order.shuffle(&mut StdRng::seed_from_u64(1));
    // Packets are in the processor's cache when they are judged, as they were opened or read just before: one is enough.
    let mut sent = packet(&pool, (CLIENT.into(), 1), (proxy(0), 443));
    let out = each(flows, || {
        for nat in &mut nats {
            for n in &order {
                let (port, address) = flow(*n);
                sent.set_source_port(port);
                sent.set_destination(proxy(address));
                assert!(black_box(nat.outgoing(now, &sent)).is_ok());
            }
        }
    });
    let mut received = packet(&pool, (real(0), 443), (CLIENT.into(), 1));
    let back = each(flows, || {
        for nat in &nats {
            for n in &order {
                let (port, address) = flow(*n);
                received.set_destination_port(port);
                received.set_source(real(address));
                let found = black_box(nat.incoming(now, &received));
                assert!(matches!(found, Incoming::Of(_)));
            }
        }
    });
    println!("{flows} flows: {bytes} bytes each, {out:?} out, {back:?} back");
    assert!(bytes <= 200, "{bytes}");
}

#[test]
#[ignore = "measures, and prints what it measured"]
fn a_thousand_resources_cost_no_more_than_one() {
    for resources in [1_u128, 1_000] {
        let mut networks = Networks::default();
        let mut rng = StdRng::seed_from_u64(1);
        for n in 0..resources {
            let network = Ipv4Net::new([10, rng.random(), rng.random(), 0].into(), 24).unwrap();
            let filters = (0..8_u16).map(|port| {
                Filter::Tcp(PortRange {
                    port_range_start: port * 100,
                    port_range_end: port * 100 + 50,
                })
            });
            networks.insert(IpNet::V4(network), id(n), filters.collect());
        }
        let everything = IpNet::V4(Ipv4Net::new([10, 0, 0, 0].into(), 8).unwrap());
        networks.insert(everything, id(resources), Vec::new());
        let wanted: Vec<_> = (0..1_000_u16)
            .map(|n| {
                let ip = Ipv4Addr::new(10, rng.random(), rng.random(), rng.random());
                (IpAddr::V4(ip), Transport::Tcp, Some(n))
            })
            .collect();
        let mut choose = || {
            each(wanted.len(), || {
                for wanted in &wanted {
                    assert!(black_box(networks.choose(*wanted)).is_some());
                }
            })
        };
        let (first, again) = (choose(), choose());
        println!("{resources} resources: {first:?} at first, {again:?} again");
    }
}
