//! What peers and the portal leave in the audit.

use super::*;
use crate::audit::Who;

#[test]
fn devices_and_grants_leave_entries_and_refreshes_none() {
    let mut portal = Portal::new();
    let (gateway, gateway_id) = portal.gateway("hq", "gw");
    let (alice, alice_id) = portal.client("alice");
    portal.grant(alice, "lan", gateway);
    portal.grant(alice, "lan", gateway);
    let token = portal.client_token("alice");
    portal.join(&Connect {
        name: Some("another name".to_owned()),
        ..device(Role::Client, &token, "alice-laptop", 1)
    });
    portal.settle();

    let grant = portal
        .state
        .directory()
        .grants()
        .values()
        .next()
        .unwrap()
        .clone();
    let told = told(&mut portal);
    let [added_gateway, added_client, gave] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        added_gateway,
        &(
            "added gateway".to_owned(),
            Who::Peer,
            gateway_id.to_string()
        )
    );
    assert_eq!(
        added_client,
        &("added client".to_owned(), Who::Peer, alice_id.to_string())
    );
    assert_eq!((&gave.0[..], gave.1), ("gave grant", Who::Peer));
    assert_eq!(portal.unix, grant.created_at);
}

#[test]
fn what_is_taken_back_leaves_an_entry_and_what_is_over_none() {
    let mut portal = Portal::new();
    let (gateway, _) = portal.gateway("hq", "gw");
    let (alice, _) = portal.client("alice");

    // One that nobody acknowledges.
    portal.ask(alice, "lan", &[]);
    let first = portal
        .state
        .directory()
        .grants()
        .values()
        .next()
        .unwrap()
        .id;
    portal.pass(Duration::from_secs(20));
    assert_eq!(
        told(&mut portal)[2..],
        [
            ("gave grant".to_owned(), Who::Peer, first.to_string()),
            ("withdrew grant".to_owned(), Who::Portal, first.to_string()),
        ]
    );

    // One that ends by itself.
    portal.messages(gateway);
    let actor = portal.state.directory().actor_named("alice").unwrap().id;
    let ends_at = Some(portal.unix + 10);
    let token = portal.token(TokenKind::Client(actor), ends_at).1;
    let phone = portal.join(&device(Role::Client, &token, "phone", 3));
    portal.messages(phone);
    portal.grant(phone, "lan", gateway);
    portal.pass(Duration::from_secs(35));
    portal.pong(gateway);
    portal.pass(Duration::from_secs(35));
    assert_eq!(portal.state.directory().grants().len(), 0);
    let told: Vec<String> = told(&mut portal)
        .into_iter()
        .map(|(what, ..)| what)
        .collect();
    assert_eq!(told, ["added client", "gave grant"]);
}

#[test]
fn details_name_who_and_what_and_hold_no_secret() {
    let mut portal = Portal::new();
    let (gateway, gateway_id) = portal.gateway("hq", "gw");
    let token = portal.client_token("alice");
    let alice = portal.join(&Connect {
        remote: Some([203, 0, 113, 7].into()),
        ..device(Role::Client, &token, "laptop", 1)
    });
    portal.messages(alice);
    portal.grant(alice, "lan", gateway);
    portal.settle();

    let entry = portal.entries.last().unwrap();
    let details = &entry.details;
    assert_eq!(details["actor"], "alice");
    assert_eq!(details["client_name"], "name of laptop");
    assert_eq!(details["resource"], "lan");
    assert_eq!(details["group"], "staff");
    assert_eq!(details["gateway"], json!(gateway_id));
    assert_eq!(details["remote_ip"], "203.0.113.7");
    let secret = token.expose().rsplit('.').next().unwrap();
    for entry in &portal.entries {
        let text = serde_json::to_string(entry).unwrap();
        assert!(!text.contains(secret) && !text.contains("psk"), "{text}");
    }
}

fn told(portal: &mut Portal) -> Vec<(String, Who, String)> {
    portal.settle();
    let entries = portal.entries.drain(..);

    entries
        .map(|entry| (entry.what, entry.who, entry.subject))
        .collect()
}
