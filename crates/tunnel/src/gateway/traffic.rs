//! Packets on their way through the gateway, both ways. What is looked up is looked up once per super-packet or run.

use std::net::IpAddr;
use std::time::Instant;

use connlib_link::{Job, NotSent, PeerId};
use connlib_wire::buffer::Buffer;
use connlib_wire::control::Control;
use connlib_wire::id::ClientId;
use connlib_wire::ip::{IcmpError, Packet, PortsOrId, Quoted, Transport, icmp_error};
use connlib_wire::offload::VirtioHeader;
use connlib_wire::stun::Family;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::{Arrival, Received, Route};

use super::Gateway;
use super::nat::{Incoming, Inside, Kind, Nat, Outside, TcpEnd, source_of};
use super::peers::{Peers, Verdict};
use crate::Packets;
use crate::drops::DropReason;

/// All that a verdict depends on, while time stands still.
type Flow = (PeerId, IpAddr, IpAddr, Transport, Option<u16>, Option<u16>);

impl Gateway {
    /// Finds the client for a packet of the TUN device. `None`: it was dealt with here; nobody may have it, or it was answered.
    pub fn route(&mut self, now: Instant, packet: &mut SuperPacket<Buffer>) -> Option<PeerId> {
        self.last_now = now;
        let view = packet.packet();
        let reason = match self.peers.judge_inbound(now, &view, self.addresses) {
            Ok(client) => {
                let max_packet = self.links.max_packet(client.into());
                if packet.segment_len() <= max_packet {
                    return Some(client.into());
                }
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
    }

    /// Takes one packet of the TUN device and seals it here and now, for drivers that have no use for jobs.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let copy = self.links.pool().copy(packet);
        let parsed = copy.and_then(|copy| SuperPacket::parse(VirtioHeader::default(), copy).ok());
        match parsed {
            Some(mut packet) => {
                if let Some(peer) = self.route(now, &mut packet) {
                    self.begin_send(now, peer, packet, 0);
                }
            }
            None => self.count_malformed(),
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

    /// Counts a packet of the TUN device that is none.
    pub fn count_malformed(&mut self) {
        self.dropped_from_tun.add(DropReason::Malformed, 1);
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

    /// Keeps of a train's packets those that their senders may send, and answers others.
    fn judge(&mut self, now: Instant, packets: &mut Packets) {
        let (mut goodbyes, mut assigned) = (Vec::new(), Vec::new());
        let mut refused = Vec::new();
        let (peers, names, own) = (&mut self.peers, &mut self.names, self.addresses);
        let pool = self.links.pool();
        // Packets of one flow follow each other. ICMP is judged one by one: some of it is never passed.
        let mut latest: Option<(Flow, Verdict)> = None;
        packets.retain(|opened| {
            let Ok(mut packet) = Packet::parse(opened.bytes) else {
                return false;
            };
            let client = ClientId(opened.peer.0);
            match Control::parse(&packet) {
                Some(Ok(Control::Goodbye)) => goodbyes.push(opened.peer),
                Some(Ok(Control::AssignedIps(event))) => assigned.push((opened.peer, event)),
                // Not for a gateway, or of a kind that this version doesn't know.
                Some(Ok(_) | Err(_)) => {}
                None => {
                    let flow = (
                        opened.peer,
                        packet.source(),
                        packet.destination(),
                        packet.transport(),
                        packet.source_port(),
                        packet.destination_port(),
                    );
                    let verdict = match latest {
                        Some((judged, verdict))
                            if judged == flow && packet.transport() != Transport::Icmp =>
                        {
                            verdict
                        }
                        _ => peers.judge_outbound(now, client, &packet, own),
                    };
                    latest = Some((flow, verdict));
                    match verdict {
                        Verdict::Pass | Verdict::Translate(_) | Verdict::TranslateError(_) => {
                            let ecn = packet.ecn();
                            let merged = ecn.merged_with_outer(opened.outer_ecn);
                            if merged != ecn {
                                packet.set_ecn(merged);
                            }
                            translate(now, peers, client, &mut packet, verdict);
                            return true;
                        }
                        Verdict::NameServer => names.handle_packet(now, &packet),
                        Verdict::Refuse(error, reason) => {
                            let answer = icmp_error(pool, &packet, error);
                            refused.push((opened.peer, reason, answer));
                        }
                        Verdict::Drop(reason) => refused.push((opened.peer, reason, None)),
                    }
                }
            }
            false
        });
        for (peer, reason, answer) in refused {
            self.dropped_from_peers.add(reason, 1);
            if let Some(answer) = answer {
                self.send(now, peer, answer.bytes());
            }
        }
        for (peer, event) in assigned {
            self.handle_assigned(now, peer, event);
        }
        for peer in goodbyes {
            tracing::debug!(client = %peer, "The client said goodbye");
            self.links.remove(peer);
            self.peers.remove(ClientId(peer.0));
            self.candidates.forget(peer);
            self.revision += 1;
        }
        self.serve_names(now);
    }

    /// Sends a packet that was made here.
    pub(super) fn send(&mut self, now: Instant, peer: PeerId, packet: &[u8]) {
        match self.links.encapsulate(now, peer, packet) {
            Ok(()) | Err(NotSent::Waiting) => {}
            Err(why) => tracing::trace!(client = %peer, %why, "Packet not sent"),
        }
    }
}

/// Makes of a client's packet what the network is to see.
fn translate(
    now: Instant,
    peers: &mut Peers,
    client: ClientId,
    packet: &mut Packet<&mut [u8]>,
    verdict: Verdict,
) {
    match verdict {
        Verdict::Translate(outside) => {
            let nat = peers.nat(client);
            if nat.is_some_and(|nat| translate_outbound(now, nat, packet, outside)) {
                peers.reschedule(client);
            }
        }
        Verdict::TranslateError(quoted) => {
            packet.rewrite_quoted(&quoted);
            packet.set_destination(quoted.source);
        }
        Verdict::Pass | Verdict::NameServer | Verdict::Refuse(..) | Verdict::Drop(_) => {}
    }
}

/// Gives a client's packet the address and the port that it has in the network. Returns whether it says that its flow ends.
fn translate_outbound(
    now: Instant,
    nat: &mut Nat,
    packet: &mut Packet<&mut [u8]>,
    to: Outside,
) -> bool {
    let end = TcpEnd::of(packet);
    if let Some(end) = end
        && let Some((kind, port)) = source_of(packet)
    {
        let proxy = packet.destination();
        nat.note_end(now, &Inside { kind, port, proxy }, end, true);
    }
    packet.set_destination(to.real);
    match to.kind {
        Kind::Tcp | Kind::Udp => packet.set_source_port(to.port),
        Kind::Echo => packet.set_echo_id(to.port),
    }

    end.is_some()
}

/// The answer to a packet larger than `max_packet`.
fn too_big(max_packet: usize) -> IcmpError {
    IcmpError::TooBig {
        mtu: u16::try_from(max_packet).unwrap_or(u16::MAX),
    }
}
