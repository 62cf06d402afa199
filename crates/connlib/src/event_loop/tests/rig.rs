//! The outside: devices in memory, workers, a clock.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connlib_os::fake::{FakeTun, FakeUdp};
use connlib_wire::stun::Family;

use super::super::{
    Command, Core, EventLoop, Inline, Io, Job, Output, Ready, Wait, Watched, Workers,
};
use super::packets::local;
use super::test_core::TestCore;

/// Devices in memory that are always as ready as their fakes say.
pub(super) struct TestIo<C: Core = TestCore> {
    pub(super) v4: Option<Watched<FakeUdp>>,
    pub(super) v6: Option<Watched<FakeUdp>>,
    pub(super) tun: Watched<FakeTun>,
    pub(super) workers: TestWorkers<C::Job>,
    pub(super) commands: VecDeque<Command<C::FromPortal>>,
    pub(super) outputs: Vec<Output<C>>,
    pub(super) room: usize,
    /// How much later it is each time somebody asks.
    pub(super) tick: Duration,
    elapsed: Cell<Duration>,
}

impl<C: Core> TestIo<C> {
    pub(super) fn new() -> Self {
        Self {
            v4: Some(Watched::new(FakeUdp::new(local(Family::V4)))),
            v6: Some(Watched::new(FakeUdp::new(local(Family::V6)))),
            tun: Watched::new(FakeTun::new("tun")),
            workers: TestWorkers::Inline(Inline::default()),
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
        self.start_turn();
    }

    pub(super) fn start_turn(&mut self) {
        self.elapsed.set(Duration::ZERO);
    }
}

impl<C: Core> Io<C> for TestIo<C> {
    type Udp = FakeUdp;
    type Tun = FakeTun;
    type Workers = TestWorkers<C::Job>;

    fn udp(&mut self, family: Family) -> Option<&mut Watched<FakeUdp>> {
        match family {
            Family::V4 => self.v4.as_mut(),
            Family::V6 => self.v6.as_mut(),
        }
    }

    fn tun(&mut self) -> &mut Watched<FakeTun> {
        &mut self.tun
    }

    fn workers(&mut self) -> &mut TestWorkers<C::Job> {
        &mut self.workers
    }

    fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    fn next_command(&mut self) -> Option<Command<C::FromPortal>> {
        self.commands.pop_front()
    }

    fn has_room(&self) -> bool {
        self.outputs.len() < self.room
    }

    fn deliver(&mut self, output: Output<C>) {
        assert!(self.has_room());
        self.outputs.push(output);
    }

    fn elapsed(&self) -> Duration {
        self.elapsed.set(self.elapsed.get() + self.tick);

        self.elapsed.get()
    }
}

/// Whoever runs the jobs.
pub(super) enum TestWorkers<J> {
    Inline(Inline<J>),
    Shuffled(Shuffled<J>),
}

impl<J: Job> Workers<J> for TestWorkers<J> {
    fn submit(&mut self, job: J) {
        match self {
            Self::Inline(workers) => workers.submit(job),
            Self::Shuffled(workers) => workers.submit(job),
        }
    }

    fn finished(&mut self) -> Option<J> {
        match self {
            Self::Inline(workers) => workers.finished(),
            Self::Shuffled(workers) => workers.finished(),
        }
    }

    fn is_busy(&self) -> bool {
        match self {
            Self::Inline(workers) => workers.is_busy(),
            Self::Shuffled(workers) => workers.is_busy(),
        }
    }
}

/// Finishes jobs in any order, after any number of questions whether one is done.
pub(super) struct Shuffled<J> {
    /// The most jobs that ever were under way at once.
    pub(super) most: usize,
    under_way: Vec<J>,
    random: Random,
}

impl<J> Shuffled<J> {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            most: 0,
            under_way: Vec::new(),
            random: Random(seed),
        }
    }
}

impl<J: Job> Workers<J> for Shuffled<J> {
    fn submit(&mut self, job: J) {
        self.under_way.push(job);
        self.most = self.most.max(self.under_way.len());
    }

    fn finished(&mut self) -> Option<J> {
        if self.under_way.is_empty() || !self.random.one_in(3) {
            return None;
        }
        let index = self.random.below(self.under_way.len());
        let mut job = self.under_way.swap_remove(index);
        job.run();

        Some(job)
    }

    fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }
}

/// Numbers that look random (SplitMix64).
#[derive(Clone, Debug)]
pub(in super::super) struct Random(pub(in super::super) u64);

impl Random {
    pub(in super::super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);

        mixed ^ (mixed >> 31)
    }

    pub(in super::super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(in super::super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A loop, its devices and a clock.
pub(super) struct Rig {
    pub(super) event_loop: EventLoop<TestCore>,
    pub(super) io: TestIo,
    pub(super) now: Instant,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self {
            event_loop: EventLoop::new(TestCore::new(), 7),
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

    /// A turn whose errors don't matter.
    pub(super) fn turn_anyhow(&mut self) -> Wait {
        let mut wait = self.turn_with_errors();
        wait.errors.drain().count();

        wait
    }

    /// Turns without errors for as long as there is something to do at once; how many it took.
    pub(super) fn settle(&mut self) -> usize {
        (1..)
            .find(|turns| {
                assert!(*turns < 10_000, "it never comes to rest");
                self.turn().until != Some(self.now)
            })
            .unwrap()
    }

    /// When the loop has to come back, housekeeping not counted.
    pub(super) fn due_at(&self, wait: &Wait) -> Option<Instant> {
        let trims_at = self.event_loop.housekeeping.due_at();

        wait.until.filter(|at| Some(*at) != trims_at)
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

    /// Lets the host send a packet.
    pub(super) fn send(&mut self, packet: Vec<u8>) {
        self.io.tun().push_packet(packet);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has to begin at some time"
)]
pub(super) fn start() -> Instant {
    Instant::now()
}
