//! A gateway in this process.

use std::path::PathBuf;
use std::time::Duration;

use connlib_tunnel::why::Question;
use connlib_wire::secret::Secret;

pub use crate::control_plane::Masquerade;
use crate::control_plane::{NodeConfig, OfGateway, start};
use crate::error::Error;
use crate::handle::Handle;
pub use crate::portal_view::{PortalState, PortalView};
use crate::tls::ClientCertificate;
use crate::uplink::Proxy;
use crate::watch::Watch;

/// A running gateway. Clones share it; dropping the last one stops it.
#[derive(Clone, Debug)]
pub struct Gateway {
    handle: Handle,
}

/// What a gateway is told before it starts.
#[derive(Debug, Default)]
#[must_use = "nothing starts before `start`"]
pub struct GatewayBuilder {
    config: NodeConfig,
}

impl GatewayBuilder {
    /// Under which addresses packets of clients leave this machine; by default under their own. The kernel passes them on in
    /// either case, which is switched on where it isn't, and off at the end.
    pub fn masquerade(mut self, masquerade: Masquerade) -> Self {
        self.config.masquerade = masquerade;
        self
    }

    /// The file that the site's name servers are read from; `/etc/resolv.conf` by default.
    pub fn resolv_conf(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.resolv_conf = Some(path.into());
        self
    }
}

crate::builder::node!(Gateway, GatewayBuilder, OfGateway);
