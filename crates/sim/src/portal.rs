//! The portal: the shipped core, and what it has stored.

mod admin;

use std::collections::BTreeMap;
use std::time::Instant;

use connlib_portal::model::{
    Account, Actor, ActorId, Directory, Edit, PolicyId, Resource, Site, TokenKind,
};
use connlib_portal::state::{Admission, Connect, Event, Role as Opens, SocketId, State};
use connlib_portal::token;
use connlib_wire::id::{ResourceId, SiteId};
use connlib_wire::portal::phoenix::{self, Framing, JOIN};
use connlib_wire::portal::{Generation, client, gateway, relay};
use connlib_wire::secret::Secret;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::{Builder, Uuid};

use crate::scenario::{Role, Scenario};
use admin::{address, filters, network};

/// Which channel of a host is meant; each attempt to connect has a number of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ChannelId {
    pub(crate) host: usize,
    pub(crate) epoch: u64,
}

/// Something that leaves the portal.
#[derive(Debug)]
pub(crate) enum Says {
    Text(String),
    /// Is anybody there?
    Ping,
    /// The channel that was waited for isn't opened.
    Refused,
    Close,
}

/// The portal and its store.
pub(crate) struct Portal {
    /// `None` while it doesn't run.
    running: Option<Running>,
    stored: Directory,
    rng: StdRng,
    last_socket: u64,
    sockets: BTreeMap<SocketId, ChannelId>,
    /// Channels that wait until an older one has shown that it is dead, and what they join with.
    waiting: BTreeMap<SocketId, (ChannelId, String)>,
    tokens: Vec<Secret>,
    policies: BTreeMap<(usize, usize), PolicyId>,
    resources: Vec<ResourceId>,
    sites: BTreeMap<String, SiteId>,
}

/// The core, and when it must be called: it is asked again only after it was touched.
struct Running {
    state: State,
    due_at: Option<Instant>,
    is_touched: bool,
}

impl Running {
    fn new(state: State) -> Self {
        Self {
            state,
            due_at: None,
            is_touched: true,
        }
    }

    fn touch(&mut self) -> &mut State {
        self.is_touched = true;

        &mut self.state
    }

    fn due_at(&mut self) -> Option<Instant> {
        if std::mem::take(&mut self.is_touched) {
            self.due_at = self.state.poll_timeout().map(|(at, _)| at);
        }

        self.due_at
    }
}

impl Portal {
    /// A portal that has the scenario's topology in its store.
    pub(crate) fn new(now: Instant, unix: u64, scenario: &Scenario, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let mut directory = Directory::new(Account {
            id: id(&mut rng),
            slug: "sim".to_owned(),
            ingest_key: Secret::from("what ingest tokens are signed with"),
        });
        let sites = sites(scenario, &mut directory, &mut rng);
        let mut resources = Vec::new();
        for resource in &scenario.resources {
            let id = ResourceId(id(&mut rng));
            resources.push(id);
            directory.apply(&Edit::PutResource(Resource {
                id,
                name: resource.name.clone(),
                address: address(&resource.address),
                sites: sites.get(&resource.site).copied().into_iter().collect(),
                filters: filters(&resource.filters),
            }));
        }
        let mut tokens = Vec::new();
        for host in &scenario.hosts {
            let (kind, ends_at) = match &host.role {
                Role::Client { token_ends_at } => {
                    let actor = ActorId(id(&mut rng));
                    directory.apply(&Edit::PutActor(Actor {
                        id: actor,
                        name: host.name.clone(),
                        groups: scenario
                            .resources
                            .iter()
                            .map(|to| group(&host.name, &to.name))
                            .collect(),
                    }));
                    let ends_at = token_ends_at.map(|at| unix + at.as_secs());
                    (TokenKind::Client(actor), ends_at)
                }
                Role::Gateway { site } => {
                    let site = sites.get(site).copied().unwrap_or(SiteId(Uuid::nil()));
                    (TokenKind::Gateway(site), None)
                }
                Role::Relay => (TokenKind::Relay, None),
            };
            let (token, text) = token::mint(&mut rng, kind, unix, ends_at);
            directory.apply(&Edit::PutToken(token));
            tokens.push(text);
        }

        let mut portal = Self {
            running: None,
            stored: directory,
            rng,
            last_socket: 0,
            sockets: BTreeMap::new(),
            waiting: BTreeMap::new(),
            tokens,
            policies: BTreeMap::new(),
            resources,
            sites,
        };
        let network = network(&scenario.upstream);
        portal.stored.apply(&Edit::SetNetwork(network));
        for (number, resource) in scenario.resources.iter().enumerate() {
            for client in &resource.clients {
                let edit = portal.policy(scenario, *client, number);
                portal.stored.apply(&edit);
            }
        }
        portal.begin(now, unix);

        portal
    }

    /// Runs again, with what is stored.
    pub(crate) fn begin(&mut self, now: Instant, unix: u64) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let state = State::new(now, unix, self.stored.clone(), seed);
        self.running = Some(Running::new(state));
        self.settle();
    }

    /// Ends. Returns the channels that break.
    pub(crate) fn end(&mut self) -> Vec<ChannelId> {
        self.running = None;
        let open = std::mem::take(&mut self.sockets).into_values();
        let waiting = std::mem::take(&mut self.waiting).into_values();

        open.chain(waiting.map(|(channel, _)| channel)).collect()
    }

    pub(crate) fn due_at(&mut self) -> Option<Instant> {
        self.running.as_mut()?.due_at()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, unix: u64) {
        if let Some(running) = &mut self.running {
            running.touch().handle_timeout(now, unix);
        }
    }

    /// A host opens a channel and joins, at once or when an older one is found dead; false if it is refused.
    pub(crate) fn open(
        &mut self,
        (now, unix): (Instant, u64),
        channel: ChannelId,
        scenario: &Scenario,
        hello: &Hello,
    ) -> bool {
        let (Some(running), Some(host)) = (&mut self.running, scenario.hosts.get(channel.host))
        else {
            return false;
        };
        let state = running.touch();
        let (opens, topic, agent) = match host.role {
            Role::Client { .. } => (Opens::Client, client::TOPIC, "headless-client/1.5.12"),
            Role::Gateway { .. } => (Opens::Gateway, gateway::TOPIC, "gateway/1.6.1"),
            Role::Relay => (Opens::Relay, relay::TOPIC, "relay/0.1.0"),
        };
        let is_device = opens != Opens::Relay;
        let connect = Connect {
            role: opens,
            generation: Generation::V2,
            framing: Framing::Object,
            token: self.tokens.get(channel.host).cloned(),
            external_id: is_device.then(|| host.name.clone()),
            name: is_device.then(|| host.name.clone()),
            public_key: hello.public_key.clone(),
            ipv4: hello.ipv4.clone(),
            ipv6: hello.ipv6.clone(),
            port: None,
            user_agent: Some(format!("Linux/6 {agent}")),
            remote: None,
        };
        self.last_socket += 1;
        let socket = SocketId(self.last_socket);
        let Ok(admission) = state.handle_connect(now, unix, socket, &connect) else {
            self.settle();
            return false;
        };
        let join = match &hello.secret {
            Some(secret) => {
                let join = relay::Join {
                    stamp_secret: secret.clone(),
                    passwords: relay::Passwords::Stamped,
                };
                phoenix::push(topic, JOIN, &join, Some(0))
            }
            None => phoenix::push(topic, JOIN, &(), Some(0)),
        };
        match admission {
            Admission::Opened => {
                self.sockets.insert(socket, channel);
                state.handle_message(now, unix, socket, &join);
            }
            Admission::Waiting => {
                self.waiting.insert(socket, (channel, join));
            }
        }

        true
    }

    /// A text comes through a channel.
    pub(crate) fn hears(&mut self, now: Instant, unix: u64, channel: ChannelId, text: &str) {
        if let (Some(socket), Some(running)) = (self.socket_of(channel), &mut self.running) {
            running.touch().handle_message(now, unix, socket, text);
        }
    }

    /// A ping is answered.
    pub(crate) fn hears_pong(&mut self, now: Instant, unix: u64, channel: ChannelId) {
        if let (Some(socket), Some(running)) = (self.socket_of(channel), &mut self.running) {
            running.touch().handle_pong(now, unix, socket);
        }
    }

    /// A channel is gone.
    pub(crate) fn loses(&mut self, now: Instant, unix: u64, channel: ChannelId) {
        if let (Some(socket), Some(running)) = (self.socket_of(channel), &mut self.running) {
            self.sockets.remove(&socket);
            self.waiting.remove(&socket);
            running.touch().handle_disconnect(now, unix, socket);
        }
    }

    /// The next thing that leaves it.
    pub(crate) fn poll(&mut self, now: Instant, unix: u64) -> Option<(ChannelId, Says)> {
        self.settle();
        loop {
            let state = self.running.as_mut()?.touch();
            match state.poll_event()? {
                Event::Ping { socket } => {
                    if let Some(channel) = self.sockets.get(&socket) {
                        return Some((*channel, Says::Ping));
                    }
                }
                Event::Decided { socket, result } => {
                    let Some((channel, join)) = self.waiting.remove(&socket) else {
                        continue;
                    };
                    if result.is_err() {
                        return Some((channel, Says::Refused));
                    }
                    self.sockets.insert(socket, channel);
                    state.handle_message(now, unix, socket, &join);
                    self.settle();
                }
                Event::Send { socket, text } => {
                    if let Some(channel) = self.sockets.get(&socket) {
                        return Some((*channel, Says::Text(text)));
                    }
                }
                Event::Close { socket, .. } => {
                    if let Some(channel) = self.sockets.remove(&socket) {
                        return Some((channel, Says::Close));
                    }
                }
            }
        }
    }

    /// The resource's id, as statuses show it.
    pub(crate) fn resource(&self, number: usize) -> Option<ResourceId> {
        self.resources.get(number).copied()
    }

    /// All of them, by number.
    pub(crate) fn resources(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    fn socket_of(&self, channel: ChannelId) -> Option<SocketId> {
        let waiting = self.waiting.iter().map(|(socket, (of, _))| (socket, of));
        let mut sockets = self.sockets.iter().chain(waiting);

        sockets
            .find(|(_, other)| **other == channel)
            .map(|(socket, _)| *socket)
    }

    fn settle(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        while let Some(edit) = running.touch().poll_edit() {
            self.stored.apply(&edit);
        }
        // Nobody asks this portal who changed what.
        while running.touch().poll_entry().is_some() {}
    }
}

/// What a host shows when it opens a channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hello {
    pub(crate) public_key: Option<String>,
    pub(crate) ipv4: Option<String>,
    pub(crate) ipv6: Option<String>,
    /// A relay's secret.
    pub(crate) secret: Option<Secret>,
}

fn sites(
    scenario: &Scenario,
    directory: &mut Directory,
    rng: &mut StdRng,
) -> BTreeMap<String, SiteId> {
    let of_hosts = scenario.hosts.iter().filter_map(|host| match &host.role {
        Role::Gateway { site } => Some(site),
        Role::Client { .. } | Role::Relay => None,
    });
    let mut sites = BTreeMap::new();
    for name in of_hosts.chain(scenario.resources.iter().map(|resource| &resource.site)) {
        if !sites.contains_key(name) {
            let id = SiteId(id(rng));
            let name = name.clone();
            directory.apply(&Edit::PutSite(Site {
                id,
                name: name.clone(),
            }));
            sites.insert(name, id);
        }
    }

    sites
}

/// Every client has a group of its own for every resource.
fn group(client: &str, resource: &str) -> String {
    format!("{client} to {resource}")
}

fn id(rng: &mut StdRng) -> Uuid {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);

    Builder::from_random_bytes(bytes).into_uuid()
}
