//! What becomes of packets, as it is told.

use connlib_tunnel::why::{Explanation, Verdict};

use crate::client::grant_resource;
use crate::names::{OTHER, V4, WIKI, World, cidr, dns};
use crate::{GATEWAY, LAN};
use connlib_wire::dns::RecordType;

const INTERNET: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0aff";

fn filtered(resource: &str, filters: &str) -> String {
    resource.replace(
        "\"gateway_groups\"",
        &format!(r#""filters":[{filters}],"gateway_groups""#),
    )
}

fn world() -> World {
    let tcp = r#"{"protocol":"tcp","port_range_start":80,"port_range_end":90}"#;
    let site = r#"[{"id":"2b7c9e44-1a5d-4f60-8c3e-7d2f1b0a9c88","name":"hq"}]"#;
    let internet = format!(r#"{{"type":"internet","id":"{INTERNET}","gateway_groups":{site}}}"#);
    let resources = [
        filtered(&dns(WIKI, "*.corp.test", "dual"), tcp),
        cidr(LAN, "10.20.0.0/16"),
        filtered(&cidr(OTHER, "10.20.5.0/24"), tcp),
        internet,
    ];
    World::new(&resources.join(","))
}

fn explain(world: &mut World, packet: &str) -> Explanation {
    let now = world.now;
    let mut explanations = world.client.explain(now, &packet.parse().unwrap());
    assert_eq!(explanations.len(), 1);
    let explanation = explanations.remove(0);
    assert!(explanation.packet.starts_with(packet), "{explanation:?}");
    explanation
}

#[test]
fn a_client_tells_what_becomes_of_its_packets() {
    let mut world = world();
    grant_resource(&mut world.client, world.now, LAN, GATEWAY);
    world.requests();
    for (packet, verdict, resource, why) in [
        (
            "192.0.2.1:80/tcp",
            Verdict::Outside,
            None,
            "no resource has this address",
        ),
        (
            "www.example:80/tcp",
            Verdict::Outside,
            None,
            "no resource has such a name",
        ),
        (
            "10.20.0.10:22/tcp",
            Verdict::Waits,
            Some(LAN),
            "is asked for access first",
        ),
        (
            "10.20.5.1:85/tcp",
            Verdict::Waits,
            Some(OTHER),
            "is asked for access first",
        ),
        (
            "10.20.5.1:22/tcp",
            Verdict::Waits,
            Some(LAN),
            "is asked for access first",
        ),
        (
            "wiki.corp.test:80/tcp",
            Verdict::Waits,
            Some(WIKI),
            "gets addresses when",
        ),
        (
            "100.96.0.9/icmp",
            Verdict::Refused,
            None,
            "stands for no name",
        ),
        (
            "100.100.111.1:53/udp",
            Verdict::Passes,
            None,
            "is answered here",
        ),
        (
            "100.64.0.77/icmp",
            Verdict::Outside,
            None,
            "no resource has this address",
        ),
    ] {
        let told = explain(&mut world, packet);
        assert_eq!(told.verdict, verdict, "{told:?}");
        assert!(told.why.contains(why), "{told:?}");
        let id = told.resource.map(|resource| resource.id);
        assert_eq!(id.as_deref(), resource, "{packet}");
    }
    assert_eq!(world.requests(), 0, "nobody was asked because of that");
}

#[test]
fn what_is_refused_names_the_resource_and_its_filters() {
    let mut world = world();
    world.addresses("wiki.corp.test", RecordType::A);
    let told = explain(&mut world, "wiki.corp.test:443/tcp");
    assert_eq!(told.verdict, Verdict::Refused);
    assert_eq!(told.filters, ["tcp/80-90"]);
    assert_eq!(told.address.unwrap().to_string(), V4[0]);
    assert!(told.why.contains("filters of the resource"), "{told:?}");
    let told = explain(&mut world, V4[0]);
    assert_eq!(told.resource.unwrap().id, WIKI, "by its address as well");

    let alone = filtered(&cidr(LAN, "10.20.0.0/16"), r#"{"protocol":"icmp"}"#);
    world.say("resource_created_or_updated", &alone);
    let told = explain(&mut world, "10.20.5.1:22/tcp");
    assert_eq!(told.verdict, Verdict::Refused);
    assert!(told.why.contains("none of its resources"), "{told:?}");
}

#[test]
fn access_that_is_asked_for_refused_or_granted_is_told() {
    let mut world = world();
    let packet = "10.20.0.10:22/tcp";
    world
        .client
        .handle_packet(world.now, &crate::segment("100.64.0.1", "10.20.0.10", 22));
    let told = explain(&mut world, packet);
    assert!(told.why.contains("hasn't answered yet"), "{told:?}");

    for (reason, why) in [
        ("forbidden", "no policy allows it"),
        ("offline", "no gateway of the resource's site is online"),
    ] {
        let mut world = self::world();
        world
            .client
            .handle_packet(world.now, &crate::segment("100.64.0.1", "10.20.0.10", 22));
        let payload = format!(r#"{{"resource_id":"{LAN}","reason":"{reason}"}}"#);
        world.say("authorization_creation_failed", &payload);
        let told = explain(&mut world, packet);
        assert_eq!(told.verdict, Verdict::Refused);
        assert!(told.why.contains(why), "{told:?}");
    }

    grant_resource(&mut world.client, world.now, LAN, GATEWAY);
    let told = explain(&mut world, packet);
    assert_eq!(told.verdict, Verdict::Waits);
    assert!(told.why.contains("is being made"), "{told:?}");
    assert_eq!(told.gateway.as_deref(), Some(GATEWAY));
    assert_eq!(told.path, None);
}

#[test]
fn the_internet_is_told_from_what_is_private() {
    let mut world = world();
    world.client.want_internet(world.now, true);
    let told = explain(&mut world, "1.1.1.1:443/tcp");
    assert_eq!(told.verdict, Verdict::Waits);
    assert_eq!(told.resource.unwrap().id, INTERNET);

    let told = explain(&mut world, "192.168.1.1:443/tcp");
    assert_eq!(told.verdict, Verdict::Refused);
    assert!(told.why.contains("isn't one of the Internet's"), "{told:?}");
}
