//! The envelope of the portal's channels: JSON objects, or arrays for clients of the framework that the protocol comes from
//! (portal-protocol.md §2).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ParseError;

/// The topic that heartbeats are sent on.
pub const HEARTBEAT_TOPIC: &str = "phoenix";

/// The event that joins a channel.
pub const JOIN: &str = "phx_join";

/// The event that leaves a channel. Peers of the protocol end their connection instead.
pub const LEAVE: &str = "phx_leave";

/// The event that keeps a connection alive.
pub const HEARTBEAT: &str = "heartbeat";

/// How messages lie on the wire, which the parameter `vsn` of the address says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Framing {
    /// `{"topic": …, "event": …, "payload": …, "ref": …}`, as all peers of the protocol have it.
    #[default]
    Object,
    /// `[join_ref, ref, topic, event, payload]`, for `vsn=2.0.0`.
    Array,
}

/// What a message is called by its sender, and by the answer to it: echoed as it came.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reference {
    /// As peers of the protocol write it.
    Number(u64),
    /// As other clients of the framework do.
    Text(String),
}

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
    /// The sender's reference, echoed by the reply; none where it is neither a number nor a text.
    #[serde(default, rename = "ref", deserialize_with = "lenient_reference")]
    pub reference: Option<Reference>,
    /// The reference of the join that the message belongs to.
    #[serde(default, rename = "join_ref", deserialize_with = "lenient_reference")]
    pub join_reference: Option<Reference>,
}

impl Reference {
    /// The number that it is, or that its text is.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

impl<'a> Envelope<'a> {
    /// Opens the envelope of a JSON object.
    ///
    /// # Errors
    ///
    /// [`ParseError::NotAnEnvelope`].
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        serde_json::from_str(text).map_err(ParseError::NotAnEnvelope)
    }

    /// Opens the envelope of a JSON object or array.
    ///
    /// # Errors
    ///
    /// [`ParseError::NotAnEnvelope`].
    pub fn parse_in(framing: Framing, text: &'a str) -> Result<Self, ParseError> {
        #[derive(Deserialize)]
        struct Array<'a>(
            #[serde(deserialize_with = "lenient_reference")] Option<Reference>,
            #[serde(deserialize_with = "lenient_reference")] Option<Reference>,
            String,
            String,
            #[serde(borrow)] &'a RawValue,
        );

        match framing {
            Framing::Object => Self::parse(text),
            Framing::Array => {
                let array = serde_json::from_str(text).map_err(ParseError::NotAnEnvelope)?;
                let Array(join_reference, reference, topic, event, payload) = array;
                Ok(Self {
                    topic,
                    event,
                    payload: Some(payload),
                    reference,
                    join_reference,
                })
            }
        }
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
        let reference = envelope.reference.as_ref().and_then(Reference::number);
        let control = match envelope.event.as_str() {
            "phx_reply" => match (serde_json::from_str::<Reply>(text), reference) {
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

/// What is to be written: a message, before it is framed.
#[derive(Clone, Debug)]
pub struct Outgoing<'a, P> {
    /// The channel.
    pub topic: &'a str,
    /// The event's name.
    pub event: &'a str,
    /// What it says.
    pub payload: P,
    /// What it is called, or what is answered.
    pub reference: Option<Reference>,
}

impl<P: Serialize> Outgoing<'_, P> {
    /// Writes it. `join_reference` says in an array which join it belongs to.
    pub fn write(&self, framing: Framing, join_reference: Option<&Reference>) -> String {
        #[derive(Serialize)]
        struct Object<'a, P> {
            topic: &'a str,
            event: &'a str,
            payload: &'a P,
            #[serde(rename = "ref")]
            reference: &'a Option<Reference>,
        }

        let Self {
            topic,
            event,
            payload,
            reference,
        } = self;
        let text = match framing {
            Framing::Object => serde_json::to_string(&Object {
                topic,
                event,
                payload,
                reference,
            }),
            Framing::Array => {
                serde_json::to_string(&(join_reference, reference, topic, event, payload))
            }
        };

        // Our messages are plain structs with text keys: serde_json can't fail on them.
        text.unwrap_or_default()
    }
}

/// Writes a message with any payload, as an object.
pub fn push(topic: &str, event: &str, payload: &impl Serialize, reference: Option<u64>) -> String {
    let message = Outgoing {
        topic,
        event,
        payload,
        reference: reference.map(Reference::Number),
    };

    message.write(Framing::Object, None)
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

/// The answer that grants a join or confirms a heartbeat.
pub fn ok(topic: &str, reference: Option<Reference>) -> Outgoing<'_, serde_json::Value> {
    Outgoing {
        topic,
        event: "phx_reply",
        payload: serde_json::json!({"status": "ok", "response": {}}),
        reference,
    }
}

/// The answer that refuses a message.
pub fn error<'a>(
    topic: &'a str,
    reference: Option<Reference>,
    reason: &str,
) -> Outgoing<'a, serde_json::Value> {
    Outgoing {
        topic,
        event: "phx_reply",
        payload: serde_json::json!({"status": "error", "response": {"reason": reason}}),
        reference,
    }
}

/// The message that ends a session for good.
pub fn token_expired(topic: &str) -> Outgoing<'_, serde_json::Value> {
    Outgoing {
        topic,
        event: "disconnect",
        payload: serde_json::json!({"reason": "token_expired"}),
        reference: None,
    }
}

/// Writes [`ok`] as an object.
pub fn reply_ok(topic: &str, reference: Option<u64>) -> String {
    ok(topic, reference.map(Reference::Number)).write(Framing::Object, None)
}

/// Writes [`error`] as an object.
pub fn reply_error(topic: &str, reference: Option<u64>, reason: &str) -> String {
    error(topic, reference.map(Reference::Number), reason).write(Framing::Object, None)
}

/// Writes [`token_expired`] as an object.
pub fn disconnect_token_expired(topic: &str) -> String {
    token_expired(topic).write(Framing::Object, None)
}

fn lenient_reference<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Reference>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;

    Ok(value.and_then(|value| match value {
        serde_json::Value::Number(number) => number.as_u64().map(Reference::Number),
        serde_json::Value::String(text) => Some(Reference::Text(text)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    }))
}
