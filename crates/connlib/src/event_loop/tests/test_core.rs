//! A state machine that does next to nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connlib_tunnel::PortalState;
use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::offload::VirtioHeader;
use connlib_wire::stun::Family;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::{Received, Route, Transmit};

use super::super::Core;
use super::packets::{family_of, route};
use super::test_job::{Batch, InOrder, TestJob};

/// What the core saw, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    Message(u32),
    Portal(PortalState),
    Packet(Vec<u8>),
    Datagram(Vec<u8>),
    Timeout,
    Transmit,
    NetworkChanged,
    Reset,
    ShutDown,
}

/// Sends each packet of the TUN device to the peer that its destination names, and each datagram to the TUN device.
#[derive(Debug)]
pub(super) struct TestCore {
    pub(super) seen: Vec<Seen>,
    pub(super) deadline: Option<Instant>,
    /// Forgets to move its deadline when it fires.
    pub(super) is_stuck: bool,
    /// Joins this many packets to a train.
    pub(super) train_len: usize,
    /// Whom packets may go to changes with it.
    pub(super) revision: u64,
    /// Lets no packet out.
    pub(super) denies: bool,
    pub(super) denied: usize,
    pub(super) malformed: usize,
    /// How often its timer ran, in vain or not.
    pub(super) timeouts: usize,
    /// The latest time it was told.
    pub(super) latest: Option<Instant>,
    /// The most jobs that ever were under way at once.
    pub(super) most_jobs: usize,
    pub(super) pool: Pool,
    jobs: VecDeque<TestJob>,
    sealed: InOrder<Vec<Transmit>>,
    opened: InOrder<Received>,
    transmits: VecDeque<Transmit>,
    controls: VecDeque<Transmit>,
    packets: VecDeque<Buffer>,
    messages: VecDeque<u32>,
    events: VecDeque<u32>,
}

impl TestCore {
    pub(super) fn new() -> Self {
        Self {
            seen: Vec::new(),
            deadline: None,
            is_stuck: false,
            train_len: 1,
            revision: 0,
            denies: false,
            denied: 0,
            malformed: 0,
            timeouts: 0,
            latest: None,
            most_jobs: 0,
            pool: Pool::new(65_535, 16),
            jobs: VecDeque::new(),
            sealed: InOrder::default(),
            opened: InOrder::default(),
            transmits: VecDeque::new(),
            controls: VecDeque::new(),
            packets: VecDeque::new(),
            messages: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub(super) fn count(&self, mut is_it: impl FnMut(&Seen) -> bool) -> usize {
        self.seen.iter().filter(|seen| is_it(seen)).count()
    }

    /// Time never goes back (io.md P10).
    fn is_at(&mut self, now: Instant) {
        assert!(self.latest.is_none_or(|latest| latest <= now));
        self.latest = Some(now);
    }

    pub(super) fn jobs_under_way(&self) -> usize {
        self.sealed.missing() + self.opened.missing()
    }
}

/// What messages make the core do; any other number is a deadline in that many milliseconds.
pub(super) const SAY: u32 = 1 << 16;
pub(super) const TELL: u32 = 1 << 17;
pub(super) const ANSWER: u32 = 1 << 18;
pub(super) const PROBE: u32 = 1 << 19;

impl Core for TestCore {
    type FromPortal = u32;
    type ToPortal = u32;
    type Event = u32;
    type Status = usize;
    type Lane = Lane;
    type Job = TestJob;
    type Packets = Batch;

    fn handle_message(&mut self, now: Instant, message: u32) {
        self.is_at(now);
        self.seen.push(Seen::Message(message));
        match message {
            SAY => self.messages.push_back(message),
            TELL => self.events.push_back(message),
            ANSWER => self.packets.extend(self.pool.copy(&[0x45, 0xAA])),
            PROBE => {
                let probe = self.pool.copy(b"probe").unwrap();
                self.controls.push_back(Transmit::single(route(4), probe));
            }
            millis => self.deadline = Some(now + Duration::from_millis(millis.into())),
        }
    }

    fn handle_portal_state(&mut self, now: Instant, state: PortalState) {
        self.is_at(now);
        self.seen.push(Seen::Portal(state));
    }

    fn route(&mut self, now: Instant, packet: &mut SuperPacket<Buffer>) -> Option<Lane> {
        self.is_at(now);
        if self.denies {
            self.denied += 1;
            return None;
        }
        let bytes = packet.bytes();

        Some(Lane {
            family: family_of(bytes),
            peer: bytes[18],
        })
    }

    fn family(&self, lane: Lane) -> Option<Family> {
        Some(Family::of(route(lane.family).dst))
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
        let packet = SuperPacket::parse(header, bytes).ok();
        self.malformed += usize::from(packet.is_none());

        packet
    }

    fn begin_send(&mut self, now: Instant, lane: Lane, packet: SuperPacket<Buffer>, skip: usize) {
        self.is_at(now);
        self.seen.push(Seen::Packet(packet.bytes().to_vec()));
        let route = route(lane.family);
        let len = packet.bytes().len();
        if let Some(TestJob::Seal {
            packets, route: to, ..
        }) = self.jobs.back_mut()
            && *to == route
            && packets.len() < self.train_len
            && (packets.len() + 1) * len <= self.pool.buffer_size()
            && packets
                .iter()
                .all(|(packet, _)| packet.bytes().len() == len)
        {
            packets.push((packet, skip));
            return;
        }
        self.jobs.push_back(TestJob::Seal {
            number: self.sealed.begin(),
            route,
            packets: vec![(packet, skip)],
            pool: self.pool.clone(),
            sealed: Vec::new(),
        });
    }

    fn begin_receive(&mut self, now: Instant, received: Received) {
        self.is_at(now);
        let datagrams = received.arrival().datagrams();
        self.seen
            .extend(datagrams.map(|datagram| Seen::Datagram(datagram.to_vec())));
        self.jobs.push_back(TestJob::Open {
            number: self.opened.begin(),
            received,
        });
    }

    fn poll_job(&mut self) -> Option<TestJob> {
        let job = self.jobs.pop_front()?;
        self.most_jobs = self.most_jobs.max(self.jobs_under_way());

        Some(job)
    }

    fn commit(&mut self, job: TestJob) {
        match job {
            TestJob::Seal { number, sealed, .. } => {
                for sealed in self.sealed.commit(number, sealed) {
                    self.transmits.extend(sealed);
                }
            }
            TestJob::Open { number, received } => self.opened.insert(number, received),
        }
    }

    fn poll_opened(&mut self, now: Instant, packets: &mut Batch) -> bool {
        self.is_at(now);
        let Some(received) = self.opened.next() else {
            return false;
        };
        let mut start = 0;
        for datagram in received.arrival().datagrams() {
            packets.ranges.push(start..start + datagram.len());
            start += datagram.len();
        }
        packets.number = received.number;
        packets.memory = received.bytes.to_vec();

        true
    }

    fn handle_too_large(&mut self, _: Instant, _: &Route, _: usize) {}

    fn handle_timeout(&mut self, now: Instant) {
        self.is_at(now);
        self.timeouts += 1;
        if self.deadline.is_some_and(|at| at <= now) {
            self.seen.push(Seen::Timeout);
            self.deadline = self.deadline.filter(|_| self.is_stuck);
        }
    }

    fn trim(&mut self) {
        self.pool.trim();
    }

    fn network_changed(&mut self, now: Instant) {
        self.is_at(now);
        self.seen.push(Seen::NetworkChanged);
    }

    fn reset(&mut self, now: Instant) {
        self.is_at(now);
        self.seen.push(Seen::Reset);
    }

    fn shut_down(&mut self, now: Instant) {
        self.is_at(now);
        self.seen.push(Seen::ShutDown);
        let goodbye = self.pool.copy(b"goodbye").unwrap();
        self.controls.push_back(Transmit::single(route(4), goodbye));
    }

    fn poll_control(&mut self) -> Option<Transmit> {
        self.controls.pop_front()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front()?;
        self.seen.push(Seen::Transmit);

        Some(transmit)
    }

    fn poll_packet(&mut self) -> Option<Buffer> {
        self.packets.pop_front()
    }

    fn poll_message(&mut self) -> Option<u32> {
        self.messages.pop_front()
    }

    fn poll_event(&mut self) -> Option<u32> {
        self.events.pop_front()
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.deadline
    }

    fn status(&self, _: Instant) -> usize {
        self.seen.len()
    }
}

/// A peer, reached by one IP version.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Lane {
    pub(super) family: u8,
    pub(super) peer: u8,
}
