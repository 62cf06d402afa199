//! One question on its way to servers: whom to ask next, and who waits for how long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use connlib_wire::dns::{Answer, Query};

use crate::dns::cache::Question;
use crate::dns::{Carrier, ExchangeError, ExchangeId, Server};

/// A question that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending<A> {
    pub(super) question: Question,
    pub(super) carrier: Carrier,
    pub(super) query: Query,
    /// Whoever wants to know. There is always somebody.
    pub(super) askers: Vec<Asker<A>>,
    pub(super) servers: Vec<Asked>,
    /// The server to be asked next.
    pub(super) next: usize,
    pub(super) tries: u32,
    /// When the next server is asked, nobody having answered.
    pub(super) retry_at: Instant,
    /// When the first of the askers has waited long enough.
    pub(super) give_up_at: Instant,
    /// What of it stands in the schedule: whichever of the two comes first.
    pub(super) due_at: Instant,
    pub(super) exchanges: Vec<ExchangeId>,
    /// The first answer that was none: what is told if there is no better one.
    pub(super) worst: Option<Arc<Answer>>,
    pub(super) unreachable: Option<ExchangeError>,
}

/// Somebody who asked.
#[derive(Debug)]
pub(super) struct Asker<A> {
    pub(super) who: A,
    pub(super) query: Query,
    /// How long an answer is of use.
    pub(super) until: Instant,
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) server: Server,
    pub(super) has_failed: bool,
    /// Whether it refused the question with EDNS.
    pub(super) disliked_edns: bool,
}

/// A question that a carrier has.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) pending: u64,
    pub(super) server: usize,
    pub(super) sent_at: Instant,
    pub(super) id: u16,
    pub(super) with_edns: bool,
}

impl Asked {
    pub(super) fn new(server: Server) -> Self {
        Self {
            server,
            has_failed: false,
            disliked_edns: false,
        }
    }
}

impl<A: PartialEq> Pending<A> {
    /// Whether `who` waits already: who asks once more before there was an answer still wants one answer.
    pub(super) fn is_awaited_by(&self, who: &A, query: &Query) -> bool {
        let mut askers = self.askers.iter();

        askers.any(|asker| asker.who == *who && asker.query.id == query.id)
    }

    /// Lets go those who have waited long enough, and goes on for the others.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<Asker<A>> {
        let (late, others) = self.askers.drain(..).partition(|asker| asker.until <= now);
        self.askers = others;
        let until = self.askers.iter().map(|asker| asker.until).min();
        self.give_up_at = until.unwrap_or(self.give_up_at);

        late
    }
}

impl<A> Pending<A> {
    /// The next server, in turn, that has not failed.
    pub(super) fn next_server(&self) -> Option<usize> {
        let count = self.servers.len();
        let mut turn = (0..count).map(|step| (self.next + step) % count);

        turn.find(|at| {
            let asked = self.servers.get(*at);
            asked.is_some_and(|asked| !asked.has_failed)
        })
    }

    /// Moves it to where it belongs in the schedule.
    pub(super) fn reschedule(&mut self, schedule: &mut BTreeSet<(Instant, u64)>, id: u64) {
        schedule.remove(&(self.due_at, id));
        self.due_at = self.retry_at.min(self.give_up_at);
        schedule.insert((self.due_at, id));
    }

    /// How often each server was asked already.
    pub(super) fn rounds(&self) -> u32 {
        self.tries / u32::try_from(self.servers.len()).unwrap_or(u32::MAX)
    }

    /// As if nobody had been asked yet.
    pub(super) fn start_over(&mut self) {
        self.exchanges.clear();
        self.next = 0;
        self.tries = 0;
        self.unreachable = None;
        for asked in &mut self.servers {
            asked.has_failed = false;
        }
    }
}
