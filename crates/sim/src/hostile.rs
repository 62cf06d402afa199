//! A client that can be made to send what it must not: past its own choice of resources, to any gateway that it has a link to.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Instant;

use connlib::event_loop::Core;
use connlib_tunnel::client::{Client, Event};
use connlib_tunnel::dns::{Exchange, ExchangeError, ExchangeId, Resolvers};
use connlib_tunnel::why::{Explanation, Question};
use connlib_tunnel::{Job, Packets, PeerId, PortalState, Status};
use connlib_wire::buffer::Buffer;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::portal::client::{FromPortal, ToPortal};
use connlib_wire::stun::Family;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::{Received, Route, Transmit};

/// How many forged packets are remembered: those that wait to be sealed are routed again.
const REMEMBERED: usize = 1_024;

/// Packets, and where each goes.
type Routed = VecDeque<(Vec<u8>, PeerId)>;

/// Packets that go to a peer whatever their client thinks of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forged(Rc<RefCell<Routed>>);

impl Forged {
    pub(crate) fn add(&self, packet: Vec<u8>, peer: PeerId) {
        let mut forged = self.0.borrow_mut();
        if forged.len() >= REMEMBERED {
            forged.pop_front();
        }
        forged.push_back((packet, peer));
    }

    fn peer_of(&self, packet: &[u8]) -> Option<PeerId> {
        let forged = self.0.borrow();
        let mut found = forged.iter().filter(|(bytes, _)| bytes == packet);

        found.next().map(|(_, peer)| *peer)
    }
}

/// The shipped client, and what it is made to send.
pub(crate) struct AnyClient {
    client: Client,
    forged: Forged,
}

impl AnyClient {
    pub(crate) fn new(client: Client, forged: Forged) -> Self {
        Self { client, forged }
    }
}

impl Deref for AnyClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Core for AnyClient {
    type FromPortal = FromPortal;
    type ToPortal = ToPortal;
    type Event = Event;
    type Status = Status;
    type Lane = PeerId;
    type Job = Job;
    type Packets = Packets;

    fn handle_message(&mut self, now: Instant, message: FromPortal) {
        self.client.handle_message(now, message);
    }

    fn handle_portal_state(&mut self, now: Instant, state: PortalState) {
        self.client.handle_portal_state(now, state);
    }

    fn route(&mut self, now: Instant, packet: &mut SuperPacket<Buffer>) -> Option<PeerId> {
        let forged = self.forged.peer_of(packet.bytes());

        forged.or_else(|| self.client.route(now, packet))
    }

    fn revision(&self) -> u64 {
        self.client.revision()
    }

    fn family(&self, peer: PeerId) -> Option<Family> {
        self.client.family(peer)
    }

    fn admit(
        &mut self,
        now: Instant,
        header: VirtioHeader,
        bytes: Buffer,
    ) -> Option<SuperPacket<Buffer>> {
        self.client.admit(now, header, bytes)
    }

    fn begin_send(&mut self, now: Instant, peer: PeerId, packet: SuperPacket<Buffer>, skip: usize) {
        self.client.begin_send(now, peer, packet, skip);
    }

    fn begin_receive(&mut self, now: Instant, received: Received) {
        self.client.begin_receive(now, received);
    }

    fn poll_job(&mut self) -> Option<Job> {
        self.client.poll_job()
    }

    fn commit(&mut self, job: Job) {
        self.client.commit(job);
    }

    fn poll_opened(&mut self, now: Instant, packets: &mut Packets) -> bool {
        self.client.poll_opened(now, packets)
    }

    fn handle_too_large(&mut self, now: Instant, route: &Route, datagram: usize) {
        self.client.handle_too_large(now, route, datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
    }

    fn trim(&mut self) {
        self.client.trim();
    }

    fn reset(&mut self, now: Instant) {
        self.client.reset(now);
    }

    fn set_resolvers(&mut self, now: Instant, resolvers: &Resolvers) {
        self.client.set_resolvers(now, resolvers);
    }

    fn explain(&mut self, now: Instant, question: &Question) -> Vec<Explanation> {
        self.client.explain(now, question)
    }

    fn want_internet(&mut self, now: Instant, is_wanted: bool) {
        self.client.want_internet(now, is_wanted);
    }

    fn poll_exchange(&mut self) -> Option<Exchange> {
        self.client.poll_exchange()
    }

    fn handle_exchanged(
        &mut self,
        now: Instant,
        id: ExchangeId,
        outcome: Result<Vec<u8>, ExchangeError>,
    ) {
        self.client.handle_exchanged(now, id, outcome);
    }

    fn network_changed(&mut self, now: Instant) {
        self.client.network_changed(now);
    }

    fn shut_down(&mut self, now: Instant) {
        self.client.shut_down(now);
    }

    fn poll_control(&mut self) -> Option<Transmit> {
        self.client.poll_control()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.client.poll_transmit()
    }

    fn poll_packet(&mut self) -> Option<Buffer> {
        self.client.poll_packet()
    }

    fn poll_message(&mut self) -> Option<ToPortal> {
        self.client.poll_message()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.client.poll_event()
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.client.poll_timeout().map(|(at, _)| at)
    }

    fn status(&self, now: Instant) -> Status {
        self.client.status(now)
    }
}
