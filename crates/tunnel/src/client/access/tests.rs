//! A gateway that says that access has ended.

use std::net::SocketAddr;
use std::time::Duration;

use connlib_wire::buffer::Pool;
use connlib_wire::control::{DomainStatus, NatStatus};
use connlib_wire::dns::Name;
use connlib_wire::ip::{icmp_error, udp};
use connlib_wire::portal::client::FromPortal;
use serde_json::value::RawValue;

use super::*;
use crate::Settings;

const LAN: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11";
const OTHER: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a12";
const GATEWAY: &str = "66666666-7777-4888-9999-aaaaaaaaaaaa";
const KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
const OWN: &str = "100.64.0.1:4000";

struct World {
    client: Client,
    now: Instant,
}

impl World {
    /// A client that reaches two networks through one gateway.
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new() -> Self {
        let now = Instant::now();
        let unix = Duration::from_secs(1_800_000_000);
        let mut world = Self {
            client: Client::new(now, [1; 32], Settings { unix }),
            now,
        };
        world.client.handle_portal_state(now, PortalState::Joined);
        let network = |id: &str, network: &str| {
            format!(
                r#"{{"type":"cidr","id":"{id}","name":"lan","address":"{network}",
                    "gateway_groups":[{{"id":"2b7c9e44-1a5d-4f60-8c3e-7d2f1b0a9c88","name":"hq"}}]}}"#
            )
        };
        let (lan, other) = (network(LAN, "10.20.0.0/16"), network(OTHER, "10.21.0.0/16"));
        world.say(
            "init",
            &format!(
                r#"{{"interface":{{"ipv4":"100.64.0.1","ipv6":"fd00:2021:1111::1"}},"resources":[{lan},{other}],"relays":[{{"type":"turn",
                    "id":"6c86c6aa-c5fb-44bc-b5d9-939cb7d7d564","addr":"203.0.113.9:3478","username":"2145916800:salt","password":"p","expires_at":2145916800}}]}}"#
            ),
        );
        for (id, to) in [(LAN, "10.20.0.10:53"), (OTHER, "10.21.0.10:53")] {
            world.send(to);
            world.grant(id);
        }
        world.requests();
        world
    }

    fn say(&mut self, event: &str, payload: &str) {
        let raw = RawValue::from_string(payload.to_owned()).unwrap();
        let message = FromPortal::parse(event, &raw).unwrap();
        self.client.handle_message(self.now, message);
    }

    fn grant(&mut self, resource: &str) {
        let payload = format!(
            r#"{{"resource_id":"{resource}","gateway_id":"{GATEWAY}","gateway_group_id":"2b7c9e44-1a5d-4f60-8c3e-7d2f1b0a9c88",
                "gateway_public_key":"{KEY}","gateway_ipv4":"100.64.0.9","gateway_ipv6":"fd00:2021:1111::9","preshared_key":"{KEY}",
                "client_ice_credentials":{{"username":"clnt","password":"p"}},"gateway_ice_credentials":{{"username":"gate","password":"p"}}}}"#
        );
        self.say("authorization_created", &payload);
    }

    fn send(&mut self, to: &str) {
        let packet = datagram(OWN, to);
        self.client.handle_packet(self.now, packet.bytes());
    }

    /// What the gateway says about a packet; whether access was asked for anew because of that.
    fn is_told(&mut self, from: &str, to: &str) -> bool {
        let sent = datagram(from, to);
        let error = icmp_error(&Pool::new(2_048, 1), &sent, IcmpError::Prohibited).unwrap();
        let error = Packet::parse(error.bytes()).unwrap();
        let gateway = GATEWAY.parse().unwrap();
        self.client.renew_access(self.now, gateway, &error)
    }

    /// The gateway says that it translates a name.
    fn set_up(&mut self, resource: &str, name: &Name) {
        let status = DomainStatus {
            resource: resource.parse().unwrap(),
            domain: name.to_string(),
            status: NatStatus::Active,
        };
        let gateway: GatewayId = GATEWAY.parse().unwrap();
        self.client.handle_status(self.now, gateway.into(), &status);
    }

    fn requests(&mut self) -> Vec<String> {
        let mut asked = Vec::new();
        while let Some(message) = self.client.poll_message() {
            if let ToPortal::RequestAuthorization(request) = message {
                asked.push(request.resource_id.to_string());
            }
        }
        asked
    }
}

fn datagram(from: &str, to: &str) -> Packet<Buffer> {
    let end = |text: &str| -> SocketAddr { text.parse().unwrap() };
    udp(&Pool::new(2_048, 1), end(from), end(to), b"x").unwrap()
}

#[test]
fn access_that_has_ended_at_the_gateway_is_asked_for_anew_and_what_follows_waits() {
    let mut world = World::new();
    assert!(world.is_told(OWN, "10.20.0.10:53"));
    assert_eq!(world.requests(), [LAN]);
    world.send("10.20.0.10:53");
    assert_eq!(world.requests(), [""; 0], "it waits");
    let status = world.client.status(world.now);
    assert_eq!((status.peers.len(), status.dropped_from_tun), (1, 0));

    world.grant(LAN);
    let lan = &world.client.status(world.now).resources[0];
    assert_eq!(lan.gateway.as_deref(), Some(GATEWAY));
    assert!(!world.is_told(OWN, "10.20.0.10:53"), "not again and again");
    world.now += Duration::from_secs(10);
    assert!(world.is_told(OWN, "10.20.0.10:53"));
    assert_eq!(world.requests(), [LAN]);
}

#[test]
fn what_is_about_no_packet_of_ours_ends_no_access() {
    let mut world = World::new();
    for (from, to) in [
        ("100.64.0.2:4000", "10.20.0.10:53"),
        (OWN, "10.99.0.1:53"),
        (OWN, "100.96.0.1:53"),
    ] {
        assert!(!world.is_told(from, to), "{from} {to}");
    }
    assert_eq!(world.requests(), [""; 0]);
}

#[test]
fn a_gateway_ends_only_what_it_serves() {
    let mut world = World::new();
    let payload = format!("\"{OTHER}\"");
    world.say("resource_deleted", &payload);
    assert!(!world.is_told(OWN, "10.21.0.10:53"));
    assert!(world.is_told(OWN, "10.20.0.10:53"));
}

#[test]
fn a_refusal_about_what_a_name_was_before_ends_no_access() {
    const WIDE: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a13";
    const NARROW: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a14";
    let mut world = World::new();
    let name = Name::parse("git.corp.test").unwrap();
    world.client.name_server.names.assign(&name);
    let to = "100.96.0.1:53";
    for (id, pattern) in [(WIDE, "**.corp.test"), (NARROW, "git.corp.test")] {
        world.say(
            "resource_created_or_updated",
            &format!(
                r#"{{"type":"dns","id":"{id}","name":"git","address":"{pattern}",
                    "gateway_groups":[{{"id":"2b7c9e44-1a5d-4f60-8c3e-7d2f1b0a9c88","name":"hq"}}]}}"#
            ),
        );
        world.send(to);
        world.grant(id);
    }
    world.set_up(NARROW, &name);
    world.requests();
    assert_eq!(world.client.status(world.now).dropped_from_tun, 0);

    // What was on its way when the narrow one ended comes back: the wide one's access has nothing to do with it.
    world.say("resource_deleted", &format!("\"{NARROW}\""));
    assert!(world.is_told(OWN, to));
    world.send(to);
    assert!(world.is_told(OWN, to), "the gateway is being told");
    assert_eq!(world.requests(), [""; 0]);

    world.set_up(WIDE, &name);
    assert!(world.is_told(OWN, to));
    assert_eq!(world.requests(), [WIDE]);
}
