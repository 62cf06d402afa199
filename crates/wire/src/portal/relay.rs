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
}

messages! {
    /// What the portal says to a relay.
    FromPortal {
        /// The relay is known to peers from here on.
        Init(Empty) = "init",
    }
}
