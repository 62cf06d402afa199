//! What is going on: who is connected, what was asked, who has which relays.
//!
//! [`State`] is the portal without its edges. Sockets are numbers, messages are texts, time comes in as an argument.
//! Each call may leave something to do behind; drain [`State::poll_edit`] and [`State::poll_entry`] first and store
//! what they give, then [`State::poll_event`], and call [`State::handle_timeout`] when [`State::poll_timeout`] says so.

mod access;
mod change;
mod choice;
mod client;
mod connect;
mod dialect;
mod gateway;
mod held;
mod limits;
mod newcomers;
mod relays;
mod render;
mod requests;
mod session;
mod standing;
mod version;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use connlib_wire::id::{ClientId, GatewayId};
use connlib_wire::portal::phoenix::{self, Envelope};
use connlib_wire::portal::{ParseError, client as client_socket, gateway as gateway_socket};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::{Builder, Uuid};

pub use connect::{Admission, Connect, Refused, Role};
pub use relays::RelayPresence;
pub use session::{Goodbye, SocketId};
pub use version::Version;
pub(crate) use version::fit;

use crate::audit::{self, Entry};
use crate::model::{Directory, Edit, Locations};
use crate::policy::Circumstances;
use limits::Limits;
use newcomers::Newcomers;
use relays::Relays;
use requests::Requests;
use session::{ClientSession, GatewaySession, Socket, Who};
use standing::Schedule;

/// How long a socket may say nothing before it is closed. Peers of any age send a heartbeat every 30 s.
const IDLE_AFTER: Duration = Duration::from_secs(60);

/// How often grants that are over are swept out. Nothing depends on it: a grant that is over counts as none.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The portal without its edges.
#[derive(Debug)]
pub struct State {
    clock: Clock,
    random: StdRng,
    directory: Directory,
    locations: Locations,
    sockets: BTreeMap<SocketId, Socket>,
    clients: BTreeMap<ClientId, ClientSession>,
    gateways: BTreeMap<GatewayId, GatewaySession>,
    limits: Limits,
    newcomers: Newcomers,
    relays: Relays,
    requests: Requests,
    schedule: Schedule,
    token_ends: BTreeSet<(u64, SocketId)>,
    idle_check_at: Option<Instant>,
    sweep_at: Option<Instant>,
    events: VecDeque<Event>,
    edits: VecDeque<Edit>,
    entries: VecDeque<Entry>,
}

/// Something for the edge to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Send a text.
    Send {
        /// To whom.
        socket: SocketId,
        /// One message.
        text: String,
    },
    /// Ask for a sign of life: a WebSocket ping, whose answer is [`State::handle_pong`].
    Ping {
        /// Whom.
        socket: SocketId,
    },
    /// Tell a peer that waited what became of it ([`Admission::Waiting`]).
    Decided {
        /// Which; it is open if the result is `Ok`.
        socket: SocketId,
        /// Whether it may come in.
        result: Result<(), Refused>,
    },
    /// Close a socket, after what was to be sent before. It need not be reported as disconnected.
    Close {
        /// Which.
        socket: SocketId,
        /// Why.
        why: Goodbye,
    },
}

/// What [`State::poll_timeout`] waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// Edits or events wait to be drained.
    Output,
    /// A gateway connects whose older connection has not answered.
    Newcomer,
    /// A gateway has not acknowledged a grant.
    Request,
    /// Relays came or went, and then it was quiet.
    Relays,
    /// A token ends whose owner is connected.
    TokenEnd,
    /// A time window of a policy closes, or may open.
    Conditions,
    /// A socket may have been silent for too long.
    Idle,
    /// Grants that are over may wait to be swept out.
    Sweep,
}

/// Who is connected, for people to see.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Presence {
    /// The clients that joined, and the versions that they named.
    pub clients: BTreeMap<ClientId, Option<Version>>,
    /// The gateways that joined, and the versions that they named.
    pub gateways: BTreeMap<GatewayId, Option<Version>>,
    /// The relays that joined.
    pub relays: Vec<RelayPresence>,
    /// What conditions look at, of each of [`Presence::clients`].
    pub circumstances: BTreeMap<ClientId, Circumstances>,
}

/// The latest time that came in.
#[derive(Clone, Copy, Debug)]
struct Clock {
    now: Instant,
    unix: u64,
}

impl Clock {
    /// When the wall clock will show `unix` (seconds), if it isn't set; now, if it shows a later time already.
    fn instant_of(self, unix: u64) -> Option<Instant> {
        let left = Duration::from_secs(unix.saturating_sub(self.unix));

        self.now.checked_add(left)
    }
}

impl State {
    /// A portal with nobody connected; `unix` is the wall clock's seconds, `seed` is secret.
    ///
    /// Grants in `directory` that are over or no longer stand fall at once. Nobody's country is known.
    pub fn new(now: Instant, unix: u64, directory: Directory, seed: [u8; 32]) -> Self {
        Self::with_locations(now, unix, directory, seed, Locations::default())
    }

    /// As [`State::new`], knowing where addresses are from the beginning: grants that depend on it stand.
    pub fn with_locations(
        now: Instant,
        unix: u64,
        directory: Directory,
        seed: [u8; 32],
        locations: Locations,
    ) -> Self {
        let mut state = Self {
            clock: Clock { now, unix },
            random: StdRng::from_seed(seed),
            directory,
            locations,
            sockets: BTreeMap::new(),
            clients: BTreeMap::new(),
            gateways: BTreeMap::new(),
            limits: Limits::default(),
            newcomers: Newcomers::default(),
            relays: Relays::default(),
            requests: Requests::default(),
            schedule: Schedule::default(),
            token_ends: BTreeSet::new(),
            idle_check_at: None,
            sweep_at: None,
            events: VecDeque::new(),
            edits: VecDeque::new(),
            entries: VecDeque::new(),
        };
        state.sweep();

        state
    }

    /// Takes a message of `socket`. Whatever the text is, the socket stays.
    pub fn handle_message(&mut self, now: Instant, unix: u64, socket: SocketId, text: &str) {
        self.clock = Clock { now, unix };
        let Some(who) = self.hear(socket) else {
            return;
        };
        let dialect = self.dialect_of(socket);
        let envelope = match Envelope::parse_in(dialect.framing, text) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::debug!(?socket, %error, "Ignoring a text");
                return;
            }
        };

        if envelope.topic == phoenix::HEARTBEAT_TOPIC {
            match envelope.event.as_str() {
                phoenix::HEARTBEAT => self.reply_ok(socket, &envelope),
                _ => self.reply_error(socket, &envelope, "unknown_message"),
            }
        } else if envelope.topic != who.topic() {
            self.reply_error(socket, &envelope, "unmatched topic");
        } else if envelope.event == phoenix::JOIN {
            if let Some(entry) = self.sockets.get_mut(&socket) {
                entry.dialect.join = envelope.join_reference.clone();
            }
            match who {
                Who::Client(client) => self.join_client(socket, client, &envelope),
                Who::Gateway(gateway) => self.join_gateway(socket, gateway, &envelope),
                Who::Relay(addresses, _) => self.join_relay(socket, addresses, &envelope),
            }
        } else if envelope.event == phoenix::LEAVE {
            self.reply_ok(socket, &envelope);
            self.leave(socket, who);
        } else if !self.has_joined(who) {
            self.reply_error(socket, &envelope, "unmatched topic");
        } else {
            self.handle_joined(socket, who, &envelope);
        }
    }

    /// `socket` answered a ping.
    pub fn handle_pong(&mut self, now: Instant, unix: u64, socket: SocketId) {
        self.clock = Clock { now, unix };
        self.hear(socket);
    }

    /// `socket` is gone, or doesn't wait any longer.
    pub fn handle_disconnect(&mut self, now: Instant, unix: u64, socket: SocketId) {
        self.clock = Clock { now, unix };
        self.newcomers.forget(socket);
        self.forget(socket);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant, unix: u64) {
        self.clock = Clock { now, unix };

        while let Some((ends_at, socket)) = self.token_ends.first().copied() {
            if ends_at > unix {
                break;
            }
            self.token_ends.pop_first();
            self.end_session(socket);
        }
        self.admit_newcomers();
        for request in self.requests.take_due(now) {
            self.give_up(request);
        }
        if self.relays.handle_timeout(now) {
            self.update_relays();
        }
        if self.idle_check_at.is_some_and(|at| at <= now) {
            self.close_idle();
        }
        self.handle_conditions();
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep();
        }
    }

    /// The next edit to store, in order. Already part of [`State::directory`].
    pub fn poll_edit(&mut self) -> Option<Edit> {
        self.edits.pop_front()
    }

    /// The next entry of the audit to store, in order, together with the edits.
    pub fn poll_entry(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    /// The next thing to do, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`State::handle_timeout`] at the latest, and for what.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let is_waiting = !self.events.is_empty() || !self.edits.is_empty();
        let token_end = self.token_ends.first();
        let token_end = token_end.and_then(|(ends_at, _)| self.clock.instant_of(*ends_at));

        [
            (is_waiting.then_some(self.clock.now), Reason::Output),
            (self.newcomers.poll_timeout(), Reason::Newcomer),
            (self.requests.poll_timeout(), Reason::Request),
            (self.relays.poll_timeout(), Reason::Relays),
            (token_end, Reason::TokenEnd),
            (self.schedule.poll_timeout(self.clock), Reason::Conditions),
            (self.idle_check_at, Reason::Idle),
            (self.sweep_at, Reason::Sweep),
        ]
        .into_iter()
        .filter_map(|(at, reason)| Some((at?, reason)))
        .min_by_key(|(at, _)| *at)
    }

    /// Everything that is kept.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Where addresses are, as far as it is known.
    pub fn locations(&self) -> &Locations {
        &self.locations
    }

    /// Who is connected.
    pub fn presence(&self) -> Presence {
        let clients = self.clients.iter().filter(|(_, session)| session.joined);
        let gateways = self.gateways.iter().filter(|(_, session)| session.joined);

        let clients: BTreeMap<ClientId, Option<Version>> = clients
            .map(|(id, session)| (*id, session.version))
            .collect();

        Presence {
            circumstances: (clients.keys())
                .map(|id| (*id, self.circumstances(*id, None)))
                .collect(),
            clients,
            gateways: gateways
                .map(|(id, session)| (*id, session.version))
                .collect(),
            relays: self.relays.presence(),
        }
    }

    /// A generator of its own for whoever adds something from outside.
    pub fn fork_random(&mut self) -> StdRng {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);

        StdRng::from_seed(seed)
    }

    fn new_id(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);

        Builder::from_random_bytes(bytes).into_uuid()
    }

    fn has_joined(&self, who: Who) -> bool {
        match who {
            Who::Client(id) => self.clients.get(&id).is_some_and(|session| session.joined),
            Who::Gateway(id) => self.gateways.get(&id).is_some_and(|session| session.joined),
            Who::Relay(_, id) => id.is_some(),
        }
    }

    /// A peer leaves its channel and stays connected, as clients of the framework may.
    fn leave(&mut self, socket: SocketId, who: Who) {
        match who {
            Who::Client(id) => {
                self.requests.forget_client(id);
                if let Some(session) = self.clients.get_mut(&id) {
                    session.joined = false;
                }
            }
            Who::Gateway(id) => {
                if let Some(session) = self.gateways.get_mut(&id) {
                    session.joined = false;
                }
            }
            Who::Relay(addresses, Some(id)) => {
                self.relays.leave(self.clock.now, id, socket);
                if let Some(entry) = self.sockets.get_mut(&socket) {
                    entry.who = Who::Relay(addresses, None);
                }
            }
            Who::Relay(_, None) => {}
        }
    }

    fn handle_joined(&mut self, socket: SocketId, who: Who, envelope: &Envelope<'_>) {
        let (event, payload) = (envelope.event.as_str(), envelope.payload());
        let generation = self.generation_of(socket);
        let handled = match who {
            Who::Client(client) => client_socket::ToPortal::parse_in(generation, event, payload)
                .map(|message| self.handle_client(client, message)),
            Who::Gateway(gateway) => gateway_socket::ToPortal::parse_in(generation, event, payload)
                .map(|message| self.handle_gateway(socket, gateway, envelope, message)),
            Who::Relay(..) => Err(ParseError::UnknownEvent {
                event: event.to_owned(),
            }),
        };
        let Err(error) = handled else {
            return;
        };

        tracing::debug!(?socket, %error, "Refusing a message");
        let reason = match error {
            ParseError::UnknownEvent { .. } => "unknown_message",
            ParseError::Malformed { .. } | ParseError::NotAnEnvelope(_) | _ => "invalid_payload",
        };
        self.reply_error(socket, envelope, reason);
    }

    /// Notes a sign of life; `None` from a socket that is not open.
    fn hear(&mut self, socket: SocketId) -> Option<Who> {
        let entry = self.sockets.get_mut(&socket)?;
        entry.last_heard_at = self.clock.now;
        let who = entry.who;
        match who {
            Who::Gateway(id) => self.refuse_newcomers(id),
            Who::Relay(_, Some(id)) => self.relays.hear(self.clock.now, id),
            Who::Relay(_, None) | Who::Client(_) => {}
        }

        Some(who)
    }

    /// Takes `socket` out of everything. What waits to be sent is sent.
    fn forget(&mut self, socket: SocketId) {
        let Some(entry) = self.sockets.remove(&socket) else {
            return;
        };
        if let Some(ends_at) = entry.token_ends_at {
            self.token_ends.remove(&(ends_at, socket));
        }
        match entry.who {
            Who::Client(id) => {
                let session = self.clients.remove(&id);
                let end = session.and_then(|session| session.sees_until);
                self.schedule.forget_end(id, end);
                self.requests.forget_client(id);
                tracing::info!(client = %id, "Client disconnected");
            }
            Who::Gateway(id) => {
                // Its requests wait: a gateway that comes back in time is asked again.
                self.gateways.remove(&id);
                self.newcomers.old_is_gone(self.clock.now, id);
                tracing::info!(gateway = %id, "Gateway disconnected");
            }
            Who::Relay(_, Some(id)) => {
                self.relays.leave(self.clock.now, id, socket);
                tracing::info!(relay = %id, "Relay disconnected");
            }
            Who::Relay(_, None) => {}
        }
    }

    fn close(&mut self, socket: SocketId, why: Goodbye) {
        self.forget(socket);
        self.events.push_back(Event::Close { socket, why });
    }

    /// Ends the session of a socket whose token can't be used any longer.
    fn end_session(&mut self, socket: SocketId) {
        let Some(Socket { who, .. }) = self.sockets.get(&socket) else {
            return;
        };
        // A relay isn't told: it finds out by the 401 when it comes back (portal-protocol.md §10.2).
        if !matches!(who, Who::Relay(..)) {
            let join = self.dialect_of(socket).join;
            self.say(socket, &phoenix::token_expired(who.topic()), join.as_ref());
        }
        self.close(socket, Goodbye::TokenEnded);
    }

    fn close_idle(&mut self) {
        let limit = self.clock.now;
        let idle: Vec<SocketId> = (self.sockets.iter())
            .filter(|(_, entry)| entry.last_heard_at + IDLE_AFTER <= limit)
            .map(|(socket, _)| *socket)
            .collect();
        for socket in idle {
            self.close(socket, Goodbye::Idle);
        }

        let oldest = self.sockets.values().map(|entry| entry.last_heard_at).min();
        self.idle_check_at = oldest.map(|last_heard_at| last_heard_at + IDLE_AFTER);
    }

    /// Changes what is kept, here and in the store.
    fn edit(&mut self, edit: Edit) {
        let who = match matches!(edit, Edit::DropGrant(_)) {
            true => audit::Who::Portal,
            false => audit::Who::Peer,
        };
        (self.entries).extend(audit::of_edit(&self.directory, &edit, who, self.clock.unix));
        self.directory.apply(&edit);
        self.edits.push_back(edit);
    }
}

#[cfg(test)]
mod tests;
