//! What is kept, in the words of the wire.

use connlib_wire::id::SiteId;
use connlib_wire::portal::client::{Do53, Doh, Dot, Interface};
use connlib_wire::portal::resource::{
    CidrResource, DnsResource, GatewayResource, InternetResource, Resource, Site, Sites,
};
use connlib_wire::portal::{FlowLogs, TunnelAddresses, UpstreamDns};

use crate::model::{self, Address, Directory};

/// The port of plain DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// A client's addresses and resolvers. Resolvers are of one kind (portal-protocol.md §4): encrypted if there are any of
/// these, over HTTPS before TLS, which clients of others don't know.
pub(super) fn interface(directory: &Directory, addresses: TunnelAddresses) -> Interface {
    let network = directory.network();
    let dot = match network.doh.is_empty() {
        true => network.dot.as_slice(),
        false => &[],
    };
    let do53 = match network.doh.is_empty() && dot.is_empty() {
        true => network.do53.as_slice(),
        false => &[],
    };

    Interface {
        ipv4: addresses.ipv4,
        ipv6: addresses.ipv6,
        search_domain: network.search_domain.clone(),
        upstream_dns: (do53.iter())
            .map(|ip| UpstreamDns::IpPort {
                address: (*ip, DNS_PORT).into(),
            })
            .collect(),
        upstream_do53: do53.iter().map(|ip| Do53 { ip: *ip }).collect(),
        upstream_doh: (network.doh.iter())
            .map(|url| Doh { url: url.clone() })
            .collect(),
        upstream_dot: dot.iter().map(|url| Dot { url: url.clone() }).collect(),
    }
}

/// A resource, as clients are told of it.
pub(super) fn resource(directory: &Directory, resource: &model::Resource) -> Resource {
    let site = |id: &SiteId| {
        let site = directory.sites().get(id)?;
        Some(Site {
            id: site.id,
            name: site.name.clone(),
        })
    };
    let sites = Sites(resource.sites.iter().filter_map(site).collect());
    let (id, name) = (resource.id, resource.name.clone());

    match &resource.address {
        Address::Cidr(address) => Resource::Cidr(CidrResource {
            id,
            name,
            address: *address,
            address_description: None,
            filters: resource.filters.clone(),
            sites,
        }),
        Address::Dns { pattern, ip_stack } => Resource::Dns(DnsResource {
            id,
            name,
            address: pattern.clone(),
            address_description: None,
            ip_stack: *ip_stack,
            filters: resource.filters.clone(),
            sites,
        }),
        Address::Internet => Resource::Internet(InternetResource { id, name, sites }),
    }
}

/// A resource, as gateways are told of it.
pub(super) fn gateway_resource(resource: &model::Resource) -> GatewayResource {
    let (id, name) = (resource.id, resource.name.clone());
    let filters = resource.filters.clone();

    match &resource.address {
        Address::Cidr(address) => GatewayResource::Cidr {
            id,
            name,
            address: *address,
            filters,
        },
        Address::Dns { pattern, .. } => GatewayResource::Dns {
            id,
            name,
            address: pattern.clone(),
            filters,
        },
        Address::Internet => GatewayResource::Internet { id },
    }
}

/// "Don't upload flow logs", in a form that every peer reads.
pub(super) fn no_flow_logs() -> FlowLogs {
    FlowLogs {
        api_url: "http://127.0.0.1:9/".to_owned(),
        upload_interval_secs: 0,
        upload_batch_size: 0,
    }
}
