//! Conversations with the state, in virtual time.

mod access;
mod agreement;
mod audit;
mod changes;
mod choice;
mod conditions;
mod newcomers;
mod older;
mod recording;
mod relays;
mod sessions;
mod texts;

use std::time::{Duration, Instant};

use connlib_wire::portal::Generation;
use connlib_wire::portal::phoenix::Framing;
use connlib_wire::secret::Secret;
use serde_json::{Value, json};

use super::*;
use crate::model::{TokenId, TokenKind};
use crate::tests::World;
use crate::token;

const FILE: &str = r#"
[[site]]
name = "hq"
[[site]]
name = "branch"
[[actor]]
name = "alice"
groups = ["staff"]
[[actor]]
name = "bob"
groups = ["guests"]
[[resource]]
name = "lan"
address = "10.20.0.0/16"
sites = ["hq"]
filters = ["tcp/443"]
[[resource]]
name = "wiki"
address = "wiki.corp.test"
sites = ["hq"]
ip_stack = "ipv4_only"
[[resource]]
name = "everything"
address = "internet"
sites = ["branch"]
[[policy]]
group = "staff"
resource = "lan"
[[policy]]
group = "staff"
resource = "wiki"
[[policy]]
group = "staff"
resource = "everything"
[[policy]]
group = "guests"
resource = "lan"
"#;

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A portal whose clock stands still unless told otherwise.
struct Portal {
    state: State,
    world: World,
    now: Instant,
    unix: u64,
    /// An instant and the wall clock's seconds at it.
    epoch: (Instant, u64),
    last_socket: u64,
    stored: Directory,
    waiting: Vec<Event>,
    entries: Vec<Entry>,
}

/// A connected peer.
#[derive(Clone, Copy)]
struct Peer {
    socket: SocketId,
    role: Role,
}

impl Portal {
    fn new() -> Self {
        Self::with(FILE)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do to begin with"
    )]
    fn with(file: &str) -> Self {
        let world = World::new(file);
        let (now, unix) = (Instant::now(), 1_700_000_000);
        let stored = world.directory.clone();
        Self {
            state: State::new(now, unix, stored.clone(), [3; 32]),
            world,
            now,
            unix,
            epoch: (now, unix),
            last_socket: 0,
            stored,
            waiting: vec![],
            entries: vec![],
        }
    }

    /// The same portal after a restart: what was stored is there, nobody is connected.
    fn restarted(mut self) -> Self {
        self.settle();
        self.state = State::new(self.now, self.unix, self.stored.clone(), [4; 32]);
        self.waiting.clear();
        self.settle();
        self
    }

    fn token(&mut self, kind: TokenKind, expires_at: Option<u64>) -> (TokenId, Secret) {
        let (token, text) = token::mint(&mut self.state.random, kind, self.unix, expires_at);
        let id = token.id;
        self.edit(&[Edit::PutToken(token)]);
        (id, text)
    }

    fn client_token(&mut self, actor: &str) -> Secret {
        let actor = self.state.directory().actor_named(actor).unwrap().id;
        self.token(TokenKind::Client(actor), None).1
    }

    fn gateway_token(&mut self, site: &str) -> Secret {
        let site = self.state.directory().site_named(site).unwrap().id;
        self.token(TokenKind::Gateway(site), None).1
    }

    /// A device of `actor` connects and joins; its `init` is read.
    fn client(&mut self, actor: &str) -> (Peer, ClientId) {
        let token = self.client_token(actor);
        let connect = device(Role::Client, &token, &format!("{actor}-laptop"), 1);
        self.join(&connect);
        let peer = self.last_peer(Role::Client);
        self.messages(peer);
        (peer, self.client_id(peer))
    }

    /// A gateway of `site` connects and joins; its `init` is read.
    fn gateway(&mut self, site: &str, name: &str) -> (Peer, GatewayId) {
        let token = self.gateway_token(site);
        self.join(&device(Role::Gateway, &token, name, 2));
        let peer = self.last_peer(Role::Gateway);
        self.messages(peer);
        (peer, self.gateway_id(peer))
    }

    fn relay(&mut self, secret: &str) -> Peer {
        let token = self.token(TokenKind::Relay, None).1;
        let peer = self.connect(&relay(&token)).unwrap();
        self.join_relay(peer, secret);
        peer
    }

    fn join_relay(&mut self, peer: Peer, secret: &str) {
        let join = json!({"topic": "relay", "event": "phx_join", "payload": {"stamp_secret": secret}, "ref": 0});
        self.say_text(peer, &join.to_string());
        assert_eq!(self.events(peer), ["phx_reply", "init"]);
    }

    /// Connects a peer that gets in, or is refused, at once.
    fn connect(&mut self, connect: &Connect) -> Result<Peer, Refused> {
        let (peer, admission) = self.admit(connect)?;
        assert_eq!(admission, Admission::Opened);
        Ok(peer)
    }

    fn admit(&mut self, connect: &Connect) -> Result<(Peer, Admission), Refused> {
        self.last_socket += 1;
        let socket = SocketId(self.last_socket);
        let admission = self
            .state
            .handle_connect(self.now, self.unix, socket, connect)?;
        let role = connect.role;
        Ok((Peer { socket, role }, admission))
    }

    /// What became of a peer that waited.
    fn decided(&mut self, peer: Peer) -> Option<Result<(), Refused>> {
        self.settle();
        self.waiting.iter().find_map(|event| match event {
            Event::Decided { socket, result } if *socket == peer.socket => Some(result.clone()),
            Event::Ping { .. }
            | Event::Decided { .. }
            | Event::Close { .. }
            | Event::Send { .. } => None,
        })
    }

    fn pong(&mut self, peer: Peer) {
        self.state.handle_pong(self.now, self.unix, peer.socket);
    }

    fn join(&mut self, connect: &Connect) -> Peer {
        let peer = self.connect(connect).unwrap();
        self.say(peer, "phx_join", Value::Null);
        peer
    }

    fn last_peer(&self, role: Role) -> Peer {
        Peer {
            socket: SocketId(self.last_socket),
            role,
        }
    }

    fn say(&mut self, peer: Peer, event: &str, payload: Value) {
        let message =
            json!({"topic": topic(peer.role), "event": event, "payload": payload, "ref": 5});
        self.say_text(peer, &message.to_string());
    }

    fn say_text(&mut self, peer: Peer, text: &str) {
        self.state
            .handle_message(self.now, self.unix, peer.socket, text);
    }

    fn ask(&mut self, client: Peer, resource: &str, connected: &[GatewayId]) {
        let id = self.world.resource(resource);
        let payload = json!({"resource_id": id, "connected_gateway_ids": connected});
        self.say(client, "request_authorization", payload);
    }

    /// Acknowledges the only request that `gateway` was sent since it was read last.
    fn acknowledge(&mut self, gateway: Peer) {
        let messages = self.messages(gateway);
        let [(event, payload)] = &messages[..] else {
            panic!("{messages:?}");
        };
        assert_eq!(event, "create_authorization");
        let reference = json!({"ref": payload["ref"]});
        self.say(gateway, "authorization_created", reference);
        assert_eq!(self.events(gateway), ["phx_reply"]);
    }

    /// Lets `client` into `resource` through `gateway`.
    fn grant(&mut self, client: Peer, resource: &str, gateway: Peer) {
        self.ask(client, resource, &[]);
        self.acknowledge(gateway);
        assert_eq!(self.events(client), ["authorization_created"]);
    }

    fn disconnect(&mut self, peer: Peer) {
        self.state
            .handle_disconnect(self.now, self.unix, peer.socket);
    }

    /// Lets time pass, waking the state exactly when it asks to be woken.
    fn pass(&mut self, time: Duration) {
        let (begin, end) = (self.now, self.now + time);
        self.settle();
        while let Some((at, _)) = self.state.poll_timeout().filter(|(at, _)| *at <= end) {
            assert!(
                at > self.now || self.now == begin,
                "woken twice for nothing"
            );
            self.set_clock(at.max(self.now));
            self.state.handle_timeout(self.now, self.unix);
            self.settle();
            let next = self.state.poll_timeout();
            assert!(next.is_none_or(|(at, _)| at > self.now), "{next:?}");
        }
        self.set_clock(end);
    }

    fn set_clock(&mut self, now: Instant) {
        let (epoch, unix) = self.epoch;
        self.now = now;
        self.unix = unix + (now - epoch).as_secs();
    }

    /// Sets the wall clock forward or back.
    fn jump(&mut self, secs: i64) {
        self.epoch.1 = self.epoch.1.checked_add_signed(secs).unwrap();
        self.set_clock(self.now);
    }

    /// Makes edits as an admin does: stored first, then told.
    fn edit(&mut self, edits: &[Edit]) {
        self.settle();
        for edit in edits {
            self.stored.apply(edit);
            self.world.directory.apply(edit);
        }
        self.state.handle_edits(self.now, self.unix, edits);
    }

    fn apply(&mut self, file: &str) {
        self.settle();
        self.world.directory = self.state.directory().clone();
        let edits = self.world.apply(file).edits;
        self.edit(&edits);
    }

    /// Stores what is to be stored, and keeps what is to be sent.
    fn settle(&mut self) {
        while let Some(edit) = self.state.poll_edit() {
            self.stored.apply(&edit);
        }
        assert_eq!(&self.stored, self.state.directory());
        while let Some(entry) = self.state.poll_entry() {
            self.entries.push(entry);
        }
        while let Some(event) = self.state.poll_event() {
            self.waiting.push(event);
        }
    }

    /// What `peer` was sent since it was read last: events and payloads.
    fn messages(&mut self, peer: Peer) -> Vec<(String, Value)> {
        self.settle();
        let is_meant = |event: &mut Event| match event {
            Event::Send { socket, .. } => *socket == peer.socket,
            Event::Ping { .. } | Event::Decided { .. } | Event::Close { .. } => false,
        };
        let sent: Vec<Event> = self.waiting.extract_if(.., is_meant).collect();
        let read = |event| {
            let Event::Send { text, .. } = event else {
                unreachable!()
            };
            let message: Value = serde_json::from_str(&text).unwrap();
            let event = message["event"].as_str().unwrap().to_owned();
            if event != "phx_reply" {
                assert_eq!(message["topic"], topic(peer.role));
            }
            (event, message["payload"].clone())
        };
        sent.into_iter().map(read).collect()
    }

    /// The events alone.
    fn events(&mut self, peer: Peer) -> Vec<String> {
        let messages = self.messages(peer).into_iter();
        messages.map(|(event, _)| event).collect()
    }

    /// The only message that `peer` was sent, which must be an `event`.
    fn only(&mut self, peer: Peer, event: &str) -> Value {
        let mut messages = self.messages(peer);
        assert_eq!(messages.len(), 1, "{messages:?}");
        let (sent, payload) = messages.remove(0);
        assert_eq!(sent, event, "{payload}");
        payload
    }

    /// Why `peer` was closed, if it was.
    fn closed(&mut self, peer: Peer) -> Option<Goodbye> {
        self.settle();
        self.waiting.iter().find_map(|event| match event {
            Event::Close { socket, why } if *socket == peer.socket => Some(*why),
            Event::Ping { .. }
            | Event::Decided { .. }
            | Event::Close { .. }
            | Event::Send { .. } => None,
        })
    }

    fn client_id(&self, peer: Peer) -> ClientId {
        let mut sessions = self.state.clients.iter();
        *sessions
            .find(|(_, session)| session.socket == peer.socket)
            .unwrap()
            .0
    }

    fn gateway_id(&self, peer: Peer) -> GatewayId {
        let mut sessions = self.state.gateways.iter();
        *sessions
            .find(|(_, session)| session.socket == peer.socket)
            .unwrap()
            .0
    }
}

fn device(role: Role, token: &Secret, external_id: &str, key: u8) -> Connect {
    Connect {
        role,
        generation: Generation::V2,
        framing: Framing::Object,
        token: Some(token.clone()),
        external_id: Some(external_id.to_owned()),
        name: Some(format!("name of {external_id}")),
        public_key: Some(connlib_wire::key::PublicKey([key; 32]).to_string()),
        ipv4: None,
        ipv6: None,
        port: None,
        user_agent: Some(agent(role).to_owned()),
        remote: None,
    }
}

fn relay(token: &Secret) -> Connect {
    Connect {
        role: Role::Relay,
        generation: Generation::V2,
        framing: Framing::Object,
        token: Some(token.clone()),
        external_id: None,
        name: None,
        public_key: None,
        ipv4: Some("192.0.2.10".to_owned()),
        ipv6: Some("2001:db8::10".to_owned()),
        port: Some("3478".to_owned()),
        user_agent: Some(agent(Role::Relay).to_owned()),
        remote: None,
    }
}

/// What the forerunner's programs of the newer generation say (`aug2026-*.jsonl`).
fn agent(role: Role) -> &'static str {
    match role {
        Role::Client => "Debian/12.0.0 headless-client/1.5.12 (x86_64; 6.18.44)",
        Role::Gateway => "Debian/12.0.0 gateway/1.6.1 (x86_64; 6.18.44)",
        Role::Relay => "Debian/12.0.0 relay/0.1.0 (x86_64; 6.18.44)",
    }
}

fn topic(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Gateway => "gateway",
        Role::Relay => "relay",
    }
}

/// Another relay's secret.
fn secret(number: u8) -> String {
    format!("{number:064x}")
}
