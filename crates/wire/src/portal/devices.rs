//! What clients hear of each other: device pools and connections among clients (portal-protocol.md §5.2, §5.3, §5.6, §10.7).
//!
//! This version asks for none of it, but understands what it is told.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::IceCredentials;
use super::resource::{Filter, filters};
use crate::id::{ClientId, ResourceId};
use crate::key::{PresharedKey, PublicKey};

/// Candidates did not reach another client.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CandidateError {
    /// Whom they were for.
    pub client_id: ClientId,
    /// Why not, such as `offline`.
    pub reason: String,
}

/// A connection between two clients is allowed (portal-protocol.md §5.6).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AccessAuthorized {
    /// The client at the other end.
    pub client_id: ClientId,
    /// What people call it.
    pub client_name: String,
    /// Its WireGuard key.
    pub client_public_key: PublicKey,
    /// Its tunnel address.
    pub client_ipv4: Ipv4Addr,
    /// Its tunnel address.
    pub client_ipv6: Ipv6Addr,
    /// The key both ends mix into their handshakes.
    pub preshared_key: PresharedKey,
    /// Ours.
    pub local_ice_credentials: IceCredentials,
    /// The other client's.
    pub remote_ice_credentials: IceCredentials,
    /// Who nominates.
    pub ice_role: IceRole,
    /// The token flow logs are uploaded with.
    pub flow_logs_ingest_token: String,
    /// Whether the two ends do without ICE.
    #[serde(default)]
    pub use_iceless: bool,
    /// What the other client may use here; only where it is the one that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<FiltersUpdated>,
    /// Until when, in Unix seconds; only where the other client is the one that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// Who of two clients nominates a pair.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IceRole {
    /// The one that asked.
    Controlling,
    /// The one that was asked for.
    Controlled,
}

/// A connection between two clients is refused, or over.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AccessDenied {
    /// The address that was asked for, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// Why.
    pub reason: super::client::Refusal,
}

/// What may pass of what another client sends to a resource.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FiltersUpdated {
    /// The resource.
    pub id: ResourceId,
    /// What may pass; empty for everything.
    #[serde(default, deserialize_with = "filters")]
    pub filters: Vec<Filter>,
}

/// A program asks for a name of a device pool.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ResolveDomain {
    /// The pool.
    pub resource_id: ResourceId,
    /// The name.
    pub domain: String,
}

/// A device of a pool has these addresses.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DomainResolved {
    /// The pool.
    pub resource_id: ResourceId,
    /// The name.
    pub domain: String,
    /// The device's tunnel address; portals of the forerunner add a prefix length.
    pub ipv4: String,
    /// The same.
    pub ipv6: String,
}

/// No device of a pool has that name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DomainResolutionFailed {
    /// The pool.
    pub resource_id: ResourceId,
    /// The name.
    pub domain: String,
    /// Why.
    pub reason: super::client::Refusal,
}
