//! The short names that a relay knows peers by (connections.md §6.7).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::channel::ChannelNumber;

/// How long a relay keeps a channel (RFC 8656 §12).
const LIFETIME: Duration = Duration::from_secs(600);

/// When a channel in use is bound again.
const REFRESH_AGE: Duration = Duration::from_secs(300);

/// After this age a number may name another peer: its lifetime and the relay's cool-down are over.
const REUSE_AGE: Duration = Duration::from_secs(900);

/// How long a peer that the relay refused to bind isn't asked for again.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// The most refused peers that are remembered; beyond them the oldest may be asked for again.
const MAX_REFUSED: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Channels {
    by_number: BTreeMap<ChannelNumber, Channel>,
    by_peer: BTreeMap<SocketAddr, ChannelNumber>,
    /// When each bound channel is old enough to be bound again.
    ages: BTreeSet<(Instant, ChannelNumber)>,
    refused: VecDeque<(Instant, SocketAddr)>,
    last: Option<ChannelNumber>,
}

#[derive(Debug)]
struct Channel {
    peer: SocketAddr,
    /// When the relay confirmed it last.
    bound_at: Option<Instant>,
    /// A request for it is on its way since then.
    asked_at: Option<Instant>,
    /// Whether the peer was heard since it was bound last.
    is_heard: bool,
}

impl Channels {
    /// The channel to reach `peer` by: bound, or being bound, for then bind and data travel back to back.
    pub(crate) fn to_send(&self, now: Instant, peer: SocketAddr) -> Option<ChannelNumber> {
        let number = self.by_peer.get(&peer)?;
        let channel = self.by_number.get(number)?;

        (channel.asked_at.is_some() || channel.is_bound(now)).then_some(*number)
    }

    /// Picks the number to bind to `peer`; `None` if all are taken.
    pub(crate) fn begin_bind(&mut self, now: Instant, peer: SocketAddr) -> Option<ChannelNumber> {
        self.refused
            .retain(|(at, _)| now.saturating_duration_since(*at) < REFUSED_FOR);
        if self.refused.iter().any(|(_, refused)| *refused == peer) {
            return None;
        }
        let number = match self.by_peer.get(&peer) {
            // The relay refuses a peer under a second number while the first cools down.
            Some(number) => *number,
            None => self.free_number(now)?,
        };
        if let Some(former) = self.by_number.insert(
            number,
            Channel {
                peer,
                bound_at: None,
                asked_at: Some(now),
                is_heard: false,
            },
        ) {
            self.by_peer.remove(&former.peer);
            self.ages.retain(|(_, aged)| *aged != number);
        }
        self.by_peer.insert(peer, number);
        self.last = Some(number);

        Some(number)
    }

    pub(crate) fn confirm(&mut self, now: Instant, number: ChannelNumber, peer: SocketAddr) {
        if let Some(channel) = self
            .by_number
            .get_mut(&number)
            .filter(|channel| channel.peer == peer)
        {
            if let Some(before) = channel.bound_at.replace(now) {
                self.ages.remove(&(before + REFRESH_AGE, number));
            }
            channel.asked_at = None;
            channel.is_heard = false;
            self.ages.insert((now + REFRESH_AGE, number));
        }
    }

    pub(crate) fn refused(&mut self, now: Instant, number: ChannelNumber) {
        if let Some(channel) = self.by_number.remove(&number) {
            self.by_peer.remove(&channel.peer);
            self.ages.retain(|(_, aged)| *aged != number);
            if self.refused.len() >= MAX_REFUSED {
                self.refused.pop_front();
            }
            self.refused.push_back((now, channel.peer));
        }
    }

    /// The peer behind `number`, if the relay has confirmed it.
    pub(crate) fn receive(&mut self, now: Instant, number: ChannelNumber) -> Option<SocketAddr> {
        let channel = self.by_number.get_mut(&number)?;
        if !channel.is_bound(now) {
            return None;
        }
        if !std::mem::replace(&mut channel.is_heard, true)
            && let Some(at) = channel.refresh_at()
        {
            // It may have been passed over when it came of age.
            self.ages.insert((at, number));
        }

        Some(channel.peer)
    }

    /// The next channel that is in use and old; it counts as asked for from here on. One that nobody was heard on is passed
    /// over until somebody is.
    pub(crate) fn refresh_due(&mut self, now: Instant) -> Option<(ChannelNumber, SocketAddr)> {
        while let Some((at, number)) = self.ages.first().copied() {
            if at > now {
                break;
            }
            self.ages.pop_first();
            let channel = self.by_number.get_mut(&number);
            let Some(channel) = channel.filter(|channel| channel.refresh_at() == Some(at)) else {
                continue;
            };
            channel.asked_at = Some(now);
            return Some((number, channel.peer));
        }

        None
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.ages.first().map(|(at, _)| *at)
    }

    fn free_number(&self, now: Instant) -> Option<ChannelNumber> {
        let start = self.last.map_or(ChannelNumber::MIN, ChannelNumber::next);
        let mut number = start;
        loop {
            let is_free = self
                .by_number
                .get(&number)
                .is_none_or(|channel| channel.can_be_renamed(now));
            if is_free {
                return Some(number);
            }
            number = number.next();
            if number == start {
                return None;
            }
        }
    }
}

impl Channel {
    fn is_bound(&self, now: Instant) -> bool {
        self.bound_at
            .is_some_and(|at| now.saturating_duration_since(at) < LIFETIME)
    }

    /// Channels that nobody answered on expire in silence.
    fn refresh_at(&self) -> Option<Instant> {
        let bound_at = self
            .bound_at
            .filter(|_| self.is_heard && self.asked_at.is_none())?;

        Some(bound_at + REFRESH_AGE)
    }

    fn can_be_renamed(&self, now: Instant) -> bool {
        let age = self
            .bound_at
            .or(self.asked_at)
            .map(|at| now.saturating_duration_since(at));

        age.is_some_and(|age| age >= REUSE_AGE) && !self.is_heard
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
mod tests {
    use super::*;

    fn peer(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], n))
    }

    #[test]
    fn a_peer_keeps_its_number_through_the_cool_down() {
        let now = Instant::now();
        let mut channels = Channels::default();
        let number = channels.begin_bind(now, peer(1)).unwrap();
        channels.confirm(now, number, peer(1));

        let later = now + LIFETIME + Duration::from_secs(1);
        assert_eq!(
            channels.to_send(later, peer(1)),
            None,
            "the relay has unbound it"
        );
        assert_eq!(channels.receive(later, number), None);
        assert_eq!(channels.begin_bind(later, peer(1)), Some(number));
        assert_ne!(channels.begin_bind(later, peer(2)), Some(number));
    }

    #[test]
    fn data_may_follow_a_bind_at_once_but_is_believed_only_after_it_is_confirmed() {
        let now = Instant::now();
        let mut channels = Channels::default();
        let number = channels.begin_bind(now, peer(1)).unwrap();

        assert_eq!(channels.to_send(now, peer(1)), Some(number));
        assert_eq!(channels.receive(now, number), None);
        channels.confirm(now, number, peer(1));
        assert_eq!(channels.receive(now, number), Some(peer(1)));
    }

    #[test]
    fn only_channels_in_use_are_refreshed() {
        let now = Instant::now();
        let mut channels = Channels::default();
        let used = channels.begin_bind(now, peer(1)).unwrap();
        let silent = channels.begin_bind(now, peer(2)).unwrap();
        channels.confirm(now, used, peer(1));
        channels.confirm(now, silent, peer(2));
        channels.receive(now, used);

        assert_eq!(channels.poll_timeout(), Some(now + REFRESH_AGE));
        let later = now + REFRESH_AGE;
        assert_eq!(channels.refresh_due(later), Some((used, peer(1))));
        assert_eq!(channels.refresh_due(later), None);
        assert_eq!(
            channels.to_send(later, peer(1)),
            Some(used),
            "in use while it is refreshed"
        );
    }

    #[test]
    fn unused_numbers_come_before_recycled_ones() {
        let now = Instant::now();
        let mut channels = Channels::default();
        let first = channels.begin_bind(now, peer(0)).unwrap();
        let later = now + REUSE_AGE;
        for n in 1..0x1000 {
            let number = channels.begin_bind(later, peer(n)).unwrap();
            assert_ne!(number, first);
        }
        assert_eq!(channels.begin_bind(later, peer(0x1000)), Some(first));
        assert_eq!(channels.begin_bind(later, peer(0x1001)), None);
    }
}
