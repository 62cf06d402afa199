//! What a message is: method, class, transaction.

use std::fmt;

/// What a message is about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Method {
    /// Learn the own address, or check connectivity.
    Binding,
    /// Ask a relay for an address.
    Allocate,
    /// Keep or give back that address.
    Refresh,
    /// Data for a peer, in an indication (RFC 8656 §11).
    Send,
    /// Data from a peer, in an indication (RFC 8656 §11).
    Data,
    /// Let a peer send to that address (RFC 8656 §9).
    CreatePermission,
    /// Give a peer a short name.
    ChannelBind,
    /// Any other method.
    Other(u16),
}

impl Method {
    pub(super) const fn from_code(code: u16) -> Self {
        match code {
            0x001 => Self::Binding,
            0x003 => Self::Allocate,
            0x004 => Self::Refresh,
            0x006 => Self::Send,
            0x007 => Self::Data,
            0x008 => Self::CreatePermission,
            0x009 => Self::ChannelBind,
            other => Self::Other(other),
        }
    }

    const fn code(self) -> u16 {
        match self {
            Self::Binding => 0x001,
            Self::Allocate => 0x003,
            Self::Refresh => 0x004,
            Self::Send => 0x006,
            Self::Data => 0x007,
            Self::CreatePermission => 0x008,
            Self::ChannelBind => 0x009,
            Self::Other(code) => code & 0x0FFF,
        }
    }
}

/// The role a message plays in its transaction.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// The answer to a request that was carried out.
    Success,
    /// The answer to a request that was not.
    Error,
}

/// Method and class are interleaved in the first two bytes (RFC 8489 §5).
pub(super) const fn message_type(method: Method, class: Class) -> u16 {
    let m = method.code();
    let c = match class {
        Class::Request => 0x000,
        Class::Indication => 0x010,
        Class::Success => 0x100,
        Class::Error => 0x110,
    };

    (m & 0x00F) | ((m & 0x070) << 1) | ((m & 0xF80) << 2) | c
}

pub(super) const fn split_type(value: u16) -> (Method, Class) {
    let method = (value & 0x00F) | ((value & 0x0E0) >> 1) | ((value & 0x3E00) >> 2);
    let class = match value & 0x110 {
        0x000 => Class::Request,
        0x010 => Class::Indication,
        0x100 => Class::Success,
        _ => Class::Error,
    };

    (Method::from_code(method), class)
}

/// Ties an answer to its request.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
