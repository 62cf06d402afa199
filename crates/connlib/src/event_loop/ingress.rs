//! What a socket received, and sources that only fail.

use std::io;
use std::time::{Duration, Instant};

use connlib_os::udp::{MAX_TRAIN_BYTES, RecvBatch, Udp};
use connlib_wire::buffer::Pool;
use connlib_wire::stun::Family;
use connlib_wire::train::Received;

use super::Watched;
use super::codel::Codel;
use super::errors::{Degraded, Error, Errors};
use super::stats::{Stats, is_lost};

/// The trains of one receive, some of which may be left for the next turn.
#[derive(Debug)]
pub(super) struct Ingress {
    batch: RecvBatch,
    pool: Pool,
    patience: Patience,
    codel: Codel,
    /// How many packets are to tell their senders that the socket's buffer stands.
    tells: u32,
}

/// How long a datagram may wait in a socket's buffer that stands. Less than in our own queues: everybody waits in it alike,
/// sparse flows, checks and handshakes too.
const TARGET: Duration = Duration::from_millis(1);

/// How long such a buffer may stand before a sender is told. It stands only while this machine's processor is what holds
/// everybody up, and a short round trip is enough to hear of it (measured: with 100 ms, four streams each way keep it at
/// four milliseconds).
const INTERVAL: Duration = Duration::from_millis(20);

/// Trains per receive: enough to make the system call cheap, few enough for two sockets to keep in memory.
const TRAINS: usize = 8;

/// How many trains' memory is kept for the next ones.
const IDLE_TRAINS: usize = 32;

impl Ingress {
    pub(super) fn new() -> Self {
        let pool = Pool::new(MAX_TRAIN_BYTES, IDLE_TRAINS);

        Self {
            batch: RecvBatch::new(pool.clone(), TRAINS),
            pool,
            patience: Patience::default(),
            codel: Codel::new(TARGET, INTERVAL),
            tells: 0,
        }
    }

    /// Whether there is something to handle without asking the socket.
    pub(super) fn has_more(&self) -> bool {
        !self.batch.is_empty()
    }

    /// How many trains there are to handle without asking the socket.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.batch.len()
    }

    /// Whether a turn at `now` would handle anything.
    pub(super) fn is_ready(&self, now: Instant, is_readable: bool) -> bool {
        self.has_more() || (is_readable && self.patience.is_ready(now))
    }

    /// When to ask a socket again that only fails.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.patience.paused_until
    }

    /// The next train.
    pub(super) fn take(&mut self) -> Option<Received> {
        self.batch.pop()
    }

    /// Asks the socket for more; whether it is worth to go on.
    pub(super) fn receive<U: Udp>(
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
            if let Some(stood_for) = self.batch.stood_for() {
                stats.stood.record(stood_for);
                let tells = self.codel.judge(now, stood_for, self.batch.is_exhausted());
                self.tells += u32::from(tells);
            }
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

    /// Whether a packet of what was received last is to tell its sender to slow down; each time once.
    pub(super) fn tells(&mut self) -> bool {
        let tells = self.tells > 0;
        self.tells = self.tells.saturating_sub(1);

        tells
    }

    /// Lets memory go that a load has left behind.
    pub(super) fn trim(&mut self) {
        self.pool.trim();
    }

    /// Forgets what is left.
    pub(super) fn clear(&mut self) {
        self.batch.clear();
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
