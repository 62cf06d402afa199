//! The TUN device in the kernel: its addresses, what leads into it, and what does not (client.md §12.1–12.2).

use connlib_os::netlink::{Netlink, QueueLimits, RuleSpec};
use connlib_wire::MAX_PACKET;

use super::MARK;
use super::roles::Wanted;
use crate::error::Error;

/// The table that routes into the tunnel stand in.
const TABLE: u32 = 0x2021_fd00;

/// Everything but our own, marked, traffic looks into that table first.
const RULE: RuleSpec = RuleSpec {
    unless_marked: MARK,
    table: TABLE,
    priority: 100,
};

/// A TUN device's place in the kernel.
pub(super) struct Interface {
    name: String,
    limits: QueueLimits,
    netlink: Option<Netlink>,
}

impl Interface {
    pub(super) fn new(name: String, limits: QueueLimits) -> Self {
        Self {
            name,
            limits,
            netlink: None,
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
        }
        let families = netlink
            .set_addresses(&self.name, Some(wanted.ipv4), Some(wanted.ipv6))
            .await?;
        netlink.set_up(&self.name).await?;
        netlink
            .set_routes(TABLE, &self.name, &wanted.routes)
            .await?;
        netlink.add_rule(&RULE).await?;
        tracing::debug!(?families, routes = wanted.routes.len(), "Interface set up");

        Ok(())
    }

    /// Takes back what outlives the device. Nothing here can be helped if it fails, so it is only told.
    pub(super) async fn tear_down(&mut self) {
        let Some(netlink) = &mut self.netlink else {
            return;
        };
        if let Err(error) = netlink.delete_rule(&RULE).await {
            tracing::debug!(%error, "The rule stays");
        }
        if let Err(error) = netlink.flush_table(TABLE).await {
            tracing::debug!(%error, "The routes stay");
        }
    }
}
