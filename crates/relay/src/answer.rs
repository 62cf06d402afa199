//! What the server says to requests.

use std::net::SocketAddr;

use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::stun::{
    Attribute, Builder, Class, Key, Message, Method, StunError, TransactionId,
};
use connlib_wire::train::{Arrival, Route, Transmit};

/// The value of SOFTWARE, the first attribute of each answer.
const SOFTWARE: &str = concat!("connlib-relay/", env!("CARGO_PKG_VERSION"));

/// How a request was signed, and so how its answer is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seal {
    /// MESSAGE-INTEGRITY.
    Sha1(Key),
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256(Key),
}

impl Seal {
    pub(crate) fn verifies(&self, message: &Message<'_>) -> bool {
        match self {
            Self::Sha1(key) => message.verify(key.expose()),
            Self::Sha256(key) => message.verify_sha256(key.expose()),
        }
    }

    fn set(&self, builder: Builder) -> Builder {
        match self {
            Self::Sha1(key) => builder.integrity(key.expose()),
            Self::Sha256(key) => builder.integrity_sha256(key.expose()),
        }
    }
}

/// Who asked what, and at which of our addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) method: Method,
    pub(crate) transaction_id: TransactionId,
    pub(crate) fingerprint: Fingerprint,
}

/// Whether an answer ends in FINGERPRINT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fingerprint {
    Added,
    LeftOut,
}

impl Asker {
    pub(crate) fn new(
        arrival: &Arrival<'_>,
        message: &Message<'_>,
        fingerprint: Fingerprint,
    ) -> Self {
        Self {
            client: arrival.from,
            server: arrival.to,
            method: message.method(),
            transaction_id: message.transaction_id(),
            fingerprint,
        }
    }

    /// Writes the answer; `attributes` follow SOFTWARE, what makes it worth something comes last.
    pub(crate) fn answer(
        &self,
        pool: &Pool,
        class: Class,
        attributes: &[Attribute<'_>],
        seal: Option<&Seal>,
    ) -> Result<Transmit, StunError> {
        let mut builder = Builder::new(pool.take(0), self.method, class, self.transaction_id)
            .attribute(Attribute::Software(SOFTWARE));
        for attribute in attributes {
            builder = builder.attribute(*attribute);
        }
        if let Some(seal) = seal {
            builder = seal.set(builder);
        }
        if self.fingerprint == Fingerprint::Added {
            builder = builder.fingerprint();
        }

        let route = Route {
            src: Some(self.server),
            dst: self.client,
            ecn: Ecn::NotEct,
        };

        Ok(Transmit::single(route, builder.finish()?))
    }
}

/// Why a request isn't carried out (relay.md §14; RFC 8656 §19, RFC 8489 §14.8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    BadRequest,
    Unauthorized,
    Forbidden,
    UnknownAttribute,
    AllocationMismatch,
    StaleNonce,
    FamilyNotSupported,
    WrongCredentials,
    UnsupportedTransport,
    PeerFamilyMismatch,
    QuotaReached,
    InsufficientCapacity,
}

impl Refusal {
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::UnknownAttribute => 420,
            Self::AllocationMismatch => 437,
            Self::StaleNonce => 438,
            Self::FamilyNotSupported => 440,
            Self::WrongCredentials => 441,
            Self::UnsupportedTransport => 442,
            Self::PeerFamilyMismatch => 443,
            Self::QuotaReached => 486,
            Self::InsufficientCapacity => 508,
        }
    }

    pub(crate) fn phrase(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::UnknownAttribute => "Unknown Attribute",
            Self::AllocationMismatch => "Allocation Mismatch",
            Self::StaleNonce => "Stale Nonce",
            Self::FamilyNotSupported => "Address Family not Supported",
            Self::WrongCredentials => "Wrong Credentials",
            Self::UnsupportedTransport => "Unsupported Transport Protocol",
            Self::PeerFamilyMismatch => "Peer Address Family Mismatch",
            Self::QuotaReached => "Allocation Quota Reached",
            Self::InsufficientCapacity => "Insufficient Capacity",
        }
    }

    pub(crate) fn attribute(self) -> Attribute<'static> {
        Attribute::ErrorCode(self.code(), self.phrase())
    }
}
