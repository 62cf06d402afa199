//! Who is at the other end of a socket, and what they know.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_wire::id::{ClientId, GatewayId, RelayId, ResourceId, SiteId};
use connlib_wire::key::PublicKey;
use connlib_wire::portal::client::Interface;
use connlib_wire::portal::resource::Resource;
use connlib_wire::portal::{client, gateway, relay};

use super::dialect::Dialect;
use super::held::Held;
use super::version::Version;
use crate::model::{ActorId, TokenId};

/// A WebSocket, numbered by the edge; no number is used twice.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SocketId(pub u64);

/// Why the portal closes a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Goodbye {
    /// Its token expired or was revoked.
    TokenEnded,
    /// The same device connected anew.
    Replaced,
    /// It said nothing for a minute.
    Idle,
}

impl Goodbye {
    /// The close frame's code (RFC 6455 §7.4).
    pub fn code(self) -> u16 {
        match self {
            Self::TokenEnded => 1008,
            Self::Replaced | Self::Idle => 1000,
        }
    }

    /// The close frame's text.
    pub fn text(self) -> &'static str {
        match self {
            Self::TokenEnded => "the token ended",
            Self::Replaced => "the same device connected anew",
            Self::Idle => "nothing heard for a minute",
        }
    }
}

/// What all sockets have.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) who: Who,
    pub(super) dialect: Dialect,
    pub(super) token: TokenId,
    /// Unix seconds.
    pub(super) token_ends_at: Option<u64>,
    pub(super) last_heard_at: Instant,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    Client(ClientId),
    Gateway(GatewayId),
    /// A relay has no id before it joined.
    Relay(RelayAddresses, Option<RelayId>),
}

impl Who {
    pub(super) fn topic(self) -> &'static str {
        match self {
            Self::Client(_) => client::TOPIC,
            Self::Gateway(_) => gateway::TOPIC,
            Self::Relay(..) => relay::TOPIC,
        }
    }
}

/// Where a relay listens; at least one address is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct RelayAddresses {
    pub(super) ipv4: Option<Ipv4Addr>,
    pub(super) ipv6: Option<Ipv6Addr>,
    pub(super) port: u16,
}

/// A connected client.
#[derive(Debug)]
pub(super) struct ClientSession {
    pub(super) socket: SocketId,
    pub(super) actor: ActorId,
    pub(super) token: TokenId,
    pub(super) token_ends_at: Option<u64>,
    pub(super) key: PublicKey,
    /// `None` if it can't be read.
    pub(super) version: Option<Version>,
    /// Where it connected from.
    pub(super) remote_ip: Option<IpAddr>,
    pub(super) joined: bool,
    /// When one of its resources may go because a time window closes, in Unix seconds.
    pub(super) sees_until: Option<u64>,
    /// What it was told last.
    pub(super) interface: Option<Interface>,
    /// What it was told last.
    pub(super) resources: BTreeMap<ResourceId, Resource>,
    pub(super) held: Held,
}

/// A connected gateway.
#[derive(Debug)]
pub(super) struct GatewaySession {
    pub(super) socket: SocketId,
    pub(super) site: SiteId,
    pub(super) key: PublicKey,
    /// `None` if it can't be read.
    pub(super) version: Option<Version>,
    /// Where it connected from.
    pub(super) remote_ip: Option<IpAddr>,
    pub(super) joined: bool,
    pub(super) held: Held,
}
