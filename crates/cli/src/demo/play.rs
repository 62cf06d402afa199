//! What happens, in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use connlib_os::clock::Clock;
use tokio::task::spawn_blocking;

use super::body::{self, Hash};
use super::http;
use super::names;
use super::report::{Fetch, LogCounts, Report, Rtt, Via};
use crate::args::DemoArgs;
use crate::exit::{Exit, Failure};
use crate::logging::Alarms;
use crate::rig::broken;
use crate::rig::contact::ping;
use crate::rig::network::DirectPath;
use crate::rig::ping::Pinger;
use crate::rig::plan::{Place, RESOURCE, RESOURCE_DNS, RESOURCE_HTTP};
use crate::rig::system::{PathKind, System};

/// All that a performance needs.
pub(super) struct Play<'a> {
    pub(super) args: &'a DemoArgs,
    pub(super) system: System<'a>,
    pub(super) direct: DirectPath,
    pub(super) alarms: Alarms,
}

/// How many echoes the round-trip times are of.
const ECHOES: usize = 200;

impl Play<'_> {
    /// Plays it.
    ///
    /// # Errors
    ///
    /// What could not be brought up, or did not answer.
    pub(super) async fn perform(&self) -> Result<Report, Failure> {
        let namespaces = self.hold_namespaces()?;
        http::serve(
            self.system.network.namespace(Place::Resource)?,
            RESOURCE_HTTP,
        )?;
        names::serve(
            self.system.network.namespace(Place::Resource)?,
            RESOURCE_DNS,
        )?;
        self.system
            .narration
            .step("Six private networks: client, router, gateway, relay, portal, resource");
        if self.direct == DirectPath::Forbidden {
            self.system
                .narration
                .step("The router refuses packets between client and gateway");
        }

        let ca = self.system.start_portal().await?;
        self.system.start_peers(&ca).await?;
        let ready = self.system.narration.elapsed();

        let first = self.system.first_contact(self.direct).await?;
        let fetches = self.fetch_all().await?;
        let rtt = self.measure_rtt().await?;
        let path = self.system.path()?;

        let log = LogCounts {
            warn: self.alarms.warn(),
            error: self.alarms.error(),
        };
        let expected = match self.direct {
            DirectPath::Allowed => PathKind::Direct,
            DirectPath::Forbidden => PathKind::Relayed,
        };
        let is_whole = |fetch: &Fetch| fetch.sha256_ok && fetch.bytes == self.args.size * body::MIB;
        Ok(Report {
            ok: path == Some(expected) && fetches.iter().all(is_whole),
            path: path.unwrap_or(PathKind::Relayed),
            ready,
            first_reply: first.first_reply,
            direct_after: first.direct_after,
            rtt,
            fetches,
            namespaces,
            log,
        })
    }

    /// Puts a process into each namespace, by which it can be entered.
    fn hold_namespaces(&self) -> Result<BTreeMap<Place, u32>, Failure> {
        let hold = |place: Place| {
            let namespace = self.system.network.namespace(place)?;
            Ok((place, self.system.children.hold(place.name(), namespace)?))
        };

        Place::DEMO.into_iter().map(hold).collect()
    }

    /// Fetches once, and again until the time is over.
    async fn fetch_all(&self) -> Result<Vec<Fetch>, Failure> {
        let size = self.args.size;
        let expected = spawn_blocking(move || body::hash(size))
            .await
            .map_err(broken)?;
        let clock = Clock::new();
        let end_at = clock.now() + Duration::from_secs(self.args.seconds);

        let mut fetches = Vec::new();
        loop {
            if let Some(domain) = &self.system.roles.domain {
                fetches.push(self.fetch(Via::Dns, domain, expected).await?);
            }
            let address = RESOURCE.to_string();
            fetches.push(self.fetch(Via::Cidr, &address, expected).await?);
            if clock.now() >= end_at {
                return Ok(fetches);
            }
        }
    }

    /// Fetches from `host`, which is a name or an address.
    async fn fetch(&self, via: Via, host: &str, expected: Hash) -> Result<Fetch, Failure> {
        let network = Arc::clone(&self.system.network);
        let resolv_conf = self.system.resolv_conf(Place::Client);
        let (name, size) = (host.to_owned(), self.args.size);
        let fetched = spawn_blocking(move || {
            let namespace = network.namespace(Place::Client)?;
            let address = match via {
                Via::Dns => (
                    names::resolve(namespace, &resolv_conf, &name)?,
                    RESOURCE_HTTP.port(),
                )
                    .into(),
                Via::Cidr => RESOURCE_HTTP,
            };
            http::fetch(namespace, address, &format!("/{size}"))
        });
        let fetched = fetched.await.map_err(broken)??;
        let fetch = Fetch {
            url: format!("http://{host}/{size}"),
            via,
            bytes: fetched.bytes,
            sha256_ok: fetched.hash == expected,
            bps: fetched.bps(),
        };
        self.system.narration.step(format_args!(
            "Fetched {}: {:.0} Mbit/s",
            fetch.url,
            fetch.bps / 1e6
        ));

        Ok(fetch)
    }

    async fn measure_rtt(&self) -> Result<Rtt, Failure> {
        let mut pinger = Pinger::open(self.system.network.namespace(Place::Client)?, RESOURCE)?;
        let mut rtts = Vec::with_capacity(ECHOES);
        for _ in 0..ECHOES {
            let reply;
            (pinger, reply) = ping(pinger).await?;
            rtts.extend(reply.map(|reply| reply.rtt()));
        }

        Rtt::of(rtts).ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format_args!("{RESOURCE} has stopped to reply through the tunnel"),
            )
        })
    }
}
