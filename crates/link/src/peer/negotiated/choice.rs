//! Which path is used: the first that works, a better one at once, and a worse one only when the one in use has had the chance to
//! answer.

use std::time::{Duration, Instant};

use super::{Negotiated, SEARCH_EVERY, Search};
use crate::path::{Path, PathKind, PathWhy};
use crate::role::Role;

/// The longest time that a way through a relay waits, after all pairs were tried again, for the direct one to answer.
const HOLD: Duration = Duration::from_millis(500);

/// For how long after a search began its findings come in.
const SEARCH_LASTS: Duration = Duration::from_secs(5);

/// How long after a change of our network a new path is put down to it.
const CHANGE_LASTS: Duration = Duration::from_secs(10);

/// A relayed way that works, while the direct one may still turn out to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) path: Path,
    pub(super) since: Instant,
    pub(super) until: Instant,
}

/// The way that was used before, by which answers and packets may still be coming.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    path: Path,
    until: Instant,
}

/// What becomes of a pair that was nominated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Nomination {
    /// Use it.
    Use(PathWhy),
    /// Not yet.
    Held,
}

impl Negotiated {
    /// Decides about a pair that was nominated, of `kind`, while the path in use is `current`.
    pub(crate) fn nominate(
        &mut self,
        now: Instant,
        path: Path,
        kind: PathKind,
        current: Option<(Path, PathKind)>,
    ) -> Nomination {
        let Some((current, current_kind)) = current else {
            return Nomination::Use(PathWhy::First);
        };
        let is_worse = kind.is_relayed() && !current_kind.is_relayed();
        let is_equal = kind.is_relayed() == current_kind.is_relayed();
        if self.must_wait(now, is_worse, is_equal) && !current.is_way_of(path) {
            self.held = Some(Held {
                path,
                since: now,
                until: now + (self.liveness.patience() * 2).min(HOLD),
            });
            // Whether it works is what the choice depends on.
            self.liveness.doubt(now);
            return Nomination::Held;
        }

        Nomination::Use(self.why(now, is_worse))
    }

    /// Whether the path in use may be as good as one that was nominated.
    fn must_wait(&self, now: Instant, is_worse: bool, is_equal: bool) -> bool {
        let is_controlled = self.config.role == Role::Controlled;
        if self.is_withdrawn {
            return false;
        }
        if self.liveness.is_lost() {
            // Its own check may be answered as well, a little later.
            let is_recheck = self
                .rechecked_at
                .is_some_and(|at| now.saturating_duration_since(at) < HOLD);
            return is_worse && is_recheck && !is_controlled;
        }

        // Another pair than the one in use may have died, and the agent of a controlled end doesn't know which is in use: it
        // was followed there. A search for a better way finds all the others again first.
        let is_search = self
            .searched_at
            .is_some_and(|at| now.saturating_duration_since(at) < SEARCH_LASTS);

        is_worse || (is_equal && (is_controlled || is_search))
    }

    /// Whether what came by `path` left before the peer can have known that we have left that way: it says nothing about which
    /// one the peer uses now.
    pub(crate) fn is_late(&self, now: Instant, path: Path) -> bool {
        let is_left = |left: Left| now < left.until && left.path.is_way_of(path);

        self.left.is_some_and(is_left) && !self.liveness.is_lost()
    }

    /// Why the path is used that the peer was heard by while the one in use is silent.
    pub(crate) fn why_followed(&self, now: Instant) -> PathWhy {
        let why = self.why(now, true);
        let is_our_doing = matches!(why, PathWhy::NetworkChanged | PathWhy::Silence);

        if is_our_doing {
            why
        } else {
            PathWhy::PeerMoved
        }
    }

    fn why(&self, now: Instant, is_worse: bool) -> PathWhy {
        let is_after_change = self
            .network_changed_at
            .is_some_and(|at| now.saturating_duration_since(at) < CHANGE_LASTS);
        if is_after_change {
            PathWhy::NetworkChanged
        } else if self.is_withdrawn {
            PathWhy::Withdrawn
        } else if self.liveness.is_lost() {
            PathWhy::Silence
        } else if is_worse {
            PathWhy::PeerMoved
        } else {
            PathWhy::Better
        }
    }

    /// Another path than `before` is used from here on.
    pub(crate) fn moved(&mut self, now: Instant, before: Option<Path>, kind: PathKind) {
        let until = now + self.liveness.patience();
        self.left = before.map(|path| Left { path, until });
        self.held = None;
        self.is_withdrawn = false;
        self.news_at = None;
        self.seek(now);
        // Where a pair died, the agent turns to one that worked long ago.
        let is_heard = self.heard_at == now;
        self.liveness.moved(now, self.agent.rtt(), is_heard);
        let search = self.search.filter(|_| kind.is_relayed());
        self.search = kind.is_relayed().then(|| {
            search.unwrap_or(Search {
                at: now + SEARCH_EVERY[0],
                every: SEARCH_EVERY[0],
            })
        });
    }
}
