//! A relay in this process.

mod elsewhere;
mod http;
mod metrics;
mod plane;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_relay::{Config, Credentials, Limits, LoopbackPeers, PrivatePeers, Server, Share};
use connlib_wire::buffer::Pool;
use connlib_wire::portal::relay::{Join, Passwords};
use connlib_wire::secret::Secret;
use serde_json::value::to_raw_value;
use tokio::sync::mpsc;

use crate::builder::portal_url;
use crate::data_plane::{RelayHandle, RelaySockets, spawn_relay};
use crate::error::{Error, Misconfigured};
use crate::handle::{Handle, pair};
use crate::process::{host_name, run_to_end, runtime, seed};
use crate::status::StatusSocket;
use crate::tls::ClientCertificate;
use crate::uplink::{CHANNEL_SIZE, Introduction, Proxy, Uplink, UplinkConfig};
use elsewhere::Elsewhere;
use http::{Http, Kind};
use plane::{Connection, Plane, Serving};

/// Where STUN and TURN are served by default.
const LISTEN_PORT: u16 = 3_478;

/// Where addresses are lent by default (relay.md §2).
const PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// The most threads that a relay starts unless it is told.
const MAX_USUAL_THREADS: u16 = 16;

/// A running relay. Clones share it; dropping the last one stops it.
#[derive(Clone, Debug)]
pub struct Relay {
    handle: Handle,
}

/// What a relay is told before it starts.
#[derive(Debug)]
#[must_use = "nothing starts before `start`"]
pub struct RelayBuilder {
    api_url: Option<String>,
    token: Option<Secret>,
    name: Option<String>,
    ca_file: Option<PathBuf>,
    certificate: Option<ClientCertificate>,
    mtls_host: Option<String>,
    proxy: Option<Proxy>,
    max_partition_time: Option<Duration>,
    socket: Option<PathBuf>,
    secret: Option<Secret>,
    public_v4: Option<Ipv4Addr>,
    public_v6: Option<Ipv6Addr>,
    listen_port: u16,
    ports: RangeInclusive<u16>,
    health: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    loopback_peers: LoopbackPeers,
    private_peers: PrivatePeers,
    limits: Limits,
    drain: Duration,
    threads: Option<NonZero<u16>>,
    is_elsewhere: bool,
}

impl Relay {
    /// Begins to describe one.
    pub fn builder() -> RelayBuilder {
        RelayBuilder {
            api_url: None,
            token: None,
            name: None,
            ca_file: None,
            certificate: None,
            mtls_host: None,
            proxy: None,
            max_partition_time: None,
            socket: None,
            secret: None,
            public_v4: None,
            public_v6: None,
            listen_port: LISTEN_PORT,
            ports: PORTS,
            health: None,
            metrics: None,
            loopback_peers: LoopbackPeers::Refused,
            private_peers: PrivatePeers::Allowed,
            limits: Limits::default(),
            drain: Duration::ZERO,
            threads: None,
            is_elsewhere: false,
        }
    }

    /// Waits until it has joined the portal; one that stands alone is ready at once.
    ///
    /// # Errors
    ///
    /// Why it ended before it was ready.
    pub fn wait_ready(&self) -> Result<(), Error> {
        self.handle.wait_ready()
    }

    /// Waits until it has ended: for ever, unless it is stopped or can't go on.
    ///
    /// # Errors
    ///
    /// Why it could not go on.
    pub fn wait(&self) -> Result<(), Error> {
        self.handle.wait()
    }

    /// How it is doing; `None` once it has ended.
    pub fn status(&self) -> Option<serde_json::Value> {
        self.handle.report()
    }

    /// Ends; every allocation vanishes with it. [`wait`](Self::wait) tells when. One that was told to
    /// [drain](RelayBuilder::drain) does so first, and ends at once when it is told again.
    pub fn stop(&self) {
        self.handle.stop();
    }
}

impl RelayBuilder {
    /// Where the portal is. Without it the relay stands alone and wants a [`secret`](Self::secret).
    pub fn api_url(mut self, url: impl Into<String>) -> Self {
        self.api_url = Some(url.into());
        self
    }

    /// What the portal knows us by.
    pub fn token(mut self, token: Secret) -> Self {
        self.token = Some(token);
        self
    }

    /// What people call it; the host's name by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A PEM file of root certificates to trust beside the usual ones.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Shows the portal a certificate where it asks for one: the chain in PEM, our own certificate first, and its key in PEM.
    /// It needs an address with `wss:` or `https:`; no token is needed then.
    pub fn client_certificate(mut self, chain: impl Into<String>, key: Secret) -> Self {
        let chain = chain.into();
        self.certificate = Some(ClientCertificate { chain, key });
        self
    }

    /// The host where the portal asks for certificates; by default that of its address. Without a certificate it isn't
    /// looked at.
    pub fn mtls_host(mut self, host: impl Into<String>) -> Self {
        self.mtls_host = Some(host.into());
        self
    }

    /// Who connects it to the portal, and finds the portal's addresses; by default it does so itself. The environment is not looked
    /// at, unless the caller does by [`Proxy::usual`].
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// How long the portal may be away in one go; for ever by default.
    pub fn max_partition_time(mut self, limit: Duration) -> Self {
        self.max_partition_time = Some(limit);
        self
    }

    /// Where [`status::query`](crate::status::query) finds it.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// What credentials are made from in the usual TURN REST way, for a relay that stands alone.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// The IPv4 address that clients and peers reach it at.
    pub fn public_ip4(mut self, ip: Ipv4Addr) -> Self {
        self.public_v4 = Some(ip);
        self
    }

    /// The IPv6 address that clients and peers reach it at.
    pub fn public_ip6(mut self, ip: Ipv6Addr) -> Self {
        self.public_v6 = Some(ip);
        self
    }

    /// The port of STUN and TURN; 3478 by default.
    pub fn listen_port(mut self, port: u16) -> Self {
        self.listen_port = port;
        self
    }

    /// The ports that it lends; 49152–65535 by default.
    pub fn port_range(mut self, ports: RangeInclusive<u16>) -> Self {
        self.ports = ports;
        self
    }

    /// Where to serve `/healthz` (alive) and `/readyz` (joined the portal, if there is one, and not about to end) over HTTP.
    pub fn health(mut self, addr: SocketAddr) -> Self {
        self.health = Some(addr);
        self
    }

    /// Where to serve `/metrics` over HTTP: what was counted, for Prometheus.
    pub fn metrics(mut self, addr: SocketAddr) -> Self {
        self.metrics = Some(addr);
        self
    }

    /// Serves nothing, but tells the portal of a TURN server that others run at the public addresses and the listen port, as
    /// long as it answers. Its users get passwords made from the [`secret`](Self::secret) in the usual TURN REST way
    /// (`static-auth-secret` of many servers); its realm must be `firezone`. The forerunner's portal knows no such servers.
    pub fn announce(mut self) -> Self {
        self.is_elsewhere = true;
        self
    }

    /// Lets clients reach addresses of this very host; for tests and private relays.
    pub fn allow_loopback_peers(mut self) -> Self {
        self.loopback_peers = LoopbackPeers::Allowed;
        self
    }

    /// Refuses peers whose addresses the Internet doesn't route, so that nobody reaches into the relay's own network. Gateways
    /// and other relays there can't be reached through it then.
    pub fn refuse_private_peers(mut self) -> Self {
        self.private_peers = PrivatePeers::Refused;
        self
    }

    /// The most allocations at a time; as many as there are ports by default.
    pub fn max_allocations(mut self, limit: usize) -> Self {
        self.limits.allocations = limit;
        self
    }

    /// The most allocations of one user of a relay that stands alone; 1,024 by default. The portal's users have one each.
    pub fn max_allocations_per_user(mut self, limit: usize) -> Self {
        self.limits.allocations_per_user = limit;
        self
    }

    /// How long those who have an allocation may go on with it after [`Relay::stop`]: the portal is left at once, nobody new
    /// is served, and the relay ends when the last one has left. Zero, the default, means not at all.
    pub fn drain(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }

    /// How many threads relay; by default half as many as there are processors. The kernel gives each client to one of them, and
    /// limits are shared evenly. A port that was reserved (RESERVATION-TOKEN) can be had from the thread that keeps it alone.
    pub fn threads(mut self, count: NonZero<u16>) -> Self {
        self.threads = Some(count);
        self
    }

    /// Binds sockets, starts its threads and connects to the portal. It serves from then on, portal or not.
    ///
    /// # Errors
    ///
    /// Something is missing, or the operating system refuses. A portal that is away is no error here.
    pub fn start(self) -> Result<Relay, Error> {
        if self.public_v4.is_none() && self.public_v6.is_none() {
            return Err(missing(
                "a public address",
                "give one by --public-ip4 or --public-ip6",
            ));
        }
        let runtime = runtime()?;
        let clock = Clock::new();
        let (serving, uplink) = match self.is_elsewhere {
            true => {
                let join = Join {
                    stamp_secret: self.known_secret("the secret of the TURN server")?,
                    passwords: Passwords::Rest,
                };
                let ipv4 = self.public_v4.map(IpAddr::from);
                let ipv6 = self.public_v6.map(IpAddr::from);
                let addresses: Vec<SocketAddr> = (ipv4.into_iter().chain(ipv6))
                    .map(|ip| SocketAddr::new(ip, self.listen_port))
                    .collect();
                let uplink = self.connection(join)?;
                let server = runtime.block_on(Elsewhere::new(&addresses))?;
                (Serving::Elsewhere(server), Some(uplink))
            }
            false => {
                let (credentials, uplink) = self.credentials()?;
                (Serving::Here(self.serve(credentials, clock)?), uplink)
            }
        };
        let listen = |addr: Option<SocketAddr>, kind| {
            addr.map(|addr| runtime.block_on(Http::bind(addr, kind)))
                .transpose()
        };
        let health = listen(self.health, Kind::Health)?;
        let metrics = listen(self.metrics, Kind::Metrics)?;
        let status = StatusSocket::bind(&runtime, self.socket, "relay")?;
        let (handle, control) = pair();
        let progress = control.progress.clone();
        let plane = Plane {
            serving,
            control,
            health,
            metrics,
            drain: self.drain,
        };
        progress.run_on_thread("relay control", move || {
            run_to_end(runtime, plane.run(clock, uplink, status))
        })?;

        Ok(Relay { handle })
    }

    fn serve(&self, credentials: Credentials, clock: Clock) -> Result<RelayHandle, Error> {
        let config = Config {
            public_v4: self.public_v4,
            public_v6: self.public_v6,
            listen_port: self.listen_port,
            ports: self.ports.clone(),
            credentials,
            loopback_peers: self.loopback_peers,
            private_peers: self.private_peers,
        };
        let port = self.listen_port;
        let wildcard = |ip: IpAddr| SocketAddr::new(ip, port);
        let sockets = RelaySockets {
            listen_v4: self
                .public_v4
                .map(|_| wildcard(Ipv4Addr::UNSPECIFIED.into())),
            listen_v6: self
                .public_v6
                .map(|_| wildcard(Ipv6Addr::UNSPECIFIED.into())),
        };
        let threads = self.threads.unwrap_or_else(usual_threads);
        let of = threads.get();
        let limits = self.limits.share(usize::from(of));
        let servers: Result<Vec<_>, Error> = (0..of)
            .map(|index| {
                let server = Server::new(config.clone(), seed()?, Pool::new(2_048, 256));
                Ok(server.with_limits(limits).with_share(Share::new(index, of)))
            })
            .collect();

        Ok(spawn_relay(servers?, clock, sockets)?)
    }

    /// With a portal the secret is drawn here and told to it; without one it is the caller's.
    fn credentials(&self) -> Result<(Credentials, Option<Connection>), Error> {
        if self.api_url.is_none() {
            let secret = self.known_secret("the secret of a relay without a portal")?;
            return Ok((Credentials::Rest(secret), None));
        }
        let secret: String = seed()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = Secret::from(secret);
        let connection = self.connection(Join {
            stamp_secret: secret.clone(),
            passwords: Passwords::Stamped,
        })?;

        Ok((Credentials::Stamped(secret), Some(connection)))
    }

    fn known_secret(&self, what: &'static str) -> Result<Secret, Error> {
        let next_step = match self.is_elsewhere {
            true => "give it by --secret",
            false => "give it by --secret, or a portal by --api-url",
        };

        self.secret.clone().ok_or_else(|| missing(what, next_step))
    }

    fn connection(&self, join: Join) -> Result<Connection, Error> {
        let api_url = self.api_url.as_ref().ok_or_else(|| {
            missing(
                "the portal that is told of a TURN server",
                "give it by --api-url",
            )
        })?;
        let url = portal_url(
            api_url,
            self.token.as_ref(),
            self.certificate.as_ref(),
            self.mtls_host.as_deref(),
        )?;

        let config = UplinkConfig {
            url,
            token: self.token.clone(),
            certificate: self.certificate.clone(),
            proxy: self.proxy.clone(),
            introduction: Introduction {
                external_id: None,
                name: self.name.clone().or_else(host_name),
                ipv4: self.public_v4,
                ipv6: self.public_v6,
                port: Some(self.listen_port),
            },
            join: to_raw_value(&join)
                .unwrap_or_else(|_| serde_json::value::RawValue::NULL.to_owned()),
            max_partition_time: self.max_partition_time,
            seed: seed()?,
        };
        let (commands, receive_commands) = mpsc::channel(CHANNEL_SIZE);
        let (send_events, events) = mpsc::channel(CHANNEL_SIZE);
        let uplink = Uplink::new(
            config,
            None,
            self.ca_file.as_deref(),
            None,
            receive_commands,
            send_events,
        )?;

        Ok(Connection {
            uplink,
            commands,
            events,
        })
    }
}

/// The other half of the processors receives and sends in the kernel.
fn usual_threads() -> NonZero<u16> {
    let processors = available_parallelism().map_or(1, NonZero::get);
    let threads = u16::try_from(processors / 2).unwrap_or(u16::MAX);

    NonZero::new(threads.min(MAX_USUAL_THREADS)).unwrap_or(NonZero::<u16>::MIN)
}

fn missing(what: &'static str, next_step: &'static str) -> Error {
    Misconfigured::Missing { what, next_step }.into()
}
