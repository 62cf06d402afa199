//! The channels of one allocation.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::channel::ChannelNumber;

use crate::answer::Refusal;
use crate::config::AllocationPort;
use crate::deadlines::Due;

/// How long a binding carries data (RFC 8656 §12).
pub(crate) const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// How long number and peer stay together after that, so that late data doesn't reach another peer (RFC 8656 §12).
pub(crate) const COOL_DOWN: Duration = Duration::from_secs(300);

/// One number and one peer that belong together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel {
    pub(crate) peer: SocketAddr,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    Bound { until: Instant },
    CoolingDown { until: Instant },
}

impl Channel {
    /// Whether it carries data.
    pub(crate) fn is_bound(&self) -> bool {
        matches!(self.state, State::Bound { .. })
    }

    /// What happens next to it, and when.
    pub(crate) fn due(&self, port: AllocationPort, number: ChannelNumber) -> (Instant, Due) {
        match self.state {
            State::Bound { until } => (until, Due::Channel(port, number)),
            State::CoolingDown { until } => (until, Due::CoolDown(port, number)),
        }
    }
}

/// Both directions of all channels of one allocation.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    by_number: BTreeMap<ChannelNumber, Channel>,
    /// Looked up, never iterated.
    by_peer: HashMap<SocketAddr, ChannelNumber>,
}

impl Channels {
    /// The peer behind a bound channel.
    pub(crate) fn peer_of(&self, number: ChannelNumber) -> Option<SocketAddr> {
        let channel = self.by_number.get(&number)?;
        channel.is_bound().then_some(channel.peer)
    }

    /// The bound channel that leads to `peer`.
    pub(crate) fn number_of(&self, peer: SocketAddr) -> Option<ChannelNumber> {
        let number = *self.by_peer.get(&peer)?;
        self.peer_of(number).map(|_| number)
    }

    /// Binds or refreshes; returns what the channel was before.
    ///
    /// A number and a peer stay together until the cool-down is over (relay.md §10).
    pub(crate) fn bind(
        &mut self,
        now: Instant,
        number: ChannelNumber,
        peer: SocketAddr,
        limit: usize,
    ) -> Result<Option<Channel>, Refusal> {
        let number_of_peer = self.by_peer.get(&peer).copied();
        let former = self.by_number.get(&number).copied();
        if number_of_peer.is_some_and(|other| other != number)
            || former.is_some_and(|channel| channel.peer != peer)
        {
            return Err(Refusal::BadRequest);
        }
        if former.is_none() && self.by_number.len() >= limit {
            return Err(Refusal::InsufficientCapacity);
        }

        let state = State::Bound {
            until: now + CHANNEL_LIFETIME,
        };
        self.by_number.insert(number, Channel { peer, state });
        self.by_peer.insert(peer, number);

        Ok(former)
    }

    /// Stops relaying through a channel that expired at `expired_at`.
    pub(crate) fn unbind(&mut self, number: ChannelNumber, expired_at: Instant) -> Option<Channel> {
        let channel = self.by_number.get_mut(&number)?;
        channel.state = State::CoolingDown {
            until: expired_at + COOL_DOWN,
        };

        Some(*channel)
    }

    pub(crate) fn remove(&mut self, number: ChannelNumber) {
        if let Some(channel) = self.by_number.remove(&number) {
            self.by_peer.remove(&channel.peer);
        }
    }

    pub(crate) fn get(&self, number: ChannelNumber) -> Option<&Channel> {
        self.by_number.get(&number)
    }

    /// In the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ChannelNumber, &Channel)> {
        self.by_number
            .iter()
            .map(|(number, channel)| (*number, channel))
    }
}
