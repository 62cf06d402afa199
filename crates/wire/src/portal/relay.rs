//! The relay's socket (portal-protocol.md §7).

use serde::{Deserialize, Serialize};

use super::{Empty, messages};
use crate::secret::Secret;

/// The relay's topic.
pub const TOPIC: &str = "relay";

/// What a relay joins with.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Join {
    /// The text that all TURN passwords of this relay are made from: 64 lowercase hex digits.
    pub stamp_secret: Secret,
    /// How they are made. Ours: the forerunner's portal doesn't look at it.
    #[serde(default, skip_serializing_if = "Passwords::are_stamped")]
    pub passwords: Passwords,
}

/// How the passwords of a TURN server's users are made from a secret. A user name is `<expiry in Unix seconds>:<salt>`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Passwords {
    /// As relays of this kind check them (relay.md §5): [`relay_password`](crate::stun::relay_password).
    #[default]
    Stamped,
    /// As other TURN servers do that share a secret with a web service: [`rest_password`](crate::stun::rest_password).
    Rest,
}

impl Passwords {
    fn are_stamped(&self) -> bool {
        *self == Self::Stamped
    }
}

messages! {
    /// What the portal says to a relay.
    FromPortal {
        /// The relay is known to peers from here on.
        Init(Empty) = "init",
    }
}
