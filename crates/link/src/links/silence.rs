//! Whether this network lets UDP out at all, as far as relays tell: they answer whoever asks.

use std::time::{Duration, Instant};

/// What was heard of relays since the network last changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Silence {
    /// None was asked.
    #[default]
    Unasked,
    /// None has answered so far.
    Since {
        at: Instant,
        /// It was said that this looks like a network without UDP.
        is_said: bool,
    },
    /// One has answered: whatever fails from now on, UDP gets out.
    Broken,
}

impl Silence {
    /// A relay is asked.
    pub(super) fn ask(&mut self, now: Instant) {
        if *self == Self::Unasked {
            *self = Self::Since {
                at: now,
                is_said: false,
            };
        }
    }

    /// A relay has answered.
    pub(super) fn hear(&mut self) {
        if let Self::Since { is_said: true, .. } = self {
            tracing::info!("A relay answers: this network lets UDP out now");
        }
        *self = Self::Broken;
    }

    /// The last relay is given up.
    pub(super) fn give_up(&mut self) {
        if let Self::Since { is_said, .. } = self
            && !std::mem::replace(is_said, true)
        {
            tracing::info!(
                "No relay answers; does this network let UDP out, to port 3478? There is no path without it"
            );
        }
    }

    /// How long relays have been asked in vain.
    pub(super) fn lasts(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Since { at, .. } => Some(now.saturating_duration_since(*at)),
            Self::Unasked | Self::Broken => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has to begin at some time"
    )]
    fn silence_lasts_from_the_first_question_to_the_first_answer() {
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        let mut silence = Silence::default();
        assert_eq!(silence.lasts(later), None);

        silence.ask(now);
        silence.give_up();
        silence.ask(later);
        assert_eq!(silence.lasts(later), Some(Duration::from_secs(9)));

        silence.hear();
        silence.give_up();
        silence.ask(later);
        assert_eq!(silence.lasts(later), None, "a relay fails, not the network");
    }
}
