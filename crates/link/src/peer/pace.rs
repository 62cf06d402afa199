//! How often ICE checks a link's pairs: quickly while a path is looked for, seldom once a relayed one holds, not at all once a
//! direct one does or nobody uses the link.
//!
//! ```text
//!            nothing new for a while     ┌─► keeping (relayed) ─┐  no packets for a while
//! seeking ───────────────────────────────┤                      ├────────────────────────► idle
//!    ▲                                   └─► resting (direct) ──┘                           │
//!    └────── another path, another address, pairs tried anew, packets after idleness ───────┘
//! ```
//!
//! Whether the path in use still works is not found out by this: [`Liveness`](super::liveness) asks by it as soon as
//! something that was sent stays without an answer.

use std::time::{Duration, Instant};

use crate::ice::Timings;
use crate::path::PathKind;
use crate::role::Role;

/// Nothing better was found for so long: the path in use is the best that there is.
const SEEKS_FOR: Duration = Duration::from_secs(5);

/// The same where it is direct: another direct one answers about as quickly if it is any better.
const SEEKS_FOR_WHILE_DIRECT: Duration = Duration::from_secs(2);

/// How often pairs are checked besides a relayed one that is in use: a direct one may have become possible.
const KEPT_EVERY: Duration = Duration::from_secs(15);

/// Without packets for this long a link is idle (connections.md §2).
const MAX_IDLE: Duration = Duration::from_secs(20);

/// How often the controlling end of an idle link asks whether the other is there, which also keeps NATs' mappings
/// (connections.md §4.2: NATs drop them early).
const IDLE_INTERVAL: Duration = Duration::from_secs(25);

/// How long the controlled end may hear nothing, idle or not (connections.md §4.2, server idle).
const IDLE_LIMIT: Duration = Duration::from_secs(1_000);

/// The pace of a link.
#[derive(Debug)]
pub(super) struct Pace {
    role: Role,
    stage: Stage,
    /// When a packet last came or went.
    active_at: Instant,
    /// When to look whether the link is idle. It stays where it is when packets flow.
    idle_due_at: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Seeking { since: Instant },
    Keeping,
    Resting,
    Idle { asks_at: Instant },
}

/// What a change of pace asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// Check pairs no more often than this.
    Slower(Duration),
    /// Ask the peer by the path in use.
    Ask,
    /// Check no pairs.
    Rest,
}

impl Pace {
    pub(super) fn new(now: Instant, role: Role) -> Self {
        Self {
            role,
            stage: Stage::Seeking { since: now },
            active_at: now,
            idle_due_at: now + MAX_IDLE,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle { .. })
    }

    pub(super) fn is_seeking(&self) -> bool {
        matches!(self.stage, Stage::Seeking { .. })
    }

    /// Whether no pairs are checked.
    pub(super) fn is_resting(&self) -> bool {
        matches!(self.stage, Stage::Resting | Stage::Idle { .. })
    }

    /// A packet came or went; whether the link was idle.
    pub(super) fn active(&mut self, now: Instant) -> bool {
        self.active_at = now;
        let was_idle = self.is_idle();
        if was_idle {
            self.idle_due_at = now + MAX_IDLE;
            self.stage = Stage::Seeking { since: now };
        }

        was_idle
    }

    /// There is something new to be found; how often pairs are to be checked.
    pub(super) fn seek(&mut self, now: Instant) -> Duration {
        if !self.is_idle() {
            self.stage = Stage::Seeking { since: now };
        }

        Timings::of(self.role).max_rto
    }

    /// Lets time pass. `path` is the kind of the path in use, if nothing speaks against it.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        path: Option<PathKind>,
    ) -> Option<Change> {
        let change = self.look_whether_idle(now, path.is_some());
        match &mut self.stage {
            Stage::Idle { asks_at } if *asks_at <= now && self.role == Role::Controlling => {
                *asks_at = now + IDLE_INTERVAL;
                Some(Change::Ask)
            }
            Stage::Seeking { since } => match path {
                Some(kind) if !kind.is_relayed() && *since + SEEKS_FOR_WHILE_DIRECT <= now => {
                    self.stage = Stage::Resting;
                    Some(Change::Rest)
                }
                Some(kind) if kind.is_relayed() && *since + SEEKS_FOR <= now => {
                    self.stage = Stage::Keeping;
                    let usual = Timings::of(self.role).max_rto;
                    Some(Change::Slower(usual.max(KEPT_EVERY)))
                }
                Some(_) | None => change,
            },
            Stage::Keeping | Stage::Resting | Stage::Idle { .. } => change,
        }
    }

    fn look_whether_idle(&mut self, now: Instant, has_path: bool) -> Option<Change> {
        if self.idle_due_at > now || self.is_idle() {
            return None;
        }
        let idle_at = self.active_at + MAX_IDLE;
        if idle_at > now {
            self.idle_due_at = idle_at;
            return None;
        }
        if !has_path {
            self.idle_due_at = now + MAX_IDLE;
            return None;
        }
        // Since the last packet, no NAT on the way was told to keep its mapping.
        self.stage = Stage::Idle {
            asks_at: self.active_at + IDLE_INTERVAL,
        };

        Some(Change::Rest)
    }

    /// When there is something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            // That it is over is found out when a pair is checked.
            Stage::Seeking { .. } | Stage::Keeping | Stage::Resting => Some(self.idle_due_at),
            Stage::Idle { asks_at } => (self.role == Role::Controlling).then_some(asks_at),
        }
    }

    /// Until when the peer must be heard. The controlled end asks nothing while the link is idle: the other one does. While
    /// it isn't, ICE notices silence much earlier, unless what it tries changes all the time.
    pub(super) fn ends_at(&self, heard_at: Instant) -> Option<Instant> {
        (self.role == Role::Controlled).then(|| heard_at + IDLE_LIMIT)
    }
}
