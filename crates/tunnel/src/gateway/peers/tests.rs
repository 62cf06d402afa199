//! Who may send what to whom: scenarios of gateway.md §20.2, by their numbers there.

use std::net::SocketAddr;
use std::time::Duration;

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::ip::{IcmpError, Packet, PortsOrId, icmp_error, udp};
use connlib_wire::portal::resource::{Filter, PortRange};
use uuid::Uuid;

use super::*;
use crate::drops::DropReason;
use crate::why::Verdict as Verdicts;

const ID: ClientId = ClientId(Uuid::from_u128(1));
const OTHER: ClientId = ClientId(Uuid::from_u128(2));
const CLIENT: [&str; 2] = ["100.64.0.7", "fd00:2021:1111::7"];
const OWN: [&str; 2] = ["100.64.0.9", "fd00:2021:1111::9"];
const PROXY: &str = "100.96.0.1";
const REAL: &str = "10.1.2.3";
const fn prohibited(reason: DropReason) -> Verdict {
    Verdict::Refuse(IcmpError::Prohibited, reason)
}

const FILTERED: Verdict = prohibited(DropReason::Filtered);
const NO_RESOURCE: Verdict = prohibited(DropReason::NoResource);
const FOREIGN: Verdict = prohibited(DropReason::ForeignSource);
const FOR_OTHERS: Verdict = prohibited(DropReason::NotForOthers);
const UNREACHABLE: Verdict = Verdict::Refuse(IcmpError::Unreachable, DropReason::NotInternet);

struct World {
    peers: Peers,
    now: Instant,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new() -> Self {
        Self {
            peers: Peers::default(),
            now: Instant::now(),
        }
    }

    fn grant(&mut self, resource: GatewayResource, until: Option<u64>) {
        let until = until.map(|secs| self.now + Duration::from_secs(secs));
        self.peers.grant(ID, addresses(CLIENT), resource, until);
    }

    /// Lets the first address of names stand for a name of a resource.
    fn name(&mut self, resource: u128) {
        let name = Name::parse("db.corp.example").unwrap();
        let found = Found {
            addresses: BTreeSet::from([ip(REAL)]),
            ..Found::default()
        };
        let proxies = BTreeSet::from([ip(PROXY)]);
        let peer = PeerId::from(ID);
        assert!(
            self.peers
                .set_up_name(self.now, peer, id(resource), &name, (&proxies, &found))
        );
    }

    fn out(&mut self, packet: &Packet<Buffer>) -> Verdict {
        let own = Some(addresses(OWN));
        self.peers.judge_outbound(self.now, ID, packet, own)
    }

    /// What becomes of a datagram of the client.
    fn to(&mut self, to: &str) -> Verdict {
        let from = match to.starts_with('[') {
            true => CLIENT[1],
            false => CLIENT[0],
        };
        self.out(&datagram(&end(from, 4_000), to))
    }

    /// Whether the client may have a datagram of the network.
    fn passes(&mut self, from: &str, to: &str) -> bool {
        let packet = datagram(from, to);
        let view = Packet::parse(packet.bytes()).unwrap();
        let client = self
            .peers
            .judge_inbound(self.now, &view, Some(addresses(OWN)));

        client == Ok(ID)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn id(n: u128) -> ResourceId {
    ResourceId(Uuid::from_u128(n))
}

fn end(ip: &str, port: u16) -> String {
    SocketAddr::new(self::ip(ip), port).to_string()
}

fn addresses([v4, v6]: [&str; 2]) -> (Ipv4Addr, Ipv6Addr) {
    (v4.parse().unwrap(), v6.parse().unwrap())
}

fn datagram(from: &str, to: &str) -> Packet<Buffer> {
    let [from, to] = [from, to].map(|end| end.parse().unwrap());
    udp(&Pool::new(2_048, 1), from, to, b"hello").unwrap()
}

fn segment(to: [u8; 4], port: u16) -> Packet<Buffer> {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 100, 64, 0, 7];
    bytes.extend(to);
    bytes.extend(4_000_u16.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    Packet::parse(Pool::new(2_048, 1).copy(&bytes).unwrap()).unwrap()
}

fn ports(first: u16, last: u16) -> PortRange {
    PortRange {
        port_range_start: first,
        port_range_end: last,
    }
}

fn network(n: u128, network: &str, filters: &[Filter]) -> GatewayResource {
    GatewayResource::Cidr {
        id: id(n),
        name: String::new(),
        address: network.parse().unwrap(),
        filters: filters.to_vec(),
    }
}

fn names(n: u128, filters: &[Filter]) -> GatewayResource {
    GatewayResource::Dns {
        id: id(n),
        name: String::new(),
        address: "*.corp.example".to_owned(),
        filters: filters.to_vec(),
    }
}

#[test]
fn s1_filters_of_one_network_end_with_their_grants() {
    let mut world = World::new();
    let lan = "10.20.0.0/16";
    world.grant(
        network(1, lan, &[Filter::Tcp(ports(1_000, 2_000))]),
        Some(30),
    );
    world.grant(
        network(2, lan, &[Filter::Udp(ports(1_000, 2_000))]),
        Some(60),
    );
    let start = world.now;
    for (secs, tcp, udp) in [
        (0, Verdict::Pass, Verdict::Pass),
        (30, FILTERED, Verdict::Pass),
        (60, NO_RESOURCE, NO_RESOURCE),
    ] {
        world.now = start + Duration::from_secs(secs);
        assert_eq!(world.out(&segment([10, 20, 0, 10], 1_500)), tcp, "{secs}");
        assert_eq!(world.to("10.20.0.10:1500"), udp, "{secs}");
        assert_eq!(
            world.passes("10.20.0.10:1500", "100.64.0.7:4000"),
            udp == Verdict::Pass
        );
    }
}

#[test]
fn s2_the_gateway_itself_needs_no_resource() {
    let mut world = World::new();
    world.grant(network(1, "10.20.0.0/16", &[Filter::Icmp]), None);
    for (own, client) in OWN.into_iter().zip(CLIENT) {
        assert_eq!(world.to(&end(own, 7)), Verdict::Pass);
        assert!(world.passes(&end(own, 7), &end(client, 4_000)));
    }
}

#[test]
fn s3_filters_of_a_name_and_of_a_network_with_its_address_do_not_mix() {
    let mut world = World::new();
    world.grant(names(1, &[Filter::Udp(ports(80, 80))]), None);
    world.grant(
        network(2, "10.1.2.3/32", &[Filter::Udp(ports(443, 443))]),
        None,
    );
    world.name(1);

    assert!(matches!(world.to("100.96.0.1:80"), Verdict::Translate(_)));
    assert_eq!(world.to("100.96.0.1:443"), FILTERED);
    assert_eq!(world.to("10.1.2.3:80"), FILTERED);
    assert!(!matches!(world.to("10.1.2.3:443"), Verdict::Refuse(..)));
}

#[test]
fn s4_the_internet_opens_no_names() {
    let mut world = World::new();
    world.grant(GatewayResource::Internet { id: id(1) }, None);
    world.grant(names(2, &[Filter::Udp(ports(80, 80))]), None);
    world.name(2);

    assert_eq!(world.to("100.96.0.1:443"), FILTERED);
    for port in [1, 80, 65_535] {
        assert_eq!(world.to(&end("1.1.1.1", port)), Verdict::Pass);
        assert!(world.passes(&end("1.1.1.1", port), "100.64.0.7:4000"));
    }
}

#[test]
fn s5_what_is_private_is_not_the_internet() {
    let mut world = World::new();
    world.grant(GatewayResource::Internet { id: id(1) }, None);

    for refused in [
        "10.0.0.1:1",
        "127.0.0.1:1",
        "169.254.1.1:1",
        "172.20.0.1:1",
        "192.168.1.1:1",
        "255.255.255.255:1",
        "[fe80::1]:1",
        "[::1]:1",
        "[::ffff:1.2.3.4]:1",
        "[fd12::1]:1",
    ] {
        assert_eq!(world.to(refused), UNREACHABLE, "{refused}");
    }
    for peer in ["100.64.0.8:1", "[fd00:2021:1111::8]:1"] {
        assert_eq!(world.to(peer), FOR_OTHERS, "{peer}");
    }
    for multicast in ["224.0.0.1:1", "[ff02::16]:1"] {
        assert_eq!(
            world.to(multicast),
            Verdict::Drop(DropReason::NotForOthers),
            "noise"
        );
    }
    for public in ["1.1.1.1:1", "[2001:db8::1]:1"] {
        assert_eq!(world.to(public), Verdict::Pass, "{public}");
    }
    assert!(!world.passes("192.168.1.1:53", "100.64.0.7:4000"));
}

#[test]
fn a_network_that_was_granted_is_reached_beside_the_internet() {
    let mut world = World::new();
    world.grant(GatewayResource::Internet { id: id(1) }, None);
    world.grant(
        network(2, "10.20.0.0/16", &[Filter::Udp(ports(53, 53))]),
        None,
    );

    assert_eq!(world.to("10.20.0.1:53"), Verdict::Pass);
    assert_eq!(world.to("10.20.0.1:54"), FILTERED);
    world.peers.revoke(ID, id(1));
    assert_eq!(world.to("1.1.1.1:53"), NO_RESOURCE, "asking again may help");
}

#[test]
fn s10_two_resources_share_a_name_each_with_its_filters() {
    let mut world = World::new();
    world.grant(names(1, &[Filter::Udp(ports(80, 80))]), None);
    world.grant(names(2, &[Filter::Tcp(ports(443, 443))]), None);
    world.name(1);
    world.name(2);

    assert!(matches!(world.to("100.96.0.1:80"), Verdict::Translate(_)));
    let segment = |port| segment([100, 96, 0, 1], port);
    assert!(matches!(world.out(&segment(443)), Verdict::Translate(_)));
    assert_eq!(world.out(&segment(80)), FILTERED);
}

/// The client's error about a datagram that it got.
fn error_about(from: &str, to: &str) -> Packet<Buffer> {
    icmp_error(
        &Pool::new(2_048, 1),
        &datagram(from, to),
        IcmpError::Unreachable,
    )
    .unwrap()
}

#[test]
fn s17_errors_of_a_client_about_nothing_go_nowhere_and_are_not_answered() {
    let mut world = World::new();
    world.grant(network(1, "10.20.0.0/16", &[Filter::Icmp]), None);
    world.grant(names(2, &[]), None);
    world.name(2);
    let client = end(CLIENT[0], 4_000);
    for (from, to) in [
        ("100.96.0.1:443", client.as_str()),
        ("10.20.0.10:53", &client),
        ("10.99.0.1:53", &client),
        ("100.64.0.8:53", &client),
        ("100.96.0.1:443", "100.64.0.8:4000"),
    ] {
        let error = error_about(from, to);
        let verdict = world.out(&error);
        assert!(matches!(verdict, Verdict::Drop(_)), "{from} {to}");
    }
}

#[test]
fn errors_of_a_client_find_the_flow_that_they_are_about() {
    let mut world = World::new();
    world.grant(
        network(1, "10.20.0.0/16", &[Filter::Udp(ports(53, 53))]),
        None,
    );
    world.grant(names(2, &[]), None);
    world.name(2);
    let client = end(CLIENT[0], 4_000);
    assert_eq!(
        world.out(&error_about("10.20.0.10:53", &client)),
        Verdict::Pass
    );

    // Another flow of the client has that port outside.
    let other = datagram(&client, &end("100.96.0.2", 443));
    let name = Name::parse("db2.corp.example").unwrap();
    let found = Found {
        addresses: BTreeSet::from([ip(REAL)]),
        ..Found::default()
    };
    let proxies = BTreeSet::from([ip("100.96.0.2")]);
    let peer = PeerId::from(ID);
    assert!(
        world
            .peers
            .set_up_name(world.now, peer, id(2), &name, (&proxies, &found))
    );
    assert!(matches!(world.out(&other), Verdict::Translate(_)));
    let Verdict::Translate(outside) = world.to("100.96.0.1:443") else {
        panic!("no flow");
    };
    assert_ne!(outside.port, 4_000);

    let error = error_about("100.96.0.1:443", &client);
    let Verdict::TranslateError(quoted) = world.out(&error) else {
        panic!("it is dropped");
    };
    assert_eq!(quoted.source, ip(REAL));
    assert_eq!(quoted.destination, ip(CLIENT[0]));
    let expected = PortsOrId::Ports {
        source: 443,
        destination: outside.port,
    };
    assert_eq!(quoted.ports_or_id, expected);

    // It comes from where it says, or it is about nothing.
    let mut elsewhere = error.bytes().to_vec();
    let mut elsewhere = Packet::parse(elsewhere.as_mut_slice()).unwrap();
    elsewhere.set_destination(ip("10.20.0.10"));
    let verdict = world
        .peers
        .judge_outbound(world.now, ID, &elsewhere, Some(addresses(OWN)));
    assert_eq!(verdict, Verdict::Drop(DropReason::StrayError));
}

#[test]
fn s18_nobody_sends_as_somebody_else() {
    let mut world = World::new();
    world.grant(network(1, "10.20.0.0/16", &[]), None);
    let other = addresses(["100.64.0.8", "fd00:2021:1111::8"]);
    world
        .peers
        .grant(OTHER, other, network(1, "10.20.0.0/16", &[]), None);

    for source in ["100.64.0.8", "192.168.1.5", OWN[0], "10.20.0.10", PROXY] {
        let packet = datagram(&end(source, 4_000), "10.20.0.10:53");
        assert_eq!(world.out(&packet), FOREIGN, "{source}");
        let to_gateway = datagram(&end(source, 4_000), &end(OWN[0], 53));
        assert_eq!(world.out(&to_gateway), FOREIGN, "{source}");
    }
}

#[test]
fn no_client_reaches_another_through_the_gateway() {
    let mut world = World::new();
    world.grant(network(1, "0.0.0.0/0", &[]), None);

    assert_eq!(world.to("100.64.0.8:1"), FOR_OTHERS);
    for source in ["100.64.0.8:1", "100.96.0.1:1"] {
        assert!(!world.passes(source, "100.64.0.7:4000"), "{source}");
    }
}

#[test]
fn other_filters_count_at_once() {
    let mut world = World::new();
    let lan = |filters: &[Filter]| network(1, "10.20.0.0/16", filters);
    world.grant(lan(&[]), None);
    assert_eq!(world.to("10.20.0.1:53"), Verdict::Pass);

    world.peers.update_filters(&lan(&[Filter::Icmp]));
    assert_eq!(world.to("10.20.0.1:53"), FILTERED);
    world
        .peers
        .update_filters(&lan(&[Filter::Udp(ports(0, 53))]));
    assert_eq!(world.to("10.20.0.1:53"), Verdict::Pass);
    assert_eq!(world.to("10.20.0.1:54"), FILTERED);
}

#[test]
fn what_becomes_of_a_clients_packets_is_told_as_it_is_decided() {
    let mut world = World::new();
    world.grant(names(1, &[Filter::Udp(ports(80, 80))]), Some(90));
    world.grant(
        network(2, "10.20.0.0/16", &[Filter::Tcp(ports(22, 22))]),
        None,
    );
    world.name(1);
    for (packet, verdict, resource, why) in [
        ("10.20.0.1:22/tcp", Verdicts::Passes, Some(2), "a resource"),
        ("10.20.0.1:23/tcp", Verdicts::Refused, Some(2), "filters"),
        ("10.21.0.1:22/tcp", Verdicts::Refused, None, "no resource"),
        ("100.64.0.8/icmp", Verdicts::Refused, None, "each other"),
        ("224.0.0.1/icmp", Verdicts::Refused, None, "for many"),
        ("100.64.0.9:53535/udp", Verdicts::Passes, None, "itself"),
        ("100.96.0.1:80/udp", Verdicts::Passes, Some(1), REAL),
        ("100.96.0.1:80/tcp", Verdicts::Refused, Some(1), "filters"),
        ("100.96.0.2:80/udp", Verdicts::Refused, None, "no name"),
        ("db.corp.example:80/udp", Verdicts::Passes, Some(1), REAL),
        (
            "x.corp.example:80/udp",
            Verdicts::Refused,
            None,
            "hasn't told",
        ),
        ("db.example:80/udp", Verdicts::Refused, None, "such a name"),
    ] {
        let question = packet.parse().unwrap();
        let own = Some(addresses(OWN));
        let told = world.peers.explain(world.now, &question, own);
        let [(client, told)] = told.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!((*client, told.verdict), (ID, verdict), "{told:?}");
        assert!(told.why.contains(why), "{told:?}");
        let id_of = |n: u128| id(n).to_string();
        let named = told.resource.as_ref().map(|resource| resource.id.clone());
        assert_eq!(named, resource.map(id_of), "{packet}");
        let ends = (resource == Some(1)).then_some(90);
        assert_eq!(told.ends_in_secs, ends, "{packet}");
    }

    world.grant(GatewayResource::Internet { id: id(3) }, None);
    for (packet, verdict, resource) in [
        ("1.1.1.1:22/tcp", Verdicts::Passes, Some(3)),
        ("192.168.0.1:22/tcp", Verdicts::Refused, None),
        ("10.20.0.1:22/tcp", Verdicts::Passes, Some(2)),
    ] {
        let question = packet.parse().unwrap();
        let told = world.peers.explain(world.now, &question, None);
        let (_, told) = &told[0];
        assert_eq!(told.verdict, verdict, "{told:?}");
        let named = told.resource.as_ref().map(|resource| resource.id.clone());
        assert_eq!(named, resource.map(|n| id(n).to_string()), "{packet}");
    }
}

proptest::proptest! {
    /// P6: what a client sends comes from its own addresses or goes nowhere, and it gets nothing that is for others. No grant
    /// changes that, not even one of everything.
    #[test]
    fn p6_a_client_is_nobody_but_itself(
        is_v6: bool,
        near_source: bool,
        near_destination: bool,
        source: u128,
        destination: u128,
        grants_all: bool,
    ) {
        // Half of the addresses differ from the client's own by little.
        let address = |is_near: bool, random: u128| -> IpAddr {
            let [v4, v6] = CLIENT.map(ip);
            match (is_v6, v4, v6) {
                (false, IpAddr::V4(v4), _) => {
                    let random = if is_near { random as u32 & 3 } else { random as u32 };
                    Ipv4Addr::from(u32::from(v4) ^ random).into()
                }
                (_, _, IpAddr::V6(v6)) => {
                    let random = if is_near { random & 3 } else { random };
                    Ipv6Addr::from(u128::from(v6) ^ random).into()
                }
                _ => unreachable!("they are of these versions"),
            }
        };
        let (source, destination) = (address(near_source, source), address(near_destination, destination));
        let mut world = World::new();
        let everything = ["0.0.0.0/0", "::/0"];
        for (n, all) in everything.iter().enumerate().filter(|_| grants_all) {
            world.grant(network(n as u128, all, &[]), None);
        }
        world.grant(network(7, "10.0.0.0/8", &[]), None);
        let own = CLIENT.map(ip);
        let packet = datagram(&end(&source.to_string(), 1), &end(&destination.to_string(), 2));

        let verdict = world.out(&packet);
        let passes = matches!(
            verdict,
            Verdict::Pass | Verdict::Translate(_) | Verdict::TranslateError(_) | Verdict::NameServer
        );
        proptest::prop_assert!(!passes || own.contains(&source), "{verdict:?}");
        let comes_in = world.passes(&end(&source.to_string(), 1), &end(&destination.to_string(), 2));
        proptest::prop_assert!(!comes_in || own.contains(&destination));
    }
}
