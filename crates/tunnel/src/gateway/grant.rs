//! What a client may reach, until when, and by what rules.

use std::time::Instant;

use connlib_wire::dns::Name;
use connlib_wire::pattern::Pattern;
use connlib_wire::portal::resource::{Filter, GatewayResource};
use ipnet::IpNet;

/// Leave to reach a resource.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) resource: GatewayResource,
    /// What names of it match; `None` if it has none, or its pattern is malformed.
    pub(super) pattern: Option<Pattern>,
    pub(super) until: Option<Instant>,
}

impl Grant {
    pub(super) fn new(resource: GatewayResource, until: Option<Instant>) -> Self {
        let pattern = match &resource {
            GatewayResource::Dns { address, .. } => Pattern::parse(address).ok(),
            GatewayResource::Cidr { .. } | GatewayResource::Internet { .. } | _ => None,
        };

        Self {
            resource,
            pattern,
            until,
        }
    }

    pub(super) fn is_in_force(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    /// Whether a name is one of its resource.
    pub(super) fn matches(&self, name: &Name) -> bool {
        self.pattern
            .as_ref()
            .is_some_and(|pattern| pattern.matches(name))
    }

    /// What may pass; nothing means everything.
    pub(super) fn filters(&self) -> &[Filter] {
        match &self.resource {
            GatewayResource::Dns { filters, .. } | GatewayResource::Cidr { filters, .. } => filters,
            GatewayResource::Internet { .. } | _ => &[],
        }
    }

    /// The network of its resource. Names are reached by the addresses that stand for them.
    pub(super) fn network(&self) -> Option<IpNet> {
        match &self.resource {
            GatewayResource::Cidr { address, .. } => Some(*address),
            GatewayResource::Dns { .. } | GatewayResource::Internet { .. } | _ => None,
        }
    }

    pub(super) fn is_internet(&self) -> bool {
        matches!(self.resource, GatewayResource::Internet { .. })
    }

    /// Takes over the rules of a resource that changed nothing else.
    pub(super) fn update_filters(&mut self, updated: &GatewayResource) {
        match (&mut self.resource, updated) {
            (GatewayResource::Cidr { filters, .. }, GatewayResource::Cidr { filters: new, .. })
            | (GatewayResource::Dns { filters, .. }, GatewayResource::Dns { filters: new, .. }) => {
                filters.clone_from(new);
            }
            _ => {}
        }
    }

    /// Its resource's name and address, as `status` shows them.
    pub(super) fn described(&self) -> (String, Option<String>) {
        match &self.resource {
            GatewayResource::Cidr { name, address, .. } => {
                (name.clone(), Some(address.to_string()))
            }
            GatewayResource::Dns { name, address, .. } => (name.clone(), Some(address.clone())),
            GatewayResource::Internet { .. } | _ => ("Internet".to_owned(), None),
        }
    }
}
