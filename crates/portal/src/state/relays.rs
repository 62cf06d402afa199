//! Which relays are there, and who is given which (portal-protocol.md §7, §10.5; relay.md §16).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wire::id::{ClientId, GatewayId, RelayId};
use connlib_wire::key::PublicKey;
use connlib_wire::portal::phoenix::Envelope;
use connlib_wire::portal::relay::{FromPortal, Join, Passwords, TOPIC};
use connlib_wire::portal::{Empty, client, gateway, turn};
use connlib_wire::secret::Secret;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::State;
use super::choice::{by_way, way};
use super::held::{Held, relay_of};
use super::session::{ClientSession, GatewaySession, Goodbye, RelayAddresses, SocketId, Who};
use crate::derive;
use crate::model::Locations;

/// How many relays a peer is given.
const PER_PEER: usize = 2;

/// How long it must be quiet before peers hear of relays that came or went: sockets flap, while TURN goes on.
const QUIET_FOR: Duration = Duration::from_secs(1);

/// How long the first change waits at the most, however unquiet it is.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);

/// How long a relay may say nothing before others come first: three heartbeats of the slower kind missed one way or the
/// other (portal-protocol.md §3.2).
const SILENT_AFTER: Duration = Duration::from_secs(40);

/// The longest stamp secret, in bytes; a relay's own has 64.
const MAX_SECRET: usize = 255;

/// A relay that is connected, for people to see.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RelayPresence {
    /// Its id.
    pub id: RelayId,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

/// All relays that are connected, or were a moment ago.
#[derive(Debug, Default)]
pub(super) struct Relays {
    known: BTreeMap<RelayId, Relay>,
    settling: Option<Settling>,
}

#[derive(Debug)]
struct Relay {
    /// `None` for one that left a moment ago and may come back.
    socket: Option<SocketId>,
    addresses: Vec<SocketAddr>,
    secret: Secret,
    passwords: Passwords,
    heard_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Settling {
    began_at: Instant,
    due_at: Instant,
}

/// Which relays may be chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Among {
    /// Those too that left a moment ago: most come back.
    All,
    /// Only those that are connected.
    Connected,
}

/// Who is given relays. Its credentials depend on `key` and `expires_at` alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder<'a> {
    pub(super) id: Uuid,
    pub(super) remote_ip: Option<IpAddr>,
    pub(super) key: &'a PublicKey,
    /// Unix seconds.
    pub(super) expires_at: u64,
    pub(super) held: &'a Held,
}

/// By what relays are chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    pub(super) now: Instant,
    pub(super) among: Among,
    pub(super) locations: &'a Locations,
}

impl<'a> Holder<'a> {
    pub(super) fn client(id: ClientId, session: &'a ClientSession) -> Self {
        Self {
            id: id.0,
            remote_ip: session.remote_ip,
            key: &session.key,
            expires_at: session.token_ends_at.unwrap_or(derive::FAR_FUTURE),
            held: &session.held,
        }
    }

    pub(super) fn gateway(id: GatewayId, session: &'a GatewaySession) -> Self {
        Self {
            id: id.0,
            remote_ip: session.remote_ip,
            key: &session.key,
            expires_at: derive::FAR_FUTURE,
            held: &session.held,
        }
    }
}

impl Relays {
    /// A relay is there. Returns the socket that it had before.
    fn join(
        &mut self,
        now: Instant,
        socket: SocketId,
        addresses: RelayAddresses,
        join: Join,
    ) -> (RelayId, Option<SocketId>) {
        let RelayAddresses { ipv4, ipv6, port } = addresses;
        let ipv4 = ipv4.map(|address| SocketAddr::from((address, port)));
        let ipv6 = ipv6.map(|address| SocketAddr::from((address, port)));
        let addresses: Vec<SocketAddr> = ipv4.into_iter().chain(ipv6).collect();
        let secret = join.stamp_secret;
        let id = match join.passwords {
            Passwords::Rest => derive::turn_server_id(&secret, &addresses),
            Passwords::Stamped | _ => derive::relay_id(&secret),
        };
        let relay = Relay {
            socket: Some(socket),
            addresses,
            secret,
            passwords: join.passwords,
            heard_at: now,
        };
        let old = self.known.insert(id, relay).and_then(|old| old.socket);
        self.settle(now);

        (id, old.filter(|old| *old != socket))
    }

    /// A relay says something.
    pub(super) fn hear(&mut self, now: Instant, id: RelayId) {
        if let Some(relay) = self.known.get_mut(&id) {
            relay.heard_at = now;
        }
    }

    /// A relay's socket is gone.
    pub(super) fn leave(&mut self, now: Instant, id: RelayId, socket: SocketId) {
        let Some(relay) = self.known.get_mut(&id) else {
            return;
        };
        // Another socket of the same relay may have taken over.
        if relay.socket == Some(socket) {
            relay.socket = None;
            self.settle(now);
        }
    }

    /// Whether relays came or went, and then it was quiet. Those that went are forgotten.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.settling.is_none_or(|settling| now < settling.due_at) {
            return false;
        }
        self.settling = None;
        self.known.retain(|_, relay| relay.socket.is_some());

        true
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.settling.map(|settling| settling.due_at)
    }

    pub(super) fn presence(&self) -> Vec<RelayPresence> {
        (self.known.iter())
            .filter(|(_, relay)| relay.socket.is_some())
            .map(|(id, relay)| RelayPresence {
                id: *id,
                addresses: relay.addresses.clone(),
            })
            .collect()
    }

    /// What a peer is given: the relays that it holds and that are still there, filled up with others, the nearest first;
    /// those that were silent for long, or that the peer can't reach, only if there are no others.
    ///
    /// Where it isn't known how far they are, each peer ranks the relays in its own way, which is always the same: the load
    /// spreads, and a peer that reconnects gets what it had.
    pub(super) fn choose(&self, peer: &Holder<'_>, choice: Choice<'_>) -> Vec<turn::Relay> {
        let Choice {
            now,
            among,
            locations,
        } = choice;
        let place = |id: RelayId| {
            let held = &peer.held.relays;
            let place = held.iter().position(|entry| relay_of(entry) == id);
            place.unwrap_or(usize::MAX)
        };
        let way = |relay: &Relay| {
            let addresses = relay.addresses.iter().map(SocketAddr::ip);
            way(locations, peer.remote_ip, addresses)
        };
        let is_doubtful = |id: RelayId, relay: &Relay| {
            relay.heard_at + SILENT_AFTER <= now || peer.held.is_useless(id)
        };
        let mut ranked: Vec<_> = (self.known.iter())
            .filter(|(_, relay)| among == Among::All || relay.socket.is_some())
            .map(|(id, relay)| {
                let first = (place(*id), is_doubtful(*id, relay));
                (first, way(relay), rank(peer.id, *id), *id, relay)
            })
            .collect();
        ranked.sort_by(|one, other| {
            (one.0.cmp(&other.0))
                .then_with(|| by_way(one.1, other.1))
                .then_with(|| (one.2, one.3).cmp(&(other.2, other.3)))
        });

        (ranked.into_iter().take(PER_PEER))
            .flat_map(|(.., id, relay)| entries(id, relay, peer.key, peer.expires_at))
            .collect()
    }

    fn settle(&mut self, now: Instant) {
        let began_at = self.settling.map_or(now, |settling| settling.began_at);
        let due_at = (now + QUIET_FOR).min(began_at + SETTLE_WITHIN);
        self.settling = Some(Settling { began_at, due_at });
    }
}

impl State {
    pub(super) fn join_relay(
        &mut self,
        socket: SocketId,
        addresses: RelayAddresses,
        envelope: &Envelope<'_>,
    ) {
        let join = serde_json::from_str::<Join>(envelope.payload().get()).ok();
        let is_usable = |join: &Join| (1..=MAX_SECRET).contains(&join.stamp_secret.expose().len());
        let Some(join) = join.filter(is_usable) else {
            self.reply_error(socket, envelope, "invalid_payload");
            return;
        };

        let now = self.clock.now;
        let previous = match self.sockets.get(&socket).map(|entry| entry.who) {
            Some(Who::Relay(_, previous)) => previous,
            Some(Who::Client(_) | Who::Gateway(_)) | None => None,
        };
        let (id, old) = self.relays.join(now, socket, addresses, join);
        if let Some(previous) = previous.filter(|previous| *previous != id) {
            self.relays.leave(now, previous, socket);
        }
        if let Some(entry) = self.sockets.get_mut(&socket) {
            entry.who = Who::Relay(addresses, Some(id));
        }
        if let Some(old) = old {
            self.close(old, Goodbye::Replaced);
        }

        self.reply_ok(socket, envelope);
        let init = FromPortal::Init(Empty {});
        self.push(socket, TOPIC, init.event(), &init);
        tracing::info!(relay = %id, "Relay joined");
    }

    /// Tells everyone whose relays are not those they were told of.
    pub(super) fn update_relays(&mut self) {
        let choice = Choice {
            now: self.clock.now,
            among: Among::All,
            locations: &self.locations,
        };
        let joined = (self.clients.iter_mut()).filter(|(_, session)| session.joined);
        let of_clients: Vec<_> = joined
            .filter_map(|(id, session)| {
                let chosen = (self.relays).choose(&Holder::client(*id, session), choice);
                let presence = session.held.difference(chosen.clone())?;
                session.held.replace(choice.now, chosen);
                Some((*id, presence))
            })
            .collect();
        let joined = (self.gateways.iter_mut()).filter(|(_, session)| session.joined);
        let of_gateways: Vec<_> = joined
            .filter_map(|(id, session)| {
                let chosen = (self.relays).choose(&Holder::gateway(*id, session), choice);
                let presence = session.held.difference(chosen.clone())?;
                session.held.replace(choice.now, chosen);
                Some((*id, presence))
            })
            .collect();

        for (id, presence) in of_clients {
            self.tell_client(id, &client::FromPortal::RelaysPresence(presence));
        }
        for (id, presence) in of_gateways {
            self.tell_gateway(id, &gateway::FromPortal::RelaysPresence(presence));
        }
    }
}

/// One entry for each address family, next to each other.
fn entries(
    id: RelayId,
    relay: &Relay,
    key: &PublicKey,
    expires_at: u64,
) -> impl Iterator<Item = turn::Relay> {
    let credentials = derive::turn_credentials(key, &relay.secret, relay.passwords, expires_at);

    relay.addresses.iter().map(move |addr| {
        turn::Relay::Turn(turn::Turn {
            id,
            addr: *addr,
            username: credentials.username.clone(),
            password: credentials.password.clone(),
            expires_at,
        })
    })
}

fn rank(peer: Uuid, relay: RelayId) -> [u8; 32] {
    Sha256::new()
        .chain_update(peer.as_bytes())
        .chain_update(relay.0.as_bytes())
        .finalize()
        .into()
}
