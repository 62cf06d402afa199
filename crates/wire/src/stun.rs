//! STUN and TURN messages: RFC 8489, RFC 8656 (connections.md §4.1 and §6.2, relay.md §4).
//!
//! [`Message`] is a checked view of received bytes, [`Builder`] writes a message into a pooled buffer, and
//! [`Attribute`] is what both have between header and end.

mod attribute;
mod auth;
mod builder;
mod kind;
mod raw;

pub use attribute::{Attribute, Family};
pub use auth::{Key, relay_password, rest_password};
pub use builder::Builder;
pub use kind::{Class, Method, TransactionId};

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use kind::split_type;
use raw::{RawAttribute, RawAttributes};

/// The fixed value that tells STUN from everything else (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// The length of a message's header in bytes.
pub const HEADER_LEN: usize = 20;

/// The number of the UDP protocol in REQUESTED-TRANSPORT.
pub const TRANSPORT_UDP: u8 = 17;

/// What a nonce of RFC 8489 begins with: four characters of base64 follow, for 24 bits of features (§9.2).
pub const NONCE_COOKIE: &str = "obMatJos2";

/// The number of MD5 in PASSWORD-ALGORITHM and PASSWORD-ALGORITHMS (RFC 8489 §18.5).
pub const ALGORITHM_MD5: u16 = 0x0001;

/// The number of SHA-256 there.
pub const ALGORITHM_SHA256: u16 = 0x0002;

const INTEGRITY_LEN: usize = 24;
const INTEGRITY_SHA256_LEN: usize = 36;
const FINGERPRINT_LEN: usize = 8;

/// Why bytes are not a STUN message, or a message could not be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StunError {
    /// The header is not STUN's: too short, wrong cookie, or a length that doesn't match.
    #[error("not a STUN message")]
    NotStun,
    /// An attribute runs past the end of the message.
    #[error("the attribute at byte {at} runs past the end of the message")]
    Truncated {
        /// Where the attribute begins.
        at: usize,
    },
    /// A known attribute holds a value it must not hold.
    #[error("the attribute 0x{attribute:04x} holds an invalid value")]
    InvalidAttribute {
        /// Its type.
        attribute: u16,
    },
    /// The buffer can't hold the message.
    #[error("the message is larger than its buffer")]
    TooLong,
}

/// The value of the first attribute of one kind.
macro_rules! find {
    ($message:ident, $kind:ident) => {
        $message.attributes().find_map(|attribute| match attribute {
            Ok(Attribute::$kind(value)) => Some(value),
            Ok(_) | Err(_) => None,
        })
    };
}

/// A received message: its header and the bounds of every attribute are checked, values are read on demand.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    method: Method,
    class: Class,
    transaction_id: TransactionId,
    /// Where MESSAGE-INTEGRITY begins.
    integrity_at: Option<usize>,
    /// Where MESSAGE-INTEGRITY-SHA256 begins.
    integrity_sha256_at: Option<usize>,
    /// Where FINGERPRINT begins.
    fingerprint_at: Option<usize>,
}

impl<'a> Message<'a> {
    /// Checks that `bytes` are exactly one message.
    ///
    /// # Errors
    ///
    /// [`StunError::NotStun`] and [`StunError::Truncated`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StunError> {
        let (header, body) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(StunError::NotStun)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, id @ ..] = *header;
        let value = u16::from_be_bytes([t0, t1]);
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let cookie = u32::from_be_bytes([c0, c1, c2, c3]);
        if value & 0xC000 != 0
            || cookie != MAGIC_COOKIE
            || length != body.len()
            || !length.is_multiple_of(4)
        {
            return Err(StunError::NotStun);
        }

        let (method, class) = split_type(value);
        let mut message = Self {
            bytes,
            method,
            class,
            transaction_id: TransactionId(id),
            integrity_at: None,
            integrity_sha256_at: None,
            fingerprint_at: None,
        };
        for attribute in RawAttributes::new(body) {
            let RawAttribute {
                at,
                attribute,
                value,
            } = attribute?;
            match attribute {
                attribute::MESSAGE_INTEGRITY if value.len() == 20 => {
                    message.integrity_at.get_or_insert(at);
                }
                attribute::MESSAGE_INTEGRITY_SHA256 if value.len() == 32 => {
                    message.integrity_sha256_at.get_or_insert(at);
                }
                attribute::FINGERPRINT if value.len() == 4 => {
                    message.fingerprint_at.get_or_insert(at);
                }
                _ => {}
            }
        }

        Ok(message)
    }

    /// What it is about.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The role it plays.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What ties it to its transaction.
    pub fn transaction_id(&self) -> TransactionId {
        self.transaction_id
    }

    /// The bytes it was read from.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes in front of MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256, in order; what follows either proves
    /// nothing (RFC 8489 §14.5, §14.6).
    ///
    /// A known attribute with an invalid value comes as an error; unknown ones come as [`Attribute::Unknown`].
    pub fn attributes(&self) -> impl Iterator<Item = Result<Attribute<'a>, StunError>> + use<'a> {
        let integrities = self
            .integrity_at
            .into_iter()
            .chain(self.integrity_sha256_at);
        let end = integrities.min().unwrap_or(self.bytes.len());
        let id = self.transaction_id;

        RawAttributes::new(self.bytes.get(HEADER_LEN..).unwrap_or_default())
            .map_while(Result::ok)
            .take_while(move |raw| raw.at < end)
            .filter(|raw| raw.attribute != attribute::FINGERPRINT)
            .map(move |raw| Attribute::decode(raw.attribute, raw.value, id))
    }

    /// Whether it carries MESSAGE-INTEGRITY, right or wrong.
    pub fn has_integrity(&self) -> bool {
        self.integrity_at.is_some()
    }

    /// Whether it carries MESSAGE-INTEGRITY made with `key`.
    pub fn verify(&self, key: &[u8]) -> bool {
        self.framed(self.integrity_at, INTEGRITY_LEN)
            .is_some_and(|(covered, mac)| auth::integrity_matches(key, covered, mac))
    }

    /// Whether it carries MESSAGE-INTEGRITY-SHA256 of full length, right or wrong. TURN allows no shorter ones
    /// (RFC 8489 §14.6).
    pub fn has_integrity_sha256(&self) -> bool {
        self.integrity_sha256_at.is_some()
    }

    /// Whether it carries MESSAGE-INTEGRITY-SHA256 made with `key`.
    pub fn verify_sha256(&self, key: &[u8]) -> bool {
        self.framed(self.integrity_sha256_at, INTEGRITY_SHA256_LEN)
            .is_some_and(|(covered, mac)| auth::integrity_sha256_matches(key, covered, mac))
    }

    /// What is in front of the attribute of `len` bytes that begins at `at`, and its value.
    fn framed(&self, at: Option<usize>, len: usize) -> Option<(&'a [u8], &'a [u8])> {
        let at = at?;

        Some((self.bytes.get(..at)?, self.bytes.get(at + 4..at + len)?))
    }

    /// Whether it carries FINGERPRINT, right or wrong.
    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint_at.is_some()
    }

    /// Whether its FINGERPRINT is right, and the last attribute as it must be (RFC 8489 §14.7); `None` without one.
    pub fn fingerprint_matches(&self) -> Option<bool> {
        let at = self.fingerprint_at?;
        if at + FINGERPRINT_LEN != self.bytes.len() {
            return Some(false);
        }
        let value = self.bytes.get(at + 4..)?.first_chunk::<4>()?;
        let covered = self.bytes.get(..at)?;

        Some(u32::from_be_bytes(*value) == auth::fingerprint(covered))
    }

    /// USERNAME.
    pub fn username(&self) -> Option<&'a str> {
        find!(self, Username)
    }

    /// Whether it carries USE-CANDIDATE.
    pub fn use_candidate(&self) -> bool {
        self.attributes()
            .any(|attribute| attribute == Ok(Attribute::UseCandidate))
    }

    /// REALM.
    pub fn realm(&self) -> Option<&'a str> {
        find!(self, Realm)
    }

    /// NONCE.
    pub fn nonce(&self) -> Option<&'a str> {
        find!(self, Nonce)
    }

    /// The code of ERROR-CODE, 300–699.
    pub fn error_code(&self) -> Option<u16> {
        self.attributes().find_map(|attribute| {
            if let Ok(Attribute::ErrorCode(code, _)) = attribute {
                Some(code)
            } else {
                None
            }
        })
    }

    /// LIFETIME.
    pub fn lifetime(&self) -> Option<Duration> {
        find!(self, Lifetime)
    }

    /// XOR-MAPPED-ADDRESS.
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        find!(self, XorMappedAddress)
    }

    /// XOR-PEER-ADDRESS.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        find!(self, XorPeerAddress)
    }

    /// DATA.
    pub fn data(&self) -> Option<&'a [u8]> {
        find!(self, Data)
    }

    /// Each XOR-RELAYED-ADDRESS, in order.
    pub fn relayed_addresses(&self) -> impl Iterator<Item = SocketAddr> + use<'a> {
        self.attributes().filter_map(|attribute| {
            if let Ok(Attribute::XorRelayedAddress(address)) = attribute {
                Some(address)
            } else {
                None
            }
        })
    }

    /// CHANNEL-NUMBER.
    pub fn channel_number(&self) -> Option<u16> {
        find!(self, ChannelNumber)
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?} {:?}",
            self.method, self.class, self.transaction_id
        )
    }
}

/// Whether the first byte of a datagram can begin a STUN message (connections.md §5).
pub fn is_stun_prefix(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|byte| *byte <= 3)
}

#[cfg(test)]
mod tests;
