//! A gateway's machine passes packets on (gateway.md §13).

use std::path::PathBuf;

use connlib_os::router::{self, Router, RouterError};
use connlib_tunnel::TUNNEL;

use crate::error::Error;

/// The program that sets rules, and where it is although those who aren't root often don't look there.
const NFT: &str = "nft";
const USUAL: [&str; 2] = ["/usr/sbin/nft", "/sbin/nft"];

/// Under which addresses packets of clients leave the gateway's machine.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Masquerade {
    /// Under the machine's own, by rules of nftables that are taken back at the end. Where those can't be set, packets go on, and
    /// a warning says why.
    Auto,
    /// Under their own: the site knows the way back, or somebody else has set rules.
    #[default]
    Off,
}

/// What the machine does for the packets of a tunnel, once it is asked for.
pub(super) struct Forwarding {
    interface: String,
    masquerade: Masquerade,
    router: Option<Router>,
}

impl Forwarding {
    pub(super) fn new(interface: String, masquerade: Masquerade) -> Self {
        Self {
            interface,
            masquerade,
            router: None,
        }
    }

    /// Sees to it that packets are passed on.
    ///
    /// # Errors
    ///
    /// The kernel isn't to pass any of IPv4 on, and doesn't let us change that. Without IPv6 there is much left to reach. Rules that
    /// can't be set are no error: a site may know the way to its clients.
    pub(super) async fn set_up(&mut self) -> Result<(), Error> {
        if self.router.is_some() {
            return Ok(());
        }
        let router = self.router.insert(Router::default());
        router.forward_v4()?;
        if let Err(error) = router.forward_v6() {
            tracing::warn!(%error, "Clients reach nothing by IPv6");
        }
        if self.masquerade == Masquerade::Off {
            return Ok(());
        }
        let wanted = router::Masquerade {
            interface: self.interface.clone(),
            sources: TUNNEL.to_vec(),
            nft: nft(),
        };
        match router.masquerade(&wanted).await {
            Ok(()) => tracing::debug!("Packets of clients leave under this machine's addresses"),
            Err(error @ RouterError::Missing { .. }) => {
                tracing::warn!(%error, "Clients get answers only if the site knows the way to {}; or say `--masquerade off`", TUNNEL[0]);
            }
            Err(error) => {
                tracing::warn!(%error, "Clients get answers only if the site knows the way to {}", TUNNEL[0]);
            }
        }

        Ok(())
    }

    /// Takes everything back.
    pub(super) async fn tear_down(&mut self) {
        if let Some(router) = &mut self.router {
            router.tear_down().await;
        }
    }
}

fn nft() -> PathBuf {
    let mut usual = USUAL.into_iter().map(PathBuf::from);

    usual
        .find(|path| path.exists())
        .unwrap_or_else(|| NFT.into())
}
