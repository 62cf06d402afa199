//! The state machines that the loop is made for.

use std::ops::Range;
use std::time::Instant;

use connlib_tunnel::client::{self, Client};
use connlib_tunnel::dns::{Exchange, ExchangeError, ExchangeId, Resolvers};
use connlib_tunnel::gateway::{self, Gateway};
use connlib_tunnel::why::{Explanation, Question};
use connlib_tunnel::{Job, Packets, PeerId, PortalState, Status};
use connlib_wire::buffer::Buffer;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::portal;
use connlib_wire::stun::Family;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::{Received, Route, Transmit};

use super::{Core, JobKind, PacketBatch, Told};

impl PacketBatch for Packets {
    fn memory(&self) -> &[u8] {
        self.memory()
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.ranges()
    }

    fn number(&self) -> u64 {
        self.number()
    }

    fn tell(&mut self) -> Told {
        self.tell()
    }

    fn clear(&mut self) {
        self.clear();
    }
}

impl super::Job for Job {
    fn run(&mut self) {
        self.run();
    }

    fn kind(&self) -> JobKind {
        match self {
            Self::Seal(_) => JobKind::Seal,
            Self::Open(_) => JobKind::Open,
        }
    }
}

/// Both roles have the same doors but for `own`; only the messages differ.
macro_rules! core {
    ($role:ty, $from_portal:ty, $to_portal:ty, $event:ty $(, $own:item)*) => {
        impl Core for $role {
            $($own)*

            type FromPortal = $from_portal;
            type ToPortal = $to_portal;
            type Event = $event;
            type Status = Status;
            type Lane = PeerId;
            type Job = Job;
            type Packets = Packets;

            fn handle_message(&mut self, now: Instant, message: Self::FromPortal) {
                self.handle_message(now, message);
            }

            fn handle_portal_state(&mut self, now: Instant, state: PortalState) {
                self.handle_portal_state(now, state);
            }

            fn admit(
                &mut self,
                now: Instant,
                header: VirtioHeader,
                bytes: Buffer,
            ) -> Option<SuperPacket<Buffer>> {
                self.admit(now, header, bytes)
            }

            fn route(&mut self, now: Instant, packet: &mut SuperPacket<Buffer>) -> Option<PeerId> {
                self.route(now, packet)
            }

            fn revision(&self) -> u64 {
                self.revision()
            }

            fn family(&self, peer: PeerId) -> Option<Family> {
                self.family(peer)
            }

            fn begin_send(
                &mut self,
                now: Instant,
                peer: PeerId,
                packet: SuperPacket<Buffer>,
                skip: usize,
            ) {
                self.begin_send(now, peer, packet, skip);
            }

            fn begin_receive(&mut self, now: Instant, received: Received) {
                self.begin_receive(now, received);
            }

            fn poll_job(&mut self) -> Option<Job> {
                self.poll_job()
            }

            fn commit(&mut self, job: Job) {
                self.commit(job);
            }

            fn poll_opened(&mut self, now: Instant, packets: &mut Packets) -> bool {
                self.poll_opened(now, packets)
            }

            fn handle_too_large(&mut self, now: Instant, route: &Route, datagram: usize) {
                self.handle_too_large(now, route, datagram);
            }

            fn trim(&mut self) {
                self.trim();
            }

            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }

            fn set_resolvers(&mut self, now: Instant, resolvers: &Resolvers) {
                self.set_resolvers(now, resolvers);
            }

            fn explain(&mut self, now: Instant, question: &Question) -> Vec<Explanation> {
                self.explain(now, question)
            }

            fn poll_exchange(&mut self) -> Option<Exchange> {
                self.poll_exchange()
            }

            fn handle_exchanged(
                &mut self,
                now: Instant,
                id: ExchangeId,
                outcome: Result<Vec<u8>, ExchangeError>,
            ) {
                self.handle_exchanged(now, id, outcome);
            }

            fn network_changed(&mut self, now: Instant) {
                self.network_changed(now);
            }

            fn reset(&mut self, now: Instant) {
                self.reset(now);
            }

            fn shut_down(&mut self, now: Instant) {
                self.shut_down(now);
            }

            fn poll_control(&mut self) -> Option<Transmit> {
                self.poll_control()
            }

            fn poll_transmit(&mut self) -> Option<Transmit> {
                self.poll_transmit()
            }

            fn poll_packet(&mut self) -> Option<Buffer> {
                self.poll_packet()
            }

            fn poll_message(&mut self) -> Option<Self::ToPortal> {
                self.poll_message()
            }

            fn poll_event(&mut self) -> Option<Self::Event> {
                self.poll_event()
            }

            fn poll_timeout(&mut self) -> Option<Instant> {
                self.poll_timeout().map(|(at, _)| at)
            }

            fn status(&self, now: Instant) -> Status {
                self.status(now)
            }
        }
    };
}

core!(
    Client,
    portal::client::FromPortal,
    portal::client::ToPortal,
    client::Event,
    fn want_internet(&mut self, now: Instant, is_wanted: bool) {
        self.want_internet(now, is_wanted);
    }
);
core!(
    Gateway,
    portal::gateway::FromPortal,
    portal::gateway::ToPortal,
    gateway::Event
);
