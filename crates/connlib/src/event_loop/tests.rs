//! The loop with a core that does next to nothing and devices in memory.

mod back_pressure;
mod errors;
mod fairness;
mod properties;

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_os::fake::{FakeTrain, FakeTun, FakeUdp};
use connlib_tunnel::PortalState;
use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::ecn::Ecn;
use connlib_wire::stun::Family;
use connlib_wire::train::{Arrival, Route, Transmit};

use super::{Command, Core, EventLoop, Io, Output, PacketBatch, Ready, Wait, Watched};

/// What the core saw, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    Message(u32),
    Portal(PortalState),
    Packet(Vec<u8>),
    Datagram(Vec<u8>),
    Timeout,
    Transmit,
    Reset,
    ShutDown,
}

/// Sends each packet of the TUN device to the peer that its second byte names, and each datagram to the TUN device.
#[derive(Debug)]
pub(super) struct TestCore {
    pub(super) seen: Vec<Seen>,
    pub(super) deadline: Option<Instant>,
    /// Forgets to move its deadline when it fires.
    pub(super) is_stuck: bool,
    /// Joins this many packets to a train.
    pub(super) train_len: usize,
    transmits: VecDeque<Transmit>,
    packets: VecDeque<Buffer>,
    messages: VecDeque<u32>,
    events: VecDeque<u32>,
    pool: Pool,
}

impl TestCore {
    pub(super) fn new() -> Self {
        Self {
            seen: Vec::new(),
            deadline: None,
            is_stuck: false,
            train_len: 1,
            transmits: VecDeque::new(),
            packets: VecDeque::new(),
            messages: VecDeque::new(),
            events: VecDeque::new(),
            pool: Pool::new(65_535, 16),
        }
    }

    pub(super) fn count(&self, mut is_it: impl FnMut(&Seen) -> bool) -> usize {
        self.seen.iter().filter(|seen| is_it(seen)).count()
    }
}

/// What messages make the core do; any other number is a deadline in that many milliseconds.
pub(super) const SAY: u32 = 1 << 16;
pub(super) const TELL: u32 = 1 << 17;
pub(super) const ANSWER: u32 = 1 << 18;

impl Core for TestCore {
    type FromPortal = u32;
    type ToPortal = u32;
    type Event = u32;
    type Status = usize;
    type Packets = Batch;

    fn handle_message(&mut self, now: Instant, message: u32) {
        self.seen.push(Seen::Message(message));
        match message {
            SAY => self.messages.push_back(message),
            TELL => self.events.push_back(message),
            ANSWER => self.packets.extend(self.pool.copy(&[0x45, 0xAA])),
            millis => self.deadline = Some(now + Duration::from_millis(millis.into())),
        }
    }

    fn handle_portal_state(&mut self, _: Instant, state: PortalState) {
        self.seen.push(Seen::Portal(state));
    }

    fn handle_packet(&mut self, _: Instant, packet: &[u8]) {
        self.seen.push(Seen::Packet(packet.to_vec()));
        let route = route(packet[1]);
        if let Some(train) = self.transmits.back_mut()
            && train.route == route
            && train.segments() < self.train_len
            && train.segment_size == packet.len()
        {
            train
                .payload
                .extend(packet.len())
                .unwrap()
                .copy_from_slice(packet);
            return;
        }
        let payload = self.pool.copy(packet).unwrap();
        self.transmits.push_back(Transmit::single(route, payload));
    }

    fn handle_arrival(&mut self, _: Instant, arrival: &Arrival<'_>, packets: &mut Batch) {
        for datagram in arrival.datagrams() {
            self.seen.push(Seen::Datagram(datagram.to_vec()));
            packets.0.push(datagram.to_vec());
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|at| at <= now) {
            self.seen.push(Seen::Timeout);
            self.deadline = self.deadline.filter(|_| self.is_stuck);
        }
    }

    fn reset(&mut self, _: Instant) {
        self.seen.push(Seen::Reset);
    }

    fn shut_down(&mut self, _: Instant) {
        self.seen.push(Seen::ShutDown);
        let goodbye = self.pool.copy(b"goodbye").unwrap();
        self.transmits
            .push_back(Transmit::single(route(4), goodbye));
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

#[derive(Debug, Default)]
pub(super) struct Batch(Vec<Vec<u8>>);

impl PacketBatch for Batch {
    fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Devices in memory that are always as ready as their fakes say.
#[derive(Debug)]
pub(super) struct TestIo {
    pub(super) v4: Option<Watched<FakeUdp>>,
    pub(super) v6: Option<Watched<FakeUdp>>,
    pub(super) tun: Watched<FakeTun>,
    pub(super) commands: VecDeque<Command<u32>>,
    pub(super) outputs: Vec<Output<TestCore>>,
    pub(super) room: usize,
    /// How much later it is each time somebody asks.
    pub(super) tick: Duration,
    elapsed: Cell<Duration>,
}

impl TestIo {
    pub(super) fn new() -> Self {
        Self {
            v4: Some(Watched::new(FakeUdp::new(local(Family::V4)))),
            v6: Some(Watched::new(FakeUdp::new(local(Family::V6)))),
            tun: Watched::new(FakeTun::new("tun")),
            commands: VecDeque::new(),
            outputs: Vec::new(),
            room: usize::MAX,
            tick: Duration::ZERO,
            elapsed: Cell::new(Duration::ZERO),
        }
    }

    pub(super) fn v4(&mut self) -> &mut FakeUdp {
        &mut self.v4.as_mut().unwrap().device
    }

    pub(super) fn v6(&mut self) -> &mut FakeUdp {
        &mut self.v6.as_mut().unwrap().device
    }

    pub(super) fn tun(&mut self) -> &mut FakeTun {
        &mut self.tun.device
    }

    pub(super) fn socket(&mut self, family: Family) -> &mut FakeUdp {
        match family {
            Family::V4 => self.v4(),
            Family::V6 => self.v6(),
        }
    }

    /// What a poller would have told: everything may be ready.
    pub(super) fn make_ready(&mut self) {
        self.tun.ready = Ready::BOTH;
        for socket in [&mut self.v4, &mut self.v6].into_iter().flatten() {
            socket.ready = Ready::BOTH;
        }
        self.elapsed.set(Duration::ZERO);
    }
}

impl Io<TestCore> for TestIo {
    type Udp = FakeUdp;
    type Tun = FakeTun;

    fn udp(&mut self, family: Family) -> Option<&mut Watched<FakeUdp>> {
        match family {
            Family::V4 => self.v4.as_mut(),
            Family::V6 => self.v6.as_mut(),
        }
    }

    fn tun(&mut self) -> &mut Watched<FakeTun> {
        &mut self.tun
    }

    fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    fn next_command(&mut self) -> Option<Command<u32>> {
        self.commands.pop_front()
    }

    fn has_room(&self) -> bool {
        self.outputs.len() < self.room
    }

    fn deliver(&mut self, output: Output<TestCore>) {
        assert!(self.has_room());
        self.outputs.push(output);
    }

    fn elapsed(&self) -> Duration {
        self.elapsed.set(self.elapsed.get() + self.tick);

        self.elapsed.get()
    }
}

/// A loop, its devices and a clock.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) event_loop: EventLoop<TestCore>,
    pub(super) io: TestIo,
    pub(super) now: Instant,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self {
            event_loop: EventLoop::new(TestCore::new()),
            io: TestIo::new(),
            now: start(),
        }
    }

    /// A turn with everything ready that has something, without errors.
    pub(super) fn turn(&mut self) -> Wait {
        let mut wait = self.turn_with_errors();
        let errors: Vec<_> = wait.errors.drain().collect();
        assert!(errors.is_empty(), "{errors:?}");

        wait
    }

    pub(super) fn turn_with_errors(&mut self) -> Wait {
        self.io.make_ready();

        self.event_loop.turn(self.now, &mut self.io)
    }

    pub(super) fn core(&mut self) -> &mut TestCore {
        &mut self.event_loop.core
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    pub(super) fn command(&mut self, command: Command<u32>) {
        self.io.commands.push_back(command);
    }
}

/// A packet of the TUN device that goes out by IPv`family`; `flow` and `number` are what it carries.
pub(super) fn packet(family: u8, number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();

    vec![0x45, family, high, low]
}

pub(super) fn arrival(family: Family, number: u16) -> FakeTrain {
    train_of(family, [number])
}

pub(super) fn train_of(family: Family, numbers: impl IntoIterator<Item = u16>) -> FakeTrain {
    let version = match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };

    FakeTrain {
        from: route(version).dst,
        to: local(family),
        ecn: Ecn::NotEct,
        stride: 4,
        bytes: numbers
            .into_iter()
            .flat_map(|number| packet(version, number))
            .collect(),
    }
}

pub(super) fn numbers<'a>(packets: impl IntoIterator<Item = &'a [u8]>) -> Vec<u16> {
    packets
        .into_iter()
        .map(|packet| u16::from_be_bytes([packet[2], packet[3]]))
        .collect()
}

/// The numbers of the packets that a socket has sent.
pub(super) fn sent(socket: &FakeUdp) -> Vec<u16> {
    numbers(socket.sent.iter().flat_map(|train| train.datagrams()))
}

/// The numbers of the packets that a TUN device was given.
pub(super) fn written(tun: &FakeTun) -> Vec<u16> {
    numbers(tun.outbox.iter().map(Vec::as_slice))
}

pub(super) fn route(family: u8) -> Route {
    let dst = if family == 6 {
        "[2001:db8::2]:9".parse().unwrap()
    } else {
        "192.0.2.2:9".parse().unwrap()
    };

    Route {
        src: None,
        dst,
        ecn: Ecn::NotEct,
    }
}

fn local(family: Family) -> SocketAddr {
    match family {
        Family::V4 => "192.0.2.1:9".parse().unwrap(),
        Family::V6 => "[2001:db8::1]:9".parse().unwrap(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has to begin at some time"
)]
fn start() -> Instant {
    Instant::now()
}
