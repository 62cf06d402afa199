use std::time::{Duration, Instant};

use connlib_tunnel::PortalState;
use connlib_tunnel::client::{Client, Event, Reachability};
use connlib_wire::buffer::Pool;
use connlib_wire::id::ResourceId;
use connlib_wire::ip::{IcmpError, Packet, icmp_error};
use connlib_wire::portal::client::{FromPortal, ToPortal};

use crate::{GATEWAY, KEY, LAN, RELAYS, SETTINGS, raw, segment, start, udp};

const OWN: &str = "100.64.0.1";
const HOST: &str = "10.20.0.10";
const SITE: &str = r#"[{"id":"2b7c9e44-1a5d-4f60-8c3e-7d2f1b0a9c88","name":"hq"}]"#;

fn resource(id: &str, network: &str, filters: &str) -> String {
    format!(
        r#"{{"type":"cidr","id":"{id}","name":"lan","address":"{network}","gateway_groups":{SITE},"filters":{filters}}}"#
    )
}

fn say(client: &mut Client, now: Instant, event: &str, payload: &str) {
    let message = FromPortal::parse(event, &raw(payload)).unwrap();
    client.handle_message(now, message);
}

fn init(client: &mut Client, now: Instant, resources: &str) {
    let interface = r#"{"ipv4":"100.64.0.1","ipv6":"fd00:2021:1111::1"}"#;
    let payload =
        format!(r#"{{"interface":{interface},"resources":[{resources}],"relays":{RELAYS}}}"#);
    say(client, now, "init", &payload);
}

fn joined() -> (Client, Instant) {
    let now = start();
    let mut client = Client::new(now, [1; 32], SETTINGS);
    client.handle_portal_state(now, PortalState::Joined);
    init(&mut client, now, &resource(LAN, "10.20.0.0/16", "[]"));
    (client, now)
}

fn grant(client: &mut Client, now: Instant) {
    grant_through(client, now, GATEWAY);
}

fn grant_through(client: &mut Client, now: Instant, gateway: &str) {
    grant_resource(client, now, LAN, gateway);
}

pub fn grant_resource(client: &mut Client, now: Instant, resource: &str, gateway: &str) {
    let credentials =
        |name: &str| format!(r#"{{"username":"{name}","password":"password of {name}"}}"#);
    let payload = format!(
        r#"{{"resource_id":"{resource}","gateway_id":"{gateway}","gateway_group_id":"2b7c9e44-1a5d-4f60-8c3e-7d2f1b0a9c88",
            "gateway_public_key":"{KEY}","gateway_ipv4":"100.64.0.9","gateway_ipv6":"fd00:2021:1111::9","preshared_key":"{KEY}",
            "client_ice_credentials":{},"gateway_ice_credentials":{}}}"#,
        credentials("clnt"),
        credentials("gate"),
    );
    say(client, now, "authorization_created", &payload);
}

fn refuse(client: &mut Client, now: Instant, reason: &str) {
    let payload = format!(r#"{{"resource_id":"{LAN}","reason":"{reason}"}}"#);
    say(client, now, "authorization_creation_failed", &payload);
}

fn requests(client: &mut Client) -> usize {
    let messages = std::iter::from_fn(|| client.poll_message());
    messages
        .filter(|message| matches!(message, ToPortal::RequestAuthorization(_)))
        .count()
}

fn lan() -> ResourceId {
    LAN.parse().unwrap()
}

/// The ICMP type and code of the next packet for the TUN device.
fn icmp(client: &mut Client) -> Option<(u8, u8)> {
    let packet = Packet::parse(client.poll_packet()?).unwrap();
    packet.icmp_type()
}

#[test]
fn the_first_packet_asks_once_and_again_after_two_seconds() {
    let (mut client, start) = joined();
    client.handle_packet(start, &udp(OWN, HOST));
    let Some(ToPortal::RequestAuthorization(request)) = client.poll_message() else {
        panic!("no request");
    };
    assert_eq!(
        (request.resource_id, request.connected_gateway_ids),
        (lan(), Vec::new())
    );

    for millis in (0..2_000).step_by(100) {
        client.handle_packet(start + Duration::from_millis(millis), &udp(OWN, HOST));
    }
    assert_eq!(requests(&mut client), 0);

    // Nobody sends anything more: the timer asks.
    let (at, _) = client.poll_timeout().unwrap();
    assert!(at <= start + Duration::from_secs(2));
    client.handle_timeout(start + Duration::from_secs(2));
    assert_eq!(requests(&mut client), 1);
}

#[test]
fn nobody_asks_for_ever() {
    let (mut client, start) = joined();
    client.handle_packet(start, &udp(OWN, HOST));
    let mut asked = 0;
    for secs in 0..120 {
        client.handle_timeout(start + Duration::from_secs(secs));
        asked += requests(&mut client);
    }
    assert_eq!(asked, 1 + 3, "after two, six and fourteen seconds");
}

#[test]
fn a_packet_to_nowhere_or_from_someone_else_asks_for_nothing() {
    let (mut client, now) = joined();
    for (source, destination) in [
        (OWN, "10.21.0.1"),
        (OWN, "100.64.0.77"),
        (OWN, OWN),
        ("192.168.0.1", HOST),
        ("10.20.0.11", HOST),
        (OWN, "224.0.0.251"),
    ] {
        client.handle_packet(now, &udp(source, destination));
    }
    client.handle_packet(now, b"not a packet");

    assert_eq!(requests(&mut client), 0);
    assert_eq!(client.status(now).dropped_from_tun, 7);
}

#[test]
fn a_refusal_answers_what_waits_and_what_follows_at_once() {
    for (reason, expected) in [
        ("forbidden", (3, 13)),
        ("not_found", (3, 13)),
        ("offline", (3, 0)),
        ("new", (3, 13)),
    ] {
        let (mut client, now) = joined();
        client.handle_packet(now, &udp(OWN, HOST));
        refuse(&mut client, now, reason);
        assert_eq!(icmp(&mut client), Some(expected), "{reason}");
        let counted = |client: &Client| client.status(now).drops_from_tun.get("no-access").copied();
        assert_eq!(counted(&client), Some(1));

        assert_eq!(requests(&mut client), 1);
        client.handle_packet(now, &udp(OWN, HOST));
        assert_eq!(
            (icmp(&mut client), requests(&mut client)),
            (Some(expected), 0)
        );

        let later = now + Duration::from_secs(2);
        client.handle_packet(later, &udp(OWN, HOST));
        assert_eq!(
            (icmp(&mut client), requests(&mut client)),
            (None, 1),
            "asked again"
        );
    }
}

#[test]
fn what_the_filters_forbid_is_answered_and_never_asked_for() {
    let (mut client, now) = joined();
    let filters = r#"[{"protocol":"tcp","port_range_start":80,"port_range_end":80}]"#;
    init(&mut client, now, &resource(LAN, "10.20.0.0/16", filters));
    client.handle_packet(now, &udp(OWN, HOST));

    assert_eq!(
        (icmp(&mut client), requests(&mut client)),
        (Some((3, 13)), 0)
    );
}

#[test]
fn access_that_nobody_waits_for_is_ignored() {
    let (mut client, now) = joined();
    grant(&mut client, now);
    assert!(client.status(now).peers.is_empty());

    client.handle_packet(now, &udp(OWN, HOST));
    grant(&mut client, now);
    assert_eq!(client.status(now).peers.len(), 1);
    assert_eq!(
        client.status(now).resources[0].gateway.as_deref(),
        Some(GATEWAY)
    );
    grant(&mut client, now);
    assert_eq!(client.status(now).peers.len(), 1);
}

#[test]
fn without_a_relay_access_is_asked_for_again_once_there_is_one() {
    let now = start();
    let mut client = Client::new(now, [1; 32], SETTINGS);
    client.handle_portal_state(now, PortalState::Joined);
    let interface = r#"{"ipv4":"100.64.0.1","ipv6":"fd00:2021:1111::1"}"#;
    let lan = resource(LAN, "10.20.0.0/16", "[]");
    say(
        &mut client,
        now,
        "init",
        &format!(r#"{{"interface":{interface},"resources":[{lan}]}}"#),
    );
    client.handle_packet(now, &udp(OWN, HOST));
    assert_eq!(requests(&mut client), 1);

    grant(&mut client, now);
    assert!(matches!(client.poll_message(), Some(ToPortal::NoRelays(_))));
    let none = r#"{"disconnected_ids":[],"connected":[]}"#;
    say(&mut client, now, "relays_presence", none);
    assert_eq!(requests(&mut client), 0, "it would be asked for ever");

    let presence = format!(r#"{{"disconnected_ids":[],"connected":{RELAYS}}}"#);
    say(&mut client, now, "relays_presence", &presence);
    assert_eq!(requests(&mut client), 1);
}

#[test]
fn while_the_portal_is_away_nothing_is_said_and_later_it_is() {
    let (mut client, now) = joined();
    client.handle_portal_state(now, PortalState::Away);
    client.handle_packet(now, &udp(OWN, HOST));
    assert!(client.poll_message().is_none());

    client.handle_portal_state(now, PortalState::Joined);
    assert_eq!(requests(&mut client), 1);
}

/// Waits for what follows from a gateway that never answers: the requests of each second.
fn seconds(client: &mut Client, start: Instant, seconds: u64) -> Vec<usize> {
    let each = (1..=seconds).map(|second| {
        client.handle_timeout(start + Duration::from_secs(second));
        requests(client)
    });

    each.collect()
}

#[test]
fn for_what_waits_for_a_gateway_that_never_answers_another_is_asked_for() {
    const OTHER: &str = "66666666-7777-4888-9999-bbbbbbbbbbbb";
    let (mut client, now) = joined();
    client.handle_packet(now, &udp(OWN, HOST));
    grant(&mut client, now);
    requests(&mut client);
    assert_eq!(seconds(&mut client, now, 5), [0, 0, 0, 0, 1]);

    let later = now + Duration::from_secs(5);
    assert_eq!(client.status(later).peers.len(), 1, "it is tried on");
    grant_through(&mut client, later, OTHER);
    let status = client.status(later);
    assert_eq!(status.resources[0].gateway.as_deref(), Some(OTHER));
    assert_eq!(status.peers.len(), 1);
    assert_eq!(status.dropped_from_tun, 0);
    assert_eq!(
        seconds(&mut client, later, 5),
        [0, 0, 0, 0, 1],
        "the packet went along"
    );
}

#[test]
fn a_gateway_that_is_named_again_is_tried_on() {
    let (mut client, now) = joined();
    client.handle_packet(now, &udp(OWN, HOST));
    grant(&mut client, now);
    client.handle_timeout(now + Duration::from_secs(5));
    let Some(ToPortal::RequestAuthorization(again)) = std::iter::from_fn(|| client.poll_message())
        .filter(|message| matches!(message, ToPortal::RequestAuthorization(_)))
        .last()
    else {
        panic!("no request");
    };
    assert_eq!(again.connected_gateway_ids, [], "any other will do");

    let later = now + Duration::from_secs(6);
    grant(&mut client, later);
    let status = client.status(later);
    assert_eq!(status.resources[0].gateway.as_deref(), Some(GATEWAY));
    assert_eq!(status.peers.len(), 1);
}

#[test]
fn nobody_asks_for_another_gateway_when_nothing_waits_or_the_portal_is_away() {
    let (mut client, now) = joined();
    client.handle_packet(now, &udp(OWN, HOST));
    grant(&mut client, now);
    requests(&mut client);
    client.handle_portal_state(now, PortalState::Away);
    assert_eq!(seconds(&mut client, now, 6), [0; 6]);

    // What waited is too old by then.
    let later = now + Duration::from_secs(11);
    client.handle_timeout(later);
    client.handle_portal_state(later, PortalState::Joined);
    assert_eq!(seconds(&mut client, later, 6), [0; 6]);
}

#[test]
fn a_removed_resource_takes_its_link_along() {
    let (mut client, now) = joined();
    client.handle_packet(now, &udp(OWN, HOST));
    grant(&mut client, now);
    say(&mut client, now, "resource_deleted", &format!("\"{LAN}\""));

    let status = client.status(now);
    assert!(status.peers.is_empty() && status.resources.is_empty());
    client.handle_packet(now, &udp(OWN, HOST));
    requests(&mut client);
    assert_eq!(client.status(now).dropped_from_tun, 1);
}

#[test]
fn a_link_outlives_its_last_resource_while_an_answer_may_name_its_gateway() {
    const OTHER: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a12";
    for is_named_again in [true, false] {
        let now = start();
        let mut client = Client::new(now, [1; 32], SETTINGS);
        client.handle_portal_state(now, PortalState::Joined);
        let both = ["10.20.0.0/16", "10.21.0.0/16"];
        let both = [resource(LAN, both[0], "[]"), resource(OTHER, both[1], "[]")];
        init(&mut client, now, &both.join(","));
        client.handle_packet(now, &udp(OWN, HOST));
        grant(&mut client, now);

        client.handle_packet(now, &udp(OWN, "10.21.0.10"));
        say(&mut client, now, "resource_deleted", &format!("\"{LAN}\""));
        assert_eq!(client.status(now).peers.len(), 1);
        client.handle_packet(now, &udp(OWN, HOST));
        assert_eq!(client.status(now).dropped_from_tun, 1, "nothing flows");

        if is_named_again {
            grant_resource(&mut client, now, OTHER, GATEWAY);
        } else {
            let payload = format!(r#"{{"resource_id":"{OTHER}","reason":"forbidden"}}"#);
            say(&mut client, now, "authorization_creation_failed", &payload);
        }
        assert_eq!(client.status(now).peers.len(), usize::from(is_named_again));
    }
}

#[test]
fn another_network_under_the_same_id_ends_the_grant_but_another_name_does_not() {
    let (mut client, now) = joined();
    client.handle_packet(now, &udp(OWN, HOST));
    grant(&mut client, now);

    let renamed =
        resource(LAN, "10.20.0.0/16", "[]").replace(r#""name":"lan""#, r#""name":"office""#);
    say(&mut client, now, "resource_created_or_updated", &renamed);
    assert_eq!(client.status(now).peers.len(), 1);

    say(
        &mut client,
        now,
        "resource_created_or_updated",
        &resource(LAN, "10.21.0.0/16", "[]"),
    );
    assert!(client.status(now).peers.is_empty());
}

#[test]
fn the_interface_is_told_when_it_changes_and_only_then() {
    let (mut client, now) = joined();
    let told = |client: &mut Client| {
        let events = std::iter::from_fn(|| client.poll_event());
        let interfaces = events.filter_map(|event| match event {
            Event::InterfaceChanged(interface) => Some(interface),
            Event::ResourcesChanged(_) | Event::KeyChanged(_) | _ => None,
        });
        interfaces.collect::<Vec<_>>()
    };

    let first = told(&mut client);
    assert_eq!(
        (first.len(), first[0].ipv4.to_string()),
        (1, OWN.to_owned())
    );
    assert!(first[0].routes.contains(&"10.20.0.0/16".parse().unwrap()));
    assert!(first[0].routes.contains(&"100.64.0.0/11".parse().unwrap()));

    init(&mut client, now, &resource(LAN, "10.20.0.0/16", "[]"));
    assert!(told(&mut client).is_empty(), "the same again");
    init(&mut client, now, &resource(LAN, "10.20.0.0/15", "[]"));
    assert_eq!(told(&mut client).len(), 1);
}

/// The resource that access is asked for because of a segment to a port, or what its sender is told.
fn asked_for(client: &mut Client, now: Instant, to: &str, port: u16) -> Result<String, (u8, u8)> {
    client.handle_packet(now, &segment(OWN, to, port));
    while let Some(message) = client.poll_message() {
        if let ToPortal::RequestAuthorization(request) = message {
            return Ok(request.resource_id.to_string());
        }
    }

    Err(icmp(client).unwrap())
}

#[test]
fn of_resources_that_let_a_packet_pass_the_smallest_network_is_asked_for() {
    const NARROW: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a12";
    let tcp = |port: u16| {
        format!(r#"[{{"protocol":"tcp","port_range_start":{port},"port_range_end":{port}}}]"#)
    };
    for (filters, port, asked) in [
        (["[]".to_owned(), "[]".to_owned()], 80, Ok(NARROW)),
        ([tcp(80), tcp(22)], 80, Ok(LAN)),
        ([tcp(80), tcp(22)], 22, Ok(NARROW)),
        ([tcp(80), tcp(22)], 443, Err((3, 13))),
    ] {
        let (mut client, now) = joined();
        let both = [
            resource(LAN, "10.0.0.0/8", &filters[0]),
            resource(NARROW, "10.1.0.0/16", &filters[1]),
        ];
        init(&mut client, now, &both.join(","));
        assert_eq!(
            asked_for(&mut client, now, "10.1.2.3", port),
            asked.map(str::to_owned)
        );
    }
}

#[test]
fn of_equal_networks_the_greater_id_is_asked_for() {
    const OTHER: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a10";
    let [greater, smaller] = [LAN, OTHER].map(|id| resource(id, "10.20.0.0/16", "[]"));
    for both in [[&greater, &smaller], [&smaller, &greater]] {
        let (mut client, now) = joined();
        init(&mut client, now, &both.map(String::as_str).join(","));
        assert_eq!(asked_for(&mut client, now, HOST, 1), Ok(LAN.to_owned()));
    }
}

const INTERNET: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0aff";

/// A client that reaches a network, and may reach the Internet.
fn with_internet() -> (Client, Instant) {
    let (mut client, now) = joined();
    let internet = format!(r#"{{"type":"internet","id":"{INTERNET}","gateway_groups":{SITE}}}"#);
    let both = [resource(LAN, "10.20.0.0/16", "[]"), internet];
    init(&mut client, now, &both.join(","));
    (client, now)
}

fn routes(client: &mut Client) -> Option<Vec<String>> {
    let mut latest = None;
    while let Some(event) = client.poll_event() {
        if let Event::InterfaceChanged(interface) = event {
            latest = Some(interface.routes);
        }
    }

    latest.map(|routes| routes.iter().map(ToString::to_string).collect())
}

#[test]
fn the_internet_is_what_is_left_and_only_while_it_is_wanted() {
    let (mut client, now) = with_internet();
    let everything = ["0.0.0.0/0", "::/0"].map(str::to_owned);
    let has_all = |routes: &[String]| everything.iter().all(|route| routes.contains(route));
    let before = routes(&mut client).unwrap();
    assert!(!has_all(&before));
    client.handle_packet(now, &udp(OWN, "1.1.1.1"));
    assert_eq!(requests(&mut client), 0);

    client.want_internet(now, true);
    assert!(has_all(&routes(&mut client).unwrap()));
    let asked = asked_for(&mut client, now, "1.1.1.1", 443);
    assert_eq!(asked, Ok(INTERNET.to_owned()));
    assert_eq!(asked_for(&mut client, now, HOST, 443), Ok(LAN.to_owned()));
    grant_resource(&mut client, now, INTERNET, GATEWAY);
    assert_eq!(client.status(now).peers.len(), 1);

    client.want_internet(now, true);
    assert_eq!(routes(&mut client), None, "as before");
    client.want_internet(now, false);
    assert_eq!(routes(&mut client).unwrap(), before);
    let dropped = client.status(now).dropped_from_tun;
    client.handle_packet(now, &udp(OWN, "1.1.1.1"));
    assert_eq!(client.status(now).dropped_from_tun, dropped + 1);
}

#[test]
fn every_internet_ends_with_the_wish_for_it() {
    let (mut client, now) = with_internet();
    client.want_internet(now, true);
    assert!(asked_for(&mut client, now, "1.1.1.1", 443).is_ok());
    grant_resource(&mut client, now, INTERNET, GATEWAY);
    let another = "ffffffff-5d6e-4f70-8192-a3b4c5d6e7f8";
    let another = format!(r#"{{"type":"internet","id":"{another}","gateway_groups":{SITE}}}"#);
    say(&mut client, now, "resource_created_or_updated", &another);
    assert_eq!(client.status(now).peers.len(), 1);

    client.want_internet(now, false);
    assert_eq!(client.status(now).peers.len(), 0, "nobody sends anything");
}

#[test]
fn what_is_private_or_a_peers_is_not_the_internet() {
    let (mut client, now) = with_internet();
    client.want_internet(now, true);
    for private in ["10.99.0.1", "192.168.1.1", "100.127.0.1", "255.255.255.255"] {
        client.handle_packet(now, &udp(OWN, private));
        assert_eq!(icmp(&mut client), Some((3, 0)), "{private}");
    }
    for nobody in ["100.64.0.77", "224.0.0.251", "100.100.111.9", OWN] {
        client.handle_packet(now, &udp(OWN, nobody));
        assert_eq!(icmp(&mut client), None, "{nobody}");
    }
    assert_eq!(requests(&mut client), 0);
}

#[test]
fn an_error_about_a_packet_goes_the_way_of_its_flow_and_asks_for_nothing() {
    let (mut client, now) = joined();
    let udp_7 = r#"[{"protocol":"udp","port_range_start":4000,"port_range_end":4000}]"#;
    init(&mut client, now, &resource(LAN, "10.20.0.0/16", udp_7));
    let pool = Pool::new(2_048, 1);
    let send = |client: &mut Client, from: &str, to: &str| {
        let heard = Packet::parse(udp(from, to)).unwrap();
        let error = icmp_error(&pool, &heard, IcmpError::Unreachable).unwrap();
        let before = client.status(now).dropped_from_tun;
        client.handle_packet(now, error.bytes());
        client.status(now).dropped_from_tun == before
    };
    assert!(!send(&mut client, HOST, OWN));
    assert_eq!(requests(&mut client), 0, "it is no reason to ask");

    client.handle_packet(now, &udp(OWN, HOST));
    grant(&mut client, now);
    assert!(send(&mut client, HOST, OWN), "although ICMP is filtered");
    assert!(
        !send(&mut client, HOST, "100.64.0.2"),
        "about somebody else"
    );
    assert!(!send(&mut client, "10.99.0.1", OWN), "about nobody");
    assert_eq!(icmp(&mut client), None, "and never answered");
}

#[test]
fn what_is_dropped_is_counted_by_why() {
    let (mut client, now) = with_internet();
    client.want_internet(now, true);
    let udp_only = r#"[{"protocol":"udp","port_range_start":1,"port_range_end":2}]"#;
    let lan = resource(LAN, "10.20.0.0/16", udp_only);
    say(&mut client, now, "resource_created_or_updated", &lan);
    for (source, destination) in [
        (OWN, HOST),
        (OWN, "192.168.0.1"),
        (OWN, "192.168.0.2"),
        (OWN, "224.0.0.1"),
        (OWN, "100.64.0.77"),
        ("10.0.0.1", HOST),
    ] {
        client.handle_packet(now, &udp(source, destination));
    }
    client.handle_packet(now, b"no packet");

    let status = client.status(now);
    let expected = [
        ("filtered", 1),
        ("foreign-source", 1),
        ("malformed", 1),
        ("no-resource", 1),
        ("not-for-others", 1),
        ("not-internet", 2),
    ];
    assert_eq!(status.drops_from_tun, expected.into());
    assert_eq!(status.dropped_from_tun, 7);
}

/// What was told last of whether the network can be reached.
fn reach(client: &mut Client) -> Option<Reachability> {
    let mut latest = None;
    while let Some(event) = client.poll_event() {
        if let Event::ResourcesChanged(views) = event {
            latest = views.first().map(|view| view.reach);
        }
    }
    latest
}

#[test]
fn what_is_offline_is_said_to_be_and_unknown_again_after_five_minutes() {
    let (mut client, now) = joined();
    assert_eq!(reach(&mut client), Some(Reachability::Unknown));
    client.handle_packet(now, &udp(OWN, HOST));
    refuse(&mut client, now, "forbidden");
    assert_eq!(reach(&mut client), None, "that says nothing about gateways");

    let later = now + Duration::from_secs(3);
    client.handle_packet(later, &udp(OWN, HOST));
    refuse(&mut client, later, "offline");
    assert_eq!(reach(&mut client), Some(Reachability::Offline));
    let status = client.status(later);
    assert_eq!(status.resources[0].reach, Some("offline"));

    let end = later + Duration::from_secs(300);
    for millis in [4_000, 299_999, 300_000] {
        let at = later + Duration::from_millis(millis);
        client.handle_timeout(at);
        while client.poll_message().is_some() || client.poll_packet().is_some() {}
        assert!(
            client
                .poll_timeout()
                .is_none_or(|(next, _)| next <= end || at >= end)
        );
    }
    assert_eq!(reach(&mut client), Some(Reachability::Unknown));
}

#[test]
fn the_internet_is_listed_first() {
    let (mut client, now) = with_internet();
    let named = resource(LAN, "10.20.0.0/16", "[]").replace(r#""name":"lan""#, r#""name":"A""#);
    say(&mut client, now, "resource_created_or_updated", &named);
    let mut latest = Vec::new();
    while let Some(event) = client.poll_event() {
        if let Event::ResourcesChanged(views) = event {
            latest = views;
        }
    }
    let ids = latest.iter().map(|view| view.id.to_string());
    assert_eq!(ids.collect::<Vec<_>>(), [INTERNET, LAN]);
}

#[test]
fn a_reset_makes_a_new_key_and_leaves_every_link() {
    let (mut client, now) = joined();
    let before = client.public_key();
    client.handle_packet(now, &udp(OWN, HOST));
    grant(&mut client, now);
    client.reset(now);

    assert_ne!(client.public_key(), before);
    assert!(client.status(now).peers.is_empty());
    let key = client.public_key();
    let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
    assert!(events.contains(&Event::KeyChanged(key)));
}
