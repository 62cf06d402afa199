//! What is asked of a relay, again and again until it answers or is given up (connections.md §6.2, §6.4).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::buffer::Buffer;
use connlib_wire::stun::{Attribute, Builder, Class, Family, Method, TRANSPORT_UDP, TransactionId};
use rand::Rng as _;

use super::addresses::PerFamily;
use super::request::{Purpose, Request};
use super::{Allocation, Failure, SOFTWARE};
use crate::REALM;

impl Allocation {
    /// Asks every address of the relay who we are; the first to answer is used from then on.
    pub(super) fn probe(&mut self, now: Instant) {
        self.silent = PerFamily::empty();
        for addr in self.server.addresses() {
            self.send(now, addr, Purpose::Probe);
        }
    }

    /// Sends a request to the address in use.
    pub(super) fn request(&mut self, now: Instant, purpose: Purpose) {
        if let Some(active) = self.active {
            self.send(now, active, purpose);
        }
    }

    pub(super) fn send(&mut self, now: Instant, to: SocketAddr, purpose: Purpose) {
        self.ask(now, to, purpose, false);
    }

    /// Sends the same once more with the nonce of today; `was_refused` if the relay didn't take our credentials.
    pub(super) fn send_again(&mut self, now: Instant, request: &Request, was_refused: bool) {
        self.ask(now, request.to, request.purpose, was_refused);
    }

    fn ask(&mut self, now: Instant, to: SocketAddr, purpose: Purpose, was_refused: bool) {
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        let id = TransactionId(id);
        let Some(message) = self.message(id, purpose) else {
            tracing::debug!(relay = %self.server.id, ?purpose, "The request doesn't fit a buffer");
            self.failure = Some(Failure::Protocol);
            return;
        };
        let rtt = self.rtt.unwrap_or_default();
        let has_nonce = self.nonce.is_some();
        let mut request = Request::new(now, to, purpose, message.to_vec(), has_nonce, rtt);
        request.was_refused = was_refused;
        self.requests.insert(id, request);
        self.transmits.push_back((to, message));
    }

    pub(super) fn retransmit(&mut self, now: Instant) {
        let due: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, request)| request.next_at() <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(request) = self.requests.get_mut(&id) else {
                continue;
            };
            if request.advance(now) {
                if let Some(buffer) = self.pool.copy(&request.bytes) {
                    self.transmits.push_back((request.to, buffer));
                }
                continue;
            }
            let Some(request) = self.requests.remove(&id) else {
                continue;
            };
            self.handle_silence(now, &request);
        }
    }

    /// A request was given up. Only silence of the address in use says that the relay is gone, and only that of all its
    /// addresses ends it.
    pub(super) fn handle_silence(&mut self, now: Instant, request: &Request) {
        let was_heard = self.carried_at.is_some_and(|at| at > request.sent_at());
        if request.purpose == Purpose::Liveness && was_heard {
            // It is there, and what it said is lost.
            return self.send(now, request.to, Purpose::Liveness);
        }
        tracing::debug!(relay = %self.server.id, purpose = ?request.purpose, "The relay doesn't answer");
        if request.purpose == Purpose::Probe {
            self.family_is_gone(request.to);
            *self.silent.slot(request.to) = Some(request.to);
        }
        let was_active = self.active == Some(request.to);
        if was_active {
            self.active = None;
            self.invalidate();
            let silent: Vec<_> = self.silent.iter().copied().collect();
            let others: Vec<_> = self
                .server
                .addresses()
                .filter(|addr| *addr != request.to && !silent.contains(addr))
                .collect();
            for addr in others {
                self.send(now, addr, Purpose::Probe);
            }
        }
        if self.active.is_none() && self.requests.is_empty() {
            self.failure.get_or_insert(Failure::NoResponse);
        }
    }

    pub(super) fn message(&self, id: TransactionId, purpose: Purpose) -> Option<Buffer> {
        let new = |method| Builder::new(self.pool.take(0), method, Class::Request, id);
        // Families: one allocation lends an address of each, whatever family we reach the relay by.
        let families = |builder: Builder| {
            builder
                .attribute(Attribute::RequestedTransport(TRANSPORT_UDP))
                .attribute(Attribute::AdditionalAddressFamily(Family::V6))
                .attribute(Attribute::Software(SOFTWARE))
        };

        // Relays of our kind get them again (connections.md §6.2); the standard knows no such REFRESH.
        let refresh = || match self.insists {
            true => new(Method::Refresh),
            false => families(new(Method::Refresh)),
        };
        let message = match purpose {
            Purpose::Probe => {
                return new(Method::Binding)
                    .attribute(Attribute::Software(SOFTWARE))
                    .finish()
                    .ok();
            }
            Purpose::Allocate => families(new(Method::Allocate)),
            Purpose::Refresh | Purpose::Liveness => refresh(),
            Purpose::Release => refresh().attribute(Attribute::Lifetime(Duration::ZERO)),
            Purpose::BindChannel { number, peer } => new(Method::ChannelBind)
                .attribute(Attribute::XorPeerAddress(peer))
                .attribute(Attribute::ChannelNumber(number.number()))
                .attribute(Attribute::Software(SOFTWARE)),
        };

        if self.insists && self.nonce.is_none() {
            return message.finish().ok();
        }

        message
            .attribute(Attribute::Username(&self.server.username))
            .attribute(Attribute::Realm(REALM))
            .maybe(self.nonce.as_deref().map(Attribute::Nonce))
            .integrity(self.key.expose())
            .finish()
            .ok()
    }
}
