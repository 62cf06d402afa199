//! What happens, in order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use connlib_os::clock::Clock;
use tokio::task::{JoinError, spawn_blocking};

use super::body;
use super::certificates::{Certificates, write_private};
use super::children::Children;
use super::http;
use super::narration::Narration;
use super::network::{DirectPath, Families, Network};
use super::ping::{Pinger, Reply};
use super::plan::{PORTAL, Place, RESOURCE, RESOURCE_HTTP};
use super::report::{Fetch, LogCounts, PathKind, Report, Rtt, Via};
use super::scratch::Scratch;
use super::topology::Roles;
use crate::args::DemoArgs;
use crate::exit::{Exit, Failure};
use crate::logging::Alarms;
use crate::status;

/// All that a performance needs.
pub(super) struct Play<'a> {
    pub(super) args: &'a DemoArgs,
    pub(super) roles: &'a Roles,
    pub(super) children: &'a Children,
    pub(super) scratch: &'a Scratch,
    pub(super) network: Arc<Network>,
    pub(super) direct: DirectPath,
    pub(super) alarms: Alarms,
    pub(super) narration: Narration,
}

/// What the first packets have shown.
struct FirstContact {
    first_reply: Duration,
    direct_after: Option<Duration>,
}

/// How long the first reply may take.
const FIRST_REPLY_WITHIN: Duration = Duration::from_secs(10);

/// How long the direct path may take.
const DIRECT_WITHIN: Duration = Duration::from_secs(10);

/// A single echo is not waited for longer.
const ECHO_WITHIN: Duration = Duration::from_secs(1);

/// Between two looks at the path while it comes up.
const LOOK_EVERY: Duration = Duration::from_millis(5);

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
        http::serve(self.network.namespace(Place::Resource)?, RESOURCE_HTTP)?;
        self.narration
            .step("Six private networks: client, router, gateway, relay, portal, resource");
        if self.direct == DirectPath::Forbidden {
            self.narration
                .step("The router refuses packets between client and gateway");
        }

        let ca = self.start_portal().await?;
        self.start_peers(&ca).await?;
        let ready = self.narration.elapsed();

        let first = self.first_contact().await?;
        let fetches = self.fetch_all().await?;
        let rtt = self.measure_rtt().await?;
        let path = self.path()?;

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
            let namespace = self.network.namespace(place)?;
            Ok((place, self.children.hold(place.name(), namespace)?))
        };

        Place::ALL.into_iter().map(hold).collect()
    }

    /// Starts the portal and tells it who may reach what; returns the authority that peers shall trust.
    async fn start_portal(&self) -> Result<PathBuf, Failure> {
        let certificates = Certificates::create(self.scratch.path(), PORTAL)?;
        let arguments = [
            "portal".into(),
            "serve".into(),
            flag("listen", PORTAL),
            flag("tls-cert", certificates.cert.display()),
            flag("tls-key", certificates.key.display()),
            flag("db", self.scratch.file("portal.sqlite").display()),
            self.admin_socket(),
        ];
        let namespace = self.network.namespace(Place::Portal)?;
        self.children.start("portal", namespace, &arguments).await?;
        self.narration.step(format_args!(
            "The portal listens at {PORTAL}; its certificate is by an authority made for this run"
        ));

        let file = self.scratch.file("topology.toml");
        write(&file, &self.roles.text)?;
        let apply = ["portal".into(), "apply".into(), file.display().to_string()];
        self.children
            .run(&[&apply[..], &[self.admin_socket()]].concat())
            .await?;
        self.narration.step(format_args!(
            "The portal has {}: {} may reach the network behind the gateway",
            self.roles.file_name, self.roles.actor
        ));

        Ok(certificates.ca)
    }

    async fn start_peers(&self, ca: &Path) -> Result<(), Failure> {
        let place = Place::Relay.subnet();
        let mut arguments = vec![flag("public-ip4", place.host_v4())];
        if self.network.families() == Families::Both {
            arguments.push(flag("public-ip6", place.host_v6()));
        }
        self.start_peer(Place::Relay, ca, &["--relay".into()], arguments)
            .await?;

        let site = flag("gateway", &self.roles.site);
        let id = vec![flag("id", "demo-gateway")];
        self.start_peer(Place::Gateway, ca, &[site], id).await?;

        let actor = flag("client", &self.roles.actor);
        let id = vec![flag("id", "demo-client")];
        self.start_peer(Place::Client, ca, &[actor], id).await
    }

    /// Makes a token and starts the role that joins with it.
    async fn start_peer(
        &self,
        place: Place,
        ca: &Path,
        owner: &[String],
        more: Vec<String>,
    ) -> Result<(), Failure> {
        let create = ["portal", "token", "create"].map(str::to_owned);
        let token = self
            .children
            .run(&[&create[..], owner, &[self.admin_socket()]].concat())
            .await?;
        let token_file = self.scratch.file(&format!("{place}.token"));
        write(&token_file, &token)?;

        let mut arguments = vec![
            place.name().to_owned(),
            flag("api-url", format_args!("wss://{PORTAL}/")),
            flag("token-file", token_file.display()),
            flag("ca", ca.display()),
            flag("name", format_args!("demo {place}")),
            flag("socket", self.socket(place).display()),
        ];
        arguments.extend(more);
        let namespace = self.network.namespace(place)?;
        self.children
            .start(place.name(), namespace, &arguments)
            .await?;
        self.narration.step(format_args!(
            "The {place} at {} has joined",
            place.subnet().host_v4()
        ));

        Ok(())
    }

    /// Sends the first packet, waits for its reply, and for the direct path if there can be one.
    async fn first_contact(&self) -> Result<FirstContact, Failure> {
        self.narration.step(format_args!(
            "The client pings {RESOURCE}: no connection yet"
        ));
        let mut pinger = Pinger::open(self.network.namespace(Place::Client)?, RESOURCE)?;
        let clock = Clock::new();
        let started_at = clock.now();

        let mut reply = None;
        while reply.is_none() && clock.now() - started_at < FIRST_REPLY_WITHIN {
            (pinger, reply) = ping(pinger).await?;
        }
        let Some(reply) = reply else {
            return Err(Failure::new(
                Exit::Failed,
                format_args!(
                    "{RESOURCE} does not reply through the tunnel; see the logs with --verbose"
                ),
            ));
        };
        let first_reply = reply.came_at - started_at;
        self.narration.step(format_args!(
            "The first reply, after {:.0} ms",
            first_reply.as_secs_f64() * 1e3
        ));
        if self.direct == DirectPath::Forbidden {
            return Ok(FirstContact {
                first_reply,
                direct_after: None,
            });
        }

        // A reply to what was sent when the path was direct has certainly come by it.
        while clock.now() - started_at < DIRECT_WITHIN {
            if self.path()? != Some(PathKind::Direct) {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            let reply;
            (pinger, reply) = ping(pinger).await?;
            if let Some(reply) = reply {
                let direct_after = reply.came_at - started_at;
                self.narration.step(format_args!(
                    "The direct path carries data, after {:.0} ms",
                    direct_after.as_secs_f64() * 1e3
                ));
                return Ok(FirstContact {
                    first_reply,
                    direct_after: Some(direct_after),
                });
            }
        }

        self.narration.step("The direct path has not come up");
        Ok(FirstContact {
            first_reply,
            direct_after: None,
        })
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
            let network = Arc::clone(&self.network);
            let fetched = spawn_blocking(move || {
                let namespace = network.namespace(Place::Client)?;
                http::fetch(namespace, RESOURCE_HTTP, &format!("/{size}"))
            });
            let fetched = fetched.await.map_err(broken)??;
            let fetch = Fetch {
                url: format!("http://{RESOURCE}/{size}"),
                via: Via::Cidr,
                bytes: fetched.bytes,
                sha256_ok: fetched.hash == expected,
                bps: fetched.bps(),
            };
            self.narration.step(format_args!(
                "Fetched {}: {:.0} Mbit/s",
                fetch.url,
                fetch.bps / 1e6
            ));
            fetches.push(fetch);
            if clock.now() >= end_at {
                return Ok(fetches);
            }
        }
    }

    async fn measure_rtt(&self) -> Result<Rtt, Failure> {
        let mut pinger = Pinger::open(self.network.namespace(Place::Client)?, RESOURCE)?;
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

    /// The path in use between client and gateway; `None` while there is none.
    fn path(&self) -> Result<Option<PathKind>, Failure> {
        let path = status::first_path(&self.socket(Place::Client))?;

        Ok(path.map(|path| match path.as_str() {
            "direct" => PathKind::Direct,
            _ => PathKind::Relayed,
        }))
    }

    fn socket(&self, place: Place) -> PathBuf {
        self.scratch.file(&format!("{place}.sock"))
    }

    fn admin_socket(&self) -> String {
        flag("admin-socket", self.scratch.file("portal.sock").display())
    }
}

/// Pings once on a thread that may block.
async fn ping(mut pinger: Pinger) -> Result<(Pinger, Option<Reply>), Failure> {
    let pinged = spawn_blocking(move || {
        let reply = pinger.ping(ECHO_WITHIN);
        (pinger, reply)
    });
    let (pinger, reply) = pinged.await.map_err(broken)?;

    match reply {
        Ok(reply) => Ok((pinger, reply)),
        Err(error) => Err(Failure::os(format_args!("ping {RESOURCE}"), &error)),
    }
}

fn flag(name: &str, value: impl fmt::Display) -> String {
    format!("--{name}={value}")
}

fn write(path: &Path, contents: &str) -> Result<(), Failure> {
    write_private(path, contents)
        .map_err(|error| Failure::os(format_args!("write {}", path.display()), &error))
}

/// A thread of the demo has panicked.
fn broken(error: JoinError) -> Failure {
    Failure::new(
        Exit::Failed,
        format_args!("the demo itself is broken: {error}"),
    )
}
