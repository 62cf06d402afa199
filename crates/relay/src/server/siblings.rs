//! Other servers behind the same port (see [`Share`]).
//!
//! A client of one may be the peer of another's. Its data goes through the kernel, but not by our public address, which need
//! not be this machine's: it goes over loopback, which nobody else's data does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use connlib_wire::stun::Family;
use connlib_wire::train::Arrival;

use super::Server;
use crate::ports::Ports;
use crate::share::{Claim, Share};

impl Server {
    /// Lends a part of the ports alone: other servers, on threads of their own, lend the rest. Before anything arrives.
    #[must_use]
    pub fn with_share(mut self, share: Share) -> Self {
        self.ports = Ports::new(self.config.ports.clone(), self.config.listen_port, share);
        self.share = share;
        self
    }

    /// Who shall be forgotten by the other servers.
    pub fn poll_claim(&mut self) -> Option<Claim> {
        self.claims.pop_front()
    }

    /// Forgets an older allocation of a user whom another server has now.
    pub fn yield_to(&mut self, claim: &Claim) {
        let Some(port) = self.allocations.port_of_user(&claim.user) else {
            return;
        };
        let is_older = self
            .allocations
            .at(port)
            .is_some_and(|allocation| allocation.begun_at <= claim.at);
        if is_older {
            tracing::debug!(%port, "A user is on another thread now");
            self.delete_allocation(port);
        }
    }

    /// Where a peer is that has our own address; `None` if no other server lends that port.
    pub(super) fn at_sibling(&self, peer: SocketAddr) -> Option<SocketAddr> {
        let loopback: IpAddr = match Family::of(peer) {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };

        self.is_siblings(peer.port())
            .then(|| SocketAddr::new(loopback, peer.port()))
    }

    /// What comes from another server's port, as its client's peers know it.
    pub(super) fn as_known<'a>(&self, arrival: &Arrival<'a>) -> Arrival<'a> {
        let from = arrival.from;
        let is_siblings = from.ip().is_loopback() && self.is_siblings(from.port());
        let public = self
            .config
            .public_ip(Family::of(from))
            .filter(|_| is_siblings);

        Arrival {
            from: public.map_or(from, |ip| SocketAddr::new(ip, from.port())),
            ..*arrival
        }
    }

    fn is_siblings(&self, port: u16) -> bool {
        !self.share.is_whole() && self.config.ports.contains(&port) && !self.share.has(port)
    }
}
