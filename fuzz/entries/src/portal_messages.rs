//! Messages between portal and client, gateway and relay, and the envelope they travel in.
//!
//! * What is understood and written again means the same, alone and in an envelope; written once more, the same text.
//! * Secrets don't show in what is printed for people.

use connlib_wire::portal::phoenix::{self, Control, Envelope};
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
        ],
    ),
    (
        from_client_to_portal,
        &[
            "request_authorization",
            "new_gateway_ice_candidates",
            "invalidate_gateway_ice_candidates",
            "set_snownet_capabilities",
            "no_relays",
        ],
    ),
    (
        from_portal_to_gateway,
        &[
            "init",
            "create_authorization",
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
    let Ok(envelope) = Envelope::parse(text) else {
        return;
    };
    let control = Control::parse(&envelope);
    for (read, _) in KINDS {
        read(&envelope.event, envelope.payload());
    }
    join(envelope.payload());

    let written = phoenix::push(
        &envelope.topic,
        &envelope.event,
        &envelope.payload(),
        envelope.reference,
    );
    let again = Envelope::parse(&written).expect("what we write can be read");
    assert_eq!(again.topic, envelope.topic);
    assert_eq!(again.event, envelope.event);
    assert_eq!(again.reference, envelope.reference);
    assert_eq!(again.payload().get(), envelope.payload().get());
    assert_eq!(Control::parse(&again), control);

    replies(&envelope.topic, envelope.reference, &envelope.event);
}

fn replies(topic: &str, reference: Option<u64>, reason: &str) {
    let ok = phoenix::reply_ok(topic, reference);
    let ok = Control::parse(&Envelope::parse(&ok).expect("a reply is an envelope"));
    let error = phoenix::reply_error(topic, reference, reason);
    let error = Control::parse(&Envelope::parse(&error).expect("a reply is an envelope"));
    match reference {
        Some(reference) => {
            assert_eq!(ok, Some(Control::Ok { reference }));
            let Some(Control::Error { reason: read, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!(read.to_string(), reason);
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
    assert_eq!(
        format!("{join:?}"),
        "Join { stamp_secret: Secret(…) }",
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
