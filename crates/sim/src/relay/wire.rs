//! The wire that a relay's machine sends by, for sockets that are full at times.
//!
//! What the sockets were given leaves one datagram after the other, in the order in which it was given. Until then it takes room in its
//! socket, as the kernel counts it (SO_SNDBUF): one without room takes nothing, and is writable again once something of it has left.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_os::fake::SentTrain;
use connlib_relay::Via;

/// How many datagrams each socket has room for.
const ROOM: usize = 32;

pub(super) struct Wire {
    each: Duration,
    /// When all that waits has left.
    free_at: Option<Instant>,
    waiting: VecDeque<Leaving>,
    /// How many datagrams of each socket wait.
    held: HashMap<Via, usize>,
}

/// A train that a socket was given.
pub(super) struct Leaving {
    at: Instant,
    pub(super) via: Via,
    pub(super) local: SocketAddr,
    pub(super) train: SentTrain,
}

impl Wire {
    /// One that takes so many datagrams in a second.
    pub(super) fn new(rate: u32) -> Self {
        Self {
            each: Duration::from_secs(1) / rate.max(1),
            free_at: None,
            waiting: VecDeque::new(),
            held: HashMap::new(),
        }
    }

    /// How many datagrams a socket may be given.
    pub(super) fn room(&self, via: Via) -> usize {
        ROOM - self.held.get(&via).copied().unwrap_or_default().min(ROOM)
    }

    /// A socket was given a train.
    pub(super) fn put(&mut self, now: Instant, via: Via, (local, train): (SocketAddr, SentTrain)) {
        let count = train.datagrams().count();
        let begins_at = self.free_at.map_or(now, |free_at| free_at.max(now));
        let at = begins_at + self.each * u32::try_from(count).unwrap_or(u32::MAX);
        self.free_at = Some(at);
        *self.held.entry(via).or_default() += count;
        self.waiting.push_back(Leaving {
            at,
            via,
            local,
            train,
        });
    }

    /// Whether anything waits.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When the next train has left.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.waiting.front().map(|leaving| leaving.at)
    }

    /// The next train that has left by `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<Leaving> {
        let leaving = self.waiting.pop_front_if(|leaving| leaving.at <= now)?;
        if let Some(held) = self.held.get_mut(&leaving.via) {
            *held -= leaving.train.datagrams().count();
            if *held == 0 {
                self.held.remove(&leaving.via);
            }
        }

        Some(leaving)
    }
}
