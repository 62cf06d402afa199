//! What clients ask for.

use std::net::SocketAddr;
use std::time::Duration;

use connlib_wire::stun::{Attribute, Family, Method, TRANSPORT_UDP};

/// A request without credentials.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) attributes: Vec<Attribute<'a>>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: Method) -> Self {
        Self {
            method,
            attributes: Vec::new(),
        }
    }

    pub(crate) fn allocate() -> Self {
        Self::new(Method::Allocate).with(Attribute::RequestedTransport(TRANSPORT_UDP))
    }

    pub(crate) fn refresh(lifetime: Duration) -> Self {
        Self::new(Method::Refresh).lifetime(lifetime)
    }

    pub(crate) fn channel_bind(channel: u16, peer: SocketAddr) -> Self {
        Self::new(Method::ChannelBind)
            .with(Attribute::ChannelNumber(channel))
            .with(Attribute::XorPeerAddress(peer))
    }

    pub(crate) fn create_permission(peers: &[SocketAddr]) -> Self {
        Self {
            method: Method::CreatePermission,
            attributes: peers
                .iter()
                .map(|peer| Attribute::XorPeerAddress(*peer))
                .collect(),
        }
    }

    pub(crate) fn both(self) -> Self {
        self.with(Attribute::AdditionalAddressFamily(Family::V6))
    }

    pub(crate) fn lifetime(self, lifetime: Duration) -> Self {
        self.with(Attribute::Lifetime(lifetime))
    }

    pub(crate) fn with(mut self, attribute: Attribute<'a>) -> Self {
        self.attributes.push(attribute);
        self
    }
}
