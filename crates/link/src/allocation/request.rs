//! A request that waits for its answer, and how often it is repeated.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::channel::ChannelNumber;

/// The wait before the first repetition (connections.md §6.4).
const FIRST_INTERVAL: Duration = Duration::from_secs(1);

/// After this much silence the request is given up (connections.md §6.4).
const GIVE_UP_AFTER: Duration = Duration::from_secs(8);

/// The same two for questions whether the relay is there: whoever waits for the answer, waits with packets.
const FIRST_QUESTION_INTERVAL: Duration = Duration::from_millis(250);
const DEAD_AFTER: Duration = Duration::from_secs(1);

/// What a request is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// BINDING: which addresses are ours, and is the relay there?
    Probe,
    /// ALLOCATE.
    Allocate,
    /// REFRESH.
    Refresh,
    /// REFRESH that is given up soon: has the relay forgotten us?
    Liveness,
    /// REFRESH with lifetime zero: give back an allocation we didn't know of.
    Release,
    /// CHANNEL-BIND.
    BindChannel {
        /// The name.
        number: ChannelNumber,
        /// Whose.
        peer: SocketAddr,
    },
}

impl Purpose {
    pub(crate) const fn refreshes(self) -> bool {
        matches!(self, Self::Refresh | Self::Liveness)
    }

    /// Whether an answer to it may end in an address of the relay.
    pub(crate) const fn leads_to_allocation(self) -> bool {
        matches!(self, Self::Probe | Self::Allocate | Self::Release)
    }
}

/// A request in flight. Repetitions carry the same bytes: a late answer to the first still counts.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) to: SocketAddr,
    pub(crate) purpose: Purpose,
    pub(crate) bytes: Vec<u8>,
    pub(crate) has_nonce: bool,
    /// Whether the relay has refused the credentials of the same request before.
    pub(crate) was_refused: bool,
    sent_at: Instant,
    next_at: Instant,
    interval: Duration,
    gives_up_at: Instant,
}

impl Request {
    pub(crate) fn new(
        now: Instant,
        to: SocketAddr,
        purpose: Purpose,
        bytes: Vec<u8>,
        has_nonce: bool,
        rtt: Duration,
    ) -> Self {
        let is_question = matches!(purpose, Purpose::Probe | Purpose::Liveness);
        let interval = match is_question {
            true => FIRST_QUESTION_INTERVAL,
            false => FIRST_INTERVAL,
        };
        let patience = match purpose == Purpose::Liveness {
            true => DEAD_AFTER.max(rtt * 4),
            false => GIVE_UP_AFTER,
        };

        Self {
            to,
            purpose,
            bytes,
            has_nonce,
            was_refused: false,
            sent_at: now,
            next_at: now + interval,
            interval,
            gives_up_at: now + patience,
        }
    }

    pub(crate) fn sent_at(&self) -> Instant {
        self.sent_at
    }

    pub(crate) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Its time has come: true to send it again, false to give it up.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        if now >= self.gives_up_at {
            return false;
        }
        self.interval = self.interval * 3 / 2;
        self.next_at += self.interval;

        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// connections.md §13.1 no. 3.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn a_request_is_sent_four_times_and_given_up_after_eight_seconds() {
        let start = Instant::now();
        let to = "192.0.2.1:3478".parse().unwrap();
        let mut request = Request::new(
            start,
            to,
            Purpose::Refresh,
            Vec::new(),
            true,
            Duration::ZERO,
        );

        let mut triggers = Vec::new();
        loop {
            let at = request.next_at();
            triggers.push((at - start).as_millis());
            if !request.advance(at) {
                break;
            }
        }
        assert_eq!(triggers, [1_000, 2_500, 4_750, 8_125]);
    }
}
