//! What is different for peers of the older generation (portal-protocol.md §5, §6, §9.4, §10.6).

use super::*;

#[test]
fn a_client_is_not_told_of_a_gateway_that_does_not_acknowledge_and_asks_again() {
    let mut portal = Portal::new();
    let client = joined(&mut portal, Role::Client, "alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    ask(&mut portal, client);
    portal.only(gateway, "create_authorization");

    portal.pass(Duration::from_secs(15));
    assert_eq!(portal.events(client), [] as [&str; 0]);
    portal.only(gateway, "reject_access");
    assert_eq!(portal.state.directory().grants().len(), 0);

    ask(&mut portal, client);
    portal.acknowledge(gateway);
    portal.only(client, "flow_created");
}

#[test]
fn a_gateway_is_told_of_a_later_end_in_words_of_its_own() {
    let at_night = format!("{FILE}conditions = [ {{ hours = \"22:00-23:00\" }} ]");
    let mut portal = Portal::with(&at_night);
    let gateway = joined(&mut portal, Role::Gateway, "hq");
    let (bob, bob_id) = portal.client("bob");
    let lan = portal.world.resource("lan");
    portal.ask(bob, "lan", &[]);
    let create = portal.only(gateway, "authorize_flow");
    let ends_at = create["expires_at"].as_u64().unwrap();
    assert!(ends_at > portal.unix);
    portal.say(gateway, "flow_authorized", json!({"ref": create["ref"]}));
    portal.only(gateway, "phx_reply");
    portal.only(bob, "authorization_created");

    portal.apply(FILE);

    let moved = portal.only(gateway, "access_authorization_expiry_updated");
    let expected = json!({"client_id": bob_id, "resource_id": lan, "expires_at": null});
    assert_eq!(moved, expected);
    portal.pass(Duration::from_secs(3_600));
    assert_eq!(portal.state.directory().grants().len(), 1);
    assert_eq!(portal.events(bob), [] as [&str; 0]);
}

#[test]
fn a_peer_that_leaves_its_channel_hears_nothing_until_it_joins_again() {
    let mut portal = Portal::new();
    let (alice, _) = portal.client("alice");
    let (gateway, _) = portal.gateway("hq", "gw");
    let relay = portal.relay(SECRET);
    portal.pass(Duration::from_secs(2));
    for peer in [alice, gateway, relay] {
        portal.messages(peer);
    }

    for peer in [gateway, relay] {
        portal.say(peer, "phx_leave", json!({}));
        assert_eq!(portal.events(peer), ["phx_reply"]);
    }
    portal.ask(alice, "lan", &[]);
    let refused = portal.only(alice, "authorization_creation_failed");
    assert_eq!(refused["reason"], "offline");
    portal.pass(Duration::from_secs(2));
    assert_eq!(portal.events(alice), ["relays_presence"]);
    assert_eq!(portal.events(gateway), [] as [&str; 0]);

    portal.say(gateway, "phx_join", Value::Null);
    assert_eq!(portal.events(gateway), ["phx_reply", "init"]);
    portal.grant(alice, "lan", gateway);
    portal.say(alice, "phx_leave", json!({}));
    assert_eq!(portal.events(alice), ["phx_reply"]);
    portal.apply("");
    assert_eq!(portal.events(alice), ["disconnect"], "its actor is gone");
}

/// A peer of the older generation that has joined; its `init` is read.
fn joined(portal: &mut Portal, role: Role, whom: &str) -> Peer {
    let token = match role {
        Role::Client => portal.client_token(whom),
        Role::Gateway => portal.gateway_token(whom),
        Role::Relay => portal.token(TokenKind::Relay, None).1,
    };
    let connect = Connect {
        generation: Generation::V1,
        ..device(role, &token, "older", 7)
    };
    portal.join(&connect);
    let peer = portal.last_peer(role);
    portal.messages(peer);

    peer
}

fn ask(portal: &mut Portal, client: Peer) {
    let lan = portal.world.resource("lan");
    let payload = json!({"resource_id": lan, "connected_gateway_ids": []});
    portal.say(client, "create_flow", payload);
}
