use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn no_text_kills_a_socket_or_the_state(
        texts in proptest::collection::vec((0..3_usize, text()), 1..40),
    ) {
        let mut portal = Portal::new();
        let peers = [
            portal.client("alice").0,
            portal.gateway("hq", "gw").0,
            portal.relay(SECRET),
        ];
        for (index, text) in texts {
            portal.say_text(peers[index], &text);
            portal.pass(Duration::from_millis(300));
        }

        let (client, gateway) = (peers[0], peers[1]);
        portal.messages(client);
        portal.messages(gateway);
        portal.ask(client, "lan", &[]);
        prop_assert!(portal.events(gateway).contains(&"create_authorization".to_owned()));
        for peer in peers {
            prop_assert_eq!(portal.closed(peer), None);
        }
    }
}

/// Anything at all, or something that looks like a message.
fn text() -> impl Strategy<Value = String> {
    let topic = prop_oneof![
        Just("client"),
        Just("gateway"),
        Just("relay"),
        Just("phoenix")
    ];
    let event = prop_oneof![
        Just("phx_join"),
        Just("heartbeat"),
        Just("request_authorization"),
        Just("authorization_created"),
        Just("new_gateway_ice_candidates"),
        Just("broadcast_ice_candidates"),
        Just("no_relays"),
        Just("set_snownet_capabilities"),
    ];
    let payload = prop_oneof![
        Just("null".to_owned()),
        Just("{}".to_owned()),
        Just(r#"{"iceless":true,"ref":"x","client_ids":[],"candidates":[]}"#.to_owned()),
        Just(
            r#"{"resource_id":"a0a0a0a0-0000-4000-8000-000000000001","connected_gateway_ids":[]}"#
                .to_owned()
        ),
        Just(
            r#"{"gateway_id":"a0a0a0a0-0000-4000-8000-000000000001","candidates":["x"]}"#
                .to_owned()
        ),
        "\\PC{0,20}",
    ];
    let reference = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("\"1\"".to_owned()),
        Just("[1e999]".to_owned()),
    ];
    let message =
        (topic, event, payload, reference).prop_map(|(topic, event, payload, reference)| {
            format!(
                r#"{{"topic":"{topic}","event":"{event}","payload":{payload},"ref":{reference}}}"#
            )
        });
    prop_oneof![1 => "\\PC*", 6 => message]
}

/// The same conversation, with time in steps of `step`. Returns what was said, and when.
fn conversation(step: Option<Duration>) -> Vec<(Duration, Event)> {
    let mut portal = Portal::new();
    let begin = portal.now;
    let mut said = vec![];
    let mut pass = |portal: &mut Portal, millis: u64| {
        let mut left = Duration::from_millis(millis);
        while !left.is_zero() {
            let part = step.unwrap_or(left).min(left);
            portal.pass(part);
            if step.is_some() {
                portal.state.handle_timeout(portal.now, portal.unix);
            }
            left -= part;
        }
        portal.settle();
        let at = portal.now - begin;
        said.extend(portal.waiting.drain(..).map(|event| (at, event)));
    };

    let gateway = portal.gateway("hq", "gw").0;
    let client = portal.client("alice").0;
    let relay = portal.relay(SECRET);
    pass(&mut portal, 700);
    portal.relay(&secret(2));
    portal.ask(client, "lan", &[]);
    pass(&mut portal, 14_999);
    portal.ask(client, "wiki", &[]);
    pass(&mut portal, 1);
    portal.disconnect(relay);
    pass(&mut portal, 2_000);
    portal.say(gateway, "no_relays", json!({}));
    pass(&mut portal, 120_000);

    said
}

#[test]
fn calls_between_the_timers_change_nothing() {
    let exact = conversation(None);

    assert!(exact.len() > 8, "{exact:?}");
    assert_eq!(exact, conversation(Some(Duration::from_millis(10))));
}
