//! Jobs on their way: planned here, taken by the caller, brought back in any order, let out in the order of planning.

use std::collections::VecDeque;

use connlib_wire::buffer::Pool;
use connlib_wire::channel::ChannelNumber;
use connlib_wire::train::{Received, Route, Transmit};

use crate::jobs::{OpenJob, SealJob};

/// The most bytes of one job: about a super-packet, so that many small packets don't become one long piece of work.
const MAX_JOB: usize = 65_536;

/// How far back a job of the same route is looked for. Beyond it another one is begun, which costs a system call and no
/// order: the older one of that route is sent first.
const LOOK_BACK: usize = 8;

/// How many jobs that are done with are kept for their memory.
const MAX_SPARE: usize = 16;

/// Sealing: packets become trains.
#[derive(Debug)]
pub(super) struct Sealing {
    pool: Pool,
    planned: VecDeque<Box<SealJob>>,
    under_way: InOrder<Box<SealJob>>,
    trains: VecDeque<Transmit>,
    #[expect(
        clippy::vec_box,
        reason = "jobs travel in boxes, which are kept as well"
    )]
    spare: Vec<Box<SealJob>>,
}

impl Sealing {
    /// Trains lie in buffers of `pool`, each of which must hold 65,535 bytes.
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            planned: VecDeque::new(),
            under_way: InOrder::default(),
            trains: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// The job that another packet of `len` bytes joins: the latest one of its route, or a new one.
    pub(super) fn plan(
        &mut self,
        route: Route,
        channel: Option<ChannelNumber>,
        len: usize,
    ) -> Option<&mut SealJob> {
        let recent = self.planned.iter().rev().take(LOOK_BACK);
        let latest = recent.clone().position(|job| job.route == route);
        let joins = latest.filter(|latest| {
            recent
                .clone()
                .nth(*latest)
                .is_some_and(|job| job.channel == channel && job.bytes + len <= MAX_JOB)
        });
        if let Some(latest) = joins {
            let index = self.planned.len().checked_sub(latest + 1)?;
            return self.planned.get_mut(index).map(Box::as_mut);
        }

        let number = self.under_way.begin();
        let job = match self.spare.pop() {
            Some(mut job) => {
                job.renew(number, route, channel);
                job
            }
            None => Box::new(SealJob::new(self.pool.clone(), number, route, channel)),
        };
        self.planned.push_back(job);

        self.planned.back_mut().map(Box::as_mut)
    }

    pub(super) fn next_job(&mut self) -> Option<Box<SealJob>> {
        self.planned.pop_front()
    }

    pub(super) fn commit(&mut self, job: Box<SealJob>) {
        self.under_way.put(job.number, job);
        while let Some(mut job) = self.under_way.pop() {
            self.trains.extend(job.trains.drain(..));
            if self.spare.len() < MAX_SPARE {
                self.spare.push(job);
            }
        }
    }

    pub(super) fn next_train(&mut self) -> Option<Transmit> {
        self.trains.pop_front()
    }

    /// Whether anything waits to be taken.
    pub(super) fn is_idle(&self) -> bool {
        self.planned.is_empty() && self.trains.is_empty()
    }

    /// Lets memory go that a load has left behind.
    pub(super) fn trim(&mut self) {
        self.pool.trim();
        self.spare.truncate(1);
    }

    /// Forgets everything, also what is done elsewhere right now.
    pub(super) fn clear(&mut self) {
        self.planned.clear();
        self.trains.clear();
        self.under_way.clear();
    }
}

/// Opening: trains become packets.
#[derive(Debug)]
pub(super) struct Opening {
    pool: Pool,
    planned: VecDeque<Box<OpenJob>>,
    under_way: InOrder<Box<OpenJob>>,
    #[expect(
        clippy::vec_box,
        reason = "jobs travel in boxes, which are kept as well"
    )]
    spare: Vec<Box<OpenJob>>,
}

impl Opening {
    /// Packets lie in buffers of `pool`, each of which must hold the longest train.
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            planned: VecDeque::new(),
            under_way: InOrder::default(),
            spare: Vec::new(),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A job without datagrams, to be filled.
    pub(super) fn blank(&mut self) -> Box<OpenJob> {
        self.spare.pop().unwrap_or_default()
    }

    /// Plans a job that was filled; one without datagrams goes back.
    pub(super) fn plan(&mut self, mut job: Box<OpenJob>, received: Received) {
        if job.is_empty() {
            self.take_back(job);
            return;
        }
        job.begin(self.under_way.begin(), received, self.pool.take(0));
        self.planned.push_back(job);
    }

    pub(super) fn next_job(&mut self) -> Option<Box<OpenJob>> {
        self.planned.pop_front()
    }

    pub(super) fn commit(&mut self, job: Box<OpenJob>) {
        self.under_way.put(job.number, job);
    }

    /// The next job that is done, in the order of planning.
    pub(super) fn next_done(&mut self) -> Option<Box<OpenJob>> {
        self.under_way.pop()
    }

    /// Keeps a job's memory for another one.
    pub(super) fn take_back(&mut self, mut job: Box<OpenJob>) {
        if self.spare.len() < MAX_SPARE {
            job.clear();
            self.spare.push(job);
        }
    }

    /// Whether anything waits to be taken.
    pub(super) fn is_idle(&self) -> bool {
        self.planned.is_empty() && !self.under_way.has_next()
    }

    /// Lets memory go that a load has left behind.
    pub(super) fn trim(&mut self) {
        self.pool.trim();
        self.spare.truncate(1);
    }

    /// Forgets everything, also what is done elsewhere right now.
    pub(super) fn clear(&mut self) {
        self.planned.clear();
        self.under_way.clear();
    }
}

/// Gives out what was put in any order by the numbers it was begun with.
#[derive(Debug)]
struct InOrder<T> {
    /// The number of what comes out next.
    front: u64,
    /// From that number on: what was put, or not yet.
    slots: VecDeque<Option<T>>,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self {
            front: 0,
            slots: VecDeque::new(),
        }
    }
}

impl<T> InOrder<T> {
    /// The next number.
    fn begin(&mut self) -> u64 {
        self.slots.push_back(None);

        self.front + self.slots.len() as u64 - 1
    }

    /// What was forgotten meanwhile is dropped.
    fn put(&mut self, number: u64, value: T) {
        let index = number.checked_sub(self.front);
        let slot = index
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.slots.get_mut(index));
        if let Some(slot) = slot {
            *slot = Some(value);
        }
    }

    fn has_next(&self) -> bool {
        self.slots.front().is_some_and(Option::is_some)
    }

    fn pop(&mut self) -> Option<T> {
        let value = self.slots.front_mut()?.take()?;
        self.slots.pop_front();
        self.front += 1;

        Some(value)
    }

    fn clear(&mut self) {
        self.front += self.slots.len() as u64;
        self.slots.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_any_order_comes_out_in_the_order_it_was_begun() {
        let mut in_order = InOrder::default();
        let numbers = [in_order.begin(), in_order.begin(), in_order.begin()];

        in_order.put(numbers[2], 'c');
        in_order.put(numbers[0], 'a');
        assert_eq!((in_order.pop(), in_order.pop()), (Some('a'), None));
        in_order.put(numbers[1], 'b');
        assert_eq!((in_order.pop(), in_order.pop()), (Some('b'), Some('c')));
    }

    #[test]
    fn what_was_forgotten_never_comes_out() {
        let mut in_order = InOrder::default();
        let old = in_order.begin();
        in_order.clear();
        let new = in_order.begin();

        in_order.put(old, "old");
        assert_eq!(in_order.pop(), None);
        in_order.put(new, "new");
        assert_eq!(in_order.pop(), Some("new"));
    }
}
