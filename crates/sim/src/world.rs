//! The world itself: a heap of happenings, and hosts that take turns.

mod access;
mod agenda;
mod attacks;
mod control;
mod epilogue;
mod exchanges;
mod forgeries;
mod host;
mod hosts;
mod launch;
mod names;
mod nodes;
mod timeline;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use connlib_os::fake::FakeTrain;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use crate::apps::Apps;
use crate::log;
use crate::names::{Resolver, Servers, Tcp, Zones};
use crate::network::{Delivery, Network, Origin};
use crate::oracle::{Access, Evidence, Names, Relays, Watch, judge};
use crate::pcap::Recorder;
use crate::portal::Portal;
use crate::report::{Failure, Report};
use crate::scenario::{Drive, Scenario};
use crate::trace::Trace;
use agenda::{Agenda, Happening};
use host::{Host, Role};
use hosts::Hosts;

/// The most hosts of a world.
pub(crate) const MAX_HOSTS: usize = 256;

/// The wall clock at the start.
pub(crate) const UNIX: Duration = Duration::from_secs(1_800_000_000);

/// How long a stalled device takes nothing.
const STALL: Duration = Duration::from_millis(1);

/// Turns that one instant may take before it counts as a standstill.
const MAX_TURNS_AT_ONCE: u32 = 2_000;

/// How late a loop is called at most where it is called late.
const LATEST: Duration = Duration::from_millis(100);

/// Hosts, what lies between them, a portal, and who watches.
pub struct World {
    scenario: Scenario,
    start: Instant,
    now: Instant,
    /// How far the wall clock was put forward.
    steps: i64,
    agenda: Agenda,
    network: Network,
    hosts: Hosts,
    portal: Portal,
    apps: Apps,
    /// What is true of names.
    zones: Zones,
    servers: Servers,
    /// What programs ask.
    resolver: Resolver,
    /// Connections to name servers behind each gateway.
    site_streams: BTreeMap<usize, Tcp>,
    access: Access,
    names: Names,
    watch: Watch,
    relays: Relays,
    trace: Trace,
    rng: StdRng,
    deliveries: Vec<Delivery>,
    /// What attackers have read.
    overheard: attacks::Overheard,
    recorder: Option<Recorder>,
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
        let network = Network::new(&scenario, seed(&mut rng));
        let portal = Portal::new(start, UNIX.as_secs(), &scenario, seed(&mut rng));
        let hosts = scenario
            .hosts
            .iter()
            .map(|plan| Host::new(plan, start, &mut rng))
            .collect();
        let is_attacked = scenario
            .events
            .iter()
            .any(|(_, event)| matches!(event, crate::scenario::Event::Attack { .. }));

        let mut world = Self {
            apps: Apps::new(scenario.flows().cloned()),
            zones: Zones::new(&scenario, start),
            servers: Servers::new(&scenario, start),
            resolver: Resolver::new(),
            site_streams: BTreeMap::new(),
            access: Access::new(&scenario, start, portal.resources()),
            names: Names::default(),
            watch: Watch::new(&scenario, start),
            relays: Relays::new(&scenario),
            overheard: attacks::Overheard::new(is_attacked),
            network,
            hosts: Hosts::new(hosts),
            portal,
            trace: Trace::new(),
            rng,
            deliveries: Vec::new(),
            recorder: None,
            has_ended: false,
            agenda: Agenda::default(),
            steps: 0,
            start,
            now: start,
            scenario,
        };
        world.set_the_stage();

        world
    }

    /// Keeps every datagram, for a look at what each host sent and got.
    pub(crate) fn recorded(mut self) -> Self {
        let hosts = self.scenario.hosts.iter().map(|host| host.name.clone());
        self.recorder = Some(Recorder::new(hosts));

        self
    }

    /// Lets everything happen.
    ///
    /// # Errors
    ///
    /// The first oracle that was violated.
    pub fn run(self) -> Result<Report, Failure> {
        self.run_recorded().0
    }

    /// The same, and what was recorded.
    pub(crate) fn run_recorded(mut self) -> (Result<Report, Failure>, Option<Recorder>) {
        log::during(|| {
            while self.watch.violation().is_none() && !self.has_ended {
                self.step();
            }
        });
        let recorder = self.recorder.take();
        let verdict = match self.watch.violation() {
            Some(violation) => Err(violation),
            None => judge(Evidence {
                scenario: &self.scenario,
                start: self.start,
                apps: &self.apps,
                access: &self.access,
                watch: &self.watch,
                relays: &self.relays,
                resolver: &self.resolver,
                names: &self.names,
                zones: &self.zones,
                servers: &self.servers,
            }),
        };
        let lines = self.watch.take_lines().into_iter().map(|(at, host, line)| {
            let host = self
                .scenario
                .hosts
                .get(host)
                .map_or("portal", |host| &host.name);
            format!("{at:>12.3?} {host} {line}")
        });
        let lines = lines.collect();
        let result = match verdict {
            Ok((measured, judged, excused)) => Ok(Report {
                excused,
                lines,
                trace: self.trace.finish(),
                datagrams: self.watch.datagrams(),
                outcomes: self.apps.outcomes(&self.resolver),
                measured,
                judged,
            }),
            Err((at, what)) => Err(Failure {
                scenario: Box::new(self.scenario),
                at,
                what,
                lines,
            }),
        };

        (result, recorder)
    }

    /// Goes to the next instant at which anything happens, and lets all of it happen.
    fn step(&mut self) {
        let (now, drive) = (self.now, self.scenario.drive);
        let due = [
            self.agenda.next_at(),
            self.hosts.due_at(now, drive, &mut self.rng),
            self.portal.due_at(),
        ];
        let Some(next) = due.into_iter().flatten().min() else {
            self.violate("nothing is ever going to happen");
            return;
        };
        self.now = self.now.max(next);
        if drive == Drive::EveryMilli {
            self.now = self.now.min(now + Duration::from_millis(1));
        }

        while let Some(happening) = self.agenda.take_due(self.now) {
            self.let_happen(happening);
        }
        if self.portal.due_at().is_some_and(|at| at <= self.now) {
            let unix = self.unix().as_secs();
            self.portal.handle_timeout(self.now, unix);
            self.drain_portal();
        }
        self.take_turns();
    }

    fn take_turns(&mut self) {
        let forced = self.scenario.drive == Drive::EveryMilli;
        for turn in 0.. {
            let mut was_any = false;
            for host in 0..self.hosts.len() {
                let (now, is_first) = (self.now, turn == 0);
                let is_forced = forced
                    && is_first
                    && (self.hosts.get(host)).is_some_and(|entry| entry.is_awake(now));
                let wants = is_forced || self.hosts.wants_turn(host, now);
                if wants {
                    was_any = true;
                    let is_calm = self
                        .hosts
                        .get_mut(host)
                        .is_none_or(|entry| entry.counts_turn(now));
                    if !is_calm && !forced {
                        let name = self.scenario.host(host).to_owned();
                        self.violate(format!("{name} is called again and again for timers"));
                    }
                    self.take_turn(host);
                }
            }
            if !was_any {
                return;
            }
            if turn >= MAX_TURNS_AT_ONCE {
                self.violate("turns without end at one instant");
                return;
            }
        }
    }

    fn let_happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(host, train, origin) => self.arrive(host, train, origin),
            Happening::PortalOpens(channel, hello) => self.portal_opens(channel, &hello),
            Happening::PortalHears(channel, text) => self.portal_hears(channel, &text),
            Happening::PortalHearsPong(channel) => self.portal_hears_pong(channel),
            Happening::PortalLoses(channel) => self.portal_loses(channel),
            Happening::PortalBegins => {
                self.portal.begin(self.now, self.unix().as_secs());
                self.watch.portal_is_back(self.now);
            }
            Happening::HostHears(channel, says) => self.host_hears(channel, says),
            Happening::HostRefused(channel) => self.host_refused(channel),
            Happening::HostConnects(channel) => self.host_connects(channel),
            Happening::Heartbeat(channel) => self.heartbeat(channel),
            Happening::App(flow) => self.step_app(flow),
            Happening::Echo(host, packet) => {
                if let Some(Role::Gateway(node)) =
                    self.hosts.get_mut(host).map(|host| &mut host.role)
                {
                    node.send_packet(packet);
                }
            }
            Happening::Unanswered(flow, ask) => self.unanswered(flow, ask),
            Happening::Streams(host) => self.streams(host),
            Happening::Exchanged(exchanged) => self.exchanged(exchanged),
            Happening::SiteStreams(gateway) => self.work_at_site(gateway),
            Happening::SiteSays(gateway, number, message) => {
                self.site_says(gateway, number, &message);
            }
            Happening::Unstall(host) => self.with_host(host, Host::unstall),
            Happening::TunComes(host) => self.with_host(host, Host::tun_comes),
            Happening::TunVanishes(host) => self.with_host(host, Host::tun_vanishes),
            Happening::Wakes(host) => self.wake(host),
            Happening::IsGone(host, life) => self.is_gone(host, life),
            Happening::Event(event) => self.event(event),
            Happening::Look(expectation) => self.look(expectation),
            Happening::Epilogue(act) => self.epilogue(act),
        }
    }

    fn arrive(&mut self, host: usize, train: FakeTrain, origin: Origin) {
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        if !entry.is_awake(self.now) || !self.network.is_attached(host) {
            return;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.received(self.now - self.start, host, &train);
        }
        match &mut entry.role {
            Role::Client(node) => node.receive(train),
            Role::Gateway(node) => node.receive(train),
            Role::Relay(node) => {
                self.relays.hears(self.now, host, &train, origin);
                node.receive(train);
            }
            Role::Down => {}
        }
    }

    fn with_host(&mut self, host: usize, act: fn(&mut Host)) {
        if let Some(host) = self.hosts.get_mut(host) {
            act(host);
        }
    }

    /// The wall clock.
    fn unix(&self) -> Duration {
        let unix = UNIX + self.elapsed();
        let step = Duration::from_secs(self.steps.unsigned_abs());

        match self.steps < 0 {
            true => unix.saturating_sub(step),
            false => unix + step,
        }
    }

    /// An oracle objects; the first objection counts.
    fn violate(&mut self, what: impl Into<String>) {
        let at = self.elapsed();
        self.watch.violate(at, what);
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn post(&mut self, after: Duration, happening: Happening) {
        self.post_at(self.now + after, happening);
    }

    fn post_at(&mut self, at: Instant, happening: Happening) {
        self.agenda.post(at.max(self.now), happening);
    }

    fn random_span(&mut self, most: Duration) -> Duration {
        match most.is_zero() {
            true => Duration::ZERO,
            false => most.mul_f64(self.rng.random::<f64>()),
        }
    }
}

fn seed(rng: &mut StdRng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);

    seed
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("scenario", &self.scenario)
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}
