//! A contestant that is up: its network, its processes, and the way between client and server.

use std::sync::Arc;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::netlink::{Netlink, RouteSpec};

use super::Bench;
use super::contestant::{Contestant, Entrant};
use super::fixed_peers::FixedPeers;
use super::sparse::Echo;
use crate::exit::{Exit, Failure};
use crate::rig::children::Children;
use crate::rig::contact::ping;
use crate::rig::network::{DirectPath, Network, UPLINK};
use crate::rig::ping::Pinger;
use crate::rig::plan::{Place, RESOURCE};
use crate::rig::scratch::Scratch;
use crate::rig::system::{PathKind, System};

/// A process that carries packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Process {
    /// `client`, `gateway` or `relay`.
    pub(super) role: &'static str,
    pub(super) pid: u32,
}

/// All that a measurement needs.
#[derive(Debug)]
pub(super) struct Standing<'a> {
    pub(super) bench: &'a Bench,
    pub(super) contestant: Contestant,
    pub(super) network: Arc<Network>,
    pub(super) children: &'a Children,
    pub(super) processes: Vec<Process>,
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
        clients: &[Place],
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
        clients: &[Place],
        children: &'a Children,
        scratch: &Scratch,
    ) -> Result<Standing<'a>, Failure> {
        let direct = match path {
            PathKind::Direct => DirectPath::Allowed,
            PathKind::Relayed => DirectPath::Forbidden,
        };
        let network = Arc::new(Network::create(&places(clients), direct).await?);
        let echo = Echo::start(network.namespace(Place::Resource)?)?;
        let processes = match (entrant.contestant, &entrant.program) {
            (Contestant::Ours, _) => {
                self.start_ours(&network, direct, clients, children, scratch)
                    .await?
            }
            (contestant, Some(program)) => {
                let fixed = FixedPeers {
                    contestant,
                    program,
                    network: &network,
                    children,
                    scratch,
                };
                fixed.start(clients).await?
            }
            (_, None) => {
                lead_around(&network, clients).await?;
                Vec::new()
            }
        };
        let standing = Standing {
            bench: self,
            contestant: entrant.contestant,
            network,
            children,
            processes,
            _echo: echo,
        };
        for &client in clients {
            standing.wait_for_reply(client).await?;
        }

        Ok(standing)
    }

    /// Starts this very program in all its roles.
    async fn start_ours(
        &self,
        network: &Arc<Network>,
        direct: DirectPath,
        clients: &[Place],
        children: &Children,
        scratch: &Scratch,
    ) -> Result<Vec<Process>, Failure> {
        let system = System {
            roles: &self.roles,
            children,
            scratch,
            network: Arc::clone(network),
            narration: self.narration.without_steps(),
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
        let mut processes = vec![
            process("client", peers.client),
            process("gateway", peers.gateway),
            process("relay", peers.relay),
        ];
        for &client in clients.iter().filter(|client| **client != Place::Client) {
            processes.push(process("client", system.start_client(client, &ca).await?));
        }

        Ok(processes)
    }
}

impl Standing<'_> {
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
fn places(clients: &[Place]) -> Vec<Place> {
    let others = Place::DEMO.iter().filter(|place| **place != Place::Client);

    clients.iter().chain(others).copied().collect()
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
