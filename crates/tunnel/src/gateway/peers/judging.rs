//! What becomes of packets from and to clients (gateway.md §6, §7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_wire::id::{ClientId, ResourceId};
use connlib_wire::ip::{IcmpError, Packet, PortsOrId, Quoted};

use super::super::names::Names;
use super::super::nat::{Incoming, Inside, Outside, Untranslated, is_passed_on};
use super::{Peer, Peers};
use crate::drops::DropReason;
use crate::filter::{ResourceEnd, permits};
use crate::networks::Wanted;
use crate::ranges;

/// What becomes of a client's packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::gateway) enum Verdict {
    Pass,
    /// It is for a name, and goes to one of its addresses; or for an address that a name has too.
    Translate(Outside),
    /// It is an error about a packet that came from the network, as which it is to be quoted.
    TranslateError(Quoted),
    /// It is a question for us.
    NameServer,
    /// It may not go there, or can't: the client is told, so that it can ask again, or give up.
    Refuse(IcmpError, DropReason),
    /// Not worth an answer.
    Drop(DropReason),
}

impl Verdict {
    fn of(found: Result<Outside, Untranslated>) -> Self {
        match found {
            Ok(outside) => Self::Translate(outside),
            Err(Untranslated::NoAddress) => {
                Self::Refuse(IcmpError::Unreachable, DropReason::NoFlow)
            }
            Err(Untranslated::Exhausted) => {
                Self::Refuse(IcmpError::Unreachable, DropReason::NoPort)
            }
            Err(Untranslated::Unknown) => {
                Self::Refuse(IcmpError::Prohibited, DropReason::NoResource)
            }
            Err(Untranslated::Protocol) => Self::Drop(DropReason::NoFlow),
        }
    }
}

impl Peers {
    /// Judges a packet that a client sent (gateway.md §6).
    pub(in crate::gateway) fn judge_outbound<T: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        id: ClientId,
        packet: &Packet<T>,
        own: Option<(Ipv4Addr, Ipv6Addr)>,
    ) -> Verdict {
        self.expire(now);
        let (source, destination) = (packet.source(), packet.destination());
        if destination.is_multicast() {
            return Verdict::Drop(DropReason::NotForOthers);
        }
        let Some(peer) = self.by_id.get_mut(&id).filter(|peer| peer.is_at(source)) else {
            return match packet.is_icmp_error() {
                true => Verdict::Drop(DropReason::ForeignSource),
                false => Verdict::Refuse(IcmpError::Prohibited, DropReason::ForeignSource),
            };
        };
        if packet.is_icmp_error() {
            return peer.judge_error(packet);
        }
        if is_own(destination, own) {
            return match Names::wants(packet) {
                true => Verdict::NameServer,
                false => Verdict::Pass,
            };
        }
        if ranges::is_tunnel(destination) {
            return Verdict::Refuse(IcmpError::Prohibited, DropReason::NotForOthers);
        }
        if ranges::is_proxy(destination) {
            let verdict = peer.judge_named(now, packet);
            self.reschedule(id);
            return verdict;
        }

        let wanted = (destination, packet.transport(), packet.destination_port());
        if let Err((error, reason)) = peer.reach(wanted) {
            return Verdict::Refuse(error, reason);
        }
        let Some(found) = peer.nat.outgoing_direct(now, packet) else {
            return Verdict::Pass;
        };
        self.reschedule(id);

        Verdict::of(found)
    }

    /// The client that a packet from the network is for, if it may have it (gateway.md §7).
    pub(in crate::gateway) fn judge_inbound(
        &mut self,
        now: Instant,
        packet: &Packet<&[u8]>,
        own: Option<(Ipv4Addr, Ipv6Addr)>,
    ) -> Result<ClientId, DropReason> {
        self.expire(now);
        let id = self.by_address.get(&packet.destination());
        let id = *id.ok_or(DropReason::NoClient)?;
        let peer = self.by_id.get_mut(&id).ok_or(DropReason::NoClient)?;
        let source = packet.source();
        if is_own(source, own) {
            return Ok(id);
        }
        // Another client's packet would slip past the rules between clients.
        if ranges::is_tunnel(source) || ranges::is_proxy(source) {
            return Err(DropReason::ForeignSource);
        }
        if packet.is_icmp_error() && !is_passed_on(packet) {
            return Err(DropReason::StrayError);
        }
        match peer.nat.incoming(now, packet) {
            Incoming::Of(inside) => {
                return match peer.may_have(&inside, packet) {
                    true => Ok(id),
                    false => Err(DropReason::NoAccess),
                };
            }
            // The client no longer knows it by the address that it comes from.
            Incoming::Ended => return Err(DropReason::NoFlow),
            Incoming::Foreign => {}
        }
        // Errors about a flow come from anywhere on its way.
        if packet.is_icmp_error() {
            return Ok(id);
        }

        let wanted = (source, packet.transport(), packet.source_port());

        peer.reach(wanted)
            .map(|()| id)
            .map_err(|(_, reason)| reason)
    }
}

impl Peer {
    /// Whether any grant lets an address that stands for no name be used so; else what the client is told.
    pub(super) fn reach(&mut self, wanted: Wanted) -> Result<(), (IcmpError, DropReason)> {
        let choice = self.networks.choose(wanted);
        let (ip, ..) = wanted;
        match choice {
            Some(choice) if choice.is_permitted => Ok(()),
            Some(_) | None if self.has_internet && !ranges::is_no_internet(ip) => Ok(()),
            // To ask for access again would bring nothing.
            None if self.has_internet => Err((IcmpError::Unreachable, DropReason::NotInternet)),
            Some(_) => Err((IcmpError::Prohibited, DropReason::Filtered)),
            None => Err((IcmpError::Prohibited, DropReason::NoResource)),
        }
    }

    /// Whether any grant lets a packet of a flow pass to the client. What is about a flow may come back whatever it is.
    fn may_have(&mut self, flow: &Inside, packet: &Packet<&[u8]>) -> bool {
        let is_error = packet.is_icmp_error();
        if flow.is_direct() {
            let wanted = (flow.proxy, packet.transport(), packet.source_port());
            return is_error || self.reach(wanted).is_ok();
        }
        let Some(translation) = self.nat.translation(flow.proxy) else {
            return false;
        };

        translation.resources.iter().any(|id| {
            self.grants.get(id).is_some_and(|grant| {
                is_error || permits(grant.filters(), packet, ResourceEnd::Source)
            })
        })
    }

    /// Judges an ICMP error, which is about a packet that came to the client, or about nothing. It is never answered.
    fn judge_error<T: AsRef<[u8]>>(&mut self, packet: &Packet<T>) -> Verdict {
        let stray = Verdict::Drop(DropReason::StrayError);
        let Some(quoted) = packet.quoted().filter(|_| is_passed_on(packet)) else {
            return stray;
        };
        if !self.is_at(quoted.destination) || quoted.source != packet.destination() {
            return stray;
        }
        let port = match quoted.ports_or_id {
            PortsOrId::Ports { source, .. } => Some(source),
            PortsOrId::EchoId(_) | PortsOrId::Neither => None,
        };
        let is_named = ranges::is_proxy(quoted.source);
        let may_answer = match is_named {
            // Whatever its filters say: it is about a flow.
            true => self.may_use(quoted.source),
            false if ranges::is_tunnel(quoted.source) => false,
            false => {
                let wanted = (quoted.source, quoted.transport, port);
                self.reach(wanted).is_ok()
            }
        };
        if !may_answer {
            return stray;
        }

        match self.nat.quoted_by_client(&quoted) {
            Some(quoted) => Verdict::TranslateError(quoted),
            None if is_named => stray,
            None => Verdict::Pass,
        }
    }

    /// Whether any grant is for an address that stands for a name.
    fn may_use(&self, proxy: IpAddr) -> bool {
        let translation = self.nat.translation(proxy);
        let mut resources = translation.iter().flat_map(|it| &it.resources);

        resources.any(|id| self.grants.contains_key(id))
    }

    /// Judges a packet to an address that stands for a name.
    fn judge_named<T: AsRef<[u8]>>(&mut self, now: Instant, packet: &Packet<T>) -> Verdict {
        let Some(translation) = self.nat.translation(packet.destination()) else {
            return Verdict::Refuse(IcmpError::Prohibited, DropReason::NoResource);
        };
        let lets_pass = |id: &ResourceId| {
            self.grants.get(id).is_some_and(|grant| {
                grant.is_in_force(now) && permits(grant.filters(), packet, ResourceEnd::Destination)
            })
        };
        if !translation.resources.iter().any(lets_pass) {
            return Verdict::Refuse(IcmpError::Prohibited, DropReason::Filtered);
        }

        Verdict::of(self.nat.outgoing(now, packet))
    }
}

pub(super) fn is_own(ip: IpAddr, own: Option<(Ipv4Addr, Ipv6Addr)>) -> bool {
    own.is_some_and(|(v4, v6)| ip == v4 || ip == v6)
}
