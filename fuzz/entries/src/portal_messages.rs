//! Messages between portal and client, gateway and relay, and the envelope they travel in.
//!
//! * What is understood and written again means the same, alone and in an envelope; written once more, the same text.
//! * Secrets don't show in what is printed for people.

use connlib_wire::portal::phoenix::{self, Control, Envelope, Framing, Outgoing, Reference};
use connlib_wire::portal::{client, gateway, relay};
use serde_json::value::RawValue;

/// How a message is read: what of it must hold is asserted.
type Read = fn(&str, &RawValue);

/// Each kind of message, and the events that this version knows of it.
const KINDS: &[(Read, &[&str])] = &[
    (
        from_portal_to_client,
        &[
            "init",
            "config_changed",
            "resource_created_or_updated",
            "resource_deleted",
            "relays_presence",
            "authorization_created",
            "authorization_creation_failed",
            "ice_candidates",
            "invalidate_ice_candidates",
            "gateway_ice_candidates",
            "invalidate_gateway_ice_candidates",
            "flow_created",
            "flow_creation_failed",
            "client_ice_candidates",
            "client_ice_candidate_error",
            "client_device_access_authorized",
            "client_device_access_denied",
            "resource_filters_updated",
            "device_pool_domain_resolved",
            "device_pool_domain_resolution_failed",
        ],
    ),
    (
        from_client_to_portal,
        &[
            "request_authorization",
            "create_flow",
            "new_gateway_ice_candidates",
            "invalidate_gateway_ice_candidates",
            "broadcast_ice_candidates",
            "broadcast_invalidated_ice_candidates",
            "new_client_ice_candidates",
            "resolve_device_pool_domain",
            "set_snownet_capabilities",
            "no_relays",
        ],
    ),
    (
        from_portal_to_gateway,
        &[
            "init",
            "create_authorization",
            "authorize_flow",
            "access_authorization_expiry_updated",
            "reject_access",
            "resource_updated",
            "ice_candidates",
            "invalidate_ice_candidates",
            "relays_presence",
        ],
    ),
    (
        from_gateway_to_portal,
        &[
            "authorization_created",
            "flow_authorized",
            "broadcast_ice_candidates",
            "broadcast_invalidated_ice_candidates",
            "set_snownet_capabilities",
            "no_relays",
        ],
    ),
    (from_portal_to_relay, &["init"]),
];

/// A whole text, or, behind two bytes below 32 that pick kind and event, a payload.
pub fn portal_messages(bytes: &[u8]) {
    match bytes {
        [kind, event, payload @ ..] if *kind < 32 && *event < 32 => {
            let (read, events) = KINDS[usize::from(*kind) % KINDS.len()];
            let event = events[usize::from(*event) % events.len()];
            if let Ok(payload) = serde_json::from_slice::<&RawValue>(payload) {
                read(event, payload);
            }
        }
        _ => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                envelope(text);
            }
        }
    }
}

fn envelope(text: &str) {
    for framing in [Framing::Object, Framing::Array] {
        let Ok(envelope) = Envelope::parse_in(framing, text) else {
            continue;
        };
        for (read, _) in KINDS {
            read(&envelope.event, envelope.payload());
        }
        join(envelope.payload());
        is_written_as_it_was_read(framing, &envelope);
        replies(framing, &envelope);
    }
}

fn is_written_as_it_was_read(framing: Framing, envelope: &Envelope<'_>) {
    let message = Outgoing {
        topic: &envelope.topic,
        event: &envelope.event,
        payload: envelope.payload(),
        reference: envelope.reference.clone(),
    };
    let written = message.write(framing, envelope.join_reference.as_ref());
    let again = Envelope::parse_in(framing, &written).expect("what we write can be read");
    assert_eq!(again.topic, envelope.topic);
    assert_eq!(again.event, envelope.event);
    assert_eq!(again.reference, envelope.reference);
    assert_eq!(again.payload().get(), envelope.payload().get());
    assert_eq!(Control::parse(&again), Control::parse(envelope));
}

fn replies(framing: Framing, envelope: &Envelope<'_>) {
    let (topic, reason, name) = (&envelope.topic, &envelope.event, &envelope.reference);
    let read = |written: String| {
        let envelope = Envelope::parse_in(framing, &written).expect("a reply is an envelope");
        assert_eq!(envelope.reference, *name);
        Control::parse(&envelope)
    };
    let ok = read(phoenix::ok(topic, name.clone()).write(framing, None));
    let error = read(phoenix::error(topic, name.clone(), reason).write(framing, None));
    match name.as_ref().and_then(Reference::number) {
        Some(reference) => {
            assert_eq!(ok, Some(Control::Ok { reference }));
            let Some(Control::Error { reason: read, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!(read.to_string(), *reason);
        }
        None => assert_eq!(
            (ok, error),
            (Some(Control::Ignored), Some(Control::Ignored))
        ),
    }
    let end = phoenix::disconnect_token_expired(topic);
    let end = Control::parse(&Envelope::parse(&end).expect("it is an envelope"));
    assert_eq!(end, Some(Control::TokenExpired));
}

fn join(payload: &RawValue) {
    let Ok(join) = serde_json::from_str::<relay::Join>(payload.get()) else {
        return;
    };
    let written = serde_json::to_string(&join).expect("a join can be written");
    let again: relay::Join = serde_json::from_str(&written).expect("what we write can be read");
    assert_eq!(again, join);
    let shown = format!("{join:?}");
    assert!(
        shown.starts_with("Join { stamp_secret: Secret(…), passwords: "),
        "a secret is never printed"
    );
}

/// Declares a function that reads one kind of message.
macro_rules! reads {
    ($($name:ident: $message:ty = $topic:expr;)*) => {$(
        fn $name(event: &str, payload: &RawValue) {
            let Ok(message) = <$message>::parse(event, payload) else {
                return;
            };
            let text = phoenix::push($topic, message.event(), &message, Some(1));
            let envelope = Envelope::parse(&text).expect("what we write can be read");
            let again = <$message>::parse(&envelope.event, envelope.payload())
                .expect("what we write can be read");
            assert_eq!(again, message);
            assert_eq!(phoenix::push($topic, again.event(), &again, Some(1)), text);
        }
    )*};
}

reads! {
    from_portal_to_client: client::FromPortal = client::TOPIC;
    from_client_to_portal: client::ToPortal = client::TOPIC;
    from_portal_to_gateway: gateway::FromPortal = gateway::TOPIC;
    from_gateway_to_portal: gateway::ToPortal = gateway::TOPIC;
    from_portal_to_relay: relay::FromPortal = relay::TOPIC;
}
