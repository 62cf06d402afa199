//! A client in this process.

use std::path::PathBuf;
use std::time::Duration;

use connlib_wire::secret::Secret;

use crate::control_plane::{NodeConfig, OfClient, start};
use crate::error::Error;
use crate::handle::Handle;

/// A running client. Clones share it; dropping the last one stops it.
#[derive(Clone, Debug)]
pub struct Client {
    handle: Handle,
}

/// What a client is told before it starts.
#[derive(Debug, Default)]
#[must_use = "nothing starts before `start`"]
pub struct ClientBuilder {
    config: NodeConfig,
}

crate::builder::node!(Client, ClientBuilder, OfClient);
