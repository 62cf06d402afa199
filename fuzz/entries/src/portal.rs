//! The portal's core and whatever peers say to it.
//!
//! Bytes decide what happens next: who connects, which texts come, pings that are answered, ends of connections, time,
//! files that an admin applies. Then
//!
//! * texts go only to sockets that are open, and each is an envelope on the topic of its peer;
//! * who is told that access was granted may have it, by the policies of that moment;
//! * what is stored is what the portal works with;
//! * after time has passed, all that was due is done, and the next instant lies in the future.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use connlib_portal::model::{Account, Directory, Edit, TokenKind};
use connlib_portal::policy::{Circumstances, decide, plan};
use connlib_portal::state::{Admission, Connect, Event, Reason, Role, SocketId, State};
use connlib_portal::token::mint;
use connlib_portal::topology::Topology;
use connlib_wire::id::ResourceId;
use connlib_wire::key::PublicKey;
use connlib_wire::portal::Generation;
use connlib_wire::portal::client::FromPortal;
use connlib_wire::portal::phoenix::{Envelope, Framing};
use connlib_wire::secret::Secret;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::choices::Choices;

const MAX_STEPS: usize = 64;
const UNIX: u64 = 1_700_000_000;

const FILES: [&str; 3] = [
    "[[site]]\nname = \"hq\"\n[[actor]]\nname = \"alice\"\ngroups = [\"staff\"]\n[[resource]]\nname = \"lan\"\n\
     address = \"10.20.0.0/16\"\nsites = [\"hq\"]\nfilters = [\"tcp/443\"]\n[[resource]]\nname = \"wiki\"\n\
     address = \"wiki.corp.test\"\nsites = [\"hq\"]\n[[policy]]\ngroup = \"staff\"\nresource = \"lan\"\n\
     [[policy]]\ngroup = \"staff\"\nresource = \"wiki\"\n",
    "[[site]]\nname = \"hq\"\n[[actor]]\nname = \"alice\"\ngroups = [\"staff\"]\n[[resource]]\nname = \"lan\"\n\
     address = \"10.20.0.0/16\"\nsites = [\"hq\"]\n[[policy]]\ngroup = \"staff\"\nresource = \"lan\"\n",
    "[[site]]\nname = \"hq\"\n[[actor]]\nname = \"alice\"\ngroups = []\n",
];

/// What is done, as bytes say.
pub fn portal(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut scene = Scene::new();
    for _ in 0..MAX_STEPS {
        if choices.is_over() {
            break;
        }
        scene.step(&mut choices);
        scene.drain();
    }

    // Whoever waits may still be let in meanwhile.
    scene.pass(Duration::from_secs(120));
    assert!(scene.open.is_empty(), "silence ends every connection");
}

struct Scene {
    state: State,
    start: Instant,
    now: Instant,
    stored: Directory,
    last_id: u128,
    tokens: Vec<(Role, Secret)>,
    /// Sockets that are open.
    open: BTreeMap<SocketId, Role>,
    /// Sockets that wait.
    waiting: BTreeMap<SocketId, Role>,
    last_socket: u64,
    /// References that gateways were given last.
    references: Vec<(SocketId, String)>,
}

impl Scene {
    #[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
    fn new() -> Self {
        let start = Instant::now();
        let stored = Directory::new(Account {
            id: Uuid::from_u128(1),
            slug: "acme".to_owned(),
            ingest_key: "key".into(),
        });
        let mut scene = Self {
            state: State::new(start, UNIX, stored.clone(), [3; 32]),
            start,
            now: start,
            stored,
            last_id: 1,
            tokens: Vec::new(),
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_socket: 0,
            references: Vec::new(),
        };
        scene.apply(FILES[0]);
        let actor = scene
            .stored
            .actor_named("alice")
            .expect("it was applied")
            .id;
        let site = scene.stored.site_named("hq").expect("it was applied").id;
        let mut random = StdRng::from_seed([5; 32]);
        for (role, kind) in [
            (Role::Client, TokenKind::Client(actor)),
            (Role::Gateway, TokenKind::Gateway(site)),
            (Role::Relay, TokenKind::Relay),
        ] {
            let expires_at = Some(UNIX + 600).filter(|_| role == Role::Client);
            let (token, text) = mint(&mut random, kind, UNIX, expires_at);
            scene.edit(&[Edit::PutToken(token)]);
            scene.tokens.push((role, text));
        }
        scene.drain();

        scene
    }

    fn unix(&self) -> u64 {
        UNIX + (self.now - self.start).as_secs()
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let (now, unix) = (self.now, self.unix());
        match choices.byte() % 10 {
            0 | 1 => self.connect(choices),
            2 => {
                let text = String::from_utf8_lossy(choices.chunk()).into_owned();
                let socket = self.socket(choices);
                self.state.handle_message(now, unix, socket, &text);
            }
            3..=5 => self.say(choices),
            6 => {
                let socket = self.socket(choices);
                self.state.handle_pong(now, unix, socket);
            }
            7 => {
                let socket = self.socket(choices);
                self.open.remove(&socket);
                self.waiting.remove(&socket);
                self.state.handle_disconnect(now, unix, socket);
            }
            8 => self.pass(Duration::from_millis(u64::from(choices.word()) * 2)),
            _ => self.apply(choices.one_of(&FILES)),
        }
    }

    /// One of the sockets that there are or were.
    fn socket(&self, choices: &mut Choices<'_>) -> SocketId {
        SocketId(u64::from(choices.byte()) % (self.last_socket + 2))
    }

    fn connect(&mut self, choices: &mut Choices<'_>) {
        let wanted = choices.one_of(&[Role::Gateway, Role::Client, Role::Relay]);
        let mut tokens = self.tokens.iter();
        let (_, token) = tokens.find(|(role, _)| *role == wanted).expect("one each");
        let flags = choices.byte();
        let text = |bit: u8, good: &str, choices: &mut Choices<'_>| match flags >> bit & 1 {
            0 => Some(good.to_owned()),
            _ => Some(String::from_utf8_lossy(choices.chunk()).into_owned()),
        };
        let name = choices.one_of(&["a", "b"]);
        let number = choices.byte();
        let key = PublicKey([number; 32]).to_string();
        let generation = match number % 2 {
            0 => Generation::V2,
            _ => Generation::V1,
        };
        // Of versions that get on and that don't, and one that can't be read.
        let agent = match number / 2 % 8 {
            0 => "Linux/6 connlib/1.7.0",
            1 => "Linux/6 connlib/new",
            2 => "Linux/6 connlib/1.2.9",
            3 => "Linux/6",
            _ => "Linux/6 connlib/1.5.4",
        };
        let connect = Connect {
            role: wanted,
            generation,
            framing: Framing::Object,
            token: text(0, token.expose(), choices).map(Secret::from),
            external_id: text(1, name, choices),
            name: text(2, name, choices),
            public_key: text(3, &key, choices),
            ipv4: text(4, "192.0.2.10", choices).filter(|_| flags >> 6 & 1 == 0),
            ipv6: text(5, "2001:db8::10", choices),
            port: text(7, "3478", choices),
            user_agent: Some(agent.to_owned()),
            remote: None,
        };
        self.last_socket += 1;
        let socket = SocketId(self.last_socket);
        match self
            .state
            .handle_connect(self.now, self.unix(), socket, &connect)
        {
            Ok(Admission::Opened) => drop(self.open.insert(socket, wanted)),
            Ok(Admission::Waiting) => drop(self.waiting.insert(socket, wanted)),
            Err(refused) => assert!(refused.status() >= 400 && !refused.code().is_empty()),
        }
    }

    /// A text in the right form.
    fn say(&mut self, choices: &mut Choices<'_>) {
        let number = usize::from(choices.byte());
        let Some((socket, role)) = self.open.iter().nth(number % self.open.len().max(1)) else {
            return;
        };
        let (socket, role) = (*socket, *role);
        let resources = self.stored.resources().keys().copied();
        let resource = resources.cycle().nth(choices.byte().into());
        let client = self.stored.clients().keys().next();
        let gateway = self.stored.gateways().keys().next();
        let reference = self
            .references
            .iter()
            .rev()
            .find(|(given, _)| *given == socket);
        let candidate = String::from_utf8_lossy(choices.chunk()).into_owned();
        let messages = match role {
            Role::Client => vec![
                ("phx_join", serde_json::Value::Null),
                (
                    "request_authorization",
                    serde_json::json!({"resource_id": resource, "connected_gateway_ids": []}),
                ),
                (
                    "new_gateway_ice_candidates",
                    serde_json::json!({"gateway_id": gateway, "candidates": [candidate]}),
                ),
                ("no_relays", serde_json::json!({})),
            ],
            Role::Gateway => vec![
                ("phx_join", serde_json::Value::Null),
                (
                    "authorization_created",
                    serde_json::json!({"ref": reference.map(|(_, reference)| reference)}),
                ),
                (
                    "broadcast_ice_candidates",
                    serde_json::json!({"client_ids": [client], "candidates": [candidate]}),
                ),
                ("no_relays", serde_json::json!({})),
            ],
            Role::Relay => vec![(
                "phx_join",
                serde_json::json!({"stamp_secret": "0".repeat(64)}),
            )],
        };
        let (event, payload) = &messages[usize::from(choices.byte()) % messages.len()];
        let text = serde_json::json!({
            "topic": topic(role), "event": event, "payload": payload, "ref": choices.byte(),
        });
        let (now, unix) = (self.now, self.unix());
        self.state
            .handle_message(now, unix, socket, &text.to_string());
    }

    fn apply(&mut self, file: &str) {
        let topology = Topology::parse(file, "fuzzed.toml").expect("it is a good file");
        let last_id = &mut self.last_id;
        let plan = plan(&self.stored, &topology, &mut || {
            *last_id += 1;
            Uuid::from_u128(*last_id)
        });
        self.edit(&plan.edits);
    }

    fn edit(&mut self, edits: &[Edit]) {
        self.drain();
        for edit in edits {
            self.stored.apply(edit);
        }
        self.state.handle_edits(self.now, self.unix(), edits);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.state.poll_timeout().filter(|(at, _)| *at < end) {
            self.now = self.now.max(at);
            self.due();
        }
        self.now = end;
        self.due();
    }

    fn due(&mut self) {
        self.state.handle_timeout(self.now, self.unix());
        self.drain();
        if let Some((at, reason)) = self.state.poll_timeout() {
            assert!(at > self.now, "{reason:?} is still due");
        }
    }

    /// Stores and reads all that there is.
    fn drain(&mut self) {
        while let Some(edit) = self.state.poll_edit() {
            self.stored.apply(&edit);
        }
        assert_eq!(&self.stored, self.state.directory());
        while let Some(event) = self.state.poll_event() {
            match event {
                Event::Send { socket, text } => self.sent(socket, &text),
                Event::Ping { socket } => assert!(self.open.contains_key(&socket)),
                Event::Decided { socket, result } => {
                    let role = self.waiting.remove(&socket).expect("only who waits hears");
                    if result.is_ok() {
                        self.open.insert(socket, role);
                    }
                }
                Event::Close { socket, .. } => {
                    assert!(self.open.remove(&socket).is_some(), "closed, but not open");
                }
            }
        }
        if let Some((_, reason)) = self.state.poll_timeout() {
            assert_ne!(reason, Reason::Output, "everything was taken");
        }
        let presence = self.state.presence();
        let connected = presence.clients.len() + presence.gateways.len() + presence.relays.len();
        assert!(connected <= self.open.len());
    }

    fn sent(&mut self, socket: SocketId, text: &str) {
        let Some(role) = self.open.get(&socket).copied() else {
            panic!("{socket:?} is not open: {text}");
        };
        let envelope = Envelope::parse(text).expect("what is sent can be read");
        if envelope.event == "phx_reply" {
            return;
        }
        assert_eq!(envelope.topic, topic(role));
        match role {
            Role::Client if envelope.event == "disconnect" => {}
            Role::Client => {
                let message = FromPortal::parse(&envelope.event, envelope.payload())
                    .expect("clients understand what they are sent");
                if let FromPortal::AuthorizationCreated(created) = message {
                    self.may_have(created.resource_id);
                }
            }
            Role::Gateway => {
                let payload: serde_json::Value =
                    serde_json::from_str(envelope.payload().get()).expect("it is JSON");
                if let Some(reference) = payload["ref"].as_str() {
                    self.references.push((socket, reference.to_owned()));
                }
            }
            Role::Relay => assert_eq!(envelope.event, "init"),
        }
    }

    /// Somebody is let in, so somebody must be allowed.
    fn may_have(&self, resource: ResourceId) {
        let anywhere = Circumstances::default();
        let mut actors = self.stored.actors().keys();
        let is_allowed =
            actors.any(|actor| decide(&self.stored, *actor, resource, &anywhere).is_ok());
        assert!(is_allowed, "no policy lets anyone reach {resource}");
    }
}

fn topic(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Gateway => "gateway",
        Role::Relay => "relay",
    }
}
