//! Datagrams that travel together: what one system call sends or receives.
//!
//! A *train* is a run of datagrams of one size (the last may be shorter) between one pair of addresses with one ECN
//! codepoint. The kernel splits it on the way out (`UDP_SEGMENT`) and joins it on the way in (`UDP_GRO`).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::buffer::{Buffer, Pool};
use crate::ecn::Ecn;

/// The most datagrams one send may carry (Linux' `UDP_MAX_SEGMENTS` was 64 until 6.9).
pub const MAX_SEGMENTS: usize = 64;

/// Where a datagram goes, from where, and how it is marked.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Route {
    /// The address to send from. `None` leaves the choice to the operating system.
    pub src: Option<SocketAddr>,
    /// The address to send to.
    pub dst: SocketAddr,
    /// The outer header's mark.
    pub ecn: Ecn,
}

/// A train that is ready to leave.
#[derive(Debug)]
pub struct Transmit {
    /// Where it goes.
    pub route: Route,
    /// The size of each datagram but the last, which may be shorter. Never zero.
    pub segment_size: usize,
    /// The datagrams, one behind the other.
    pub payload: Buffer,
}

impl Transmit {
    /// A train of one datagram.
    pub fn single(route: Route, payload: Buffer) -> Self {
        Self {
            route,
            segment_size: payload.len().max(1),
            payload,
        }
    }

    /// The number of datagrams.
    pub fn segments(&self) -> usize {
        self.payload.len().div_ceil(self.segment_size.max(1))
    }

    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.payload.chunks(self.segment_size.max(1))
    }

    fn has_room_for(&self, len: usize) -> bool {
        let full = self.payload.len().is_multiple_of(self.segment_size);

        full && len <= self.segment_size
            && self.payload.len() + len <= max_len(self.route.dst, self.segment_size)
            && len <= self.payload.spare()
    }
}

/// A train that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The sender.
    pub from: SocketAddr,
    /// Our address that it was sent to.
    pub to: SocketAddr,
    /// The outer header's mark.
    pub ecn: Ecn,
    /// The size of each datagram but the last. Zero stands for one datagram of any size.
    pub stride: usize,
    /// The datagrams, one behind the other.
    pub bytes: &'a [u8],
}

impl<'a> Arrival<'a> {
    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let stride = match self.stride {
            0 => self.bytes.len(),
            stride => stride,
        };

        self.bytes.chunks(stride.max(1))
    }
}

/// A train that has arrived, with the memory that it lies in: it can go to another thread, or wait.
#[derive(Debug)]
pub struct Received {
    /// The sender.
    pub from: SocketAddr,
    /// Our address that it was sent to.
    pub to: SocketAddr,
    /// The outer header's mark.
    pub ecn: Ecn,
    /// The size of each datagram but the last. Zero stands for one datagram of any size.
    pub stride: usize,
    /// The datagrams, one behind the other.
    pub bytes: Buffer,
}

impl Received {
    /// The same, borrowed.
    pub fn arrival(&self) -> Arrival<'_> {
        Arrival {
            from: self.from,
            to: self.to,
            ecn: self.ecn,
            stride: self.stride,
            bytes: &self.bytes,
        }
    }
}

/// A queue of trains, filled datagram by datagram.
///
/// A datagram joins the most recent train of its route when it fits there, and never an older one, so that datagrams
/// of one route leave in the order they came; trains leave in the order they were begun (io.md §2.3).
#[derive(Debug)]
pub struct Trains {
    pool: Pool,
    queue: VecDeque<Transmit>,
    /// The number of the train at the front; counts every train that ever left.
    front: u64,
    /// The number of each route's most recent train. Looked up, never iterated.
    latest: HashMap<Route, u64>,
    queued_bytes: usize,
}

impl Trains {
    /// Creates an empty queue whose trains use buffers of `pool`. Each should hold 65,535 bytes.
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            queue: VecDeque::new(),
            front: 0,
            latest: HashMap::new(),
            queued_bytes: 0,
        }
    }

    /// Adds a datagram of `len` bytes that `fill` writes in place; if `fill` fails, nothing is added.
    ///
    /// # Errors
    ///
    /// What `fill` returns, or [`TrainError::TooLarge`] if a datagram of that size can't be sent at all.
    pub fn push_with<E>(
        &mut self,
        route: Route,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), TrainError<E>> {
        if len > max_len(route.dst, len) || len > self.pool.buffer_size() {
            return Err(TrainError::TooLarge { len });
        }

        let joins = self
            .latest_train(&route)
            .is_some_and(|train| train.has_room_for(len));
        if !joins {
            self.begin_train(route, len);
        }
        let Some(train) = self.latest_train(&route) else {
            return Err(TrainError::TooLarge { len });
        };

        let before = train.payload.len();
        let Some(slot) = train.payload.extend(len) else {
            return Err(TrainError::TooLarge { len });
        };
        if let Err(error) = fill(slot) {
            train.payload.truncate(before);
            if before == 0 {
                // Only a train begun just now is empty, and that one is the last.
                self.queue.pop_back();
                self.latest.remove(&route);
            }
            return Err(TrainError::NotFilled(error));
        }
        self.queued_bytes += len;

        Ok(())
    }

    /// Adds a finished train; later datagrams of its route may join it.
    pub fn push(&mut self, transmit: Transmit) {
        self.queued_bytes += transmit.payload.len();
        let number = self.front + self.queue.len() as u64;
        self.latest.insert(transmit.route, number);
        self.queue.push_back(transmit);
    }

    /// The train that leaves next.
    pub fn front(&self) -> Option<&Transmit> {
        self.queue.front()
    }

    /// Takes the train that leaves next.
    pub fn pop(&mut self) -> Option<Transmit> {
        let train = self.queue.pop_front()?;
        if self.latest.get(&train.route) == Some(&self.front) {
            self.latest.remove(&train.route);
        }
        self.front += 1;
        self.queued_bytes -= train.payload.len();

        Some(train)
    }

    /// The number of trains that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The number of payload bytes that wait.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Forgets everything that waits.
    pub fn clear(&mut self) {
        while self.pop().is_some() {}
    }

    fn begin_train(&mut self, route: Route, segment_size: usize) {
        self.push(Transmit {
            route,
            segment_size: segment_size.max(1),
            payload: self.pool.take(0),
        });
    }

    fn latest_train(&mut self, route: &Route) -> Option<&mut Transmit> {
        let number = self.latest.get(route)?;
        let index = usize::try_from(number.checked_sub(self.front)?).ok()?;

        self.queue.get_mut(index)
    }
}

/// Why a datagram was not added to a train.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrainError<E> {
    /// No UDP datagram can be this large.
    #[error("a datagram of {len} bytes is larger than UDP can carry")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
    },
    /// The caller's own error.
    #[error(transparent)]
    NotFilled(E),
}

/// The most bytes one send to `dst` may carry in segments of `segment_size`.
///
/// The largest IP packet less its largest headers; beyond that the kernel answers EMSGSIZE (io.md §2.3).
pub fn max_len(dst: SocketAddr, segment_size: usize) -> usize {
    let overhead = if dst.is_ipv4() { 60 + 8 } else { 40 + 8 };
    let segment_size = segment_size.max(1);

    segment_size * MAX_SEGMENTS.min((usize::from(u16::MAX) - overhead) / segment_size)
}

#[cfg(test)]
mod tests;
