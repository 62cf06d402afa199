use serde_json::value::RawValue;

use super::phoenix::{Control, Envelope, Reason};
use super::resource::{Filter, PortRange, Resource};
use super::*;

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
    let sessions = [
        ("client", include_str!("../../tests/vectors/client.jsonl")),
        ("gateway", include_str!("../../tests/vectors/gateway.jsonl")),
        ("relay", include_str!("../../tests/vectors/relay.jsonl")),
    ];
    let mut seen = 0;

    for (topic, session) in sessions {
        for line in session.lines() {
            #[derive(serde::Deserialize)]
            struct Line<'a> {
                dir: String,
                #[serde(borrow)]
                msg: Option<&'a RawValue>,
            }
            let line: Line<'_> = serde_json::from_str(line).unwrap();
            let Some(msg) = line.msg else { continue };
            let envelope = Envelope::parse(msg.get()).unwrap();
            let payload = envelope.payload();
            seen += 1;

            if line.dir == "peer->portal" {
                let again = match (topic, envelope.event.as_str()) {
                    (_, phoenix::HEARTBEAT) => phoenix::heartbeat(envelope.reference.unwrap()),
                    ("relay", phoenix::JOIN) => {
                        let join: relay::Join = serde_json::from_str(payload.get()).unwrap();
                        phoenix::push(topic, phoenix::JOIN, &join, envelope.reference)
                    }
                    (_, phoenix::JOIN) => {
                        phoenix::push(topic, phoenix::JOIN, &(), envelope.reference)
                    }
                    ("client", event) => {
                        let message = client::ToPortal::parse(event, payload).unwrap();
                        phoenix::push(topic, message.event(), &message, envelope.reference)
                    }
                    (_, event) => {
                        let message = gateway::ToPortal::parse(event, payload).unwrap();
                        phoenix::push(topic, message.event(), &message, envelope.reference)
                    }
                };
                assert_eq!(again, msg.get());
            } else if Control::parse(&envelope).is_none() {
                let again = match topic {
                    "client" => {
                        let message = client::FromPortal::parse(&envelope.event, payload).unwrap();
                        let again = serde_json::to_string(&message).unwrap();
                        let reread = client::FromPortal::parse(&envelope.event, &raw(&again));
                        assert_eq!(reread.unwrap(), message);
                        message.event()
                    }
                    "gateway" => {
                        let message = gateway::FromPortal::parse(&envelope.event, payload).unwrap();
                        let again = serde_json::to_string(&message).unwrap();
                        let reread = gateway::FromPortal::parse(&envelope.event, &raw(&again));
                        assert_eq!(reread.unwrap(), message);
                        message.event()
                    }
                    _ => relay::FromPortal::parse(&envelope.event, payload)
                        .unwrap()
                        .event(),
                };
                assert_eq!(again, envelope.event);
            }
        }
    }
    assert!(seen > 100, "only {seen} messages");
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

proptest::proptest! {
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
