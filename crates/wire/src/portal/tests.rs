use serde_json::value::RawValue;

use super::phoenix::{Control, Envelope, Framing, Reason, Reference};
use super::resource::{Filter, PortRange, Resource};
use super::*;

const RECORDINGS: [(Generation, [&str; 3]); 2] = [
    (
        Generation::V1,
        [
            include_str!("../../tests/vectors/sep2025-client.jsonl"),
            include_str!("../../tests/vectors/sep2025-gateway.jsonl"),
            include_str!("../../tests/vectors/sep2025-relay.jsonl"),
        ],
    ),
    (
        Generation::V2,
        [
            include_str!("../../tests/vectors/aug2026-client.jsonl"),
            include_str!("../../tests/vectors/aug2026-gateway.jsonl"),
            include_str!("../../tests/vectors/aug2026-relay.jsonl"),
        ],
    ),
];

/// A line of a recording.
#[derive(serde::Deserialize)]
struct Line<'a> {
    dir: &'a str,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn client(event: &str, payload: &str) -> Result<client::FromPortal, ParseError> {
    client::FromPortal::parse(event, &raw(payload))
}

/// Every message of the recordings: understood, and written again to the same meaning; what peers send, to the same
/// bytes.
#[test]
fn the_recorded_sessions_round_trip() {
    for (generation, sessions) in RECORDINGS {
        let mut seen = 0;
        for line in sessions.iter().flat_map(|session| session.lines()) {
            let line: Line<'_> = serde_json::from_str(line).unwrap();
            let Some(msg) = line.msg else { continue };
            seen += 1;
            match line.dir {
                "peer->portal" => assert_eq!(peer_says_again(generation, msg), msg.get()),
                _ => assert_portal_is_understood(generation, msg),
            }
        }
        assert!(seen > 70, "only {seen} messages of {generation:?}");
    }
}

/// What a peer said, read and written again.
fn peer_says_again(generation: Generation, msg: &RawValue) -> String {
    let envelope = Envelope::parse(msg.get()).unwrap();
    let payload = envelope.payload();
    let reference = envelope.reference.as_ref().and_then(Reference::number);
    let topic = envelope.topic.as_str();

    match (topic, envelope.event.as_str()) {
        (_, phoenix::HEARTBEAT) => phoenix::heartbeat(reference.unwrap()),
        (relay::TOPIC, phoenix::JOIN) => {
            let join: relay::Join = serde_json::from_str(payload.get()).unwrap();
            phoenix::push(topic, phoenix::JOIN, &join, reference)
        }
        (_, phoenix::JOIN) => phoenix::push(topic, phoenix::JOIN, &(), reference),
        (client::TOPIC, event) => {
            let message = client::ToPortal::parse_in(generation, event, payload).unwrap();
            if generation == Generation::V1 {
                assert_eq!(message.clone().in_v1(), Some(message.clone()));
            }
            phoenix::push(topic, message.event_in(generation), &message, reference)
        }
        (_, event) => {
            let message = gateway::ToPortal::parse_in(generation, event, payload).unwrap();
            if generation == Generation::V1 {
                assert_eq!(message.clone().in_v1(), Some(message.clone()));
            }
            phoenix::push(topic, message.event_in(generation), &message, reference)
        }
    }
}

/// What a portal said is understood, written again with the same meaning, and without members that it didn't have.
fn assert_portal_is_understood(generation: Generation, msg: &RawValue) {
    let envelope = Envelope::parse(msg.get()).unwrap();
    if Control::parse(&envelope).is_some() {
        return;
    }
    let (event, payload) = (envelope.event.as_str(), envelope.payload());
    let (name, again) = match envelope.topic.as_str() {
        client::TOPIC => {
            let message = client::FromPortal::parse_in(generation, event, payload).unwrap();
            let again = serde_json::to_string(&message).unwrap();
            let reread = client::FromPortal::parse(event, &raw(&again)).unwrap();
            assert_eq!(reread, message);
            if generation == Generation::V1 {
                assert_eq!(message.clone().in_v1(), Some(message.clone()));
            }
            (message.event_in(generation), again)
        }
        gateway::TOPIC => {
            let message = gateway::FromPortal::parse_in(generation, event, payload).unwrap();
            let again = serde_json::to_string(&message).unwrap();
            let reread = gateway::FromPortal::parse(event, &raw(&again)).unwrap();
            assert_eq!(reread, message);
            if generation == Generation::V1 {
                assert_eq!(message.clone().in_v1(), message);
            }
            (message.event_in(generation), again)
        }
        _ => {
            let message = relay::FromPortal::parse(event, payload).unwrap();
            (message.event(), "{}".into())
        }
    };
    assert_eq!(name, event);
    let older = match envelope.topic.as_str() {
        client::TOPIC => {
            serde_json::to_string(&client::FromPortal::parse(event, payload).unwrap().in_v1())
        }
        gateway::TOPIC => {
            serde_json::to_string(&gateway::FromPortal::parse(event, payload).unwrap().in_v1())
        }
        _ => Ok("{}".to_owned()),
    };
    let older = older.unwrap();

    let only_in_v2 = ["flow_logs", "flow_logs_ingest_token", "use_iceless"];
    for member in only_in_v2 {
        let member = format!("\"{member}\"");
        let is_there = payload.get().contains(&member);
        assert_eq!(again.contains(&member), is_there, "{member} of {event}");
        assert!(!older.contains(&member), "{member} of {event} in V1");
    }
}

/// Names of the other generation are unknown; candidates are understood in both spellings.
#[test]
fn each_generation_has_its_own_requests() {
    const REQUEST: &str =
        r#"{"resource_id":"0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11","connected_gateway_ids":[]}"#;
    const NEW: &str =
        r#"{"gateway_id":"66666666-7777-4888-9999-aaaaaaaaaaaa","candidates":["candidate:a"]}"#;
    const OLD: &str =
        r#"{"gateway_ids":["66666666-7777-4888-9999-aaaaaaaaaaaa"],"candidates":["candidate:a"]}"#;
    let parse = |generation, event, payload| {
        client::ToPortal::parse_in(generation, event, &raw(payload))
            .map_err(|error| error.to_string())
    };
    for (generation, own, other) in [
        (Generation::V1, "create_flow", "request_authorization"),
        (Generation::V2, "request_authorization", "create_flow"),
    ] {
        let message = parse(generation, own, REQUEST).unwrap();
        assert_eq!(message.event_in(generation), own);
        assert_eq!(
            parse(generation, other, REQUEST).unwrap_err(),
            format!("unknown event `{other}`")
        );
        let new = parse(generation, "new_gateway_ice_candidates", NEW).unwrap();
        let old = parse(generation, "broadcast_ice_candidates", OLD).unwrap();
        assert_eq!(new.in_v1(), Some(old));
    }

    assert_eq!(client::ToPortal::NoRelays(Empty {}).in_v1(), None);
    assert_eq!(gateway::ToPortal::NoRelays(Empty {}).in_v1(), None);
}

/// What clients are told of each other is understood, and nothing of it is lost.
#[test]
fn messages_about_other_clients_are_understood() {
    const CLIENT: &str = "11111111-2222-4333-8444-555555555555";
    const RESOURCE: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11";
    let authorized = format!(
        r#"{{"client_id":"{CLIENT}","client_name":"desk","client_public_key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","client_ipv4":"100.70.0.7","client_ipv6":"fd00:2021:1111::6:7","preshared_key":"fbhQuvG3cc9d7VL2dkA+/HbYodKAYHHZKfhgEMjz3RA=","local_ice_credentials":{{"username":"a","password":"b"}},"remote_ice_credentials":{{"username":"c","password":"d"}},"ice_role":"controlled","flow_logs_ingest_token":"t","use_iceless":false,"resource":{{"id":"{RESOURCE}","filters":[{{"protocol":"icmp"}}]}},"expires_at":1893456000}}"#
    );
    for (event, payload) in [
        ("client_device_access_authorized", authorized),
        (
            "client_device_access_denied",
            r#"{"ipv4":"100.70.0.7","reason":"version_mismatch"}"#.into(),
        ),
        (
            "client_ice_candidates",
            format!(r#"{{"client_id":"{CLIENT}","candidates":["candidate:a"]}}"#),
        ),
        (
            "client_ice_candidate_error",
            format!(r#"{{"client_id":"{CLIENT}","reason":"offline"}}"#),
        ),
        (
            "resource_filters_updated",
            format!(r#"{{"id":"{RESOURCE}","filters":[]}}"#),
        ),
        (
            "reject_access",
            format!(r#"{{"client_id":"{CLIENT}","resource_id":"{RESOURCE}"}}"#),
        ),
        (
            "device_pool_domain_resolved",
            format!(
                r#"{{"resource_id":"{RESOURCE}","domain":"desk.pool","ipv4":"100.70.0.7/32","ipv6":"fd00:2021:1111::6:7/128"}}"#
            ),
        ),
        (
            "device_pool_domain_resolution_failed",
            format!(r#"{{"resource_id":"{RESOURCE}","domain":"desk.pool","reason":"not_found"}}"#),
        ),
    ] {
        let message = client(event, &payload).unwrap();
        assert_eq!(message.event(), event);
        assert_eq!(serde_json::to_string(&message).unwrap(), payload);
    }
    for reason in [
        "ambiguous_address",
        "missing_address",
        "invalid_address",
        "new",
    ] {
        let failed = format!(r#"{{"resource_id":"{RESOURCE}","reason":"{reason}"}}"#);
        assert!(client("authorization_creation_failed", &failed).is_ok());
    }
}

#[test]
fn joins_and_empty_events_are_written_as_the_portal_wants_them() {
    let join = phoenix::push("client", phoenix::JOIN, &(), Some(0));
    assert_eq!(
        join,
        r#"{"topic":"client","event":"phx_join","payload":null,"ref":0}"#
    );

    let message = client::ToPortal::NoRelays(Empty {});
    let text = phoenix::push("client", message.event(), &message, Some(1));
    assert_eq!(
        text,
        r#"{"topic":"client","event":"no_relays","payload":{},"ref":1}"#
    );
}

/// Clients of the framework call messages by texts, and ask for arrays; answers call them the same.
#[test]
fn arrays_are_read_and_written_and_references_come_back_as_they_were() {
    let text = r#"["3","7","client","phx_join",{}]"#;
    let join = Envelope::parse_in(Framing::Array, text).unwrap();
    assert_eq!(
        (join.topic.as_str(), join.event.as_str()),
        ("client", phoenix::JOIN)
    );
    assert_eq!(join.payload().get(), "{}");
    let (three, seven) = (join.join_reference, join.reference);
    assert_eq!(three, Some(Reference::Text("3".into())));
    assert_eq!(
        phoenix::ok("client", seven).write(Framing::Array, three.as_ref()),
        r#"["3","7","client","phx_reply",{"response":{},"status":"ok"}]"#
    );

    let text = r#"[null,null,"phoenix","heartbeat",{}]"#;
    let beat = Envelope::parse_in(Framing::Array, text).unwrap();
    assert_eq!((beat.join_reference, beat.reference), (None, None));
    for text in [
        "{}",
        "[]",
        "[1,2,3]",
        r#"["3","7","client","phx_join"]"#,
        "7",
        "[",
    ] {
        assert!(Envelope::parse_in(Framing::Array, text).is_err(), "{text}");
    }

    let text = r#"{"topic":"client","event":"x","payload":{},"ref":"9","join_ref":4}"#;
    let said = Envelope::parse_in(Framing::Object, text).unwrap();
    assert_eq!(said.join_reference, Some(Reference::Number(4)));
    assert_eq!(
        phoenix::error("client", said.reference, "no").write(Framing::Object, None),
        r#"{"topic":"client","event":"phx_reply","payload":{"response":{"reason":"no"},"status":"error"},"ref":"9"}"#
    );
}

#[test]
fn replies_are_told_apart() {
    let parse = |text: &str| Control::parse(&Envelope::parse(text).unwrap());

    assert_eq!(
        parse(&phoenix::reply_ok("client", Some(3))),
        Some(Control::Ok { reference: 3 })
    );
    assert_eq!(
        parse(&phoenix::reply_error("client", Some(4), "unmatched topic")),
        Some(Control::Error {
            reference: 4,
            reason: Reason::UnmatchedTopic
        })
    );
    assert_eq!(
        parse(
            r#"{"topic":"client","event":"phx_reply","payload":{"status":"error","response":{"reason":"new"}},"ref":"5"}"#
        ),
        Some(Control::Error {
            reference: 5,
            reason: Reason::Other("new".into())
        })
    );
    assert_eq!(
        parse(&phoenix::reply_ok("client", None)),
        Some(Control::Ignored)
    );
    assert_eq!(
        parse(&phoenix::disconnect_token_expired("client")),
        Some(Control::TokenExpired)
    );
    assert_eq!(
        parse(
            r#"{"topic":"client","event":"disconnect","payload":{"reason":"certificate_revoked"}}"#
        ),
        Some(Control::Ignored)
    );
    assert_eq!(
        parse(r#"{"topic":"client","event":"phx_close","payload":{}}"#),
        Some(Control::ChannelClosed)
    );
    assert_eq!(
        parse(r#"{"topic":"client","event":"init","payload":{}}"#),
        None
    );
}

#[test]
fn an_unknown_event_and_a_malformed_one_cost_that_message_only() {
    assert!(matches!(
        client("brand_new", "{}"),
        Err(ParseError::UnknownEvent { .. })
    ));
    assert!(matches!(
        client("resource_deleted", "{}"),
        Err(ParseError::Malformed { .. })
    ));
    assert!(matches!(
        client("init", r#"{"resources":[]}"#),
        Err(ParseError::Malformed { .. })
    ));
}

#[test]
fn one_bad_entry_of_init_costs_that_entry() {
    let init = client(
        "init",
        r#"{"interface":{"ipv4":"100.64.0.1","ipv6":"fd00:2021:1111::1","upstream_dns":[{"protocol":"new"}]},
            "resources":[
              {"type":"teleport","id":"0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11"},
              {"type":"cidr","id":"nonsense","name":"x","address":"10.0.0.0/8","sites":[]},
              {"type":"dns","id":"0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a12","name":"no address","sites":[]},
              {"type":"cidr","id":"0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11","name":"lan","address":"10.0.0.0/8","sites":[],
               "gateway_groups":[{"id":"2b7c9e44-1a5d-4f60-8c3e-7d2f1b0a9c88","name":"old"}],"new":1,
               "filters":[{"protocol":"tcp"},{"protocol":"sctp"}]}],
            "relays":[{"type":"masque","id":1}]}"#,
    );
    let Ok(client::FromPortal::Init(init)) = init else {
        panic!("init is good: {init:?}");
    };

    assert!(init.relays.is_empty() && init.interface.upstream_dns.is_empty());
    let [Resource::Cidr(lan)] = init.resources.as_slice() else {
        panic!("one resource is good: {:?}", init.resources);
    };
    assert!(lan.sites.0.is_empty(), "`sites` wins over `gateway_groups`");
    let all_ports = PortRange {
        port_range_start: 0,
        port_range_end: 65_535,
    };
    // What isn't known must not be taken for nothing, which would let everything pass.
    assert_eq!(lan.filters, [Filter::Tcp(all_ports), Filter::Unknown]);
}

#[test]
fn a_new_refusal_is_still_a_refusal() {
    let failed = client(
        "authorization_creation_failed",
        r#"{"resource_id":"0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11","reason":"full_moon"}"#,
    );
    let Ok(client::FromPortal::AuthorizationCreationFailed(failed)) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(failed.reason, client::Refusal::Unknown);
}

/// What is made of a message, written again.
fn meaning(generation: Generation, dir: &str, msg: &str) -> String {
    fn write<T: Serialize>(message: Result<T, impl std::fmt::Debug>) -> String {
        serde_json::to_string(&message.unwrap()).unwrap()
    }

    let envelope = Envelope::parse(msg).unwrap();
    let (event, payload) = (envelope.event.as_str(), envelope.payload());
    let control = Control::parse(&envelope);
    let said = match (dir, envelope.topic.as_str()) {
        _ if control.is_some() => format!("{control:?}"),
        (_, phoenix::HEARTBEAT_TOPIC) => String::new(),
        ("peer->portal", relay::TOPIC) => write(serde_json::from_str::<relay::Join>(payload.get())),
        ("peer->portal", _) if event == phoenix::JOIN => String::new(),
        ("peer->portal", client::TOPIC) => {
            write(client::ToPortal::parse_in(generation, event, payload))
        }
        ("peer->portal", _) => write(gateway::ToPortal::parse_in(generation, event, payload)),
        (_, client::TOPIC) => write(client::FromPortal::parse_in(generation, event, payload)),
        (_, gateway::TOPIC) => write(gateway::FromPortal::parse_in(generation, event, payload)),
        _ => format!("{:?}", relay::FromPortal::parse(event, payload)),
    };

    format!("{} {event} {:?} {said}", envelope.topic, envelope.reference)
}

/// Puts a member into each object of a message.
fn put_everywhere(value: &mut serde_json::Value, name: &str, member: &serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            for inner in members.values_mut() {
                put_everywhere(inner, name, member);
            }
            members.insert(name.to_owned(), member.clone());
        }
        serde_json::Value::Array(items) => {
            for item in items {
                put_everywhere(item, name, member);
            }
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

proptest::proptest! {
    /// portal-protocol.md §14.5.
    #[test]
    fn members_that_nobody_knows_change_nothing(
        name in "new_[a-z_]{0,10}",
        member in proptest::sample::select(vec!["null", "7", "-1e9", "\"x\"", "true", "[{}]", r#"{"type":"x","id":[]}"#]),
        at in proptest::prelude::any::<proptest::sample::Index>(),
    ) {
        let lines = |(generation, sessions): (Generation, [&'static str; 3])| {
            let lines = sessions.into_iter().flat_map(str::lines);
            lines.map(move |line| (generation, line))
        };
        let lines: Vec<_> = RECORDINGS.into_iter().flat_map(lines).collect();
        let (generation, line) = *at.get(&lines);
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        if let Some(msg) = line.msg {
            let mut more: serde_json::Value = serde_json::from_str(msg.get()).unwrap();
            put_everywhere(&mut more, &name, &serde_json::from_str(member).unwrap());
            let more = more.to_string();
            proptest::prop_assert_eq!(meaning(generation, line.dir, &more), meaning(generation, line.dir, msg.get()));
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,200}", event in "[a-z_]{0,30}") {
        drop(Envelope::parse(&text).map(|envelope| Control::parse(&envelope)));
        if let Ok(payload) = RawValue::from_string(text) {
            drop(client::FromPortal::parse(&event, &payload));
            drop(gateway::FromPortal::parse(&event, &payload));
        }
    }
}

#[test]
fn filters_that_nobody_understands_do_not_open_a_resource() {
    for malformed in [
        r#"{"protocol":"sctp"}"#,
        r#"{"protocol":"tcp","port_range_start":70000}"#,
        r#"{"protocol":"udp","port_range_end":-1}"#,
        r#"{"port_range_start":1}"#,
        "null",
        "7",
    ] {
        let filters = format!("[{malformed}]");
        for resource in [
            format!(
                r#"{{"type":"cidr","id":"0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11","name":"n","address":"10.0.0.0/8","filters":{filters}}}"#
            ),
            format!(
                r#"{{"type":"dns","id":"0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11","name":"n","address":"*.corp.test","filters":{filters}}}"#
            ),
        ] {
            let parsed: resource::GatewayResource = serde_json::from_str(&resource).unwrap();
            let (resource::GatewayResource::Cidr { filters, .. }
            | resource::GatewayResource::Dns { filters, .. }) = parsed
            else {
                panic!("another type");
            };
            assert_eq!(filters, [Filter::Unknown], "{malformed}");
        }
    }
}
