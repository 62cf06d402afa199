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
    /// It is a STUN answer, or an indication that means nothing here.
    NotARequest,
    /// It asks for something that no STUN server does.
    UnknownMethod,
    /// Its FINGERPRINT is wrong.
    WrongFingerprint,
    /// Its user name has no key, so that an answer couldn't be signed.
    UnusableUsername,
    /// Its source got many answers without proving who it is.
    TooManyAnswers,
    /// Its source sent wrong credentials too often.
    TooManyFailures,
    /// The answer doesn't fit a buffer of the pool, or the data no indication.
    AnswerTooLong,
    /// It begins like channel data, but is shorter than it says.
    MalformedChannelData,
    /// It is a Send indication that lacks an attribute, or requires one that isn't known.
    MalformedIndication,
    /// There is no allocation for its sender, or at its port.
    NoAllocation,
    /// No bound channel leads where it wants to go.
    NoChannel,
    /// The allocation doesn't permit that peer.
    NoPermission,
    /// Nothing is relayed to that address.
    ForbiddenPeer,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::SourcePortZero,
        Self::UnknownProtocol,
        Self::MalformedStun,
        Self::NotARequest,
        Self::UnknownMethod,
        Self::WrongFingerprint,
        Self::UnusableUsername,
        Self::TooManyAnswers,
        Self::TooManyFailures,
        Self::AnswerTooLong,
        Self::MalformedChannelData,
        Self::MalformedIndication,
        Self::NoAllocation,
        Self::NoChannel,
        Self::NoPermission,
        Self::ForbiddenPeer,
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

/// Counters since the server began, and four gauges.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Allocations that exist now, those whose port is being opened included.
    pub allocations: usize,
    /// Channels that carry data now.
    pub channels: usize,
    /// IP addresses of peers that are permitted now, each once per allocation.
    pub permissions: usize,
    /// Ports that are kept for a second allocation now.
    pub reservations: usize,
    /// Allocations made.
    pub allocations_made: u64,
    /// Channels bound, those that only live on left out.
    pub channels_made: u64,
    /// Permissions installed, those that only live on left out.
    pub permissions_made: u64,
    /// Data given to peers that came through a channel.
    pub to_peers: Traffic,
    /// Data given to clients through a channel.
    pub to_clients: Traffic,
    /// Data given to peers that came in Send indications.
    pub sent_to_peers: Traffic,
    /// Data given to clients in Data indications.
    pub indicated_to_clients: Traffic,
    /// Data from a client of this relay to another, which never left the relay.
    pub between_clients: Traffic,
    /// Answers by method and error code; `None` is success. All methods that no
    /// request has count as `Other(0)`.
    pub answers: BTreeMap<(Method, Option<u16>), u64>,
    dropped: [u64; DropReason::ALL.len()],
}

impl Stats {
    /// Adds what another server has counted.
    pub fn absorb(&mut self, other: &Self) {
        let Self {
            allocations,
            channels,
            permissions,
            reservations,
            allocations_made,
            channels_made,
            permissions_made,
            to_peers,
            to_clients,
            sent_to_peers,
            indicated_to_clients,
            between_clients,
            answers,
            dropped,
        } = other;
        self.allocations += allocations;
        self.channels += channels;
        self.permissions += permissions;
        self.reservations += reservations;
        self.allocations_made += allocations_made;
        self.channels_made += channels_made;
        self.permissions_made += permissions_made;
        for (ours, theirs) in [
            (&mut self.to_peers, to_peers),
            (&mut self.to_clients, to_clients),
            (&mut self.sent_to_peers, sent_to_peers),
            (&mut self.indicated_to_clients, indicated_to_clients),
            (&mut self.between_clients, between_clients),
        ] {
            ours.datagrams += theirs.datagrams;
            ours.bytes += theirs.bytes;
        }
        for (answer, count) in answers {
            *self.answers.entry(*answer).or_default() += count;
        }
        for (ours, theirs) in self.dropped.iter_mut().zip(dropped) {
            *ours += theirs;
        }
    }

    /// Bytes of payload that were relayed, whichever way.
    pub fn relayed_bytes(&self) -> u64 {
        let ways = [
            self.to_peers,
            self.to_clients,
            self.sent_to_peers,
            self.indicated_to_clients,
            self.between_clients,
        ];

        ways.iter().map(|traffic| traffic.bytes).sum()
    }

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
        let method = if matches!(method, Method::Send | Method::Data | Method::Other(_)) {
            Method::Other(0)
        } else {
            method
        };
        *self.answers.entry((method, error)).or_default() += 1;
    }
}
