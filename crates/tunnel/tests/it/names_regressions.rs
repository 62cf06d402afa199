//! Defects that others once had, about names (client.md §15.8). Each test is called after one.

use std::net::IpAddr;
use std::time::Duration;

use connlib_tunnel::client::Event;
use connlib_tunnel::dns::Server;
use connlib_wire::dns::{Data, Name, Query, RecordType};
use connlib_wire::ip::Packet;
use connlib_wire::portal::client::ToPortal;

use crate::client::grant_resource;
use crate::names::{OTHER, OWN, SENTINEL, V4, WIKI, World, cidr, dns, server};
use crate::{GATEWAY, udp};

const PROXY: &str = "100.96.0.1";

/// The resources that access is asked for.
fn asked_for(world: &mut World) -> Vec<String> {
    let mut resources = Vec::new();
    while let Some(message) = world.client.poll_message() {
        if let ToPortal::RequestAuthorization(request) = message {
            resources.push(request.resource_id.to_string());
        }
    }
    resources
}

/// The ICMP type and code of the next packet for the TUN device.
fn icmp(world: &mut World) -> Option<(u8, u8)> {
    Packet::parse(world.client.poll_packet()?)
        .unwrap()
        .icmp_type()
}

#[test]
fn access_is_not_asked_for_a_removed_resource() {
    let mut world = World::new(&dns(WIKI, "wiki.corp.test", "dual"));
    world.addresses("wiki.corp.test", RecordType::A);
    world.requests();
    world.say("resource_deleted", &format!("\"{WIKI}\""));
    world.client.handle_packet(world.now, &udp(OWN, PROXY));
    assert_eq!((icmp(&mut world), world.requests()), (Some((3, 0)), 0));
}

#[test]
fn a_used_id_with_another_pattern_serves_the_new_one_alone() {
    let mut world = World::new(&dns(WIKI, "wiki.corp.test", "dual"));
    world.addresses("wiki.corp.test", RecordType::A);
    world.requests();
    world.say(
        "resource_created_or_updated",
        &dns(WIKI, "git.corp.test", "dual"),
    );
    world.client.handle_packet(world.now, &udp(OWN, PROXY));
    assert_eq!((icmp(&mut world), world.requests()), (Some((3, 0)), 0));
    world.ask("wiki.corp.test", RecordType::A);
    assert_eq!(world.exchanges().len(), 1, "it is nobody's name now");
    assert_eq!(
        world.addresses("git.corp.test", RecordType::A)[0],
        "100.96.0.5"
    );

    // And back again: who asked meanwhile gets its answer here, and the name has kept its addresses.
    world.say(
        "resource_created_or_updated",
        &dns(WIKI, "wiki.corp.test", "dual"),
    );
    assert!(world.answer().is_some());
    assert_eq!(world.addresses("wiki.corp.test", RecordType::A), V4);
}

#[test]
fn a_used_id_of_another_kind_is_that_kind() {
    let mut world = World::new(&dns(WIKI, "wiki.corp.test", "dual"));
    world.say("resource_created_or_updated", &cidr(WIKI, "10.20.0.0/16"));
    world.ask("wiki.corp.test", RecordType::A);
    assert_eq!(world.exchanges().len(), 1);
    assert!(
        world
            .interface()
            .routes
            .contains(&"10.20.0.0/16".parse().unwrap())
    );
    world.say(
        "resource_created_or_updated",
        &dns(WIKI, "wiki.corp.test", "dual"),
    );
    assert!(
        !world
            .interface()
            .routes
            .contains(&"10.20.0.0/16".parse().unwrap())
    );
    assert!(
        world.answer().is_some(),
        "what was asked of the public is taken back"
    );
    assert_eq!(world.addresses("wiki.corp.test", RecordType::A), V4);
}

#[test]
fn an_exact_name_beats_a_wildcard_whatever_the_order() {
    let [exact, wide] = [
        dns(WIKI, "wiki.corp.test", "dual"),
        dns(OTHER, "**.corp.test", "dual"),
    ];
    for resources in [format!("{exact},{wide}"), format!("{wide},{exact}")] {
        let mut world = World::new(&resources);
        world.addresses("wiki.corp.test", RecordType::A);
        assert_eq!(asked_for(&mut world), [WIKI]);
        world.addresses("git.corp.test", RecordType::A);
        assert_eq!(asked_for(&mut world), [OTHER]);
    }
}

#[test]
fn a_broader_resource_is_used_where_only_its_filters_let_pass() {
    let narrow = dns(WIKI, "wiki.corp.test", "dual").replace(
        "\"gateway_groups\"",
        r#""filters":[{"protocol":"tcp","port_range_start":443,"port_range_end":443}],"gateway_groups""#,
    );
    let mut world = World::new(&format!("{narrow},{}", dns(OTHER, "**.corp.test", "dual")));
    world.addresses("wiki.corp.test", RecordType::A);
    assert_eq!(asked_for(&mut world), [WIKI]);
    world.client.handle_packet(world.now, &udp(OWN, PROXY));
    assert_eq!(asked_for(&mut world), [OTHER]);

    let mut world = World::new(&narrow);
    world.addresses("wiki.corp.test", RecordType::A);
    world.requests();
    world.client.handle_packet(world.now, &udp(OWN, PROXY));
    assert_eq!((icmp(&mut world), world.requests()), (Some((3, 13)), 0));
}

#[test]
fn what_waits_goes_where_what_follows_goes() {
    let [exact, wide] = [
        dns(WIKI, "wiki.corp.test", "dual"),
        dns(OTHER, "**.corp.test", "dual"),
    ];
    let nothing_is_lost = |world: &mut World| {
        let status = world.client.status(world.now);
        assert_eq!(status.dropped_from_tun, 0);
    };
    for is_granted in [false, true] {
        let mut world = World::new(&wide);
        world.addresses("wiki.corp.test", RecordType::A);
        assert_eq!(asked_for(&mut world), [OTHER]);
        if is_granted {
            // It waits for the gateway to know the name.
            grant_resource(&mut world.client, world.now, OTHER, GATEWAY);
        }
        world.client.handle_packet(world.now, &udp(OWN, PROXY));
        assert_eq!(asked_for(&mut world), [""; 0]);

        world.say("resource_created_or_updated", &exact);
        assert_eq!(asked_for(&mut world), [WIKI]);
        world.say("resource_deleted", &format!("\"{WIKI}\""));
        nothing_is_lost(&mut world);
        world.say("resource_deleted", &format!("\"{OTHER}\""));
        assert_eq!(icmp(&mut world), Some((3, 0)), "told that it goes nowhere");
    }
}

#[test]
fn a_change_of_search_domain_or_address_is_told() {
    let mut world = World::new("");
    for (interface, expected) in [
        (
            r#"{"ipv4":"100.64.0.1","ipv6":"fd00:2021:1111::1","search_domain":"a.test"}"#,
            Some("a.test"),
        ),
        (r#"{"ipv4":"100.64.0.1","ipv6":"fd00:2021:1111::1"}"#, None),
        (r#"{"ipv4":"100.64.0.2","ipv6":"fd00:2021:1111::1"}"#, None),
    ] {
        let before = world.events.len();
        for _ in 0..2 {
            world.say("config_changed", &format!(r#"{{"interface":{interface}}}"#));
        }
        let told = world.events[before..].iter();
        assert_eq!(
            told.filter(|event| matches!(event, Event::InterfaceChanged(_)))
                .count(),
            1
        );
        assert_eq!(world.interface().search_domain.as_deref(), expected);
    }
    assert_eq!(world.interface().ipv4.to_string(), "100.64.0.2");
}

#[test]
fn link_local_questions_get_no_answer_and_wake_nobody() {
    let mut world = World::new(&dns(WIKI, "wiki", "dual"));
    let query = Query::new(&Name::parse("wiki").unwrap(), RecordType::A).to_upstream(1, false);
    let pool = connlib_wire::buffer::Pool::new(2_048, 1);
    let to = "224.0.0.252:5355".parse().unwrap();
    let packet = connlib_wire::ip::udp(&pool, "100.64.0.1:4000".parse().unwrap(), to, &query);
    world
        .client
        .handle_packet(world.now, packet.unwrap().bytes());
    assert!(world.client.poll_packet().is_none());
    assert_eq!((world.exchanges().len(), world.requests()), (0, 0));
}

#[test]
fn addresses_of_ours_are_never_asked_of_ourselves() {
    let mut world = World::new("");
    world.resolvers(&[
        "100.100.111.7",
        "1.1.1.1",
        "fd00:2021:1111:8000:100:100:111:3",
    ]);
    for server in world.sentinels() {
        world.ask_at("7.111.100.100.in-addr.arpa", RecordType::PTR, &server);
    }
    let exchanges = world.exchanges();
    assert_eq!(exchanges.len(), 1);
    assert_eq!(exchanges[0].server, Server::Plain(server("1.1.1.1")));
}

#[test]
fn a_resource_that_moves_to_another_site_is_asked_for_anew() {
    let mut world = World::new(&dns(WIKI, "wiki.corp.test", "dual"));
    world.addresses("wiki.corp.test", RecordType::A);
    assert_eq!(asked_for(&mut world), [WIKI]);
    let moved = dns(WIKI, "wiki.corp.test", "dual").replace("2b7c9e44", "3b7c9e44");
    world.say("resource_created_or_updated", &moved);
    world.addresses("wiki.corp.test", RecordType::A);
    assert_eq!(
        asked_for(&mut world),
        [WIKI],
        "what was asked before is forgotten"
    );
}

#[test]
fn a_new_name_only_is_listed_and_cuts_nothing() {
    let mut world = World::new(&dns(WIKI, "wiki.corp.test", "dual"));
    world.addresses("wiki.corp.test", RecordType::A);
    world.requests();
    let before = world.events.len();
    let renamed = dns(WIKI, "wiki.corp.test", "dual").replace("\"wiki\"", "\"the wiki\"");
    world.say("resource_created_or_updated", &renamed);
    let listed = world.events[before..].iter().any(
        |event| matches!(event, Event::ResourcesChanged(views) if views[0].name == "the wiki"),
    );
    assert!(listed);
    world.client.handle_packet(world.now, &udp(OWN, PROXY));
    assert_eq!(world.requests(), 0, "the one under way still counts");
}

#[test]
fn a_broken_resource_costs_itself_alone() {
    let broken = r#"{"type":"dns","id":"not an id"},{"type":"new kind","id":7},{"type":"dns"}"#;
    let mut world = World::new(&format!("{broken},{}", dns(WIKI, "wiki.corp.test", "dual")));
    assert_eq!(world.addresses("wiki.corp.test", RecordType::A), V4);
}

#[test]
fn a_server_of_the_local_network_is_not_asked_through_the_tunnel() {
    // Neither where a resource has the address, too, nor where it lies among the gateways' own.
    let mut world = World::new(&cidr(OTHER, "192.168.1.0/24"));
    for server in ["192.168.1.1", "100.70.0.1"] {
        world.resolvers(&[server]);
        let sentinel = world.sentinels().remove(0);
        world.ask_at("example.org", RecordType::A, &sentinel);
        assert_eq!((world.exchanges().len(), world.requests()), (1, 0));
    }
    // A datagram to an address that stood for a server before wakes nobody, either (§15.3).
    world.client.handle_packet(world.now, &udp(OWN, SENTINEL));
    assert!(world.client.poll_packet().is_none());
    assert_eq!(world.requests(), 0);
}

#[test]
fn an_answer_after_a_reset_is_nobodys() {
    let mut world = World::new("");
    world.ask("example.org", RecordType::A);
    let lost = world.exchange();
    world.client.reset(world.now);
    let again = world.exchange();
    assert_ne!(lost.id, again.id);
    world.reply(&lost, 60, &[Data::A([192, 0, 2, 66].into())]);
    assert!(world.answer().is_none());
    world.reply(&again, 60, &[Data::A([192, 0, 2, 7].into())]);
    assert_eq!(
        world.answer().unwrap().addresses().next().unwrap().0,
        IpAddr::from([192, 0, 2, 7])
    );
}

#[test]
fn names_keep_their_addresses_over_a_reset_and_a_new_init() {
    let resources = dns(WIKI, "*.corp.test", "dual");
    let mut world = World::new(&resources);
    world.addresses("wiki.corp.test", RecordType::A);
    world.client.reset(world.now);
    world.after(Duration::from_secs(5));
    world.init(&resources, "");
    assert_eq!(
        world.addresses("git.corp.test", RecordType::A)[0],
        "100.96.0.5"
    );
    assert_eq!(world.addresses("wiki.corp.test", RecordType::A), V4);
}
