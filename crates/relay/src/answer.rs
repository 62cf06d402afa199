//! What the server says to requests.

use std::net::SocketAddr;

use connlib_wire::buffer::Pool;
use connlib_wire::ecn::Ecn;
use connlib_wire::stun::{Attribute, Builder, Class, Key, Method, StunError, TransactionId};
use connlib_wire::train::{Arrival, Route, Transmit};

/// The value of SOFTWARE, the first attribute of each answer.
const SOFTWARE: &str = concat!("connlib-relay/", env!("CARGO_PKG_VERSION"));

/// Who asked what, and at which of our addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) method: Method,
    pub(crate) transaction_id: TransactionId,
}

impl Asker {
    pub(crate) fn new(arrival: &Arrival<'_>, method: Method, id: TransactionId) -> Self {
        Self {
            client: arrival.from,
            server: arrival.to,
            method,
            transaction_id: id,
        }
    }

    /// Writes the answer; `attributes` follow SOFTWARE, MESSAGE-INTEGRITY comes last.
    pub(crate) fn answer(
        &self,
        pool: &Pool,
        class: Class,
        attributes: &[Attribute<'_>],
        key: Option<&Key>,
    ) -> Result<Transmit, StunError> {
        let mut builder = Builder::new(pool.take(0), self.method, class, self.transaction_id)
            .attribute(Attribute::Software(SOFTWARE));
        for attribute in attributes {
            builder = builder.attribute(*attribute);
        }
        if let Some(key) = key {
            builder = builder.integrity(key.expose());
        }

        let route = Route {
            src: Some(self.server),
            dst: self.client,
            ecn: Ecn::NotEct,
        };

        Ok(Transmit::single(route, builder.finish()?))
    }
}

/// Why a request isn't carried out (relay.md §14).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    BadRequest,
    Unauthorized,
    Forbidden,
    AllocationMismatch,
    StaleNonce,
    FamilyNotSupported,
    PeerFamilyMismatch,
    InsufficientCapacity,
}

impl Refusal {
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::AllocationMismatch => 437,
            Self::StaleNonce => 438,
            Self::FamilyNotSupported => 440,
            Self::PeerFamilyMismatch => 443,
            Self::InsufficientCapacity => 508,
        }
    }

    pub(crate) fn attribute(self) -> Attribute<'static> {
        let reason = match self {
            Self::BadRequest => "Bad Request",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::AllocationMismatch => "Allocation Mismatch",
            Self::StaleNonce => "Stale Nonce",
            Self::FamilyNotSupported => "Address Family not Supported",
            Self::PeerFamilyMismatch => "Peer Address Family Mismatch",
            Self::InsufficientCapacity => "Insufficient Capacity",
        };

        Attribute::ErrorCode(self.code(), reason)
    }
}
