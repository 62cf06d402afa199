//! Requests and their answers (relay.md §4-§7, §14; RFC 8489 §6.3, §9.2).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::stun::{Attribute, Class, Message, Method};
use connlib_wire::train::Arrival;

use super::Server;
use crate::answer::{Asker, Fingerprint, Refusal, Seal};
use crate::auth::{Authority, Denial, PASSWORD_ALGORITHMS, REALM, Standing, User};
use crate::conduct::Conduct;
use crate::config::AllocationPort;
use crate::request::{Request, Turn, Wish};
use crate::stats::DropReason;

/// What a user gets.
pub(super) enum Reply {
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
    /// Takes one STUN message from a client.
    pub(super) fn handle_control(
        &mut self,
        now: Instant,
        unix: Duration,
        arrival: &Arrival<'_>,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let message = Message::parse(datagram).map_err(|_| DropReason::MalformedStun)?;
        let fingerprint = self.check_frame(&message)?;
        if message.class() == Class::Indication {
            return self.handle_send(arrival, &message);
        }

        let asker = Asker::new(arrival, &message, fingerprint);
        let request = Request::read(message, self.conduct);
        match (&request.wish, self.conduct) {
            (Err(refusal), Conduct::Portal) => {
                self.admit_unproven(now, asker.client)?;
                return self.refuse(&asker, *refusal, &[], None);
            }
            (Ok(Wish::Binding), _) => {
                self.admit_unproven(now, asker.client)?;
                return self.answer_binding(&asker, &request);
            }
            (Ok(Wish::Turn(_)) | Err(_), _) => {}
        }

        // Whom we can't answer we needn't understand: a flood costs no cryptography but this one.
        let has_nonce = |authority: &mut Authority| {
            let nonce = request.claim.nonce;
            nonce.is_some_and(|nonce| authority.has_nonce(now, asker.client, nonce))
        };
        if !self.unproven.have_room(now, asker.client.ip()) && !has_nonce(&mut self.authority) {
            return Err(DropReason::TooManyAnswers);
        }

        let standing = match self.allocations.of_client(asker.client) {
            Some(_) => Standing::Guest,
            None => Standing::Stranger,
        };
        let user = self
            .authority
            .authenticate(now, unix, asker.client, &request, standing);
        match user {
            Ok(user) => self.answer_user(now, &asker, &user, request),
            Err(denial) => self.deny(now, &asker, denial),
        }
    }

    /// Whether a message is one for a server of our conduct, and how its answer ends.
    fn check_frame(&self, message: &Message<'_>) -> Result<Fingerprint, DropReason> {
        let is_standard = self.conduct.is_standard();
        match message.class() {
            Class::Request => {}
            Class::Indication if is_standard && message.method() == Method::Send => {}
            Class::Indication | Class::Success | Class::Error => {
                return Err(DropReason::NotARequest);
            }
        }
        if !is_standard {
            return Ok(Fingerprint::LeftOut);
        }

        let is_request = message.class() == Class::Request;
        if is_request
            && matches!(
                message.method(),
                Method::Send | Method::Data | Method::Other(_)
            )
        {
            return Err(DropReason::UnknownMethod);
        }
        match message.fingerprint_matches() {
            None => Ok(Fingerprint::LeftOut),
            Some(true) => Ok(Fingerprint::Added),
            Some(false) => Err(DropReason::WrongFingerprint),
        }
    }

    fn answer_binding(&mut self, asker: &Asker, request: &Request<'_>) -> Result<(), DropReason> {
        if !request.unknown.is_empty() {
            let named = [Attribute::UnknownAttributes(&request.unknown)];
            return self.refuse(asker, Refusal::UnknownAttribute, &named, None);
        }

        self.succeed(asker, &[Attribute::XorMappedAddress(asker.client)], None)
    }

    fn deny(&mut self, now: Instant, asker: &Asker, denial: Denial) -> Result<(), DropReason> {
        let (refusal, seal) = match denial {
            Denial::Silence(reason) => return Err(reason),
            Denial::Refuse(refusal) => {
                self.admit_unproven(now, asker.client)?;
                return self.refuse(asker, refusal, &[], None);
            }
            Denial::Challenge(refusal, seal) => (refusal, seal),
        };

        self.admit_unproven(now, asker.client)?;
        let nonce = self.authority.nonces.mint(now, asker.client);
        let challenge = [
            Attribute::Realm(REALM),
            Attribute::Nonce(&nonce),
            Attribute::PasswordAlgorithms(&PASSWORD_ALGORITHMS),
        ];
        let challenge = match self.conduct {
            Conduct::Portal => challenge.get(..2).unwrap_or_default(),
            Conduct::Standard => &challenge,
        };

        self.refuse(asker, refusal, challenge, seal.as_ref())
    }

    fn answer_user(
        &mut self,
        now: Instant,
        asker: &Asker,
        user: &User<'_>,
        request: Request<'_>,
    ) -> Result<(), DropReason> {
        let seal = Some(&user.seal);
        if !request.unknown.is_empty() {
            let named = [Attribute::UnknownAttributes(&request.unknown)];
            return self.refuse(asker, Refusal::UnknownAttribute, &named, seal);
        }
        let reply = match request.wish {
            Ok(Wish::Turn(turn)) => self.carry_out(now, *asker, user, turn),
            Ok(Wish::Binding) => Ok(Reply::Done), // was answered before
            Err(refusal) => Err(refusal),
        };

        match reply {
            Ok(Reply::OnceOpen) => Ok(()),
            Ok(Reply::Done) => self.succeed(asker, &[], seal),
            Ok(Reply::Lifetime(lifetime)) => {
                self.succeed(asker, &[Attribute::Lifetime(lifetime)], seal)
            }
            Ok(Reply::Allocated(port)) => self.tell_addresses(asker, port, &user.seal),
            Err(refusal) => self.refuse(asker, refusal, &[], seal),
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
            Turn::Refresh { lifetime, family } => self.refresh(now, asker, user, lifetime, family),
            Turn::CreatePermission(peers) => self.create_permissions(now, asker, user, &peers),
            Turn::ChannelBind { number, peer } => self.bind_channel(now, asker, user, number, peer),
        }
    }

    /// Answers an ALLOCATE with what it got.
    pub(super) fn tell_addresses(
        &mut self,
        asker: &Asker,
        port: AllocationPort,
        seal: &Seal,
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
        attributes.extend(allocation.token.map(Attribute::ReservationToken));
        attributes.extend(allocation.lacks.map(|(family, refusal)| {
            Attribute::AddressErrorCode(family, refusal.code(), refusal.phrase())
        }));

        self.succeed(asker, &attributes, Some(seal))
    }

    pub(super) fn refuse(
        &mut self,
        asker: &Asker,
        refusal: Refusal,
        more: &[Attribute<'_>],
        seal: Option<&Seal>,
    ) -> Result<(), DropReason> {
        tracing::debug!(client = %asker.client, method = ?asker.method, ?refusal, "Refused a request");
        let mut attributes = vec![refusal.attribute()];
        attributes.extend_from_slice(more);
        let transmit = asker
            .answer(&self.pool, Class::Error, &attributes, seal)
            .map_err(|_| DropReason::AnswerTooLong)?;
        self.transmits.push_back(transmit);
        self.stats.count_answer(asker.method, Some(refusal.code()));

        Ok(())
    }

    fn succeed(
        &mut self,
        asker: &Asker,
        attributes: &[Attribute<'_>],
        seal: Option<&Seal>,
    ) -> Result<(), DropReason> {
        let transmit = asker
            .answer(&self.pool, Class::Success, attributes, seal)
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
}
