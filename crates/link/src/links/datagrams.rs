//! What arrives: one socket carries relays' answers, checks, handshakes and data of all peers (connections.md §5).

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use connlib_wire::MAX_DATAGRAM;
use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::ecn::Ecn;
use connlib_wire::id::RelayId;
use connlib_wire::stun::{self, Class, Message};
use connlib_wire::train::{Arrival, Received};

use super::Links;
use super::schedule::Asker;
use crate::jobs::{Job, OpenJob, Sender};
use crate::packets::Packets;
use crate::path::Path;
use crate::peer::{By, Peer, PeerId};
use crate::wireguard::{Incoming, TunnelId};

/// Where a datagram came from, with a relay taken out of the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    remote: SocketAddr,
    local: SocketAddr,
    relay: Option<RelayId>,
    ecn: Ecn,
}

impl Origin {
    pub(super) fn path(&self) -> Path {
        Peer::arrival_path(self.local, self.remote, self.relay)
    }
}

/// What is found out once about a train, and holds for its datagrams until one differs.
struct Train {
    origin: Origin,
    /// The relay that sent it.
    relay: Option<RelayId>,
    /// Its latest channel, and where that leads.
    channel: Option<(ChannelNumber, Origin)>,
    /// Its latest tunnel, and the sender's number in the job.
    sender: Option<(TunnelId, Origin, usize)>,
    /// What is to be opened.
    job: Box<OpenJob>,
}

/// What became of a datagram.
enum Outcome {
    Taken,
    Rejected,
    StrayFromRelay,
}

impl Outcome {
    fn of(is_believed: bool) -> Self {
        match is_believed {
            true => Self::Taken,
            false => Self::Rejected,
        }
    }
}

impl Links {
    /// Takes a train of datagrams. Handshakes, checks and relays' answers are dealt with at once; data becomes one
    /// [`Job`], whose packets come out of [`poll_opened`](Self::poll_opened) when it was run and committed. A datagram that
    /// is wrong costs itself only.
    pub fn begin_open(&mut self, now: Instant, received: Received) {
        self.last_now = now;
        let mut train = Train {
            origin: Origin {
                remote: received.from,
                local: received.to,
                relay: None,
                ecn: received.ecn,
            },
            relay: self.relays.serving(received.from),
            channel: None,
            sender: None,
            job: self.opening.blank(),
        };
        let mut start = 0;
        for datagram in received.arrival().datagrams() {
            let range = start..start + datagram.len();
            start = range.end;
            match self.handle_datagram(now, &mut train, datagram, range) {
                Outcome::Taken => {}
                Outcome::Rejected => self.stats.rejected_datagrams += 1,
                Outcome::StrayFromRelay => self.stats.stray_relay_datagrams += 1,
            }
        }
        self.opening.plan(train.job, received);
    }

    /// The next job to run: sealing first, since what was sent travels while the rest is opened.
    pub fn poll_job(&mut self) -> Option<Job> {
        let seal = self.sealing.next_job().map(Job::Seal);

        seal.or_else(|| self.opening.next_job().map(Job::Open))
    }

    /// Takes back a job that was run. Any order will do.
    pub fn commit(&mut self, job: Job) {
        match job {
            Job::Seal(job) => self.sealing.commit(job),
            Job::Open(job) => self.opening.commit(job),
        }
    }

    /// Runs all planned jobs here and now.
    pub fn run_jobs(&mut self) {
        while let Some(mut job) = self.poll_job() {
            job.run();
            self.commit(job);
        }
    }

    /// Replaces the contents of `packets` by those of the next train that was opened; false if there is none.
    pub fn poll_opened(&mut self, now: Instant, packets: &mut Packets) -> bool {
        let Some(mut job) = self.opening.next_done() else {
            return false;
        };
        self.last_now = now;
        if let Some(memory) = job.memory.take() {
            packets.begin(job.train_number(), memory);
        }
        let mut opened = std::mem::take(&mut job.opened);
        let mut of_one = opened.drain(..).peekable();
        while let Some(first) = of_one.peek() {
            let number = first.sender;
            let Some(sender) = job.senders.get(number).copied() else {
                break;
            };
            // One look-up for all that one sender sent in a row.
            let peer = self.peers.get_mut(&sender.peer);
            let mut peer = peer.filter(|peer| peer.tunnel.id() == sender.tunnel);
            let (mut is_heard, mut has_packets) = (false, false);
            while let Some(opened) = of_one.next_if(|opened| opened.sender == number) {
                let result = peer
                    .as_mut()
                    .map(|peer| peer.tunnel.commit_open(now, opened.message));
                let range = match result {
                    Some(Ok(range)) => range,
                    Some(Err(error)) => {
                        tracing::trace!(peer = %sender.peer, %error, "Rejecting a data datagram");
                        self.stats.rejected_datagrams += 1;
                        continue;
                    }
                    None => {
                        self.stats.rejected_datagrams += 1;
                        continue;
                    }
                };
                is_heard = true;
                has_packets |= range.is_some();
                if let Some(peer) = &mut peer {
                    peer.received_bytes += opened.datagram_len as u64;
                }
                if range.is_some_and(|range| packets.add(sender.peer, sender.origin.ecn, range)) {
                    self.stats.opened_packets += 1;
                }
            }
            if is_heard {
                self.heard(now, &sender, has_packets);
            }
        }
        drop(of_one);
        job.opened = opened;
        self.opening.take_back(job);

        true
    }

    /// Takes a train and opens it here and now, for drivers that have no use for jobs; its packets replace the contents of
    /// `packets`.
    pub fn handle_arrival(&mut self, now: Instant, arrival: &Arrival<'_>, packets: &mut Packets) {
        packets.clear();
        let mut bytes = self.opening.pool().take(0);
        match bytes.extend(arrival.bytes.len()) {
            Some(room) => room.copy_from_slice(arrival.bytes),
            None => return,
        }
        self.begin_open(
            now,
            Received {
                from: arrival.from,
                to: arrival.to,
                ecn: arrival.ecn,
                stride: arrival.stride,
                bytes,
                number: 0,
            },
        );
        self.run_jobs();
        self.poll_opened(now, packets);
        self.reschedule(now);
    }

    /// A peer's sealed datagrams were believed.
    fn heard(&mut self, now: Instant, sender: &Sender, has_packets: bool) {
        let Some(peer) = self.peers.get_mut(&sender.peer) else {
            return;
        };
        let is_settled = peer.is_settled();
        if has_packets && let Some(negotiated) = peer.as_negotiated_mut() {
            negotiated.active(now);
        }
        self.heard_by(now, sender.peer, sender.origin.path());
        self.touch(sender.peer);
        if !is_settled {
            self.reschedule(now);
        }
    }

    fn handle_datagram(
        &mut self,
        now: Instant,
        train: &mut Train,
        datagram: &[u8],
        range: Range<usize>,
    ) -> Outcome {
        if datagram.len() > MAX_DATAGRAM || datagram.len() < 4 {
            return Outcome::Rejected;
        }
        let origin = train.origin;
        let Some(relay) = train.relay else {
            if self.relays.was_relay(origin.remote.ip()) && is_relays(datagram) {
                return Outcome::StrayFromRelay;
            }
            return self.handle_from_peer(now, train, origin, datagram, range);
        };

        if stun::is_stun_prefix(datagram)
            && let Ok(message) = Message::parse(datagram)
        {
            return match self.handle_relay_message(
                now,
                relay,
                (origin.remote, origin.local),
                &message,
            ) {
                true => Outcome::Taken,
                false => Outcome::StrayFromRelay,
            };
        }
        if channel::is_channel_prefix(datagram)
            && let Some((number, payload)) = channel::decode(datagram)
        {
            let Some(inner) = self.behind_channel(now, train, relay, number) else {
                return Outcome::StrayFromRelay;
            };
            let start = range.start + channel::HEADER_LEN;
            let range = start..start + payload.len();
            return self.handle_from_peer(now, train, inner, payload, range);
        }

        // A peer behind the same address and port as a relay.
        self.handle_from_peer(now, train, origin, datagram, range)
    }

    /// Whose data a relay's channel carries.
    fn behind_channel(
        &mut self,
        now: Instant,
        train: &mut Train,
        relay: RelayId,
        number: ChannelNumber,
    ) -> Option<Origin> {
        if let Some((latest, origin)) = train.channel
            && latest == number
        {
            return Some(origin);
        }
        let allocation = self.relays.get_mut(relay)?;
        let remote = allocation.peer_behind(now, number)?;
        let inner = Origin {
            remote,
            local: allocation.relayed_address(remote)?,
            relay: Some(relay),
            ..train.origin
        };
        train.channel = Some((number, inner));

        Some(inner)
    }

    fn handle_from_peer(
        &mut self,
        now: Instant,
        train: &mut Train,
        origin: Origin,
        datagram: &[u8],
        range: Range<usize>,
    ) -> Outcome {
        if stun::is_stun_prefix(datagram)
            && let Ok(message) = Message::parse(datagram)
        {
            return self.handle_check(now, origin, &message);
        }

        self.handle_wireguard(now, train, origin, datagram, range)
    }

    fn handle_check(&mut self, now: Instant, origin: Origin, message: &Message<'_>) -> Outcome {
        let id = match message.class() {
            Class::Request => message
                .username()
                .and_then(|username| self.by_username.get(username).copied()),
            Class::Success | Class::Error => match self.checks.asker(message.transaction_id()) {
                Some(Asker::Agent(id)) => Some(id),
                Some(Asker::Liveness { peer, sent_at }) => {
                    let is_believed = self.handle_answer(now, (peer, sent_at), &origin, message);
                    return Outcome::of(is_believed);
                }
                None => None,
            },
            Class::Indication => None,
        };
        let peer = id.and_then(|id| Some((id, self.peers.get_mut(&id)?)));
        let Some((id, peer)) = peer else {
            return Outcome::Rejected;
        };
        let in_use = peer.path;
        let by = match in_use {
            Some(path) if path.is_way_of(origin.path()) => By::PathInUse,
            Some(_) | None => By::Other {
                may_be_better: in_use.is_none() || peer.kind.is_relayed(),
            },
        };
        let Some(peer) = peer.as_negotiated_mut() else {
            return Outcome::Rejected;
        };
        // Behind two NATs that map by port each check comes from an address of its own, which is checked in turn.
        if message.class() == Class::Request
            && in_use.is_some()
            && !peer.liveness.is_lost()
            && !peer.agent.has_room_for(origin.remote)
        {
            self.stats.candidates_too_many += 1;
            return Outcome::Rejected;
        }
        if message.class() == Class::Request
            && origin.relay.is_none()
            && let Some(line) = peer.discover_local(origin.local, message)
        {
            self.events
                .push_back(super::Event::NewCandidate { peer: id, line });
        }
        let accepted = peer
            .agent
            .handle_stun(now, origin.remote, origin.local, message.bytes());
        if accepted {
            if message.class() != Class::Request {
                self.checks.answered(message.transaction_id());
            }
            if message.class() == Class::Success {
                peer.heard(now);
            }
            if by == By::PathInUse {
                match message.class() {
                    Class::Request => peer.liveness.was_asked(now),
                    Class::Success | Class::Error | Class::Indication => {
                        peer.liveness.heard(now);
                        if let Some(rtt) = peer.agent.rtt() {
                            peer.liveness.sample(rtt);
                        }
                    }
                }
            }
            peer.tick(now, message, by);
            self.settle(now, id);
        }

        Outcome::of(accepted)
    }

    fn handle_wireguard(
        &mut self,
        now: Instant,
        train: &mut Train,
        origin: Origin,
        datagram: &[u8],
        range: Range<usize>,
    ) -> Outcome {
        let handled = match self.interface.receive(now, origin.remote, datagram) {
            Ok(Incoming::Data(tunnel, message)) => {
                return self.handle_data(now, train, origin, (tunnel, message), range);
            }
            Ok(Incoming::Overloaded(reply)) => {
                self.send_control(now, origin.path(), &reply);
                return Outcome::Taken;
            }
            Ok(Incoming::Initiation(key, message)) => {
                self.by_key.get(&key).copied().and_then(|id| {
                    self.revive(now, id);
                    let peer = self.peers.get_mut(&id)?;
                    let response = peer.tunnel.handle_initiation(now, message).ok()?;
                    peer.was_answered();
                    // Back the way it came: that way works.
                    self.send_control(now, origin.path(), &response);
                    self.heard_from(now, id, origin.path());
                    Some(id)
                })
            }
            Ok(Incoming::Response(tunnel, message)) => {
                self.by_tunnel.get(&tunnel).copied().and_then(|id| {
                    let peer = self.peers.get_mut(&id)?;
                    let keepalive = peer.tunnel.handle_response(now, message).ok()?;
                    peer.was_answered();
                    self.heard_by(now, id, origin.path());
                    self.send_on_path(now, id, &keepalive);
                    Some(id)
                })
            }
            Ok(Incoming::Cookie(tunnel, message)) => {
                self.by_tunnel.get(&tunnel).copied().filter(|id| {
                    let peer = self.peers.get_mut(id);
                    peer.is_some_and(|peer| peer.tunnel.handle_cookie(now, message).is_ok())
                })
            }
            Err(error) => {
                tracing::trace!(%error, "Rejecting a datagram");
                None
            }
        };
        let Some(id) = handled else {
            return Outcome::Rejected;
        };
        self.settle(now, id);

        Outcome::Taken
    }

    /// Finds the key of a data datagram and adds it to the train's job.
    fn handle_data(
        &mut self,
        now: Instant,
        train: &mut Train,
        origin: Origin,
        (tunnel, message): (TunnelId, sanstun::TransportData),
        range: Range<usize>,
    ) -> Outcome {
        let known = train
            .sender
            .filter(|(latest, came_from, _)| (*latest, *came_from) == (tunnel, origin))
            .and_then(|(.., number)| Some((number, train.job.senders.get(number)?.peer)));
        let (number, id) = match known {
            Some(known) => known,
            None => {
                let Some(peer) = self.by_tunnel.get(&tunnel).copied() else {
                    return Outcome::Rejected;
                };
                let number = train.job.add_sender(Sender {
                    peer,
                    tunnel,
                    origin,
                });
                train.sender = Some((tunnel, origin, number));
                (number, peer)
            }
        };
        let opening = self
            .peers
            .get(&id)
            .map(|peer| peer.tunnel.begin_open(now, message));
        let Some(Ok(opening)) = opening else {
            return Outcome::Rejected;
        };
        train.job.add(number, range, opening);

        Outcome::Taken
    }

    pub(super) fn touch(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && !std::mem::replace(&mut peer.is_touched, true)
        {
            self.touched.push(id);
        }
    }
}

fn is_relays(datagram: &[u8]) -> bool {
    channel::is_channel_prefix(datagram)
        || (stun::is_stun_prefix(datagram) && Message::parse(datagram).is_ok())
}
