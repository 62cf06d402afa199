use connlib_wire::portal::{client, gateway};
use serde_json::value::to_raw_value;

use super::*;

#[test]
fn success_follows_the_gateways_acknowledgement() {
    let mut portal = Portal::new();
    let (client, client_id) = portal.client("alice");
    let (gateway, gateway_id) = portal.gateway("hq", "gw");

    portal.ask(client, "lan", &[]);
    assert_eq!(portal.events(client), [] as [&str; 0]);
    let create = portal.only(gateway, "create_authorization");
    portal.say(
        gateway,
        "authorization_created",
        json!({"ref": create["ref"]}),
    );

    portal.only(gateway, "phx_reply");
    let created = portal.only(client, "authorization_created");
    let create = parse_gateway("create_authorization", &create);
    let gateway::FromPortal::CreateAuthorization(create) = create else {
        panic!("{create:?}");
    };
    let created = parse_client("authorization_created", &created);
    let client::FromPortal::AuthorizationCreated(created) = created else {
        panic!("{created:?}");
    };
    assert_eq!(created.gateway_id, gateway_id);
    assert_eq!(create.client.id, client_id);
    assert_eq!(created.preshared_key, create.client.preshared_key);
    assert_eq!(
        created.client_ice_credentials,
        create.client_ice_credentials
    );
    assert_eq!(
        created.gateway_ice_credentials,
        create.gateway_ice_credentials
    );
    assert_eq!(created.gateway_public_key.0, [2; 32]);
    assert_eq!(create.client.public_key.0, [1; 32]);
    assert_eq!(create.resource.id(), portal.world.resource("lan"));
    assert_eq!(created.gateway_ipv4.to_string(), "100.64.0.2");
    assert_eq!(create.client.ipv6.to_string(), "fd00:2021:1111::1");
    assert_eq!(create.expires_at, None);
    for token in [
        &create.flow_logs_ingest_token,
        &created.flow_logs_ingest_token,
    ] {
        assert_eq!(token.as_ref().unwrap().split('.').count(), 3);
    }
}

#[test]
fn asking_again_gives_the_same_keys() {
    let mut portal = Portal::new();
    let (client, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    let mut keys = vec![];
    for _ in 0..2 {
        portal.ask(client, "lan", &[]);
        let create = portal.only(gateway, "create_authorization");
        keys.push((
            create["client"]["preshared_key"].clone(),
            create["client_ice_credentials"].clone(),
            create["gateway_ice_credentials"].clone(),
        ));
        portal.pass(Duration::from_secs(2));
    }

    assert_eq!(keys[0], keys[1]);
}

#[test]
fn a_gateway_that_does_not_acknowledge_is_offline_after_15_s() {
    let mut portal = Portal::new();
    let (client, client_id) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    portal.ask(client, "lan", &[]);
    let create = portal.only(gateway, "create_authorization");

    portal.pass(Duration::from_millis(14_999));
    assert_eq!(portal.events(client), [] as [&str; 0]);
    portal.pass(Duration::from_millis(1));

    let failure = portal.only(client, "authorization_creation_failed");
    assert_eq!(failure["reason"], "offline");
    assert_eq!(failure["violated_properties"], json!([]));
    let rejection = portal.only(gateway, "reject_access");
    assert_eq!(rejection["client_id"], json!(client_id));
    assert_eq!(portal.state.directory().grants().len(), 0);

    portal.say(
        gateway,
        "authorization_created",
        json!({"ref": create["ref"]}),
    );
    let reply = portal.only(gateway, "phx_reply");
    assert_eq!(reply["response"]["reason"], "invalid_ref");
    assert_eq!(portal.events(client), [] as [&str; 0]);
}

#[test]
fn a_grant_that_was_acknowledged_before_survives_a_lost_acknowledgement() {
    let mut portal = Portal::new();
    let (client, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    portal.grant(client, "lan", gateway);

    portal.ask(client, "lan", &[]);
    portal.only(gateway, "create_authorization");
    portal.pass(Duration::from_secs(15));

    let failure = portal.only(client, "authorization_creation_failed");
    assert_eq!(failure["reason"], "offline");
    assert_eq!(portal.events(gateway), [] as [&str; 0]);
    assert_eq!(portal.state.directory().grants().len(), 1);
}

#[test]
fn a_newer_request_replaces_the_older_ones_timer_and_reference() {
    let mut portal = Portal::new();
    let (client, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    portal.ask(client, "lan", &[]);
    let first = portal.only(gateway, "create_authorization");
    portal.pass(Duration::from_secs(10));
    portal.ask(client, "lan", &[]);
    let second = portal.only(gateway, "create_authorization");
    assert_ne!(first["ref"], second["ref"]);

    portal.pass(Duration::from_secs(10));
    assert_eq!(portal.events(client), [] as [&str; 0]);
    portal.say(
        gateway,
        "authorization_created",
        json!({"ref": first["ref"]}),
    );
    assert_eq!(portal.events(client), [] as [&str; 0]);
    portal.say(
        gateway,
        "authorization_created",
        json!({"ref": second["ref"]}),
    );
    portal.only(client, "authorization_created");
}

#[test]
fn only_the_gateway_that_was_asked_can_acknowledge() {
    let mut portal = Portal::new();
    let (client, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    let (other, _) = portal.gateway("branch", "gw");
    portal.ask(client, "lan", &[]);
    let create = portal.only(gateway, "create_authorization");

    portal.say(
        other,
        "authorization_created",
        json!({"ref": create["ref"]}),
    );

    let reply = portal.only(other, "phx_reply");
    assert_eq!(reply["response"]["reason"], "invalid_ref");
    assert_eq!(portal.events(client), [] as [&str; 0]);
}

#[test]
fn what_nobody_allows_is_not_found() {
    let mut portal = Portal::new();
    let (bob, _) = portal.client("bob");
    let (_, _) = portal.gateway("hq", "gw");

    portal.ask(bob, "wiki", &[]);
    let failure = portal.only(bob, "authorization_creation_failed");
    assert_eq!(failure["reason"], "not_found");

    let unknown = json!({"resource_id": crate::tests::ids(9), "connected_gateway_ids": []});
    portal.say(bob, "request_authorization", unknown);
    let failure = portal.only(bob, "authorization_creation_failed");
    assert_eq!(failure["reason"], "not_found");
    assert_eq!(failure["resource_id"], json!(crate::tests::ids(9)));
}

#[test]
fn a_site_without_a_joined_gateway_is_offline() {
    let mut portal = Portal::new();
    let (client, _) = portal.client("alice");
    portal.gateway("branch", "gw");
    let token = portal.gateway_token("hq");
    portal
        .connect(&device(Role::Gateway, &token, "silent", 2))
        .unwrap();

    portal.ask(client, "lan", &[]);

    let failure = portal.only(client, "authorization_creation_failed");
    assert_eq!(failure["reason"], "offline");
}

#[test]
fn the_client_stays_with_the_first_gateway_it_likes() {
    let mut portal = Portal::new();
    let (client, _) = portal.client("alice");
    let gateways: Vec<(Peer, GatewayId)> = ["a", "b", "c", "d"]
        .map(|name| portal.gateway("hq", name))
        .to_vec();
    let (_, elsewhere) = portal.gateway("branch", "gw");
    let gone = GatewayId(crate::tests::ids(9));

    for (gateway, id) in &gateways {
        let (_, second) = gateways.iter().find(|(_, other)| other != id).unwrap();
        portal.ask(client, "lan", &[gone, elsewhere, *id, *second]);
        portal.only(*gateway, "create_authorization");
    }
}

#[test]
fn the_choice_of_a_gateway_depends_on_the_seed_alone() {
    let chosen = || -> Vec<usize> {
        let mut portal = Portal::new();
        let (client, _) = portal.client("alice");
        let gateways = ["a", "b", "c", "d"].map(|name| portal.gateway("hq", name).0);
        (0..16)
            .map(|_| {
                portal.ask(client, "lan", &[]);
                let asked = |gateway: Peer| {
                    let events = portal.events(gateway);
                    events.contains(&"create_authorization".to_owned())
                };
                gateways.map(asked).iter().position(|asked| *asked).unwrap()
            })
            .collect()
    };

    let first = chosen();
    assert_eq!(first, chosen());
    assert!(first.iter().any(|index| *index != first[0]), "{first:?}");
}

#[test]
fn candidates_pass_between_the_ends_of_a_grant_alone() {
    let mut portal = Portal::new();
    let (alice, alice_id) = portal.client("alice");
    let (bob, bob_id) = portal.client("bob");
    let (gateway, gateway_id) = portal.gateway("hq", "gw");
    let (other, other_id) = portal.gateway("branch", "gw");
    let from_client = |id: GatewayId| json!({"gateway_id": id, "candidates": ["candidate:1"]});
    let both = json!({"client_ids": [alice_id, bob_id, alice_id], "candidates": ["candidate:2"]});

    portal.say(alice, "new_gateway_ice_candidates", from_client(gateway_id));
    portal.say(gateway, "broadcast_ice_candidates", both.clone());
    portal.ask(alice, "lan", &[]);
    let create = portal.only(gateway, "create_authorization");
    portal.say(alice, "new_gateway_ice_candidates", from_client(gateway_id));
    portal.say(gateway, "broadcast_ice_candidates", both.clone());
    assert_eq!(portal.events(alice), [] as [&str; 0]);
    assert_eq!(portal.events(gateway), [] as [&str; 0]);

    portal.say(
        gateway,
        "authorization_created",
        json!({"ref": create["ref"]}),
    );
    portal.only(gateway, "phx_reply");
    portal.say(gateway, "broadcast_ice_candidates", both.clone());
    portal.say(gateway, "broadcast_invalidated_ice_candidates", both);
    portal.say(alice, "new_gateway_ice_candidates", from_client(gateway_id));
    portal.say(
        alice,
        "invalidate_gateway_ice_candidates",
        from_client(gateway_id),
    );
    portal.say(alice, "new_gateway_ice_candidates", from_client(other_id));
    // The older spelling, as clients of either generation may use it.
    let broadcast =
        json!({"gateway_ids": [gateway_id, other_id, gateway_id], "candidates": ["candidate:1"]});
    portal.say(alice, "broadcast_ice_candidates", broadcast.clone());
    portal.say(alice, "broadcast_invalidated_ice_candidates", broadcast);

    let to_client = json!({"gateway_id": gateway_id, "candidates": ["candidate:2"]});
    let messages = portal.messages(alice);
    assert_eq!(messages[0].0, "authorization_created");
    assert_eq!(
        messages[1],
        ("ice_candidates".to_owned(), to_client.clone())
    );
    assert_eq!(
        messages[2],
        ("invalidate_ice_candidates".to_owned(), to_client)
    );
    assert_eq!(messages.len(), 3);
    let to_gateway = json!({"client_id": alice_id, "candidates": ["candidate:1"]});
    assert_eq!(
        portal.messages(gateway),
        [
            ("ice_candidates".to_owned(), to_gateway.clone()),
            ("invalidate_ice_candidates".to_owned(), to_gateway.clone()),
            ("ice_candidates".to_owned(), to_gateway.clone()),
            ("invalidate_ice_candidates".to_owned(), to_gateway),
        ]
    );
    assert_eq!(portal.events(bob), [] as [&str; 0]);
    assert_eq!(portal.events(other), [] as [&str; 0]);
}

#[test]
fn a_gateway_that_comes_back_gets_its_grants_and_its_open_requests() {
    let mut portal = Portal::new();
    let (client, client_id) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    portal.grant(client, "lan", gateway);
    portal.ask(client, "wiki", &[]);
    let asked = portal.only(gateway, "create_authorization");

    portal.disconnect(gateway);
    let token = portal.gateway_token("hq");
    let back = portal.join(&device(Role::Gateway, &token, "gw", 3));

    let mut messages = portal.messages(back);
    let told = messages.extract_if(.., |(event, _)| event == "resource_updated");
    assert_eq!(told.count(), 2, "what may pass to each");
    let [(reply, _), (init, payload), (create, again)] = &messages[..] else {
        panic!("{messages:?}");
    };
    assert_eq!(
        [reply, init, create],
        ["phx_reply", "init", "create_authorization"]
    );
    let listed = payload["authorizations"].as_array().unwrap();
    let lan = json!({"client_id": client_id, "resource_id": portal.world.resource("lan"), "expires_at": null});
    assert!(listed.contains(&lan), "{listed:?}");
    assert_eq!(again["ref"], asked["ref"]);
    assert_ne!(
        again["client"]["preshared_key"],
        asked["client"]["preshared_key"]
    );

    portal.say(back, "authorization_created", json!({"ref": again["ref"]}));
    let created = portal.only(client, "authorization_created");
    assert_eq!(created["preshared_key"], again["client"]["preshared_key"]);
    assert_eq!(
        created["gateway_public_key"],
        json!(connlib_wire::key::PublicKey([3; 32]))
    );
}

#[test]
fn grants_survive_a_restart_of_the_portal() {
    let mut portal = Portal::new();
    let (client, client_id) = portal.client("alice");
    let (gateway, gateway_id) = portal.gateway("hq", "gw");
    portal.grant(client, "lan", gateway);

    let mut portal = portal.restarted();
    let (token, client_token) = (portal.gateway_token("hq"), portal.client_token("alice"));
    let gateway = portal.join(&device(Role::Gateway, &token, "gw", 2));
    let client = portal.join(&device(Role::Client, &client_token, "alice-laptop", 1));

    let init = portal.messages(gateway)[1].1.clone();
    assert_eq!(init["authorizations"][0]["client_id"], json!(client_id));
    assert_eq!(portal.gateway_id(gateway), gateway_id);
    portal.messages(client);
    let candidates = json!({"gateway_id": gateway_id, "candidates": []});
    portal.say(client, "new_gateway_ice_candidates", candidates);
    portal.only(gateway, "ice_candidates");
}

#[test]
fn grants_end_with_the_token_of_their_session() {
    let mut portal = Portal::new();
    let (gateway, gateway_id) = portal.gateway("hq", "gw");
    let actor = portal.state.directory().actor_named("alice").unwrap().id;
    let ends_at = portal.unix + 30;
    let (_, token) = portal.token(TokenKind::Client(actor), Some(ends_at));
    let client = portal.join(&device(Role::Client, &token, "laptop", 1));
    portal.messages(client);

    portal.ask(client, "lan", &[]);
    let create = portal.only(gateway, "create_authorization");
    assert_eq!(create["expires_at"], ends_at);
    portal.say(
        gateway,
        "authorization_created",
        json!({"ref": create["ref"]}),
    );
    portal.pass(Duration::from_secs(30));
    portal.say(gateway, "phx_join", Value::Null);
    let messages = portal.messages(gateway);
    assert_eq!(messages.last().unwrap().1["authorizations"], json!([]));

    portal.pass(Duration::from_secs(31));
    assert_eq!(portal.state.directory().grants().len(), 0);
    assert_eq!(portal.gateway_id(gateway), gateway_id);
}

fn parse_gateway(event: &str, payload: &Value) -> gateway::FromPortal {
    gateway::FromPortal::parse(event, &to_raw_value(payload).unwrap()).unwrap()
}

fn parse_client(event: &str, payload: &Value) -> client::FromPortal {
    client::FromPortal::parse(event, &to_raw_value(payload).unwrap()).unwrap()
}

#[test]
fn what_clients_want_of_each_other_is_refused() {
    let mut portal = Portal::new();
    let (alice, _) = portal.client("alice");
    let (bob, bob_id) = portal.client("bob");
    let pool = portal.world.resource("lan");

    let candidates = json!({"client_id": bob_id, "candidates": ["candidate:1"]});
    portal.say(alice, "new_client_ice_candidates", candidates.clone());
    portal.say(alice, "invalidate_client_ice_candidates", candidates);
    let question = json!({"resource_id": pool, "domain": "desk.pool"});
    portal.say(alice, "resolve_device_pool_domain", question);

    assert_eq!(
        portal.messages(alice),
        [
            (
                "client_ice_candidate_error".to_owned(),
                json!({"client_id": bob_id, "reason": "offline"})
            ),
            (
                "device_pool_domain_resolution_failed".to_owned(),
                json!({"resource_id": pool, "domain": "desk.pool", "reason": "not_found"})
            ),
        ]
    );
    assert_eq!(portal.events(bob), [] as [&str; 0]);
}
