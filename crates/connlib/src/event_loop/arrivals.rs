//! Fair shares between a socket and the cipher: what was received and can't be opened yet waits here.
//!
//! The kernel's buffer is one queue for everybody: what stands in it holds up sparse flows, checks and handshakes, and gives
//! most to whoever sends most. So a socket is emptied each turn, and what can't be opened at once waits in lanes, one per
//! sender (behind a relay one per channel), that take turns by a deficit round robin. In a lane small datagrams go before
//! large ones; what they may not overtake, the packets of their own flow, [`Overtaking`](super::overtaking) sees to. Each
//! lane is bounded in time by [`Codel`], and all of them in memory.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use connlib_wire::buffer::Pool;
use connlib_wire::channel;
use connlib_wire::train::Received;

use super::codel::Codel;
use super::stats::{DropReason, Stats};
use super::turns::Turns;

/// Trains that wait to be opened, by who sent them.
#[derive(Debug)]
pub(super) struct Arrivals {
    lanes: Vec<Lane>,
    turns: Turns,
    seed: u64,
    order: Order,
    small: Pool,
    /// How many trains wait.
    trains: usize,
    /// The memory that they hold, in bytes.
    held: usize,
    /// How many trains have come so far.
    count: u64,
}

#[derive(Debug)]
struct Lane {
    /// Whose it is; others may share it.
    sender: Option<u64>,
    /// Small datagrams.
    ahead: VecDeque<Waiting>,
    /// The others.
    behind: VecDeque<Waiting>,
    /// How much of those in front may still go first.
    credit: i64,
    deficit: i64,
    held: usize,
    codel: Codel,
    /// Whether it takes turns.
    is_in_turns: bool,
}

#[derive(Debug)]
struct Waiting {
    received: Received,
    since: Instant,
    number: u64,
}

/// What of a lane goes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// Small datagrams; for whoever opens them and can tell flows apart afterwards.
    SmallFirst,
    /// What came first.
    AsReceived,
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

/// How many lanes a sender looks at for one of its own. With one alone, two of eight busy senders shared in every ninth run.
const NEAR: usize = 16;

/// What a lane may open before another's turn: a train.
const QUANTUM: i64 = 64 * 1024;

/// What a datagram costs beyond its bytes.
const DATAGRAM_COST: usize = 256;

/// A datagram up to here is small: answers of DNS, voice, keystrokes, acknowledgements, checks and handshakes are.
pub(super) const SMALL: usize = 576;

/// How long a lane may stand, and for how long it may do so before its sender is told (field.md §5.2).
const TARGET: Duration = Duration::from_millis(5);
const INTERVAL: Duration = Duration::from_millis(100);

/// The most memory that waits. Beyond it the lane that holds most loses its oldest train.
const MAX_HELD: usize = 16 * 1024 * 1024;

/// What is no longer than this moves to a buffer of its size when it has to wait behind others.
const FITTING: usize = 2_048;

/// How many such buffers are kept.
const IDLE_SMALL: usize = 1_024;

/// So many trains in front are a queue.
const FEW: usize = 4;

impl Arrivals {
    /// Nothing waits. `seed` keeps outsiders from knowing who shares a lane.
    pub(super) fn new(seed: u64, order: Order) -> Self {
        Self {
            lanes: (0..LANES).map(|_| Lane::new()).collect(),
            turns: Turns::default(),
            seed,
            order,
            small: Pool::new(FITTING, IDLE_SMALL),
            trains: 0,
            held: 0,
            count: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trains == 0
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
        stats: &mut Stats,
    ) {
        let since = now.checked_sub(stood_for).unwrap_or(now);
        let index = self.lane_of(self.sender_of(&received));
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
            if !std::mem::replace(&mut lane.is_in_turns, true) {
                lane.deficit = QUANTUM;
                self.turns.new.push_back(index);
            }
        }
        while self.held > MAX_HELD {
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
            let Some((waiting, overtakes)) = lane.pop() else {
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
        for lane in &mut self.lanes {
            lane.ahead.shrink_to(FEW);
            lane.behind.shrink_to(FEW);
        }
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        let count = self.count;
        *self = Self::new(self.seed, self.order);
        self.count = count;
    }

    /// Who sent it, as a number that outsiders can't know: behind a relay each channel is a sender of its own.
    fn sender_of(&self, received: &Received) -> u64 {
        let channel = received
            .bytes
            .first_chunk()
            .map(|number| u16::from_be_bytes(*number))
            .filter(|number| channel::NUMBERS.contains(number));
        let mut hasher = DefaultHasher::new();
        (self.seed, received.from, channel).hash(&mut hasher);

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
        let (len, stride) = (received.bytes.len(), received.stride);
        let tail = len.checked_rem(stride)?;
        if tail == 0 || tail > SMALL || stride <= SMALL || len <= stride {
            return None;
        }
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

impl Lane {
    fn new() -> Self {
        Self {
            sender: None,
            ahead: VecDeque::new(),
            behind: VecDeque::new(),
            credit: QUANTUM,
            deficit: 0,
            held: 0,
            codel: Codel::new(TARGET, INTERVAL),
            is_in_turns: false,
        }
    }

    /// Begins anew for another sender; nothing may wait.
    fn belong_to(&mut self, sender: u64) {
        self.sender = Some(sender);
        self.credit = QUANTUM;
        self.codel = Codel::new(TARGET, INTERVAL);
    }

    fn is_empty(&self) -> bool {
        self.ahead.is_empty() && self.behind.is_empty()
    }

    fn push(&mut self, waiting: Waiting, order: Order) {
        self.held += held_by(&waiting.received);
        let size = match waiting.received.stride {
            0 => waiting.received.bytes.len(),
            stride => stride.min(waiting.received.bytes.len()),
        };
        if size <= SMALL && order == Order::SmallFirst {
            self.ahead.push_back(waiting);
        } else {
            self.behind.push_back(waiting);
        }
    }

    /// The next train, and whether it goes before an earlier one. Small ones go first for a quantum; if there are still some
    /// then, all go in the order they came, until a large one had its turn.
    fn pop(&mut self) -> Option<(Waiting, bool)> {
        let small_first = self.credit > 0;
        let (waiting, overtakes) = match (self.ahead.front(), self.behind.front()) {
            (Some(small), Some(large)) if small_first && small.number > large.number => {
                (self.ahead.pop_front()?, true)
            }
            _ => self.pop_earliest()?,
        };
        let cost = cost_of(&waiting.received);
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
        let waiting = match (small, large) {
            (Some(small), Some(large)) if small < large => self.ahead.pop_front(),
            (Some(_), None) => self.ahead.pop_front(),
            _ => self.behind.pop_front(),
        };

        Some((waiting?, false))
    }

    /// Takes the oldest train without using up a turn.
    fn pop_front(&mut self) -> Option<(Waiting, bool)> {
        let taken = self.pop_earliest()?;
        self.held -= held_by(&taken.0.received);

        Some(taken)
    }
}

/// The memory that a train holds, filled or not.
fn held_by(received: &Received) -> usize {
    received.bytes.len() + received.bytes.spare()
}

fn cost_of(received: &Received) -> i64 {
    let datagrams = received.arrival().datagrams().count();
    let cost = received.bytes.len() + datagrams * DATAGRAM_COST;

    i64::try_from(cost).unwrap_or(QUANTUM)
}

#[cfg(test)]
mod tests;
