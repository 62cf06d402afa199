//! What clients ask for.

use std::net::SocketAddr;
use std::time::Duration;

use connlib_wire::channel::ChannelNumber;
use connlib_wire::stun::{Attribute, Family, Message, Method, StunError};

use crate::answer::Refusal;

/// A request whose attributes are all valid: the first of each kind that the server reads.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) message: Message<'a>,
    pub(crate) username: Option<&'a str>,
    pub(crate) nonce: Option<&'a str>,
    pub(crate) wish: Wish,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    /// The own address: anybody may ask.
    Binding,
    /// Something for users.
    Turn(Turn),
}

/// What users ask for, by method.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    Allocate(Allocate),
    Refresh {
        lifetime: Option<Duration>,
    },
    CreatePermission,
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
}

impl<'a> Request<'a> {
    /// Reads a request.
    ///
    /// Fails with 400, before anybody is authenticated, if an attribute is invalid, a mandatory one is missing or the
    /// method doesn't exist (relay.md §4).
    pub(crate) fn read(message: Message<'a>) -> Result<Self, Refusal> {
        let found = Found::in_message(&message).map_err(|_| Refusal::BadRequest)?;
        let wish = match message.method() {
            Method::Binding => Some(Wish::Binding),
            Method::Allocate => found.allocate().map(Wish::Turn),
            Method::Refresh => Some(Wish::Turn(Turn::Refresh {
                lifetime: found.lifetime,
            })),
            Method::CreatePermission => Some(Wish::Turn(Turn::CreatePermission)),
            Method::ChannelBind => found.channel_bind().map(Wish::Turn),
            Method::Other(_) => None,
            _ => None,
        };

        Ok(Self {
            message,
            username: found.username,
            nonce: found.nonce,
            wish: wish.ok_or(Refusal::BadRequest)?,
        })
    }
}

#[derive(Default)]
struct Found<'a> {
    username: Option<&'a str>,
    nonce: Option<&'a str>,
    lifetime: Option<Duration>,
    transport: Option<u8>,
    requested: Option<Family>,
    additional: Option<Family>,
    channel: Option<u16>,
    peer: Option<SocketAddr>,
}

impl<'a> Found<'a> {
    fn in_message(message: &Message<'a>) -> Result<Self, StunError> {
        let mut found = Self::default();
        for attribute in message.attributes() {
            found.note(attribute?);
        }

        Ok(found)
    }

    fn note(&mut self, attribute: Attribute<'a>) {
        match attribute {
            Attribute::Username(name) => keep_first(&mut self.username, name),
            Attribute::Nonce(nonce) => keep_first(&mut self.nonce, nonce),
            Attribute::Lifetime(lifetime) => keep_first(&mut self.lifetime, lifetime),
            Attribute::RequestedTransport(protocol) => keep_first(&mut self.transport, protocol),
            Attribute::RequestedAddressFamily(family) => keep_first(&mut self.requested, family),
            Attribute::AdditionalAddressFamily(family) => keep_first(&mut self.additional, family),
            Attribute::ChannelNumber(number) => keep_first(&mut self.channel, number),
            Attribute::XorPeerAddress(peer) => keep_first(&mut self.peer, peer),
            Attribute::Software(name) => {
                tracing::trace!(software = name, "A client says what it is");
            }
            Attribute::ErrorCode(..)
            | Attribute::IceControlled(_)
            | Attribute::IceControlling(_)
            | Attribute::Priority(_)
            | Attribute::Realm(_)
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
        }))
    }

    fn channel_bind(&self) -> Option<Turn> {
        let number = ChannelNumber::new(self.channel?)?;
        if number > ChannelNumber::MAX {
            return None;
        }

        Some(Turn::ChannelBind {
            number,
            peer: self.peer?,
        })
    }
}

fn keep_first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}
