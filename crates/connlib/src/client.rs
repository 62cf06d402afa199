//! A client in this process.

use std::path::PathBuf;
use std::time::Duration;

pub use connlib_tunnel::client::{Interface, NameRecord, Reachability, ResourceView};
use connlib_tunnel::why::Question;
pub use connlib_wire::id::ResourceId;
pub use connlib_wire::portal::Generation;
pub use connlib_wire::portal::client::Refusal;
use connlib_wire::secret::Secret;

pub use crate::control_plane::DnsControl;
use crate::control_plane::{NodeConfig, OfClient, start};
use crate::error::Error;
use crate::handle::Handle;
pub use crate::portal_view::{AccessRefusal, PortalState, PortalView};
use crate::tls::ClientCertificate;
use crate::uplink::Proxy;
use crate::watch::Watch;

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

impl Client {
    /// What can be reached, the Internet first, then by name: nothing until the portal has said so.
    pub fn resources(&self) -> Watch<Vec<ResourceView>> {
        self.handle.resources()
    }

    /// The TUN device's addresses, what leads into it, and where programs may ask for names: `None` until the portal has said so.
    /// It changes when the device has.
    pub fn interface(&self) -> Watch<Option<Interface>> {
        self.handle.interface()
    }

    /// Whether what belongs to no other resource goes through the Internet resource, if there is one. It is remembered while
    /// there is none.
    pub fn set_internet(&self, is_wanted: bool) {
        self.handle.want_internet(is_wanted);
    }
}

impl ClientBuilder {
    /// Whether what belongs to no other resource goes through the Internet resource, if there is one; by default it doesn't.
    pub fn internet(mut self, is_wanted: bool) -> Self {
        self.config.internet = is_wanted;
        self
    }

    /// How programs on this machine are made to ask it for names; by default they aren't.
    pub fn dns(mut self, control: DnsControl) -> Self {
        self.config.dns = control;
        self
    }

    /// The file that the system's name servers are read from, and written to where that is asked for;
    /// `/etc/resolv.conf` by default.
    pub fn resolv_conf(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.resolv_conf = Some(path.into());
        self
    }

    /// The names that earlier clients on this machine gave addresses to. Programs may remember those addresses, so that
    /// they must not stand for other names.
    pub fn names(mut self, records: Vec<NameRecord>) -> Self {
        self.config.names = records;
        self
    }

    /// Is told of each name that is given addresses, to keep it for [`names`](Self::names). It is called on the client's
    /// own thread and must not wait for long.
    pub fn keep_names(mut self, keep: impl FnMut(&[NameRecord]) + Send + 'static) -> Self {
        self.config.keep_names = Some(Box::new(keep));
        self
    }
}

crate::builder::node!(Client, ClientBuilder, OfClient);
