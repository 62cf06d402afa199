//! Resources, as clients and as gateways are told of them (portal-protocol.md §4).

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{ResourceId, SiteId};

/// What a client may reach.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resource {
    /// Names that match a pattern.
    Dns(DnsResource),
    /// A network.
    Cidr(CidrResource),
    /// Everything else.
    Internet(InternetResource),
}

impl Resource {
    /// Its id.
    pub fn id(&self) -> ResourceId {
        match self {
            Self::Dns(resource) => resource.id,
            Self::Cidr(resource) => resource.id,
            Self::Internet(resource) => resource.id,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Dns(resource) => &resource.name,
            Self::Cidr(resource) => &resource.name,
            Self::Internet(resource) => &resource.name,
        }
    }

    /// The sites whose gateways serve it.
    pub fn sites(&self) -> &[Site] {
        match self {
            Self::Dns(resource) => &resource.sites.0,
            Self::Cidr(resource) => &resource.sites.0,
            Self::Internet(resource) => &resource.sites.0,
        }
    }
}

/// Names that match a pattern.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DnsResource {
    /// Its id.
    pub id: ResourceId,
    /// What people call it.
    pub name: String,
    /// The pattern.
    pub address: String,
    /// A hint for people.
    #[serde(default)]
    pub address_description: Option<String>,
    /// The address families its names resolve to.
    #[serde(default, deserialize_with = "null_is_default")]
    pub ip_stack: IpStack,
    /// What may pass; empty for everything.
    #[serde(default, deserialize_with = "filters")]
    pub filters: Vec<Filter>,
    /// Where its gateways are.
    #[serde(flatten)]
    pub sites: Sites,
}

/// A network.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CidrResource {
    /// Its id.
    pub id: ResourceId,
    /// What people call it.
    pub name: String,
    /// The network.
    pub address: IpNet,
    /// A hint for people.
    #[serde(default)]
    pub address_description: Option<String>,
    /// What may pass; empty for everything.
    #[serde(default, deserialize_with = "filters")]
    pub filters: Vec<Filter>,
    /// Where its gateways are.
    #[serde(flatten)]
    pub sites: Sites,
}

/// Everything that no other resource covers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InternetResource {
    /// Its id.
    pub id: ResourceId,
    /// What people call it.
    #[serde(default = "internet_name")]
    pub name: String,
    /// Where its gateways are.
    #[serde(flatten)]
    pub sites: Sites,
}

/// What a gateway gives access to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum GatewayResource {
    /// Names that match a pattern.
    Dns {
        /// Its id.
        id: ResourceId,
        /// What people call it.
        name: String,
        /// The pattern.
        address: String,
        /// What may pass; empty for everything.
        #[serde(default, deserialize_with = "filters")]
        filters: Vec<Filter>,
    },
    /// A network.
    Cidr {
        /// Its id.
        id: ResourceId,
        /// What people call it.
        name: String,
        /// The network.
        address: IpNet,
        /// What may pass; empty for everything.
        #[serde(default, deserialize_with = "filters")]
        filters: Vec<Filter>,
    },
    /// Everything else.
    Internet {
        /// Its id.
        id: ResourceId,
    },
}

impl GatewayResource {
    /// Its id.
    pub fn id(&self) -> ResourceId {
        match self {
            Self::Dns { id, .. } | Self::Cidr { id, .. } | Self::Internet { id } => *id,
        }
    }
}

/// A place with gateways.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Site {
    /// Its id.
    pub id: SiteId,
    /// What people call it.
    pub name: String,
}

/// A list of sites under its wire name `gateway_groups`, which every generation of clients reads; the newer name
/// `sites` is understood and wins where both are given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sites(pub Vec<Site>);

impl Serialize for Sites {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;

        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("gateway_groups", &self.0)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Sites {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            sites: Option<Vec<Site>>,
            gateway_groups: Option<Vec<Site>>,
        }

        let wire = Wire::deserialize(deserializer)?;
        let sites = wire.sites.or(wire.gateway_groups);

        sites
            .map(Self)
            .ok_or_else(|| serde::de::Error::missing_field("gateway_groups"))
    }
}

/// Traffic that may pass.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Filter {
    /// ICMP and ICMPv6 of any type.
    Icmp,
    /// TCP to a range of ports, both ends included.
    Tcp(PortRange),
    /// UDP to a range of ports, both ends included.
    Udp(PortRange),
    /// Something that this version doesn't know: it lets nothing pass. It is there so that a list of such doesn't look like one
    /// that lets everything pass.
    #[serde(other)]
    Unknown,
}

/// Reads filters one by one: what is malformed is unknown.
pub(super) fn filters<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Filter>, D::Error> {
    let entries = Vec::<serde_json::Value>::deserialize(deserializer)?;
    let filters = entries.into_iter().map(|entry| {
        serde_json::from_value(entry).unwrap_or_else(|error| {
            tracing::info!(%error, "A filter that this version doesn't understand lets nothing pass");
            Filter::Unknown
        })
    });

    Ok(filters.collect())
}

/// Ports, both ends included.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PortRange {
    /// The first.
    #[serde(default)]
    pub port_range_start: u16,
    /// The last.
    #[serde(default = "last_port")]
    pub port_range_end: u16,
}

/// The address families a name resolves to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IpStack {
    /// Both.
    #[default]
    Dual,
    /// IPv4 alone.
    Ipv4Only,
    /// IPv6 alone.
    Ipv6Only,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn internet_name() -> String {
    "Internet Resource".to_owned()
}

const fn last_port() -> u16 {
    u16::MAX
}
