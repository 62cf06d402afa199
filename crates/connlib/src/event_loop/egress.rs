//! What waits for a socket.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use connlib_os::udp::{MAX_SENDS, Outgoing, Udp};
use connlib_wire::train::{Route, Transmit};

use super::Watched;
use super::arrivals::DATAGRAM_COST;
use super::errors::{Degraded, Error, Errors, PerPacket};
use super::stats::{DropReason, Said, Stats, is_lost};

/// Trains that wait for one socket, in the order they were made; control goes before data.
///
/// While more than the limit waits and the socket still takes some, whoever fills it should be held back: that loses
/// nothing. A socket that takes nothing at all for a while loses that claim, and then what is over twice the limit.
#[derive(Debug)]
pub(super) struct Egress {
    /// Never behind data; its bytes don't count, it is little and bounded by its makers.
    control: VecDeque<Queued>,
    data: VecDeque<Queued>,
    bytes: usize,
    limit: usize,
    stuck_since: Option<Instant>,
    retry: Option<Retry>,
    /// What was too large for its way, to be told to the core.
    too_large: Option<(Route, usize)>,
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

/// How long a socket may take nothing before others stop waiting for it: half of what a packet may wait, so that none is too
/// old by then.
const PATIENCE: Duration = Duration::from_millis(10);

/// How long the kernel has to find memory for a datagram, and how often it is asked (io.md §2.4).
const RETRY_AFTER: Duration = Duration::from_millis(1);
const MAX_ATTEMPTS: u32 = 24;

/// The most control datagrams that wait for a socket that takes nothing.
const MAX_CONTROL: usize = 1_024;

impl Egress {
    /// An empty queue that wants no more than `limit` of [`weight`].
    pub(super) fn new(limit: usize) -> Self {
        Self {
            control: VecDeque::new(),
            data: VecDeque::new(),
            bytes: 0,
            limit,
            stuck_since: None,
            retry: None,
            too_large: None,
        }
    }

    /// Adds a train of data.
    pub(super) fn push(&mut self, train: Transmit, stats: &mut Stats) {
        if self.bytes >= self.limit.saturating_mul(2) {
            stats.count_dropped(DropReason::SocketFull, train.segments());
            return;
        }
        self.bytes += weight(&train);
        self.data.push_back(Queued { train, next: 0 });
    }

    /// Adds what must not wait behind data.
    pub(super) fn push_control(&mut self, train: Transmit, stats: &mut Stats) {
        if self.control.len() >= MAX_CONTROL {
            stats.count_dropped(DropReason::SocketFull, train.segments());
            return;
        }
        self.control.push_back(Queued { train, next: 0 });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.data.is_empty()
    }

    /// How much data waits, as [`weight`] counts it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether who fills the queue should wait.
    pub(super) fn holds_back(&self, now: Instant) -> bool {
        self.bytes > self.limit && self.stuck_since.is_none_or(|since| now < since + PATIENCE)
    }

    /// When to look at the queue again though the socket has not become writable.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        // One whose time has come waits for the socket alone.
        let retry_at = self.retry.map(|retry| retry.at).filter(|at| *at > now);
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
            let sent = {
                let mut waiting = self
                    .control
                    .iter()
                    .chain(&self.data)
                    .map(|queued| Outgoing::new(&queued.train, queued.next));
                let Some(first) = waiting.next() else {
                    break;
                };
                let mut outgoing = [first; MAX_SENDS];
                let mut count = 1;
                for (slot, next) in outgoing.iter_mut().skip(1).zip(waiting) {
                    *slot = next;
                    count += 1;
                }
                socket
                    .device
                    .send(outgoing.get(..count).unwrap_or_default())
            };
            match sent {
                Ok(taken) => {
                    report.stats.datagrams_sent += taken as u64;
                    self.stuck_since = None;
                    // Taking nothing means that nothing is left of the first.
                    self.advance(if taken == 0 { usize::MAX } else { taken });
                }
                Err(error) => self.handle_error(now, socket, error, report),
            }
        }
    }

    /// The route of what was too large for it, and the size of its datagrams, once.
    pub(super) fn take_too_large(&mut self) -> Option<(Route, usize)> {
        self.too_large.take()
    }

    /// Drops everything: there is no socket.
    pub(super) fn discard(&mut self, reason: DropReason, stats: &mut Stats) {
        for queued in self.control.drain(..).chain(self.data.drain(..)) {
            let left = queued.train.segments().saturating_sub(queued.next);
            stats.count_dropped(reason, left);
        }
        self.clear();
    }

    /// Forgets everything: it belongs to a network that we left.
    pub(super) fn clear(&mut self) {
        self.control.clear();
        self.data.clear();
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

        let front = self
            .front()
            .map(|front| Outgoing::new(&front.train, front.next));
        let alike = front.map_or(1, |front| front.lost_to(&error));
        if reason == DropReason::TooLarge
            && let Some(front) = front
        {
            self.too_large = Some((front.route, front.segment_size));
        }
        report.stats.count_dropped(reason, alike);
        report.said.say(reason, &error);
        report.errors.push(Error::PerPacket(PerPacket {
            reason,
            source: error,
        }));
        self.advance(alike);
    }

    fn front(&self) -> Option<&Queued> {
        self.control.front().or_else(|| self.data.front())
    }

    /// The next `datagrams` are done with.
    fn advance(&mut self, mut datagrams: usize) {
        self.retry = None;
        loop {
            let is_control = !self.control.is_empty();
            let queue = match is_control {
                true => &mut self.control,
                false => &mut self.data,
            };
            let Some(front) = queue.front_mut() else {
                return;
            };
            let left = front.train.segments().saturating_sub(front.next);
            if datagrams < left {
                front.next += datagrams;
                return;
            }
            if !is_control {
                self.bytes -= weight(&front.train);
            }
            queue.pop_front();
            if datagrams == usize::MAX || datagrams == left {
                return;
            }
            datagrams -= left;
        }
    }
}

/// What a train takes of the room that there is for those that wait, in bytes: the smallest have some weight, too, or they would
/// wait in any number.
pub(super) fn weight(train: &Transmit) -> usize {
    train.payload.len() + DATAGRAM_COST
}

#[cfg(test)]
mod tests;
