//! Packets on their way through the client, both ways. What is looked up is looked up once per super-packet or run.

use std::time::Instant;

use connlib_link::{Job, NotSent, PeerId};
use connlib_wire::MAX_PACKET;
use connlib_wire::buffer::Buffer;
use connlib_wire::control::{AssignedIps, Control, DomainStatus, NatStatus};
use connlib_wire::dns::Name;
use connlib_wire::id::{GatewayId, ResourceId};
use connlib_wire::ip::{IcmpError, Packet, PortsOrId, Quoted, icmp_error};
use connlib_wire::offload::VirtioHeader;
use connlib_wire::stun::Family;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::{Arrival, Received, Route};

use super::requests::Asked;
use super::setups::{Gate, Key};
use super::{Client, is_one_of};
use crate::drops::DropReason;
use crate::filter::{ResourceEnd, permits, permits_port};
use crate::networks::{Choice, Wanted};
use crate::{Packets, ranges};

/// Where a packet of the TUN device goes.
pub(super) enum Way {
    To(GatewayId),
    /// To a name, which its gateway must know.
    Named(Key),
    /// To us, as a name server.
    NameServer,
    /// To a resource without a grant.
    Ask(ResourceId),
    Refuse(IcmpError, DropReason),
    Nowhere(DropReason),
}

impl Client {
    /// What one read of the TUN device brings as a packet to be [routed](Self::route). `None` for a part of a packet whose others are
    /// missing, and for what is none.
    pub fn admit(
        &mut self,
        now: Instant,
        header: VirtioHeader,
        bytes: Buffer,
    ) -> Option<SuperPacket<Buffer>> {
        self.parts
            .admit(now, header, bytes, &mut self.dropped_from_tun)
    }

    /// Finds the gateway for a packet of the TUN device. `None`: it was dealt with here; it waits for access, was answered, or
    /// goes nowhere.
    pub fn route(&mut self, now: Instant, packet: &mut SuperPacket<Buffer>) -> Option<PeerId> {
        self.last_now = now;
        // What doesn't fit, and may not be cut, is refused below.
        packet.fit_into(MAX_PACKET);
        let way = self.way(&packet.packet(), packet.segment_len());
        let reason = match way {
            Way::To(gateway) => {
                let max_packet = self.links.max_packet(gateway.into());
                if packet.fit_into(max_packet) {
                    packet.clamp_segments(max_packet);
                    return Some(gateway.into());
                }
                self.answer(now, &packet.packet(), too_big(max_packet));
                DropReason::TooBig
            }
            Way::Named(key) => {
                let max_packet = self.links.max_packet(key.gateway.into());
                if !packet.fit_into(max_packet) {
                    self.answer(now, &packet.packet(), too_big(max_packet));
                    DropReason::TooBig
                } else {
                    packet.clamp_segments(max_packet);
                    match self.setups.gate(now, &key, packet, self.links.pool()) {
                        Gate::Pass => return Some(key.gateway.into()),
                        Gate::Held => return None,
                        Gate::Tell => {
                            self.tell_gateway(now, &key);
                            return None;
                        }
                    }
                }
            }
            Way::NameServer => {
                self.take_question(now, packet);
                return None;
            }
            Way::Ask(resource) => {
                match self.requests.hold(now, resource, packet, self.links.pool()) {
                    Asked::Now => {
                        self.ask(resource);
                        self.settle(now);
                        return None;
                    }
                    Asked::Already => return None,
                    Asked::Refused(error) => {
                        self.answer(now, &packet.packet(), error);
                        DropReason::NoAccess
                    }
                }
            }
            Way::Refuse(error, reason) => {
                self.answer(now, &packet.packet(), error);
                reason
            }
            Way::Nowhere(reason) => reason,
        };
        self.dropped_from_tun.add(reason, packet.segments() as u64);

        None
    }

    /// Takes packets for one of our addresses as a name server.
    fn take_question(&mut self, now: Instant, packet: &mut SuperPacket<Buffer>) {
        let mut segments = packet.split();
        while let Some(segment) = segments.next_segment() {
            if let Ok(segment) = Packet::parse(segment) {
                self.name_server.listener.handle_packet(now, &segment);
            }
        }
        self.serve_names(now);
    }

    /// Tells a gateway which addresses stand for a name.
    pub(super) fn tell_gateway(&mut self, now: Instant, key: &Key) {
        let Some(addresses) = self.name_server.names.addresses_of(&key.name) else {
            return;
        };
        let assigned = Control::AssignedIps(AssignedIps {
            resource: key.resource,
            domain: key.name.as_str().to_owned(),
            proxy_ips: addresses.collect(),
        });
        if let Some(packet) = assigned.to_packet(self.links.pool()) {
            tracing::debug!(gateway = %key.gateway, resource = %key.resource, "Telling which addresses stand for a name");
            self.encapsulate(now, key.gateway, packet.bytes());
        }
    }

    /// Takes a gateway's answer to that.
    pub(super) fn handle_status(&mut self, now: Instant, peer: PeerId, status: &DomainStatus) {
        let Ok(name) = Name::parse(&status.domain) else {
            return;
        };
        let key = Key {
            gateway: GatewayId(peer.0),
            resource: status.resource,
            name,
        };
        let held = self.setups.handle_status(&key, status.status);
        self.revision += 1;
        match status.status {
            NatStatus::Active => {
                for packet in held {
                    self.route_again(now, packet);
                }
            }
            NatStatus::Inactive => {
                tracing::debug!(gateway = %key.gateway, resource = %key.resource, "The gateway can't reach a name");
                self.refuse_held(held, IcmpError::Unreachable);
            }
        }
    }

    /// Routes a packet that was sealed for nobody yet once more, unless it is a question of ours that must leave no more.
    pub(super) fn route_again(&mut self, now: Instant, packet: Buffer) {
        let admitted = self.admit(now, VirtioHeader::default(), packet);
        let is_wanted = |packet: &SuperPacket<Buffer>| {
            !(self.name_server.inside).has_given_up(&packet.packet())
        };
        if let Some(mut packet) = admitted.filter(is_wanted)
            && let Some(peer) = self.route(now, &mut packet)
        {
            self.begin_send(now, peer, packet, 0);
        }
    }

    /// Sends a packet that was [routed](Self::route) to `peer`, without its first `skip` segments. It leaves when its job was
    /// run and committed.
    pub fn begin_send(
        &mut self,
        now: Instant,
        peer: PeerId,
        packet: SuperPacket<Buffer>,
        skip: usize,
    ) {
        self.last_now = now;
        let segments = packet.segments() as u64;
        match self.links.begin_seal(now, peer, packet, skip) {
            Ok(()) | Err(NotSent::Waiting) => {}
            Err(why) => {
                tracing::trace!(gateway = %peer, %why, "Packet not sent");
                self.dropped_from_tun
                    .add(DropReason::NotConnected, segments);
            }
        }
    }

    /// Takes a train of datagrams; the packets in it come out of [`poll_opened`](Self::poll_opened).
    pub fn begin_receive(&mut self, now: Instant, received: Received) {
        self.last_now = now;
        self.links.begin_open(now, received);
        self.hear_links();
    }

    /// The next piece of encryption or decryption to run.
    pub fn poll_job(&mut self) -> Option<Job> {
        self.links.poll_job()
    }

    /// Takes back a job that was run, in any order.
    pub fn commit(&mut self, job: Job) {
        self.links.commit(job);
    }

    /// Replaces the contents of `packets` by what the next opened train has for the TUN device; false if there is none.
    pub fn poll_opened(&mut self, now: Instant, packets: &mut Packets) -> bool {
        self.last_now = now;
        if !self.links.poll_opened(now, packets) {
            return false;
        }
        self.judge(now, packets);
        self.hear_links();
        self.serve_names(now);

        true
    }

    /// The network refused a datagram of `len` bytes as too large: what is as large is answered from now on.
    pub fn handle_too_large(&mut self, now: Instant, route: &Route, len: usize) {
        self.last_now = now;
        self.links.handle_too_large(route.dst, len);
        self.revision += 1;
    }

    /// Lets memory go that a load has left behind.
    pub fn trim(&mut self) {
        self.links.trim();
        self.parts.trim(self.last_now);
    }

    /// Takes one packet of the TUN device and seals it here and now, for drivers that have no use for jobs.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        match self.links.pool().copy(packet) {
            Some(copy) => self.route_again(now, copy),
            None => self.dropped_from_tun.add(DropReason::TooBig, 1),
        }
        self.links.run_jobs();
        self.settle(now);
    }

    /// Takes a train of datagrams and opens it here and now, for drivers that have no use for jobs; what is for the TUN
    /// device replaces the contents of `packets`.
    pub fn handle_arrival(&mut self, now: Instant, arrival: &Arrival<'_>, packets: &mut Packets) {
        self.last_now = now;
        self.links.handle_arrival(now, arrival, packets);
        self.judge(now, packets);
        self.settle(now);
    }

    /// Counts what may have changed where packets go: one that was routed at another count is to be routed again.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// By which IP version a peer's datagrams leave, if there is a way to it.
    pub fn family(&self, peer: PeerId) -> Option<Family> {
        self.links.family(peer)
    }

    pub(super) fn encapsulate(&mut self, now: Instant, gateway: GatewayId, packet: &[u8]) {
        match self.links.encapsulate(now, gateway.into(), packet) {
            Ok(()) | Err(NotSent::Waiting) => {}
            Err(why) => tracing::trace!(%gateway, %why, "Packet not sent"),
        }
    }

    pub(super) fn answer(&mut self, now: Instant, packet: &Packet<&[u8]>, error: IcmpError) {
        let Some(answer) = icmp_error(self.links.pool(), packet, error) else {
            return;
        };
        // Our own questions go through the tunnel as well.
        if !self.name_server.inside.handle_packet(now, &answer) {
            self.packets.push_back(answer.into_inner());
        }
    }

    pub(super) fn way(&mut self, packet: &Packet<&[u8]>, segment_len: usize) -> Way {
        let destination = packet.destination();
        // The gateway would not know where to send answers for anyone but us.
        if !is_one_of(packet.source(), self.addresses) {
            return Way::Nowhere(DropReason::ForeignSource);
        }
        if is_one_of(destination, self.addresses) || destination.is_multicast() {
            return Way::Nowhere(DropReason::NotForOthers);
        }
        if self.name_server.sentinels.contains(destination) {
            return Way::NameServer;
        }
        if segment_len > MAX_PACKET {
            return Way::Refuse(too_big(MAX_PACKET), DropReason::TooBig);
        }
        if ranges::is_tunnel(destination) {
            return match self.grants.gateway_at(destination) {
                Some(gateway) => Way::To(gateway),
                None => Way::Nowhere(DropReason::NoResource),
            };
        }
        if ranges::is_sentinel(destination) {
            // It stood for a name server until lately, and stands for nothing now.
            return Way::Nowhere(DropReason::NoResource);
        }
        if packet.is_icmp_error() {
            return self.way_of_error(packet);
        }
        if ranges::is_proxy(destination) {
            return self.way_to_name(packet);
        }
        let wanted = (destination, packet.transport(), packet.destination_port());
        let Some(Choice {
            resource,
            is_permitted,
        }) = self.resources.choose(wanted)
        else {
            return Way::Nowhere(DropReason::NoResource);
        };
        if !is_permitted {
            return Way::Refuse(IcmpError::Prohibited, DropReason::Filtered);
        }
        if self.resources.is_internet(resource) && ranges::is_no_internet(destination) {
            return Way::Refuse(IcmpError::Unreachable, DropReason::NotInternet);
        }

        match self.grants.gateway_of(resource) {
            Some(gateway) => Way::To(gateway),
            None => Way::Ask(resource),
        }
    }

    /// Where an ICMP error goes: the way of the flow that it quotes, if there is one. It is no reason to ask for anything.
    fn way_of_error(&mut self, packet: &Packet<&[u8]>) -> Way {
        let destination = packet.destination();
        let is_about_us = |quoted: &Quoted| {
            quoted.source == destination && is_one_of(quoted.destination, self.addresses)
        };
        let Some(quoted) = packet.quoted().filter(is_about_us) else {
            return Way::Nowhere(DropReason::StrayError);
        };
        let port = match quoted.ports_or_id {
            PortsOrId::Ports { source, .. } => Some(source),
            PortsOrId::EchoId(_) | PortsOrId::Neither => None,
        };
        let resource = self.resource_at((destination, quoted.transport, port));
        let gateway = resource.and_then(|resource| self.grants.gateway_of(resource));

        gateway.map_or(Way::Nowhere(DropReason::StrayError), Way::To)
    }

    /// The resource whose filters let something pass between us and an address.
    pub(super) fn resource_at(&mut self, wanted: Wanted) -> Option<ResourceId> {
        let (ip, transport, port) = wanted;
        if let Some(name) = self.name_server.names.name_at(ip) {
            let candidates = self.resources.named(name);
            let lets_pass =
                |id: &&ResourceId| permits_port(self.resources.filters(**id), transport, port);
            return candidates.iter().find(lets_pass).copied();
        }
        let choice = self.resources.choose(wanted);

        choice
            .filter(|choice| choice.is_permitted)
            .map(|choice| choice.resource)
    }

    /// Where a packet goes whose destination stands for a name: of the resources that the name belongs to, to the first that lets
    /// it pass (client.md §5.3).
    fn way_to_name(&mut self, packet: &Packet<&[u8]>) -> Way {
        let names = &self.name_server.names;
        let Some(name) = names.name_at(packet.destination()) else {
            return Way::Refuse(IcmpError::Unreachable, DropReason::NoResource);
        };
        let candidates = self.resources.named(name);
        if candidates.is_empty() {
            return Way::Refuse(IcmpError::Unreachable, DropReason::NoResource);
        }
        let lets_pass = |id: &&ResourceId| {
            permits(
                self.resources.filters(**id),
                packet,
                ResourceEnd::Destination,
            )
        };
        let Some(resource) = candidates.iter().find(lets_pass).copied() else {
            return Way::Refuse(IcmpError::Prohibited, DropReason::Filtered);
        };

        match self.grants.gateway_of(resource) {
            Some(gateway) => Way::Named(Key {
                gateway,
                resource,
                name: name.clone(),
            }),
            None => Way::Ask(resource),
        }
    }
}

/// The answer to a packet larger than `max_packet`.
fn too_big(max_packet: usize) -> IcmpError {
    IcmpError::TooBig {
        mtu: u16::try_from(max_packet).unwrap_or(u16::MAX),
    }
}
