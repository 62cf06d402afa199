//! client.md §15.9: what holds for a client whatever happens to it, and in which order. The numbers are those of the section.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_tunnel::PortalState;
use connlib_tunnel::client::{Client, Event};
use connlib_wire::buffer::Pool;
use connlib_wire::dns::{Answer, Name, Query, RecordType};
use connlib_wire::ip::{self, Packet};
use connlib_wire::offload::VirtioHeader;
use connlib_wire::portal::client::{FromPortal, ToPortal};
use connlib_wire::super_packet::SuperPacket;
use proptest::prelude::*;

use crate::client::grant_resource;
use crate::{GATEWAY, RELAYS, SETTINGS, raw, start, udp};

const SITE: &str = r#"[{"id":"2b7c9e44-1a5d-4f60-8c3e-7d2f1b0a9c88","name":"hq"}]"#;
const OWN: &str = "100.64.0.1";
const SENTINEL: &str = "100.100.111.1";

/// What always leads into the tunnel.
const FIXED: [&str; 6] = [
    "100.64.0.0/11",
    "100.96.0.0/11",
    "100.100.111.0/24",
    "fd00:2021:1111::/107",
    "fd00:2021:1111:8000::/107",
    "fd00:2021:1111:8000:100:100:111:0/120",
];

const NETWORKS: [&str; 5] = [
    "10.0.0.0/8",
    "10.20.0.0/16",
    "10.20.5.0/24",
    "172.16.0.0/12",
    "2001:db8::/32",
];
const HOSTS: [&str; 6] = [
    "10.1.1.1",
    "10.20.0.10",
    "10.20.5.10",
    "172.16.0.1",
    "192.0.2.9",
    "198.51.100.7",
];
const PATTERNS: [&str; 3] = ["*.corp.test", "wiki.corp.test", "**.deep.test"];
const NAMES: [&str; 4] = [
    "wiki.corp.test",
    "git.corp.test",
    "a.b.deep.test",
    "www.example.org",
];

/// The Internet has the number behind networks and names.
const INTERNET: usize = NETWORKS.len() + PATTERNS.len();

#[derive(Clone, Copy, Debug)]
enum Op {
    Add(usize),
    Remove(usize),
    WantInternet(bool),
    /// The portal says all of it once more.
    Init,
    /// The portal's channel is lost and joined again.
    Rejoin,
    Send(usize),
    Ask(usize),
    Grant(usize),
    Refuse(usize, bool),
    Reset,
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let resource = 0..=INTERNET;
    prop_oneof![
        4 => resource.clone().prop_map(Op::Add),
        1 => resource.clone().prop_map(Op::Remove),
        1 => any::<bool>().prop_map(Op::WantInternet),
        1 => Just(Op::Init),
        1 => Just(Op::Rejoin),
        6 => (0..HOSTS.len()).prop_map(Op::Send),
        4 => (0..NAMES.len()).prop_map(Op::Ask),
        4 => resource.clone().prop_map(Op::Grant),
        2 => (resource, any::<bool>()).prop_map(|(resource, offline)| Op::Refuse(resource, offline)),
        1 => Just(Op::Reset),
        3 => (1_u64..4_000).prop_map(Op::Wait),
    ]
}

/// A client, and what may be known of it from outside.
struct World {
    client: Client,
    now: Instant,
    resources: BTreeSet<usize>,
    wants_internet: bool,
    granted: BTreeSet<usize>,
    routes: BTreeSet<String>,
    interface: Option<String>,
    names: BTreeMap<usize, BTreeSet<IpAddr>>,
    /// When each resource was asked for last, unless something has happened to it since.
    asked_at: BTreeMap<String, Instant>,
    next_id: u16,
}

fn id(resource: usize) -> String {
    format!("0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a{resource:02}")
}

fn described(resource: usize) -> String {
    let id = id(resource);
    let rest = format!(r#""gateway_groups":{SITE}"#);
    if let Some(network) = NETWORKS.get(resource) {
        return format!(r#"{{"type":"cidr","id":"{id}","name":"n","address":"{network}",{rest}}}"#);
    }
    match PATTERNS.get(resource - NETWORKS.len()) {
        Some(pattern) => {
            format!(r#"{{"type":"dns","id":"{id}","name":"n","address":"{pattern}",{rest}}}"#)
        }
        None => format!(r#"{{"type":"internet","id":"{id}","name":"n",{rest}}}"#),
    }
}

impl World {
    fn new() -> Self {
        let now = start();
        let mut world = Self {
            client: Client::new(now, [1; 32], SETTINGS),
            now,
            resources: BTreeSet::new(),
            wants_internet: false,
            granted: BTreeSet::new(),
            routes: BTreeSet::new(),
            interface: None,
            names: BTreeMap::new(),
            asked_at: BTreeMap::new(),
            next_id: 0,
        };
        world.client.handle_portal_state(now, PortalState::Joined);
        let resolvers = connlib_tunnel::dns::Resolvers {
            servers: vec!["192.0.2.53:53".parse().unwrap()],
            ..Default::default()
        };
        world.client.set_resolvers(now, &resolvers);
        world.init();
        world
    }

    fn say(&mut self, event: &str, payload: &str) {
        let message = FromPortal::parse(event, &raw(payload)).unwrap();
        self.client.handle_message(self.now, message);
    }

    fn init(&mut self) {
        let resources: Vec<_> = self.resources.iter().map(|it| described(*it)).collect();
        let payload = format!(
            r#"{{"interface":{{"ipv4":"{OWN}","ipv6":"fd00:2021:1111::1"}},"resources":[{}],"relays":{RELAYS}}}"#,
            resources.join(",")
        );
        self.say("init", &payload);
    }

    fn has_internet(&self) -> bool {
        self.wants_internet && self.resources.contains(&INTERNET)
    }

    fn run(&mut self, op: Op) -> Result<(), TestCaseError> {
        let before = self.interface.clone();
        match op {
            Op::Add(resource) => {
                self.resources.insert(resource);
                // What is known is not asked for less often because it is said again.
                self.asked_at.remove(&id(resource));
                self.say("resource_created_or_updated", &described(resource));
            }
            Op::Remove(resource) => {
                self.forget(resource);
                self.resources.remove(&resource);
                self.say("resource_deleted", &format!("\"{}\"", id(resource)));
            }
            Op::WantInternet(is_wanted) => {
                if !is_wanted {
                    self.forget(INTERNET);
                }
                self.wants_internet = is_wanted;
                self.client.want_internet(self.now, is_wanted);
            }
            Op::Init => self.init(),
            Op::Rejoin => {
                self.asked_at.clear();
                for state in [PortalState::Away, PortalState::Joined] {
                    self.client.handle_portal_state(self.now, state);
                }
                self.init();
            }
            Op::Send(host) => {
                self.client.handle_packet(self.now, &udp(OWN, HOSTS[host]));
            }
            Op::Ask(name) => self.ask(name)?,
            Op::Grant(resource) if self.asked_at.contains_key(&id(resource)) => {
                self.asked_at.remove(&id(resource));
                self.granted.insert(resource);
                grant_resource(&mut self.client, self.now, &id(resource), GATEWAY);
                for host in HOSTS {
                    prop_assert!(
                        self.owner(host) != Some(resource) || self.goes(host),
                        "{host}"
                    );
                }
            }
            Op::Refuse(resource, is_offline) if self.asked_at.contains_key(&id(resource)) => {
                self.asked_at.remove(&id(resource));
                let reason = if is_offline { "offline" } else { "forbidden" };
                let payload = format!(
                    r#"{{"resource_id":"{}","reason":"{reason}"}}"#,
                    id(resource)
                );
                self.say("authorization_creation_failed", &payload);
            }
            Op::Grant(_) | Op::Refuse(..) => {}
            Op::Reset => {
                self.granted.clear();
                self.asked_at.clear();
                self.client.reset(self.now);
            }
            Op::Wait(millis) => self.wait(Duration::from_millis(millis))?,
        }
        self.settle()?;
        // 7, 10: what changes nothing is told to nobody.
        if matches!(op, Op::Init | Op::Rejoin | Op::Send(_) | Op::Grant(_)) {
            prop_assert_eq!(&self.interface, &before);
        }

        self.check()
    }

    fn forget(&mut self, resource: usize) {
        self.granted.remove(&resource);
        self.asked_at.remove(&id(resource));
    }

    /// Lets time pass as the deadlines say. 12: each is met once.
    fn wait(&mut self, span: Duration) -> Result<(), TestCaseError> {
        let end = self.now + span;
        let mut rounds = 0;
        while let Some((at, _)) = self.client.poll_timeout().filter(|(at, _)| *at <= end) {
            rounds += 1;
            prop_assert!(rounds < 2_000, "deadlines without end");
            self.now = self.now.max(at);
            self.client.handle_timeout(self.now);
            self.settle()?;
            if let Some((next, _)) = self.client.poll_timeout() {
                prop_assert!(next > self.now, "a deadline that stays");
            }
        }
        self.now = end;
        self.client.handle_timeout(end);

        Ok(())
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        while let Some(event) = self.client.poll_event() {
            if let Event::InterfaceChanged(interface) = event {
                let shown = format!("{interface:?}");
                // 10
                prop_assert_ne!(self.interface.as_ref(), Some(&shown));
                self.interface = Some(shown);
                self.routes = interface.routes.iter().map(ToString::to_string).collect();
            }
        }
        while let Some(message) = self.client.poll_message() {
            let request = match message {
                ToPortal::RequestAuthorization(request) => request,
                ToPortal::NoRelays(_) => {
                    let presence = format!(r#"{{"disconnected_ids":[],"connected":{RELAYS}}}"#);
                    self.say("relays_presence", &presence);
                    continue;
                }
                ToPortal::NewIceCandidates(_) | ToPortal::InvalidateIceCandidates(_) | _ => {
                    continue;
                }
            };
            let resource = request.resource_id.to_string();
            // 4, 6
            let is_known = |it: &usize| id(*it) == resource;
            prop_assert!(self.resources.iter().any(is_known), "{resource} is unknown");
            if resource == id(INTERNET) {
                prop_assert!(self.wants_internet);
            }
            if let Some(at) = self.asked_at.insert(resource, self.now) {
                prop_assert!(self.now >= at + Duration::from_secs(2), "asked too often");
            }
        }
        while self.client.poll_transmit().is_some() || self.client.poll_control().is_some() {}
        while self.client.poll_packet().is_some() {}
        while self.client.poll_exchange().is_some() {}

        Ok(())
    }

    /// 2: a name has its addresses for good, and nobody else has.
    fn ask(&mut self, name: usize) -> Result<(), TestCaseError> {
        self.next_id += 1;
        let text = NAMES[name];
        let query = Query::new(&Name::parse(text).unwrap(), RecordType::A);
        let (from, to) = (format!("{OWN}:4000"), format!("{SENTINEL}:53"));
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let message = query.to_upstream(self.next_id, false);
        let packet = ip::udp(&Pool::new(2_048, 1), from, to, &message).unwrap();
        while self.client.poll_packet().is_some() {}
        self.client.handle_packet(self.now, packet.bytes());
        let is_resource = self.names().any(|matched| matched == text);
        let answered = self.client.poll_packet();
        prop_assert_eq!(answered.is_some(), is_resource, "{}", text);
        let Some(packet) = answered else {
            return Ok(());
        };
        let packet = Packet::parse(packet).unwrap();
        let answer = Answer::parse(packet.payload().to_vec()).unwrap();
        // 3
        prop_assert_eq!(answer.id(), self.next_id);
        prop_assert!(self.client.poll_packet().is_none(), "one answer");
        let addresses: BTreeSet<IpAddr> = answer.addresses().map(|(ip, _)| ip).collect();
        prop_assert_eq!(addresses.len(), 4);
        for (other, taken) in &self.names {
            prop_assert!(*other == name || taken.is_disjoint(&addresses));
        }
        let before = self.names.insert(name, addresses.clone());
        prop_assert!(before.is_none_or(|before| before == addresses));

        Ok(())
    }

    /// The names that belong to resources now; each is of one pattern here, or of two.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        let has = |pattern: usize| self.resources.contains(&(NETWORKS.len() + pattern));
        let (all, wiki, deep) = (has(0), has(1), has(2));

        NAMES.into_iter().filter(move |name| match *name {
            "wiki.corp.test" => all || wiki,
            "git.corp.test" => all,
            "a.b.deep.test" => deep,
            _ => false,
        })
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        // 1
        let networks = NETWORKS.iter().enumerate();
        let active = networks.filter(|(at, _)| self.resources.contains(at));
        let mut expected: BTreeSet<String> = active.map(|(_, it)| (*it).to_owned()).collect();
        expected.extend(FIXED.map(str::to_owned));
        if self.has_internet() {
            expected.extend(["0.0.0.0/0", "::/0"].map(str::to_owned));
        }
        prop_assert_eq!(&self.routes, &expected);

        // 4, 14: a packet has no peer unless the resource that it belongs to was granted.
        for host in HOSTS {
            let owner = self.owner(host);
            let may_go = owner.is_some_and(|it| self.granted.contains(&it));
            prop_assert!(!self.goes(host) || may_go, "{host}");
        }
        self.settle()
    }

    /// Whether a packet to a host goes to a gateway at once.
    fn goes(&mut self, host: &str) -> bool {
        let bytes = Pool::new(2_048, 1).copy(&udp(OWN, host)).unwrap();
        let mut packet = SuperPacket::parse(VirtioHeader::default(), bytes).unwrap();

        self.client.route(self.now, &mut packet).is_some()
    }

    /// The resource of a host by the longest of the networks, or the Internet.
    fn owner(&self, host: &str) -> Option<usize> {
        let ip: IpAddr = host.parse().unwrap();
        let mut networks: Vec<(u8, usize)> = Vec::new();
        for (at, network) in NETWORKS.iter().enumerate() {
            let network: ipnet::IpNet = network.parse().unwrap();
            if self.resources.contains(&at) && network.contains(&ip) {
                networks.push((network.prefix_len(), at));
            }
        }
        let of_internet = self.has_internet() && !host.starts_with("10.") && host != "172.16.0.1";

        let network = networks.into_iter().max().map(|(_, at)| at);

        network.or_else(|| of_internet.then_some(INTERNET))
    }
}

/// What may be said of one resource: two of each kind, under one id.
fn variant(resource: usize, is_other: bool) -> String {
    let described = described(resource);
    if is_other {
        return described
            .replace(r#""name":"n""#, r#""name":"m""#)
            .replace("10.", "11.");
    }

    described
}

/// What a client shows and how its interface is, once it has been told all that.
fn shown(client: &mut Client) -> (Option<String>, Option<String>) {
    let (mut list, mut interface) = (None, None);
    while let Some(event) = client.poll_event() {
        if let Event::ResourcesChanged(views) = event {
            list = Some(format!("{views:?}"));
        } else if let Event::InterfaceChanged(changed) = event {
            interface = Some(format!("{changed:?}"));
        }
    }

    (list, interface)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// portal-protocol.md §14.5: the list is what was said last of each resource, or what `init` says, whatever was said before.
    #[test]
    fn the_last_word_about_each_resource_counts(
        said in proptest::collection::vec((0..=INTERNET, proptest::option::of(any::<bool>())), 0..30),
        listed in proptest::collection::btree_map(0..=INTERNET, any::<bool>(), 0..5),
    ) {
        let init = |client: &mut Client, now, resources: &BTreeMap<usize, bool>| {
            let resources: Vec<_> = resources.iter().map(|(it, other)| variant(*it, *other)).collect();
            let payload = format!(
                r#"{{"interface":{{"ipv4":"{OWN}","ipv6":"fd00:2021:1111::1"}},"resources":[{}],"relays":{RELAYS}}}"#,
                resources.join(",")
            );
            client.handle_message(now, FromPortal::parse("init", &raw(&payload)).unwrap());
        };
        let fresh = |now, resources: &BTreeMap<usize, bool>| {
            let mut client = Client::new(now, [1; 32], SETTINGS);
            client.handle_portal_state(now, PortalState::Joined);
            client.want_internet(now, true);
            init(&mut client, now, resources);
            shown(&mut client)
        };

        let now = start();
        let mut client = Client::new(now, [1; 32], SETTINGS);
        client.handle_portal_state(now, PortalState::Joined);
        client.want_internet(now, true);
        init(&mut client, now, &BTreeMap::new());
        let (mut list, mut interface) = shown(&mut client);
        let mut last = BTreeMap::new();
        for (resource, what) in said {
            let (event, payload) = match what {
                Some(is_other) => {
                    last.insert(resource, is_other);
                    ("resource_created_or_updated", variant(resource, is_other))
                }
                None => {
                    last.remove(&resource);
                    ("resource_deleted", format!("\"{}\"", id(resource)))
                }
            };
            client.handle_message(now, FromPortal::parse(event, &raw(&payload)).unwrap());
            let changed = shown(&mut client);
            list = changed.0.or(list);
            interface = changed.1.or(interface);
        }
        prop_assert_eq!((list.clone(), interface.clone()), fresh(now, &last));

        init(&mut client, now, &listed);
        let changed = shown(&mut client);
        list = changed.0.or(list);
        interface = changed.1.or(interface);
        prop_assert_eq!((list.clone(), interface), fresh(now, &listed));

        let before = format!("{:?}", client.status(now));
        init(&mut client, now, &listed);
        let (again, none) = shown(&mut client);
        prop_assert!(again.is_none_or(|again| Some(again) == list));
        prop_assert_eq!(none, None);
        prop_assert_eq!(format!("{:?}", client.status(now)), before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens(ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        world.settle()?;
        world.check()?;
        for op in ops {
            world.run(op)?;
        }

        // 8: a client that starts over gets the same again.
        let names: Vec<usize> = world.names.keys().copied().collect();
        world.run(Op::Reset)?;
        world.run(Op::Rejoin)?;
        for name in names {
            world.run(Op::Ask(name))?;
        }
        world.run(Op::Wait(60_000))?;
        for host in 0..HOSTS.len() {
            world.run(Op::Send(host))?;
        }
        let asked: Vec<usize> = (0..=INTERNET).filter(|it| world.asked_at.contains_key(&id(*it))).collect();
        for resource in asked {
            world.run(Op::Grant(resource))?;
        }
    }
}
