//! Fair shares between a socket and the cipher: what was received and can't be opened yet waits here.
//!
//! The kernel's buffer is one queue for everybody: what stands in it holds up sparse flows, checks and handshakes, and gives
//! most to whoever sends most. So a socket is emptied each turn, and what can't be opened at once waits in lanes, one per
//! sender (behind a relay one per channel), that take turns by a deficit round robin. In a lane small datagrams go before
//! large ones; what they may not overtake, the packets of their own flow, [`Overtaking`](super::overtaking) sees to. Each
//! lane is bounded in time by [`Codel`](super::codel::Codel), and all of them in memory.
//!
//! A relay has the same lanes between a socket and what it forwards: one for each client's data, and one for its requests. Strangers, who
//! have nothing there yet, share a few, or many of them would get most of its time.

mod lane;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use connlib_wire::buffer::Pool;
use connlib_wire::channel;
use connlib_wire::train::Received;

use super::stats::{DropReason, Stats};
use super::turns::Turns;
pub(super) use lane::{DATAGRAM_COST, QUANTUM, cost_of};
use lane::{FEW, Lane, Waiting, held_by, small_tail};

/// Trains that wait to be opened, by who sent them.
#[derive(Debug)]
pub(super) struct Arrivals {
    lanes: Vec<Lane>,
    turns: Turns,
    seed: u64,
    order: Order,
    small: Pool,
    /// The lanes that hold more memory than a few trains need.
    grown: Vec<usize>,
    /// How many trains wait.
    trains: usize,
    /// The memory that they hold, in bytes.
    held: usize,
    /// How many trains have come so far.
    count: u64,
}

/// What of a lane goes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// Small datagrams; for whoever opens them and can tell flows apart afterwards.
    SmallFirst,
    /// What came first, but requests, which have lanes of their own beside their client's data; for a relay.
    RequestsApart,
}

/// Whose a train is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sender {
    /// One with lanes of its own.
    Known,
    /// One who has nothing at a relay yet, and may be anybody at any address.
    Stranger,
}

/// A train whose turn it is.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) received: Received,
    /// How long it has waited, in the socket and here.
    pub(super) waited: Duration,
    /// Its sender is to be told that its queue stands.
    pub(super) tells: bool,
    /// What it goes before although that has come earlier.
    pub(super) overtakes: Option<Place>,
}

/// A place in the order of arrival of one lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    lane: usize,
    number: u64,
}

/// Senders share a lane when there are more of them than lanes: a flood from many addresses needs no more memory.
const LANES: usize = 256;

/// How many lanes strangers share, by their addresses: whoever floods from one holds up few of the others.
const STRANGERS: u64 = 8;

/// How many lanes a sender looks at for one of its own. With one alone, two of eight busy senders shared in every ninth run.
const NEAR: usize = 16;

/// A datagram up to here is small: answers of DNS, voice, keystrokes, acknowledgements, checks and handshakes are.
pub(super) const SMALL: usize = 576;

/// The most memory that waits. Beyond it the lane that holds most loses its oldest train.
const MAX_HELD: usize = 16 * 1024 * 1024;

/// The same for a relay, which carries so much in a few milliseconds.
const MAX_HELD_TO_CARRY: usize = 4 * 1024 * 1024;

/// What is no longer than this moves to a buffer of its size when it has to wait behind others.
const FITTING: usize = 2_048;

/// What begins with less is STUN (RFC 8656 §12).
const FIRST_CHANNEL: u16 = 0x4000;

/// How many such buffers are kept.
const IDLE_SMALL: usize = 1_024;

impl Arrivals {
    /// Nothing waits. `seed` keeps outsiders from knowing who shares a lane.
    pub(super) fn new(seed: u64, order: Order) -> Self {
        Self {
            lanes: (0..LANES).map(|_| Lane::new()).collect(),
            turns: Turns::default(),
            seed,
            order,
            small: Pool::new(FITTING, IDLE_SMALL),
            grown: Vec::new(),
            trains: 0,
            held: 0,
            count: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trains == 0
    }

    /// The memory that what waits holds, in bytes.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// How many trains wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.trains
    }

    /// Adds a train that was received at `now`, after it had stood in its socket.
    pub(super) fn push(
        &mut self,
        now: Instant,
        stood_for: Duration,
        mut received: Received,
        from: Sender,
        stats: &mut Stats,
    ) {
        let since = now.checked_sub(stood_for).unwrap_or(now);
        let index = self.lane_of(self.sender_of(&received, from));
        let waits = self.trains >= FEW;
        // The kernel joins a small datagram to the end of a train, whomever it is for.
        let tail = match waits && self.order == Order::SmallFirst {
            true => self.cut_tail(&mut received),
            false => None,
        };
        if waits
            && received.bytes.len() <= FITTING
            && let Some(bytes) = self.small.copy(&received.bytes)
        {
            received.bytes = bytes;
        }

        for received in [Some(received), tail].into_iter().flatten() {
            self.count += 1;
            self.trains += 1;
            self.held += held_by(&received);
            let Some(lane) = self.lanes.get_mut(index) else {
                return;
            };
            lane.push(
                Waiting {
                    received,
                    since,
                    number: self.count,
                },
                self.order,
            );
            if lane.has_grown() && !std::mem::replace(&mut lane.is_grown, true) {
                self.grown.push(index);
            }
            if !std::mem::replace(&mut lane.is_in_turns, true) {
                lane.deficit = QUANTUM;
                self.turns.new.push_back(index);
            }
        }
        let max_held = match self.order {
            Order::SmallFirst => MAX_HELD,
            Order::RequestsApart => MAX_HELD_TO_CARRY,
        };
        while self.held > max_held {
            if !self.drop_of_fattest(stats) {
                break;
            }
        }
    }

    /// Takes the train whose turn it is.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Next> {
        loop {
            let index = self.turns.front()?;
            let lane = self.lanes.get_mut(index)?;
            if lane.deficit <= 0 {
                lane.deficit += QUANTUM;
                self.turns.rotate();
                continue;
            }
            let Some((waiting, overtakes)) = lane.pop(self.order) else {
                if self.turns.leave() {
                    lane.is_in_turns = false;
                }
                continue;
            };
            let waited = now.saturating_duration_since(waiting.since);
            let tells = lane.codel.judge(now, waited, lane.is_empty());
            self.trains -= 1;
            self.held -= held_by(&waiting.received);

            return Some(Next {
                received: waiting.received,
                waited,
                tells,
                overtakes: overtakes.then_some(Place {
                    lane: index,
                    number: waiting.number,
                }),
            });
        }
    }

    /// Whether all that came before has been taken.
    pub(super) fn is_past(&self, place: Place) -> bool {
        let lane = self.lanes.get(place.lane);
        let first = lane.and_then(|lane| lane.behind.front());

        first.is_none_or(|first| first.number > place.number)
    }

    /// Lets memory go that a load has left behind.
    pub(super) fn trim(&mut self) {
        self.small.trim();
        self.grown.retain(|index| {
            let Some(lane) = self.lanes.get_mut(*index) else {
                return false;
            };
            lane.ahead.shrink_to(FEW);
            lane.behind.shrink_to(FEW);
            lane.is_grown = lane.has_grown();

            lane.is_grown
        });
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        let count = self.count;
        *self = Self::new(self.seed, self.order);
        self.count = count;
    }

    /// Whose lane it waits in, as a number that outsiders can't know. Behind a relay each channel is a sender of its own;
    /// for a relay all channels of a client are one, so that many of them bring no larger share.
    fn sender_of(&self, received: &Received, from: Sender) -> u64 {
        let first: Option<u16> = received
            .bytes
            .first_chunk()
            .map(|number| u16::from_be_bytes(*number));
        let part = match self.order {
            Order::SmallFirst => first.filter(|number| channel::NUMBERS.contains(number)),
            Order::RequestsApart => first.filter(|first| *first < FIRST_CHANNEL).map(|_| 0),
        };
        let mut hasher = DefaultHasher::new();
        match from {
            Sender::Known => (self.seed, received.from, part).hash(&mut hasher),
            Sender::Stranger => {
                (self.seed, received.from.ip()).hash(&mut hasher);
                let group = hasher.finish() % STRANGERS;
                hasher = DefaultHasher::new();
                (self.seed, group).hash(&mut hasher);
            }
        }

        hasher.finish()
    }

    /// The sender's lane, or one that nobody waits in, which becomes the sender's. Only if neither is near, it shares
    /// one.
    fn lane_of(&mut self, sender: u64) -> usize {
        let first = usize::try_from(sender % LANES as u64).unwrap_or_default();
        let near = (first..first + NEAR).map(|index| index % LANES);
        let mut idle = None;
        for index in near {
            let Some(lane) = self.lanes.get(index) else {
                continue;
            };
            if lane.sender == Some(sender) {
                return index;
            }
            if !lane.is_in_turns && idle.is_none() {
                idle = Some(index);
            }
        }
        if let Some(lane) = idle.and_then(|index| self.lanes.get_mut(index)) {
            lane.belong_to(sender);
        }

        idle.unwrap_or(first)
    }

    /// Takes a small datagram off the end of a train of large ones.
    fn cut_tail(&self, received: &mut Received) -> Option<Received> {
        let tail = small_tail(received)?;
        let len = received.bytes.len();
        let bytes = self.small.copy(received.bytes.get(len - tail..)?)?;
        received.bytes.truncate(len - tail);

        Some(Received {
            stride: 0,
            bytes,
            ..*received
        })
    }

    /// Drops the oldest train of the lane that holds most; whether there was one.
    fn drop_of_fattest(&mut self, stats: &mut Stats) -> bool {
        let Some(lane) = self.lanes.iter_mut().max_by_key(|lane| lane.held) else {
            return false;
        };
        let Some((waiting, _)) = lane.pop_front() else {
            return false;
        };
        self.trains -= 1;
        self.held -= held_by(&waiting.received);
        let datagrams = waiting.received.arrival().datagrams().count();
        stats.count_dropped(DropReason::ArrivalsFull, datagrams);

        true
    }
}

#[cfg(test)]
mod tests;
