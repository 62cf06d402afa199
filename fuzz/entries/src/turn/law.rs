//! What clients hold, written down a second time from RFC 8656: by what they asked and were answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_relay::Stats;
use connlib_wire::stun::{Family, Message, TransactionId};

use super::ask::{Allocate, Ask, Wish};
use super::{FIRST_PORT, LIMITS, LISTEN, PORTS, PUBLIC_V4, PUBLIC_V6};

const PERMISSION: Duration = Duration::from_secs(300);
const CHANNEL: Duration = Duration::from_secs(600);
const COOL_DOWN: Duration = Duration::from_secs(300);
const KEPT: Duration = Duration::from_secs(30);

/// The state of a server that keeps to the standard.
#[derive(Debug)]
pub(super) struct Law {
    pub(super) has_v6: bool,
    pub(super) takes_private: bool,
    pub(super) is_draining: bool,
    /// By the client's socket.
    pub(super) held: BTreeMap<SocketAddr, Held>,
    pub(super) opening: BTreeMap<SocketAddr, Opening>,
    /// Ports that are kept for whoever has the token.
    kept: BTreeMap<[u8; 8], Kept>,
    /// Tokens that mean nothing any more.
    spent: BTreeSet<[u8; 8]>,
}

/// An allocation.
#[derive(Debug)]
pub(super) struct Held {
    user: &'static str,
    made_by: TransactionId,
    granted: Duration,
    until: Instant,
    pub(super) port: u16,
    pub(super) families: BTreeSet<Family>,
    permitted: BTreeMap<IpAddr, Instant>,
    /// The peer of each number, and until when it leads there; five minutes more nothing else may have either.
    channels: BTreeMap<u16, (SocketAddr, Instant)>,
}

/// An allocation whose ports aren't open yet.
#[derive(Debug)]
pub(super) struct Opening {
    user: &'static str,
    made_by: TransactionId,
    wish: Allocate,
    pub(super) since: Instant,
    /// The port and family that it has by its token.
    redeems: Option<(u16, Family)>,
}

#[derive(Debug)]
struct Kept {
    port: u16,
    family: Family,
    user: &'static str,
    until: Instant,
}

/// What a request by a user must lead to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    Success,
    Refusal,
    /// The answer comes later.
    Later,
    /// It depends on whether closed ports are free again.
    RefusalOrLater,
}

impl Held {
    pub(super) fn permits(&self, peer: IpAddr) -> bool {
        self.permitted.contains_key(&peer)
    }

    pub(super) fn peer_of(&self, now: Instant, number: u16) -> Option<SocketAddr> {
        let (peer, until) = self.channels.get(&number)?;

        (*until > now).then_some(*peer)
    }

    pub(super) fn number_of(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        let mut channels = self.channels.iter();
        let found = channels.find(|(_, (other, until))| *other == peer && *until > now);

        found.map(|(number, _)| *number)
    }
}

impl Law {
    pub(super) fn new(has_v6: bool, takes_private: bool) -> Self {
        Self {
            has_v6,
            takes_private,
            is_draining: false,
            held: BTreeMap::new(),
            opening: BTreeMap::new(),
            kept: BTreeMap::new(),
            spent: BTreeSet::new(),
        }
    }

    /// A token that somebody was given, or a made-up one.
    pub(super) fn some_token(&self, choice: u8) -> [u8; 8] {
        let mut all = self.kept.keys().chain(&self.spent);

        all.nth(usize::from(choice % 4)).copied().unwrap_or([7; 8])
    }

    /// Whatever ends by `now` is gone.
    pub(super) fn pass(&mut self, now: Instant) {
        self.held.retain(|_, held| held.until > now);
        for held in self.held.values_mut() {
            held.permitted.retain(|_, until| *until > now);
            held.channels
                .retain(|_, (_, until)| *until + COOL_DOWN > now);
        }
        let spent = self.kept.iter().filter(|(_, kept)| kept.until <= now);
        self.spent.extend(spent.map(|(token, _)| *token));
        self.kept.retain(|_, kept| kept.until > now);
    }

    /// When the next thing ends.
    pub(super) fn next_end(&self, now: Instant) -> Option<Instant> {
        let of_held = self.held.values().flat_map(|held| {
            let channels = held.channels.values();
            let ends = channels.flat_map(|(_, until)| [*until, *until + COOL_DOWN]);
            ends.chain(held.permitted.values().copied())
                .chain([held.until])
        });
        let of_kept = self.kept.values().map(|kept| kept.until);

        of_held.chain(of_kept).filter(|at| *at > now).min()
    }

    /// What must become of a request of a proven user. `is_settled` says that no port waits to be opened or closed.
    pub(super) fn outcome(&self, ask: &Ask, from: SocketAddr, is_settled: bool) -> Outcome {
        if ask.is_unknown {
            return Outcome::Refusal;
        }
        let is = |holds: bool| match holds {
            true => Outcome::Success,
            false => Outcome::Refusal,
        };
        let own = self.held.get(&from).filter(|held| held.user == ask.user);
        match &ask.wish {
            Wish::Binding => Outcome::Success,
            Wish::Allocate(wish) => self.outcome_of_allocate(ask, wish, from, is_settled),
            Wish::Refresh(_, family) => {
                is(own
                    .is_some_and(|own| family.is_none_or(|family| own.families.contains(&family))))
            }
            Wish::Permit(peers) => is(own.is_some_and(|own| {
                !peers.is_empty()
                    && peers.iter().all(|peer| {
                        own.families.contains(&Family::of(*peer)) && self.may_permit(peer.ip())
                    })
                    && has_room(own, peers)
            })),
            Wish::Bind(number, peer) => is(own.is_some_and(|own| {
                let is_free = own.channels.iter().all(|(other, (bound_to, _))| {
                    (other == number) == (bound_to == peer) // both or neither
                });
                let is_known = own.channels.contains_key(number);
                own.families.contains(&Family::of(*peer))
                    && self.may_reach(*peer)
                    && is_free
                    && (is_known || own.channels.len() < LIMITS.channels_per_allocation)
                    && has_room(own, &[*peer])
            })),
        }
    }

    fn outcome_of_allocate(
        &self,
        ask: &Ask,
        wish: &Allocate,
        from: SocketAddr,
        is_settled: bool,
    ) -> Outcome {
        if let Some(held) = self.held.get(&from) {
            let is_repeated = held.made_by == ask.id && held.user == ask.user;
            return if is_repeated {
                Outcome::Success
            } else {
                Outcome::Refusal
            };
        }
        if let Some(opening) = self.opening.get(&from) {
            let is_repeated = opening.made_by == ask.id && opening.user == ask.user;
            return if is_repeated {
                Outcome::Later
            } else {
                Outcome::Refusal
            };
        }
        let wants_family = wish.requested.is_some() || wish.additional.is_some();
        let kept = wish.token.map(|token| self.kept.get(&token));
        let is_wrong = wish.transport != 17
            || (wish.requested.is_some() && wish.additional.is_some())
            || (wish.token.is_some() && (wants_family || wish.even.is_some()))
            || kept.is_some_and(|kept| kept.is_none())
            || (wish.requested == Some(Family::V6) && !self.has_v6)
            || (wish.additional.is_some() && wish.even == Some(true));
        let kept = kept.flatten();

        let redeemed = usize::from(kept.is_some_and(|kept| kept.user == ask.user));
        let wanted = 1 + usize::from(wish.even == Some(true));
        let is_too_much =
            self.counted_for(ask.user) + wanted - redeemed > LIMITS.allocations_per_user;
        let is_full =
            self.is_draining || self.held.len() + self.opening.len() >= LIMITS.allocations;
        if is_wrong || is_too_much || is_full {
            return Outcome::Refusal;
        }
        if kept.is_some() {
            return Outcome::Later;
        }
        if !is_settled {
            return Outcome::RefusalOrLater;
        }

        let taken: BTreeSet<u16> = (self.held.values().map(|held| held.port))
            .chain(self.kept.values().map(|kept| kept.port))
            .collect();
        let is_free =
            |port: u16| (FIRST_PORT..FIRST_PORT + PORTS).contains(&port) && !taken.contains(&port);
        let suits = |port: u16| match wish.even {
            None => is_free(port),
            Some(false) => is_free(port) && port.is_multiple_of(2),
            Some(true) => is_free(port) && port.is_multiple_of(2) && is_free(port + 1),
        };
        if (FIRST_PORT..FIRST_PORT + PORTS).any(suits) {
            Outcome::Later
        } else {
            Outcome::Refusal
        }
    }

    fn counted_for(&self, user: &str) -> usize {
        let held = self.held.values().filter(|held| held.user == user).count();
        let kept = self.kept.values().filter(|kept| kept.user == user).count();
        let opening = self.opening.values().filter(|opening| opening.user == user);

        held + kept
            + opening
                .map(|opening| 1 + usize::from(opening.wish.even == Some(true)))
                .sum::<usize>()
    }

    /// A request of a proven user wasn't answered: its ports are to be opened.
    pub(super) fn begin(&mut self, now: Instant, ask: &Ask, from: SocketAddr) {
        let Wish::Allocate(wish) = &ask.wish else {
            unreachable!("only ports take time");
        };
        let kept = wish.token.and_then(|token| {
            self.spent.insert(token);
            self.kept.remove(&token)
        });
        self.opening.entry(from).or_insert_with(|| Opening {
            user: ask.user,
            made_by: ask.id,
            wish: wish.clone(),
            since: now,
            redeems: kept.map(|kept| (kept.port, kept.family)),
        });
    }

    /// A proven user's request had success.
    pub(super) fn grant(
        &mut self,
        now: Instant,
        ask: &Ask,
        from: SocketAddr,
        answer: &Message<'_>,
    ) {
        match &ask.wish {
            Wish::Binding => {}
            Wish::Allocate(_) => self.allocated(now, from, answer),
            Wish::Refresh(lifetime, family) => {
                let lifetime = match lifetime {
                    Some(lifetime) if lifetime.is_zero() => Duration::ZERO,
                    lifetime => granted(*lifetime),
                };
                assert_eq!(answer.lifetime(), Some(lifetime));
                let held = self.held.get_mut(&from).expect("it was there");
                if !lifetime.is_zero() {
                    held.until = now + lifetime;
                    return;
                }
                let gone = family.filter(|_| held.families.len() > 1);
                let Some(gone) = gone else {
                    self.held.remove(&from);
                    return;
                };
                held.families.remove(&gone);
                held.permitted
                    .retain(|ip, _| Family::of((*ip, 0).into()) != gone);
                held.channels
                    .retain(|_, (peer, _)| Family::of(*peer) != gone);
            }
            Wish::Permit(peers) => {
                let held = self.held.get_mut(&from).expect("it was there");
                let permitted = peers.iter().map(|peer| (peer.ip(), now + PERMISSION));
                held.permitted.extend(permitted);
            }
            Wish::Bind(number, peer) => {
                let held = self.held.get_mut(&from).expect("it was there");
                held.channels.insert(*number, (*peer, now + CHANNEL));
                held.permitted.insert(peer.ip(), now + PERMISSION);
            }
        }
    }

    fn allocated(&mut self, now: Instant, from: SocketAddr, answer: &Message<'_>) {
        let relayed: Vec<SocketAddr> = answer.relayed_addresses().collect();
        let port = relayed.first().expect("it got an address").port();
        assert!(relayed.iter().all(|address| address.port() == port));
        let families: BTreeSet<Family> = relayed.iter().map(|at| Family::of(*at)).collect();
        assert_eq!(families.len(), relayed.len());
        assert_eq!(answer.mapped_address(), Some(from));
        if let Some(held) = self.held.get(&from) {
            assert_eq!((port, &families), (held.port, &held.families));
            assert_eq!(answer.lifetime(), Some(held.granted));
            return;
        }

        let opening = self
            .opening
            .remove(&from)
            .expect("somebody waited for that");
        let wish = opening.wish;
        let granted = granted(wish.lifetime);
        assert_eq!(answer.lifetime(), Some(granted));
        assert!((FIRST_PORT..FIRST_PORT + PORTS).contains(&port));
        assert!(wish.even.is_none() || port.is_multiple_of(2), "{port}");
        if let Some((kept, family)) = opening.redeems {
            assert_eq!((port, &families), (kept, &BTreeSet::from([family])));
        } else if wish.additional.is_none() {
            let only = wish.requested.unwrap_or(Family::V4);
            assert!(families.contains(&only) && families.len() == 1);
        }
        let is_taken = self.held.values().any(|held| held.port == port)
            || self.kept.values().any(|kept| kept.port == port);
        assert!(!is_taken, "{port} is another's");

        let token = answer.attributes().find_map(|attribute| match attribute {
            Ok(connlib_wire::stun::Attribute::ReservationToken(token)) => Some(token),
            _ => None,
        });
        assert_eq!(token.is_some(), wish.even == Some(true));
        if let Some(token) = token {
            let kept = Kept {
                port: port + 1,
                family: wish.requested.unwrap_or(Family::V4),
                user: opening.user,
                until: opening.since + KEPT,
            };
            assert!(self.held.values().all(|held| held.port != kept.port));
            assert!(!self.spent.contains(&token) && self.kept.insert(token, kept).is_none());
        }
        self.held.insert(
            from,
            Held {
                user: opening.user,
                made_by: opening.made_by,
                granted,
                until: now + granted,
                port,
                families,
                permitted: BTreeMap::new(),
                channels: BTreeMap::new(),
            },
        );
    }

    /// What is counted is what there is.
    pub(super) fn compare(&self, now: Instant, stats: &Stats) {
        let held = self.held.values();
        let channels = held.flat_map(|held| held.channels.values());
        let bound = channels.filter(|(_, until)| *until > now).count();
        let permitted: usize = self.held.values().map(|held| held.permitted.len()).sum();
        let opening = self.opening.values();
        let keeping = opening.filter(|opening| opening.wish.even == Some(true));
        assert_eq!(stats.allocations, self.held.len() + self.opening.len());
        assert_eq!(stats.channels, bound, "{self:#?}");
        assert_eq!(stats.permissions, permitted, "{self:#?}");
        assert_eq!(stats.reservations, self.kept.len() + keeping.count());
        for held in self.held.values() {
            assert!(held.channels.len() <= LIMITS.channels_per_allocation);
            assert!(held.permitted.len() <= LIMITS.permissions_per_allocation);
        }
    }

    fn may_permit(&self, peer: IpAddr) -> bool {
        let text = peer.to_string();
        let is_private = ["10.0.0.1", "64:ff9b::a00:1"].contains(&text.as_str());
        let is_never = ["127.0.0.1", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1"];

        !is_never.contains(&text.as_str()) && (self.takes_private || !is_private)
    }

    pub(super) fn may_reach(&self, peer: SocketAddr) -> bool {
        let is_own = self.is_public(peer.ip());
        let ports = FIRST_PORT..FIRST_PORT + PORTS;

        peer.port() != 0
            && self.may_permit(peer.ip())
            && (!is_own || (ports.contains(&peer.port()) && peer.port() != LISTEN))
    }

    /// Whether an address is one of the server's own.
    pub(super) fn is_public(&self, ip: IpAddr) -> bool {
        let v6: IpAddr = PUBLIC_V6.parse().unwrap();

        ip == PUBLIC_V4.parse::<IpAddr>().unwrap() || (self.has_v6 && ip == v6)
    }
}

fn has_room(held: &Held, peers: &[SocketAddr]) -> bool {
    let fresh: BTreeSet<IpAddr> = peers.iter().map(SocketAddr::ip).collect();
    let fresh = fresh.iter().filter(|ip| !held.permits(**ip)).count();

    fresh == 0 || held.permitted.len() + fresh <= LIMITS.permissions_per_allocation
}

fn granted(wished: Option<Duration>) -> Duration {
    let (least, most) = (Duration::from_secs(600), Duration::from_secs(3_600));

    wished.unwrap_or(least).clamp(least, most)
}
