//! The gateway's socket (portal-protocol.md §6).

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::resource::GatewayResource;
use super::{
    Authorization, Capabilities, Empty, FlowLogs, IceCredentials, RelaysPresence, TunnelAddresses,
    messages, skip_malformed, turn,
};
use crate::id::{ClientId, ResourceId};
use crate::key::{PresharedKey, PublicKey};

/// The gateway's topic.
pub const TOPIC: &str = "gateway";

messages! {
    /// What the portal says to a gateway.
    FromPortal {
        /// The whole state; comes after every join. Grants it doesn't list are revoked.
        Init(Init) = "init",
        /// Let this client in, then acknowledge.
        CreateAuthorization(CreateAuthorization) = "create_authorization" / "authorize_flow",
        /// This client may no longer use this resource.
        RejectAccess(RejectAccess) = "reject_access",
        /// A resource's filters changed.
        ResourceUpdated(GatewayResource) = "resource_updated",
        /// The client can be tried at these addresses.
        IceCandidates(ClientCandidates) = "ice_candidates",
        /// The client can't be reached at these addresses any longer.
        InvalidateIceCandidates(ClientCandidates) = "invalidate_ice_candidates",
        /// Relays came or went.
        RelaysPresence(RelaysPresence) = "relays_presence",
        /// A grant ends at another time; portals of V1 alone say so.
        ExpiryUpdated(Authorization) = "access_authorization_expiry_updated",
    }
}

messages! {
    /// What a gateway says to the portal.
    ToPortal {
        /// The client is let in.
        AuthorizationCreated(AuthorizationRef) = "authorization_created" / "flow_authorized",
        /// These clients may try these addresses.
        BroadcastIceCandidates(BroadcastCandidates) = "broadcast_ice_candidates",
        /// These clients must not try these addresses any longer.
        BroadcastInvalidatedIceCandidates(BroadcastCandidates) = "broadcast_invalidated_ice_candidates",
        /// The first message after each join.
        SetCapabilities(Capabilities) = "set_snownet_capabilities",
        /// The last relay is lost; the answer is [`FromPortal::RelaysPresence`].
        NoRelays(Empty) = "no_relays",
    }
}

impl FromPortal {
    /// The same as V1 has it, without members that are only in V2.
    #[must_use]
    pub fn in_v1(self) -> Self {
        match self {
            Self::Init(init) => Self::Init(Init {
                flow_logs: None,
                ..init
            }),
            Self::CreateAuthorization(create) => Self::CreateAuthorization(CreateAuthorization {
                use_iceless: None,
                flow_logs_ingest_token: None,
                ..create
            }),
            Self::RejectAccess(_)
            | Self::ResourceUpdated(_)
            | Self::IceCandidates(_)
            | Self::InvalidateIceCandidates(_)
            | Self::RelaysPresence(_)
            | Self::ExpiryUpdated(_) => self,
        }
    }
}

impl ToPortal {
    /// The same as V1 has it; `None` for what V1 has no word for.
    pub fn in_v1(self) -> Option<Self> {
        match self {
            Self::AuthorizationCreated(_)
            | Self::BroadcastIceCandidates(_)
            | Self::BroadcastInvalidatedIceCandidates(_) => Some(self),
            Self::SetCapabilities(_) | Self::NoRelays(_) => None,
        }
    }
}

/// The whole state of a gateway.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Init {
    /// Its tunnel addresses.
    pub interface: TunnelAddresses,
    /// Kept for the protocol's sake; its values are ignored.
    #[serde(default)]
    pub config: MasqueradeConfig,
    /// The account it belongs to.
    #[serde(default)]
    pub account_slug: Option<String>,
    /// Relays to use.
    #[serde(default, deserialize_with = "skip_malformed")]
    pub relays: Vec<turn::Relay>,
    /// Every grant that is in force.
    #[serde(default)]
    pub authorizations: Vec<Authorization>,
    /// Where flow logs go, but in V1. A portal that doesn't say turns them off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_logs: Option<FlowLogs>,
}

/// Two switches of an older time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MasqueradeConfig {
    /// Ignored.
    pub ipv4_masquerade_enabled: bool,
    /// Ignored.
    pub ipv6_masquerade_enabled: bool,
}

impl Default for MasqueradeConfig {
    fn default() -> Self {
        Self {
            ipv4_masquerade_enabled: true,
            ipv6_masquerade_enabled: true,
        }
    }
}

/// Let this client in (portal-protocol.md §6.3).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CreateAuthorization {
    /// Opaque; echoed by the acknowledgement.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What it may reach.
    pub resource: GatewayResource,
    /// Who.
    pub client: Client,
    /// The client's.
    pub client_ice_credentials: IceCredentials,
    /// Ours.
    pub gateway_ice_credentials: IceCredentials,
    /// Until when, in Unix seconds. `None` means until it is revoked.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// Whether the two ends do without ICE, but in V1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_iceless: Option<bool>,
    /// The token flow logs are uploaded with, but in V1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_logs_ingest_token: Option<String>,
}

/// A client, as a gateway is told of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// Its WireGuard key.
    pub public_key: PublicKey,
    /// The key both ends mix into their handshakes.
    pub preshared_key: PresharedKey,
    /// Its tunnel address.
    pub ipv4: Ipv4Addr,
    /// Its tunnel address.
    pub ipv6: Ipv6Addr,
}

/// A grant ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RejectAccess {
    /// Whose.
    pub client_id: ClientId,
    /// To what.
    pub resource_id: ResourceId,
}

/// The acknowledgement of [`CreateAuthorization`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuthorizationRef {
    /// What the portal sent.
    #[serde(rename = "ref")]
    pub reference: String,
}

/// Candidates of a client.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClientCandidates {
    /// The client at the other end.
    pub client_id: ClientId,
    /// Candidate lines, best first; each is judged alone (connections.md §4.4).
    pub candidates: Vec<String>,
}

/// Our candidates, for clients.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BroadcastCandidates {
    /// The clients they are for.
    pub client_ids: Vec<ClientId>,
    /// Candidate lines, best first.
    pub candidates: Vec<String>,
}
