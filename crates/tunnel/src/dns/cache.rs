//! What servers answered, for as long as they said it holds (RFC 2181 §8, RFC 2308).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connlib_wire::dns::{Answer, Name, Query, RecordType};
use connlib_wire::id::ResourceId;

/// What a remembered answer answers. Whoever may get different answers must ask different questions.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Question {
    name: Name,
    record_type: RecordType,
    class: u16,
    recursion_desired: bool,
    dnssec_ok: bool,
    authentic_data: bool,
    checking_disabled: bool,
    /// The resource at whose site it is asked; `None` for the servers of everybody.
    site: Option<ResourceId>,
}

impl Question {
    pub(super) fn new(query: &Query, site: Option<ResourceId>) -> Self {
        Self {
            name: query.name.clone(),
            record_type: query.record_type,
            class: query.class,
            recursion_desired: query.recursion_desired,
            dnssec_ok: query.edns.as_ref().is_some_and(|edns| edns.dnssec_ok),
            authentic_data: query.authentic_data,
            checking_disabled: query.checking_disabled,
            site,
        }
    }

    pub(super) fn site(&self) -> Option<ResourceId> {
        self.site
    }
}

/// Remembers answers within a bound of bytes; what was not asked for the longest gives way.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Question, Entry>,
    /// When each was last asked for, oldest first.
    uses: BTreeMap<u64, Question>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    answer: Arc<Answer>,
    stored_at: Instant,
    /// Until when its server let it be believed.
    holds_until: Instant,
    /// Until when it is given out without asking anybody.
    fresh_until: Instant,
    used: u64,
}

/// An answer that was remembered.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) answer: Arc<Answer>,
    /// For how many whole seconds.
    pub(super) age: u32,
    /// Whether it is older than its server wanted it to become.
    pub(super) is_stale: bool,
}

/// The most that answers take, in bytes: about ten thousand of them.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What an answer takes besides its message: both maps' entries and two names.
const OVERHEAD: usize = 320;

/// Nothing is believed for longer, whatever its TTL (RFC 8767 §4 has a week at most).
const MAX_FRESH: u32 = 24 * 3_600;

/// That something doesn't exist is not believed for longer (RFC 2308 §5 has one to three hours).
const MAX_NEGATIVE: u32 = 3_600;

/// For so long after its end an answer is better than none (RFC 8767 §5: one to three days).
const MAX_STALE: Duration = Duration::from_secs(24 * 3_600);

/// How long servers that didn't answer are left alone where there is something to say without them (RFC 8767 §5).
const RECHECK_AFTER: Duration = Duration::from_secs(30);

impl Cache {
    /// The answer to `question`, if it still holds.
    pub(super) fn fresh(&mut self, now: Instant, question: &Question) -> Option<Kept> {
        let entry = self.entries.get(question)?;
        if entry.fresh_until <= now {
            return None;
        }
        self.touch(question);

        self.kept(now, question)
    }

    /// The answer to `question`, if it held not too long ago.
    pub(super) fn stale(&mut self, now: Instant, question: &Question) -> Option<Kept> {
        let entry = self.entries.get(question)?;
        if entry.holds_until + MAX_STALE <= now {
            return None;
        }

        self.kept(now, question)
    }

    /// As [`stale`](Self::stale), and lets it be given out for a while before servers are asked again.
    pub(super) fn revive(&mut self, now: Instant, question: &Question) -> Option<Kept> {
        let kept = self.stale(now, question)?;
        self.entries.get_mut(question)?.fresh_until = now + RECHECK_AFTER;

        Some(kept)
    }

    /// Remembers an answer that says how long it holds.
    pub(super) fn store(
        &mut self,
        now: Instant,
        question: Question,
        query: &Query,
        answer: &Arc<Answer>,
    ) {
        let Some(holds) = answer.keep_for(query).filter(|holds| *holds > 0) else {
            return;
        };
        let is_negative = answer.is_negative(query);
        let most = if is_negative { MAX_NEGATIVE } else { MAX_FRESH };
        self.forget(&question);
        self.clock += 1;
        let holds_until = now + Duration::from_secs(holds.min(most).into());
        let entry = Entry {
            answer: Arc::clone(answer),
            stored_at: now,
            holds_until,
            fresh_until: holds_until,
            used: self.clock,
        };
        self.bytes += cost(&entry);
        self.uses.insert(self.clock, question.clone());
        self.entries.insert(question, entry);
        while self.bytes > MAX_BYTES
            && let Some((_, oldest)) = self.uses.pop_first()
        {
            if let Some(gone) = self.entries.remove(&oldest) {
                self.bytes -= cost(&gone);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn kept(&self, now: Instant, question: &Question) -> Option<Kept> {
        let entry = self.entries.get(question)?;
        let age = now.saturating_duration_since(entry.stored_at).as_secs();

        Some(Kept {
            answer: Arc::clone(&entry.answer),
            age: u32::try_from(age).unwrap_or(u32::MAX),
            is_stale: entry.holds_until <= now,
        })
    }

    fn touch(&mut self, question: &Question) {
        let Some(entry) = self.entries.get_mut(question) else {
            return;
        };
        self.clock += 1;
        if let Some(question) = self.uses.remove(&entry.used) {
            self.uses.insert(self.clock, question);
        }
        entry.used = self.clock;
    }

    fn forget(&mut self, question: &Question) {
        if let Some(gone) = self.entries.remove(question) {
            self.bytes -= cost(&gone);
            self.uses.remove(&gone.used);
        }
    }
}

fn cost(entry: &Entry) -> usize {
    entry.answer.memory() + OVERHEAD
}
