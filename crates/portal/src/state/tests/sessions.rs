use super::*;

#[test]
fn a_join_is_answered_and_followed_by_init() {
    let mut portal = Portal::new();
    let token = portal.client_token("alice");
    let client = portal
        .connect(&device(Role::Client, &token, "laptop", 1))
        .unwrap();

    portal.say_text(
        client,
        r#"{"topic":"client","event":"phx_join","payload":null,"ref":0}"#,
    );

    portal.settle();
    let Event::Send { text, .. } = &portal.waiting[0] else {
        panic!("{:?}", portal.waiting);
    };
    assert_eq!(
        text,
        r#"{"topic":"client","event":"phx_reply","payload":{"response":{},"status":"ok"},"ref":0}"#
    );
    let messages = portal.messages(client);
    let (event, init) = &messages[1];
    assert_eq!(event, "init");
    assert_eq!(init["interface"]["ipv4"], "100.64.0.1");
    assert_eq!(init["interface"]["ipv6"], "fd00:2021:1111::1");
    assert_eq!(init["authorizations"], json!([]));
    assert_eq!(init["flow_logs"]["upload_interval_secs"], 0);
    let types: Vec<&Value> = (init["resources"].as_array().unwrap().iter())
        .map(|resource| {
            assert_eq!(resource["gateway_groups"].as_array().unwrap().len(), 1);
            &resource["type"]
        })
        .collect();
    assert_eq!(types.len(), 3);
    for kind in ["cidr", "dns", "internet"] {
        assert!(types.contains(&&json!(kind)), "{types:?}");
    }

    // A second join is as good as the first.
    portal.say(client, "phx_join", Value::Null);
    assert_eq!(portal.events(client), ["phx_reply", "init"]);
}

#[test]
fn a_gateway_is_told_what_every_generation_needs() {
    let mut portal = Portal::new();
    let token = portal.gateway_token("hq");
    let gateway = portal.join(&device(Role::Gateway, &token, "gw", 1));

    let init = portal.messages(gateway)[1].1.clone();

    for member in [
        "interface",
        "config",
        "account_slug",
        "relays",
        "authorizations",
        "flow_logs",
    ] {
        assert!(init.get(member).is_some(), "{member}");
    }
    assert_eq!(init["config"]["ipv4_masquerade_enabled"], true);
}

#[test]
fn resolvers_are_told_in_both_forms_and_of_one_kind() {
    let plain = format!(
        "{FILE}\n[network]\nupstream_dns = [\"9.9.9.9\", \"fd00::53\"]\nsearch_domain = \"corp.test\""
    );
    let mut portal = Portal::with(&plain);
    let token = portal.client_token("alice");
    let client = portal.join(&device(Role::Client, &token, "laptop", 1));
    let interface = portal.messages(client)[1].1["interface"].clone();
    assert_eq!(
        interface["upstream_do53"],
        json!([{"ip": "9.9.9.9"}, {"ip": "fd00::53"}])
    );
    assert_eq!(interface["upstream_dns"][1]["address"], "[fd00::53]:53");
    assert_eq!(interface["upstream_dns"][0]["protocol"], "ip_port");
    assert_eq!(interface["search_domain"], "corp.test");

    portal.apply(&format!(
        "{FILE}\n[network]\nupstream_dns = [\"9.9.9.9\", \"https://dns.example/dns-query\"]"
    ));
    let interface = portal.only(client, "config_changed")["interface"].clone();
    assert_eq!(interface["upstream_do53"], json!([]));
    assert_eq!(interface["upstream_dns"], json!([]));
    assert_eq!(
        interface["upstream_doh"],
        json!([{"url": "https://dns.example/dns-query"}])
    );
    assert!(
        interface.get("upstream_dot").is_none(),
        "others don't know it"
    );

    portal.apply(&format!(
        "{FILE}\n[network]\nupstream_dns = [\"tls://dns.example\", \"tls://[2620:fe::fe]:8853\"]"
    ));
    let interface = portal.only(client, "config_changed")["interface"].clone();
    assert_eq!(
        interface["upstream_dot"],
        json!([{"url": "tls://dns.example"}, {"url": "tls://[2620:fe::fe]:8853"}])
    );
    assert_eq!(interface["upstream_doh"], json!([]));
}

#[test]
fn heartbeats_are_answered_whether_joined_or_not() {
    let mut portal = Portal::new();
    let token = portal.client_token("alice");
    let client = portal
        .connect(&device(Role::Client, &token, "laptop", 1))
        .unwrap();

    portal.say_text(
        client,
        r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":7}"#,
    );

    portal.settle();
    let Some(Event::Send { text, .. }) = portal.waiting.pop() else {
        panic!("{:?}", portal.waiting);
    };
    assert_eq!(
        text,
        r#"{"topic":"phoenix","event":"phx_reply","payload":{"response":{},"status":"ok"},"ref":7}"#
    );
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let mut portal = Portal::new();
    let token = portal.client_token("alice");
    let client = portal
        .connect(&device(Role::Client, &token, "laptop", 1))
        .unwrap();
    let reason = |portal: &mut Portal, topic: &str, event: &str, payload: Value| {
        let message = json!({"topic": topic, "event": event, "payload": payload, "ref": 1});
        portal.say_text(client, &message.to_string());
        portal.settle();
        let Some(Event::Send { text, .. }) = portal.waiting.pop() else {
            panic!("{:?}", portal.waiting);
        };
        let reply: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(reply["topic"], topic);
        assert_eq!(reply["ref"], 1);
        reply["payload"]["response"]["reason"].clone()
    };

    assert_eq!(
        reason(&mut portal, "gateway", "phx_join", Value::Null),
        "unmatched topic"
    );
    assert_eq!(
        reason(&mut portal, "client", "no_relays", json!({})),
        "unmatched topic"
    );
    portal.say(client, "phx_join", Value::Null);
    portal.settle();
    portal.waiting.clear();
    assert_eq!(
        reason(&mut portal, "gateway", "phx_join", Value::Null),
        "unmatched topic"
    );
    assert_eq!(
        reason(&mut portal, "client", "create_flow", json!({})),
        "unknown_message"
    );
    assert_eq!(
        reason(&mut portal, "phoenix", "other", json!({})),
        "unknown_message"
    );
    assert_eq!(
        reason(&mut portal, "client", "request_authorization", json!({})),
        "invalid_payload"
    );
}

#[test]
fn tokens_open_the_sockets_they_were_made_for() {
    let mut portal = Portal::new();
    let tokens = [
        portal.client_token("alice"),
        portal.gateway_token("hq"),
        portal.token(TokenKind::Relay, None).1,
    ];
    let roles = [Role::Client, Role::Gateway, Role::Relay];

    for (made_for, token) in roles.iter().zip(&tokens) {
        for role in roles {
            let connect = match role {
                Role::Relay => relay(token),
                Role::Client | Role::Gateway => device(role, token, "x", 1),
            };
            let opened = portal.connect(&connect).map(drop);
            let wanted = match role == *made_for {
                true => Ok(()),
                false => Err(Refused::InvalidToken),
            };
            assert_eq!(opened, wanted, "{made_for:?} token at the {role:?} socket");
        }
    }

    let mut connect = device(Role::Client, &tokens[0], "x", 1);
    for (token, refusal) in [
        (None, Refused::MissingToken),
        (Some(".".into()), Refused::InvalidToken),
        (Some("secret".into()), Refused::InvalidToken),
        (
            Some(format!("{}A", tokens[0].expose()).into()),
            Refused::InvalidToken,
        ),
    ] {
        connect.token = token;
        assert_eq!(portal.connect(&connect).map(drop), Err(refusal));
    }
}

type Spoil = fn(&mut Connect);

#[test]
fn bad_parameters_are_refused_by_name() {
    let mut portal = Portal::new();
    let token = portal.client_token("alice");
    let of_devices: [(Spoil, &str); 6] = [
        (|c| c.external_id = None, "external_id"),
        (|c| c.external_id = Some("x".repeat(256)), "external_id"),
        (|c| c.name = Some(String::new()), "name"),
        (|c| c.name = Some("a\nb".to_owned()), "name"),
        (|c| c.public_key = None, "public_key"),
        (|c| c.public_key = Some("A".repeat(43)), "public_key"),
    ];
    for (spoil, named) in of_devices {
        let mut connect = device(Role::Client, &token, "laptop", 1);
        spoil(&mut connect);
        assert_refused(&mut portal, &connect, named);
    }
    assert_eq!(portal.state.directory().clients().len(), 0);

    let token = portal.token(TokenKind::Relay, None).1;
    let of_relays: [(Spoil, &str); 5] = [
        (|c| (c.ipv4, c.ipv6) = (None, None), "ipv4"),
        (|c| c.ipv4 = Some("::1".to_owned()), "ipv4"),
        (|c| c.ipv6 = Some("[::1]".to_owned()), "ipv6"),
        (|c| c.port = Some("0".to_owned()), "port"),
        (|c| c.port = Some("65536".to_owned()), "port"),
    ];
    for (spoil, named) in of_relays {
        let mut connect = relay(&token);
        spoil(&mut connect);
        assert_refused(&mut portal, &connect, named);
    }

    let mut least = relay(&token);
    (least.ipv6, least.port) = (None, None);
    portal.connect(&least).unwrap();
}

fn assert_refused(portal: &mut Portal, connect: &Connect, named: &str) {
    let Err(Refused::InvalidParameter { parameter, .. }) = portal.connect(connect) else {
        panic!("{connect:?}");
    };
    assert_eq!(parameter, named);
}

#[test]
fn a_device_keeps_its_id_and_addresses() {
    let mut portal = Portal::new();
    let (alice, alice_id) = portal.client("alice");
    let (_, bob_id) = portal.client("bob");
    let (_, gateway_id) = portal.gateway("hq", "gw");
    portal.disconnect(alice);

    let mut portal = portal.restarted();
    let token = portal.client_token("alice");
    let mut connect = device(Role::Client, &token, "alice-laptop", 7);
    connect.name = Some("renamed".to_owned());
    let again = portal.join(&connect);
    let token = portal.client_token("bob");
    let same_name = portal.join(&device(Role::Client, &token, "alice-laptop", 7));

    assert_eq!(portal.client_id(again), alice_id);
    assert_ne!(portal.client_id(same_name), alice_id);
    assert_ne!(portal.client_id(same_name), bob_id);
    let directory = portal.state.directory();
    assert_eq!(directory.clients()[&alice_id].device.name, "renamed");
    let mut addresses: Vec<String> = (directory.clients().values())
        .map(|client| client.device.addresses.ipv4.to_string())
        .collect();
    addresses.push(
        directory.gateways()[&gateway_id]
            .device
            .addresses
            .ipv4
            .to_string(),
    );
    addresses.sort();
    assert_eq!(
        addresses,
        ["100.64.0.1", "100.64.0.2", "100.64.0.3", "100.64.0.4"]
    );
}

#[test]
fn the_newer_socket_of_a_client_wins() {
    let mut portal = Portal::new();
    let token = portal.client_token("alice");
    let connect = device(Role::Client, &token, "laptop", 1);
    let older = portal.join(&connect);
    portal.messages(older);

    let newer = portal.join(&connect);

    assert_eq!(
        portal.events(older),
        [] as [&str; 0],
        "its token is as good as before"
    );
    assert_eq!(portal.closed(older), Some(Goodbye::Replaced));
    portal.disconnect(older);
    portal.say(newer, "no_relays", json!({}));
    assert_eq!(
        portal.events(newer),
        ["phx_reply", "init", "relays_presence"]
    );
}

#[test]
fn a_gateway_that_was_silent_for_long_is_replaced_unasked() {
    let mut portal = Portal::new();
    let token = portal.gateway_token("hq");
    let connect = device(Role::Gateway, &token, "gw", 1);
    let older = portal.join(&connect);
    portal.pass(Duration::from_secs(30));
    portal.say_text(
        older,
        r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":1}"#,
    );

    portal.pass(Duration::from_secs(40));
    let newer = portal.join(&connect);
    assert_eq!(portal.closed(older), Some(Goodbye::Replaced));
    assert_eq!(portal.events(newer), ["phx_reply", "init"]);

    portal.disconnect(newer);
    portal.join(&connect);
}

#[test]
fn who_is_silent_for_a_minute_is_closed() {
    let mut portal = Portal::new();
    let (chatty, _) = portal.client("alice");
    let token = portal.client_token("bob");
    let silent = portal
        .connect(&device(Role::Client, &token, "laptop", 1))
        .unwrap();

    portal.pass(Duration::from_secs(30));
    portal.say_text(
        chatty,
        r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":1}"#,
    );
    portal.pass(Duration::from_millis(29_999));
    assert_eq!(portal.closed(silent), None);
    portal.pass(Duration::from_millis(1));
    assert_eq!(portal.closed(silent), Some(Goodbye::Idle));
    assert_eq!(portal.closed(chatty), None);

    portal.pass(Duration::from_secs(30));
    assert_eq!(portal.closed(chatty), Some(Goodbye::Idle));
    portal.pass(Duration::from_secs(300));
    assert_eq!(portal.state.poll_timeout(), None);
}

#[test]
fn a_token_that_expires_ends_its_sessions_on_time() {
    let mut portal = Portal::new();
    let actor = portal.state.directory().actor_named("alice").unwrap().id;
    let ends_at = portal.unix + 30;
    let (_, token) = portal.token(TokenKind::Client(actor), Some(ends_at));
    let connect = device(Role::Client, &token, "laptop", 1);
    let client = portal.join(&connect);
    portal.messages(client);

    portal.pass(Duration::from_secs(29));
    assert_eq!(portal.closed(client), None);
    portal.pass(Duration::from_secs(1));

    assert_eq!(
        portal.only(client, "disconnect"),
        json!({"reason": "token_expired"})
    );
    assert_eq!(portal.closed(client), Some(Goodbye::TokenEnded));
    assert_eq!(
        portal.connect(&connect).map(drop),
        Err(Refused::InvalidToken)
    );
}

#[test]
fn a_jump_of_the_wall_clock_moves_the_end_of_a_token() {
    let mut portal = Portal::new();
    let actor = portal.state.directory().actor_named("alice").unwrap().id;
    let ends_at = portal.unix + 30;
    let (_, token) = portal.token(TokenKind::Client(actor), Some(ends_at));
    let client = portal.join(&device(Role::Client, &token, "laptop", 1));

    portal.jump(-3600);
    portal.pass(Duration::from_secs(30));
    portal.say_text(
        client,
        r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":1}"#,
    );
    portal.settle();
    assert_eq!(portal.closed(client), None);

    portal.jump(7200);
    portal.state.handle_timeout(portal.now, portal.unix);
    assert_eq!(portal.closed(client), Some(Goodbye::TokenEnded));
}

#[test]
fn a_peer_that_connects_without_end_is_held_up_alone() {
    let mut portal = Portal::new();
    let token = portal.client_token("alice");
    let at = |host: u8, token: &Secret| Connect {
        remote: Some([203, 0, 113, host].into()),
        ..device(Role::Client, token, "laptop", 1)
    };

    let in_a_row = (0..2000)
        .find(|_| portal.connect(&at(1, &token)).is_err())
        .unwrap();
    assert!(in_a_row >= 30, "{in_a_row}: restarts need some");
    let refused = portal.connect(&at(1, &token)).err();
    assert_eq!(refused, Some(Refused::RateLimited));
    let refused = refused.unwrap();
    assert_eq!((refused.status(), refused.code()), (503, "rate_limit"));

    portal.connect(&at(2, &token)).unwrap();
    let other = portal.client_token("alice");
    portal.connect(&at(1, &other)).unwrap();
    portal.pass(Duration::from_secs(1));
    portal.connect(&at(1, &token)).unwrap();
    let in_a_row = (0..2000)
        .find(|_| portal.connect(&at(1, &token)).is_err())
        .unwrap();
    assert!(in_a_row < 20, "{in_a_row}: but a loop none");
}
