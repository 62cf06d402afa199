//! Which gateways and relays are chosen, by place and by load.

use proptest::prelude::*;

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
    let held = &portal.state.clients[&portal.client_id(client)].held.relays;
    assert_eq!(addresses(held), [address(BERLIN), address(PARIS)]);

    // What is held stays, though a nearer one came.
    relay_at(&mut portal, 5, BERLIN + 1);
    portal.pass(Duration::from_secs(2));
    assert_eq!(portal.events(client), [] as [&str; 0]);

    // Two at the same place are as good as one here and one there.
    let another = client_at(&mut portal, "tablet", BERLIN);
    let held = &portal.state.clients[&portal.client_id(another)].held.relays;
    let mut given = addresses(held);
    given.sort();
    assert_eq!(given, [address(BERLIN), address(BERLIN + 1)]);

    let gateway = gateway_at(&mut portal, "gw", SYDNEY);
    let held = &portal.state.gateways[&portal.gateway_id(gateway)]
        .held
        .relays;
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

#[test]
fn only_gateways_of_about_the_clients_version_are_chosen() {
    let cases = [
        ("headless-client/1.5.12", "gateway/1.6.1", None),
        ("headless-client/1.5.12", "gateway/1.4.0", None),
        ("connlib/1.5.4", "connlib/1.4.17", None),
        (
            "headless-client/1.5.12",
            "gateway/1.7.0",
            Some("version_mismatch"),
        ),
        (
            "headless-client/1.5.12",
            "gateway/1.3.9",
            Some("version_mismatch"),
        ),
        (
            "headless-client/1.5.12",
            "gateway/2.5.0",
            Some("version_mismatch"),
        ),
        ("headless-client/1.5.12", "curl/8", Some("version_mismatch")),
        (
            "gui-client/nightly",
            "gateway/1.6.1",
            Some("version_mismatch"),
        ),
    ];
    for (client, gateway, refused) in cases {
        let mut portal = Portal::new();
        let token = portal.gateway_token("hq");
        let gateway = portal.join(&of(gateway, device(Role::Gateway, &token, "gw", 2)));
        let id = portal.gateway_id(gateway);
        let token = portal.client_token("alice");
        let peer = portal.join(&of(client, device(Role::Client, &token, "laptop", 1)));
        portal.messages(peer);

        // That the client prefers it changes nothing.
        portal.ask(peer, "lan", &[id]);

        assert_eq!(
            grants(&portal).len(),
            usize::from(refused.is_none()),
            "{client}"
        );
        if let Some(reason) = refused {
            let failed = portal.only(peer, "authorization_creation_failed");
            assert_eq!(failed["reason"], reason, "{client}");
        }
        // Nobody is there at all.
        portal.disconnect(gateway);
        portal.pass(Duration::from_secs(20));
        portal.messages(peer);
        portal.ask(peer, "lan", &[]);
        let failed = portal.only(peer, "authorization_creation_failed");
        assert_eq!(failed["reason"], "offline", "{client}");
    }
}

#[test]
fn a_client_of_the_older_generation_hears_that_gateways_of_another_version_are_away() {
    let mut portal = Portal::new();
    let token = portal.gateway_token("hq");
    portal.join(&of("gateway/1.7.0", device(Role::Gateway, &token, "gw", 2)));
    let token = portal.client_token("alice");
    let older = Connect {
        generation: Generation::V1,
        ..of("connlib/1.5.4", device(Role::Client, &token, "laptop", 1))
    };
    let client = portal.join(&older);
    portal.messages(client);

    let lan = portal.world.resource("lan");
    let request = json!({"resource_id": lan, "connected_gateway_ids": []});
    portal.say(client, "create_flow", request);

    let failed = portal.only(client, "flow_creation_failed");
    assert_eq!(failed["reason"], "offline");
}

#[test]
fn the_internet_is_for_those_that_know_it_as_a_resource() {
    const FILE: &str = r#"
        [[actor]]
        name = "alice"
        groups = ["staff"]
        [[site]]
        name = "hq"
        [[resource]]
        name = "everything"
        address = "internet"
        sites = ["hq"]
        [[policy]]
        group = "staff"
        resource = "everything"
    "#;
    for (client, gateway, refused) in [
        ("connlib/1.3.0", "connlib/1.3.0", None),
        ("connlib/1.2.9", "connlib/1.3.0", Some("not_found")),
        ("connlib/1.3.0", "connlib/1.2.9", Some("version_mismatch")),
    ] {
        let mut portal = Portal::with(FILE);
        let token = portal.gateway_token("hq");
        portal.join(&of(gateway, device(Role::Gateway, &token, "gw", 2)));
        let token = portal.client_token("alice");
        let peer = portal.join(&of(client, device(Role::Client, &token, "laptop", 1)));
        let (_, init) = portal.messages(peer).pop().unwrap();
        let seen = init["resources"].as_array().unwrap().len();
        assert_eq!(seen, usize::from(refused != Some("not_found")), "{client}");

        portal.ask(peer, "everything", &[]);

        assert_eq!(grants(&portal).len(), usize::from(refused.is_none()));
        if let Some(reason) = refused {
            let failed = portal.only(peer, "authorization_creation_failed");
            assert_eq!(failed["reason"], reason);
        }
    }
}

#[test]
fn a_client_says_what_program_it_is() {
    let mut portal = Portal::new();
    let token = portal.client_token("alice");
    for agent in [None, Some("curl/8.0"), Some("")] {
        let connect = Connect {
            user_agent: agent.map(str::to_owned),
            ..device(Role::Client, &token, "laptop", 1)
        };
        let Err(refused) = portal.connect(&connect) else {
            panic!("{agent:?} is let in");
        };
        assert_eq!(refused.code(), "invalid_connect_params");
        assert!(refused.to_string().contains("user-agent"), "{refused}");
    }
    assert!(portal.state.directory().clients().is_empty());
}

fn of(agent: &str, connect: Connect) -> Connect {
    Connect {
        user_agent: Some(format!("Debian/12.0.0 {agent} (x86_64)")),
        ..connect
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_gateway_is_chosen_of_those_that_will_do_and_a_preferred_one_first(
        gateways in proptest::collection::vec((any::<bool>(), 3..8_u32, any::<bool>()), 0..6),
        order in proptest::collection::vec(0..6_usize, 0..5),
    ) {
        let mut portal = with_places();
        let mut ids = vec![];
        for (number, &(is_near, minor, is_there)) in gateways.iter().enumerate() {
            let token = portal.gateway_token(if is_near { "hq" } else { "branch" });
            let number = u8::try_from(number).unwrap();
            let connect = device(Role::Gateway, &token, &number.to_string(), 2);
            let connect = of(&format!("gateway/1.{minor}.0"), at(64 * (number % 4) + 1, connect));
            let peer = portal.join(&connect);
            ids.push(portal.gateway_id(peer));
            if !is_there {
                portal.disconnect(peer);
            }
        }
        let client = client_at(&mut portal, "laptop", BERLIN);
        let preferred: Vec<GatewayId> = order.iter().filter_map(|at| ids.get(*at).copied()).collect();

        portal.ask(client, "lan", &preferred);

        let (online, will_do): (Vec<bool>, Vec<bool>) = gateways
            .iter()
            .map(|&(is_near, minor, is_there)| {
                let is_online = is_near && is_there;
                // The client is of 1.5.
                (is_online, is_online && (4..=6).contains(&minor))
            })
            .unzip();
        let fits = |id: &GatewayId| ids.iter().zip(&will_do).any(|(it, will_do)| it == id && *will_do);
        let chosen: Vec<GatewayId> = portal.state.directory().grants().keys().map(|key| key.gateway).collect();
        if will_do.contains(&true) {
            prop_assert_eq!(chosen.len(), 1);
            prop_assert!(fits(&chosen[0]));
            let first = preferred.iter().find(|id| fits(id));
            prop_assert!(first.is_none_or(|first| *first == chosen[0]));
        } else {
            prop_assert_eq!(chosen, []);
            let failed = portal.only(client, "authorization_creation_failed");
            let reason = if online.contains(&true) { "version_mismatch" } else { "offline" };
            prop_assert_eq!(&failed["reason"], reason);
        }
    }
}
