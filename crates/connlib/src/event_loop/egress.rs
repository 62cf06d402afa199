//! What waits for a socket.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use connlib_os::udp::Udp;
use connlib_wire::train::Transmit;

use super::Watched;
use super::errors::{Degraded, Error, Errors, PerPacket};
use super::stats::{DropReason, Said, Stats, is_lost};

/// Trains that wait for one socket, in the order they were made.
///
/// While more than the limit waits and the socket still takes some, whoever fills it should be held back: that loses
/// nothing. A socket that takes nothing at all for a while loses that claim, and then what is over twice the limit.
#[derive(Debug)]
pub(super) struct Egress {
    queue: VecDeque<Queued>,
    bytes: usize,
    limit: usize,
    stuck_since: Option<Instant>,
    retry: Option<Retry>,
}

/// Where what a loop does is written down.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) stats: &'a mut Stats,
    pub(super) said: &'a mut Said,
    pub(super) errors: &'a mut Errors,
}

#[derive(Debug)]
struct Queued {
    train: Transmit,
    /// The first datagram that the socket has not taken yet.
    next: usize,
}

/// The kernel had no memory, and it doesn't tell when it has some again.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    attempts: u32,
}

/// How long a socket may take nothing before others stop waiting for it.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long the kernel has to find memory for a datagram, and how often it is asked (io.md §2.4).
const RETRY_AFTER: Duration = Duration::from_millis(1);
const MAX_ATTEMPTS: u32 = 24;

impl Egress {
    /// An empty queue that wants no more than `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            limit,
            stuck_since: None,
            retry: None,
        }
    }

    pub(super) fn push(&mut self, train: Transmit, stats: &mut Stats) {
        if self.bytes >= self.limit.saturating_mul(2) {
            stats.count_dropped(DropReason::SocketFull, train.segments());
            return;
        }
        self.bytes += train.payload.len();
        self.queue.push_back(Queued { train, next: 0 });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether who fills the queue should wait.
    pub(super) fn holds_back(&self, now: Instant) -> bool {
        self.bytes > self.limit && self.stuck_since.is_none_or(|since| now < since + PATIENCE)
    }

    /// When to look at the queue again though the socket has not become writable.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        let retry_at = self.retry.map(|retry| retry.at);
        let gives_up_at = self
            .stuck_since
            .filter(|_| self.holds_back(now))
            .map(|since| since + PATIENCE);

        retry_at.into_iter().chain(gives_up_at).min()
    }

    /// Whether a flush at `now` would do anything with a socket that is writable.
    pub(super) fn wants_to_flush(&self, now: Instant) -> bool {
        !self.is_empty() && self.retry.is_none_or(|retry| retry.at <= now)
    }

    /// Hands to the socket what it takes. An error costs its datagram and no other.
    pub(super) fn flush<U: Udp>(
        &mut self,
        now: Instant,
        socket: &mut Watched<U>,
        report: &mut Report<'_>,
    ) {
        while socket.ready.writable && self.wants_to_flush(now) {
            let Some(front) = self.queue.front_mut() else {
                break;
            };
            match socket.device.send(&front.train, front.next) {
                Ok(taken) => {
                    report.stats.datagrams_sent += taken as u64;
                    self.stuck_since = None;
                    // Taking nothing means that nothing is left.
                    self.advance(if taken == 0 { usize::MAX } else { taken });
                }
                Err(error) => self.handle_error(now, socket, error, report),
            }
        }
    }

    /// Drops everything: there is no socket.
    pub(super) fn discard(&mut self, reason: DropReason, stats: &mut Stats) {
        for queued in self.queue.drain(..) {
            let left = queued.train.segments().saturating_sub(queued.next);
            stats.count_dropped(reason, left);
        }
        self.clear();
    }

    /// Forgets everything: it belongs to a network that we left.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
        self.stuck_since = None;
        self.retry = None;
    }

    fn handle_error<U: Udp>(
        &mut self,
        now: Instant,
        socket: &mut Watched<U>,
        error: io::Error,
        report: &mut Report<'_>,
    ) {
        if error.kind() == io::ErrorKind::WouldBlock {
            socket.ready.writable = false;
            self.stuck_since.get_or_insert(now);
            return;
        }
        if error.kind() == io::ErrorKind::Interrupted {
            return;
        }

        report.stats.errors += 1;
        if is_lost(&error) {
            // What waits is for the next socket.
            socket.ready.writable = false;
            report.errors.push(Error::Degraded(Degraded::SocketLost {
                addr: socket.device.local_addr(),
                source: error,
            }));
            return;
        }
        let mut reason = DropReason::of_send(&error);
        if error.raw_os_error() == Some(libc::ENOBUFS) {
            let attempts = self.retry.map_or(1, |retry| retry.attempts + 1);
            if attempts < MAX_ATTEMPTS {
                let at = now + RETRY_AFTER;
                self.retry = Some(Retry { at, attempts });
                self.stuck_since.get_or_insert(now);
                return;
            }
            reason = DropReason::NoBuffers;
        }
        report.stats.count_dropped(reason, 1);
        report.said.say(reason, &error);
        report.errors.push(Error::PerPacket(PerPacket {
            reason,
            source: error,
        }));
        self.advance(1);
    }

    /// The next `datagrams` are done with.
    fn advance(&mut self, datagrams: usize) {
        self.retry = None;
        let Some(front) = self.queue.front_mut() else {
            return;
        };
        front.next = front.next.saturating_add(datagrams);
        if front.next >= front.train.segments() {
            self.bytes -= front.train.payload.len();
            self.queue.pop_front();
        }
    }
}
