//! What a STUN message carries, each in the one form we use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{MAGIC_COOKIE, StunError, TransactionId};

pub(super) const USERNAME: u16 = 0x0006;
pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const CHANNEL_NUMBER: u16 = 0x000C;
const LIFETIME: u16 = 0x000D;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
const EVEN_PORT: u16 = 0x0018;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const DONT_FRAGMENT: u16 = 0x001A;
pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
const PASSWORD_ALGORITHM: u16 = 0x001D;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const RESERVATION_TOKEN: u16 = 0x0022;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
const ADDRESS_ERROR_CODE: u16 = 0x8001;
const PASSWORD_ALGORITHMS: u16 = 0x8002;
const SOFTWARE: u16 = 0x8022;
pub(super) const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802A;

/// One attribute. MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT are not among them: they frame a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Attribute<'a> {
    /// ADDITIONAL-ADDRESS-FAMILY: also give an address of this family.
    AdditionalAddressFamily(Family),
    /// ADDRESS-ERROR-CODE: why there is no address of this family, 300–699 and a phrase (RFC 8656 §18.12).
    AddressErrorCode(Family, u16, &'a str),
    /// CHANNEL-NUMBER.
    ChannelNumber(u16),
    /// DATA: what a peer gets or sent.
    Data(&'a [u8]),
    /// DONT-FRAGMENT: what is sent on must not be split on its way.
    DontFragment,
    /// ERROR-CODE: 300–699 and a phrase.
    ErrorCode(u16, &'a str),
    /// EVEN-PORT: give an even port, and keep the next one if `reserve` says so (the R bit; RFC 8656 §18.7).
    EvenPort {
        /// Whether the next higher port shall be kept for a second allocation.
        reserve: bool,
    },
    /// ICE-CONTROLLED with the tie breaker.
    IceControlled(u64),
    /// ICE-CONTROLLING with the tie breaker.
    IceControlling(u64),
    /// LIFETIME in whole seconds.
    Lifetime(Duration),
    /// NONCE.
    Nonce(&'a str),
    /// PASSWORD-ALGORITHM: its number. None of those that exist has parameters, so none are written, and those that
    /// arrive are not looked at.
    PasswordAlgorithm(u16),
    /// PASSWORD-ALGORITHMS: the list as it is on the wire, for it is compared as a whole (RFC 8489 §9.2.4).
    PasswordAlgorithms(&'a [u8]),
    /// PRIORITY of a candidate.
    Priority(u32),
    /// REALM.
    Realm(&'a str),
    /// REQUESTED-ADDRESS-FAMILY: give an address of this family only.
    RequestedAddressFamily(Family),
    /// REQUESTED-TRANSPORT: a protocol number.
    RequestedTransport(u8),
    /// RESERVATION-TOKEN: the name of a port that was kept (RFC 8656 §18.10).
    ReservationToken([u8; 8]),
    /// SOFTWARE: who speaks.
    Software(&'a str),
    /// UNKNOWN-ATTRIBUTES: the types that were not understood, two bytes each.
    UnknownAttributes(&'a [u8]),
    /// USE-CANDIDATE.
    UseCandidate,
    /// USERNAME.
    Username(&'a str),
    /// XOR-MAPPED-ADDRESS.
    XorMappedAddress(SocketAddr),
    /// XOR-PEER-ADDRESS.
    XorPeerAddress(SocketAddr),
    /// XOR-RELAYED-ADDRESS.
    XorRelayedAddress(SocketAddr),
    /// Any other; types below 0x8000 ask to be understood (RFC 8489 §14).
    Unknown(u16, &'a [u8]),
}

/// An address family as STUN numbers it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// `0x01`.
    V4,
    /// `0x02`.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(addr: SocketAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    const fn code(self) -> u8 {
        match self {
            Self::V4 => 0x01,
            Self::V6 => 0x02,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x01 => Some(Self::V4),
            0x02 => Some(Self::V6),
            _ => None,
        }
    }
}

impl<'a> Attribute<'a> {
    pub(super) fn decode(
        attribute: u16,
        value: &'a [u8],
        id: TransactionId,
    ) -> Result<Self, StunError> {
        let decoded = match attribute {
            ADDITIONAL_ADDRESS_FAMILY => family(value).map(Self::AdditionalAddressFamily),
            ADDRESS_ERROR_CODE => address_error_code(value),
            CHANNEL_NUMBER => channel_number(value).map(Self::ChannelNumber),
            DATA => Some(Self::Data(value)),
            DONT_FRAGMENT => value.is_empty().then_some(Self::DontFragment),
            ERROR_CODE => error_code(value).map(|(code, reason)| Self::ErrorCode(code, reason)),
            EVEN_PORT => even_port(value),
            ICE_CONTROLLED => number(value)
                .map(u64::from_be_bytes)
                .map(Self::IceControlled),
            ICE_CONTROLLING => number(value)
                .map(u64::from_be_bytes)
                .map(Self::IceControlling),
            LIFETIME => number(value)
                .map(u32::from_be_bytes)
                .map(|secs| Self::Lifetime(Duration::from_secs(secs.into()))),
            NONCE => text(value).map(Self::Nonce),
            PASSWORD_ALGORITHM => password_algorithm(value).map(Self::PasswordAlgorithm),
            PASSWORD_ALGORITHMS => Some(Self::PasswordAlgorithms(value)),
            PRIORITY => number(value).map(u32::from_be_bytes).map(Self::Priority),
            REALM => text(value).map(Self::Realm),
            RESERVATION_TOKEN => number(value).map(Self::ReservationToken),
            REQUESTED_ADDRESS_FAMILY => family(value).map(Self::RequestedAddressFamily),
            REQUESTED_TRANSPORT => {
                number(value).map(|[protocol, _, _, _]: [u8; 4]| Self::RequestedTransport(protocol))
            }
            SOFTWARE => text(value).map(Self::Software),
            UNKNOWN_ATTRIBUTES => {
                (value.len().is_multiple_of(2)).then_some(Self::UnknownAttributes(value))
            }
            USE_CANDIDATE => value.is_empty().then_some(Self::UseCandidate),
            USERNAME => text(value).map(Self::Username),
            XOR_MAPPED_ADDRESS => address(value, id).map(Self::XorMappedAddress),
            XOR_PEER_ADDRESS => address(value, id).map(Self::XorPeerAddress),
            XOR_RELAYED_ADDRESS => address(value, id).map(Self::XorRelayedAddress),
            _ => Some(Self::Unknown(attribute, value)),
        };

        decoded.ok_or(StunError::InvalidAttribute { attribute })
    }

    /// Writes the value behind `out` and returns the attribute's type.
    pub(super) fn encode(self, out: &mut Value<'_>, id: TransactionId) -> u16 {
        match self {
            Self::Nonce(text) | Self::Realm(text) | Self::Software(text) | Self::Username(text) => {
                out.put(text.as_bytes());
            }
            Self::Data(bytes)
            | Self::PasswordAlgorithms(bytes)
            | Self::UnknownAttributes(bytes)
            | Self::Unknown(_, bytes) => out.put(bytes),
            Self::XorMappedAddress(address)
            | Self::XorPeerAddress(address)
            | Self::XorRelayedAddress(address) => put_address(out, address, id),
            Self::AdditionalAddressFamily(family) | Self::RequestedAddressFamily(family) => {
                out.put(&[family.code(), 0, 0, 0]);
            }
            Self::ChannelNumber(number) | Self::PasswordAlgorithm(number) => {
                out.put(&number.to_be_bytes());
                out.put(&[0, 0]);
            }
            Self::IceControlled(tie_breaker) | Self::IceControlling(tie_breaker) => {
                out.put(&tie_breaker.to_be_bytes());
            }
            Self::AddressErrorCode(family, code, reason) => {
                put_error_code(out, [family.code(), 0], code, reason);
            }
            Self::ErrorCode(code, reason) => put_error_code(out, [0, 0], code, reason),
            Self::EvenPort { reserve } => out.put(&[if reserve { 0x80 } else { 0 }]),
            Self::Lifetime(lifetime) => {
                let secs = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
                out.put(&secs.to_be_bytes());
            }
            Self::Priority(priority) => out.put(&priority.to_be_bytes()),
            Self::ReservationToken(token) => out.put(&token),
            Self::RequestedTransport(protocol) => out.put(&[protocol, 0, 0, 0]),
            Self::DontFragment | Self::UseCandidate => {}
        }

        self.code()
    }

    const fn code(self) -> u16 {
        match self {
            Self::AdditionalAddressFamily(_) => ADDITIONAL_ADDRESS_FAMILY,
            Self::AddressErrorCode(..) => ADDRESS_ERROR_CODE,
            Self::ChannelNumber(_) => CHANNEL_NUMBER,
            Self::Data(_) => DATA,
            Self::DontFragment => DONT_FRAGMENT,
            Self::ErrorCode(..) => ERROR_CODE,
            Self::EvenPort { .. } => EVEN_PORT,
            Self::IceControlled(_) => ICE_CONTROLLED,
            Self::IceControlling(_) => ICE_CONTROLLING,
            Self::Lifetime(_) => LIFETIME,
            Self::Nonce(_) => NONCE,
            Self::PasswordAlgorithm(_) => PASSWORD_ALGORITHM,
            Self::PasswordAlgorithms(_) => PASSWORD_ALGORITHMS,
            Self::Priority(_) => PRIORITY,
            Self::Realm(_) => REALM,
            Self::RequestedAddressFamily(_) => REQUESTED_ADDRESS_FAMILY,
            Self::RequestedTransport(_) => REQUESTED_TRANSPORT,
            Self::ReservationToken(_) => RESERVATION_TOKEN,
            Self::Software(_) => SOFTWARE,
            Self::UnknownAttributes(_) => UNKNOWN_ATTRIBUTES,
            Self::UseCandidate => USE_CANDIDATE,
            Self::Username(_) => USERNAME,
            Self::XorMappedAddress(_) => XOR_MAPPED_ADDRESS,
            Self::XorPeerAddress(_) => XOR_PEER_ADDRESS,
            Self::XorRelayedAddress(_) => XOR_RELAYED_ADDRESS,
            Self::Unknown(attribute, _) => attribute,
        }
    }
}

/// A value on its way into a message; remembers whether it still fits.
pub(super) struct Value<'b> {
    pub(super) buffer: &'b mut crate::buffer::Buffer,
    pub(super) fits: bool,
}

impl Value<'_> {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        match self.buffer.extend(bytes.len()) {
            Some(slot) if self.fits => slot.copy_from_slice(bytes),
            _ => self.fits = false,
        }
    }
}

fn number<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn family(value: &[u8]) -> Option<Family> {
    let [code, _, _, _] = number::<4>(value)?;

    Family::from_code(code)
}

fn channel_number(value: &[u8]) -> Option<u16> {
    let [n0, n1, _, _] = number::<4>(value)?;
    let number = u16::from_be_bytes([n0, n1]);

    crate::channel::NUMBERS.contains(&number).then_some(number)
}

/// The first byte alone counts, and of it the first bit; the rest is reserved.
fn even_port(value: &[u8]) -> Option<Attribute<'static>> {
    let [flags] = number(value)?;

    Some(Attribute::EvenPort {
        reserve: flags & 0x80 != 0,
    })
}

/// A number, the length of its parameters, and these.
fn password_algorithm(value: &[u8]) -> Option<u16> {
    let ([a0, a1, l0, l1], parameters) = value.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));

    (parameters.len() >= length).then_some(u16::from_be_bytes([*a0, *a1]))
}

fn error_code(value: &[u8]) -> Option<(u16, &str)> {
    let ([_, _, class, rest], reason) = value.split_first_chunk::<4>()?;
    let (class, rest) = (u16::from(class & 0b111), u16::from(*rest));
    if !(3..=6).contains(&class) || rest > 99 {
        return None;
    }

    Some((class * 100 + rest, text(reason)?))
}

fn address_error_code(value: &[u8]) -> Option<Attribute<'_>> {
    let family = Family::from_code(*value.first()?)?;
    let (code, reason) = error_code(value)?;

    Some(Attribute::AddressErrorCode(family, code, reason))
}

fn put_error_code(out: &mut Value<'_>, front: [u8; 2], code: u16, reason: &str) {
    let [_, class] = (code / 100).to_be_bytes();
    let [_, rest] = (code % 100).to_be_bytes();
    out.put(&front);
    out.put(&[class & 0b111, rest]);
    out.put(reason.as_bytes());
}

/// The address is masked with the cookie and, for IPv6, the transaction id, so that no middlebox rewrites it.
fn address(value: &[u8], id: TransactionId) -> Option<SocketAddr> {
    let ([_, code, p0, p1], ip) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([*p0, *p1]) ^ port_mask();
    let ip = match Family::from_code(*code)? {
        Family::V4 => {
            let masked = u32::from_be_bytes(number(ip)?);
            IpAddr::V4(Ipv4Addr::from_bits(masked ^ MAGIC_COOKIE))
        }
        Family::V6 => {
            let masked = u128::from_be_bytes(number(ip)?);
            IpAddr::V6(Ipv6Addr::from_bits(masked ^ v6_mask(id)))
        }
    };

    Some(SocketAddr::new(ip, port))
}

fn put_address(out: &mut Value<'_>, address: SocketAddr, id: TransactionId) {
    let [p0, p1] = (address.port() ^ port_mask()).to_be_bytes();
    out.put(&[0, Family::of(address).code(), p0, p1]);
    match address.ip() {
        IpAddr::V4(ip) => out.put(&(ip.to_bits() ^ MAGIC_COOKIE).to_be_bytes()),
        IpAddr::V6(ip) => out.put(&(ip.to_bits() ^ v6_mask(id)).to_be_bytes()),
    }
}

const fn port_mask() -> u16 {
    (MAGIC_COOKIE >> 16) as u16
}

fn v6_mask(id: TransactionId) -> u128 {
    let low =
        id.0.iter()
            .fold(0_u128, |mask, byte| (mask << 8) | u128::from(*byte));

    (u128::from(MAGIC_COOKIE) << 96) | low
}
