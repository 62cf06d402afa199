//! The nouns that the portal keeps.

mod address;
mod condition;
mod directory;
mod id;
mod locations;
mod window;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use connlib_wire::id::{ClientId, GatewayId, ResourceId, SiteId};
use connlib_wire::portal::TunnelAddresses;
use connlib_wire::portal::resource::Filter;
use connlib_wire::secret::Secret;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub(crate) use address::check_name;
pub use address::{Address, InvalidAddress, InvalidFilter, filter_text, parse_filter};
pub use condition::{Condition, Country, InvalidCountry, Networks};
pub(crate) use condition::{conditions_text, parse_network};
pub use directory::{Directory, Edit};
pub use id::{ActorId, GrantId, PolicyId, TokenId};
pub use locations::{Coordinates, InvalidLocations, Location, Locations};
pub use window::{Hours, InvalidWindow, WallClock, Weekdays, Window, Zone};

/// Whom all the others belong to; a portal serves one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// Its id.
    pub id: Uuid,
    /// What gateways are told it is called.
    pub slug: String,
    /// What ingest tokens are signed with.
    pub ingest_key: Secret,
}

/// What every client is told about resolving names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Network {
    /// Resolvers over plain DNS, port 53.
    pub do53: Vec<IpAddr>,
    /// Resolvers over HTTPS, as URLs.
    pub doh: Vec<String>,
    /// Resolvers over TLS, as URLs: `tls://host[:port]`.
    pub dot: Vec<String>,
    /// The domain that single-label names are completed with.
    pub search_domain: Option<String>,
}

/// A place with gateways.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Site {
    /// Its id, kept while the name stays.
    pub id: SiteId,
    /// What people call it; unique.
    pub name: String,
}

/// A person or program that owns clients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Actor {
    /// Its id, kept while the name stays.
    pub id: ActorId,
    /// What people call it; unique.
    pub name: String,
    /// The groups it is in.
    pub groups: BTreeSet<String>,
}

/// Something that clients can be let into.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resource {
    /// Its id, kept while the name stays.
    pub id: ResourceId,
    /// What people call it; unique.
    pub name: String,
    /// What it stands for.
    pub address: Address,
    /// Where its gateways are; at least one.
    pub sites: Vec<SiteId>,
    /// What may pass; empty for everything.
    pub filters: Vec<Filter>,
}

/// "This group may reach this resource, under these conditions." Several of the same two are alternatives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Its id, kept while group and resource stay.
    pub id: PolicyId,
    /// Who.
    pub group: String,
    /// What.
    pub resource: ResourceId,
    /// When and from where; all must hold.
    pub conditions: Vec<Condition>,
}

/// What the portal remembers of a token: never the token itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// Its id, which the token names.
    pub id: TokenId,
    /// What it opens.
    pub kind: TokenKind,
    /// SHA-256 of salt and secret.
    pub hash: [u8; 32],
    /// Random, so that equal secrets don't have equal hashes.
    pub salt: [u8; 16],
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it ends, in Unix seconds. `None` means never.
    pub expires_at: Option<u64>,
    /// When it was revoked, in Unix seconds.
    pub revoked_at: Option<u64>,
}

/// What a token opens.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TokenKind {
    /// The client socket, on behalf of an actor.
    Client(ActorId),
    /// The gateway socket, for a site.
    Gateway(SiteId),
    /// The relay socket.
    Relay,
}

/// A device of an actor. Unique in the actor and [`Device::external_id`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// Whose it is.
    pub actor: ActorId,
    /// Whether an admin has looked at the device and found it good.
    pub verified: bool,
    /// The device.
    pub device: Device,
}

/// A program that gives access to a site. Unique in the site and [`Device::external_id`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gateway {
    /// Its id.
    pub id: GatewayId,
    /// Where it is.
    pub site: SiteId,
    /// The device.
    pub device: Device,
}

/// What clients and gateways have in common. Made at the first connect and kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// What the device calls itself.
    pub external_id: String,
    /// What people call it; the latest that it said.
    pub name: String,
    /// Its addresses in the tunnel; no two devices share one.
    pub addresses: TunnelAddresses,
    /// Its share of pre-shared keys.
    pub psk_base: PskBase,
}

/// A device's share of pre-shared keys: 32 random bytes that never leave the portal.
#[derive(Clone, Eq, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct PskBase([u8; 32]);

/// "This client may use this resource through this gateway until then."
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Its id; a renewed grant has a new one.
    pub id: GrantId,
    /// Who, what and through whom; unique.
    pub key: GrantKey,
    /// The policy that decided.
    pub policy: PolicyId,
    /// The token of the client's session; the grant dies with it.
    pub token: TokenId,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// When it ends, in Unix seconds. `None` means when it is revoked.
    pub expires_at: Option<u64>,
    /// Where the client was when it was made; counts while the client isn't connected.
    pub remote_ip: Option<IpAddr>,
}

/// Who, what and through whom.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct GrantKey {
    /// Who.
    pub client: ClientId,
    /// What.
    pub resource: ResourceId,
    /// Through whom.
    pub gateway: GatewayId,
}

impl Token {
    /// Whether the token opens anything at `unix` (seconds).
    pub fn is_usable(&self, unix: u64) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| unix < expires_at)
    }
}

impl Grant {
    /// Whether the grant is in force at `unix` (seconds).
    pub fn is_live(&self, unix: u64) -> bool {
        self.expires_at.is_none_or(|expires_at| unix < expires_at)
    }
}

impl PskBase {
    /// Takes over random bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for deriving and storing alone.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PskBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PskBase(…)")
    }
}
