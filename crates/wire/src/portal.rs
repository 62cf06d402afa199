//! What client, gateway and relay say to the portal, and it to them: JSON over WebSocket, in either generation.
//!
//! Each role has a module with two enums, `FromPortal` and `ToPortal`; [`phoenix`] is the envelope they travel in.
//! Source: portal-protocol.md §2 and §4–§7.
//!
//! Parsing is lenient where the protocol grows: unknown members are ignored, and one bad entry of a list costs that
//! entry, not the message. An unknown event or a malformed payload is an error of that message alone.

pub mod client;
pub mod devices;
pub mod gateway;
pub mod phoenix;
pub mod relay;
pub mod resource;
pub mod turn;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::id::{ClientId, ResourceId};
use crate::secret::Secret;

/// Why a message could not be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The text is not an envelope.
    #[error("the portal's text is not a channel message: {0}")]
    NotAnEnvelope(#[source] serde_json::Error),
    /// The event is none that the socket's generation of the protocol knows.
    #[error("unknown event `{event}`")]
    UnknownEvent {
        /// The event's name.
        event: String,
    },
    /// The event is known; its payload lacks something or has the wrong type.
    #[error("malformed payload of `{event}`: {source}")]
    Malformed {
        /// The event's name.
        event: String,
        /// What serde found.
        #[source]
        source: serde_json::Error,
    },
}

/// The generation of the protocol that a socket speaks, which its path says (portal-protocol.md §1.1, §5.1, §6.1). Relays have
/// but one.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Generation {
    /// `/client/websocket`: grants are called flows, and the token stands in the address.
    V1,
    /// `/client/v2/websocket`.
    #[default]
    V2,
}

/// Declares an enum of messages, the event name of each, and how to tell them apart: `"name" / "name in V1" | "alias"`.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident($payload:ty) = $event:literal $(/ $older:literal)? $(| $alias:literal)*),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        #[allow(clippy::large_enum_variant, reason = "a few messages a minute; boxes would only get in the way")]
        pub enum $name {
            $($(#[$vdoc])* $variant($payload),)*
        }

        impl $name {
            /// Understands the payload of `event`, whichever generation calls it so.
            ///
            /// # Errors
            ///
            /// [`ParseError::UnknownEvent`](crate::portal::ParseError) and [`ParseError::Malformed`](crate::portal::ParseError).
            pub fn parse(event: &str, payload: &serde_json::value::RawValue) -> Result<Self, crate::portal::ParseError> {
                match event {
                    $($event $(| $older)? $(| $alias)* => crate::portal::payload(event, payload).map(Self::$variant),)*
                    _ => Err(crate::portal::ParseError::UnknownEvent { event: event.to_owned() }),
                }
            }

            /// The same, but the other generation's name for a message is an unknown one.
            ///
            /// # Errors
            ///
            /// As [`parse`](Self::parse).
            pub fn parse_in(generation: crate::portal::Generation, event: &str, payload: &serde_json::value::RawValue) -> Result<Self, crate::portal::ParseError> {
                match (generation, event) {
                    $($((crate::portal::Generation::V1, $event) | (crate::portal::Generation::V2, $older) =>
                        Err(crate::portal::ParseError::UnknownEvent { event: event.to_owned() }),)?)*
                    _ => Self::parse(event, payload),
                }
            }

            /// The event's name on the wire.
            pub fn event(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $event,)*
                }
            }

            /// The event's name on a socket of that generation.
            pub fn event_in(&self, generation: crate::portal::Generation) -> &'static str {
                match (generation, self) {
                    $($((crate::portal::Generation::V1, Self::$variant(_)) => $older,)?)*
                    _ => self.event(),
                }
            }
        }

        /// Writes the payload alone; the envelope is [`phoenix::push`](crate::portal::phoenix::push).
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(payload) => payload.serialize(serializer),)*
                }
            }
        }
    };
}
use messages;

/// The two halves of a set of ICE credentials (connections.md §3.1).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct IceCredentials {
    /// The user name fragment.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// The tunnel addresses of a gateway.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TunnelAddresses {
    /// From `100.64.0.0/11`.
    pub ipv4: Ipv4Addr,
    /// From `fd00:2021:1111::/107`.
    pub ipv6: Ipv6Addr,
}

/// Relays that went and relays that came (portal-protocol.md §9.7).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RelaysPresence {
    /// Relays to forget.
    pub disconnected_ids: Vec<crate::id::RelayId>,
    /// Relays to use; those already known stay as they are.
    #[serde(deserialize_with = "skip_malformed")]
    pub connected: Vec<turn::Relay>,
}

/// What the peer supports beyond the base protocol.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Capabilities {
    /// Whether connections may do without ICE (connections.md §10).
    #[serde(default)]
    pub iceless: bool,
}

/// A payload without members, written as `{}`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Empty {}

/// A grant that is in force: this client may use this resource.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Authorization {
    /// Who.
    pub client_id: ClientId,
    /// What.
    pub resource_id: ResourceId,
    /// Until when, in Unix seconds. `None` means until it is revoked.
    #[serde(default)]
    pub expires_at: Option<u64>,
}

/// Where flow logs go (portal-protocol.md §4). An interval of zero turns them off.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct FlowLogs {
    /// The address to upload to.
    pub api_url: String,
    /// Seconds between uploads.
    pub upload_interval_secs: u64,
    /// The most records of one upload; zero for the peer's default.
    pub upload_batch_size: u64,
}

/// A DNS server reached over plain DNS at a port of its own; the older of the two forms.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
pub enum UpstreamDns {
    /// Plain DNS.
    IpPort {
        /// The server's address and port.
        address: SocketAddr,
    },
}

fn payload<T: DeserializeOwned>(event: &str, payload: &RawValue) -> Result<T, ParseError> {
    serde_json::from_str(payload.get()).map_err(|source| ParseError::Malformed {
        event: event.to_owned(),
        source,
    })
}

/// Reads a list entry by entry; one that can't be read is left out and told once.
pub(crate) fn skip_malformed<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let entries = Vec::<serde_json::Value>::deserialize(deserializer)?;
    let mut understood = Vec::with_capacity(entries.len());
    for entry in entries {
        match serde_json::from_value(entry) {
            Ok(entry) => understood.push(entry),
            Err(error) => {
                // The kind alone: entries carry names and credentials.
                tracing::info!(kind = std::any::type_name::<T>(), %error, "Skipping an entry that this version does not understand");
            }
        }
    }

    Ok(understood)
}

/// The same for a list that may be missing.
pub(crate) fn skip_malformed_if_any<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    skip_malformed(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
