//! What comes out of the tunnel at a gateway: which client may send what to whom, and as what the network sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_link::{Links, PeerId};
use connlib_wire::buffer::Buffer;
use connlib_wire::control::{AssignedIps, Control};
use connlib_wire::ecn::Ecn;
use connlib_wire::id::ClientId;
use connlib_wire::ip::{Packet, TcpFlags, Transport, icmp_error};

use super::Gateway;
use super::names::Names;
use super::nat::{Inside, Kind, Nat, Outside, TcpEnd, source_of};
use super::peers::{Peers, Verdict};
use crate::Packets;
use crate::drops::DropReason;
use crate::reassembly::cut_into;

/// All that a verdict depends on, while time stands still.
type Flow = (PeerId, IpAddr, IpAddr, Transport, Option<u16>, Option<u16>);

impl Gateway {
    /// Keeps of a train's packets those that their senders may send, and answers others.
    pub(super) fn judge(&mut self, now: Instant, packets: &mut Packets) {
        let mut judge = Judge {
            now,
            links: &self.links,
            peers: &mut self.peers,
            names: &mut self.names,
            own: self.addresses,
            latest: None,
            goodbyes: Vec::new(),
            assigned: Vec::new(),
            refused: Vec::new(),
        };
        let (parts, dropped) = (&mut self.parts, &mut self.dropped_from_peers);
        let mut wholes = Vec::new();
        packets.retain(|opened| match Packet::parse(&mut *opened.bytes) {
            Ok(packet) => judge.keeps(opened.peer, opened.outer_ecn, packet),
            Err(_) => {
                wholes.extend(parts.take_opened(now, &opened, dropped));
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
            assigned,
            refused,
            ..
        } = judge;
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
}

/// All that decides about one train.
struct Judge<'a> {
    now: Instant,
    links: &'a Links,
    peers: &'a mut Peers,
    names: &'a mut Names,
    own: Option<(Ipv4Addr, Ipv6Addr)>,
    /// Packets of one flow follow each other. ICMP is judged one by one: some of it is never passed.
    latest: Option<(Flow, Verdict)>,
    goodbyes: Vec<PeerId>,
    assigned: Vec<(PeerId, AssignedIps)>,
    refused: Vec<(PeerId, DropReason, Option<Packet<Buffer>>)>,
}

impl Judge<'_> {
    /// Whether a packet of `peer` may leave by the TUN device; if so, it is what the network is to see.
    fn keeps(&mut self, peer: PeerId, outer_ecn: Ecn, mut packet: Packet<&mut [u8]>) -> bool {
        match Control::parse(&packet) {
            Some(Ok(Control::Goodbye)) => self.goodbyes.push(peer),
            Some(Ok(Control::AssignedIps(event))) => self.assigned.push((peer, event)),
            // Not for a gateway, or of a kind that this version doesn't know.
            Some(Ok(_) | Err(_)) => {}
            None => return self.keeps_data(peer, outer_ecn, &mut packet),
        }

        false
    }

    fn keeps_data(&mut self, peer: PeerId, outer_ecn: Ecn, packet: &mut Packet<&mut [u8]>) -> bool {
        let client = ClientId(peer.0);
        let verdict = self.verdict(peer, packet);
        match verdict {
            Verdict::Pass | Verdict::Translate(_) | Verdict::TranslateError(_) => {
                let ecn = packet.ecn();
                let merged = ecn.merged_with_outer(outer_ecn);
                if merged != ecn {
                    packet.set_ecn(merged);
                }
                if packet.tcp_flags().is_some_and(TcpFlags::is_syn) {
                    packet.clamp_segments(self.links.max_packet(peer));
                }
                translate(self.now, self.peers, client, packet, verdict);
                return true;
            }
            Verdict::NameServer => self.names.handle_packet(self.now, packet),
            Verdict::Refuse(error, reason) => {
                let answer = icmp_error(self.links.pool(), packet, error);
                self.refuse(peer, reason, answer);
            }
            Verdict::Drop(reason) => self.refuse(peer, reason, None),
        }

        false
    }

    fn verdict(&mut self, peer: PeerId, packet: &Packet<&mut [u8]>) -> Verdict {
        let flow = (
            peer,
            packet.source(),
            packet.destination(),
            packet.transport(),
            packet.source_port(),
            packet.destination_port(),
        );
        let verdict = match self.latest {
            Some((judged, verdict)) if judged == flow && packet.transport() != Transport::Icmp => {
                verdict
            }
            _ => (self.peers).judge_outbound(self.now, ClientId(peer.0), packet, self.own),
        };
        self.latest = Some((flow, verdict));

        verdict
    }

    fn refuse(&mut self, peer: PeerId, reason: DropReason, answer: Option<Packet<Buffer>>) {
        self.refused.push((peer, reason, answer));
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
