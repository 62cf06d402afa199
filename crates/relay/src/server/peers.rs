//! CHANNEL-BIND and CREATE-PERMISSION (relay.md §10, §11; RFC 8656 §10.2, §12.2).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use connlib_wire::channel::ChannelNumber;
use connlib_wire::stun::Family;

use super::Server;
use super::control::Reply;
use crate::address::{may_permit, may_relay_to};
use crate::answer::{Asker, Refusal};
use crate::auth::User;
use crate::conduct::Conduct;
use crate::config::AllocationPort;
use crate::deadlines::Due;

impl Server {
    pub(super) fn bind_channel(
        &mut self,
        now: Instant,
        asker: Asker,
        user: &User<'_>,
        number: ChannelNumber,
        peer: SocketAddr,
    ) -> Result<Reply, Refusal> {
        let (channels, permissions) = (
            self.limits.channels_per_allocation,
            self.limits.permissions_per_allocation,
        );
        let is_standard = self.conduct.is_standard();
        let may_relay = may_relay_to(peer, &self.config);
        let allocation = self.allocation_of(asker, user)?;
        if !allocation.families.contains(Family::of(peer)) {
            return Err(Refusal::PeerFamilyMismatch);
        }
        if !may_relay {
            return Err(Refusal::Forbidden);
        }
        if is_standard && !allocation.permissions.have_room(&[peer.ip()], permissions) {
            return Err(Refusal::InsufficientCapacity);
        }

        let port = allocation.port;
        let former = allocation.channels.bind(now, number, peer, channels)?;
        let due = allocation
            .channels
            .get(number)
            .map(|channel| channel.due(port, number));
        let carried_data = former.is_some_and(|channel| channel.is_bound());
        if let Some(former) = former {
            let (at, due) = former.due(port, number);
            self.deadlines.remove(at, due);
        }
        if let Some((at, due)) = due {
            self.deadlines.add(at, due);
        }
        if !carried_data {
            self.stats.channels += 1;
            self.stats.channels_made += 1;
            tracing::debug!(client = %asker.client, %port, ?number, %peer, "Bound a channel");
        }
        if is_standard {
            self.permit(now, port, peer.ip());
        }

        Ok(Reply::Done)
    }

    /// All of them or none.
    pub(super) fn create_permissions(
        &mut self,
        now: Instant,
        asker: Asker,
        user: &User<'_>,
        peers: &[SocketAddr],
    ) -> Result<Reply, Refusal> {
        if self.conduct == Conduct::Portal {
            return Ok(Reply::Done); // only channels relay, so there is nothing to permit
        }
        let limit = self.limits.permissions_per_allocation;
        let are_allowed = peers.iter().all(|peer| may_permit(peer.ip(), &self.config));
        let allocation = self.allocation_of(asker, user)?;
        let port = allocation.port;
        let ips: Vec<IpAddr> = peers.iter().map(SocketAddr::ip).collect();

        if peers
            .iter()
            .any(|peer| !allocation.families.contains(Family::of(*peer)))
        {
            return Err(Refusal::PeerFamilyMismatch);
        }
        if !are_allowed {
            return Err(Refusal::Forbidden);
        }
        if !allocation.permissions.have_room(&ips, limit) {
            return Err(Refusal::InsufficientCapacity);
        }
        for ip in ips {
            self.permit(now, port, ip);
        }

        Ok(Reply::Done)
    }

    fn permit(&mut self, now: Instant, port: AllocationPort, peer: IpAddr) {
        let Some(allocation) = self.allocations.at_mut(port) else {
            return;
        };
        let due = Due::Permission(port, peer);
        match allocation.permissions.install(now, peer) {
            Some(former) => self.deadlines.remove(former, due),
            None => {
                self.stats.permissions += 1;
                self.stats.permissions_made += 1;
                tracing::debug!(%port, %peer, "Permitted a peer");
            }
        }
        if let Some(until) = allocation.permissions.until(peer) {
            self.deadlines.add(until, due);
        }
    }
}
