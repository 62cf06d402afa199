//! The TUN device in the kernel: its addresses, what leads into it, and what does not (client.md §12.1–12.2).

use std::net::{Ipv4Addr, Ipv6Addr};

use connlib_os::netlink::{MAIN_TABLE, Netlink, QueueLimits, RuleSpec};
use connlib_os::resolver;
use connlib_os::reverse_path::ReversePath;
use connlib_wire::MAX_PACKET;
use ipnet::IpNet;

use super::MARK;
use crate::error::Error;

/// The table that routes into the tunnel stand in, but for those to everything.
const TABLE: u32 = 0x2021_fd00;

/// The table that routes to everything stand in.
const DEFAULTS: u32 = 0x2021_fd02;

/// Everything but our own, marked, traffic looks into our table first.
const RULE: RuleSpec = RuleSpec {
    unless_marked: MARK,
    table: TABLE,
    skips_defaults: false,
    priority: 100,
};

/// Where everything leads into the tunnel, what the machine knows a way for otherwise, such as its own networks, comes first.
const RULES_OF_DEFAULTS: [RuleSpec; 2] = [
    RuleSpec {
        unless_marked: MARK,
        table: MAIN_TABLE,
        skips_defaults: true,
        priority: 200,
    },
    RuleSpec {
        unless_marked: MARK,
        table: DEFAULTS,
        skips_defaults: false,
        priority: 300,
    },
];

/// What a TUN device must look like.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
    pub(crate) routes: Vec<IpNet>,
    /// Where programs are to ask for names, and what completes those of one label.
    pub(crate) names: resolver::Wanted,
}

/// A TUN device's place in the kernel.
pub(super) struct Interface {
    name: String,
    limits: QueueLimits,
    netlink: Option<Netlink>,
    reverse_path: ReversePath,
}

impl Interface {
    pub(super) fn new(name: String, limits: QueueLimits) -> Self {
        Self {
            name,
            limits,
            netlink: None,
            reverse_path: ReversePath::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes the kernel's picture equal to `wanted`.
    pub(super) async fn set_up(&mut self, wanted: &Wanted) -> Result<(), Error> {
        let is_first = self.netlink.is_none();
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            slot @ None => slot.insert(Netlink::new()?),
        };
        if is_first {
            netlink.set_mtu(&self.name, MAX_PACKET as u32).await?;
            netlink.set_queue(&self.name, self.limits).await?;
            // What a killed process left behind.
            netlink.flush_table(TABLE).await?;
            netlink.flush_table(DEFAULTS).await?;
        }
        let families = netlink
            .set_addresses(&self.name, Some(wanted.ipv4), Some(wanted.ipv6))
            .await?;
        netlink.set_up(&self.name).await?;
        let (defaults, routes): (Vec<_>, Vec<_>) = wanted
            .routes
            .iter()
            .partition(|network| network.prefix_len() == 0);
        netlink.set_routes(TABLE, &self.name, &routes).await?;
        netlink.set_routes(DEFAULTS, &self.name, &defaults).await?;
        netlink.add_rule(&RULE).await?;
        for rule in &RULES_OF_DEFAULTS {
            match defaults.is_empty() {
                true => netlink.delete_rule(rule).await?,
                false => drop(netlink.add_rule(rule).await?),
            }
        }
        if defaults.is_empty() {
            self.reverse_path.restore();
        } else {
            self.loosen();
        }
        tracing::debug!(?families, routes = wanted.routes.len(), "Interface set up");

        Ok(())
    }

    /// Lets answers to our own datagrams in, although everybody else's would come through the tunnel.
    fn loosen(&mut self) {
        match self.reverse_path.loosen() {
            Ok(true) => tracing::info!(
                "Strict filters of where packets come from (rp_filter) are loose while the Internet is reached through the tunnel"
            ),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "Gateways and portal may not be heard while the Internet is reached through the tunnel");
            }
        }
    }

    /// Takes back what outlives the device. Nothing here can be helped if it fails, so it is only told.
    pub(super) async fn tear_down(&mut self) {
        self.reverse_path.restore();
        let Some(netlink) = &mut self.netlink else {
            return;
        };
        for rule in RULES_OF_DEFAULTS.iter().chain([&RULE]) {
            if let Err(error) = netlink.delete_rule(rule).await {
                tracing::debug!(%error, "A rule stays");
            }
        }
        for table in [DEFAULTS, TABLE] {
            if let Err(error) = netlink.flush_table(table).await {
                tracing::debug!(%error, "The routes stay");
            }
        }
    }
}
