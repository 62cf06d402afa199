//! What a socket received, and sources that only fail.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_os::udp::{MAX_TRAIN_BYTES, RecvBatch, Udp};
use connlib_wire::buffer::Pool;
use connlib_wire::stun::Family;

use super::Watched;
use super::arrivals::{Arrivals, Next, Order, Place, Sender};
use super::errors::{Degraded, Error, Errors};
use super::shedding::{AHEAD, LEAST, Shedding};
use super::stats::{Stats, is_lost};

/// What one socket has received, some of which may be left for the next turn.
#[derive(Debug)]
pub(super) struct Ingress {
    batch: RecvBatch,
    pool: Pool,
    patience: Patience,
    arrivals: Arrivals,
    /// For whom reading costs as much as what comes after it.
    shedding: Option<Shedding>,
}

/// Trains per receive: enough to make the system call cheap, few enough for two sockets to keep in memory.
const TRAINS: usize = 8;

/// How many receives a turn begins with, and after how many bytes it has enough: copying those takes no longer than opening
/// a few trains.
const MAX_RECEIVES: usize = 32;
const ENOUGH: usize = 1024 * 1024;

/// How many trains' memory is kept for the next ones.
const IDLE_TRAINS: usize = 64;

impl Ingress {
    /// Nothing was received yet; see [`Arrivals::new`] for the rest.
    pub(super) fn new(seed: u64, order: Order) -> Self {
        let pool = Pool::new(MAX_TRAIN_BYTES, IDLE_TRAINS);

        Self {
            batch: RecvBatch::new(pool.clone(), TRAINS),
            pool,
            patience: Patience::default(),
            arrivals: Arrivals::new(seed, order),
            shedding: (order == Order::RequestsApart).then(Shedding::new),
        }
    }

    /// How many trains there are to handle without asking the socket.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.arrivals.len()
    }

    /// Whether a turn at `now` would handle anything.
    pub(super) fn is_ready(&self, now: Instant, is_readable: bool) -> bool {
        !self.arrivals.is_empty() || (is_readable && self.patience.is_ready(now))
    }

    /// When to ask a socket again that only fails.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.patience.paused_until
    }

    /// The train whose turn it is.
    pub(super) fn take(&mut self, now: Instant, stats: &mut Stats) -> Option<Next> {
        let next = self.arrivals.pop(now)?;
        stats.stood.record(next.waited);

        Some(next)
    }

    /// Whether all has been taken that came before a train.
    pub(super) fn is_past(&self, place: Place) -> bool {
        self.arrivals.is_past(place)
    }

    /// Empties the socket, so that what waits, waits here; of a relay's, reads ahead a little, and sees to it that no more stands
    /// for long.
    pub(super) fn receive<U: Udp>(
        &mut self,
        now: Instant,
        socket: &mut Watched<U>,
        sender_of: impl Fn(SocketAddr) -> Sender,
        stats: &mut Stats,
        errors: &mut Errors,
    ) {
        let mut bytes = 0;
        for _ in 0..MAX_RECEIVES {
            if self.shedding.is_some() && bytes >= LEAST && self.arrivals.held() >= AHEAD {
                break;
            }
            let goes_on = self.receive_once(now, socket, stats, errors);
            let stood_for = self.batch.stood_for().unwrap_or_default();
            while let Some(received) = self.batch.pop() {
                bytes += received.bytes.len();
                let sender = sender_of(received.from);
                self.arrivals.push(now, stood_for, received, sender, stats);
            }
            if !goes_on || bytes >= ENOUGH {
                break;
            }
        }
        if let Some(shedding) = &mut self.shedding
            && self.patience.is_ready(now)
        {
            shedding.relieve(now, socket, &mut self.arrivals, sender_of, stats);
        }
    }

    /// Asks the socket once; whether it is worth to go on.
    fn receive_once<U: Udp>(
        &mut self,
        now: Instant,
        socket: &mut Watched<U>,
        stats: &mut Stats,
        errors: &mut Errors,
    ) -> bool {
        if !socket.ready.readable || !self.patience.is_ready(now) {
            return false;
        }
        let Err(error) = socket.device.recv(&mut self.batch) else {
            self.patience.succeeded();
            socket.ready.readable = !self.batch.is_exhausted();
            return true;
        };
        if error.kind() == io::ErrorKind::WouldBlock {
            self.patience.succeeded();
            socket.ready.readable = false;
            return false;
        }

        stats.errors += 1;
        let addr = socket.device.local_addr();
        if is_lost(&error) {
            socket.ready.readable = false;
            errors.push(Error::Degraded(Degraded::SocketLost {
                addr,
                source: error,
            }));
            return false;
        }
        let family = Family::of(addr);
        tracing::debug!(?family, %error, "Nothing was received this time");
        errors.push(Error::Degraded(Degraded::NotReceived {
            family,
            source: error,
        }));

        self.patience.failed(now)
    }

    /// Lets memory go that a load has left behind.
    pub(super) fn trim(&mut self) {
        self.pool.trim();
        self.arrivals.trim();
        if let Some(shedding) = &mut self.shedding {
            shedding.trim();
        }
    }

    /// Forgets what is left.
    pub(super) fn clear(&mut self) {
        self.batch.clear();
        self.arrivals.clear();
    }
}

/// How often in a row a source may fail before it has to wait.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    failures: u32,
    pub(super) paused_until: Option<Instant>,
}

/// An error may be one of many that wait in a socket, each told once; but one that stays must not keep the loop busy.
pub(super) const MAX_FAILURES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(10);

impl Patience {
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Counts a failure; whether it is worth to try again at once.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures += 1;
        self.paused_until = None;
        if self.failures < MAX_FAILURES {
            return true;
        }
        self.failures = 0;
        self.paused_until = Some(now + PAUSE);

        false
    }
}
