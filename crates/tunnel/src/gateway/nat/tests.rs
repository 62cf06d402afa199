//! gateway.md §20: V6, V7, V10, V13, the scenarios of names, P1–P3 and P10.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::dns::Name;
use connlib_wire::id::ResourceId;
use connlib_wire::ip::{self, Packet};

use super::{Found, Incoming, Inside, Kind, Nat, Outside, TcpEnd, Untranslated};

const CLIENT: &str = "100.64.0.7";
const PROXIES: [&str; 8] = [
    "100.96.0.1",
    "100.96.0.2",
    "100.96.0.3",
    "100.96.0.4",
    "fd00:2021:1111:8000::",
    "fd00:2021:1111:8000::1",
    "fd00:2021:1111:8000::2",
    "fd00:2021:1111:8000::3",
];

#[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
fn start() -> Instant {
    Instant::now()
}

fn after(start: Instant, secs: u64) -> Instant {
    start + Duration::from_secs(secs)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn found(texts: &[&str]) -> Found {
    Found {
        addresses: ips(texts),
        ..Found::default()
    }
}

fn resource(number: u128) -> ResourceId {
    let text = format!("8f3b2c1a-0d4e-4f5a-9b6c-{number:012}");
    text.parse().unwrap()
}

fn set_up(nat: &mut Nat, name: &str, proxies: &[&str], real: &[&str]) {
    let name = Name::parse(name).unwrap();
    assert!(nat.set_up(&name, resource(1), &ips(proxies), &found(real)));
}

fn nat(real: &[&str]) -> Nat {
    let mut nat = Nat::default();
    set_up(&mut nat, "db.corp.example", &PROXIES, real);
    nat
}

fn udp(source: &str, destination: &str) -> Packet<Buffer> {
    let end = |text: &str| -> SocketAddr { text.parse().unwrap() };
    ip::udp(
        &Pool::new(2_048, 1),
        end(source),
        end(destination),
        b"hello",
    )
    .unwrap()
}

/// From the client's port to the first address.
fn out(port: u16) -> Packet<Buffer> {
    udp(&format!("{CLIENT}:{port}"), "100.96.0.1:443")
}

/// Back from a resource to the port of the network's side.
fn back(real: &str, port: u16) -> Packet<Buffer> {
    udp(&format!("{real}:443"), &format!("{CLIENT}:{port}"))
}

fn udp_to(port: u16, real: &str) -> Outside {
    Outside {
        kind: Kind::Udp,
        port,
        real: ip(real),
    }
}

fn udp_from(port: u16) -> Inside {
    Inside {
        kind: Kind::Udp,
        port,
        proxy: ip(PROXIES[0]),
    }
}

#[test]
fn the_clients_own_port_is_kept_where_it_is_free() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    assert_eq!(
        nat.outgoing(now, &out(40_000)),
        Ok(udp_to(40_000, "10.1.2.3"))
    ); // V6
    assert_eq!(
        nat.outgoing(now, &out(40_000)),
        Ok(udp_to(40_000, "10.1.2.3"))
    );

    // The same port to another address of the same name: V7.
    let other = udp("100.64.0.7:40000", "100.96.0.2:443");
    assert_eq!(nat.outgoing(now, &other), Ok(udp_to(40_001, "10.1.2.3")));
    let last = udp("100.64.0.7:65535", "100.96.0.1:443");
    assert_eq!(nat.outgoing(now, &last), Ok(udp_to(65_535, "10.1.2.3")));
    let wraps = udp("100.64.0.7:65535", "100.96.0.2:443");
    assert_eq!(nat.outgoing(now, &wraps), Ok(udp_to(1, "10.1.2.3")));
}

#[test]
fn answers_find_their_flow_and_nothing_else_does() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    nat.outgoing(now, &out(40_000)).unwrap();
    let moved = udp("100.64.0.7:40000", "100.96.0.2:443");
    nat.outgoing(now, &moved).unwrap();

    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Of(udp_from(40_000))
    );
    let Incoming::Of(second) = nat.incoming(now, &back("10.1.2.3", 40_001)) else {
        panic!("lost");
    };
    assert_eq!((second.port, second.proxy), (40_000, ip(PROXIES[1])));
    assert_eq!(
        nat.incoming(now, &back("10.1.2.4", 40_000)),
        Incoming::Foreign
    );
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_002)),
        Incoming::Foreign
    );
}

#[test]
fn errors_of_the_network_find_the_flow_that_they_quote() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    nat.outgoing(now, &out(40_000)).unwrap();
    let as_sent = udp("100.64.0.7:40000", "10.1.2.3:443");
    let error = ip::icmp_error(&Pool::new(2_048, 1), &as_sent, ip::IcmpError::Unreachable).unwrap();
    assert_eq!(nat.incoming(now, &error), Incoming::Of(udp_from(40_000)));
    let of_another = udp("100.64.0.7:40001", "10.1.2.3:443");
    let error = ip::icmp_error(
        &Pool::new(2_048, 1),
        &of_another,
        ip::IcmpError::Unreachable,
    )
    .unwrap();
    assert_eq!(nat.incoming(now, &error), Incoming::Foreign);
}

#[test]
fn addresses_are_dealt_out_in_order_and_families_never_mix() {
    let real = ["10.0.0.2", "10.0.0.1", "2001:db8::1"];
    let nat = nat(&real);
    let to: Vec<_> = PROXIES
        .iter()
        .map(|proxy| {
            nat.translation(ip(proxy))
                .unwrap()
                .real
                .unwrap()
                .to_string()
        })
        .collect();
    let [a, b, v6] = ["10.0.0.1", "10.0.0.2", "2001:db8::1"];
    assert_eq!(to, [a, b, a, b, v6, v6, v6, v6]);
}

/// Scenario 9.
#[test]
fn a_family_that_a_name_lacks_is_known_and_leads_nowhere() {
    for (real, missing, there) in [("10.0.0.1", 4, 0), ("2001:db8::1", 0, 4)] {
        let (now, mut nat) = (start(), nat(&[real]));
        let packet = |proxy: &str| match ip(proxy) {
            IpAddr::V4(_) => udp("100.64.0.7:4000", &format!("{proxy}:443")),
            IpAddr::V6(_) => udp("[fd00:2021:1111::7]:4000", &format!("[{proxy}]:443")),
        };
        assert_eq!(
            nat.outgoing(now, &packet(PROXIES[missing])),
            Err(Untranslated::NoAddress)
        );
        assert!(nat.outgoing(now, &packet(PROXIES[there])).is_ok());
    }
    let mut nat = nat(&[]);
    assert_eq!(nat.outgoing(start(), &out(1)), Err(Untranslated::NoAddress));
}

/// Scenario 7.
#[test]
fn flows_go_on_to_where_they_went_when_a_name_moves() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    nat.outgoing(now, &out(40_000)).unwrap();
    set_up(&mut nat, "db.corp.example", &PROXIES, &["10.9.9.9"]);
    assert_eq!(
        nat.outgoing(now, &out(40_000)),
        Ok(udp_to(40_000, "10.1.2.3"))
    );
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Of(udp_from(40_000))
    );
    assert_eq!(
        nat.outgoing(now, &out(40_001)),
        Ok(udp_to(40_001, "10.9.9.9"))
    );
}

#[test]
fn a_connection_that_is_idle_for_two_hours_stays_where_it_is_while_its_name_moves() {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    let (begun, mut nat) = (start(), nat(&["10.1.2.3"]));
    let inside = Inside {
        kind: Kind::Tcp,
        ..udp_from(40_000)
    };
    let first = nat.outgoing(begun, &segment(40_000, SYN)).unwrap();
    nat.answered(begun, &inside);
    nat.outgoing(begun, &segment(40_000, ACK)).unwrap();

    // Its name is looked up each five minutes, and is somewhere else each time; others come and go.
    for minutes in (5..=120).step_by(5) {
        let now = after(begun, minutes * 60);
        let elsewhere = format!("10.9.9.{minutes}");
        set_up(&mut nat, "db.corp.example", &PROXIES, &[&elsewhere]);
        let other = nat.outgoing(now, &segment(50_000 + minutes as u16, SYN));
        assert_eq!(other.unwrap().real, ip(&elsewhere));
        nat.expire(now);
    }
    let now = after(begun, 7_200);
    assert_eq!(nat.outgoing(now, &segment(40_000, ACK)), Ok(first));
    assert_eq!(first.real, ip("10.1.2.3"));
    let mut answer = segment(443, ACK).into_inner();
    answer[12..16].copy_from_slice(&[10, 1, 2, 3]);
    answer[16..20].copy_from_slice(&[100, 64, 0, 7]);
    answer[22..24].copy_from_slice(&first.port.to_be_bytes());
    let answer = Packet::parse(answer).unwrap();
    assert_eq!(nat.incoming(now, &answer), Incoming::Of(inside));
}

#[test]
fn a_socket_has_one_port_towards_everybody() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3", "10.1.2.4"]));
    for proxy in [PROXIES[0], PROXIES[1]] {
        for port in [3_478, 5_349, 60_000] {
            let packet = udp(&format!("{CLIENT}:40000"), &format!("{proxy}:{port}"));
            assert_eq!(nat.outgoing(now, &packet).unwrap().port, 40_000);
        }
    }
}

#[test]
fn a_name_leads_to_hosts_alone_whatever_its_servers_say() {
    let nobodys = [
        "100.64.0.8",
        "100.96.0.1",
        "100.100.111.1",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
    ];
    let mut nat = nat(&nobodys);
    assert_eq!(nat.outgoing(start(), &out(1)), Err(Untranslated::NoAddress));
    set_up(
        &mut nat,
        "db.corp.example",
        &PROXIES,
        &[&nobodys[..], &["10.1.2.3"]].concat(),
    );
    assert_eq!(nat.outgoing(start(), &out(1)), Ok(udp_to(1, "10.1.2.3")));
}

/// Scenario 8.
#[test]
fn addresses_that_stand_for_another_name_make_all_before_void() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    nat.outgoing(now, &out(40_000)).unwrap();
    set_up(&mut nat, "www.corp.example", &PROXIES[..4], &["10.7.7.7"]);
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Foreign
    );
    assert_eq!(
        nat.outgoing(now, &out(40_000)),
        Ok(udp_to(40_000, "10.7.7.7"))
    );
    assert!(nat.translation(ip(PROXIES[4])).is_none());
}

/// Scenario 10, and what of one resource stays when the other goes.
#[test]
fn two_resources_share_a_name() {
    let mut nat = nat(&["10.1.2.3"]);
    let name = Name::parse("db.corp.example").unwrap();
    assert!(nat.set_up(&name, resource(2), &ips(&PROXIES), &found(&["10.1.2.3"])));
    let resources = |nat: &Nat| nat.translation(ip(PROXIES[0])).map(|it| it.resources.len());
    assert_eq!(resources(&nat), Some(2));
    nat.remove_resource(resource(1));
    assert_eq!(resources(&nat), Some(1));
    nat.remove_resource(resource(2));
    assert_eq!(resources(&nat), None);
    assert_eq!(nat.outgoing(start(), &out(1)), Err(Untranslated::Unknown));
}

/// Scenario 6.
#[test]
fn an_answered_flow_lasts_two_minutes_and_is_remembered_afterwards() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    nat.outgoing(now, &out(40_000)).unwrap();
    let inside = udp_from(40_000);
    nat.expire(after(now, 30));
    nat.answered(after(now, 30), &inside);
    nat.expire(after(now, 149));
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Of(inside)
    );
    nat.expire(after(now, 150));
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Ended
    );

    // The port is free again, and the flow a new one.
    let again = after(now, 151);
    assert_eq!(
        nat.outgoing(again, &out(40_000)),
        Ok(udp_to(40_000, "10.1.2.3"))
    );
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Of(inside)
    );
    nat.expire(after(now, 2_000));
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Ended
    );
    nat.expire(after(now, 3_000));
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Foreign
    );
}

/// Scenario 19.
#[test]
fn tcp_ends_when_it_says_so_or_was_never_answered() {
    let flow = Inside {
        kind: Kind::Tcp,
        port: 40_000,
        proxy: ip(PROXIES[0]),
    };
    let tcp = |now: Instant| {
        let mut nat = nat(&["10.1.2.3"]);
        assert!(nat.outgoing(now, &syn()).is_ok());
        nat
    };
    let is_there = |nat: &Nat| nat.sessions.get(&flow).is_some();
    let now = start();

    let mut unanswered = tcp(now);
    unanswered.expire(now + Duration::from_millis(59_999));
    assert!(is_there(&unanswered));
    unanswered.expire(after(now, 60));
    assert!(!is_there(&unanswered));

    let mut idle = tcp(now);
    idle.answered(now, &flow);
    idle.expire(after(now, 7_439));
    assert!(is_there(&idle), "a keep-alive after two hours finds it");
    idle.expire(after(now, 7_440));
    assert!(!is_there(&idle));

    let mut reset = tcp(now);
    reset.note_end(now, &flow, TcpEnd::Reset, true);
    assert_eq!(reset.poll_timeout(), Some(now));
    reset.expire(now);
    assert!(!is_there(&reset));

    let mut finished = tcp(now);
    finished.answered(now, &flow);
    finished.note_end(now, &flow, TcpEnd::Finished, true);
    finished.expire(after(now, 60));
    assert!(is_there(&finished), "one end may go on");
    finished.answered(after(now, 60), &flow);
    finished.note_end(after(now, 60), &flow, TcpEnd::Finished, false);
    finished.expire(now + Duration::from_millis(64_999));
    assert!(is_there(&finished));
    finished.expire(after(now, 65));
    assert!(!is_there(&finished));
}

#[test]
fn what_has_neither_ports_nor_an_id_is_not_translated() {
    let mut nat = nat(&["10.1.2.3"]);
    let mut gre = out(1).bytes().to_vec();
    gre[9] = 47;
    let gre = Packet::parse(gre.as_slice()).unwrap();
    assert_eq!(nat.outgoing(start(), &gre), Err(Untranslated::Protocol));
}

/// P2 and P3: every port of an address is found, and none twice.
#[test]
fn all_ports_of_an_address_are_used_before_none_is_left() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    let mut seen = BTreeSet::new();
    for port in 1..=65_535_u16 {
        let packet = udp(&format!("{CLIENT}:{port}"), "100.96.0.1:443");
        assert!(seen.insert(nat.outgoing(now, &packet).unwrap()));
    }
    let last = nat.outgoing(now, &udp("100.64.0.7:2", "100.96.0.3:443"));
    assert_eq!((seen.len(), last), (65_535, Err(Untranslated::Exhausted)));
    nat.expire(after(now, 60));
    let free = nat.outgoing(now, &udp("100.64.0.7:2", "100.96.0.3:443"));
    assert_eq!(free, Ok(udp_to(2, "10.1.2.3")));
}

fn syn() -> Packet<Buffer> {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    bytes.extend([100, 64, 0, 7, 100, 96, 0, 1]);
    bytes.extend([
        0x9c, 0x40, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    Packet::parse(Pool::new(2_048, 1).copy(&bytes).unwrap()).unwrap()
}

#[test]
fn an_address_is_used_as_itself_beside_a_name_that_has_it() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    let direct = |port: u16| udp(&format!("{CLIENT}:{port}"), "10.1.2.3:443");
    let as_itself = |port| Inside {
        kind: Kind::Udp,
        port,
        proxy: ip("10.1.2.3"),
    };

    // Whoever comes second gets another port, and each its own answers.
    nat.outgoing(now, &out(40_000)).unwrap();
    let found = nat.outgoing_direct(now, &direct(40_000));
    assert_eq!(found, Some(Ok(udp_to(40_001, "10.1.2.3"))));
    let found = nat.outgoing_direct(now, &direct(50_000));
    assert_eq!(found, Some(Ok(udp_to(50_000, "10.1.2.3"))));
    let found = nat.outgoing(now, &out(50_000));
    assert_eq!(found, Ok(udp_to(50_001, "10.1.2.3")));
    for (port, flow) in [
        (40_000, udp_from(40_000)),
        (40_001, as_itself(40_000)),
        (50_000, as_itself(50_000)),
        (50_001, udp_from(50_000)),
    ] {
        assert_eq!(
            nat.incoming(now, &back("10.1.2.3", port)),
            Incoming::Of(flow),
            "{port}"
        );
    }

    // Another address is nobody's business.
    let elsewhere = udp("100.64.0.7:40000", "10.1.2.4:443");
    assert_eq!(nat.outgoing_direct(now, &elsewhere), None);
}

#[test]
fn what_was_a_names_is_free_for_the_address_itself() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    let direct = udp(&format!("{CLIENT}:40000"), "10.1.2.3:443");
    nat.outgoing(now, &out(40_000)).unwrap();
    nat.expire(after(now, 60));
    nat.remove_resource(resource(1));
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Ended
    );

    let found = nat.outgoing_direct(after(now, 61), &direct);
    assert_eq!(found, Some(Ok(udp_to(40_000, "10.1.2.3"))));
    assert!(matches!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Of(flow) if flow.is_direct()
    ));
    // Once that ends too, nothing keeps a late answer from the client, who knows the address.
    nat.expire(after(now, 121));
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 40_000)),
        Incoming::Foreign
    );
    assert_eq!(nat.outgoing_direct(after(now, 122), &direct), None);
}

#[test]
fn what_nobody_said_anything_of_stays_as_it_was() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3", "2001:db8::3"]));
    let only_v4 = Found {
        lacks_v6: true,
        ..found(&["10.1.2.9"])
    };
    let name = Name::parse("db.corp.example").unwrap();
    assert!(nat.set_up(&name, resource(1), &ips(&PROXIES), &only_v4));
    let real = |nat: &Nat, proxy: &str| nat.translation(ip(proxy)).unwrap().real;
    assert_eq!(real(&nat, PROXIES[0]), Some(ip("10.1.2.9")));
    assert_eq!(real(&nat, PROXIES[4]), Some(ip("2001:db8::3")));

    // What is known to be gone is gone.
    set_up(&mut nat, "db.corp.example", &PROXIES, &["10.1.2.9"]);
    assert_eq!(real(&nat, PROXIES[4]), None);
    let to_v6 = udp("[fd00:2021:1111::7]:40000", "[fd00:2021:1111:8000::]:443");
    assert_eq!(nat.outgoing(now, &to_v6), Err(Untranslated::NoAddress));
}

#[test]
fn addresses_that_names_leave_are_as_before() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    let direct = |real: &str| udp(&format!("{CLIENT}:40000"), &format!("{real}:443"));
    set_up(&mut nat, "db.corp.example", &PROXIES, &["10.1.2.9"]);
    assert_eq!(nat.outgoing_direct(now, &direct("10.1.2.3")), None);
    assert!(nat.outgoing_direct(now, &direct("10.1.2.9")).is_some());
    nat.remove_resource(resource(1));
    nat.expire(after(now, 60));
    assert_eq!(
        nat.outgoing_direct(after(now, 60), &direct("10.1.2.9")),
        None
    );
}

/// A segment of the client to the first address, without anything in it.
fn segment(port: u16, flags: u8) -> Packet<Vec<u8>> {
    let mut bytes = vec![0; 40];
    bytes[..4].copy_from_slice(&[0x45, 0, 0, 40]);
    bytes[8..10].copy_from_slice(&[64, 6]);
    bytes[12..16].copy_from_slice(&[100, 64, 0, 7]);
    bytes[16..20].copy_from_slice(&[100, 96, 0, 1]);
    bytes[20..22].copy_from_slice(&port.to_be_bytes());
    bytes[22..24].copy_from_slice(&443_u16.to_be_bytes());
    bytes[32..34].copy_from_slice(&[0x50, flags]);
    Packet::parse(bytes).unwrap()
}

#[test]
fn a_connection_from_the_port_of_one_that_is_over_is_a_new_one() {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    let inside = Inside {
        kind: Kind::Tcp,
        ..udp_from(40_000)
    };
    nat.outgoing(now, &segment(40_000, SYN)).unwrap();
    for by_client in [true, false] {
        nat.note_end(now, &inside, TcpEnd::Finished, by_client);
    }
    set_up(&mut nat, "db.corp.example", &PROXIES, &["10.1.2.9"]);
    let last = nat.outgoing(now, &segment(40_000, ACK)).unwrap();
    assert_eq!(last.real, ip("10.1.2.3"));

    // It goes where the name is now, and pauses without ending.
    let again = nat.outgoing(after(now, 1), &segment(40_000, SYN)).unwrap();
    assert_eq!((again.port, again.real), (40_000, ip("10.1.2.9")));
    nat.answered(after(now, 1), &inside);
    nat.expire(after(now, 100));
    let paused = nat.outgoing(after(now, 100), &segment(40_000, ACK));
    assert_eq!(paused, Ok(again));
    assert_eq!(nat.sessions.len(), 1);
}

#[test]
fn a_client_has_so_many_flows_and_no_more() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3", "10.1.2.4"]));
    let from = |port: u16, proxy: &str| udp(&format!("{CLIENT}:{port}"), &format!("{proxy}:443"));
    nat.outgoing(now, &from(1, PROXIES[0])).unwrap();
    nat.answered(now, &udp_from(1));
    for port in 2..=u16::MAX {
        nat.outgoing(now, &from(port, PROXIES[0])).unwrap();
    }
    // The same address, whose ports are all taken; at once, and without a search.
    assert_eq!(
        nat.outgoing(now, &from(7, PROXIES[2])),
        Err(Untranslated::Exhausted)
    );
    nat.outgoing(now, &from(1, PROXIES[1])).unwrap();
    assert_eq!(nat.sessions.len(), super::MAX_SESSIONS);
    assert_eq!(
        nat.outgoing(now, &from(7, PROXIES[2])),
        Err(Untranslated::Exhausted)
    );
    assert_eq!(nat.sessions.len(), super::MAX_SESSIONS, "none ended for it");
    for port in 1..=1_000 {
        let later = now + Duration::from_millis(port.into());
        nat.outgoing(later, &from(port, PROXIES[1])).unwrap();
        assert!(nat.sessions.len() <= super::MAX_SESSIONS);
        // It looks at each.
        if port.is_multiple_of(250) {
            nat.sessions.assert_whole();
        }
    }
    // One that was answered outlives those that weren't.
    assert_eq!(
        nat.incoming(now, &back("10.1.2.3", 1)),
        Incoming::Of(udp_from(1))
    );
}

#[test]
fn ended_flows_are_forgotten_in_time_and_few_are_kept() {
    let (now, mut nat) = (start(), nat(&["10.1.2.3"]));
    for port in 1..=20_000 {
        nat.outgoing(now, &out(port)).unwrap();
    }
    nat.expire(after(now, 60));
    assert!(nat.sessions.is_empty() && nat.ports.is_empty());
    assert_eq!(nat.ended.until.len(), super::ended::MAX_ENDED);
    assert_eq!(
        nat.incoming(after(now, 659), &back("10.1.2.3", 20_000)),
        Incoming::Ended
    );
    assert_eq!(
        nat.incoming(after(now, 660), &back("10.1.2.3", 20_000)),
        Incoming::Foreign
    );
    let forgets_at = nat.poll_timeout().unwrap();
    nat.expire(forgets_at);
    assert!(nat.ended.until.is_empty() && nat.ended.in_order.is_empty());
    assert_eq!(nat.poll_timeout(), None);
}

#[test]
fn names_that_are_not_used_make_room_for_others() {
    let (now, mut nat) = (start(), Nat::default());
    let proxies = |number: u32| {
        let bits = u32::from(std::net::Ipv4Addr::new(100, 96, 0, 0)) + number * 4;
        let ips = (0..4).map(|n| IpAddr::V4((bits + n).into()));
        ips.collect::<BTreeSet<_>>()
    };
    let names = super::MAX_TRANSLATIONS as u32 / 4;
    let add = |nat: &mut Nat, number: u32| {
        let name = Name::parse(&format!("n{number}.corp.example")).unwrap();
        nat.set_up(&name, resource(1), &proxies(number), &found(&["10.1.2.3"]))
    };
    assert!(add(&mut nat, 0));
    nat.outgoing(now, &udp("100.64.0.7:40000", "100.96.0.1:443"))
        .unwrap();
    for number in 1..names + 100 {
        assert!(add(&mut nat, number), "{number}");
    }
    assert!(nat.translations.len() <= super::MAX_TRANSLATIONS);
    let is_there = |nat: &Nat, number| {
        let first = proxies(number).first().copied().unwrap();
        nat.translation(first).is_some()
    };
    assert!(is_there(&nat, 0), "it is used");
    assert!(!is_there(&nat, 1) && !is_there(&nat, 99));
    assert!(is_there(&nat, 200) && is_there(&nat, names + 99));
    assert_eq!(nat.reals[&ip("10.1.2.3")], nat.translations.len());

    nat.expire(after(now, 60));
    nat.remove_resource(resource(1));
    assert!(nat.translations.is_empty() && nat.in_order.is_empty() && nat.reals.is_empty());
}
