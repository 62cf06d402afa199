//! What comes out of the tunnel at the client: who may send us what, and what is not for the TUN device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_link::{Links, PeerId};
use connlib_wire::buffer::Buffer;
use connlib_wire::control::{Control, DomainStatus};
use connlib_wire::ecn::Ecn;
use connlib_wire::id::GatewayId;
use connlib_wire::ip::{ERROR_HOP_LIMIT, Packet, TcpFlags, Version};

use super::grants::Grants;
use super::name_server::NameServer;
use super::resources::Resources;
use super::{Client, is_one_of};
use crate::Packets;
use crate::drops::{DropReason, Drops};
use crate::reassembly::cut_into;

impl Client {
    /// Keeps of a train's packets those that may reach the TUN device.
    pub(super) fn judge(&mut self, now: Instant, packets: &mut Packets) {
        let mut judge = Judge {
            now,
            links: &self.links,
            grants: &self.grants,
            resources: &mut self.resources,
            name_server: &mut self.name_server,
            own: self.addresses,
            latest: None,
            goodbyes: Vec::new(),
            statuses: Vec::new(),
            prohibited: Vec::new(),
            dropped: &mut self.dropped_from_peers,
        };
        let parts = &mut self.parts;
        let mut wholes = Vec::new();
        packets.retain(|opened| match Packet::parse(&mut *opened.bytes) {
            Ok(packet) => judge.keeps(opened.peer, opened.outer_ecn, packet),
            Err(_) => {
                wholes.extend(parts.take_opened(now, &opened, judge.dropped));
                false
            }
        });
        for (peer, mut whole) in wholes {
            let packet = Packet::parse_any_size(&mut *whole);
            if packet.is_ok_and(|packet| judge.keeps(peer, Ecn::NotEct, packet)) {
                cut_into(&mut self.packets, self.links.pool(), whole);
            }
        }
        let Judge {
            goodbyes,
            statuses,
            prohibited,
            ..
        } = judge;
        for (peer, error) in prohibited {
            let is_renewed = Packet::parse(&*error)
                .is_ok_and(|error| self.renew_access(now, GatewayId(peer.0), &error));
            if !is_renewed {
                self.packets.push_back(error);
            }
        }
        for (peer, status) in statuses {
            self.handle_status(now, peer, &status);
        }
        for peer in goodbyes {
            tracing::debug!(%peer, "The gateway said goodbye");
            self.links.remove(peer);
            self.forget_gateway(peer);
            self.revision += 1;
        }
    }
}

/// All that decides about one train.
struct Judge<'a> {
    now: Instant,
    links: &'a Links,
    grants: &'a Grants,
    resources: &'a mut Resources,
    name_server: &'a mut NameServer,
    own: Option<(Ipv4Addr, Ipv6Addr)>,
    /// Packets of one flow follow each other.
    latest: Option<((PeerId, IpAddr, IpAddr), bool)>,
    goodbyes: Vec<PeerId>,
    statuses: Vec<(PeerId, DomainStatus)>,
    prohibited: Vec<(PeerId, Buffer)>,
    dropped: &'a mut Drops,
}

impl Judge<'_> {
    /// Whether a packet of `peer` may reach the TUN device; its mark is merged with the outer one.
    fn keeps(&mut self, peer: PeerId, outer_ecn: Ecn, mut packet: Packet<&mut [u8]>) -> bool {
        match Control::parse(&packet) {
            Some(Ok(Control::Goodbye)) => self.goodbyes.push(peer),
            Some(Ok(Control::DomainStatus(status))) => self.statuses.push((peer, status)),
            // Not for a client, or of a kind that this version doesn't know.
            Some(Ok(_) | Err(_)) => {}
            None => return self.keeps_data(peer, outer_ecn, &mut packet),
        }

        false
    }

    fn keeps_data(&mut self, peer: PeerId, outer_ecn: Ecn, packet: &mut Packet<&mut [u8]>) -> bool {
        let ends = (peer, packet.source(), packet.destination());
        let is_allowed = match self.latest {
            Some((judged, is_allowed)) if judged == ends => is_allowed,
            _ => {
                let (peer, source, destination) = ends;
                let name = self.name_server.names.name_at(source);
                is_one_of(destination, self.own)
                    && (self.grants).allows_from(peer, (source, name), self.resources)
            }
        };
        self.latest = Some((ends, is_allowed));
        if !is_allowed {
            self.dropped.add(DropReason::ForeignSource, 1);
            return false;
        }
        // An answer to a question of our own.
        if self.name_server.inside.handle_packet(self.now, packet) {
            return false;
        }
        let ecn = packet.ecn();
        let merged = ecn.merged_with_outer(outer_ecn);
        if merged != ecn {
            packet.set_ecn(merged);
        }
        if is_prohibition(packet) {
            let copy = self.links.pool().copy(packet.bytes());
            self.prohibited.extend(copy.map(|copy| (peer, copy)));
            return false;
        }
        if packet.tcp_flags().is_some_and(TcpFlags::is_syn) {
            packet.clamp_segments(self.links.max_packet(peer));
        }

        true
    }
}

/// Whether a packet says that something is administratively prohibited, and a gateway says so itself: there is no access
/// (gateway.md §4). What a host or a router behind it prohibits is for the program to know.
fn is_prohibition<T: AsRef<[u8]>>(packet: &Packet<T>) -> bool {
    let sign = match packet.version() {
        Version::V4 => (3, 13),
        Version::V6 => (1, 1),
    };

    packet.icmp_type() == Some(sign) && packet.hop_limit() == ERROR_HOP_LIMIT
}

#[cfg(test)]
mod tests {
    use connlib_wire::buffer::Pool;
    use connlib_wire::ip::{IcmpError, icmp_error, udp};

    use super::*;

    #[test]
    fn only_a_gateway_itself_says_that_there_is_no_access() {
        let pool = Pool::new(2_048, 2);
        for (from, to) in [
            ("100.64.0.1:1", "10.20.0.10:2"),
            ("[fd00:2021:1111::1]:1", "[fd00:20::10]:2"),
        ] {
            let sent = udp(&pool, from.parse().unwrap(), to.parse().unwrap(), b"x").unwrap();
            let error = |error| icmp_error(&pool, &sent, error).unwrap().into_inner();
            let prohibited = error(IcmpError::Prohibited);
            assert!(is_prohibition(&Packet::parse(&*prohibited).unwrap()));
            let unreachable = error(IcmpError::Unreachable);
            assert!(!is_prohibition(&Packet::parse(&*unreachable).unwrap()));

            let mut of_a_host = prohibited.to_vec();
            of_a_host[if sent.version() == Version::V4 { 8 } else { 7 }] = 63;
            let of_a_host = Packet::parse(of_a_host).unwrap();
            assert!(of_a_host.is_icmp_error() && !is_prohibition(&of_a_host));
        }
    }
}
