//! What a relay's answers mean (connections.md §6.5).

use std::net::SocketAddr;
use std::time::Instant;

use connlib_wire::stun::{Message, TransactionId};
use is::Candidate;

use super::addresses::reflexive_candidate;
use super::request::{Purpose, Request};
use super::{Allocation, Event, Failure, KEEPALIVE_INTERVAL, Lifetime};
use crate::REALM;

impl Allocation {
    /// Whether an unsigned answer is about a nonce that we don't have. A lie costs another question: what holds is only
    /// what is signed.
    ///
    /// Relays of our kind answer a first request that is signed but has no nonce by a signed 401. The standard wants a 400
    /// (RFC 8489 §9.2.4), and a first request without credentials for an unsigned 401.
    /// Servers by the standard leave the answer to a nonce that is stale unsigned, too.
    pub(super) fn leads_to_a_nonce(&self, request: &Request, message: &Message<'_>) -> bool {
        let code = match (self.insists, request.has_nonce) {
            (true, false) => 401,
            (true, true) => 438,
            (false, false) => 400,
            (false, true) => return false,
        };

        !message.has_integrity() && message.error_code() == Some(code)
    }

    pub(super) fn handle_success(
        &mut self,
        now: Instant,
        request: &Request,
        local: SocketAddr,
        message: &Message<'_>,
    ) {
        match request.purpose {
            Purpose::Probe => self.handle_binding(now, request.to, local, message),
            Purpose::Allocate => self.handle_allocated(now, local, message),
            Purpose::Refresh | Purpose::Liveness => match message.lifetime() {
                Some(duration) if !duration.is_zero() => {
                    self.lifetime = Some(Lifetime {
                        received_at: now,
                        duration,
                    });
                }
                Some(_) | None => {
                    self.invalidate();
                    self.request(now, Purpose::Allocate);
                }
            },
            Purpose::Release => self.request(now, Purpose::Allocate),
            Purpose::BindChannel { number, peer } => self.channels.confirm(now, number, peer),
        }
    }

    fn handle_binding(
        &mut self,
        now: Instant,
        asked: SocketAddr,
        local: SocketAddr,
        message: &Message<'_>,
    ) {
        let is_known = self.compare_with_before(asked, local, message.mapped_address());
        *self.host.slot(local) = Some(local);
        if let Ok(host) = Candidate::host(local, "udp") {
            self.events.push_back(Event::Added(host));
        }
        if let Some(mapped) = message.mapped_address()
            && mapped.is_ipv4() == local.is_ipv4()
        {
            *self.reflexive.slot(mapped) = Some(mapped);
            self.events
                .extend(reflexive_candidate(mapped, local).map(Event::Added));
        }
        if self.active.is_none() {
            self.active = Some(asked);
            if !is_known {
                // The relay knows us by another address: what it lent that one is not ours any more.
                self.give_up_loans();
            }
            let next = if self.lifetime.is_some() {
                Purpose::Refresh
            } else {
                Purpose::Allocate
            };
            self.request(now, next);
        }
    }

    fn handle_allocated(&mut self, now: Instant, local: SocketAddr, message: &Message<'_>) {
        let Some(duration) = message.lifetime().filter(|duration| !duration.is_zero()) else {
            self.failure = Some(Failure::Protocol);
            return;
        };
        for addr in message.relayed_addresses() {
            let slot = self.relayed.slot(addr);
            if slot.is_some() {
                continue;
            }
            if let Ok(candidate) = Candidate::relayed(addr, local, "udp") {
                *slot = Some(candidate.clone());
                self.events.push_back(Event::Added(candidate));
            }
        }
        if self.relayed.iter().next().is_none() {
            self.failure = Some(Failure::Protocol);
            return;
        }
        tracing::debug!(relay = %self.server.id, "Allocated");
        self.asks_again_after = super::ASK_AGAIN_AFTER[0];
        self.lifetime = Some(Lifetime {
            received_at: now,
            duration,
        });
        self.keepalive_at = Some(now + KEEPALIVE_INTERVAL);
        for peer in std::mem::take(&mut self.waiting) {
            self.bind_channel(now, peer);
        }
    }

    pub(super) fn handle_error(
        &mut self,
        now: Instant,
        id: TransactionId,
        request: Request,
        message: &Message<'_>,
    ) {
        let code = message.error_code().unwrap_or_default();
        tracing::debug!(relay = %self.server.id, purpose = ?request.purpose, code, "The relay refused");

        match code {
            400 if request.purpose != Purpose::Probe && !request.has_nonce && !self.insists => {
                self.insists = true;
                self.send(now, request.to, request.purpose);
            }
            // It was damaged on its way, most likely: as good as lost.
            400 => {
                self.requests.insert(id, request);
            }
            // What is refused twice was not damaged on its way.
            401 if request.was_refused => {
                self.failure = Some(Failure::Unauthorized);
                self.invalidate();
            }
            401 | 438 => {
                // Another realm would want another key, which we don't have.
                if message.realm().is_some_and(|realm| realm != REALM) {
                    self.failure = Some(Failure::Protocol);
                    return;
                }
                self.nonce = message.nonce().map(str::to_owned);
                let was_refused = request.was_refused || (code == 401 && request.has_nonce);
                self.send_again(now, &request, was_refused);
            }
            437 => self.handle_mismatch(now, request.purpose),
            // Somebody else's allocation answers to our address, or what we ask for isn't spoken there.
            441 => {
                self.failure = Some(Failure::Unauthorized);
                self.invalidate();
            }
            420 | 440 | 442 => {
                self.failure = Some(Failure::Protocol);
                self.invalidate();
            }
            _ => match request.purpose {
                Purpose::BindChannel { number, .. } => self.channels.refused(now, number),
                // No room for us (486, 508), or trouble of its own (5xx).
                Purpose::Allocate => self.ask_again_later(now),
                Purpose::Probe | Purpose::Refresh | Purpose::Liveness | Purpose::Release => {}
            },
        }
    }

    /// The relay and we disagree on whether there is an allocation.
    fn handle_mismatch(&mut self, now: Instant, purpose: Purpose) {
        self.invalidate();
        match purpose {
            Purpose::Allocate => self.request(now, Purpose::Release),
            Purpose::BindChannel { peer, .. } => {
                self.waiting.push_back(peer);
                self.request(now, Purpose::Allocate);
            }
            Purpose::Refresh | Purpose::Liveness | Purpose::Release | Purpose::Probe => {
                self.request(now, Purpose::Allocate);
            }
        }
    }
}
