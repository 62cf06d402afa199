//! The world itself: a heap of happenings, and the oracles that watch.

mod app;
mod relay;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib::event_loop::{Command, Output};
use connlib_os::fake::{FakeTrain, SentTrain};
use connlib_tunnel::client::Client;
use connlib_tunnel::gateway::Gateway;
use connlib_tunnel::{PortalState, Settings};
use connlib_wire::MAX_DATAGRAM;
use connlib_wire::ecn::Ecn;
use connlib_wire::portal::{client as client_portal, gateway as gateway_portal};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::host::{Host, Turned};
use crate::log::Warnings;
use crate::network::{HostId, Network};
use crate::portal::{Portal, Says};
use crate::report::{Failure, Report};
use crate::scenario::{Direct, Scenario};
use crate::trace::Trace;
use app::App;
use relay::RelayHost;

/// The wall clock at the start.
const UNIX: Duration = Duration::from_secs(1_800_000_000);

/// The port that nodes use where it is free.
const NODE_PORT: u16 = 52_625;

/// When the path in use is looked at: everything has settled by then, and no grant has ended.
const SETTLED_AT: Duration = Duration::from_secs(35);

/// When a world ends.
const END: Duration = Duration::from_secs(75);

/// The longest wait for the first reply, without loss and with it.
const FIRST_REPLY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(12)];

/// The most datagrams per second of a node that nobody uses.
const QUIET_DATAGRAMS: u64 = 40;

/// How long a stalled device takes nothing.
const STALL: Duration = Duration::from_millis(1);

/// Turns that one instant may take before it counts as a standstill.
const MAX_TURNS_AT_ONCE: u32 = 10_000;

/// Something that is going to happen.
#[derive(Debug)]
enum Happening {
    Arrives(HostId, FakeTrain),
    PortalSays(Box<Says>),
    PortalHearsClient(client_portal::ToPortal),
    PortalHearsGateway(gateway_portal::ToPortal),
    /// The app sends, or sends again.
    Ping(u32),
    /// The host behind the gateway answers.
    Echo(Vec<u8>),
    Unstall(HostId),
    TunComes(HostId),
    TunVanishes(HostId),
    GrantEnds,
    Settled,
    End,
}

/// One client, one gateway, one relay, a portal, and a host that echoes.
pub struct World {
    scenario: Scenario,
    start: Instant,
    now: Instant,
    heap: BTreeMap<(Instant, u64), Happening>,
    happenings: u64,
    network: Network,
    client: Host<Client>,
    gateway: Host<Gateway>,
    relay: RelayHost,
    portal: Portal,
    app: App,
    trace: Trace,
    datagrams: u64,
    datagrams_when_quiet: u64,
    violation: Option<String>,
    has_ended: bool,
}

impl World {
    /// Builds a world.
    #[expect(
        clippy::disallowed_methods,
        reason = "instants can only be made from one; nothing depends on which it is"
    )]
    pub fn new(scenario: Scenario) -> Self {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(scenario.seed ^ 0x5eed);
        let mut seed = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let settings = Settings { unix: UNIX };
        let client = Client::new(start, seed(), settings);
        let gateway = Gateway::new(start, seed(), settings);
        let addr = |host: HostId, port| SocketAddr::new(host.ip(scenario.family), port);
        let relay = RelayHost::new(addr(HostId::Relay, relay::PORT), seed());
        let expires_at = scenario.grant_ends_at.map(|at| (UNIX + at).as_secs());
        let portal = Portal::new(
            client.public_key(),
            gateway.public_key(),
            relay.addr(),
            expires_at,
        );

        let mut world = Self {
            network: Network::new(&scenario, StdRng::from_seed(seed())),
            client: Host::new(client, addr(HostId::Client, NODE_PORT), &scenario.faults[0]),
            gateway: Host::new(
                gateway,
                addr(HostId::Gateway, NODE_PORT),
                &scenario.faults[1],
            ),
            relay,
            portal,
            app: App::new(&scenario),
            trace: Trace::new(),
            datagrams: 0,
            datagrams_when_quiet: 0,
            violation: None,
            has_ended: false,
            heap: BTreeMap::new(),
            happenings: 0,
            start,
            now: start,
            scenario,
        };
        world.set_the_stage();

        world
    }

    /// Lets everything happen.
    ///
    /// # Errors
    ///
    /// The first oracle that was violated.
    pub fn run(mut self) -> Result<Report, Failure> {
        let (result, warnings) = Warnings::during(|| {
            while self.violation.is_none() && !self.has_ended {
                self.step();
            }
            self.finish()
        });
        match (result, warnings.first()) {
            (Ok(report), None) => Ok(report),
            (Ok(_), Some(warning)) => Err(Failure {
                scenario: Box::new(self.scenario),
                at: END,
                what: format!("a warning: {warning}"),
            }),
            (Err(failure), _) => Err(failure),
        }
    }

    fn set_the_stage(&mut self) {
        let portal = self.scenario.portal_latency;
        self.client
            .command(Command::PortalState(PortalState::Joined));
        self.gateway
            .command(Command::PortalState(PortalState::Joined));
        let (to_client, to_gateway) = (self.portal.init_client(), self.portal.init_gateway());
        self.post(portal, Happening::PortalSays(Box::new(to_client)));
        self.post(portal, Happening::PortalSays(Box::new(to_gateway)));
        let late = [HostId::Client, HostId::Gateway].into_iter();
        for (host, faults) in late.zip(self.scenario.faults.clone()) {
            self.post(faults.tun_comes_at, Happening::TunComes(host));
            if let Some(at) = faults.tun_vanishes_at {
                self.post(at, Happening::TunVanishes(host));
            }
        }
        let first_at = app::FIRST_AT.max(self.scenario.devices_at());
        for ping in 0..self.scenario.pings {
            self.post(
                first_at + self.scenario.ping_interval * ping,
                Happening::Ping(ping),
            );
        }
        if let Some(at) = self.scenario.grant_ends_at {
            self.post(at, Happening::GrantEnds);
            for ping in 0..app::FORBIDDEN {
                let at = at + Duration::from_secs(1) + Duration::from_millis(500) * ping;
                self.post(at, Happening::Ping(self.scenario.pings + ping));
            }
        }
        self.post(SETTLED_AT, Happening::Settled);
        self.post(END, Happening::End);
    }

    /// Goes to the next instant at which anything happens, and lets all of it happen.
    fn step(&mut self) {
        let due = [
            self.heap.keys().next().map(|(at, _)| *at),
            self.client.due_at,
            self.gateway.due_at,
            self.relay.due_at,
        ];
        let Some(next) = due.into_iter().flatten().min() else {
            self.violate("nothing is ever going to happen");
            return;
        };
        self.now = self.now.max(next);

        while let Some(entry) = self.heap.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let happening = entry.remove();
            self.let_happen(happening);
        }
        for turn in 0.. {
            let now = self.now;
            let client = self.client.wants_turn(now);
            let gateway = self.gateway.wants_turn(now);
            let relay = self.relay.wants_turn(now);
            if client {
                let turned = self.client.turn(now);
                self.after_client(turned);
            }
            if gateway {
                let turned = self.gateway.turn(now);
                self.after_gateway(turned);
            }
            if relay {
                self.turn_relay();
            }
            if !client && !gateway && !relay {
                break;
            }
            if turn >= MAX_TURNS_AT_ONCE {
                self.violate("turns without end at one instant");
                return;
            }
        }
    }

    fn let_happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(HostId::Client, train) => self.client.receive(train),
            Happening::Arrives(HostId::Gateway, train) => self.gateway.receive(train),
            Happening::Arrives(HostId::Relay, train) => self.relay.receive(train),
            Happening::PortalSays(says) => match *says {
                Says::ToClient(message) => self.client.command(Command::Portal(message)),
                Says::ToGateway(message) => self.gateway.command(Command::Portal(message)),
            },
            Happening::PortalHearsClient(message) => {
                let says = self.portal.hears_client(message);
                self.portal_says(says);
            }
            Happening::PortalHearsGateway(message) => {
                let says = self.portal.hears_gateway(message);
                self.portal_says(says);
            }
            Happening::Ping(number) => self.ping(number),
            Happening::Echo(packet) => self.gateway.send_packet(packet),
            Happening::Unstall(HostId::Client) => self.client.unstall(),
            Happening::Unstall(HostId::Gateway) => self.gateway.unstall(),
            Happening::TunComes(HostId::Client) => self.client.tun_comes(),
            Happening::TunComes(HostId::Gateway) => self.gateway.tun_comes(),
            Happening::TunVanishes(HostId::Client) => self.client.tun_vanishes(),
            Happening::TunVanishes(HostId::Gateway) => self.gateway.tun_vanishes(),
            Happening::Unstall(HostId::Relay)
            | Happening::TunComes(HostId::Relay)
            | Happening::TunVanishes(HostId::Relay) => {}
            Happening::GrantEnds => self.portal.refuse_from_now_on(),
            Happening::Settled => self.check_path(),
            Happening::End => self.has_ended = true,
        }
    }

    fn ping(&mut self, number: u32) {
        if let Some(packet) = self.app.ping(self.now, number) {
            self.client.send_packet(packet);
            self.post(app::RETRY_AFTER, Happening::Ping(number));
        }
    }

    fn after_client(&mut self, turned: Turned<Client>) {
        for packet in &turned.packets {
            self.trace
                .add(self.now - self.start, "client's TUN", packet);
            if let Err(what) = self.app.receive(self.now, packet) {
                self.violate(what);
            }
        }
        for output in turned.outputs {
            if let Output::Message(message) = output {
                let latency = self.scenario.portal_latency;
                self.post(latency, Happening::PortalHearsClient(message));
            }
        }
        self.after(
            HostId::Client,
            turned.trains,
            turned.fatal,
            turned.is_stalled,
        );
    }

    fn after_gateway(&mut self, turned: Turned<Gateway>) {
        for packet in turned.packets {
            self.trace
                .add(self.now - self.start, "gateway's TUN", &packet);
            let is_over = self
                .scenario
                .grant_ends_at
                .is_some_and(|at| self.elapsed() >= at);
            match self.app.echo(&packet) {
                _ if is_over => {
                    let what = "a packet reached the resource after the grant's end";
                    self.violate(what);
                }
                Ok(echo) => self.post(app::ECHO_AFTER, Happening::Echo(echo)),
                Err(what) => {
                    self.violate(what);
                }
            }
        }
        for output in turned.outputs {
            if let Output::Message(message) = output {
                let latency = self.scenario.portal_latency;
                self.post(latency, Happening::PortalHearsGateway(message));
            }
        }
        self.after(
            HostId::Gateway,
            turned.trains,
            turned.fatal,
            turned.is_stalled,
        );
    }

    fn after(
        &mut self,
        host: HostId,
        trains: Vec<(SocketAddr, SentTrain)>,
        fatal: Option<String>,
        is_stalled: bool,
    ) {
        self.launch_all(host, trains);
        if is_stalled {
            self.post(STALL, Happening::Unstall(host));
        }
        if let Some(fatal) = fatal {
            self.violate(format!("a fatal error: {fatal}"));
        }
    }

    fn launch_all(&mut self, host: HostId, trains: Vec<(SocketAddr, SentTrain)>) {
        for (local, train) in trains {
            let from = train.route.src.unwrap_or(local);
            let datagrams: Vec<&[u8]> = train.datagrams().collect();
            self.launch(host, from, train.route.dst, train.route.ecn, &datagrams);
        }
    }

    fn launch(
        &mut self,
        host: HostId,
        from: SocketAddr,
        to: SocketAddr,
        ecn: Ecn,
        datagrams: &[&[u8]],
    ) {
        for datagram in datagrams {
            self.trace.add(self.now - self.start, host.name(), datagram);
            self.datagrams += 1;
            let is_quiet = (app::QUIET_FROM..app::QUIET_UNTIL).contains(&self.elapsed());
            self.datagrams_when_quiet += u64::from(is_quiet && host != HostId::Relay);
            if datagram.len() > MAX_DATAGRAM {
                self.violate(format!("a datagram of {} bytes", datagram.len()));
            }
        }
        if let Some((after, target, train)) = self.network.carry(from, to, ecn, datagrams) {
            self.post(after, Happening::Arrives(target, train));
        }
    }

    fn turn_relay(&mut self) {
        let unix = UNIX + self.elapsed();
        match self.relay.turn(self.now, unix) {
            Ok(trains) => self.launch_all(HostId::Relay, trains),
            Err(fatal) => self.violate(format!("a fatal error: {fatal}")),
        }
    }

    fn portal_says(&mut self, says: Vec<Says>) {
        for says in says {
            self.post(
                self.scenario.portal_latency,
                Happening::PortalSays(Box::new(says)),
            );
        }
    }

    fn check_path(&mut self) {
        let status = self.client.core().status(self.now);
        let path = status.peers.first().and_then(|peer| peer.path);
        let expected = match self.scenario.direct {
            Direct::Open => "direct",
            Direct::Blocked => "relayed",
        };
        if path != Some(expected) {
            self.violate(format!("the path is {path:?}, not {expected}"));
        }
    }

    /// Asks the oracles that judge a whole run.
    fn finish(&mut self) -> Result<Report, Failure> {
        let is_lossy = self.scenario.loses();
        let first_reply_after = self.app.first_reply_after().unwrap_or(Duration::MAX);
        let [calm, lossy] = FIRST_REPLY;
        let limit = if is_lossy { lossy } else { calm };
        let quiet_secs = (app::QUIET_UNTIL - app::QUIET_FROM).as_secs();

        let what = if let Some(what) = self.violation.take() {
            Some(what)
        } else if let Some(what) = self.app.judge(is_lossy) {
            Some(what)
        } else if first_reply_after > limit {
            Some(format!("the first reply took {first_reply_after:?}"))
        } else if self.datagrams_when_quiet > QUIET_DATAGRAMS * quiet_secs {
            Some(format!(
                "{} datagrams while nobody sent",
                self.datagrams_when_quiet
            ))
        } else {
            None
        };
        if let Some(what) = what {
            return Err(Failure {
                scenario: Box::new(self.scenario.clone()),
                at: self.elapsed(),
                what,
            });
        }

        Ok(Report {
            trace: std::mem::replace(&mut self.trace, Trace::new()).finish(),
            first_reply_after,
            datagrams: self.datagrams,
            replies: self.app.replies(),
        })
    }

    /// An oracle objects; the first objection counts.
    fn violate(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| what.into());
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn post(&mut self, after: Duration, happening: Happening) {
        self.happenings += 1;
        self.heap
            .insert((self.now + after, self.happenings), happening);
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("scenario", &self.scenario)
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}
