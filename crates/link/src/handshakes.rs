//! How many handshakes are looked at: each costs ten times as much as a datagram of data, with the answer that it gets.
//!
//! Whoever knows our public key can have us work, with a cookie for each of their initiations (the WireGuard paper, §5.3).
//! Messages that only claim to be for us are cheap and don't count, so nobody who doesn't know the key can use up what
//! somebody else has left.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::wireguard::Error;

/// What is left of this second, in all and for each source.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    ends_at: Option<Instant>,
    total: u32,
    by_source: HashMap<IpAddr, u32>,
}

const WINDOW: Duration = Duration::from_secs(1);

/// So many messages of one source per second: enough for many peers behind one address that all begin at once, and more
/// than `sanstun` answers before it asks for cookies.
const MAX_OF_SOURCE: u32 = 200;

/// So many of all sources per second: at ten microseconds for each answer by a cookie (measured), 4 % of a core.
const MAX_IN_ALL: u32 = 4_000;

/// Their kinds and lengths (the WireGuard paper, §5.4.2 and §5.4.3).
const INITIATION: ([u8; 4], usize) = ([1, 0, 0, 0], 148);
const RESPONSE: ([u8; 4], usize) = ([2, 0, 0, 0], 92);

impl Handshakes {
    /// Whether a datagram is a handshake's message.
    pub(crate) fn is_one(datagram: &[u8]) -> bool {
        let is =
            |(kind, len): ([u8; 4], usize)| datagram.len() == len && datagram.starts_with(&kind);

        is(INITIATION) || is(RESPONSE)
    }

    /// Whether one more of `source` is looked at.
    pub(crate) fn admits(&mut self, now: Instant, source: IpAddr) -> bool {
        if self.ends_at.is_none_or(|ends_at| ends_at <= now) {
            self.ends_at = Some(now + WINDOW);
            self.total = 0;
            self.by_source.clear();
        }
        let of_source = self.by_source.get(&network(source)).copied();

        self.total < MAX_IN_ALL && of_source.unwrap_or_default() < MAX_OF_SOURCE
    }

    /// Counts one that was looked at.
    pub(crate) fn count<T>(&mut self, source: IpAddr, result: &Result<T, Error>) {
        if matches!(result, Err(Error::InvalidMac)) {
            return;
        }
        self.total += 1;
        *self.by_source.entry(network(source)).or_default() += 1;
    }
}

/// Whoever has one IPv6 address has as many as they like of its /64.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => IpAddr::from((ip.to_bits() & !u128::from(u64::MAX)).to_be_bytes()),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOKED_AT: Result<(), Error> = Ok(());

    /// How many of `messages` of `source` are looked at.
    fn admitted(handshakes: &mut Handshakes, now: Instant, source: IpAddr, messages: u32) -> u32 {
        let mut admitted = 0;
        for _ in 0..messages {
            if handshakes.admits(now, source) {
                handshakes.count(source, &LOOKED_AT);
                admitted += 1;
            }
        }

        admitted
    }

    #[test]
    fn a_source_that_sends_nothing_but_handshakes_uses_up_its_own_share() {
        let now = Instant::now();
        let mut handshakes = Handshakes::default();
        let [flood, other] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());

        assert_eq!(admitted(&mut handshakes, now, flood, 10_000), MAX_OF_SOURCE);
        assert_eq!(admitted(&mut handshakes, now, other, 10), 10);
        assert_eq!(admitted(&mut handshakes, now + WINDOW, flood, 10), 10);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_source() {
        let now = Instant::now();
        let mut handshakes = Handshakes::default();
        let source = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]);
        let all = (0..300).map(|host| admitted(&mut handshakes, now, source(host), 1));

        assert_eq!(all.sum::<u32>(), MAX_OF_SOURCE);
    }

    #[test]
    fn forged_sources_use_up_no_more_than_there_is_for_all() {
        let now = Instant::now();
        let mut handshakes = Handshakes::default();
        let sources = (0..100_000).map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)));
        let all: u32 = sources
            .map(|source| admitted(&mut handshakes, now, source, 1))
            .sum();

        assert_eq!(all, MAX_IN_ALL);
        assert!(handshakes.by_source.len() <= MAX_IN_ALL as usize);
    }

    #[test]
    fn messages_for_another_key_use_up_nothing() {
        let now = Instant::now();
        let mut handshakes = Handshakes::default();
        let source = "192.0.2.1".parse().unwrap();
        for _ in 0..1_000 {
            handshakes.count::<()>(source, &Err(Error::InvalidMac));
        }

        assert!(handshakes.admits(now, source));
    }
}
