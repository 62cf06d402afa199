use super::*;
use crate::model::Token;

#[test]
fn a_new_policy_shows_a_resource_and_its_removal_hides_it() {
    let mut portal = Portal::new();
    let (bob, _) = portal.client("bob");
    let more = format!("{FILE}\n[[policy]]\ngroup = \"guests\"\nresource = \"wiki\"");

    portal.apply(&more);
    let created = portal.only(bob, "resource_created_or_updated");
    assert_eq!(created["name"], "wiki");
    assert_eq!(created["ip_stack"], "ipv4_only");

    portal.apply(&more);
    assert_eq!(portal.events(bob), [] as [&str; 0]);

    portal.apply(FILE);
    let deleted = portal.only(bob, "resource_deleted");
    assert_eq!(deleted, created["id"]);
}

#[test]
fn what_goes_is_told_before_what_comes() {
    let mut portal = Portal::new();
    let (bob, _) = portal.client("bob");

    portal.apply(
        &FILE
            .replace("name = \"lan\"", "name = \"net\"")
            .replace("resource = \"lan\"", "resource = \"net\""),
    );

    assert_eq!(
        portal.events(bob),
        ["resource_deleted", "resource_created_or_updated"]
    );
}

#[test]
fn a_policy_that_goes_takes_its_grants_along() {
    let mut portal = Portal::new();
    let (bob, bob_id) = portal.client("bob");
    let (alice, _) = portal.client("alice");
    let (gateway, gateway_id) = portal.gateway("hq", "gw");
    portal.grant(bob, "lan", gateway);
    portal.grant(alice, "lan", gateway);
    let lan = portal.world.resource("lan");

    portal.apply(&FILE.replace("[[policy]]\ngroup = \"guests\"\nresource = \"lan\"", ""));

    let rejected = portal.only(gateway, "reject_access");
    assert_eq!(rejected, json!({"client_id": bob_id, "resource_id": lan}));
    assert_eq!(portal.only(bob, "resource_deleted"), json!(lan));
    assert_eq!(portal.events(alice), [] as [&str; 0]);
    let candidates = json!({"gateway_id": gateway_id, "candidates": []});
    portal.say(bob, "new_gateway_ice_candidates", candidates);
    assert_eq!(portal.events(gateway), [] as [&str; 0]);
}

#[test]
fn a_grant_that_waits_falls_like_any_other() {
    let mut portal = Portal::new();
    let (bob, _) = portal.client("bob");
    let (gateway, _) = portal.gateway("hq", "gw");
    portal.ask(bob, "lan", &[]);
    let create = portal.only(gateway, "create_authorization");

    portal.apply(&FILE.replace("[[policy]]\ngroup = \"guests\"\nresource = \"lan\"", ""));
    portal.only(gateway, "reject_access");
    portal.only(bob, "resource_deleted");
    portal.say(
        gateway,
        "authorization_created",
        json!({"ref": create["ref"]}),
    );

    let reply = portal.only(gateway, "phx_reply");
    assert_eq!(reply["response"]["reason"], "invalid_ref");
    portal.pass(Duration::from_secs(20));
    assert_eq!(portal.events(bob), [] as [&str; 0]);
}

#[test]
fn another_address_takes_grants_back_and_other_filters_keep_them() {
    let mut portal = Portal::new();
    let (alice, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    let (elsewhere, _) = portal.gateway("branch", "gw");
    portal.grant(alice, "lan", gateway);

    let filtered = FILE.replace("tcp/443", "udp/53");
    portal.apply(&filtered);
    let updated = portal.only(gateway, "resource_updated");
    assert_eq!(
        updated["filters"],
        json!([{"protocol": "udp", "port_range_start": 53, "port_range_end": 53}])
    );
    portal.only(alice, "resource_created_or_updated");
    assert_eq!(portal.state.directory().grants().len(), 1);

    portal.apply(&filtered.replace("10.20.0.0/16", "10.21.0.0/16"));
    portal.only(gateway, "reject_access");
    let updated = portal.only(alice, "resource_created_or_updated");
    assert_eq!(updated["address"], "10.21.0.0/16");
    assert_eq!(portal.state.directory().grants().len(), 0);
    assert_eq!(portal.events(elsewhere), [] as [&str; 0]);
}

#[test]
fn what_was_revoked_while_a_gateway_was_away_is_missing_from_its_init() {
    let mut portal = Portal::new();
    let (alice, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    portal.grant(alice, "lan", gateway);
    portal.grant(alice, "wiki", gateway);
    portal.disconnect(gateway);

    portal.apply(&FILE.replace("[[policy]]\ngroup = \"staff\"\nresource = \"lan\"", ""));

    let token = portal.gateway_token("hq");
    let back = portal.join(&device(Role::Gateway, &token, "gw", 2));
    let init = portal.messages(back)[1].1.clone();
    let listed = init["authorizations"].as_array().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        listed[0]["resource_id"],
        json!(portal.world.resource("wiki"))
    );
}

#[test]
fn a_gateway_that_was_away_hears_what_may_pass_today() {
    let mut portal = Portal::new();
    let (alice, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    portal.grant(alice, "lan", gateway);
    portal.disconnect(gateway);
    portal.apply(&FILE.replace("tcp/443", "udp/53"));

    let token = portal.gateway_token("hq");
    let back = portal.join(&device(Role::Gateway, &token, "gw", 2));
    let messages = portal.messages(back);
    let events: Vec<_> = messages.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(events, ["phx_reply", "init", "resource_updated"]);
    let updated = &messages[2].1;
    assert_eq!(updated["id"], json!(portal.world.resource("lan")));
    assert_eq!(updated["filters"][0]["protocol"], "udp");
}

#[test]
fn a_revoked_token_ends_its_sessions() {
    let mut portal = Portal::new();
    let (client, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    let relay = portal.relay(SECRET);
    portal.pass(Duration::from_secs(2));
    let (bob, _) = portal.client("bob");
    for peer in [client, gateway, relay] {
        portal.messages(peer);
    }

    for peer in [client, gateway, relay] {
        let token = portal.state.sockets[&peer.socket].token;
        let token = &portal.state.directory().tokens()[&token];
        let revoked = Token {
            revoked_at: Some(portal.unix),
            ..token.clone()
        };
        portal.edit(&[Edit::PutToken(revoked)]);
        assert_eq!(portal.closed(peer), Some(Goodbye::TokenEnded));
    }

    for peer in [client, gateway] {
        assert_eq!(
            portal.only(peer, "disconnect"),
            json!({"reason": "token_expired"})
        );
    }
    assert_eq!(portal.events(relay), [] as [&str; 0]);
    assert_eq!(portal.closed(bob), None);
}

#[test]
fn an_actor_that_goes_takes_everything_along() {
    let mut portal = Portal::new();
    let (bob, bob_id) = portal.client("bob");
    let (gateway, _) = portal.gateway("hq", "gw");
    portal.grant(bob, "lan", gateway);

    portal.apply(
        &FILE
            .replace("[[actor]]\nname = \"bob\"\ngroups = [\"guests\"]", "")
            .replace("[[policy]]\ngroup = \"guests\"\nresource = \"lan\"", ""),
    );

    assert_eq!(
        portal.only(bob, "disconnect"),
        json!({"reason": "token_expired"})
    );
    assert_eq!(portal.closed(bob), Some(Goodbye::TokenEnded));
    let rejected = portal.only(gateway, "reject_access");
    assert_eq!(rejected["client_id"], json!(bob_id));
    assert_eq!(portal.state.directory().clients().len(), 0);
}

#[test]
fn a_site_that_goes_takes_its_gateways_along() {
    let mut portal = Portal::new();
    let (alice, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("branch", "gw");
    portal.grant(alice, "everything", gateway);

    portal.apply(
        &FILE
            .replace("[[site]]\nname = \"branch\"", "")
            .replace("sites = [\"branch\"]", "sites = [\"hq\"]"),
    );

    assert_eq!(
        portal.only(gateway, "disconnect"),
        json!({"reason": "token_expired"})
    );
    let moved = portal.only(alice, "resource_created_or_updated");
    assert_eq!(moved["gateway_groups"][0]["name"], "hq");
    assert_eq!(portal.state.directory().grants().len(), 0);
}

#[test]
fn a_token_that_is_revoked_takes_its_grants_along_even_unasked() {
    let mut portal = Portal::new();
    let actor = portal.state.directory().actor_named("alice").unwrap().id;
    let (id, token) = portal.token(TokenKind::Client(actor), None);
    let client = portal.join(&device(Role::Client, &token, "laptop", 1));
    portal.messages(client);
    let (gateway, _) = portal.gateway("hq", "gw");
    portal.grant(client, "lan", gateway);

    let token = portal.state.directory().tokens()[&id].clone();
    portal.edit(&[Edit::PutToken(Token {
        revoked_at: Some(portal.unix),
        ..token
    })]);

    portal.only(gateway, "reject_access");
    assert_eq!(portal.state.directory().grants().len(), 0);
}

/// An end that overtook its beginning would never come.
#[test]
fn a_gateway_hears_of_access_before_it_hears_of_its_end() {
    let without = FILE.replace("[[policy]]\ngroup = \"guests\"\nresource = \"lan\"", "");
    for is_back in [false, true] {
        let mut portal = Portal::new();
        let (bob, _) = portal.client("bob");
        let (mut gateway, _) = portal.gateway("hq", "gw");
        portal.ask(bob, "lan", &[]);
        if is_back {
            portal.disconnect(gateway);
            let token = portal.gateway_token("hq");
            gateway = portal.join(&device(Role::Gateway, &token, "gw", 2));
        }
        portal.apply(&without);

        let events = portal.events(gateway);
        let place = |event: &str| events.iter().position(|told| told == event).unwrap();
        assert!(place("create_authorization") < place("reject_access"));
        assert_eq!(events.last().unwrap(), "reject_access", "{events:?}");
    }
}

#[test]
fn another_name_of_a_device_costs_it_neither_its_key_nor_its_addresses() {
    let mut portal = Portal::new();
    let (client, client_id) = portal.client("alice");
    let (gateway, gateway_id) = portal.gateway("hq", "gw");
    let directory = portal.state.directory();
    let mut of_client = directory.clients()[&client_id].clone();
    let mut of_gateway = directory.gateways()[&gateway_id].clone();
    let addresses = [of_client.device.addresses, of_gateway.device.addresses];
    of_client.device.name = "another".to_owned();
    of_client.verified = true;
    of_gateway.device.name = "another".to_owned();
    portal.edit(&[Edit::PutClient(of_client), Edit::PutGateway(of_gateway)]);

    portal.ask(client, "lan", &[]);
    let create = portal.only(gateway, "create_authorization");
    portal.say(
        gateway,
        "authorization_created",
        json!({"ref": create["ref"]}),
    );
    let created = portal.only(client, "authorization_created");

    let key = |byte| json!(connlib_wire::key::PublicKey([byte; 32]));
    assert_eq!(create["client"]["public_key"], key(1));
    assert_eq!(created["gateway_public_key"], key(2));
    let told = [
        (&create["client"]["ipv4"], &create["client"]["ipv6"]),
        (&created["gateway_ipv4"], &created["gateway_ipv6"]),
    ];
    for ((ipv4, ipv6), of_device) in told.into_iter().zip(addresses) {
        assert_eq!(*ipv4, json!(of_device.ipv4));
        assert_eq!(*ipv6, json!(of_device.ipv6));
    }
}

#[test]
fn changes_are_told_in_the_form_that_each_version_knows() {
    const OLD: &str = "Debian/12.0.0 connlib/1.2.9 (x86_64)";
    let mut portal = Portal::new();
    let of = |role, token: &Secret| Connect {
        generation: Generation::V1,
        user_agent: Some(OLD.to_owned()),
        ..device(role, token, "old", 3)
    };
    let token = portal.client_token("alice");
    let old_client = portal.join(&of(Role::Client, &token));
    let token = portal.gateway_token("hq");
    let old_gateway = portal.join(&of(Role::Gateway, &token));
    let (client, _) = portal.client("alice");
    for peer in [old_client, old_gateway] {
        portal.messages(peer);
    }
    let lan = portal.world.resource("lan");
    let ask = json!({"resource_id": lan, "connected_gateway_ids": []});
    portal.say(old_client, "create_flow", ask);
    portal.only(old_gateway, "authorize_flow");

    portal.apply(&FILE.replace("tcp/443", "udp/53").replace(
        "address = \"internet\"\nsites = [\"branch\"]",
        "address = \"internet\"\nsites = [\"hq\"]",
    ));

    let filters = json!([{"protocol": "udp", "port_range_start": 53, "port_range_end": 53}]);
    let updated = portal.only(old_gateway, "resource_updated");
    let expected = json!({"type": "cidr", "id": lan, "name": "lan", "address": "10.20.0.0/16", "filters": filters});
    assert_eq!(updated, expected);
    // The Internet is a resource for those alone that know it as one.
    let updated = portal.only(old_client, "resource_created_or_updated");
    assert_eq!(
        (&updated["id"], &updated["filters"]),
        (&json!(lan), &filters)
    );
    let told = portal.messages(client);
    assert_eq!(told.len(), 2, "{told:?}");
    for (event, resource) in &told {
        assert_eq!(event, "resource_created_or_updated");
        assert!(resource["gateway_groups"].is_array());
        assert!(
            resource.get("sites").is_none(),
            "a client drops what has both"
        );
    }
}
