//! The loop of a relay: many sockets, no TUN device.
//!
//! The same shape as the [other loop](super): each turn serves the timer, both listen sockets and the allocations' sockets
//! within budgets of their own, starting with another one each time. Each socket has a queue of its own, so that a full or
//! broken one holds up nobody else.
//!
//! Clients take turns by a deficit round robin wherever they share something: data that came to a listen socket
//! (`arrivals`), the allocations' sockets (`rounds`), and data that waits for a listen socket (`backlog`). Requests don't wait behind data, not even their own client's, nor do answers.

mod backlog;
mod exchange;
mod rounds;

use std::io;
use std::time::{Duration, Instant};

use connlib_os::udp::{MAX_TRAIN_BYTES, RecvBatch, Udp};
use connlib_relay::{AllocationPort, Claim, Server, Via};
use connlib_wire::buffer::Pool;
use connlib_wire::stun::Family;

use super::arrivals::{Order, Sender, cost_of};
use super::budget::Budget;
use super::errors::Errors;
use super::housekeeping::Housekeeping;
use super::ingress::Ingress;
use super::io::Watched;
use super::stats::Stats;
use super::{FAMILIES, PerFamily};
use exchange::Exchange;

/// What the outside gives a relay's loop.
pub trait RelayIo {
    /// Its sockets.
    type Udp: Udp;

    /// A socket that is open. Those of the listen port always are, unless the machine lacks that IP version.
    fn socket(&mut self, via: Via) -> Option<&mut Watched<Self::Udp>>;

    /// Binds the socket of an allocation's port.
    ///
    /// # Errors
    ///
    /// It can't be bound; the relay does without.
    fn open(&mut self, port: AllocationPort, family: Family) -> io::Result<()>;

    /// Closes the socket of an allocation's port, if it is open.
    fn close(&mut self, port: AllocationPort, family: Family);

    /// Takes a socket whose flags were set since the last turn; each once. A socket that was just opened is one.
    fn next_ready(&mut self) -> Option<Via>;

    /// The time of day, as what has passed since 1970.
    fn unix(&self) -> Duration;

    /// How long the turn has taken.
    fn elapsed(&self) -> Duration;
}

/// How long a turn carries what clients sent, however long reading it took: some trains.
const MIN_CARRYING: Duration = Duration::from_micros(50);

/// Trains per receive of an allocation's socket: one budget's worth of full ones.
const ALLOCATION_TRAINS: usize = 4;

/// What to do between two turns of a relay's loop.
#[derive(Debug)]
#[must_use = "it says when to come back, and what went wrong"]
pub struct Wait {
    /// The latest time of the next turn; a time that has come means at once. A socket that becomes ready ends the wait.
    pub until: Option<Instant>,
    /// A load has ended, and what it needed was freed: a good time to give memory back to the system.
    pub load_is_over: bool,
    /// What went wrong in this turn.
    pub errors: Errors,
}

/// Drives a [`Server`]. See the [module](self).
#[derive(Debug)]
pub struct RelayLoop {
    exchange: Exchange,
    listen: PerFamily<Ingress>,
    /// What an allocation's socket received; handled whole.
    batch: RecvBatch,
    housekeeping: Housekeeping,
    first: usize,
    /// Never served, so that tests can tell whether they would notice.
    #[cfg(test)]
    skipped: Option<Source>,
}

impl RelayLoop {
    /// Creates a loop around `server`. Use fresh entropy for `seed` but in tests: it keeps clients from knowing who waits
    /// with whom.
    pub fn new(server: Server, seed: u64) -> Self {
        Self {
            exchange: Exchange::new(server),
            listen: PerFamily {
                v4: Ingress::new(seed, Order::RequestsApart),
                v6: Ingress::new(seed, Order::RequestsApart),
            },
            batch: RecvBatch::new(
                Pool::new(MAX_TRAIN_BYTES, ALLOCATION_TRAINS),
                ALLOCATION_TRAINS,
            ),
            housekeeping: Housekeeping::default(),
            first: 0,
            #[cfg(test)]
            skipped: None,
        }
    }

    /// The state machine.
    pub fn server(&self) -> &Server {
        &self.exchange.server
    }

    /// From now on the server makes no new allocation ([`Server::drain`]).
    pub fn drain(&mut self) {
        self.exchange.server.drain();
    }

    /// Who shall be forgotten by other servers ([`Server::poll_claim`]); asked after each turn.
    pub fn poll_claim(&mut self) -> Option<Claim> {
        self.exchange.server.poll_claim()
    }

    /// Forgets who is another server's now ([`Server::yield_to`]); the next turn closes ports.
    pub fn yield_to(&mut self, claim: &Claim) {
        self.exchange.server.yield_to(claim);
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.exchange.stats
    }

    /// Takes one turn; `now` must never go back.
    pub fn turn(&mut self, now: Instant, io: &mut impl RelayIo) -> Wait {
        let mut errors = Errors::new();
        self.exchange.stats.turns += 1;
        while let Some(via) = io.next_ready() {
            if let Via::Allocation(port, family) = via {
                self.exchange.rounds.list((port, family));
            }
        }
        self.exchange.flush(now, io, &mut errors);
        let load_is_over = self.housekeeping.is_due(now) && self.trim(now);

        let first = self.first;
        self.first = (first + 1) % Source::ALL.len();
        let rotated = Source::ALL.into_iter().cycle().skip(first);
        for (left, source) in (1..=Source::ALL.len()).rev().zip(rotated) {
            #[cfg(test)]
            if self.skipped == Some(source) {
                continue;
            }
            match source {
                Source::Timer => self.exchange.take_timeout(now),
                Source::ListenV4 => self.take_clients(now, io, Family::V4, left, &mut errors),
                Source::ListenV6 => self.take_clients(now, io, Family::V6, left, &mut errors),
                Source::Allocations => {
                    let budget = Budget::share(io.elapsed(), left);
                    self.take_peers(now, io, budget, &mut errors);
                }
            }
            self.exchange.carry_out(now, io, &mut errors);
        }

        Wait {
            until: self.due_at(now, io),
            load_is_over,
            errors,
        }
    }

    /// Lets pooled memory go that was not needed lately. Returns whether a load is over.
    fn trim(&mut self, now: Instant) -> bool {
        for family in FAMILIES {
            self.listen.of_mut(family).trim();
        }
        self.batch.trim();
        self.exchange.trim();

        self.housekeeping.trimmed(now)
    }

    fn take_clients(
        &mut self,
        now: Instant,
        io: &mut impl RelayIo,
        family: Family,
        sources_left: usize,
        errors: &mut Errors,
    ) {
        let unix = io.unix();
        let ingress = self.listen.of_mut(family);
        let Exchange { server, stats, .. } = &mut self.exchange;
        let sender_of = |from| match server.serves(from) {
            true => Sender::Known,
            false => Sender::Stranger,
        };
        if let Some(socket) = io.socket(Via::Listen(family)) {
            ingress.receive(now, socket, sender_of, stats, errors);
        }
        // What was read is to be carried as well: reading alone may take all of a source's time.
        let mut budget = Budget::share_of_at_least(io.elapsed(), sources_left, MIN_CARRYING);
        while let Some(next) = ingress.take(now, &mut self.exchange.stats) {
            let arrival = next.received.arrival();
            budget.spend(arrival.datagrams().count(), arrival.bytes.len());
            self.housekeeping.traffic(now);
            self.exchange.handle_client(now, unix, io, &arrival, errors);
            if budget.is_spent(io.elapsed()) {
                return;
            }
        }
    }

    /// Reads allocations' sockets in turn, each as many bytes as the others.
    fn take_peers(
        &mut self,
        now: Instant,
        io: &mut impl RelayIo,
        mut budget: Budget,
        errors: &mut Errors,
    ) {
        let exchange = &mut self.exchange;
        let mut has_served = false;
        while let Some((port, family)) = exchange.rounds.front() {
            let socket = io.socket(Via::Allocation(port, family));
            let Some(socket) = socket.filter(|socket| socket.ready.readable) else {
                exchange.rounds.leave();
                continue;
            };
            budget.spend(1, 0);
            match socket.device.recv(&mut self.batch) {
                Ok(_) => {
                    let is_exhausted = self.batch.is_exhausted();
                    socket.ready.readable = !is_exhausted;
                    exchange.has_received(port, family);
                    while let Some(received) = self.batch.pop() {
                        exchange.rounds.has_read(cost_of(&received));
                        let arrival = received.arrival();
                        budget.spend(arrival.datagrams().count(), arrival.bytes.len());
                        self.housekeeping.traffic(now);
                        exchange.handle_peer(now, io, port, &arrival, errors);
                    }
                    if is_exhausted {
                        exchange.rounds.leave();
                    }
                    has_served = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.ready.readable = false;
                    exchange.rounds.leave();
                    // Each turn handles one batch at least, and this was none.
                    if !has_served {
                        continue;
                    }
                }
                Err(error) => {
                    exchange.rounds.leave();
                    exchange.handle_peer_error(now, io, (port, family), error, errors);
                }
            }
            if budget.is_spent(io.elapsed()) {
                return;
            }
        }
    }

    fn due_at(&self, now: Instant, io: &mut impl RelayIo) -> Option<Instant> {
        if self.exchange.is_busy(now, io) {
            return Some(now);
        }
        for family in FAMILIES {
            let socket = io.socket(Via::Listen(family));
            let is_readable = socket.is_some_and(|socket| socket.ready.readable);
            if self.listen.of(family).is_ready(now, is_readable) {
                return Some(now);
            }
        }
        let pauses = FAMILIES
            .into_iter()
            .filter_map(|family| self.listen.of(family).due_at());
        let own = [self.exchange.due_at(now), self.housekeeping.due_at()];

        own.into_iter().flatten().chain(pauses).min()
    }
}

/// What a turn serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    Timer,
    ListenV4,
    ListenV6,
    Allocations,
}

impl Source {
    const ALL: [Self; 4] = [
        Self::Timer,
        Self::ListenV4,
        Self::ListenV6,
        Self::Allocations,
    ];
}

#[cfg(test)]
mod tests;
