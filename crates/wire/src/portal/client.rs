//! The client's socket (portal-protocol.md §5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::gateway::{ClientCandidates, RejectAccess};
use super::resource::Resource;
use super::{
    Capabilities, Empty, FlowLogs, IceCredentials, RelaysPresence, UpstreamDns, devices, messages,
    skip_malformed, skip_malformed_if_any, turn,
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
        AuthorizationCreated(AuthorizationCreated) = "authorization_created" / "flow_created",
        /// Access is refused.
        AuthorizationCreationFailed(AuthorizationCreationFailed) = "authorization_creation_failed" / "flow_creation_failed",
        /// The gateway can be tried at these addresses.
        IceCandidates(GatewayCandidates) = "ice_candidates" | "gateway_ice_candidates",
        /// The gateway can't be reached at these addresses any longer.
        InvalidateIceCandidates(GatewayCandidates) = "invalidate_ice_candidates" | "invalidate_gateway_ice_candidates",
        /// Another client can be tried at these addresses.
        ClientIceCandidates(ClientCandidates) = "client_ice_candidates",
        /// Another client can't be reached at these addresses any longer.
        InvalidateClientIceCandidates(ClientCandidates) = "invalidate_client_ice_candidates",
        /// Candidates did not reach another client.
        ClientIceCandidateError(devices::CandidateError) = "client_ice_candidate_error",
        /// A connection with another client is allowed.
        DeviceAccessAuthorized(devices::AccessAuthorized) = "client_device_access_authorized",
        /// A connection with another client is refused.
        DeviceAccessDenied(devices::AccessDenied) = "client_device_access_denied",
        /// What may pass of what another client sends.
        ResourceFiltersUpdated(devices::FiltersUpdated) = "resource_filters_updated",
        /// Another client may no longer use a resource.
        RejectAccess(RejectAccess) = "reject_access",
        /// A device of a pool has these addresses.
        DevicePoolDomainResolved(devices::DomainResolved) = "device_pool_domain_resolved",
        /// No device of a pool has that name.
        DevicePoolDomainResolutionFailed(devices::DomainResolutionFailed) = "device_pool_domain_resolution_failed",
    }
}

messages! {
    /// What a client says to the portal.
    ToPortal {
        /// A packet wants to go to this resource.
        RequestAuthorization(RequestAuthorization) = "request_authorization" / "create_flow",
        /// The gateway may try these addresses.
        NewIceCandidates(GatewayCandidates) = "new_gateway_ice_candidates",
        /// The gateway must not try these addresses any longer.
        InvalidateIceCandidates(GatewayCandidates) = "invalidate_gateway_ice_candidates",
        /// The same as [`NewIceCandidates`](Self::NewIceCandidates) in V1, for several gateways at once.
        BroadcastIceCandidates(BroadcastCandidates) = "broadcast_ice_candidates",
        /// The same as [`InvalidateIceCandidates`](Self::InvalidateIceCandidates) in V1.
        BroadcastInvalidatedIceCandidates(BroadcastCandidates) = "broadcast_invalidated_ice_candidates",
        /// Another client may try these addresses.
        NewClientIceCandidates(ClientCandidates) = "new_client_ice_candidates",
        /// Another client must not try these addresses any longer.
        InvalidateClientIceCandidates(ClientCandidates) = "invalidate_client_ice_candidates",
        /// A program asks for a name of a device pool.
        ResolveDevicePoolDomain(devices::ResolveDomain) = "resolve_device_pool_domain",
        /// The first message after each join.
        SetCapabilities(Capabilities) = "set_snownet_capabilities",
        /// The last relay is lost; the answer is [`FromPortal::RelaysPresence`].
        NoRelays(Empty) = "no_relays",
    }
}

impl FromPortal {
    /// The same as V1 has it, without members that are only in V2; `None` for what V1 has no word for.
    pub fn in_v1(self) -> Option<Self> {
        Some(match self {
            Self::Init(init) => Self::Init(Init {
                authorizations: None,
                flow_logs: None,
                ..init
            }),
            Self::AuthorizationCreated(created) => {
                Self::AuthorizationCreated(AuthorizationCreated {
                    use_iceless: None,
                    flow_logs_ingest_token: None,
                    ..created
                })
            }
            // To clients of that time, gateways that don't fit are not there (portal-protocol.md §10.4).
            Self::AuthorizationCreationFailed(failed)
                if failed.reason == Refusal::VersionMismatch =>
            {
                Self::AuthorizationCreationFailed(AuthorizationCreationFailed {
                    reason: Refusal::Offline,
                    ..failed
                })
            }
            Self::AuthorizationCreationFailed(_)
            | Self::ConfigChanged(_)
            | Self::ResourceCreatedOrUpdated(_)
            | Self::ResourceDeleted(_)
            | Self::RelaysPresence(_)
            | Self::IceCandidates(_)
            | Self::InvalidateIceCandidates(_) => self,
            Self::ClientIceCandidates(_)
            | Self::InvalidateClientIceCandidates(_)
            | Self::ClientIceCandidateError(_)
            | Self::DeviceAccessAuthorized(_)
            | Self::DeviceAccessDenied(_)
            | Self::ResourceFiltersUpdated(_)
            | Self::RejectAccess(_)
            | Self::DevicePoolDomainResolved(_)
            | Self::DevicePoolDomainResolutionFailed(_) => return None,
        })
    }
}

impl ToPortal {
    /// The same as V1 has it; `None` for what V1 has no word for.
    pub fn in_v1(self) -> Option<Self> {
        Some(match self {
            Self::NewIceCandidates(of) => Self::BroadcastIceCandidates(of.into()),
            Self::InvalidateIceCandidates(of) => Self::BroadcastInvalidatedIceCandidates(of.into()),
            Self::RequestAuthorization(_)
            | Self::BroadcastIceCandidates(_)
            | Self::BroadcastInvalidatedIceCandidates(_) => self,
            Self::NewClientIceCandidates(_)
            | Self::InvalidateClientIceCandidates(_)
            | Self::ResolveDevicePoolDomain(_)
            | Self::SetCapabilities(_)
            | Self::NoRelays(_) => return None,
        })
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
    /// Grants to other clients on this one, but in V1; not understood in this version, always empty from our portal.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "skip_malformed_if_any"
    )]
    pub authorizations: Option<Vec<super::Authorization>>,
    /// Where flow logs go, but in V1. A portal that doesn't say turns them off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_logs: Option<FlowLogs>,
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
    /// A device of a pool, unchecked; of this and the next, one or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
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
    /// Whether the two ends do without ICE, but in V1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_iceless: Option<bool>,
    /// The token flow logs are uploaded with, but in V1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_logs_ingest_token: Option<String>,
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
    /// Two addresses of a device where one was due.
    AmbiguousAddress,
    /// No address of a device where one was due.
    MissingAddress,
    /// The address of a device is none.
    InvalidAddress,
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

/// Candidates of links to several gateways, as V1 has them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BroadcastCandidates {
    /// The gateways at the other ends; in practice one.
    pub gateway_ids: Vec<GatewayId>,
    /// Candidate lines, best first.
    pub candidates: Vec<String>,
}

impl From<GatewayCandidates> for BroadcastCandidates {
    fn from(of: GatewayCandidates) -> Self {
        Self {
            gateway_ids: vec![of.gateway_id],
            candidates: of.candidates,
        }
    }
}
