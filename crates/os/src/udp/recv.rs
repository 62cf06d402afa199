//! Memory for received trains.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::train::{Arrival, Received};

use super::MAX_TRAINS;
#[cfg(target_os = "linux")]
use crate::sys::udp::Scratch;

/// Received trains, each in a buffer of its own that can go to another thread, and the buffers for the next ones.
pub struct RecvBatch {
    pool: Pool,
    capacity: usize,
    /// Buffers for the kernel, each grown to its full size: growing touches no byte.
    pub(super) ready: VecDeque<Buffer>,
    /// What was received, oldest first.
    pub(super) trains: VecDeque<Received>,
    is_exhausted: bool,
    refused: usize,
    stood_for: Option<Duration>,
    /// Of the batch and not of a socket: ten thousand sockets need but one.
    #[cfg(target_os = "linux")]
    pub(super) scratch: Scratch,
}

impl RecvBatch {
    /// Creates room for `trains` trains (1 to [`MAX_TRAINS`]), each in a buffer of `pool`.
    ///
    /// A train that is longer than such a buffer is dropped by the receiver: let the pool's be
    /// [`MAX_TRAIN_BYTES`](super::MAX_TRAIN_BYTES) long unless memory is short. For as long as the batch lives it holds as
    /// many buffers as it has room for.
    pub fn new(pool: Pool, trains: usize) -> Self {
        let capacity = trains.clamp(1, MAX_TRAINS);

        Self {
            pool,
            capacity,
            ready: VecDeque::with_capacity(capacity),
            trains: VecDeque::with_capacity(capacity),
            is_exhausted: false,
            refused: 0,
            stood_for: None,
            #[cfg(target_os = "linux")]
            scratch: Scratch::new(capacity),
        }
    }

    /// Whether the socket gave less than there was room for: nothing waits in it, and what comes from now on is told by a
    /// poller.
    pub fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// How many trains were received last and not taken, for want of room most likely.
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// How long the oldest train stood in the socket's buffer before it was received, if the kernel tells.
    pub fn stood_for(&self) -> Option<Duration> {
        self.stood_for
    }

    /// Lets memory go that a load has left behind.
    pub fn trim(&mut self) {
        self.pool.trim();
    }

    /// Takes out the train that has arrived first.
    pub fn pop(&mut self) -> Option<Received> {
        self.trains.pop_front()
    }

    /// The trains it holds, in the order of their arrival.
    pub fn arrivals(&self) -> impl Iterator<Item = Arrival<'_>> {
        self.trains.iter().map(Received::arrival)
    }

    /// Forgets the trains.
    pub fn clear(&mut self) {
        self.trains.clear();
    }

    /// The number of trains it holds.
    pub fn len(&self) -> usize {
        self.trains.len()
    }

    /// Whether it holds no train.
    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// The number of trains it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of bytes it has room for in each train.
    pub fn bytes_each(&self) -> usize {
        self.pool.buffer_size()
    }

    /// Adds a copy of `arrival`, for implementations of [`Udp`](super::Udp) that have no kernel to write into the batch.
    ///
    /// # Errors
    ///
    /// [`BatchFull`] if all trains are in use or this one is longer than its room; the batch is as before.
    pub fn push(&mut self, arrival: Arrival<'_>) -> Result<(), BatchFull> {
        if self.trains.len() >= self.capacity {
            return Err(BatchFull);
        }
        let bytes = self.pool.copy(arrival.bytes).ok_or(BatchFull)?;

        self.trains.push_back(Received {
            from: arrival.from,
            to: arrival.to,
            ecn: arrival.ecn,
            stride: arrival.stride,
            bytes,
            number: 0,
        });

        Ok(())
    }

    /// Notes what a receive has shown besides trains.
    pub(crate) fn told(&mut self, is_exhausted: bool, refused: usize, stood_for: Option<Duration>) {
        self.is_exhausted = is_exhausted;
        self.refused = refused;
        self.stood_for = stood_for;
    }

    /// Forgets the trains and makes as many buffers ready as it has room for.
    #[cfg(target_os = "linux")]
    pub(super) fn refill(&mut self) {
        self.trains.clear();
        while self.ready.len() < self.capacity {
            let mut buffer = self.pool.take(0);
            let _ = buffer.extend(self.pool.buffer_size());
            self.ready.push_back(buffer);
        }
    }
}

impl fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBatch")
            .field("trains", &self.len())
            .field("capacity", &self.capacity)
            .field("bytes_each", &self.bytes_each())
            .finish_non_exhaustive()
    }
}

/// A [`RecvBatch`] has no room for another train, or not for one of that length.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the receive batch has no room for this train; take out what it holds or make its trains larger"
)]
pub struct BatchFull;

#[cfg(test)]
mod tests {
    use super::*;
    use connlib_wire::ecn::Ecn;

    #[test]
    fn trains_leave_a_batch_in_the_order_they_came() {
        let mut batch = RecvBatch::new(Pool::new(8, 2), 2);

        batch.push(arrival(3, b"abcdefgh")).unwrap();
        batch.push(arrival(0, b"ij")).unwrap();

        let mut trains = Vec::new();
        while let Some(train) = batch.pop() {
            let datagrams = train.arrival().datagrams().map(<[u8]>::to_vec);
            trains.push(datagrams.collect::<Vec<_>>());
        }
        assert_eq!(trains, [vec![&b"abc"[..], b"def", b"gh"], vec![b"ij"]]);
        assert!(batch.is_empty());
    }

    #[test]
    fn a_full_batch_takes_no_more_until_something_is_taken_out() {
        let mut batch = RecvBatch::new(Pool::new(4, 1), 1);
        assert_eq!(batch.push(arrival(0, b"12345")), Err(BatchFull), "too long");

        batch.push(arrival(0, b"1234")).unwrap();
        assert_eq!(batch.push(arrival(0, b"5")), Err(BatchFull), "no room left");

        batch.pop().unwrap();
        batch.push(arrival(0, b"5")).unwrap();
        batch.clear();
        assert_eq!(batch.len(), 0);
    }

    fn arrival(stride: usize, bytes: &[u8]) -> Arrival<'_> {
        Arrival {
            from: "192.0.2.1:1".parse().unwrap(),
            to: "192.0.2.2:2".parse().unwrap(),
            ecn: Ecn::Ect0,
            stride,
            bytes,
        }
    }
}
