//! What plain WireGuard decides: which peer a packet is for, and which addresses a peer may send from.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Instant;

use connlib::event_loop;
use connlib_link::{Event, Job, Links, NotSent, Packets, PeerId, Stats, UpsertError};
use connlib_tunnel::PortalState;
use connlib_wire::buffer::Buffer;
use connlib_wire::ip::{IcmpError, Packet, icmp_error};
use connlib_wire::offload::VirtioHeader;
use connlib_wire::stun::Family;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::{Received, Route, Transmit};
use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;
use uuid::Uuid;

use crate::config::Peer;

/// An interface with its peers.
pub(crate) struct Core {
    links: Links,
    /// Both ways: where packets go, and where they may come from. The longest prefix wins.
    allowed: JointPrefixMap<IpNet, PeerId>,
    /// Answers of ours.
    packets: VecDeque<Buffer>,
    revision: u64,
    last_now: Instant,
}

impl Core {
    pub(crate) fn new(now: Instant, links: Links) -> Self {
        Self {
            links,
            allowed: JointPrefixMap::new(),
            packets: VecDeque::new(),
            revision: 0,
            last_now: now,
        }
    }

    pub(crate) fn add(&mut self, now: Instant, peer: Peer) -> Result<(), UpsertError> {
        // The key is all that names a peer, and it is twice as long as an id.
        let (front, _) = peer.link.public_key.0.split_at(16);
        let id = PeerId(Uuid::from_slice(front).unwrap_or_default());
        self.links.add_fixed(now, id, peer.link)?;
        for network in peer.allowed {
            self.allowed.insert(network, id);
        }

        Ok(())
    }

    fn peer_of(&self, ip: IpAddr) -> Option<PeerId> {
        peer_of(&self.allowed, ip)
    }

    fn answer(&mut self, packet: &Packet<&[u8]>, error: IcmpError) {
        if let Some(answer) = icmp_error(self.links.pool(), packet, error) {
            self.packets.push_back(answer.into_inner());
        }
    }

    fn hear_links(&mut self) {
        while let Some(event) = self.links.poll_event() {
            if let Event::PathChanged { .. } = event {
                self.revision += 1;
            }
            tracing::debug!(?event, "Something happened to a peer");
        }
    }
}

impl event_loop::Core for Core {
    type FromPortal = Infallible;
    type ToPortal = Infallible;
    type Event = Infallible;
    type Status = Stats;
    type Lane = PeerId;
    type Job = Job;
    type Packets = Packets;

    fn handle_message(&mut self, _: Instant, message: Infallible) {
        match message {}
    }

    fn handle_portal_state(&mut self, _: Instant, _: PortalState) {}

    fn route(&mut self, now: Instant, packet: &mut SuperPacket<Buffer>) -> Option<PeerId> {
        self.last_now = now;
        let Some(peer) = self.peer_of(packet.packet().destination()) else {
            self.answer(&packet.packet(), IcmpError::Unreachable);
            return None;
        };
        let max_packet = self.links.max_packet(peer);
        if packet.segment_len() > max_packet {
            let mtu = u16::try_from(max_packet).unwrap_or(u16::MAX);
            self.answer(&packet.packet(), IcmpError::TooBig { mtu });
            return None;
        }

        Some(peer)
    }

    fn family(&self, peer: PeerId) -> Option<Family> {
        self.links.family(peer)
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn admit(
        &mut self,
        _: Instant,
        header: VirtioHeader,
        bytes: Buffer,
    ) -> Option<SuperPacket<Buffer>> {
        SuperPacket::parse(header, bytes).ok()
    }

    fn begin_send(&mut self, now: Instant, peer: PeerId, packet: SuperPacket<Buffer>, skip: usize) {
        self.last_now = now;
        match self.links.begin_seal(now, peer, packet, skip) {
            Ok(()) | Err(NotSent::Waiting) => {}
            Err(why) => tracing::trace!(%peer, %why, "Packet not sent"),
        }
    }

    fn begin_receive(&mut self, now: Instant, received: Received) {
        self.last_now = now;
        self.links.begin_open(now, received);
        self.hear_links();
    }

    fn poll_job(&mut self) -> Option<Job> {
        self.links.poll_job()
    }

    fn commit(&mut self, job: Job) {
        self.links.commit(job);
    }

    fn poll_opened(&mut self, now: Instant, packets: &mut Packets) -> bool {
        self.last_now = now;
        if !self.links.poll_opened(now, packets) {
            return false;
        }
        let allowed = &self.allowed;
        // Packets of one flow follow each other.
        let mut latest: Option<((PeerId, IpAddr), bool)> = None;
        packets.retain(|opened| {
            let Ok(mut packet) = Packet::parse(opened.bytes) else {
                return false;
            };
            let sender = (opened.peer, packet.source());
            let is_allowed = match latest {
                Some((judged, is_allowed)) if judged == sender => is_allowed,
                _ => peer_of(allowed, sender.1) == Some(sender.0),
            };
            latest = Some((sender, is_allowed));
            let ecn = packet.ecn();
            let merged = ecn.merged_with_outer(opened.outer_ecn);
            if merged != ecn {
                packet.set_ecn(merged);
            }

            is_allowed
        });
        self.hear_links();

        true
    }

    fn handle_too_large(&mut self, now: Instant, route: &Route, datagram: usize) {
        self.last_now = now;
        self.links.handle_too_large(route.dst, datagram);
        self.revision += 1;
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.last_now = now;
        self.links.handle_timeout(now);
        self.hear_links();
    }

    fn trim(&mut self) {
        self.links.trim();
    }

    fn network_changed(&mut self, now: Instant) {
        self.last_now = now;
        self.links.network_changed(now);
        self.hear_links();
    }

    fn reset(&mut self, now: Instant) {
        self.last_now = now;
        self.links.reset(now);
        self.hear_links();
    }

    fn shut_down(&mut self, now: Instant) {
        self.last_now = now;
        self.links.close_all(now);
        self.hear_links();
    }

    fn poll_control(&mut self) -> Option<Transmit> {
        self.links.poll_control()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.links.poll_transmit()
    }

    fn poll_packet(&mut self) -> Option<Buffer> {
        self.packets.pop_front()
    }

    fn poll_message(&mut self) -> Option<Infallible> {
        None
    }

    fn poll_event(&mut self) -> Option<Infallible> {
        None
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        if !self.packets.is_empty() {
            return Some(self.last_now);
        }

        self.links.poll_timeout().map(|(at, _)| at)
    }

    fn status(&self, _: Instant) -> Stats {
        self.links.stats()
    }
}

fn peer_of(allowed: &JointPrefixMap<IpNet, PeerId>, ip: IpAddr) -> Option<PeerId> {
    allowed.get_lpm(&IpNet::from(ip)).map(|(_, peer)| *peer)
}
