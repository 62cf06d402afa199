//! What the server counts.

use std::collections::BTreeMap;

use connlib_wire::stun::Method;

/// Why a datagram went nowhere.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum DropReason {
    /// It came from port 0, which nobody can be answered at.
    SourcePortZero,
    /// It is empty, or neither STUN nor channel data.
    UnknownProtocol,
    /// It begins like STUN, but isn't.
    MalformedStun,
    /// It is a STUN indication or answer.
    NotARequest,
    /// Its user name has no key, so that an answer couldn't be signed.
    UnusableUsername,
    /// Its source got many answers without proving who it is.
    TooManyAnswers,
    /// The answer doesn't fit a buffer of the pool.
    AnswerTooLong,
    /// It begins like channel data, but is shorter than it says.
    MalformedChannelData,
    /// There is no allocation for its sender, or at its port.
    NoAllocation,
    /// No bound channel leads where it wants to go.
    NoChannel,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SourcePortZero,
        Self::UnknownProtocol,
        Self::MalformedStun,
        Self::NotARequest,
        Self::UnusableUsername,
        Self::TooManyAnswers,
        Self::AnswerTooLong,
        Self::MalformedChannelData,
        Self::NoAllocation,
        Self::NoChannel,
    ];
}

/// Datagrams and their payloads' bytes, channel headers left out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// How many datagrams.
    pub datagrams: u64,
    /// How many bytes of payload.
    pub bytes: u64,
}

impl Traffic {
    pub(crate) fn add(&mut self, datagrams: usize, bytes: usize) {
        self.datagrams += datagrams as u64;
        self.bytes += bytes as u64;
    }
}

/// Counters since the server began, and two gauges.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Allocations that exist now, those whose port is being opened included.
    pub allocations: usize,
    /// Channels that carry data now.
    pub channels: usize,
    /// Allocations made.
    pub allocations_made: u64,
    /// Data given to peers.
    pub to_peers: Traffic,
    /// Data given to clients.
    pub to_clients: Traffic,
    /// Data from a client of this relay to another, which never left the relay.
    pub between_clients: Traffic,
    /// Answers by method and error code; `None` is success. All methods that don't exist count as `Other(0)`.
    pub answers: BTreeMap<(Method, Option<u16>), u64>,
    dropped: [u64; DropReason::ALL.len()],
}

impl Stats {
    /// How many datagrams were dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped
            .get(reason as usize)
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn count_dropped(&mut self, reason: DropReason, datagrams: usize) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += datagrams as u64;
        }
    }

    pub(crate) fn count_answer(&mut self, method: Method, error: Option<u16>) {
        let method = if matches!(method, Method::Other(_)) {
            Method::Other(0)
        } else {
            method
        };
        *self.answers.entry((method, error)).or_default() += 1;
    }
}
