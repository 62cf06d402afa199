//! Requests and their answers (relay.md §4-§11).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::channel::ChannelNumber;
use connlib_wire::stun::{Attribute, Class, Family, Key, Message};
use connlib_wire::train::Arrival;

use super::Server;
use crate::address::{Families, may_relay_to};
use crate::allocation::{Allocation, State, granted_lifetime};
use crate::answer::{Asker, Refusal};
use crate::auth::{Denial, REALM, User, authenticate};
use crate::config::AllocationPort;
use crate::request::{Allocate, Request, Turn, Wish};
use crate::stats::DropReason;

/// What a user gets.
enum Reply {
    /// The wish is fulfilled; there is nothing to add.
    Done,
    /// The allocation lives that long.
    Lifetime(Duration),
    /// The allocation's addresses, as they were first told.
    Allocated(AllocationPort),
    /// The answer follows when the port is open.
    OnceOpen,
}

impl Server {
    pub(super) fn handle_control(
        &mut self,
        now: Instant,
        unix: Duration,
        arrival: &Arrival<'_>,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let message = Message::parse(datagram).map_err(|_| DropReason::MalformedStun)?;
        if message.class() != Class::Request {
            return Err(DropReason::NotARequest);
        }

        let asker = Asker::new(arrival, message.method(), message.transaction_id());
        let request = match Request::read(message) {
            Ok(request) => request,
            Err(refusal) => {
                self.admit_unproven(now, asker.client)?;
                return self.refuse(&asker, refusal, &[], None);
            }
        };
        let Wish::Turn(turn) = request.wish else {
            self.admit_unproven(now, asker.client)?;
            return self.succeed(&asker, &[Attribute::XorMappedAddress(asker.client)], None);
        };

        let user = match authenticate(
            now,
            unix,
            asker.client,
            &request,
            &self.config.credentials,
            &mut self.nonces,
        ) {
            Ok(user) => user,
            Err(Denial::Silence) => return Err(DropReason::UnusableUsername),
            Err(Denial::Challenge(refusal, key)) => {
                self.admit_unproven(now, asker.client)?;
                let nonce = self.nonces.mint(now, asker.client);
                let challenge = [Attribute::Realm(REALM), Attribute::Nonce(&nonce)];
                return self.refuse(&asker, refusal, &challenge, key.as_ref());
            }
        };

        match self.carry_out(now, asker, &user, turn) {
            Ok(Reply::OnceOpen) => Ok(()),
            Ok(Reply::Done) => self.succeed(&asker, &[], Some(&user.key)),
            Ok(Reply::Lifetime(lifetime)) => {
                self.succeed(&asker, &[Attribute::Lifetime(lifetime)], Some(&user.key))
            }
            Ok(Reply::Allocated(port)) => self.tell_addresses(&asker, port, &user.key),
            Err(refusal) => self.refuse(&asker, refusal, &[], Some(&user.key)),
        }
    }

    /// Answers an ALLOCATE with what it got.
    pub(super) fn tell_addresses(
        &mut self,
        asker: &Asker,
        port: AllocationPort,
        key: &Key,
    ) -> Result<(), DropReason> {
        let Some(allocation) = self.allocations.at(port) else {
            return Err(DropReason::NoAllocation);
        };
        let mut attributes: Vec<_> = allocation
            .families
            .iter()
            .filter_map(|family| self.config.public_ip(family))
            .map(|ip| Attribute::XorRelayedAddress(SocketAddr::new(ip, port.0)))
            .collect();
        attributes.push(Attribute::XorMappedAddress(asker.client));
        attributes.push(Attribute::Lifetime(allocation.granted));

        self.succeed(asker, &attributes, Some(key))
    }

    pub(super) fn refuse(
        &mut self,
        asker: &Asker,
        refusal: Refusal,
        more: &[Attribute<'_>],
        key: Option<&Key>,
    ) -> Result<(), DropReason> {
        tracing::debug!(client = %asker.client, method = ?asker.method, ?refusal, "Refused a request");
        let mut attributes = vec![refusal.attribute()];
        attributes.extend_from_slice(more);
        let transmit = asker
            .answer(&self.pool, Class::Error, &attributes, key)
            .map_err(|_| DropReason::AnswerTooLong)?;
        self.transmits.push_back(transmit);
        self.stats.count_answer(asker.method, Some(refusal.code()));

        Ok(())
    }

    fn succeed(
        &mut self,
        asker: &Asker,
        attributes: &[Attribute<'_>],
        key: Option<&Key>,
    ) -> Result<(), DropReason> {
        let transmit = asker
            .answer(&self.pool, Class::Success, attributes, key)
            .map_err(|_| DropReason::AnswerTooLong)?;
        self.transmits.push_back(transmit);
        self.stats.count_answer(asker.method, None);

        Ok(())
    }

    /// Bounds what is sent to an address whose owner may have asked for nothing.
    fn admit_unproven(&mut self, now: Instant, client: SocketAddr) -> Result<(), DropReason> {
        if self.unproven.take(now, client.ip()) {
            Ok(())
        } else {
            Err(DropReason::TooManyAnswers)
        }
    }

    fn carry_out(
        &mut self,
        now: Instant,
        asker: Asker,
        user: &User<'_>,
        turn: Turn,
    ) -> Result<Reply, Refusal> {
        match turn {
            Turn::Allocate(wish) => self.allocate(now, asker, user, wish),
            Turn::Refresh { lifetime } => self.refresh(now, asker, lifetime),
            Turn::CreatePermission => Ok(Reply::Done), // only channels relay, so there is nothing to permit
            Turn::ChannelBind { number, peer } => self.bind_channel(now, asker, number, peer),
        }
    }

    fn refresh(
        &mut self,
        now: Instant,
        asker: Asker,
        lifetime: Option<Duration>,
    ) -> Result<Reply, Refusal> {
        let allocation = self
            .allocations
            .open_of_client(asker.client)
            .ok_or(Refusal::AllocationMismatch)?;
        let lifetime = granted_lifetime(lifetime);
        let port = allocation.port;

        if lifetime.is_zero() {
            self.delete_allocation(port);
            tracing::debug!(client = %asker.client, %port, "A client gave its allocation back");
            return Ok(Reply::Lifetime(lifetime));
        }

        let (at, due) = allocation.due();
        self.deadlines.remove(at, due);
        allocation.server = asker.server;
        allocation.state = State::Open {
            expires_at: now + lifetime,
        };
        let (at, due) = allocation.due();
        self.deadlines.add(at, due);

        Ok(Reply::Lifetime(lifetime))
    }

    fn bind_channel(
        &mut self,
        now: Instant,
        asker: Asker,
        number: ChannelNumber,
        peer: SocketAddr,
    ) -> Result<Reply, Refusal> {
        let allocation = self
            .allocations
            .open_of_client(asker.client)
            .ok_or(Refusal::AllocationMismatch)?;
        if !allocation.families.contains(Family::of(peer)) {
            return Err(Refusal::PeerFamilyMismatch);
        }
        if !may_relay_to(peer, &self.config) {
            return Err(Refusal::Forbidden);
        }

        let limit = self.limits.channels_per_allocation;
        let port = allocation.port;
        let former = allocation.channels.bind(now, number, peer, limit)?;
        let carried_data = former.is_some_and(|channel| channel.is_bound());
        if let Some(former) = former {
            let (at, due) = former.due(port, number);
            self.deadlines.remove(at, due);
        }
        if let Some(channel) = allocation.channels.get(number) {
            let (at, due) = channel.due(port, number);
            self.deadlines.add(at, due);
        }
        if !carried_data {
            self.stats.channels += 1;
            tracing::debug!(client = %asker.client, %port, ?number, %peer, "Bound a channel");
        }

        Ok(Reply::Done)
    }

    /// The checks and their order: relay.md §8.
    fn allocate(
        &mut self,
        now: Instant,
        asker: Asker,
        user: &User<'_>,
        wish: Allocate,
    ) -> Result<Reply, Refusal> {
        if let Some(existing) = self.allocations.of_client(asker.client) {
            return repeated(existing, asker, user);
        }
        if self.ports.is_empty() || self.allocations.len() >= self.limits.allocations {
            return Err(Refusal::InsufficientCapacity);
        }
        if wish.transport != connlib_wire::stun::TRANSPORT_UDP {
            return Err(Refusal::BadRequest);
        }
        let families = Families::choose(&self.config, wish.requested, wish.additional)?;

        // A NAT gave the user's socket another port: its peers can reach it at the new allocation only.
        if let Some(former) = self.allocations.port_of_user(user.name) {
            tracing::debug!(client = %asker.client, port = %former, "A user came back from another socket");
            self.delete_allocation(former);
        }
        self.begin_allocation(now, asker, user, families, granted_lifetime(wish.lifetime))?;

        Ok(Reply::OnceOpen)
    }
}

/// A repeated ALLOCATE gets the same answer again, since the first may be lost; any other has to give back what is there.
fn repeated(existing: &Allocation, asker: Asker, user: &User<'_>) -> Result<Reply, Refusal> {
    if existing.made_by != asker.transaction_id || existing.username != user.name {
        return Err(Refusal::AllocationMismatch);
    }

    match existing.state {
        State::Opening { .. } => Ok(Reply::OnceOpen),
        State::Open { .. } => Ok(Reply::Allocated(existing.port)),
    }
}
