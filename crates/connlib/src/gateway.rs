//! A gateway in this process.

use std::path::PathBuf;
use std::time::Duration;

use connlib_wire::secret::Secret;

use crate::control_plane::{NodeConfig, OfGateway, start};
use crate::error::Error;
use crate::handle::Handle;

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
    /// The file that the site's name servers are read from; `/etc/resolv.conf` by default.
    pub fn resolv_conf(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.resolv_conf = Some(path.into());
        self
    }
}

crate::builder::node!(Gateway, GatewayBuilder, OfGateway);
