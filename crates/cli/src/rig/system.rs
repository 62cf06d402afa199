//! What runs on a rig: portal, relay, gateway and client, each a process of this very program.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::certificates::{Certificates, write_private};
use super::children::Children;
use super::narration::Narration;
use super::network::{Families, Network};
use super::plan::{PORTAL, Place, RESOURCE};
use super::scratch::Scratch;
use super::topology::Roles;
use crate::exit::Failure;
use crate::status;

/// All that the programs of a rig need.
#[derive(Debug)]
pub(crate) struct System<'a> {
    pub(crate) roles: &'a Roles,
    pub(crate) children: &'a Children,
    pub(crate) scratch: &'a Scratch,
    pub(crate) network: Arc<Network>,
    pub(crate) narration: Narration,
    /// coturn's `turnserver`, which relays instead of ours.
    pub(crate) turn_server: Option<PathBuf>,
}

/// What the other TURN server and our portal share.
const TURN_SECRET: &str = "a rig's own";

/// The process ids of those that carry packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Peers {
    pub(crate) relay: u32,
    pub(crate) gateway: u32,
    pub(crate) client: u32,
}

/// How packets travel.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PathKind {
    Direct,
    Relayed,
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        })
    }
}

impl System<'_> {
    /// Starts the portal and tells it who may reach what; returns the authority that peers shall trust.
    ///
    /// # Errors
    ///
    /// It isn't ready in time, or refuses the topology.
    pub(crate) async fn start_portal(&self) -> Result<PathBuf, Failure> {
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

    /// Starts relay, gateway and client.
    ///
    /// # Errors
    ///
    /// One of them isn't ready in time.
    pub(crate) async fn start_peers(&self, ca: &Path) -> Result<Peers, Failure> {
        let place = Place::Relay.subnet();
        let mut arguments = vec![flag("public-ip4", place.host_v4())];
        if self.network.families() == Families::Both {
            arguments.push(flag("public-ip6", place.host_v6()));
        }
        let other = match &self.turn_server {
            Some(program) => {
                arguments.push("--announce".into());
                arguments.push(flag("secret", TURN_SECRET));
                Some(self.start_turn_server(program).await?)
            }
            None => None,
        };
        let ours = self
            .start_peer(Place::Relay, ca, &["--relay".into()], arguments)
            .await?;
        let relay = other.unwrap_or(ours);

        let site = flag("gateway", &self.roles.site);
        // Names are looked up at the resource.
        let resolv_conf = self.resolv_conf(Place::Gateway);
        write(&resolv_conf, &format!("nameserver {RESOURCE}\n"))?;
        let id = vec![
            flag("id", "demo-gateway"),
            // The resource knows the way back.
            flag("masquerade", "off"),
            flag("resolv-conf", resolv_conf.display()),
        ];
        let gateway = self.start_peer(Place::Gateway, ca, &[site], id).await?;

        Ok(Peers {
            relay,
            gateway,
            client: self.start_client(Place::Client, ca).await?,
        })
    }

    async fn start_turn_server(&self, program: &Path) -> Result<u32, Failure> {
        let place = Place::Relay.subnet();
        let quiet = ["-n", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp"];
        let mut arguments: Vec<String> = quiet.map(str::to_owned).into();
        arguments.extend(["--use-auth-secret".to_owned(), flag("realm", "firezone")]);
        arguments.push(flag("static-auth-secret", TURN_SECRET));
        arguments.push(flag("userdb", self.scratch.file("turn.users").display()));
        arguments.push(flag("pidfile", self.scratch.file("turn.pid").display()));
        arguments.push(flag("log-file", "/dev/null"));
        for address in place.host() {
            arguments.push(flag("listening-ip", address.addr()));
            arguments.push(flag("relay-ip", address.addr()));
        }
        let namespace = self.network.namespace(Place::Relay)?;

        self.children
            .launch("turn server", namespace, program, &arguments, None)
            .await
    }

    /// Starts a client at `place`, and returns its process id.
    ///
    /// # Errors
    ///
    /// It isn't ready in time.
    pub(crate) async fn start_client(&self, place: Place, ca: &Path) -> Result<u32, Failure> {
        let actor = flag("client", &self.roles.actor);
        // The machine's own settings are none of the rig's business: this file stands for them.
        let resolv_conf = self.resolv_conf(place);
        let router = place.subnet().router_v4();
        write(&resolv_conf, &format!("nameserver {router}\n"))?;
        let id = vec![
            flag("id", format_args!("demo-{place}")),
            flag("dns", "resolv-conf"),
            flag("resolv-conf", resolv_conf.display()),
        ];

        self.start_peer(place, ca, &[actor], id).await
    }

    /// Makes a token and starts the role that joins with it.
    async fn start_peer(
        &self,
        place: Place,
        ca: &Path,
        owner: &[String],
        more: Vec<String>,
    ) -> Result<u32, Failure> {
        let create = ["portal", "token", "create"].map(str::to_owned);
        let token = self
            .children
            .run(&[&create[..], owner, &[self.admin_socket()]].concat())
            .await?;
        let token_file = self.token_file(place);
        write(&token_file, &token)?;

        let mut arguments = vec![
            place.role().to_owned(),
            flag("api-url", format_args!("wss://{PORTAL}/")),
            flag("token-file", token_file.display()),
            flag("ca", ca.display()),
            flag("name", format_args!("demo {place}")),
            flag("socket", self.socket(place).display()),
        ];
        arguments.extend(more);
        let namespace = self.network.namespace(place)?;
        let pid = self
            .children
            .start(place.name(), namespace, &arguments)
            .await?;
        self.narration.step(format_args!(
            "The {place} at {} has joined",
            place.subnet().host_v4()
        ));

        Ok(pid)
    }

    /// The path in use between client and gateway; `None` while there is none.
    ///
    /// # Errors
    ///
    /// The client doesn't answer.
    pub(crate) fn path(&self) -> Result<Option<PathKind>, Failure> {
        let path = status::first_path(&self.socket(Place::Client))?;

        Ok(path.map(|path| match path.as_str() {
            "direct" => PathKind::Direct,
            _ => PathKind::Relayed,
        }))
    }

    /// Where the role at `place` answers `connlib status`.
    pub(crate) fn socket(&self, place: Place) -> PathBuf {
        self.scratch.file(&format!("{place}.sock"))
    }

    /// The file that stands for `/etc/resolv.conf` at `place`.
    pub(crate) fn resolv_conf(&self, place: Place) -> PathBuf {
        self.scratch.file(&format!("{place}.resolv.conf"))
    }

    /// The token that the role at `place` has joined with.
    ///
    /// # Errors
    ///
    /// Exit 5: nothing was started there, or its file can't be read.
    pub(crate) fn token(&self, place: Place) -> Result<String, Failure> {
        let path = self.token_file(place);
        let token = fs::read_to_string(&path)
            .map_err(|error| Failure::os(format_args!("read {}", path.display()), &error))?;

        Ok(token.trim().to_owned())
    }

    fn token_file(&self, place: Place) -> PathBuf {
        self.scratch.file(&format!("{place}.token"))
    }

    fn admin_socket(&self) -> String {
        flag("admin-socket", self.scratch.file("portal.sock").display())
    }
}

fn flag(name: &str, value: impl fmt::Display) -> String {
    format!("--{name}={value}")
}

fn write(path: &Path, contents: &str) -> Result<(), Failure> {
    write_private(path, contents)
        .map_err(|error| Failure::os(format_args!("write {}", path.display()), &error))
}
