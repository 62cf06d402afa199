//! Questions on their way to servers: each is asked once, however many want to know, until somebody answers.

mod outcome;
mod pending;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connlib_wire::dns::{Answer, Name, Query, Rcode};
use connlib_wire::id::ResourceId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::cache::{Cache, Question};
use super::health::Health;
use super::{Carrier, Exchange, ExchangeError, ExchangeId, Server};
pub(crate) use outcome::{Ask, Done, Failure, Outcome};
use pending::{Asked, Asker, Pending, UnderWay};

/// Asks servers, and remembers what they answer. `A` is whoever asked.
#[derive(Debug)]
pub(crate) struct Lookups<A> {
    random: StdRng,
    cache: Cache,
    health: Health,
    pending: BTreeMap<u64, Pending<A>>,
    /// The pending one of a question, so that equal questions are asked once.
    by_question: HashMap<(Question, Carrier), u64>,
    under_way: BTreeMap<ExchangeId, UnderWay>,
    /// When each pending one is to be looked at.
    schedule: BTreeSet<(Instant, u64)>,
    exchanges: VecDeque<Exchange>,
    /// What carriers have and haven't brought back.
    carried: BTreeSet<ExchangeId>,
    done: VecDeque<Done<A>>,
    askers: usize,
    next_id: u64,
}

/// How many questions are under way at most, and how many wait for answers to them.
const MAX_PENDING: usize = 4_096;
const MAX_ASKERS: usize = 8_192;

/// How many exchanges carriers have at once: as many as they take (io.md §4), and a few less.
const MAX_CARRIED: usize = 900;

/// How long a better answer than one that no longer holds is waited for (RFC 8767 §5).
const STALE_AFTER: Duration = Duration::from_millis(1_800);

impl<A: Clone + PartialEq> Lookups<A> {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            random: StdRng::from_seed(seed),
            cache: Cache::default(),
            health: Health::default(),
            pending: BTreeMap::new(),
            by_question: HashMap::new(),
            under_way: BTreeMap::new(),
            schedule: BTreeSet::new(),
            exchanges: VecDeque::new(),
            carried: BTreeSet::new(),
            done: VecDeque::new(),
            askers: 0,
            next_id: 0,
        }
    }

    /// Asks `ask` for `asker`, unless the answer is known. The outcome comes out of [`poll_done`](Self::poll_done); false if
    /// that of the same question of the same asker will do, which waits already.
    pub(crate) fn ask(&mut self, now: Instant, asker: A, ask: Ask) -> bool {
        let question = Question::new(&ask.query, ask.site);
        if let Some(kept) = self.cache.fresh(now, &question) {
            self.finish(asker, ask.query, kept.into());
            return true;
        }
        let within = match self.cache.stale(now, &question) {
            Some(_) => ask.within.min(STALE_AFTER),
            None => ask.within,
        };
        let key = (question, ask.carrier);
        if let Some(pending) = self
            .by_question
            .get(&key)
            .and_then(|id| self.pending.get_mut(id))
        {
            if pending.is_awaited_by(&asker, &ask.query) {
                return false;
            }
            if self.askers < MAX_ASKERS {
                self.askers += 1;
                pending.askers.push(Asker {
                    who: asker,
                    query: ask.query,
                    until: now + within,
                });
                return true;
            }
        }
        let failure = if ask.servers.is_empty() {
            Some(Failure::NoServers)
        } else if self.pending.len() >= MAX_PENDING || self.askers >= MAX_ASKERS {
            Some(Failure::Busy)
        } else {
            None
        };
        if let Some(failure) = failure {
            let stale = self.cache.revive(now, &key.0);
            let outcome = stale.map_or(Outcome::Failed(failure), Outcome::from);
            self.finish(asker, ask.query, outcome);
            return true;
        }

        let id = self.fresh_id();
        let give_up_at = now + within;
        let servers = ask.servers.into_iter().map(Asked::new);
        let (question, carrier) = key.clone();
        self.askers += 1;
        self.by_question.insert(key, id);
        self.schedule.insert((now, id));
        let pending = Pending {
            question,
            carrier,
            query: ask.query.clone(),
            askers: vec![Asker {
                who: asker,
                query: ask.query,
                until: give_up_at,
            }],
            servers: servers.collect(),
            next: 0,
            tries: 0,
            retry_at: now,
            give_up_at,
            due_at: now,
            exchanges: Vec::new(),
            worst: None,
            unreachable: None,
        };
        self.pending.insert(id, pending);
        self.try_next(now, id);

        true
    }

    /// Takes what a carrier brought.
    pub(crate) fn handle_outcome(
        &mut self,
        now: Instant,
        id: ExchangeId,
        outcome: Result<Vec<u8>, ExchangeError>,
    ) {
        self.carried.remove(&id);
        let Some(exchange) = self.under_way.remove(&id) else {
            return;
        };
        let Some(pending) = self.pending.get_mut(&exchange.pending) else {
            return;
        };
        pending.exchanges.retain(|other| *other != id);
        let Some(asked) = pending.servers.get_mut(exchange.server) else {
            return;
        };
        let answer = outcome.map(|message| {
            Answer::parse(message)
                .ok()
                .filter(|answer| answer.answers(&pending.query, exchange.id))
        });
        match answer {
            Ok(Some(answer)) => {
                let took = now.saturating_duration_since(exchange.sent_at);
                let rcode = answer.rcode();
                if rcode == Rcode::NOERROR || rcode == Rcode::NXDOMAIN {
                    self.health.answered(now, &asked.server, took);
                    if asked.disliked_edns {
                        // It is from before 1999 (RFC 6891 §7).
                        self.health.speaks_no_edns(&asked.server);
                    }
                    return self.answered(now, exchange.pending, answer);
                }
                let dislikes_edns = rcode == Rcode::FORMERR || rcode == Rcode::NOTIMP;
                if exchange.with_edns && dislikes_edns {
                    // Or it dislikes the question; without EDNS that shows.
                    asked.disliked_edns = true;
                    return self.try_server(now, exchange.pending, exchange.server);
                }
                asked.has_failed = true;
                pending.worst.get_or_insert_with(|| Arc::new(answer));
            }
            // It talks nonsense.
            Ok(None) => asked.has_failed = true,
            Err(ExchangeError::TimedOut) => self.health.failed(now, &asked.server),
            Err(ExchangeError::Interrupted) => {
                return self.try_server(now, exchange.pending, exchange.server);
            }
            // Once more when it would have been its turn.
            Err(ExchangeError::Busy) => return,
            Err(error) => {
                self.health.failed(now, &asked.server);
                asked.has_failed = true;
                pending.unreachable.get_or_insert(error);
            }
        }
        self.try_next(now, exchange.pending);
    }

    /// Asks again, or gives up.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.schedule.first().copied() {
            if at > now {
                return;
            }
            let Some(pending) = self.pending.get(&id) else {
                self.schedule.remove(&(at, id));
                continue;
            };
            if pending.give_up_at <= now {
                self.give_up_late(now, id);
                continue;
            }
            for exchange in &pending.exchanges {
                let server = self
                    .under_way
                    .get(exchange)
                    .map(|under_way| under_way.server);
                if let Some(asked) = server.and_then(|server| pending.servers.get(server)) {
                    self.health.failed(now, &asked.server);
                }
            }
            self.try_next(now, id);
        }
    }

    /// An exchange to be carried. There are none while too many are.
    pub(crate) fn poll_exchange(&mut self) -> Option<Exchange> {
        while self.carried.len() < MAX_CARRIED {
            let exchange = self.exchanges.pop_front()?;
            // Nobody waits for it any longer.
            if !self.under_way.contains_key(&exchange.id) {
                continue;
            }
            self.carried.insert(exchange.id);
            return Some(exchange);
        }

        None
    }

    /// A question that has its answer, or gets none.
    pub(crate) fn poll_done(&mut self) -> Option<Done<A>> {
        self.done.pop_front()
    }

    pub(crate) fn has_output(&self) -> bool {
        let has_exchange = !self.exchanges.is_empty() && self.carried.len() < MAX_CARRIED;

        has_exchange || !self.done.is_empty()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.first().map(|(at, _)| *at)
    }

    /// Forgets all answers: what they were true of has changed.
    pub(crate) fn forget_answers(&mut self) {
        self.cache.clear();
    }

    /// Asks anew what is under way: the network it was sent by is gone, and in this one other servers may be fast.
    pub(crate) fn start_over(&mut self, now: Instant) {
        self.health = Health::default();
        self.under_way.clear();
        self.exchanges.clear();
        self.carried.clear();
        let ids: Vec<u64> = self.pending.keys().copied().collect();
        for id in ids {
            if let Some(pending) = self.pending.get_mut(&id) {
                pending.start_over();
            }
            self.try_next(now, id);
        }
    }

    /// Gives back what is no longer to be asked as it is: `meant` judges by the name, the resource at whose site it is asked,
    /// and the first of the servers.
    pub(crate) fn take_back(
        &mut self,
        mut meant: impl FnMut(&Name, Option<ResourceId>, &Server) -> bool,
    ) -> Vec<(A, Query)> {
        let meant = self.pending.iter().filter(|(_, pending)| {
            let server = pending.servers.first();
            server.is_some_and(|asked| {
                meant(&pending.query.name, pending.question.site(), &asked.server)
            })
        });
        let ids: Vec<u64> = meant.map(|(id, _)| *id).collect();
        let taken = ids.into_iter().filter_map(|id| self.remove(id));
        let taken = taken.flatten().map(|asker| (asker.who, asker.query));
        let taken: Vec<(A, Query)> = taken.collect();
        let under_way = &self.under_way;
        self.exchanges
            .retain(|exchange| under_way.contains_key(&exchange.id));

        taken
    }

    /// Whether anybody waits for the outcome of an exchange that has not been given to a carrier yet; if not, it must not be
    /// any more.
    pub(crate) fn still_wants(&mut self, id: ExchangeId) -> bool {
        let wants = self.under_way.contains_key(&id);
        if !wants {
            self.carried.remove(&id);
        }

        wants
    }

    /// Ends what is asked at the site of a resource.
    pub(crate) fn abandon_site(&mut self, resource: ResourceId) {
        let of_site = |(id, pending): (&u64, &Pending<A>)| {
            (pending.question.site() == Some(resource)).then_some(*id)
        };
        let ids: Vec<u64> = self.pending.iter().filter_map(of_site).collect();
        for id in ids {
            self.close(id, || Outcome::Failed(Failure::Interrupted));
        }
    }

    /// The servers in the order in which they are best asked: those that nothing is known of yet, or any more, so that it becomes
    /// known; then those that answer fast; at last those that don't answer.
    pub(crate) fn by_health(&self, now: Instant, servers: &[Server]) -> Vec<Server> {
        self.health.sorted(now, servers)
    }

    /// The same without preferring anybody for being fast: those that don't answer are asked last.
    pub(crate) fn dead_last(&self, now: Instant, servers: Vec<Server>) -> Vec<Server> {
        self.health.dead_last(now, servers)
    }

    fn try_next(&mut self, now: Instant, id: u64) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        match pending.next_server() {
            Some(next) => self.try_server(now, id, next),
            None => self.give_up(now, id),
        }
    }

    fn try_server(&mut self, now: Instant, id: u64, at: usize) {
        let exchange_id = ExchangeId(self.fresh_id());
        let dns_id = self.random.random();
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let Some(asked) = pending.servers.get(at) else {
            return;
        };
        let with_edns = !asked.disliked_edns && self.health.may_have_edns(&asked.server);
        let within = pending.give_up_at.saturating_duration_since(now);
        let patience = self.health.patience(now, &asked.server, pending.carrier);
        let patience = patience * 2_u32.saturating_pow(pending.rounds().min(6));

        self.exchanges.push_back(Exchange {
            id: exchange_id,
            server: asked.server.clone(),
            carrier: pending.carrier,
            message: pending.query.to_upstream(dns_id, with_edns),
            within,
        });
        pending.tries += 1;
        pending.next = at + 1;
        pending.exchanges.push(exchange_id);
        pending.retry_at = now + patience;
        pending.reschedule(&mut self.schedule, id);
        let under_way = UnderWay {
            pending: id,
            server: at,
            sent_at: now,
            id: dns_id,
            with_edns,
        };
        self.under_way.insert(exchange_id, under_way);
    }

    fn answered(&mut self, now: Instant, id: u64, answer: Answer) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let answer = match pending.question.site() {
            // Addresses of the site mean nothing out here: its names have others, and those are asked for by themselves.
            Some(_) => answer.without_additional(),
            None => answer,
        };
        let answer = Arc::new(answer);
        self.cache
            .store(now, pending.question.clone(), &pending.query, &answer);
        self.close(id, || Outcome::Answer {
            answer: Arc::clone(&answer),
            age: 0,
            note: None,
        });
    }

    /// Nobody gives a good answer.
    fn give_up(&mut self, now: Instant, id: u64) {
        if let Some(pending) = self.pending.get(&id) {
            let outcome = without_answer(&mut self.cache, now, pending);
            self.close(id, || outcome.clone());
        }
    }

    /// Nobody gave a good answer in time. Whoever came in between to ask the same still waits for one.
    fn give_up_late(&mut self, now: Instant, id: u64) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let outcome = without_answer(&mut self.cache, now, pending);
        let late = pending.take_late(now);
        pending.reschedule(&mut self.schedule, id);
        if pending.askers.is_empty() {
            self.remove(id);
        }
        self.askers -= late.len();
        for asker in late {
            self.finish(asker.who, asker.query, outcome.clone());
        }
    }

    fn close(&mut self, id: u64, outcome: impl Fn() -> Outcome) {
        for asker in self.remove(id).into_iter().flatten() {
            let outcome = outcome();
            self.finish(asker.who, asker.query, outcome);
        }
    }

    /// Forgets a question. Returns who asked it.
    fn remove(&mut self, id: u64) -> Option<Vec<Asker<A>>> {
        let pending = self.pending.remove(&id)?;
        self.schedule.remove(&(pending.due_at, id));
        self.by_question
            .remove(&(pending.question, pending.carrier));
        for exchange in pending.exchanges {
            self.under_way.remove(&exchange);
        }
        self.askers -= pending.askers.len();

        Some(pending.askers)
    }

    fn finish(&mut self, asker: A, query: Query, outcome: Outcome) {
        self.done.push_back(Done {
            asker,
            query,
            outcome,
        });
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;

        self.next_id
    }
}

/// What is told where nobody gives a good answer: one that was good until lately is better than none, and a refusal better than
/// silence.
fn without_answer<A>(cache: &mut Cache, now: Instant, pending: &Pending<A>) -> Outcome {
    if let Some(kept) = cache.revive(now, &pending.question) {
        return kept.into();
    }
    if let Some(worst) = &pending.worst {
        return Outcome::Answer {
            answer: Arc::clone(worst),
            age: 0,
            note: None,
        };
    }

    Outcome::Failed(match &pending.unreachable {
        Some(error) => Failure::Unreachable(error.to_string()),
        None => Failure::TimedOut,
    })
}
