//! Which gateways and relays are chosen, by place and by load.

use super::*;
use crate::model::Locations;

/// Berlin, Paris and Sydney; nobody knows where 192.0.2.0/24 is.
const PLACES: &str = "203.0.113.0/26,DE,52.52,13.40
203.0.113.64/26,FR,48.86,2.35
203.0.113.128/26,AU,-33.87,151.21
203.0.113.192/26,AU";

const BERLIN: u8 = 1;
const PARIS: u8 = 65;
const SYDNEY: u8 = 129;
const AUSTRALIA: u8 = 193;

#[test]
fn the_nearest_gateway_is_chosen() {
    for (from, chosen) in [(BERLIN, "berlin"), (PARIS, "paris"), (SYDNEY, "sydney")] {
        let mut portal = with_places();
        for (name, at) in [
            ("sydney", SYDNEY),
            ("berlin", BERLIN),
            ("paris", PARIS),
            ("lost", AUSTRALIA),
        ] {
            gateway_at(&mut portal, name, at);
        }
        let client = client_at(&mut portal, "laptop", from);

        portal.ask(client, "lan", &[]);

        assert_eq!(grants(&portal), [format!("name of {chosen}")]);
    }
}

#[test]
fn among_equals_the_one_with_fewer_grants_is_chosen() {
    let mut portal = with_places();
    for (name, at) in [("one", BERLIN), ("two", BERLIN + 1), ("far", SYDNEY)] {
        gateway_at(&mut portal, name, at);
    }
    for number in 0..8_u8 {
        let client = client_at(&mut portal, &format!("laptop {number}"), PARIS);
        portal.ask(client, "lan", &[]);
    }
    let chosen = grants(&portal);
    let count = |name: &str| {
        chosen
            .iter()
            .filter(|gateway| gateway.ends_with(name))
            .count()
    };
    assert_eq!((count("one"), count("two"), count("far")), (4, 4, 0));

    // Where the client is not known, the place of gateways doesn't count.
    let client = client_at(&mut portal, "laptop somewhere", AUSTRALIA);
    portal.ask(client, "lan", &[]);
    assert_eq!(
        grants(&portal)
            .iter()
            .filter(|gateway| gateway.ends_with("far"))
            .count(),
        1
    );
}

#[test]
fn a_client_is_not_driven_away_by_its_own_grants() {
    let mut portal = Portal::new();
    let (other, _) = portal.client("bob");
    let (busy, _) = portal.gateway("hq", "busy");
    portal.grant(other, "lan", busy);
    let (idle, _) = portal.gateway("hq", "idle");
    let (client, _) = portal.client("alice");

    for resource in ["lan", "wiki", "lan", "wiki", "lan", "wiki", "lan", "wiki"] {
        portal.grant(client, resource, idle);
    }

    assert_eq!(portal.events(busy), [] as [&str; 0]);
}

#[test]
fn what_the_client_prefers_counts_before_place_and_load() {
    let mut portal = with_places();
    let far = gateway_at(&mut portal, "far", SYDNEY);
    gateway_at(&mut portal, "near", BERLIN);
    let client = client_at(&mut portal, "laptop", BERLIN);
    let far = portal.gateway_id(far);

    portal.ask(client, "lan", &[far]);

    assert_eq!(grants(&portal), ["name of far"]);
}

#[test]
fn the_two_nearest_relays_are_given_and_kept() {
    let mut portal = with_places();
    for (number, at) in [(1, SYDNEY), (2, PARIS), (3, AUSTRALIA), (4, BERLIN)] {
        relay_at(&mut portal, number, at);
    }
    portal.pass(Duration::from_secs(2));

    let client = client_at(&mut portal, "laptop", BERLIN);
    let held = &portal.state.clients[&portal.client_id(client)].relays;
    assert_eq!(addresses(held), [address(BERLIN), address(PARIS)]);

    // What is held stays, though a nearer one came.
    relay_at(&mut portal, 5, BERLIN + 1);
    portal.pass(Duration::from_secs(2));
    assert_eq!(portal.events(client), [] as [&str; 0]);

    // Two at the same place are as good as one here and one there.
    portal.say(client, "no_relays", json!({}));
    portal.only(client, "relays_presence");
    let held = &portal.state.clients[&portal.client_id(client)].relays;
    let mut given = addresses(held);
    given.sort();
    assert_eq!(given, [address(BERLIN), address(BERLIN + 1)]);

    let gateway = gateway_at(&mut portal, "gw", SYDNEY);
    let held = &portal.state.gateways[&portal.gateway_id(gateway)].relays;
    assert_eq!(addresses(held)[0], address(SYDNEY));
}

fn with_places() -> Portal {
    let mut portal = Portal::new();
    let locations = Locations::parse(PLACES).unwrap();
    portal
        .state
        .set_locations(portal.now, portal.unix, locations);
    portal
}

fn address(host: u8) -> String {
    format!("203.0.113.{host}")
}

fn client_at(portal: &mut Portal, name: &str, host: u8) -> Peer {
    let token = portal.client_token("alice");
    let peer = portal.join(&at(host, device(Role::Client, &token, name, 1)));
    portal.messages(peer);
    peer
}

fn gateway_at(portal: &mut Portal, name: &str, host: u8) -> Peer {
    let token = portal.gateway_token("hq");
    let peer = portal.join(&at(host, device(Role::Gateway, &token, name, 2)));
    portal.messages(peer);
    peer
}

/// A relay counts as where it listens, wherever it connects from.
fn relay_at(portal: &mut Portal, number: u8, host: u8) {
    let token = portal.token(TokenKind::Relay, None).1;
    let connect = Connect {
        ipv4: Some(address(host)),
        ipv6: None,
        ..at(0, relay(&token))
    };
    let peer = portal.connect(&connect).unwrap();
    portal.join_relay(peer, &secret(number));
}

fn at(host: u8, connect: Connect) -> Connect {
    Connect {
        remote: address(host).parse().ok(),
        ..connect
    }
}

/// The names of the gateways of all grants.
fn grants(portal: &Portal) -> Vec<String> {
    let directory = portal.state.directory();
    let gateways = directory
        .grants()
        .keys()
        .map(|key| &directory.gateways()[&key.gateway]);

    gateways
        .map(|gateway| gateway.device.name.clone())
        .collect()
}

fn addresses(relays: &[connlib_wire::portal::turn::Relay]) -> Vec<String> {
    let relays = relays
        .iter()
        .map(|relay| serde_json::to_value(relay).unwrap());
    let addresses = relays.map(|relay| relay["addr"].as_str().unwrap().to_owned());

    addresses
        .map(|address| address.split(':').next().unwrap().to_owned())
        .collect()
}
