//! A contestant that is up: its network, its processes, and the way between client and server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::netlink::{Netlink, RouteSpec};

use super::Bench;
use super::contestant::{Contestant, Entrant};
use super::fixed_peers::FixedPeers;
use super::heartbeat::Admission;
use super::sparse::Echo;
use crate::exit::{Exit, Failure};
use crate::rig::children::Children;
use crate::rig::contact::ping;
use crate::rig::network::{DirectPath, Network, UPLINK};
use crate::rig::ping::Pinger;
use crate::rig::plan::{Place, RESOURCE};
use crate::rig::scratch::Scratch;
use crate::rig::system::{PathKind, System};
use crate::status::{self, Load};

/// A process that carries packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Process {
    /// `client`, `gateway` or `relay`.
    pub(super) role: &'static str,
    pub(super) pid: u32,
}

/// Who takes part on the clients' side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clients<'a> {
    /// Those that are up when the measurement begins; the first one is [`Place::Client`].
    pub(super) running: &'a [Place],
    /// Those that only have a place.
    pub(super) waiting: &'a [Place],
}

impl<'a> Clients<'a> {
    /// Nobody waits.
    pub(super) const fn running(running: &'a [Place]) -> Self {
        Self {
            running,
            waiting: &[],
        }
    }
}

/// All that a measurement needs.
#[derive(Debug)]
pub(super) struct Standing<'a> {
    pub(super) bench: &'a Bench,
    pub(super) contestant: Contestant,
    pub(super) network: Arc<Network>,
    pub(super) children: &'a Children,
    pub(super) processes: Vec<Process>,
    /// Clients whose programs don't run yet.
    pub(super) waiting: Vec<Place>,
    /// What starts more of ours, and whom they trust.
    ours: Option<(System<'a>, PathBuf)>,
    /// Answers sparse flows.
    _echo: Echo,
}

/// The largest packet inside of every tunnel, in bytes.
pub(super) const INNER_MTU: u32 = 1280;

/// How long the first reply through a tunnel may take.
const FIRST_REPLY_WITHIN: Duration = Duration::from_secs(10);

impl Bench {
    /// Brings a contestant up on a network of its own, lets `act` measure it, and takes everything down.
    ///
    /// # Errors
    ///
    /// It doesn't come up, or one of its processes ends; else what `act` fails with.
    pub(super) async fn with<T>(
        &self,
        entrant: &Entrant,
        path: PathKind,
        clients: Clients<'_>,
        act: impl AsyncFnOnce(&Standing<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let scratch = Scratch::create(&self.program)?;
        let (children, mut deaths) = Children::new(
            &self.program,
            scratch.path(),
            self.alarms.clone(),
            self.narration.without_steps(),
        );
        let acting = async {
            let standing = self
                .bring_up(entrant, path, clients, &children, &scratch)
                .await?;
            act(&standing).await
        };
        let result = tokio::select! {
            result = acting => result,
            Some(death) = deaths.recv() => Err(death.into_failure()),
        };

        children.stop().await;
        scratch.remove().await;
        result
    }

    async fn bring_up<'a>(
        &'a self,
        entrant: &Entrant,
        path: PathKind,
        clients: Clients<'_>,
        children: &'a Children,
        scratch: &'a Scratch,
    ) -> Result<Standing<'a>, Failure> {
        let direct = match path {
            PathKind::Direct => DirectPath::Allowed,
            PathKind::Relayed => DirectPath::Forbidden,
        };
        let network = Arc::new(Network::create(&places(clients), direct).await?);
        let echo = Echo::start(network.namespace(Place::Resource)?)?;
        let processes = match (entrant.contestant, &entrant.program) {
            (contestant, _) if contestant.has_our_ends() => Vec::new(),
            (contestant, Some(program)) => {
                let fixed = FixedPeers {
                    contestant,
                    program,
                    network: &network,
                    children,
                    scratch,
                };
                fixed.start(clients.running).await?
            }
            (_, None) => {
                lead_around(&network, clients.running).await?;
                Vec::new()
            }
        };
        let mut standing = Standing {
            bench: self,
            contestant: entrant.contestant,
            network: Arc::clone(&network),
            children,
            processes,
            waiting: clients.waiting.to_vec(),
            ours: None,
            _echo: echo,
        };
        if entrant.contestant.has_our_ends() {
            let relay = entrant.program.clone();
            standing.start_ours(direct, clients, scratch, relay).await?;
        }
        for &client in clients.running {
            standing.wait_for_reply(client).await?;
        }
        standing.check_path(path)?;

        Ok(standing)
    }
}

impl<'a> Standing<'a> {
    /// Starts this very program in all its roles; with another program that is the relay.
    async fn start_ours(
        &mut self,
        direct: DirectPath,
        clients: Clients<'_>,
        scratch: &'a Scratch,
        turn_server: Option<PathBuf>,
    ) -> Result<(), Failure> {
        let system = System {
            roles: &self.bench.roles,
            children: self.children,
            scratch,
            network: Arc::clone(&self.network),
            narration: self.bench.narration.without_steps(),
            turn_server,
        };
        let ca = system.start_portal().await?;
        let peers = system.start_peers(&ca).await?;
        let contact = system.first_contact(direct).await?;
        if direct == DirectPath::Allowed && contact.direct_after.is_none() {
            return Err(Failure::new(
                Exit::Failed,
                "client and gateway have not found the direct path; see the logs with --verbose",
            ));
        }

        let process = |role, pid| Process { role, pid };
        self.processes = vec![
            process("client", peers.client),
            process("gateway", peers.gateway),
            process("relay", peers.relay),
        ];
        for &client in clients.running.iter().skip(1) {
            let pid = system.start_client(client, &ca).await?;
            self.processes.push(process("client", pid));
        }
        self.ours = Some((system, ca));

        Ok(())
    }

    /// Starts a client that has been waiting.
    ///
    /// # Errors
    ///
    /// It isn't ready in time, or this isn't ours.
    pub(super) async fn start_waiting(&self, place: Place) -> Result<(), Failure> {
        let Some((system, ca)) = &self.ours else {
            return Err(Failure::new(
                Exit::Failed,
                format_args!("{} starts no clients later", self.contestant),
            ));
        };

        system.start_client(place, ca).await.map(drop)
    }

    /// How the role at `place` has kept up; `None` if this isn't ours, which alone tells.
    ///
    /// # Errors
    ///
    /// Exit 1: it doesn't answer.
    pub(super) fn load(&self, place: Place) -> Result<Option<Load>, Failure> {
        let socket = self.ours.as_ref().map(|(system, _)| system.socket(place));

        socket.map(|socket| status::load(&socket)).transpose()
    }

    /// What the portal demands of a client at `place`, and whom it may trust; `None` if there is no portal.
    ///
    /// # Errors
    ///
    /// Exit 5: the client was never started.
    pub(super) fn admission(&self, place: Place) -> Result<Option<Admission>, Failure> {
        let Some((system, ca)) = &self.ours else {
            return Ok(None);
        };

        Ok(Some(Admission {
            token: system.token(place)?,
            ca: ca.clone(),
        }))
    }

    /// Looks whether ours travels as it should: a figure of another path would be a lie.
    ///
    /// # Errors
    ///
    /// Exit 1: it doesn't.
    pub(super) fn check_path(&self, expected: PathKind) -> Result<(), Failure> {
        let Some((system, _)) = &self.ours else {
            return Ok(());
        };

        match system.path()? {
            Some(path) if path == expected => Ok(()),
            _ => Err(Failure::new(
                Exit::Failed,
                format_args!(
                    "the path was to be {expected} and is not; see the logs with --verbose"
                ),
            )),
        }
    }

    /// Waits until the server answers the client at `place`.
    ///
    /// # Errors
    ///
    /// Exit 1: it doesn't in time.
    pub(super) async fn wait_for_reply(&self, place: Place) -> Result<(), Failure> {
        let mut pinger = Pinger::open(self.network.namespace(place)?, RESOURCE)?;
        let clock = Clock::new();
        let end_at = clock.now() + FIRST_REPLY_WITHIN;
        while clock.now() < end_at {
            let reply;
            (pinger, reply) = ping(pinger).await?;
            if reply.is_some() {
                return Ok(());
            }
        }

        Err(Failure::new(
            Exit::Failed,
            format_args!(
                "{RESOURCE} does not answer the {place} through {}; see the logs with --verbose",
                self.contestant
            ),
        ))
    }
}

/// The places of a rig with these clients.
fn places(clients: Clients<'_>) -> Vec<Place> {
    let others = Place::DEMO.iter().filter(|place| **place != Place::Client);
    let all = clients.running.iter().chain(clients.waiting).chain(others);

    all.copied().collect()
}

/// Leads packets past all tunnels: the router knows the way to the resource, whose packets are no larger than others'.
async fn lead_around(network: &Network, clients: &[Place]) -> Result<(), Failure> {
    let gateway = Place::Gateway.subnet().host_v4();
    let [resource, _] = Place::Resource.subnet().host();
    Netlink::new_in(network.namespace(Place::Router)?)?
        .add_route(&RouteSpec::by_router(resource.trunc(), gateway.into()))
        .await?;
    for &place in clients.iter().chain(&[Place::Resource]) {
        Netlink::new_in(network.namespace(place)?)?
            .set_mtu(UPLINK, INNER_MTU)
            .await?;
    }

    Ok(())
}
