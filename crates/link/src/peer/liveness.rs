//! Whether the path in use still works: what is sent must be followed by a sign of the peer (connections.md §14).
//!
//! ```text
//! trusted ── sent, and nothing heard for a while ──► asked ── two questions without an answer ──► lost
//!    ▲                                                 │                                            │
//!    └──────────────── anything heard by the path ─────┴────────────────────────────────────────────┘
//! ```
//!
//! Who sends nothing learns nothing here: ICE's own checks, which come seldom, are enough for an idle link.

use std::time::{Duration, Instant};

/// The least silence after something was sent before the peer is asked whether it is there.
const SILENCE: Duration = Duration::from_millis(250);

/// How long the answer to a question may take at least, and at most, before the next one is asked.
const PATIENCE: [Duration; 2] = [Duration::from_millis(150), Duration::from_secs(2)];

/// The most patience where something else says that the path may be no more: trying all pairs too early costs little then.
const HASTE: Duration = Duration::from_millis(300);

/// How many questions stay without an answer before the path counts as lost.
const QUESTIONS: u32 = 2;

/// How long no path may be found before the owner is told: it may know another peer.
const TOLD_AFTER: Duration = Duration::from_secs(3);

/// A peer that was not heard for so long, although idle links ask each 25 s, has most likely forgotten us while we slept:
/// the owner is told as soon as it doesn't answer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// How long a path is looked for at least, however long ago the peer was heard: it may have slept.
const LOOKED_FOR: Duration = Duration::from_secs(20);

/// When all pairs are tried from the start again as long as none works; each time later, up to the second value.
const RECHECK_EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(16)];

/// What is to be done about a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Ask the peer by the path in use.
    Ask,
    /// Ask it once more, and the relay as well that the path runs through.
    AskAgain,
    /// The path is lost: try all others, and this one again.
    Recheck,
    /// No way was found so far: tell the owner.
    Tell,
    /// There never was an answer: the link has failed.
    GiveUp,
}

/// What is known about the path in use.
#[derive(Debug)]
pub(crate) struct Liveness {
    heard_at: Instant,
    /// When the first datagram left that nothing was heard after.
    unanswered_since: Option<Instant>,
    /// When to look next. It stays where it is when something is heard, so that traffic moves no timers.
    due_at: Option<Instant>,
    stage: Stage,
    rtt: Option<Rtt>,
    gives_up_after: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Trusted,
    Asked {
        questions: u32,
        patience: Duration,
    },
    Lost {
        since: Instant,
        is_told: bool,
        recheck_at: Instant,
        every: Duration,
    },
}

/// A smoothed round-trip time and how much it varies (RFC 6298 §2).
#[derive(Clone, Copy, Debug)]
struct Rtt {
    smoothed: Duration,
    variation: Duration,
}

impl Liveness {
    /// `gives_up_after` is how long no path may work before the link has failed.
    pub(crate) fn new(now: Instant, gives_up_after: Duration) -> Self {
        Self {
            heard_at: now,
            unanswered_since: None,
            due_at: None,
            stage: Stage::Trusted,
            rtt: None,
            gives_up_after,
        }
    }

    /// Something left that a living peer may be expected to answer.
    pub(crate) fn sent(&mut self, now: Instant) {
        if self.unanswered_since.is_none() {
            self.unanswered_since = Some(now);
            if self.due_at.is_none() {
                self.due_at = Some(now + self.silence());
            }
        }
    }

    /// The peer was heard by the path in use.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.unanswered_since = None;
        self.stage = Stage::Trusted;
    }

    /// The peer asked something by the path in use: it is there, which doesn't say that it hears us.
    pub(crate) fn was_asked(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Another path is used from here on. If nothing was heard by it just now, it is asked at once.
    pub(crate) fn moved(&mut self, now: Instant, rtt: Option<Duration>, is_heard: bool) {
        let heard_at = if is_heard { now } else { self.heard_at };
        self.heard(heard_at);
        self.due_at = None;
        self.rtt = None;
        if let Some(rtt) = rtt {
            self.sample(rtt);
        }
        if !is_heard {
            self.doubt(now);
        }
    }

    /// Whether the path still works is to be asked at once.
    pub(crate) fn doubt(&mut self, now: Instant) {
        if self.stage == Stage::Trusted {
            self.unanswered_since.get_or_insert(now);
            self.stage = Stage::Asked {
                questions: 0,
                patience: self.patience().min(HASTE),
            };
            self.due_at = Some(now);
        }
    }

    /// The path is known to be no more.
    pub(crate) fn lose(&mut self, now: Instant) {
        if !self.is_lost() {
            self.unanswered_since.get_or_insert(now);
            self.stage = Stage::Lost {
                since: now,
                is_told: false,
                recheck_at: now,
                every: RECHECK_EVERY[0],
            };
            self.due_at = Some(now);
        }
    }

    /// Takes in how long an answer took.
    pub(crate) fn sample(&mut self, rtt: Duration) {
        self.rtt = Some(match self.rtt {
            None => Rtt {
                smoothed: rtt,
                variation: rtt / 2,
            },
            Some(known) => Rtt {
                smoothed: (known.smoothed * 7 + rtt) / 8,
                variation: (known.variation * 3 + known.smoothed.abs_diff(rtt)) / 4,
            },
        });
    }

    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.stage, Stage::Lost { .. })
    }

    /// Whether nothing was heard by the path for at least `span`.
    pub(crate) fn is_quiet(&self, now: Instant, span: Duration) -> bool {
        now.saturating_duration_since(self.heard_at) >= span
    }

    pub(crate) fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// How long answers take by the path in use, smoothed.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|rtt| rtt.smoothed)
    }

    /// How long an answer may take by the path in use.
    pub(crate) fn patience(&self) -> Duration {
        let [least, most] = PATIENCE;

        self.rtt.map_or(least, |rtt| {
            (rtt.smoothed + rtt.variation * 4).clamp(least, most)
        })
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due_at
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Step> {
        if self.due_at.is_none_or(|at| at > now) {
            return None;
        }

        match self.stage {
            Stage::Trusted => {
                self.due_at = self.unanswered_since.map(|since| since + self.silence());
                if self.due_at.is_none_or(|at| at > now) {
                    return None;
                }
                self.ask(now, 1, self.patience())
            }
            Stage::Asked {
                questions,
                patience,
            } if questions < QUESTIONS => self.ask(now, questions + 1, patience),
            Stage::Asked { .. } => {
                self.lose(now);
                self.search(now)
            }
            Stage::Lost { .. } => self.search(now),
        }
    }

    fn ask(&mut self, now: Instant, questions: u32, patience: Duration) -> Option<Step> {
        self.stage = Stage::Asked {
            questions,
            patience,
        };
        self.due_at = Some(now + patience);

        Some(match questions {
            ..=1 => Step::Ask,
            2.. => Step::AskAgain,
        })
    }

    /// What is due while no path works.
    fn search(&mut self, now: Instant) -> Option<Step> {
        let gives_up_after = self.gives_up_after;
        let heard_at = self.heard_at;
        let Stage::Lost {
            since,
            is_told,
            recheck_at,
            every,
        } = &mut self.stage
        else {
            return None;
        };
        let looked_until = *since + LOOKED_FOR.min(gives_up_after);
        let gives_up_at = looked_until.max(heard_at + gives_up_after);
        if now >= gives_up_at {
            self.due_at = None;
            return Some(Step::GiveUp);
        }
        let told_at = match since.saturating_duration_since(heard_at) < FORGOTTEN_AFTER {
            true => *since + TOLD_AFTER,
            false => *since,
        };
        let step = if !*is_told && now >= told_at {
            *is_told = true;
            Some(Step::Tell)
        } else if now >= *recheck_at {
            *recheck_at = now + *every;
            *every = (*every * 2).min(RECHECK_EVERY[1]);
            Some(Step::Recheck)
        } else {
            None
        };
        let told_at = (!*is_told).then_some(told_at);
        self.due_at = [Some(gives_up_at), told_at, Some(*recheck_at)]
            .into_iter()
            .flatten()
            .min();

        step
    }

    fn silence(&self) -> Duration {
        self.patience().max(SILENCE)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
mod tests {
    use super::*;

    const GIVES_UP_AFTER: Duration = Duration::from_secs(18);

    /// All steps until `end`, with the milliseconds at which they are due.
    fn steps(liveness: &mut Liveness, start: Instant, end: u64) -> Vec<(u64, Step)> {
        let mut steps = Vec::new();
        while let Some(at) = liveness.poll_timeout() {
            let millis = u64::try_from((at - start).as_millis()).unwrap();
            if millis > end {
                break;
            }
            steps.extend(liveness.handle_timeout(at).map(|step| (millis, step)));
        }

        steps
    }

    #[test]
    fn silence_after_something_sent_is_asked_about_twice_then_the_path_is_lost() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, GIVES_UP_AFTER);
        liveness.sent(start);

        assert_eq!(
            steps(&mut liveness, start, 4_000),
            [
                (250, Step::Ask),
                (400, Step::AskAgain),
                (550, Step::Recheck),
                (1_550, Step::Recheck),
                (3_550, Step::Tell),
                (3_550, Step::Recheck),
            ]
        );
        assert!(liveness.is_lost());
        let rest = steps(&mut liveness, start, 30_000);
        assert_eq!(
            rest.iter().filter(|(_, step)| *step == Step::Tell).count(),
            0
        );
        assert!(rest.contains(&(18_550, Step::GiveUp)), "{rest:?}");
    }

    #[test]
    fn whoever_sends_nothing_or_is_answered_asks_nothing() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, GIVES_UP_AFTER);
        assert_eq!(liveness.poll_timeout(), None);

        for millis in (0..10_000).step_by(20) {
            let now = start + Duration::from_millis(millis);
            liveness.sent(now);
            assert_eq!(liveness.handle_timeout(now), None);
            liveness.heard(now + Duration::from_millis(10));
        }
        assert_eq!(steps(&mut liveness, start, 20_000), []);
        assert_eq!(liveness.poll_timeout(), None);
    }

    #[test]
    fn a_sign_of_the_peer_ends_every_doubt() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, GIVES_UP_AFTER);
        liveness.lose(start);
        assert_eq!(liveness.handle_timeout(start), Some(Step::Recheck));
        liveness.heard(start + Duration::from_millis(20));

        assert!(!liveness.is_lost());
        assert_eq!(steps(&mut liveness, start, 60_000), []);
    }

    #[test]
    fn a_peer_that_does_not_answer_after_a_long_sleep_is_told_of_at_once() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, GIVES_UP_AFTER);
        let awake = start + Duration::from_secs(3_600);
        liveness.sent(awake);

        assert_eq!(
            steps(&mut liveness, awake, 1_000),
            [
                (250, Step::Ask),
                (400, Step::AskAgain),
                (550, Step::Tell),
                (550, Step::Recheck),
            ]
        );
    }

    #[test]
    fn silence_before_the_path_was_lost_counts_for_the_patience_of_who_serves() {
        let patient = Duration::from_secs(650);
        let start = Instant::now();
        for (silent_for, ends_after) in [(10, 650), (640, 660), (3_600, 3_620)] {
            let mut liveness = Liveness::new(start, patient);
            let asked_at = start + Duration::from_secs(silent_for);
            liveness.lose(asked_at);
            let ends = steps(&mut liveness, start, 10_000_000);
            let ends = ends.iter().find(|(_, step)| *step == Step::GiveUp);
            assert_eq!(ends, Some(&(ends_after * 1_000, Step::GiveUp)));
        }
    }

    #[test]
    fn answers_that_always_took_long_may_take_long() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, GIVES_UP_AFTER);
        for rtt in [600, 1_400, 900, 1_200, 700] {
            liveness.sample(Duration::from_millis(rtt));
        }
        liveness.sent(start);

        assert_eq!(steps(&mut liveness, start, 1_800), []);
    }
}
