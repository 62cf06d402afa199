//! No source starves, whatever the others do and whatever the devices do.
//!
//! `SEEDS=10000` runs as many worlds as the promise is made for; it takes half a minute.

use std::io;

use super::super::{Command, Degraded, Error, MAX_JOBS, Source};
use super::*;

/// In how many turns a ready source is served at the latest.
const TURNS: usize = 2;

/// The sources of a turn, and what comes after reading: packets that wait to be sealed.
const ALL: usize = Source::ALL.len() + 1;

#[test]
fn every_ready_source_is_served_within_two_turns() {
    for seed in 0..seeds(300) {
        if let Err(starved) = World::new(seed, None).run() {
            panic!("seed {seed}: {starved}");
        }
    }
}

#[test]
fn a_loop_that_skips_a_source_is_found_out() {
    for source in Source::ALL {
        let starved = (0..20).find_map(|seed| World::new(seed, Some(source)).run().err());

        let starved = starved.unwrap_or_else(|| panic!("nobody noticed that {source:?} starved"));
        assert!(starved.starts_with(&format!("{source:?}")), "{starved}");
    }
}

/// How many worlds to try.
pub(in super::super) fn seeds(default: u64) -> u64 {
    let set = std::env::var("SEEDS").ok();

    set.map_or(default, |seeds| seeds.parse().unwrap())
}

/// A loop under loads and faults that a seed decides on. It is woken as a poller would wake it.
struct World {
    rig: Rig,
    random: Random,
    /// The probability, one in so many, of each kind of event in a step.
    rates: [usize; 8],
    tun: TunState,
    /// For how many turns in a row each source was ready and not served.
    waits: [usize; ALL],
    next: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum TunState {
    Late,
    There,
    Gone,
}

impl World {
    fn new(seed: u64, skipped: Option<Source>) -> Self {
        let mut random = Random(seed);
        let mut rig = Rig::new();
        rig.event_loop.skipped = skipped;
        if random.one_in(3) {
            rig.io.workers = TestWorkers::Shuffled(Shuffled::new(seed));
        }
        rig.core().train_len = 1 + random.below(40);
        rig.core().is_stuck = random.one_in(10);
        let slow = [0, 0, 20, 120, 600];
        rig.io.tick = Duration::from_micros(slow[random.below(slow.len())]);
        let tun = if random.one_in(5) {
            rig.io.tun().storm_read(u64::MAX);
            TunState::Late
        } else {
            TunState::There
        };

        Self {
            rates: std::array::from_fn(|_| [1, 1, 2, 5][random.below(4)]),
            rig,
            random,
            tun,
            waits: [0; ALL],
            next: 0,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let steps = 4 + self.random.below(8);
        for _ in 0..steps {
            self.load();
            self.break_things();
            let by = Duration::from_micros(self.random.below(6_000) as u64);
            self.rig.advance(by);
            // Once more before anything happens, or a loop that needs to be asked twice would not be found out.
            for _ in 0..=self.random.below(2) {
                self.step()?;
            }
        }

        Ok(())
    }

    fn load(&mut self) {
        let mut happens = self.rates.map(|rate| self.random.one_in(rate));
        happens[3] &= self.tun != TunState::Gone;
        // More than the budgets of one turn, now and then.
        let amounts = [6, 6, 70, 280].map(|all| match self.random.below(8) {
            0 => all,
            1 => all / 4,
            _ => 1 + self.random.below(3),
        });
        for (family, index) in [(Family::V4, 0), (Family::V6, 1)] {
            for _ in 0..amounts[index] {
                if happens[index] {
                    let numbers = self.next..self.next + 1 + self.random.below(64) as u16;
                    self.next = numbers.end % 10_000;
                    let train = train_of(family, numbers);
                    self.rig.io.socket(family).inbox.push_back(train);
                }
            }
        }
        for _ in 0..amounts[2] {
            if happens[2] {
                let message = [SAY, TELL, ANSWER, PROBE, 3][self.random.below(5)];
                self.rig.command(Command::Portal(message));
            }
        }
        for _ in 0..amounts[3] {
            if happens[3] {
                let family = [4, 6][self.random.below(2)];
                let flow = self.random.below(5) as u8;
                let len = [20, 1_400, 60_000][self.random.below(12).saturating_sub(9)];
                self.next = (self.next + 1) % 10_000;
                let packet = flow_packet(family, flow % 2, flow, self.next);
                self.rig.send(sized(packet, len));
            }
        }
        if happens[4] {
            self.rig.core().deadline = Some(self.rig.now);
        }
    }

    fn break_things(&mut self) {
        let happens = self.rates.map(|rate| self.random.one_in(3 * rate));
        let room = [0, 1, 10, usize::MAX, usize::MAX][self.random.below(5)];
        let calls = self.random.below(4) as u64;
        let kind = [
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::Interrupted,
            io::ErrorKind::WouldBlock,
            io::ErrorKind::Other,
        ][self.random.below(4)];
        let family = [Family::V4, Family::V6][self.random.below(2)];
        let io = &mut self.rig.io;
        if happens[0] {
            let queued = io.socket(family).queued();
            io.socket(family).limit_queue(queued.saturating_add(room));
            io.socket(family).limit_accept(room.max(1));
        }
        if happens[1] {
            io.socket(family).storm_send(calls);
            io.socket(family).storm_recv(calls);
        }
        if happens[2] {
            io.socket(family).fail_send(calls, kind.into());
            io.socket(family).fail_recv(calls, kind.into());
        }
        if happens[3] && self.tun == TunState::There {
            io.tun().storm_read(calls);
            io.tun().storm_write(calls);
        }
        if happens[4] {
            io.tun().fail_read(calls, kind.into());
            io.tun().fail_write(calls, kind.into());
        }
        if happens[5] {
            let written = io.tun().outbox.len();
            io.tun().limit_outbox(written.saturating_add(room));
        }
        if happens[6] {
            io.room = io.outputs.len().saturating_add(room);
        }
        match self.tun {
            TunState::Late if self.random.one_in(3) => {
                self.rig.io.tun().storm_read(0);
                self.tun = TunState::There;
            }
            TunState::There if self.random.one_in(40) => {
                self.rig.io.tun().vanish();
                self.tun = TunState::Gone;
            }
            TunState::Late | TunState::There | TunState::Gone => {}
        }
    }

    /// A turn, if the loop wants one; then who still waits.
    fn step(&mut self) -> Result<(), String> {
        self.poll();
        let ready = self.ready();
        self.rig.core().seen.clear();
        let before = self.progress();
        let mut asked = [false; ALL];
        // Every source that is ready ends a wait, so a turn is due if one is.
        let mut wait = self.rig.event_loop.turn(self.rig.now, &mut self.rig.io);
        for error in wait.errors.drain() {
            match error {
                Error::Degraded(Degraded::NotReceived {
                    family: Family::V4, ..
                }) => {
                    asked[Source::UdpV4 as usize] = true;
                }
                Error::Degraded(Degraded::NotReceived {
                    family: Family::V6, ..
                }) => {
                    asked[Source::UdpV6 as usize] = true;
                }
                Error::Degraded(_) | Error::Fatal(_) => asked[Source::Tun as usize] = true,
                Error::PerPacket(_) => {}
            }
        }
        self.check_wait(&wait)?;

        let after = self.progress();
        let flags = self.readable();
        // A command may have moved the deadline before it was the timer's turn.
        asked[Source::Timer as usize] = !self.ready()[Source::Timer as usize];
        for index in 0..ALL {
            // A device that was asked and said that it would block has been served.
            let was_told = flags.get(index).is_some_and(|flag| *flag == Some(false));
            let is_served = after[index] > before[index] || asked[index] || was_told;
            self.waits[index] = match ready[index] && !is_served {
                true => self.waits[index] + 1,
                false => 0,
            };
            if self.waits[index] >= TURNS {
                let name = Source::ALL.get(index).map(|source| format!("{source:?}"));
                let name = name.unwrap_or_else(|| "Tun (sealing)".to_owned());
                return Err(format!("{name} starves: {ready:?} {before:?} {after:?}"));
            }
        }

        Ok(())
    }

    /// Nothing that can be done now is put off.
    fn check_wait(&mut self, wait: &Wait) -> Result<(), String> {
        let now = self.rig.now;
        let mut ready = self.ready();
        // Its own timer it may put off, if it wants a turn at once again and again.
        ready[Source::Timer as usize] = false;
        if ready.contains(&true) && wait.until != Some(now) {
            return Err(format!("it waits with {ready:?} until {:?}", wait.until));
        }

        Ok(())
    }

    /// Sets the flags of devices that have become ready.
    fn poll(&mut self) {
        let io = &mut self.rig.io;
        let has_packets = !io.tun().inbox.is_empty() && self.tun != TunState::Late;
        io.tun.ready.readable |= has_packets || self.tun == TunState::Gone;
        io.tun.ready.writable = true;
        for socket in [&mut io.v4, &mut io.v6].into_iter().flatten() {
            socket.ready.readable |= !socket.device.inbox.is_empty();
            socket.ready.writable = true;
        }
        io.start_turn();
    }

    fn ready(&mut self) -> [bool; ALL] {
        let now = self.rig.now;
        let event_loop = &self.rig.event_loop;
        let paused = |at: Option<Instant>| at.is_some_and(|at| at > now);
        let has_left = |family| event_loop.ingress.of(family).left() > 0;
        let due = event_loop.core.deadline.is_some_and(|at| at <= now);
        let v4_paused = paused(event_loop.ingress.v4.due_at());
        let v6_paused = paused(event_loop.ingress.v6.due_at());
        let tun_paused = paused(event_loop.tun.due_at());
        let seals = event_loop
            .fair
            .has_any(|lane| event_loop.may_send(now, lane));
        let (left_v4, left_v6) = (has_left(Family::V4), has_left(Family::V6));
        let readable = self.readable().map(|flag| flag == Some(true));
        // Sockets wait while as many jobs as may be are under way.
        let takes = event_loop.jobs.opening < MAX_JOBS;
        let io = &mut self.rig.io;

        [
            !io.commands.is_empty(),
            due,
            takes && (left_v4 || (readable[2] && !io.v4().inbox.is_empty() && !v4_paused)),
            takes && (left_v6 || (readable[3] && !io.v6().inbox.is_empty() && !v6_paused)),
            readable[4] && !io.tun().inbox.is_empty() && !tun_paused,
            seals,
        ]
    }

    /// What each device is known to be ready for.
    fn readable(&self) -> [Option<bool>; 5] {
        let of = |socket: &Option<Watched<FakeUdp>>| socket.as_ref().map(|s| s.ready.readable);
        let io = &self.rig.io;

        [
            None,
            None,
            of(&io.v4),
            of(&io.v6),
            Some(io.tun.ready.readable),
        ]
    }

    /// Counts up whenever a source is served.
    fn progress(&mut self) -> [u64; ALL] {
        let stats = self.rig.event_loop.stats();
        let unsealed = DropReason::WaitedTooLong;
        let sealed = stats.dropped(unsealed) + stats.dropped(DropReason::QueueStands);
        let read = stats.packets_read;
        let core = self.rig.core();
        let of = |core: &TestCore, version| {
            let is_it =
                |seen: &Seen| matches!(seen, Seen::Datagram(bytes) if family_of(bytes) == version);
            core.count(is_it) as u64
        };
        let is_command = |seen: &Seen| matches!(seen, Seen::Message(_));
        let is_packet = |seen: &Seen| matches!(seen, Seen::Packet(_));

        [
            core.count(is_command) as u64,
            core.count(|seen| *seen == Seen::Timeout) as u64,
            of(core, 4),
            of(core, 6),
            read,
            sealed + core.count(is_packet) as u64,
        ]
    }
}
