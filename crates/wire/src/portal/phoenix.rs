//! The envelope of the portal's channels: Phoenix serializer v1, JSON objects (portal-protocol.md §2).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ParseError;

/// The topic that heartbeats are sent on.
pub const HEARTBEAT_TOPIC: &str = "phoenix";

/// The event that joins a channel.
pub const JOIN: &str = "phx_join";

/// The event that keeps a connection alive.
pub const HEARTBEAT: &str = "heartbeat";

/// One message as it lies on the wire, its payload unread.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// The channel: `client`, `gateway`, `relay` or `phoenix`.
    pub topic: String,
    /// The event's name.
    pub event: String,
    /// The payload's JSON text. A portal requires the member; a peer may meet a message without one.
    #[serde(borrow, default)]
    pub payload: Option<&'a RawValue>,
    /// The sender's reference, echoed by the reply. Portals may send any number, a text, or none.
    #[serde(default, rename = "ref", deserialize_with = "lenient_reference")]
    pub reference: Option<u64>,
}

impl<'a> Envelope<'a> {
    /// Opens the envelope.
    ///
    /// # Errors
    ///
    /// [`ParseError::NotAnEnvelope`].
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        serde_json::from_str(text).map_err(ParseError::NotAnEnvelope)
    }

    /// The payload's JSON text; `null` where there was none.
    pub fn payload(&self) -> &'a RawValue {
        self.payload.unwrap_or(RawValue::NULL)
    }
}

/// A control event that the portal sends to any role.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Control {
    /// `phx_reply` with status ok.
    Ok {
        /// The reference of the message it answers.
        reference: u64,
    },
    /// `phx_reply` with status error.
    Error {
        /// The reference of the message it answers.
        reference: u64,
        /// Why.
        reason: Reason,
    },
    /// The channel crashed on the portal's side; ignored by peers.
    ChannelFailed,
    /// The channel ended; the peer reconnects.
    ChannelClosed,
    /// The token can no longer be used; the session is over.
    TokenExpired,
    /// A reply or `disconnect` that this version doesn't understand; ignored.
    Ignored,
}

/// Why the portal refused a message.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// The peer is not (or no longer) in this channel.
    UnmatchedTopic,
    /// The peer's version is not served.
    InvalidVersion,
    /// The account is disabled.
    Disabled,
    /// Any other text.
    Other(String),
}

impl Control {
    /// Understands a control event; `None` if `envelope` carries an ordinary message.
    pub fn parse(envelope: &Envelope<'_>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Reply {
            status: String,
            #[serde(default)]
            response: Response,
        }
        #[derive(Default, Deserialize)]
        struct Response {
            #[serde(default)]
            reason: Option<String>,
        }

        let text = envelope.payload().get();
        let control = match envelope.event.as_str() {
            "phx_reply" => match (serde_json::from_str::<Reply>(text), envelope.reference) {
                (Ok(reply), Some(reference)) if reply.status == "ok" => Self::Ok { reference },
                (Ok(reply), Some(reference)) => Self::Error {
                    reference,
                    reason: Reason::parse(reply.response.reason.unwrap_or_default()),
                },
                (Err(_), _) | (_, None) => Self::Ignored,
            },
            "phx_error" => Self::ChannelFailed,
            "phx_close" => Self::ChannelClosed,
            "disconnect" => match serde_json::from_str::<Response>(text) {
                Ok(Response {
                    reason: Some(reason),
                }) if reason == "token_expired" => Self::TokenExpired,
                Ok(_) | Err(_) => Self::Ignored,
            },
            _ => return None,
        };

        Some(control)
    }
}

impl Reason {
    fn parse(text: String) -> Self {
        match text.as_str() {
            "unmatched topic" => Self::UnmatchedTopic,
            "invalid_version" => Self::InvalidVersion,
            "disabled" => Self::Disabled,
            _ => Self::Other(text),
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnmatchedTopic => "unmatched topic",
            Self::InvalidVersion => "invalid_version",
            Self::Disabled => "disabled",
            Self::Other(text) => text,
        })
    }
}

/// Writes a message with any payload.
pub fn push(topic: &str, event: &str, payload: &impl Serialize, reference: Option<u64>) -> String {
    #[derive(Serialize)]
    struct Outgoing<'a, P> {
        topic: &'a str,
        event: &'a str,
        payload: &'a P,
        #[serde(rename = "ref")]
        reference: Option<u64>,
    }

    let message = Outgoing {
        topic,
        event,
        payload,
        reference,
    };
    // Our messages are plain structs with text keys: serde_json can't fail on them.
    serde_json::to_string(&message).unwrap_or_default()
}

/// Writes a heartbeat.
pub fn heartbeat(reference: u64) -> String {
    push(
        HEARTBEAT_TOPIC,
        HEARTBEAT,
        &super::Empty {},
        Some(reference),
    )
}

/// Writes the answer that grants a join or confirms a heartbeat.
pub fn reply_ok(topic: &str, reference: Option<u64>) -> String {
    let payload = serde_json::json!({"status": "ok", "response": {}});

    push(topic, "phx_reply", &payload, reference)
}

/// Writes the answer that refuses a message.
pub fn reply_error(topic: &str, reference: Option<u64>, reason: &str) -> String {
    let payload = serde_json::json!({"status": "error", "response": {"reason": reason}});

    push(topic, "phx_reply", &payload, reference)
}

/// Writes the message that ends a session for good.
pub fn disconnect_token_expired(topic: &str) -> String {
    let payload = serde_json::json!({"reason": "token_expired"});

    push(topic, "disconnect", &payload, None)
}

fn lenient_reference<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;

    Ok(value.and_then(|value| match value {
        serde_json::Value::Number(number) => number.as_u64(),
        serde_json::Value::String(text) => text.parse().ok(),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    }))
}
