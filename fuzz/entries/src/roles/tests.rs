//! That the world which packets are judged in is one where they get somewhere.

use connlib_wire::portal::resource::{Filter, PortRange};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use portal::Reach;
use world::Counts;

fn udp(from: &str, to: &str) -> Vec<u8> {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();

    ip::udp(&Pool::new(2_048, 1), end(from), end(to), b"payload")
        .unwrap()
        .bytes()
        .to_vec()
}

#[test]
fn packets_pass_both_ways_between_the_honest() {
    let mut world = World::new(1);
    world.programs_send(&udp("100.64.0.1:4000", "10.20.0.10:80"));
    world.pass(Duration::from_secs(3));
    world.network_sends(&udp("10.20.0.10:80", "100.64.0.1:4000"));

    assert_eq!(
        (world.counts.left_gateway, world.counts.entered_client),
        (1, 1)
    );
}

#[test]
fn a_name_is_reached_and_answers() {
    let mut world = World::new(1);
    let query =
        Query::new(&Name::parse("wiki.corp.test").unwrap(), RecordType::A).to_upstream(7, true);
    let ends =
        ["100.64.0.1:4000", "100.100.111.1:53"].map(|text| text.parse::<SocketAddr>().unwrap());
    let question = ip::udp(&Pool::new(2_048, 1), ends[0], ends[1], &query).unwrap();
    world.programs_send(question.bytes());
    assert_eq!(world.counts.said_by_client, 1);
    world.programs_send(&udp("100.64.0.1:4000", "100.96.0.1:80"));
    world.pass(Duration::from_secs(3));
    world.network_sends(&udp("10.20.0.10:80", "100.64.0.1:4000"));

    assert_eq!(
        (world.counts.left_gateway, world.counts.entered_client),
        (1, 1)
    );
}

#[test]
fn the_rogues_have_sessions() {
    let mut world = World::new(1);
    world.grant(ROGUE, resource_id(1), None);
    world.rogue_sends(&udp("100.64.0.2:4000", "10.20.0.10:80"));
    assert_eq!(world.counts.left_gateway, 1);
    world.rogue_sends(&udp("100.64.0.2:4000", "10.21.0.10:80"));
    assert_eq!(
        (world.counts.left_gateway, world.counts.reached_rogue),
        (1, 1)
    );

    world.portal.policy = Policy::Grant(ROGUE_GATEWAY);
    world.programs_send(&udp("100.64.0.1:4000", "10.20.0.10:80"));
    world.rogue_gateway_sends(&udp("10.20.0.10:80", "100.64.0.1:4000"));
    world.rogue_gateway_sends(&udp("10.21.0.10:80", "100.64.0.1:4000"));
    assert_eq!(world.counts.entered_client, 1);
}

#[test]
fn what_was_granted_ends() {
    let mut world = World::new(1);
    world.grant(ROGUE, resource_id(1), Some(5));
    world.grant(ROGUE, resource_id(4), None);
    world.rogue_sends(&udp("100.64.0.2:4000", "10.20.0.10:80"));
    world.pass(Duration::from_secs(5));
    world.rogue_sends(&udp("100.64.0.2:4000", "10.20.0.10:80"));
    assert_eq!(world.counts.left_gateway, 1);
}

#[test]
fn errors_leave_about_packets_to_their_sender_alone() {
    let mut world = World::new(1);
    world.grant(ROGUE, resource_id(1), None);
    for (to, passed) in [("100.64.0.1:4000", 0), ("100.64.0.2:4000", 1)] {
        let quoted = ip::Packet::parse(udp("10.20.0.10:80", to)).unwrap();
        let pool = Pool::new(2_048, 1);
        let error = ip::icmp_error(&pool, &quoted, ip::IcmpError::Unreachable).unwrap();
        let mut error = ip::Packet::parse(error.bytes().to_vec()).unwrap();
        error.set_source(ROGUE_V4.parse().unwrap());
        world.rogue_sends(error.bytes());
        assert_eq!(world.counts.left_gateway, passed, "about one to {to}");
    }
}

#[test]
fn filters_that_change_count_at_once() {
    let mut world = World::new(1);
    world.grant(ROGUE, resource_id(1), None);
    let packet = udp("100.64.0.2:4000", "10.20.0.10:80");
    world.rogue_sends(&packet);
    for (last, passed) in [(79, 1), (80, 2)] {
        let range = PortRange {
            port_range_start: 53,
            port_range_end: last,
        };
        let reach = Reach::Network("10.20.0.0/16");
        world.change(resource_id(1), reach, vec![Filter::Udp(range)]);
        world.rogue_sends(&packet);
        assert_eq!(world.counts.left_gateway, passed);
    }
}

#[test]
fn an_error_about_a_flow_whose_access_has_ended_leaves_no_more() {
    let mut world = World::new(1);
    world.grant(ROGUE, resource_id(4), None);
    world.grant(ROGUE, resource_id(2), None);
    let proxies = (1..=4).map(|n| IpAddr::from([100, 96, 0, n]));
    let assigned = Control::AssignedIps(AssignedIps {
        resource: resource_id(2),
        domain: NAMES[0].to_owned(),
        proxy_ips: proxies.collect(),
    });
    let pool = Pool::new(2_048, 1);
    world.rogue_sends(assigned.to_packet(&pool).unwrap().bytes());
    world.rogue_sends(&udp("100.64.0.2:4000", "100.96.0.1:80"));
    world.network_sends(&udp("10.20.0.10:80", "100.64.0.2:4000"));
    let quoted = udp("100.96.0.1:80", "100.64.0.2:4000");
    let quoted = ip::Packet::parse(quoted).unwrap();
    let error = ip::icmp_error(&pool, &quoted, ip::IcmpError::Unreachable).unwrap();
    world.rogue_sends(error.bytes());
    assert_eq!(world.counts.left_gateway, 2);

    world.reject(ROGUE, resource_id(2));
    world.rogue_sends(error.bytes());
    assert_eq!(world.counts.left_gateway, 2);
}

#[test]
fn a_world_can_begin_connected() {
    let mut world = World::new(1);
    connect(&mut world);
    assert_eq!(world.counts.left_gateway, 3);
    world.rogue_gateway_sends(&udp("[fd20::10]:80", "[fd00:2021:1111::1]:4000"));
    world.network_sends(&udp("8.8.8.8:80", "100.64.0.1:4000"));
    world.network_sends(&udp("10.20.0.10:80", "100.64.0.1:4000"));
    assert_eq!(world.counts.entered_client, 3);
}

/// As many inputs as there is time for, of bytes that nobody has chosen.
#[test]
fn any_bytes_leave_both_roles_within_the_law() {
    let seeds: u64 = std::env::var("SEEDS").map_or(250, |text| text.parse().unwrap());
    let first: u64 = std::env::var("FIRST").map_or(0, |text| text.parse().unwrap());
    let mut all = Counts::default();
    for seed in first..first + seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let len = random.random_range(64..2_048);
        let bytes: Vec<u8> = (0..len).map(|_| random.random()).collect();
        let counts =
            std::panic::catch_unwind(|| run(&bytes)).unwrap_or_else(|_| panic!("seed {seed}"));
        all.left_gateway += counts.left_gateway;
        all.entered_client += counts.entered_client;
        all.said_by_client += counts.said_by_client;
        all.reached_rogue += counts.reached_rogue;
        all.reached_rogue_gateway += counts.reached_rogue_gateway;
    }
    println!("{seeds} seeds: {all:?}");
    let least = usize::try_from(seeds / 10).unwrap();
    assert!(
        all.left_gateway > least && all.entered_client > least / 4,
        "{all:?}"
    );
    assert!(
        all.reached_rogue > least && all.said_by_client > least,
        "{all:?}"
    );
}
