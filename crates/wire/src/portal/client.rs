//! The client's socket (portal-protocol.md §5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::resource::Resource;
use super::{
    Capabilities, Empty, FlowLogs, IceCredentials, RelaysPresence, UpstreamDns, messages,
    skip_malformed, turn,
};
use crate::id::{GatewayId, ResourceId, SiteId};
use crate::key::{PresharedKey, PublicKey};

/// The client's topic.
pub const TOPIC: &str = "client";

messages! {
    /// What the portal says to a client.
    FromPortal {
        /// The whole state; comes after every join and must be idempotent.
        Init(Init) = "init",
        /// The interface changed.
        ConfigChanged(ConfigChanged) = "config_changed",
        /// A resource is new or different.
        ResourceCreatedOrUpdated(Resource) = "resource_created_or_updated",
        /// A resource is gone.
        ResourceDeleted(ResourceId) = "resource_deleted",
        /// Relays came or went.
        RelaysPresence(RelaysPresence) = "relays_presence",
        /// Access is granted, and the gateway knows.
        AuthorizationCreated(AuthorizationCreated) = "authorization_created",
        /// Access is refused.
        AuthorizationCreationFailed(AuthorizationCreationFailed) = "authorization_creation_failed",
        /// The gateway can be tried at these addresses.
        IceCandidates(GatewayCandidates) = "ice_candidates" | "gateway_ice_candidates",
        /// The gateway can't be reached at these addresses any longer.
        InvalidateIceCandidates(GatewayCandidates) = "invalidate_ice_candidates" | "invalidate_gateway_ice_candidates",
    }
}

messages! {
    /// What a client says to the portal.
    ToPortal {
        /// A packet wants to go to this resource.
        RequestAuthorization(RequestAuthorization) = "request_authorization",
        /// The gateway may try these addresses.
        NewIceCandidates(GatewayCandidates) = "new_gateway_ice_candidates",
        /// The gateway must not try these addresses any longer.
        InvalidateIceCandidates(GatewayCandidates) = "invalidate_gateway_ice_candidates",
        /// The first message after each join.
        SetCapabilities(Capabilities) = "set_snownet_capabilities",
        /// The last relay is lost; the answer is [`FromPortal::RelaysPresence`].
        NoRelays(Empty) = "no_relays",
    }
}

/// The whole state of a client.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Init {
    /// Its addresses and resolvers.
    pub interface: Interface,
    /// All resources it may reach.
    #[serde(default, deserialize_with = "skip_malformed")]
    pub resources: Vec<Resource>,
    /// Relays to use.
    #[serde(default, deserialize_with = "skip_malformed")]
    pub relays: Vec<turn::Relay>,
    /// Grants to other clients on this one; not understood in this version, always empty from our portal.
    #[serde(default, deserialize_with = "skip_malformed")]
    pub authorizations: Vec<super::Authorization>,
    /// Where flow logs go. A portal that doesn't say turns them off.
    #[serde(default)]
    pub flow_logs: FlowLogs,
}

/// A client's addresses and resolvers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Interface {
    /// From `100.64.0.0/11`.
    pub ipv4: Ipv4Addr,
    /// From `fd00:2021:1111::/107`.
    pub ipv6: Ipv6Addr,
    /// The domain that single-label names are completed with.
    #[serde(default)]
    pub search_domain: Option<String>,
    /// Resolvers in the older form.
    #[serde(default, deserialize_with = "skip_malformed")]
    pub upstream_dns: Vec<UpstreamDns>,
    /// Resolvers over plain DNS, port 53.
    #[serde(default, deserialize_with = "skip_malformed")]
    pub upstream_do53: Vec<Do53>,
    /// Resolvers over HTTPS.
    #[serde(default, deserialize_with = "skip_malformed")]
    pub upstream_doh: Vec<Doh>,
    /// Resolvers over TLS. Only our portal names any.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "skip_malformed"
    )]
    pub upstream_dot: Vec<Dot>,
}

/// A resolver over plain DNS, port 53.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Do53 {
    /// Its address.
    pub ip: IpAddr,
}

/// A resolver over HTTPS.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Doh {
    /// Its URL.
    pub url: String,
}

/// A resolver over TLS.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Dot {
    /// Its URL: `tls://host[:port]`.
    pub url: String,
}

/// The interface changed; the new one replaces the old one whole.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConfigChanged {
    /// The new one.
    pub interface: Interface,
}

/// A packet wants to go to a resource.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RequestAuthorization {
    /// Which.
    pub resource_id: ResourceId,
    /// Gateways this client would like to stay with, best first.
    pub connected_gateway_ids: Vec<GatewayId>,
}

/// Access is granted, and the gateway knows (portal-protocol.md §5.4).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AuthorizationCreated {
    /// What may be reached.
    pub resource_id: ResourceId,
    /// Through whom.
    pub gateway_id: GatewayId,
    /// The gateway's WireGuard key.
    pub gateway_public_key: PublicKey,
    /// The gateway's tunnel address.
    pub gateway_ipv4: Ipv4Addr,
    /// The gateway's tunnel address.
    pub gateway_ipv6: Ipv6Addr,
    /// The key both ends mix into their handshakes.
    pub preshared_key: PresharedKey,
    /// Ours.
    pub client_ice_credentials: IceCredentials,
    /// The gateway's.
    pub gateway_ice_credentials: IceCredentials,
    /// The gateway's site.
    #[serde(rename = "gateway_group_id", alias = "site_id")]
    pub site_id: SiteId,
    /// Whether the two ends do without ICE.
    #[serde(default)]
    pub use_iceless: bool,
    /// The token flow logs are uploaded with.
    #[serde(default)]
    pub flow_logs_ingest_token: String,
}

/// Access is refused (portal-protocol.md §5.5).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuthorizationCreationFailed {
    /// What was asked for.
    pub resource_id: ResourceId,
    /// Why not.
    pub reason: Refusal,
    /// The conditions that did not hold.
    #[serde(default)]
    pub violated_properties: Vec<String>,
}

/// Why access was refused.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// No such resource for this client.
    NotFound,
    /// None of its gateways is there.
    Offline,
    /// No policy allows it now.
    Forbidden,
    /// No gateway of a version that fits.
    VersionMismatch,
    /// The account is disabled.
    Disabled,
    /// Any other reason.
    #[serde(other)]
    Unknown,
}

/// Candidates of the link to a gateway.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GatewayCandidates {
    /// The gateway at the other end.
    pub gateway_id: GatewayId,
    /// Candidate lines, best first; each is judged alone (connections.md §4.4).
    pub candidates: Vec<String>,
}
