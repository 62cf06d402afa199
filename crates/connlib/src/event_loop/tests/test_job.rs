//! What a core hands out, and gets back in any order.

use std::collections::BTreeMap;
use std::ops::Range;

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::{Received, Route, Transmit};

use super::super::{Job, JobKind, PacketBatch, Told};

/// Encryption that changes nothing.
#[derive(Debug)]
pub(super) enum TestJob {
    Seal {
        number: u64,
        route: Route,
        packets: Vec<(SuperPacket<Buffer>, usize)>,
        pool: Pool,
        sealed: Vec<Transmit>,
    },
    Open {
        number: u64,
        received: Received,
    },
}

impl Job for TestJob {
    fn run(&mut self) {
        let Self::Seal {
            route,
            packets,
            pool,
            sealed,
            ..
        } = self
        else {
            return;
        };
        for (mut packet, skip) in packets.drain(..) {
            let mut segments = packet.split();
            let mut index = 0;
            while let Some(segment) = segments.next_segment() {
                index += 1;
                if index <= skip {
                    continue;
                }
                match sealed.last_mut() {
                    Some(train) if train.segment_size >= segment.len() => {
                        let room = train.payload.extend(segment.len());
                        room.unwrap().copy_from_slice(segment);
                    }
                    Some(_) | None => {
                        let payload = pool.copy(segment).unwrap();
                        sealed.push(Transmit::single(*route, payload));
                    }
                }
            }
        }
    }

    fn kind(&self) -> JobKind {
        match self {
            Self::Seal { .. } => JobKind::Seal,
            Self::Open { .. } => JobKind::Open,
        }
    }
}

/// What has a number, and waits for those before it.
#[derive(Debug)]
pub(super) struct InOrder<T> {
    begun: u64,
    taken: u64,
    waiting: BTreeMap<u64, T>,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self {
            begun: 0,
            taken: 0,
            waiting: BTreeMap::new(),
        }
    }
}

impl<T> InOrder<T> {
    pub(super) fn begin(&mut self) -> u64 {
        self.begun += 1;

        self.begun - 1
    }

    pub(super) fn insert(&mut self, number: u64, value: T) {
        let former = self.waiting.insert(number, value);
        assert!(former.is_none() && number >= self.taken, "{number} twice");
    }

    pub(super) fn next(&mut self) -> Option<T> {
        let next = self.waiting.remove(&self.taken)?;
        self.taken += 1;

        Some(next)
    }

    pub(super) fn commit(&mut self, number: u64, value: T) -> impl Iterator<Item = T> {
        self.insert(number, value);

        std::iter::from_fn(|| self.next())
    }

    pub(super) fn missing(&self) -> usize {
        (self.begun - self.taken) as usize - self.waiting.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) memory: Vec<u8>,
    pub(super) ranges: Vec<Range<usize>>,
}

impl PacketBatch for Batch {
    fn memory(&self) -> &[u8] {
        &self.memory
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.ranges.iter().cloned()
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn tell(&mut self) -> Told {
        if !self.ranges.is_empty() {
            self.ranges.remove(0);
        }

        Told::Dropped
    }

    fn clear(&mut self) {
        self.memory.clear();
        self.ranges.clear();
    }
}
