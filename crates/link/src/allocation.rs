//! The TURN client: one relay, what it tells us of our addresses, and the address it lends us (connections.md §6).
//!
//! ```text
//! Probing ──BINDING ok──► Allocating ──ALLOCATE ok──► Active ──lifetime/2──► refreshing ──► Active
//!    └── no answer ──► Failed      ├── 401 twice ───────► Failed        Active ──437──► Allocating
//!                                  └── full, or in trouble ──► Waiting ──a while──► Probing
//! Active ──unanswered──► Probing by the other family, or Failed          Active ──expired──► Probing
//! ```

mod addresses;
mod answers;
mod asking;
mod channels;
mod request;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_wire::buffer::{Buffer, Pool};
use connlib_wire::channel::ChannelNumber;
use connlib_wire::stun::{Class, Key, Message, TransactionId};
use is::Candidate;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::{REALM, RelayServer};
use addresses::{Before, PerFamily};
use channels::Channels;
use request::{Purpose, Request};

/// How often a relay is asked whether it is still there (connections.md §6.6).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(25);

/// How long a relay that has no room, or is in trouble, is left alone before it is asked again: at first, and at most.
const ASK_AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(300)];

/// What we call ourselves (connections.md §6.2).
const SOFTWARE: &str = "snownet";

/// The most peers that wait for the allocation before their channels are bound (connections.md §2).
const MAX_WAITING_PEERS: usize = 100;

/// What an allocation tells its owner.
#[derive(Debug)]
pub(crate) enum Event {
    /// An address of ours became known: host and reflexive ones for all peers, a relayed one for those that use
    /// this relay.
    Added(Candidate),
    /// An address of ours is gone.
    Invalidated(Candidate),
    /// How far away the relay is, is known for the first time.
    Measured,
}

/// Why an allocation can't be used any longer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The relay doesn't answer.
    NoResponse,
    /// The relay doesn't take the credentials.
    Unauthorized,
    /// The relay doesn't understand us.
    Protocol,
}

/// What an allocation waits for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Reason {
    AskAgain,
    Channel,
    Expiry,
    Keepalive,
    Refresh,
    Retransmit,
}

/// One relay and what we hold there.
pub(crate) struct Allocation {
    server: RelayServer,
    key: Key,
    nonce: Option<String>,
    /// Whether the relay insists on the standard: it wants to be asked without credentials first, and nothing in a REFRESH
    /// that belongs into an ALLOCATE.
    insists: bool,
    /// The address of the relay that answered first.
    active: Option<SocketAddr>,
    host: PerFamily<SocketAddr>,
    reflexive: PerFamily<SocketAddr>,
    relayed: PerFamily<Candidate>,
    lifetime: Option<Lifetime>,
    keepalive_at: Option<Instant>,
    /// The relay had no room: when it is asked again, and how long it is left alone the next time.
    asks_again_at: Option<Instant>,
    asks_again_after: Duration,
    requests: BTreeMap<TransactionId, Request>,
    channels: Channels,
    /// Peers whose channels are bound once the relay has lent us an address.
    waiting: VecDeque<SocketAddr>,
    rtt: Option<Duration>,
    /// Addresses of the relay that were asked and have not answered, such as those of a family that we don't have.
    silent: PerFamily<SocketAddr>,
    /// When a peer's datagram came through the relay last.
    carried_at: Option<Instant>,
    /// Our network changed: what was true before, until the relay has answered again.
    before: Option<Before>,
    failure: Option<Failure>,
    pool: Pool,
    rng: StdRng,
    transmits: VecDeque<(SocketAddr, Buffer)>,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug)]
struct Lifetime {
    received_at: Instant,
    duration: Duration,
}

impl Allocation {
    pub(crate) fn new(now: Instant, server: RelayServer, seed: u64, pool: Pool) -> Self {
        let key = Key::long_term(&server.username, REALM, &server.password);
        let mut allocation = Self {
            server,
            key,
            nonce: None,
            insists: false,
            active: None,
            host: PerFamily::empty(),
            reflexive: PerFamily::empty(),
            relayed: PerFamily::empty(),
            lifetime: None,
            keepalive_at: None,
            asks_again_at: None,
            asks_again_after: ASK_AGAIN_AFTER[0],
            requests: BTreeMap::new(),
            channels: Channels::default(),
            waiting: VecDeque::new(),
            rtt: None,
            silent: PerFamily::empty(),
            carried_at: None,
            before: None,
            failure: None,
            pool,
            rng: StdRng::seed_from_u64(seed),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        allocation.probe(now);

        allocation
    }

    /// Whether this is the relay described by `server`, with the same addresses and credentials.
    pub(crate) fn is_for(&self, server: &RelayServer) -> bool {
        self.server == *server
    }

    pub(crate) fn server(&self) -> &RelayServer {
        &self.server
    }

    /// The address of the relay in use.
    pub(crate) fn active(&self) -> Option<SocketAddr> {
        self.active
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// The addresses this relay lends us.
    pub(crate) fn relayed_candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.relayed.iter()
    }

    /// The address that the relay receives at for us, in the family of `peer`.
    pub(crate) fn relayed_address(&self, peer: SocketAddr) -> Option<SocketAddr> {
        let candidate = if peer.is_ipv4() {
            &self.relayed.v4
        } else {
            &self.relayed.v6
        };

        candidate.as_ref().map(Candidate::addr)
    }

    pub(crate) fn lends(&self, addr: SocketAddr) -> bool {
        self.relayed
            .iter()
            .any(|candidate| candidate.addr() == addr)
    }

    /// Starts over with the same relay and credentials from other addresses of ours.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.invalidate();
        self.active = None;
        self.host = PerFamily::empty();
        self.reflexive = PerFamily::empty();
        self.nonce = None;
        self.waiting.clear();
        self.events.clear();
        self.transmits.clear();
        self.probe(now);
    }

    /// Whether datagrams for `peer` can leave through the relay.
    pub(crate) fn carries(&self, peer: SocketAddr) -> bool {
        self.active.is_some() && self.lifetime.is_some() && self.relayed_address(peer).is_some()
    }

    /// The relay may have restarted while the portal was away: one question shows it.
    pub(crate) fn check(&mut self, now: Instant) {
        if self.lifetime.is_none() {
            let is_busy = !self.requests.is_empty();
            if !is_busy {
                self.start_over(now);
            }
            return;
        }
        let is_asked = self
            .requests
            .values()
            .any(|request| request.purpose == Purpose::Liveness);
        if !is_asked {
            self.request(now, Purpose::Liveness);
        }
    }

    /// Makes sure that datagrams can be exchanged with `peer` through the relay.
    pub(crate) fn bind_channel(&mut self, now: Instant, peer: SocketAddr) -> Option<ChannelNumber> {
        if self.failure.is_some() {
            return None;
        }
        if self.lifetime.is_none() {
            let is_pending = self
                .requests
                .values()
                .any(|request| request.purpose.leads_to_allocation());
            if is_pending && !self.waiting.contains(&peer) {
                if self.waiting.len() >= MAX_WAITING_PEERS {
                    self.waiting.pop_front();
                }
                self.waiting.push_back(peer);
            }
            return None;
        }
        self.relayed_address(peer)?;
        if let Some(number) = self.channels.to_send(now, peer) {
            return Some(number);
        }
        let number = self.channels.begin_bind(now, peer)?;
        self.request(now, Purpose::BindChannel { number, peer });

        Some(number)
    }

    /// The peer behind a channel that has something for us; its address is who to believe the sender is.
    pub(crate) fn peer_behind(
        &mut self,
        now: Instant,
        number: ChannelNumber,
    ) -> Option<SocketAddr> {
        let peer = self.channels.receive(now, number)?;
        self.carried_at = Some(now);

        Some(peer)
    }

    /// Takes a STUN message from the relay; whether it was an answer to a request of ours.
    pub(crate) fn handle_response(
        &mut self,
        now: Instant,
        from: SocketAddr,
        local: SocketAddr,
        message: &Message<'_>,
    ) -> bool {
        let id = message.transaction_id();
        let answers = matches!(message.class(), Class::Success | Class::Error);
        let Some(request) = self
            .requests
            .get(&id)
            .filter(|request| answers && request.to == from)
        else {
            return false;
        };
        // Nobody but the relay may change what we hold there; BINDING is unsigned and changes little.
        let is_signed = request.purpose == Purpose::Probe || message.verify(self.key.expose());
        if !is_signed && !self.leads_to_a_nonce(request, message) {
            tracing::debug!(relay = %self.server.id, "Ignoring an answer with the wrong integrity");
            return false;
        }
        let Some(request) = self.requests.remove(&id) else {
            return false;
        };
        *self.silent.slot(from) = None;
        self.sample_rtt(now.saturating_duration_since(request.sent_at()));

        match message.class() {
            Class::Success => self.handle_success(now, &request, local, message),
            Class::Error => self.handle_error(now, id, request, message),
            Class::Request | Class::Indication => {}
        }

        true
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.retransmit(now);

        if self
            .lifetime
            .is_some_and(|lifetime| lifetime.expires_at() <= now)
        {
            tracing::debug!(relay = %self.server.id, "Allocation expired");
            self.invalidate();
            self.start_over(now);
        }
        if self.asks_again_at.is_some_and(|at| at <= now) {
            self.start_over(now);
        }
        if self.refresh_due_at().is_some_and(|at| at <= now) {
            self.request(now, Purpose::Refresh);
        }
        if self.keepalive_at.is_some_and(|at| at <= now) {
            self.keepalive_at = Some(now + KEEPALIVE_INTERVAL);
            if let Some(active) = self.active {
                self.send(now, active, Purpose::Probe);
            }
        }
        while let Some((number, peer)) = self.channels.refresh_due(now) {
            self.request(now, Purpose::BindChannel { number, peer });
        }
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(SocketAddr, Buffer)> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let again = self.asks_again_at.map(|at| (at, Reason::AskAgain));
        let retransmit = self
            .requests
            .values()
            .map(|request| (request.next_at(), Reason::Retransmit));
        let expiry = self
            .lifetime
            .map(|lifetime| (lifetime.expires_at(), Reason::Expiry));
        let refresh = self.refresh_due_at().map(|at| (at, Reason::Refresh));
        let keepalive = self.keepalive_at.map(|at| (at, Reason::Keepalive));
        let channel = self.channels.poll_timeout().map(|at| (at, Reason::Channel));

        retransmit
            .chain(again)
            .chain(expiry)
            .chain(refresh)
            .chain(keepalive)
            .chain(channel)
            .min()
    }

    /// Asks from the start, by whichever family answers.
    fn start_over(&mut self, now: Instant) {
        self.asks_again_at = None;
        self.active = None;
        self.probe(now);
    }

    /// Leaves the relay alone for a while, longer each time.
    fn ask_again_later(&mut self, now: Instant) {
        self.waiting.clear();
        self.asks_again_at = Some(now + self.asks_again_after);
        self.asks_again_after = (self.asks_again_after * 2).min(ASK_AGAIN_AFTER[1]);
    }

    fn refresh_due_at(&self) -> Option<Instant> {
        let in_flight = self
            .requests
            .values()
            .any(|request| request.purpose.refreshes());
        let lifetime = self.lifetime.filter(|_| !in_flight)?;

        Some(lifetime.received_at + lifetime.duration / 2)
    }

    /// Forgets what the relay lent us; our own addresses stay true.
    fn invalidate(&mut self) {
        self.give_up_loans();
        self.requests.clear();
    }

    fn give_up_loans(&mut self) {
        self.events
            .extend(self.relayed.drain().map(Event::Invalidated));
        self.channels = Channels::default();
        self.lifetime = None;
        self.keepalive_at = None;
    }

    fn sample_rtt(&mut self, sample: Duration) {
        if self.rtt.is_none() {
            self.events.push_back(Event::Measured);
        }
        self.rtt = Some(self.rtt.map_or(sample, |old| (old * 7 + sample) / 8));
    }
}

impl Lifetime {
    fn expires_at(&self) -> Instant {
        self.received_at + self.duration
    }
}

#[cfg(test)]
mod tests;
