//! Packets on their way through the gateway, both ways. What is looked up is looked up once per super-packet or run.

use std::time::Instant;

use connlib_link::{Job, NotSent, PeerId};
use connlib_wire::buffer::Buffer;
use connlib_wire::id::ClientId;
use connlib_wire::ip::{IcmpError, PortsOrId, Quoted, icmp_error};
use connlib_wire::offload::VirtioHeader;
use connlib_wire::stun::Family;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::{Arrival, Received, Route};

use super::Gateway;
use super::nat::{Incoming, Kind, TcpEnd};
use crate::Packets;
use crate::drops::DropReason;

impl Gateway {
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

    /// Finds the client for a packet of the TUN device. `None`: it was dealt with here; nobody may have it, or it was answered.
    pub fn route(&mut self, now: Instant, packet: &mut SuperPacket<Buffer>) -> Option<PeerId> {
        self.last_now = now;
        let judged = (self.peers).judge_inbound(now, &packet.packet(), self.addresses);
        let reason = match judged {
            Ok(client) => {
                let max_packet = self.links.max_packet(client.into());
                if packet.fit_into(max_packet) {
                    packet.clamp_segments(max_packet);
                    return Some(client.into());
                }
                let view = packet.packet();
                if let Some(answer) = icmp_error(self.links.pool(), &view, too_big(max_packet)) {
                    self.packets.push_back(answer.into_inner());
                }
                DropReason::TooBig
            }
            Err(reason) => reason,
        };
        self.dropped_from_tun.add(reason, packet.segments() as u64);

        None
    }

    /// Sends a packet that was [routed](Self::route) to `peer`, without its first `skip` segments. It leaves when its job was
    /// run and committed.
    pub fn begin_send(
        &mut self,
        now: Instant,
        peer: PeerId,
        mut packet: SuperPacket<Buffer>,
        skip: usize,
    ) {
        self.last_now = now;
        let segments = packet.segments() as u64;
        if !self.translate_inbound(now, ClientId(peer.0), &mut packet) {
            self.dropped_from_tun.add(DropReason::NoFlow, segments);
            return;
        }
        match self.links.begin_seal(now, peer, packet, skip) {
            Ok(()) | Err(NotSent::Waiting) => {}
            Err(why) => {
                tracing::trace!(client = %peer, %why, "Packet not sent");
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
        let admitted = match self.links.pool().copy(packet) {
            Some(copy) => self.admit(now, VirtioHeader::default(), copy),
            None => {
                self.dropped_from_tun.add(DropReason::TooBig, 1);
                None
            }
        };
        if let Some(mut packet) = admitted
            && let Some(peer) = self.route(now, &mut packet)
        {
            self.begin_send(now, peer, packet, 0);
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

    /// Gives a packet of a translated flow the address and the port that its client knows. False if the flow has ended meanwhile.
    fn translate_inbound(
        &mut self,
        now: Instant,
        client: ClientId,
        packet: &mut SuperPacket<Buffer>,
    ) -> bool {
        let Some(nat) = self.peers.nat(client) else {
            return true;
        };
        let view = packet.packet();
        let inside = match nat.incoming(now, &view) {
            Incoming::Foreign => return true,
            Incoming::Ended => return false,
            Incoming::Of(inside) => inside,
        };
        nat.answered(now, &inside);
        if let Some(quoted) = view.quoted() {
            let ports_or_id = match quoted.ports_or_id {
                PortsOrId::Ports { destination, .. } => PortsOrId::Ports {
                    source: inside.port,
                    destination,
                },
                PortsOrId::EchoId(_) | PortsOrId::Neither => PortsOrId::EchoId(inside.port),
            };
            packet.rewrite_quoted(&Quoted {
                destination: inside.proxy,
                ports_or_id,
                ..quoted
            });
            // From wherever on the way it comes: the client has asked that address.
            if !inside.is_direct() {
                packet.set_source(inside.proxy);
            }
            return true;
        }
        let end = TcpEnd::of(&view);
        if let Some(end) = end {
            nat.note_end(now, &inside, end, false);
        }
        packet.set_source(inside.proxy);
        match inside.kind {
            Kind::Tcp | Kind::Udp => packet.set_destination_port(inside.port),
            Kind::Echo => packet.set_echo_id(inside.port),
        }
        if end.is_some() {
            self.peers.reschedule(client);
        }

        true
    }

    /// Sends a packet that was made here.
    pub(super) fn send(&mut self, now: Instant, peer: PeerId, packet: &[u8]) {
        match self.links.encapsulate(now, peer, packet) {
            Ok(()) | Err(NotSent::Waiting) => {}
            Err(why) => tracing::trace!(client = %peer, %why, "Packet not sent"),
        }
    }
}

/// The answer to a packet larger than `max_packet`.
fn too_big(max_packet: usize) -> IcmpError {
    IcmpError::TooBig {
        mtu: u16::try_from(max_packet).unwrap_or(u16::MAX),
    }
}
