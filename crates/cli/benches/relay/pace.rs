//! How fast somebody sends, and what.

use std::time::{Duration, Instant};

use connlib_wire::channel::{self, HEADER_LEN};

use crate::client::CHANNEL;

/// Bytes of payload in each datagram of who sends all it can.
const PAYLOAD: usize = 1_200;

/// Datagrams of a train; with headers they fit into one packet of 64 KiB.
const TRAIN: usize = 48;

/// The most datagrams under way of who has a window.
const WINDOW: u64 = 4 * TRAIN as u64;

/// The most trains that a late sender makes up for at a time.
const MAX_LATE: u32 = 8;

/// To whom data flows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    /// From clients, as channel data.
    Up,
    /// From peers, as they are.
    Down,
}

/// How fast somebody sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    Greedy,
    /// As fast as it arrives: little is under way at a time, so that nothing is overloaded.
    Windowed,
    /// A full train each time, whatever becomes of it: more than the relay carries, and less than takes a processor to send.
    Pressing {
        every: Duration,
    },
    /// A train of so many datagrams of that payload each time.
    Steady {
        every: Duration,
        datagrams: usize,
        payload: usize,
    },
}

/// One sender at work.
pub(crate) struct Sender {
    pace: Pace,
    pub(crate) train: Vec<u8>,
    pub(crate) segment: usize,
    stamp_at: usize,
    next_at: Instant,
}

impl Pace {
    /// 1 Mbit/s of datagrams as small as those of voice.
    pub(crate) const SPARSE: Self = Self::Steady {
        every: Duration::from_millis(2),
        datagrams: 1,
        payload: 250,
    };

    /// Full trains at so many bytes a second.
    pub(crate) fn pressing(rate: f64) -> Self {
        Self::Pressing {
            every: Duration::from_secs_f64((PAYLOAD * TRAIN) as f64 / rate),
        }
    }

    /// Trains as those of greedy senders, at so many bytes a second.
    pub(crate) fn bytes_per_second(rate: f64) -> Self {
        let datagrams = TRAIN / 2;
        let train = (PAYLOAD * datagrams) as f64;

        Self::Steady {
            every: Duration::from_secs_f64(train / rate),
            datagrams,
            payload: PAYLOAD,
        }
    }

    pub(crate) fn is_steady(&self) -> bool {
        matches!(self, Self::Steady { .. })
    }
}

impl Sender {
    pub(crate) fn new(pace: Pace, direction: Direction, began: Instant) -> Self {
        let (datagrams, payload) = match pace {
            Pace::Greedy | Pace::Windowed | Pace::Pressing { .. } => (TRAIN, PAYLOAD),
            Pace::Steady {
                datagrams, payload, ..
            } => (datagrams, payload),
        };
        let header = match direction {
            Direction::Up => channel::header(CHANNEL, payload).unwrap().to_vec(),
            Direction::Down => Vec::new(),
        };
        let datagram = [header.clone(), vec![0; payload]].concat();

        Self {
            pace,
            segment: datagram.len(),
            train: datagram.repeat(datagrams),
            stamp_at: header.len(),
            next_at: began,
        }
    }

    /// How many trains are to leave by now, with so many datagrams under way.
    pub(crate) fn trains_due(&mut self, now: Instant, under_way: u64) -> u32 {
        let every = match self.pace {
            Pace::Greedy => return 1,
            Pace::Windowed => return u32::from(under_way < WINDOW),
            Pace::Steady { every, .. } | Pace::Pressing { every } => every,
        };
        let mut due = 0;
        while self.next_at <= now && due < MAX_LATE {
            self.next_at += every;
            due += 1;
        }

        due
    }

    /// Writes down when its first datagram leaves.
    pub(crate) fn stamp(&mut self, at: Duration) {
        if self.pace.is_steady() {
            let nanos = u64::try_from(at.as_nanos()).unwrap();
            self.train[self.stamp_at..][..8].copy_from_slice(&nanos.to_be_bytes());
        }
    }
}

/// How long there is nothing to send.
pub(crate) fn idle_for(senders: &[Sender], has_flood: bool, now: Instant) -> Option<Duration> {
    let goes_by_time = |sender: &Sender| match sender.pace {
        Pace::Greedy | Pace::Windowed => false,
        Pace::Pressing { .. } | Pace::Steady { .. } => true,
    };
    if has_flood || !senders.iter().all(goes_by_time) {
        return Some(Duration::ZERO);
    }
    let next_at = senders.iter().map(|sender| sender.next_at).min();

    next_at.map(|at| at.saturating_duration_since(now))
}

const _: () = assert!((PAYLOAD + HEADER_LEN) * TRAIN < 65_000);
