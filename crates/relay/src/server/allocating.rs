//! ALLOCATE and REFRESH (relay.md §8, §9; RFC 8656 §7.2, §8.2).

use std::time::{Duration, Instant};

use connlib_wire::stun::{Family, TRANSPORT_UDP};
use rand::RngExt as _;

use super::Server;
use super::control::Reply;
use super::lifecycle::Plan;
use crate::address::{Families, lacking_family};
use crate::allocation::{Allocation, State};
use crate::answer::{Asker, Refusal};
use crate::auth::User;
use crate::conduct::Conduct;
use crate::config::AllocationPort;
use crate::deadlines::Due;
use crate::request::{Allocate, Parity};
use crate::reservations::{RESERVATION_LIFETIME, Reservation, Token};
use crate::share::Claim;

impl Server {
    pub(super) fn allocate(
        &mut self,
        now: Instant,
        asker: Asker,
        user: &User<'_>,
        wish: Allocate,
    ) -> Result<Reply, Refusal> {
        if let Some(existing) = self.allocations.of_client(asker.client) {
            return repeated(existing, asker, user);
        }

        match self.conduct {
            Conduct::Portal => self.allocate_for_portal(now, asker, user, wish),
            Conduct::Standard => self.allocate_by_standard(now, asker, user, wish),
        }?;

        Ok(Reply::OnceOpen)
    }

    /// The checks and their order: relay.md §8.
    fn allocate_for_portal(
        &mut self,
        now: Instant,
        asker: Asker,
        user: &User<'_>,
        wish: Allocate,
    ) -> Result<(), Refusal> {
        if self.ports.is_empty() || !self.has_capacity() {
            return Err(Refusal::InsufficientCapacity);
        }
        if wish.transport != TRANSPORT_UDP {
            return Err(Refusal::BadRequest);
        }
        let families = Families::choose(&self.config, wish.requested, wish.additional)?;

        // A NAT gave the user's socket another port: its peers can reach it at the new allocation only.
        if let Some(former) = self.allocations.port_of_user(user.identity) {
            tracing::debug!(client = %asker.client, port = %former, "A user came back from another socket");
            self.delete_allocation(former);
        }
        let port = self.ports.take(&mut self.rng);
        let plan = Plan {
            port: port.ok_or(Refusal::InsufficientCapacity)?,
            families,
            lacks: None,
            token: None,
            granted: self.conduct.granted_lifetime(wish.lifetime),
        };
        self.begin_allocation(now, asker, user, plan);
        if !self.share.is_whole() {
            self.claims.push_back(Claim {
                user: user.identity.to_owned(),
                at: now,
            });
        }

        Ok(())
    }

    /// The checks and their order: RFC 8656 §7.2.
    fn allocate_by_standard(
        &mut self,
        now: Instant,
        asker: Asker,
        user: &User<'_>,
        wish: Allocate,
    ) -> Result<(), Refusal> {
        if wish.transport != TRANSPORT_UDP {
            return Err(Refusal::UnsupportedTransport);
        }
        let wants_family = wish.requested.is_some() || wish.additional.is_some();
        if wish.token.is_some() && (wants_family || wish.parity != Parity::Any) {
            return Err(Refusal::BadRequest);
        }
        let (families, lacks) = match wish.token {
            Some(token) => {
                let reservation = self.reservations.get(token);
                let reservation = reservation.ok_or(Refusal::InsufficientCapacity)?;
                (Families::One(reservation.family), None)
            }
            None => (
                Families::choose(&self.config, wish.requested, wish.additional)?,
                lacking_family(&self.config, wish.additional),
            ),
        };
        if wish.parity == Parity::EvenAndNext && wish.additional.is_some() {
            return Err(Refusal::BadRequest);
        }
        self.check_quota(user.identity, &wish)?;
        if !self.has_capacity() {
            return Err(Refusal::InsufficientCapacity);
        }

        let (port, token) = self
            .take_port(now, user, &wish, families)
            .ok_or(Refusal::InsufficientCapacity)?;
        let plan = Plan {
            port,
            families,
            lacks,
            token,
            granted: self.conduct.granted_lifetime(wish.lifetime),
        };
        self.begin_allocation(now, asker, user, plan);

        Ok(())
    }

    fn has_capacity(&self) -> bool {
        !self.is_draining && self.allocations.len() < self.limits.allocations
    }

    /// A port that is kept counts like an allocation, and no more once it becomes one.
    fn check_quota(&self, user: &str, wish: &Allocate) -> Result<(), Refusal> {
        let kept = wish.token.and_then(|token| self.reservations.get(token));
        let redeemed = usize::from(kept.is_some_and(|kept| kept.user == user));
        let wanted = match wish.parity {
            Parity::Any | Parity::Even => 1,
            Parity::EvenAndNext => 2,
        };
        let held = self.allocations.count_of(user) + self.reservations.count_of(user);

        if held + wanted - redeemed > self.limits.allocations_per_user {
            Err(Refusal::QuotaReached)
        } else {
            Ok(())
        }
    }

    /// A port that suits, and what names the next one if that shall be kept.
    fn take_port(
        &mut self,
        now: Instant,
        user: &User<'_>,
        wish: &Allocate,
        families: Families,
    ) -> Option<(AllocationPort, Option<Token>)> {
        if let Some(token) = wish.token {
            return Some((self.end_reservation(token)?, None));
        }

        match wish.parity {
            Parity::Any => Some((self.ports.take(&mut self.rng)?, None)),
            Parity::Even => Some((self.ports.take_even(&mut self.rng)?, None)),
            Parity::EvenAndNext => {
                let (port, next) = self.ports.take_pair(&mut self.rng)?;
                let token = self.rng.random();
                let until = now + RESERVATION_LIFETIME;
                let reservation = Reservation {
                    port: next,
                    family: families.iter().next()?,
                    user: user.identity.to_owned(),
                    until,
                };
                self.reservations.insert(token, reservation);
                self.deadlines.add(until, Due::Reservation(token));
                self.stats.reservations = self.reservations.len();

                Some((port, Some(token)))
            }
        }
    }

    /// Keeps a port no longer; whoever calls has it then.
    pub(super) fn end_reservation(&mut self, token: Token) -> Option<AllocationPort> {
        let reservation = self.reservations.remove(token)?;
        self.deadlines
            .remove(reservation.until, Due::Reservation(token));
        self.stats.reservations = self.reservations.len();

        Some(reservation.port)
    }

    /// `family` picks one of two addresses to give back (RFC 8656 §8.1); time that is asked for one is given to both.
    pub(super) fn refresh(
        &mut self,
        now: Instant,
        asker: Asker,
        user: &User<'_>,
        lifetime: Option<Duration>,
        family: Option<Family>,
    ) -> Result<Reply, Refusal> {
        let lifetime = self.conduct.refreshed_lifetime(lifetime);
        let family = family.filter(|_| self.conduct.is_standard());
        let allocation = self.allocation_of(asker, user)?;
        if family.is_some_and(|family| !allocation.families.contains(family)) {
            return Err(Refusal::PeerFamilyMismatch);
        }
        let port = allocation.port;

        if lifetime.is_zero() {
            let rest = family.and_then(|family| allocation.families.without(family));
            match (family, rest) {
                (Some(family), Some(rest)) => self.give_back_family(port, family, rest),
                _ => self.delete_allocation(port),
            }
            tracing::debug!(client = %asker.client, %port, "A client gave its allocation back");
            return Ok(Reply::Lifetime(lifetime));
        }

        let (before, due) = allocation.due();
        allocation.server = asker.server;
        allocation.state = State::Open {
            expires_at: now + lifetime,
        };
        let (at, _) = allocation.due();
        self.deadlines.remove(before, due);
        self.deadlines.add(at, due);

        Ok(Reply::Lifetime(lifetime))
    }

    /// The allocation that a request is about (relay.md §9: whoever is at its socket; RFC 8656 §5: its user).
    pub(super) fn allocation_of(
        &mut self,
        asker: Asker,
        user: &User<'_>,
    ) -> Result<&mut Allocation, Refusal> {
        let is_standard = self.conduct.is_standard();
        let allocation = self
            .allocations
            .open_of_client(asker.client)
            .ok_or(Refusal::AllocationMismatch)?;
        if is_standard && allocation.user != user.identity {
            return Err(Refusal::WrongCredentials);
        }

        Ok(allocation)
    }
}

/// A repeated ALLOCATE gets the same answer again, since the first may be lost; any other has to give back what is there.
fn repeated(existing: &Allocation, asker: Asker, user: &User<'_>) -> Result<Reply, Refusal> {
    if existing.made_by != asker.transaction_id || existing.user != user.identity {
        return Err(Refusal::AllocationMismatch);
    }

    match existing.state {
        State::Opening { .. } => Ok(Reply::OnceOpen),
        State::Open { .. } => Ok(Reply::Allocated(existing.port)),
    }
}
