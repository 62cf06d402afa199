//! What one sender has sent, and what of it comes next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connlib_wire::train::Received;

use super::super::codel::Codel;
use super::{Order, SMALL};

/// Trains of one sender that wait.
#[derive(Debug)]
pub(super) struct Lane {
    /// Whose it is; others may share it.
    pub(super) sender: Option<u64>,
    /// Small datagrams.
    pub(super) ahead: VecDeque<Waiting>,
    /// The others.
    pub(super) behind: VecDeque<Waiting>,
    /// How many of those end with a small datagram, which nothing may overtake.
    tails: usize,
    /// How much of those in front may still go first.
    credit: i64,
    pub(super) deficit: i64,
    pub(super) held: usize,
    pub(super) codel: Codel,
    /// Whether it takes turns.
    pub(super) is_in_turns: bool,
    /// Whether it is among those that hold much memory.
    pub(super) is_grown: bool,
}

/// A train that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) received: Received,
    pub(super) since: Instant,
    pub(super) number: u64,
}

/// What a lane may open before another's turn: a train.
pub(in super::super) const QUANTUM: i64 = 64 * 1024;

/// What a datagram costs beyond its bytes.
pub(in super::super) const DATAGRAM_COST: usize = 256;

/// The same for a request to a relay, in bytes of data that take as long as it: it is answered one by one, and signed.
const REQUEST_COST: usize = 8_192;

/// What begins with less is STUN, from this on data of channels (RFC 8656 §12).
const FIRST_OF_DATA: u8 = 0x40;

/// How long a lane may stand, and for how long it may do so before its sender is told (field.md §5.2).
const TARGET: Duration = Duration::from_millis(5);
const INTERVAL: Duration = Duration::from_millis(100);

/// So many trains in front are a queue.
pub(super) const FEW: usize = 4;

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            sender: None,
            ahead: VecDeque::new(),
            behind: VecDeque::new(),
            tails: 0,
            credit: QUANTUM,
            deficit: 0,
            held: 0,
            codel: Codel::new(TARGET, INTERVAL),
            is_in_turns: false,
            is_grown: false,
        }
    }

    /// Begins anew for another sender; nothing may wait.
    pub(super) fn belong_to(&mut self, sender: u64) {
        self.sender = Some(sender);
        self.credit = QUANTUM;
        self.codel = Codel::new(TARGET, INTERVAL);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ahead.is_empty() && self.behind.is_empty()
    }

    pub(super) fn has_grown(&self) -> bool {
        self.ahead.capacity() > FEW || self.behind.capacity() > FEW
    }

    pub(super) fn push(&mut self, waiting: Waiting, order: Order) {
        self.held += held_by(&waiting.received);
        let size = match waiting.received.stride {
            0 => waiting.received.bytes.len(),
            stride => stride.min(waiting.received.bytes.len()),
        };
        if size <= SMALL && order == Order::SmallFirst {
            self.ahead.push_back(waiting);
        } else {
            self.tails += usize::from(small_tail(&waiting.received).is_some());
            self.behind.push_back(waiting);
        }
    }

    /// The next train, and whether it goes before an earlier one. Small ones go first for a quantum; if there are still some
    /// then, all go in the order they came, until a large one had its turn.
    pub(super) fn pop(&mut self, order: Order) -> Option<(Waiting, bool)> {
        let small_first = self.credit > 0 && self.tails == 0;
        let (waiting, overtakes) = match (self.ahead.front(), self.behind.front()) {
            (Some(small), Some(large)) if small_first && small.number > large.number => {
                (self.ahead.pop_front()?, true)
            }
            _ => self.pop_earliest()?,
        };
        let first = waiting.received.bytes.first();
        let cost = match order {
            Order::RequestsApart if first.is_some_and(|first| *first < FIRST_OF_DATA) => {
                request_cost(&waiting.received)
            }
            Order::RequestsApart | Order::SmallFirst => cost_of(&waiting.received),
        };
        self.deficit -= cost;
        self.credit = match overtakes {
            true => self.credit - cost,
            false => QUANTUM,
        };
        self.held -= held_by(&waiting.received);

        Some((waiting, overtakes))
    }

    fn pop_earliest(&mut self) -> Option<(Waiting, bool)> {
        let small = self.ahead.front().map(|waiting| waiting.number);
        let large = self.behind.front().map(|waiting| waiting.number);
        let is_small = small.is_some_and(|small| large.is_none_or(|large| small < large));
        let waiting = if is_small {
            self.ahead.pop_front()?
        } else {
            let waiting = self.behind.pop_front()?;
            self.tails -= usize::from(small_tail(&waiting.received).is_some());
            waiting
        };

        Some((waiting, false))
    }

    /// Takes the oldest train without using up a turn.
    pub(super) fn pop_front(&mut self) -> Option<(Waiting, bool)> {
        let taken = self.pop_earliest()?;
        self.held -= held_by(&taken.0.received);

        Some(taken)
    }
}

/// The length of the small datagram at the end of a train of large ones.
pub(super) fn small_tail(received: &Received) -> Option<usize> {
    let (len, stride) = (received.bytes.len(), received.stride);
    let tail = len.checked_rem(stride)?;

    (tail > 0 && tail <= SMALL && stride > SMALL && len > stride).then_some(tail)
}

/// The memory that a train holds, filled or not.
pub(super) fn held_by(received: &Received) -> usize {
    received.bytes.len() + received.bytes.spare()
}

/// What handling a train costs its sender of a turn.
pub(in super::super) fn cost_of(received: &Received) -> i64 {
    let datagrams = received.arrival().datagrams().count();
    let cost = received.bytes.len() + datagrams * DATAGRAM_COST;

    i64::try_from(cost).unwrap_or(QUANTUM)
}

fn request_cost(received: &Received) -> i64 {
    let cost = received.arrival().datagrams().count() * REQUEST_COST;

    i64::try_from(cost).unwrap_or(QUANTUM)
}
