use std::collections::BTreeSet;

use connlib_wire::id::RelayId;

use super::*;

const HEARTBEAT: &str = r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":1}"#;

#[test]
fn peers_are_given_relays_with_credentials_of_their_own() {
    let mut portal = Portal::new();
    let relay = portal.relay(SECRET);
    let token = portal.gateway_token("hq");
    let gateway = portal.join(&device(Role::Gateway, &token, "gw", 2));

    let init = portal.messages(gateway)[1].1.clone();

    let relays = init["relays"].as_array().unwrap();
    assert_eq!(relays.len(), 2);
    assert_eq!(relays[0]["addr"], "192.0.2.10:3478");
    assert_eq!(relays[1]["addr"], "[2001:db8::10]:3478");
    for entry in relays {
        assert_eq!(entry["type"], "turn");
        assert_eq!(entry["id"], "6c86c6aa-c5fb-44bc-b5d9-939cb7d7d564");
        assert_eq!(entry["expires_at"], 2_145_916_800_u64);
        assert!(
            entry["username"]
                .as_str()
                .unwrap()
                .starts_with("2145916800:")
        );
    }
    assert_eq!(portal.state.presence().relays.len(), 1);
    assert_eq!(portal.closed(relay), None);
}

#[test]
fn a_clients_credentials_end_with_its_token() {
    let mut portal = Portal::new();
    portal.relay(SECRET);
    let actor = portal.state.directory().actor_named("alice").unwrap().id;
    let (_, token) = portal.token(TokenKind::Client(actor), Some(1_893_456_000));

    let client = portal.join(&device(Role::Client, &token, "laptop", 1));

    let init = portal.messages(client)[1].1.clone();
    assert_eq!(init["relays"][0]["expires_at"], 1_893_456_000);
}

#[test]
fn relays_that_come_are_told_after_a_second_of_quiet() {
    let mut portal = Portal::new();
    let (client, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");

    portal.relay(SECRET);
    portal.pass(Duration::from_millis(900));
    portal.relay(&secret(2));
    portal.pass(Duration::from_millis(999));
    assert_eq!(portal.events(client), [] as [&str; 0]);
    portal.pass(Duration::from_millis(1));

    for peer in [client, gateway] {
        let presence = portal.only(peer, "relays_presence");
        assert_eq!(presence["disconnected_ids"], json!([]));
        assert_eq!(presence["connected"].as_array().unwrap().len(), 4);
    }
}

#[test]
fn relays_that_never_settle_are_told_all_the_same() {
    let mut portal = Portal::new();
    let (client, _) = portal.client("alice");
    portal.relay(SECRET);

    for _ in 0..6 {
        let flapping = portal.relay(&secret(2));
        portal.pass(Duration::from_millis(900));
        portal.disconnect(flapping);
    }

    assert!(
        portal
            .events(client)
            .contains(&"relays_presence".to_owned())
    );
}

#[test]
fn a_relay_that_flaps_disturbs_nobody() {
    let mut portal = Portal::new();
    let relay = portal.relay(SECRET);
    let (client, _) = portal.client("alice");
    portal.pass(Duration::from_secs(2));
    portal.messages(client);

    portal.disconnect(relay);
    portal.pass(Duration::from_millis(900));
    portal.relay(SECRET);
    portal.pass(Duration::from_secs(5));

    assert_eq!(portal.events(client), [] as [&str; 0]);
}

#[test]
fn a_client_that_joins_while_its_relay_flaps_gets_it_all_the_same() {
    let mut portal = Portal::new();
    let relay = portal.relay(SECRET);
    portal.pass(Duration::from_secs(2));
    portal.disconnect(relay);

    let token = portal.client_token("alice");
    let client = portal.join(&device(Role::Client, &token, "laptop", 1));
    let init = portal.messages(client)[1].1.clone();
    assert_eq!(init["relays"].as_array().unwrap().len(), 2);

    portal.pass(Duration::from_secs(1));
    let presence = portal.only(client, "relays_presence");
    assert_eq!(
        presence["disconnected_ids"],
        json!(["6c86c6aa-c5fb-44bc-b5d9-939cb7d7d564"])
    );
    assert_eq!(presence["connected"], json!([]));
}

#[test]
fn a_relay_with_another_secret_is_another_relay() {
    let mut portal = Portal::new();
    let relay = portal.relay(SECRET);
    let (client, _) = portal.client("alice");
    portal.pass(Duration::from_secs(2));
    portal.messages(client);

    portal.disconnect(relay);
    portal.relay(&secret(2));
    portal.pass(Duration::from_secs(1));

    let presence = portal.only(client, "relays_presence");
    assert_eq!(
        presence["disconnected_ids"],
        json!(["6c86c6aa-c5fb-44bc-b5d9-939cb7d7d564"])
    );
    let new = crate::derive::relay_id(&secret(2).into());
    assert_eq!(presence["connected"][0]["id"], json!(new));
}

#[test]
fn nobody_has_more_than_two_relays_or_is_moved_without_need() {
    let mut portal = Portal::new();
    let first: Vec<Peer> = (1..=2)
        .map(|number| portal.relay(&secret(number)))
        .collect();
    portal.pass(Duration::from_secs(2));
    let token = portal.client_token("alice");
    let client = portal.join(&device(Role::Client, &token, "laptop", 1));
    let init = portal.messages(client)[1].1.clone();
    assert_eq!(init["relays"].as_array().unwrap().len(), 4);

    for number in 3..=9 {
        portal.relay(&secret(number));
    }
    portal.pass(Duration::from_secs(2));
    assert_eq!(portal.events(client), [] as [&str; 0]);

    portal.disconnect(first[0]);
    portal.pass(Duration::from_secs(2));
    let presence = portal.only(client, "relays_presence");
    let gone = crate::derive::relay_id(&secret(1).into());
    assert_eq!(presence["disconnected_ids"], json!([gone]));
    let connected = presence["connected"].as_array().unwrap();
    assert_eq!(connected.len(), 4);
    let kept = json!(crate::derive::relay_id(&secret(2).into()));
    assert_eq!(connected[0]["id"], kept);
    assert_ne!(connected[2]["id"], kept);
}

/// With credentials that changed, a relay would be another one to a peer, and what goes through it be cut.
#[test]
fn who_reconnects_gets_the_same_relays_to_the_letter() {
    for generation in [Generation::V1, Generation::V2] {
        let mut portal = Portal::new();
        for number in 1..=9 {
            portal.relay(&secret(number));
        }
        portal.pass(Duration::from_secs(2));
        let tokens = [portal.client_token("alice"), portal.gateway_token("hq")];
        for (role, token) in [Role::Client, Role::Gateway].iter().zip(tokens) {
            let connect = Connect {
                generation,
                ..device(*role, &token, "device", 1)
            };
            let mut given = || {
                let peer = portal.join(&connect);
                let relays = portal.messages(peer)[1].1["relays"].to_string();
                portal.disconnect(peer);
                portal.pass(Duration::from_secs(5));
                relays
            };

            let first = given();
            assert!(first.contains("password"), "{first}");
            assert_eq!(given(), first);
        }
    }
}

#[test]
fn who_lost_all_relays_is_given_those_that_are_connected() {
    let mut portal = Portal::new();
    let relay = portal.relay(SECRET);
    let (client, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    portal.pass(Duration::from_secs(2));
    for peer in [client, gateway] {
        portal.say(peer, "no_relays", json!({}));
        let presence = portal.only(peer, "relays_presence");
        assert_eq!(presence["disconnected_ids"], json!([]));
        assert_eq!(presence["connected"].as_array().unwrap().len(), 2);
    }

    portal.disconnect(relay);
    portal.say(client, "no_relays", json!({}));
    let presence = portal.only(client, "relays_presence");
    assert_eq!(presence["connected"], json!([]));

    portal.relay(SECRET);
    portal.pass(Duration::from_secs(2));
    let presence = portal.only(client, "relays_presence");
    assert_eq!(presence["connected"].as_array().unwrap().len(), 2);
}

#[test]
fn others_turn_servers_get_users_whose_passwords_they_can_check() {
    let mut portal = Portal::new();
    let token = portal.token(TokenKind::Relay, None).1;
    for (host, passwords) in [(10, "rest"), (11, "stamped"), (12, "nonsense")] {
        let connect = Connect {
            ipv4: Some(format!("192.0.2.{host}")),
            ipv6: None,
            ..relay(&token)
        };
        let peer = portal.connect(&connect).unwrap();
        let payload = json!({"stamp_secret": "north", "passwords": passwords});
        portal.say(peer, "phx_join", payload);
        let is_known = passwords != "nonsense";
        let (_, reply) = portal.messages(peer).remove(0);
        assert_eq!(reply["status"] == "ok", is_known, "{passwords}: {reply}");
    }

    let (client, _) = portal.client("alice");

    let held = &portal.state.clients[&portal.client_id(client)].held.relays;
    assert_eq!(held.len(), 2, "two servers with one secret");
    for entry in held {
        let connlib_wire::portal::turn::Relay::Turn(turn) = entry else {
            panic!("{entry:?}");
        };
        let rest = connlib_wire::stun::rest_password(&turn.username, &"north".into());
        let is_rest = turn.addr.ip().to_string() == "192.0.2.10";
        assert_eq!(turn.password == rest, is_rest);
    }
}

#[test]
fn who_cannot_reach_its_relays_is_given_others() {
    let mut portal = Portal::new();
    let relays: Vec<Peer> = (1..=6)
        .map(|number| portal.relay(&secret(number)))
        .collect();
    let (client, _) = portal.client("alice");
    portal.pass(Duration::from_secs(2));
    let mut seen = vec![ids_of(&portal, client)];

    for _ in 0..2 {
        portal.say(client, "no_relays", json!({}));
        portal.only(client, "relays_presence");
        seen.push(ids_of(&portal, client));
    }
    let all: BTreeSet<_> = seen.iter().flatten().copied().collect();
    assert_eq!(all.len(), 6, "{seen:?}");

    // With none left untried, it begins anew; and who lost them much later may have been elsewhere meanwhile.
    portal.say(client, "no_relays", json!({}));
    portal.messages(client);
    assert_eq!(ids_of(&portal, client), seen[0]);
    for _ in 0..3 {
        portal.pass(Duration::from_secs(50));
        for peer in relays.iter().chain([&client]) {
            portal.say_text(*peer, HEARTBEAT);
        }
    }
    portal.say(client, "no_relays", json!({}));
    portal.messages(client);
    assert_eq!(ids_of(&portal, client), seen[0]);
}

#[test]
fn a_relay_that_says_nothing_is_given_last() {
    let mut portal = Portal::new();
    let silent = [1, 2].map(|number| portal.relay(&secret(number)));
    portal.pass(Duration::from_secs(30));
    let alive = [3, 4].map(|number| portal.relay(&secret(number)));
    portal.pass(Duration::from_secs(15));

    let (client, _) = portal.client("alice");

    let expected: BTreeSet<_> = (3..=4).map(id).collect();
    assert_eq!(
        ids_of(&portal, client).into_iter().collect::<BTreeSet<_>>(),
        expected
    );
    for peer in alive {
        portal.disconnect(peer);
    }
    portal.pass(Duration::from_secs(2));
    let expected: BTreeSet<_> = (1..=2).map(id).collect();
    assert_eq!(
        ids_of(&portal, client).into_iter().collect::<BTreeSet<_>>(),
        expected
    );
    assert!(silent.iter().all(|peer| portal.closed(*peer).is_none()));
}

/// The relays that a client holds, in their order.
fn ids_of(portal: &Portal, client: Peer) -> Vec<RelayId> {
    let held = &portal.state.clients[&portal.client_id(client)].held.relays;
    let mut ids: Vec<RelayId> = held
        .iter()
        .map(|entry| {
            let connlib_wire::portal::turn::Relay::Turn(turn) = entry else {
                panic!("{entry:?}");
            };
            turn.id
        })
        .collect();
    ids.dedup();
    ids
}

fn id(number: u8) -> RelayId {
    crate::derive::relay_id(&secret(number).into())
}

#[test]
fn the_newer_socket_of_a_relay_replaces_the_older() {
    let mut portal = Portal::new();
    let older = portal.relay(SECRET);

    let newer = portal.relay(SECRET);

    assert_eq!(portal.closed(older), Some(Goodbye::Replaced));
    portal.disconnect(older);
    portal.pass(Duration::from_secs(2));
    assert_eq!(portal.state.presence().relays.len(), 1);
    assert_eq!(portal.closed(newer), None);
}

#[test]
fn a_relay_joins_with_a_secret_or_not_at_all() {
    let mut portal = Portal::new();
    let token = portal.token(TokenKind::Relay, None).1;
    let peer = portal.connect(&relay(&token)).unwrap();

    for payload in [
        Value::Null,
        json!({}),
        json!({"stamp_secret": ""}),
        json!({"stamp_secret": 7}),
        json!({"stamp_secret": "x".repeat(256)}),
    ] {
        portal.say(peer, "phx_join", payload);
        let reply = portal.only(peer, "phx_reply");
        assert_eq!(reply["status"], "error");
    }
    assert_eq!(portal.state.presence().relays, []);

    portal.join_relay(peer, SECRET);
    portal.say(peer, "anything", json!({}));
    let reply = portal.only(peer, "phx_reply");
    assert_eq!(reply["response"]["reason"], "unknown_message");
}
