//! What clients ask for.

use std::net::SocketAddr;
use std::time::Duration;

use connlib_wire::channel::ChannelNumber;
use connlib_wire::stun::{Attribute, Family, Message, Method, StunError};

use crate::answer::Refusal;
use crate::conduct::Conduct;
use crate::reservations::Token;

/// Types whose values the forerunner's relays don't read, so that invalid ones do no harm to the portal's clients:
/// UNKNOWN-ATTRIBUTES, EVEN-PORT, DONT-FRAGMENT, PASSWORD-ALGORITHM, RESERVATION-TOKEN, ADDRESS-ERROR-CODE.
const NOT_READ_FOR_PORTAL: [u16; 6] = [0x000A, 0x0018, 0x001A, 0x001D, 0x0022, 0x8001];

/// MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256: among the attributes they are only if they have a wrong length.
const INTEGRITIES: [u16; 2] = [0x0008, 0x001C];

/// MAPPED-ADDRESS: known, though nobody has a use for it in a request.
const MAPPED_ADDRESS: u16 = 0x0001;

/// ADDITIONAL-ADDRESS-FAMILY: the one attribute that asks for something and may still be skipped by who doesn't know it.
const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;

/// Types from here on may be skipped by who doesn't know them (RFC 8489 §14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;

/// How many unknown types an answer names.
const MAX_UNKNOWN: usize = 32;

/// A request: the first of each attribute that the server reads.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) message: Message<'a>,
    pub(crate) claim: Claim<'a>,
    /// Required types that mean nothing to us, two bytes each; for the standard's clients only.
    pub(crate) unknown: Vec<u8>,
    /// Fails with 400 if an attribute is invalid, a mandatory one is missing or the method doesn't exist.
    pub(crate) wish: Result<Wish, Refusal>,
}

/// Who somebody claims to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claim<'a> {
    pub(crate) username: Option<&'a str>,
    pub(crate) realm: Option<&'a str>,
    pub(crate) nonce: Option<&'a str>,
    pub(crate) algorithms: Option<&'a [u8]>,
    pub(crate) algorithm: Option<u16>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// The own address: anybody may ask.
    Binding,
    /// Something for users.
    Turn(Turn),
}

/// What users ask for, by method.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    Allocate(Allocate),
    Refresh {
        lifetime: Option<Duration>,
        family: Option<Family>,
    },
    /// Empty for the portal's clients.
    CreatePermission(Vec<SocketAddr>),
    ChannelBind {
        number: ChannelNumber,
        peer: SocketAddr,
    },
}

/// What kind of allocation is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocate {
    pub(crate) transport: u8,
    /// The only family that it shall have.
    pub(crate) requested: Option<Family>,
    /// A family that it shall have as well.
    pub(crate) additional: Option<Family>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) parity: Parity,
    /// A port that was kept for it.
    pub(crate) token: Option<Token>,
}

/// Which ports will do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Parity {
    Any,
    Even,
    /// An even one, and the next one is kept.
    EvenAndNext,
}

impl<'a> Request<'a> {
    pub(crate) fn read(message: Message<'a>, conduct: Conduct) -> Self {
        let found = Found::in_message(&message, conduct);
        let wish = match message.method() {
            // What else it carries is nobody's concern (RFC 8489 §6.3).
            Method::Binding if conduct.is_standard() => Some(Wish::Binding),
            _ if found.is_invalid => None,
            Method::Binding => Some(Wish::Binding),
            Method::Allocate => found.allocate().map(Wish::Turn),
            Method::Refresh => Some(Wish::Turn(Turn::Refresh {
                lifetime: found.lifetime,
                family: found.requested,
            })),
            Method::CreatePermission => found.create_permission(conduct).map(Wish::Turn),
            Method::ChannelBind => found.channel_bind(conduct).map(Wish::Turn),
            Method::Send | Method::Data | Method::Other(_) => None,
            _ => None,
        };

        Self {
            message,
            claim: found.claim,
            unknown: found.unknown,
            wish: wish.ok_or(Refusal::BadRequest),
        }
    }
}

/// Types that a standard server has to understand and doesn't, two bytes each.
pub(crate) fn unknown_attributes(message: &Message<'_>) -> Vec<u8> {
    Found::in_message(message, Conduct::Standard).unknown
}

#[derive(Default)]
struct Found<'a> {
    claim: Claim<'a>,
    lifetime: Option<Duration>,
    transport: Option<u8>,
    requested: Option<Family>,
    additional: Option<Family>,
    channel: Option<u16>,
    peers: Vec<SocketAddr>,
    reserve: Option<bool>,
    token: Option<Token>,
    unknown: Vec<u8>,
    is_invalid: bool,
}

impl<'a> Found<'a> {
    fn in_message(message: &Message<'a>, conduct: Conduct) -> Self {
        let mut found = Self::default();
        for attribute in message.attributes() {
            match attribute {
                Ok(Attribute::Unknown(attribute, _)) if conduct.is_standard() => {
                    found.note_unknown(attribute);
                }
                Ok(attribute) => found.note(attribute),
                Err(error) => found.is_invalid |= does_harm(error, conduct),
            }
        }

        found
    }

    fn note_unknown(&mut self, attribute: u16) {
        self.is_invalid |= INTEGRITIES.contains(&attribute);
        let is_known = attribute == MAPPED_ADDRESS || INTEGRITIES.contains(&attribute);
        let is_named = self.unknown.len() >= 2 * MAX_UNKNOWN
            || self
                .unknown
                .chunks(2)
                .any(|named| named == attribute.to_be_bytes());
        if attribute < COMPREHENSION_OPTIONAL && !is_known && !is_named {
            self.unknown.extend_from_slice(&attribute.to_be_bytes());
        }
    }

    fn note(&mut self, attribute: Attribute<'a>) {
        let claim = &mut self.claim;
        match attribute {
            Attribute::Username(name) => keep_first(&mut claim.username, name),
            Attribute::Realm(realm) => keep_first(&mut claim.realm, realm),
            Attribute::Nonce(nonce) => keep_first(&mut claim.nonce, nonce),
            Attribute::PasswordAlgorithms(list) => keep_first(&mut claim.algorithms, list),
            Attribute::PasswordAlgorithm(number) => keep_first(&mut claim.algorithm, number),
            Attribute::Lifetime(lifetime) => keep_first(&mut self.lifetime, lifetime),
            Attribute::RequestedTransport(protocol) => keep_first(&mut self.transport, protocol),
            Attribute::RequestedAddressFamily(family) => keep_first(&mut self.requested, family),
            Attribute::AdditionalAddressFamily(family) => keep_first(&mut self.additional, family),
            Attribute::ChannelNumber(number) => keep_first(&mut self.channel, number),
            Attribute::XorPeerAddress(peer) => self.peers.push(peer),
            Attribute::EvenPort { reserve } => keep_first(&mut self.reserve, reserve),
            Attribute::ReservationToken(token) => keep_first(&mut self.token, token),
            Attribute::Software(name) => {
                tracing::trace!(software = name, "A client says what it is");
            }
            // No socket of a relay lets its datagrams be split anyway.
            Attribute::DontFragment
            | Attribute::AddressErrorCode(..)
            | Attribute::Data(_)
            | Attribute::ErrorCode(..)
            | Attribute::IceControlled(_)
            | Attribute::IceControlling(_)
            | Attribute::Priority(_)
            | Attribute::UnknownAttributes(_)
            | Attribute::UseCandidate
            | Attribute::XorMappedAddress(_)
            | Attribute::XorRelayedAddress(_)
            | Attribute::Unknown(..) => {}
            _ => {}
        }
    }

    fn allocate(&self) -> Option<Turn> {
        Some(Turn::Allocate(Allocate {
            transport: self.transport?,
            requested: self.requested,
            additional: self.additional,
            lifetime: self.lifetime,
            parity: match self.reserve {
                None => Parity::Any,
                Some(false) => Parity::Even,
                Some(true) => Parity::EvenAndNext,
            },
            token: self.token,
        }))
    }

    fn create_permission(&self, conduct: Conduct) -> Option<Turn> {
        let peers = match conduct {
            Conduct::Portal => Vec::new(),
            Conduct::Standard if self.peers.is_empty() => return None,
            Conduct::Standard => self.peers.clone(),
        };

        Some(Turn::CreatePermission(peers))
    }

    fn channel_bind(&self, conduct: Conduct) -> Option<Turn> {
        let number = ChannelNumber::new(self.channel?)?;
        // Clients by the older standard take any of them (RFC 5766 §11).
        if conduct == Conduct::Portal && number > ChannelNumber::MAX {
            return None;
        }

        Some(Turn::ChannelBind {
            number,
            peer: *self.peers.first()?,
        })
    }
}

/// Whether an invalid value spoils its message.
fn does_harm(error: StunError, conduct: Conduct) -> bool {
    match (error, conduct) {
        (StunError::InvalidAttribute { attribute }, Conduct::Portal) => {
            !NOT_READ_FOR_PORTAL.contains(&attribute)
        }
        (StunError::InvalidAttribute { attribute }, Conduct::Standard) => {
            attribute < COMPREHENSION_OPTIONAL || attribute == ADDITIONAL_ADDRESS_FAMILY
        }
        _ => true,
    }
}

fn keep_first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}
