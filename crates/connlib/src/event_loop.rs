//! The event loop: one step at a time, fair by construction.
//!
//! A [`turn`](EventLoop::turn) moves packets between devices and a state machine and says until when there is nothing to
//! do. It has no clock, no thread and no runtime: whoever calls it waits, with epoll or in virtual time, so that the loop
//! in a simulation is the loop.
//!
//! ```text
//!            commands   timer   UDP v4   UDP v6   TUN         each within its own budget,
//!               │         │        │        │      │          starting with another one each turn
//!               ▼         ▼        ▼        ▼      ▼
//!             ┌───────────────── Core ─────────────┐  fair
//!             │                                    │◄─ shares
//!             └──┬───────────────┬─────────┬───────┘
//!                │          jobs │ sealed, │ opened
//!                ▼               ▼         ▼       ▼
//!         messages, events     UDP v4    UDP v6   TUN         each with its own queue
//! ```
//!
//! What holds at the end of each turn:
//!
//! * Every source that was ready has been served, by at least one batch.
//! * An error has cost the packet it hit and nothing else; [`Errors`] has all of them.
//! * Whatever could be written has been written. A full device holds up its own packets alone, in order.
//! * [`Wait`] names the next deadline, whoever brought it about.

mod arrivals;
mod budget;
mod codel;
mod egress;
mod errors;
mod fair;
mod gathering;
mod housekeeping;
mod ingress;
mod io;
mod overtaking;
pub mod relay;
mod roles;
mod shedding;
mod stats;
mod traffic;
mod tun;
mod turns;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connlib_os::udp::Udp as _;
use connlib_tunnel::why::Question;
use connlib_wire::stun::Family;

pub use budget::{MAX_BYTES, MAX_PACKETS, MAX_TIME};
pub use errors::{Degraded, Error, Errors, Fatal, PerPacket};
pub use io::{
    Command, Core, Inline, Interest, Io, Job, JobKind, Output, PacketBatch, Ready, Told, Wait,
    Watched, Workers,
};
pub use stats::{DropReason, Histogram, Stats};

use arrivals::Order;
use budget::Budget;
use egress::{Egress, Report};
use fair::FairQueue;
use gathering::Gathering;
use housekeeping::Housekeeping;
use ingress::Ingress;
use overtaking::Overtaking;
use stats::Said;
use traffic::{MAX_JOBS, UnderWay};
use tun::TunQueue;

/// Drives a state machine. See the [module](self).
#[derive(Debug)]
pub struct EventLoop<C: Core> {
    core: C,
    packets: C::Packets,
    ingress: PerFamily<Ingress>,
    egress: PerFamily<Egress>,
    /// What is opened before others that came earlier.
    overtaking: Overtaking,
    tun: TunQueue,
    /// Packets of the TUN device that wait to be sealed.
    fair: FairQueue<C::Lane>,
    /// What outsiders must not know, or they could make other people's flows share a queue with theirs.
    flow_seed: u64,
    /// The jobs that are under way.
    jobs: UnderWay,
    housekeeping: Housekeeping,
    gathering: Gathering,
    /// How many packets are to tell their senders that they wait too long for being opened.
    tells: u32,
    /// The source that comes first in the next turn.
    first: usize,
    /// Turns in a row after which the core wanted another one at once.
    overdue: u32,
    stats: Stats,
    said: Said,
    /// Answers that wait for room, in the order of the questions.
    owed: VecDeque<Owed>,
    /// Never served, so that tests can tell whether they would notice.
    #[cfg(test)]
    skipped: Option<Source>,
}

/// The most bytes that wait for a socket before the TUN device is left alone: eight milliseconds at 1 Gbit/s.
const MAX_WAITING: usize = 1024 * 1024;

/// What a command costs of a source's budget of packets.
const COMMAND_COST: usize = 4;

/// A core that wants another turn at once, that many times in a row, gets it after a pause: it must not take the whole
/// processor.
const MAX_OVERDUE: u32 = 4;
const OVERDUE_PAUSE: Duration = Duration::from_millis(1);

impl<C: Core> EventLoop<C> {
    /// Creates a loop around `core`. Use fresh entropy for `flow_seed` but in tests.
    pub fn new(core: C, flow_seed: u64) -> Self {
        Self {
            core,
            packets: C::Packets::default(),
            ingress: PerFamily {
                v4: Ingress::new(flow_seed, Order::SmallFirst),
                v6: Ingress::new(flow_seed, Order::SmallFirst),
            },
            egress: PerFamily {
                v4: Egress::new(MAX_WAITING),
                v6: Egress::new(MAX_WAITING),
            },
            overtaking: Overtaking::new(flow_seed),
            tun: TunQueue::new(),
            fair: FairQueue::new(),
            flow_seed,
            jobs: UnderWay::default(),
            housekeeping: Housekeeping::default(),
            gathering: Gathering::default(),
            tells: 0,
            first: 0,
            overdue: 0,
            stats: Stats::default(),
            said: Said::default(),
            owed: VecDeque::new(),
            #[cfg(test)]
            skipped: None,
        }
    }

    /// The state machine.
    pub fn core(&self) -> &C {
        &self.core
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Whether everything that was to be sent has been handed to the sockets.
    pub fn is_flushed(&self) -> bool {
        let has_left = self.egress.v4.is_empty() && self.egress.v6.is_empty();

        has_left && self.fair.is_empty() && self.jobs == UnderWay::default()
    }

    /// Takes one turn; `now` must never go back.
    pub fn turn(&mut self, now: Instant, io: &mut impl Io<C>) -> Wait {
        let mut errors = Errors::new();
        self.stats.turns += 1;
        let read_before = self.stats.packets_read;
        // What could not be written before, and what others have done meanwhile, comes before anything new.
        self.work(now, io, &mut errors);
        self.flush(now, io, &mut errors);
        let load_is_over = self.housekeeping.is_due(now) && self.trim(now);

        let first = self.first;
        self.first = (first + 1) % Source::ALL.len();
        let rotated = Source::ALL.iter().cycle().skip(first);
        let is_ready = Source::ALL.map(|source| self.is_ready(now, io, source));
        let mut left = is_ready.iter().filter(|is_ready| **is_ready).count();

        for source in rotated.take(Source::ALL.len()) {
            if !is_ready.get(*source as usize).copied().unwrap_or_default() {
                continue;
            }
            #[cfg(test)]
            if self.skipped == Some(*source) {
                continue;
            }
            let budget = Budget::share(io.elapsed(), left);
            left = left.saturating_sub(1);
            match source {
                Source::Commands => self.take_commands(now, io, budget),
                Source::Timer => self.take_timeout(now),
                Source::UdpV4 => self.take_datagrams(now, io, Family::V4, budget, &mut errors),
                Source::UdpV6 => self.take_datagrams(now, io, Family::V6, budget, &mut errors),
                Source::Tun => self.take_packets(now, io, budget, &mut errors),
            }
            // At once: the kernel sends while the next source's bytes are deciphered.
            self.work(now, io, &mut errors);
            self.flush(now, io, &mut errors);
        }
        self.deliver(now, io);
        self.stats.turn_times.record(io.elapsed());
        let has_read = self.stats.packets_read - read_before;
        self.gathering.count(now, has_read);

        let timer_ran = is_ready
            .get(Source::Timer as usize)
            .copied()
            .unwrap_or_default();
        let mut wait = self.wait(now, io, timer_ran, errors);
        wait.load_is_over = load_is_over;

        wait
    }

    fn is_ready(&mut self, now: Instant, io: &mut impl Io<C>, source: Source) -> bool {
        match source {
            Source::Commands => io.has_commands(),
            Source::Timer => self.core.poll_timeout().is_some_and(|at| at <= now),
            Source::UdpV4 => self.has_datagrams(now, io, Family::V4),
            Source::UdpV6 => self.has_datagrams(now, io, Family::V6),
            Source::Tun => {
                self.tun.is_ready(now, io.tun().ready.readable)
                    || self.fair.has_any(|lane| self.may_send(now, lane))
            }
        }
    }

    fn has_datagrams(&self, now: Instant, io: &mut impl Io<C>, family: Family) -> bool {
        let is_readable = io.udp(family).is_some_and(|socket| socket.ready.readable);

        self.jobs.opening < MAX_JOBS && self.ingress.of(family).is_ready(now, is_readable)
    }

    fn take_commands(&mut self, now: Instant, io: &mut impl Io<C>, mut budget: Budget) {
        while let Some(command) = io.next_command() {
            match command {
                Command::Portal(message) => self.core.handle_message(now, message),
                Command::PortalState(state) => self.core.handle_portal_state(now, state),
                Command::Reset => {
                    for family in FAMILIES {
                        self.ingress.of_mut(family).clear();
                        self.egress.of_mut(family).clear();
                    }
                    self.fair.clear();
                    self.overtaking.clear();
                    self.core.reset(now);
                }
                // What waits is still good: should an address to send from be no more, it fails alone.
                Command::NetworkChanged => self.core.network_changed(now),
                Command::ShutDown => self.core.shut_down(now),
                Command::Status => self.owed.push_back(Owed::Status),
                Command::Explain(question) => self.owed.push_back(Owed::Explanation(question)),
                Command::Resolvers(resolvers) => self.core.set_resolvers(now, &resolvers),
                Command::Internet(is_wanted) => self.core.want_internet(now, is_wanted),
                Command::Exchanged(id, outcome) => self.core.handle_exchanged(now, id, outcome),
            }
            budget.spend(COMMAND_COST, 0);
            if budget.is_spent(io.elapsed()) {
                return;
            }
        }
    }

    fn take_timeout(&mut self, now: Instant) {
        if let Some(due_at) = self.core.poll_timeout() {
            let delay = now.saturating_duration_since(due_at);
            self.stats.timer_delays.record(delay);
        }
        self.core.handle_timeout(now);
    }

    /// Lets pooled memory go that was not needed lately. Returns whether a load is over.
    fn trim(&mut self, now: Instant) -> bool {
        self.tun.trim();
        self.overtaking.trim();
        for family in FAMILIES {
            self.ingress.of_mut(family).trim();
        }
        self.core.trim();

        self.housekeeping.trimmed(now)
    }

    /// Takes out of the core what is for the devices, and writes what they take.
    fn flush(&mut self, now: Instant, io: &mut impl Io<C>, errors: &mut Errors) {
        while let Some(train) = self.core.poll_control() {
            let family = Family::of(train.route.dst);
            self.egress
                .of_mut(family)
                .push_control(train, &mut self.stats);
        }
        while let Some(train) = self.core.poll_transmit() {
            let family = Family::of(train.route.dst);
            self.egress.of_mut(family).push(train, &mut self.stats);
        }

        let mut report = Report {
            stats: &mut self.stats,
            said: &mut self.said,
            errors,
        };
        for family in FAMILIES {
            let egress = self.egress.of_mut(family);
            match io.udp(family) {
                Some(socket) => egress.flush(now, socket, &mut report),
                None => egress.discard(DropReason::NoSocket, report.stats),
            }
            if let Some((route, datagram)) = egress.take_too_large() {
                self.core.handle_too_large(now, &route, datagram);
            }
        }
        self.tun.flush(io.tun(), &mut report);
        while let Some(packet) = self.core.poll_packet() {
            self.tun.write(io.tun(), &packet, &mut report);
        }
    }

    fn deliver(&mut self, now: Instant, io: &mut impl Io<C>) {
        while io.has_room() {
            let output = if let Some(event) = self.core.poll_event() {
                Output::Event(event)
            } else if let Some(message) = self.core.poll_message() {
                Output::Message(message)
            } else if let Some(owed) = self.owed.pop_front() {
                match owed {
                    Owed::Status => {
                        self.stats.backlogs = FAMILIES.map(|family| {
                            let socket = io.udp(family)?;
                            socket.device.backlog().ok()
                        });
                        Output::Status(self.core.status(now), Box::new(self.stats.clone()))
                    }
                    Owed::Explanation(question) => {
                        Output::Explained(self.core.explain(now, &question))
                    }
                }
            } else if let Some(exchange) = self.core.poll_exchange() {
                // Last, because programs can ask for as many as they like.
                Output::Exchange(exchange)
            } else {
                return;
            };
            io.deliver(output);
        }
    }

    fn wait(&mut self, now: Instant, io: &mut impl Io<C>, timer_ran: bool, errors: Errors) -> Wait {
        let mut core_due_at = self.core.poll_timeout();
        if timer_ran && core_due_at.is_some_and(|at| at <= now) {
            self.overdue = self.overdue.saturating_add(1);
        } else {
            self.overdue = 0;
        }
        if self.overdue >= MAX_OVERDUE {
            core_due_at = Some(now + OVERDUE_PAUSE);
        }

        let mut interest = Interest {
            tun: Ready {
                readable: true,
                writable: !self.tun.is_empty(),
            },
            ..Interest::default()
        };
        let trim_at = self.housekeeping.due_at();
        let mut due_at = [
            core_due_at,
            self.tun.due_at(),
            trim_at,
            None,
            None,
            None,
            None,
        ];
        for (family, slots) in FAMILIES.into_iter().zip(due_at[3..].chunks_mut(2)) {
            let (ingress, egress) = (self.ingress.of(family), self.egress.of(family));
            if let [receive, send] = slots {
                *receive = ingress.due_at();
                *send = egress.due_at(now);
            }
            if io.udp(family).is_some() {
                *interest.udp(family) = Ready {
                    readable: true,
                    writable: !egress.is_empty(),
                };
            }
        }
        let is_busy = self.is_busy(now, io);
        self.fair.is_pressed(is_busy);
        let until = due_at.into_iter().flatten().min();

        Wait {
            until: if is_busy { Some(now) } else { until },
            pause: self.gathering.pause().filter(|_| !is_busy),
            load_is_over: false,
            interest,
            errors,
        }
    }

    /// Whether another turn at once would find something to do, the core's own timer not counted.
    fn is_busy(&mut self, now: Instant, io: &mut impl Io<C>) -> bool {
        let sources = [Source::Commands, Source::UdpV4, Source::UdpV6, Source::Tun];
        let can_send = |egress: &Egress, socket: Option<&mut Watched<_>>| {
            egress.wants_to_flush(now)
                && socket.is_some_and(|socket: &mut Watched<_>| socket.ready.writable)
        };

        sources
            .into_iter()
            .any(|source| self.is_ready(now, io, source))
            || can_send(&self.egress.v4, io.udp(Family::V4))
            || can_send(&self.egress.v6, io.udp(Family::V6))
            || (!self.tun.is_empty() && io.tun().ready.writable)
            || (!self.owed.is_empty() && io.has_room())
    }
}

/// What somebody waits for.
#[derive(Debug)]
enum Owed {
    /// How it goes.
    Status,
    /// What would become of a packet.
    Explanation(Question),
}

/// What a turn serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    Commands,
    Timer,
    UdpV4,
    UdpV6,
    Tun,
}

impl Source {
    const ALL: [Self; 5] = [
        Self::Commands,
        Self::Timer,
        Self::UdpV4,
        Self::UdpV6,
        Self::Tun,
    ];
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// One of each IP version.
#[derive(Debug)]
struct PerFamily<T> {
    v4: T,
    v6: T,
}

impl<T> PerFamily<T> {
    fn of(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

#[cfg(test)]
mod tests;
