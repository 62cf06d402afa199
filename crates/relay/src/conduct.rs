//! To whom the server is what.

use std::time::Duration;

use crate::config::Credentials;

/// What a client gets that doesn't say how long it wants it (RFC 8656 §3.2).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);

/// The most a client gets at a time (RFC 8656 §7.2).
const MAX_LIFETIME: Duration = Duration::from_secs(3_600);

/// How a server behaves towards its clients. Who made their credentials decides, and nothing else.
///
/// | | `Portal` (relay.md) | `Standard` (RFC 8656 over UDP, RFC 8489) |
/// |---|---|---|
/// | unknown required attributes | ignored | 420 in requests, indications are dropped |
/// | FINGERPRINT | neither read nor sent | checked, and sent to those who send it |
/// | integrity | SHA-1 | SHA-1, or SHA-256 where the request has it |
/// | nonces | UUIDs | carry a cookie that says which passwords are offered |
/// | a malformed request | 400 before any authentication | 400 after it |
/// | a method that doesn't exist | 400 | dropped |
/// | the wrong transport | 400 | 442 |
/// | permissions | none: CREATE-PERMISSION succeeds, a channel is what permits | each peer's IP address needs one |
/// | Send and Data indications | dropped | relayed |
/// | EVEN-PORT, RESERVATION-TOKEN | ignored | honoured |
/// | an address that isn't available | left out | left out, with ADDRESS-ERROR-CODE |
/// | short lifetimes | granted, zero included | raised to the default |
/// | another user's allocation | may be used from its socket | 441 |
/// | a user's second allocation | replaces the first | up to a limit, then 486 |
/// | peers at our own public addresses | any port but the listen port | allocations only |
///
/// USERHASH is not offered: a name holds nothing but an expiry and what the issuer chose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Conduct {
    /// To the letter what the portal's clients expect of the forerunner's relays.
    Portal,
    /// A TURN server for anybody's tools.
    Standard,
}

impl Conduct {
    /// The one towards those who hold such credentials.
    pub fn towards(credentials: &Credentials) -> Self {
        match credentials {
            Credentials::Stamped(_) => Self::Portal,
            Credentials::Rest(_) => Self::Standard,
        }
    }

    pub(crate) fn is_standard(self) -> bool {
        self == Self::Standard
    }

    /// How long a new allocation lives (relay.md §8; RFC 8656 §7.2).
    pub(crate) fn granted_lifetime(self, requested: Option<Duration>) -> Duration {
        let granted = requested.unwrap_or(DEFAULT_LIFETIME).min(MAX_LIFETIME);
        match self {
            Self::Portal => granted,
            Self::Standard => granted.max(DEFAULT_LIFETIME),
        }
    }

    /// How long a refreshed one goes on to live; zero ends it (relay.md §9; RFC 8656 §8.2).
    pub(crate) fn refreshed_lifetime(self, requested: Option<Duration>) -> Duration {
        match requested {
            Some(Duration::ZERO) => Duration::ZERO,
            requested => self.granted_lifetime(requested),
        }
    }
}
