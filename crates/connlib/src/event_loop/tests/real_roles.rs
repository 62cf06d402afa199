//! The real client and gateway: whoever runs their jobs, in whatever order, the outcome is the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use connlib_os::fake::FakeTrain;
use connlib_relay::{
    Command as RelayCommand, Config, Credentials, LoopbackPeers, PrivatePeers, Server,
};
use connlib_tunnel::client::Client;
use connlib_tunnel::gateway::Gateway;
use connlib_tunnel::{PortalState, Settings};
use connlib_wire::buffer::Pool;
use connlib_wire::offload::VirtioHeader;
use connlib_wire::portal::{client, gateway};
use connlib_wire::secret::Secret;
use connlib_wire::stun::relay_password;
use connlib_wire::super_packet::SuperPacket;
use connlib_wire::train::Arrival;
use serde_json::json;

use super::super::{Command, Core, EventLoop, Output};
use super::*;

const UNIX: Duration = Duration::from_secs(1_800_000_000);
const EXPIRY: u64 = 2_145_916_800;
const SECRET: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const LAN: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11";
const SITE: &str = "2b7c9e44-1a5d-4f60-8c3e-7d2f1b0a9c88";
const GATEWAY: &str = "66666666-7777-4888-9999-aaaaaaaaaaaa";
const CLIENT: &str = "11111111-2222-4333-8444-555555555555";
const PRESHARED: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
const CLIENT_AT: &str = "192.0.2.1:9";
const GATEWAY_AT: &str = "192.0.2.2:9";
const RELAY_AT: &str = "203.0.113.9:3478";
const HOST: &str = "10.20.0.10:80";

/// What each flow got through, in order, by its direction and port.
type Outcome = BTreeMap<(&'static str, u16), Vec<u16>>;

#[test]
fn real_jobs_done_in_any_order_at_any_time_change_nothing() {
    let inline = World::new(None).run();
    let all: usize = inline.values().map(Vec::len).sum();
    assert_eq!(all, PACKETS * 2, "nothing is lost");

    for seed in 0..20 {
        let mut world = World::new(Some(seed));
        assert_eq!(inline, world.run(), "seed {seed}");
        let TestWorkers::Shuffled(workers) = &world.client.io.workers else {
            panic!("they run inline");
        };
        assert!(workers.most >= 3, "{} at once", workers.most);
    }
}

#[test]
fn candidates_found_while_the_portal_is_away_are_told_when_it_is_back() {
    let mut world = World::new(None);
    world.init();
    world.settle();
    let packet = world.packet(4_000, 0, true);
    world.client.io.tun().inbox.push_back(packet);
    let (asked, _) = world.client.turn(world.now);
    assert!(matches!(
        asked[..],
        [client::ToPortal::RequestAuthorization(_)]
    ));

    world.grant();
    let away = Command::PortalState(PortalState::Away);
    world.client.io.commands.push_back(away);
    for _ in 0..100 {
        let (said, _) = world.client.turn(world.now);
        assert!(said.is_empty(), "{said:?}");
        world.carry();
        world.now += Duration::from_millis(10);
    }

    let joined = Command::PortalState(PortalState::Joined);
    world.client.io.commands.push_back(joined);
    let (said, _) = world.client.turn(world.now);
    let [client::ToPortal::NewIceCandidates(told)] = &said[..] else {
        panic!("{said:?}");
    };
    for kind in [" typ host ", " typ relay "] {
        let is_told = told.candidates.iter().any(|line| line.contains(kind));
        assert!(is_told, "{told:?}");
    }
}

const PACKETS: usize = 600;

struct Node<C: Core> {
    event_loop: EventLoop<C>,
    io: TestIo<C>,
}

struct World {
    client: Node<Client>,
    gateway: Node<Gateway>,
    relay: Server,
    now: Instant,
    pool: Pool,
}

impl<C: Core> Node<C> {
    fn new(core: C, at: &str, seed: Option<u64>) -> Self {
        let mut io = TestIo::new();
        io.v4 = Some(Watched::new(FakeUdp::new(at.parse().unwrap())));
        io.v6 = None;
        if let Some(seed) = seed {
            io.workers = TestWorkers::Shuffled(Shuffled::new(seed));
        }
        io.commands
            .push_back(Command::PortalState(PortalState::Joined));

        Self {
            event_loop: EventLoop::new(core, 7),
            io,
        }
    }

    fn say(&mut self, message: C::FromPortal) {
        self.io.commands.push_back(Command::Portal(message));
    }

    /// A turn; what it had to say, and whether there is more to do at once.
    fn turn(&mut self, now: Instant) -> (Vec<C::ToPortal>, bool) {
        self.io.make_ready();
        let mut wait = self.event_loop.turn(now, &mut self.io);
        let errors: Vec<_> = wait.errors.drain().collect();
        assert!(errors.is_empty(), "{errors:?}");
        let outputs = self.io.outputs.drain(..);
        let messages = outputs.filter_map(|output| match output {
            Output::Message(message) => Some(message),
            Output::Event(_) | Output::Status(..) | Output::Explained(_) | Output::Exchange(_) => {
                None
            }
        });
        let is_busy = self.io.workers.is_busy() || wait.until == Some(now);

        (messages.collect(), is_busy)
    }
}

impl World {
    fn new(seed: Option<u64>) -> Self {
        let now = start();
        let settings = || Settings { unix: UNIX };
        let client = Client::new(now, [1; 32], settings());
        let gateway = Gateway::new(now, [2; 32], settings());
        let config = Config {
            public_v4: Some([203, 0, 113, 9].into()),
            public_v6: None,
            listen_port: 3478,
            ports: 49_152..=65_535,
            credentials: Credentials::Stamped(Secret::from(SECRET)),
            loopback_peers: LoopbackPeers::Refused,
            private_peers: PrivatePeers::Allowed,
        };
        let pool = Pool::new(2_048, 16);

        Self {
            client: Node::new(client, CLIENT_AT, seed),
            gateway: Node::new(gateway, GATEWAY_AT, seed.map(|seed| seed + 1_000)),
            relay: Server::new(config, [3; 32], pool.clone()),
            now,
            pool,
        }
    }

    fn run(&mut self) -> Outcome {
        self.init();
        self.connect();
        for node in [&mut self.client.io.tun, &mut self.gateway.io.tun] {
            node.device.outbox.clear();
        }
        for number in 0..PACKETS as u16 {
            let port = 5_000 + number % 7;
            let there = self.packet(port, number, true);
            self.client.io.tun().inbox.push_back(there);
            let back = self.packet(port, number, false);
            self.gateway.io.tun().inbox.push_back(back);
            if number % 200 == 0 {
                self.settle();
            }
        }
        self.settle();

        let mut outcome = Outcome::new();
        collect(&mut outcome, "there", 20, &self.gateway.io);
        collect(&mut outcome, "back", 22, &self.client.io);

        outcome
    }

    fn init(&mut self) {
        let password = |salt: &str| relay_password(EXPIRY, salt, &Secret::from(SECRET));
        let relays = |salt: &str| {
            json!([{
                "type": "turn", "id": "6c86c6aa-c5fb-44bc-b5d9-939cb7d7d564", "addr": RELAY_AT,
                "username": format!("{EXPIRY}:{salt}"), "password": password(salt).expose(),
                "expires_at": EXPIRY,
            }])
        };
        let resource = json!({
            "type": "cidr", "id": LAN, "name": "lan", "address": "10.20.0.0/16",
            "gateway_groups": [{ "id": SITE, "name": "hq" }], "filters": [],
        });
        let init = json!({
            "interface": { "ipv4": "100.64.0.1", "ipv6": "fd00:2021:1111::1" },
            "resources": [resource], "relays": relays("c"),
        });
        self.client
            .say(from_portal(client::FromPortal::parse, "init", init));
        let init = json!({
            "interface": { "ipv4": "100.64.0.9", "ipv6": "fd00:2021:1111::9" },
            "relays": relays("g"), "authorizations": [],
        });
        self.gateway
            .say(from_portal(gateway::FromPortal::parse, "init", init));
    }

    /// Lets a packet ask for access, and time pass until it has come through.
    fn connect(&mut self) {
        for millis in 0..20_000 {
            self.settle();
            if !self.gateway.io.tun().outbox.is_empty() {
                return;
            }
            if millis % 100 == 0 {
                let (header, packet) = self.packet(4_000, 0, true);
                self.client.io.tun().inbox.push_back((header, packet));
            }
            self.now += Duration::from_millis(10);
        }
        panic!("no connection");
    }

    /// Turns until nothing more happens at this instant.
    fn settle(&mut self) {
        loop {
            let (messages, client_busy) = self.client.turn(self.now);
            for message in messages {
                self.hear_client(message);
            }
            let (messages, gateway_busy) = self.gateway.turn(self.now);
            for message in messages {
                self.hear_gateway(message);
            }
            let has_moved = self.carry();
            let has_orders =
                !self.client.io.commands.is_empty() || !self.gateway.io.commands.is_empty();
            if !(client_busy || gateway_busy || has_moved || has_orders) {
                return;
            }
        }
    }

    fn hear_client(&mut self, message: client::ToPortal) {
        match message {
            client::ToPortal::RequestAuthorization(_) => self.grant(),
            client::ToPortal::NewIceCandidates(new) => {
                let payload = json!({ "client_id": CLIENT, "candidates": new.candidates });
                let message = from_portal(gateway::FromPortal::parse, "ice_candidates", payload);
                self.gateway.say(message);
            }
            client::ToPortal::InvalidateIceCandidates(_)
            | client::ToPortal::SetCapabilities(_)
            | client::ToPortal::NoRelays(_)
            | _ => {}
        }
    }

    fn hear_gateway(&mut self, message: gateway::ToPortal) {
        if let gateway::ToPortal::BroadcastIceCandidates(new) = message {
            let payload = json!({ "gateway_id": GATEWAY, "candidates": new.candidates });
            let message = from_portal(client::FromPortal::parse, "ice_candidates", payload);
            self.client.say(message);
        }
    }

    fn grant(&mut self) {
        let ice =
            |name: &str| json!({ "username": name, "password": format!("password of {name}") });
        let gateway_key = self.gateway.event_loop.core().public_key();
        let client_key = self.client.event_loop.core().public_key();
        let payload = json!({
            "ref": "r1",
            "resource": { "type": "cidr", "id": LAN, "name": "lan", "address": "10.20.0.0/16", "filters": [] },
            "client": {
                "id": CLIENT, "public_key": client_key, "preshared_key": PRESHARED,
                "ipv4": "100.64.0.1", "ipv6": "fd00:2021:1111::1",
            },
            "client_ice_credentials": ice("clnt"), "gateway_ice_credentials": ice("gate"),
            "expires_at": null,
        });
        let message = from_portal(gateway::FromPortal::parse, "create_authorization", payload);
        self.gateway.say(message);
        let payload = json!({
            "resource_id": LAN, "gateway_id": GATEWAY, "gateway_group_id": SITE,
            "gateway_public_key": gateway_key, "gateway_ipv4": "100.64.0.9",
            "gateway_ipv6": "fd00:2021:1111::9", "preshared_key": PRESHARED,
            "client_ice_credentials": ice("clnt"), "gateway_ice_credentials": ice("gate"),
        });
        let message = from_portal(client::FromPortal::parse, "authorization_created", payload);
        self.client.say(message);
    }

    /// Carries datagrams to where they go; whether there were any.
    fn carry(&mut self) -> bool {
        let ends: [SocketAddr; 2] = [CLIENT_AT, GATEWAY_AT].map(|at| at.parse().unwrap());
        let relay_at: SocketAddr = RELAY_AT.parse().unwrap();
        let mut trains = Vec::new();
        let sockets = [self.client.io.v4(), self.gateway.io.v4()];
        for (socket, from) in sockets.into_iter().zip(ends) {
            trains.extend(socket.sent.drain(..).map(|train| FakeTrain {
                from,
                to: train.route.dst,
                ecn: train.route.ecn,
                stride: train.segment_size,
                bytes: train.payload,
            }));
        }
        let has_moved = !trains.is_empty();
        for train in trains {
            if train.to == ends[0] {
                self.client.io.v4().inbox.push_back(train);
            } else if train.to == ends[1] {
                self.gateway.io.v4().inbox.push_back(train);
            } else if train.to == relay_at {
                self.ask_relay(&train);
            }
        }

        has_moved
    }

    /// The relay answers; it is not to carry any data.
    fn ask_relay(&mut self, train: &FakeTrain) {
        let arrival = Arrival {
            from: train.from,
            to: train.to,
            ecn: train.ecn,
            stride: train.stride,
            bytes: &train.bytes,
        };
        let _ = self.relay.handle_client(self.now, UNIX, &arrival);
        while let Some(command) = self.relay.poll_command() {
            if let RelayCommand::OpenPort { port, family } = command {
                self.relay.handle_port_opened(self.now, port, family);
            }
        }
        while let Some(answer) = self.relay.poll_transmit() {
            let train = FakeTrain {
                from: RELAY_AT.parse().unwrap(),
                to: answer.route.dst,
                ecn: answer.route.ecn,
                stride: 0,
                bytes: answer.payload.to_vec(),
            };
            let to_client = answer.route.dst == CLIENT_AT.parse().unwrap();
            let io = match to_client {
                true => self.client.io.v4(),
                false => self.gateway.io.v4(),
            };
            io.inbox.push_back(train);
        }
    }

    fn packet(&self, port: u16, number: u16, is_there: bool) -> (VirtioHeader, Vec<u8>) {
        let own = SocketAddr::from(([100, 64, 0, 1], port));
        let host: SocketAddr = HOST.parse().unwrap();
        let (from, to) = if is_there { (own, host) } else { (host, own) };
        let mut payload = [0; 1_000];
        payload[..2].copy_from_slice(&number.to_be_bytes());
        let packet = connlib_wire::ip::udp(&self.pool, from, to, &payload);

        (VirtioHeader::default(), packet.unwrap().bytes().to_vec())
    }
}

/// Cuts what a TUN device was given and sorts it by the port at `port_at`.
fn collect<C: Core>(outcome: &mut Outcome, name: &'static str, port_at: usize, io: &TestIo<C>) {
    for (header, bytes) in &io.tun.device.outbox {
        let mut packet = SuperPacket::parse(*header, bytes.clone()).unwrap();
        let mut segments = packet.split();
        while let Some(segment) = segments.next_segment() {
            let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
            outcome
                .entry((name, word(port_at)))
                .or_default()
                .push(word(28));
        }
    }
}

fn from_portal<M, E: std::fmt::Debug>(
    parse: impl Fn(&str, &serde_json::value::RawValue) -> Result<M, E>,
    event: &str,
    payload: serde_json::Value,
) -> M {
    let raw = serde_json::value::RawValue::from_string(payload.to_string()).unwrap();

    parse(event, &raw).unwrap()
}
