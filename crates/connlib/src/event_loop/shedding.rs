//! What a relay does when more arrives than it can carry.
//!
//! Reading costs about as much as carrying. A loop that reads everything, to drop most of it, carries next to nothing; one that reads
//! what it carries leaves a standing queue in the socket, in which requests wait behind megabytes of data. So it reads a little
//! ahead, and when there is still more in the socket for a while, it reads that with buffers for small datagrams alone: the kernel
//! drops what is longer without copying it, and requests and sparse flows get through.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_os::udp::{MAX_TRAINS, RecvBatch, Udp};
use connlib_wire::buffer::Pool;

use super::Watched;
use super::arrivals::{Arrivals, Sender};
use super::stats::{DropReason, Stats};

/// How much is read ahead: some turns' work.
pub(super) const AHEAD: usize = 1024 * 1024;

/// How much is read in any case: of a sender of whom little waits it may replace what waits of others. In bytes, so that who sends small
/// datagrams keeps nobody's trains from being read.
pub(super) const LEAST: usize = 256 * 1024;

/// How long more may stand in the socket without a break: a program that had no processor for a while finds as much, and can
/// carry it.
const PATIENCE: Duration = Duration::from_millis(20);

/// The same once it is known that more comes than can be carried: a request waits no longer than that.
const PATIENCE_UNDER_LOAD: Duration = Duration::from_millis(2);

/// For how long that is known.
const HOLD: Duration = Duration::from_millis(100);

/// What is no longer is kept: every request, and what travels alone through an Ethernet.
const SMALL: usize = 2_048;

/// How often a turn reads so: more than arrives in one.
const MAX_RECEIVES: usize = 32;

/// The emptying of one socket.
#[derive(Debug)]
pub(super) struct Shedding {
    batch: RecvBatch,
    /// Since when there was more than is read ahead.
    pressed_since: Option<Instant>,
    /// Until when an overload counts as one that goes on.
    until: Option<Instant>,
}

impl Shedding {
    pub(super) fn new() -> Self {
        Self {
            batch: RecvBatch::new(Pool::new(SMALL, MAX_TRAINS), MAX_TRAINS),
            pressed_since: None,
            until: None,
        }
    }

    /// Looks at what is left in a socket after enough was read ahead, and empties it if that has been so for a while.
    pub(super) fn relieve<U: Udp>(
        &mut self,
        now: Instant,
        socket: &mut Watched<U>,
        arrivals: &mut Arrivals,
        sender_of: impl Fn(SocketAddr) -> Sender,
        stats: &mut Stats,
    ) {
        if !socket.ready.readable {
            self.pressed_since = None;
            return;
        }
        let since = *self.pressed_since.get_or_insert(now);
        let patience = match self.until.is_some_and(|until| now < until) {
            true => PATIENCE_UNDER_LOAD,
            false => PATIENCE,
        };
        if now < since + patience {
            return;
        }

        self.until = Some(now + HOLD);
        self.pressed_since = None;
        for _ in 0..MAX_RECEIVES {
            // Whatever is wrong, the next ordinary read finds out.
            if socket.device.recv(&mut self.batch).is_err() {
                return;
            }
            stats.count_dropped(DropReason::ArrivalsFull, self.batch.refused());
            let stood_for = self.batch.stood_for().unwrap_or_default();
            while let Some(received) = self.batch.pop() {
                let sender = sender_of(received.from);
                arrivals.push(now, stood_for, received, sender, stats);
            }
            if self.batch.is_exhausted() {
                socket.ready.readable = false;
                return;
            }
        }
    }

    /// Lets memory go that a load has left behind.
    pub(super) fn trim(&mut self) {
        self.batch.trim();
    }
}
