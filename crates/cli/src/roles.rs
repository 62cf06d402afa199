//! `connlib client | gateway | relay`: from settings to a running role, until it ends.

mod peer;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use connlib::client::DnsControl;
use connlib::gateway::Masquerade;
use connlib::{Client, Gateway, Relay, Secret, status};
use connlib_os::resolver::{HostResolver, Paths};

use crate::args::{ClientArgs, DeviceArgs, GatewayArgs, RelayArgs};
use crate::duration::Seconds;
use crate::environment::Environment;
use crate::exit::{Exit, Failure, print};
use crate::names_file::NamesFile;
use crate::settings::{Found, Origin, Role, Settings, Switch, name, parse};
use crate::{identity, run};
use peer::{PeerSettings, told};

/// The TUN device's name unless somebody says otherwise (cli.md "Settings").
const DEFAULT_TUN: &str = "tun-firezone";

/// How programs come to ask for names unless somebody says otherwise (cli.md "Roles").
const DEFAULT_DNS: &str = "auto";

/// Whether the Internet resource is used unless somebody says otherwise (client.md §13).
const DEFAULT_INTERNET: &str = "off";

/// Under which addresses packets leave a gateway unless somebody says otherwise (cli.md "Roles").
const DEFAULT_MASQUERADE: &str = "auto";

/// The port for STUN and TURN unless somebody says otherwise (relay.md §17.1).
const DEFAULT_RELAY_PORT: &str = "3478";

/// The ports to lend unless somebody says otherwise (relay.md §17.1).
const DEFAULT_PORT_RANGE: &str = "49152-65535";

/// Runs a client until it is told to stop.
///
/// # Errors
///
/// It does not start, or ends by itself.
pub(crate) fn client(args: &ClientArgs, environment: &Environment) -> Result<(), Failure> {
    let role = Role::Client;
    let mut settings = Settings::open(role, args.peer.common.config.as_deref(), environment)?;
    let peer = PeerSettings::read(&mut settings, role, &args.peer)?;
    let device = DeviceSettings::read(&mut settings, &args.device)?;
    let dns: Dns = settings.with_default(name::DNS, args.dns.as_deref(), DEFAULT_DNS)?;
    let internet: Switch =
        settings.with_default(name::INTERNET, args.internet.as_deref(), DEFAULT_INTERNET)?;
    if args.peer.common.print_config {
        return print(settings.print());
    }
    peer.require_api_url()?;
    let (peer, ready) = peer.begin(environment)?;
    // Before anything that may fail: this machine has no names until it is done (client.md §13).
    recover(device.resolv_conf.as_deref());

    let mut builder = Client::builder()
        .id(device.id(role, environment)?)
        .name(&peer.name)
        .dns(dns.0)
        .internet(internet.0)
        .tun_name(device.tun);
    if let Some(path) = device.resolv_conf {
        builder = builder.resolv_conf(path);
    }
    let socket = peer
        .socket
        .clone()
        .or_else(|| status::default_path("client"));
    if let Some(path) = socket {
        let (mut file, records) = NamesFile::open(path.with_extension("names"));
        builder = builder
            .names(records)
            .keep_names(move |records| file.keep(records));
    }

    run::until_stopped(told!(builder, peer).start()?, ready, Duration::ZERO)
}

/// Takes back what a killed client has left in the machine's resolver settings.
fn recover(resolv_conf: Option<&Path>) {
    let mut paths = Paths::default();
    if let Some(path) = resolv_conf {
        paths.resolv_conf = path.to_owned();
    }
    if let Err(error) = HostResolver::recover(&paths) {
        tracing::warn!(%error, "What a killed client may have left in the resolver settings is still there");
    }
}

/// Runs a gateway until it is told to stop.
///
/// # Errors
///
/// It does not start, or ends by itself.
pub(crate) fn gateway(args: &GatewayArgs, environment: &Environment) -> Result<(), Failure> {
    let role = Role::Gateway;
    let mut settings = Settings::open(role, args.peer.common.config.as_deref(), environment)?;
    let peer = PeerSettings::read(&mut settings, role, &args.peer)?;
    let device = DeviceSettings::read(&mut settings, &args.device)?;
    let masquerade: Masquerading = settings.with_default(
        name::MASQUERADE,
        args.masquerade.as_deref(),
        DEFAULT_MASQUERADE,
    )?;
    if args.peer.common.print_config {
        return print(settings.print());
    }
    peer.require_api_url()?;
    let (peer, ready) = peer.begin(environment)?;

    let mut builder = Gateway::builder()
        .masquerade(masquerade.0)
        .id(device.id(role, environment)?)
        .name(&peer.name)
        .tun_name(device.tun);
    if let Some(path) = device.resolv_conf {
        builder = builder.resolv_conf(path);
    }

    run::until_stopped(told!(builder, peer).start()?, ready, Duration::ZERO)
}

/// Runs a relay until it is told to stop.
///
/// # Errors
///
/// It does not start, or ends by itself.
pub(crate) fn relay(args: &RelayArgs, environment: &Environment) -> Result<(), Failure> {
    let role = Role::Relay;
    let mut settings = Settings::open(role, args.peer.common.config.as_deref(), environment)?;
    let peer = PeerSettings::read(&mut settings, role, &args.peer)?;
    let relay = RelaySettings::read(&mut settings, args)?;
    if args.peer.common.print_config {
        return print(settings.print());
    }
    if relay.public_v4.is_none() && relay.public_v6.is_none() {
        return Err(Failure::new(
            Exit::WrongUse,
            "a relay needs an address that others reach it at; give --public-ip4 or --public-ip6",
        ));
    }
    let (peer, ready) = peer.begin(environment)?;
    run::use_all_descriptors();

    let mut builder = Relay::builder()
        .name(&peer.name)
        .listen_port(relay.listen_port)
        .port_range(relay.ports.0);
    if let Some(secret) = relay.secret {
        builder = builder.secret(secret);
    }
    if let Some(ip) = relay.public_v4 {
        builder = builder.public_ip4(ip);
    }
    if let Some(ip) = relay.public_v6 {
        builder = builder.public_ip6(ip);
    }
    if let Some(address) = relay.health {
        builder = builder.health(address);
    }
    if let Some(address) = relay.metrics {
        builder = builder.metrics(address);
    }
    if relay.allow_loopback_peers {
        builder = builder.allow_loopback_peers();
    }
    if relay.refuse_private_peers {
        builder = builder.refuse_private_peers();
    }
    if let Some(limit) = relay.max_allocations {
        builder = builder.max_allocations(limit);
    }
    if let Some(limit) = relay.max_allocations_per_user {
        builder = builder.max_allocations_per_user(limit);
    }
    if let Some(count) = relay.threads {
        builder = builder.threads(count);
    }
    if relay.announce {
        builder = builder.announce();
    }
    let Seconds(drain) = relay.drain;
    builder = builder.drain(drain);

    run::until_stopped(told!(builder, peer).start()?, ready, drain)
}

/// The settings of client and gateway.
struct DeviceSettings {
    id: Option<String>,
    tun: String,
    resolv_conf: Option<PathBuf>,
}

impl DeviceSettings {
    fn read(settings: &mut Settings<'_>, args: &DeviceArgs) -> Result<Self, Failure> {
        Ok(Self {
            id: settings.optional(name::ID, args.id.as_deref())?,
            tun: settings.with_default(name::TUN, args.tun.as_deref(), DEFAULT_TUN)?,
            resolv_conf: settings.optional(name::RESOLV_CONF, args.resolv_conf.as_deref())?,
        })
    }

    /// The id that was given, else the one that this machine has.
    fn id(&self, role: Role, environment: &Environment) -> Result<String, Failure> {
        match &self.id {
            Some(id) => Ok(id.clone()),
            None => identity::device_id(role, environment),
        }
    }
}

/// How programs come to ask for names, in our words or Firezone's (cli.md "Settings").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Dns(DnsControl);

impl FromStr for Dns {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "auto" => DnsControl::Auto,
            "resolved" | "systemd-resolved" => DnsControl::Resolved,
            "resolv-conf" | "etc-resolv-conf" => DnsControl::ResolvConf,
            "off" | "disabled" => DnsControl::Off,
            _ => return Err("write auto, resolved, resolv-conf or off"),
        }))
    }
}

/// Under which addresses packets of clients leave a gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Masquerading(Masquerade);

impl FromStr for Masquerading {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self(Masquerade::Auto)),
            "off" => Ok(Self(Masquerade::Off)),
            _ => Err("write auto or off"),
        }
    }
}

/// The settings of a relay alone.
struct RelaySettings {
    public_v4: Option<Ipv4Addr>,
    public_v6: Option<Ipv6Addr>,
    listen_port: u16,
    ports: PortRange,
    health: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    secret: Option<Secret>,
    allow_loopback_peers: bool,
    refuse_private_peers: bool,
    max_allocations: Option<usize>,
    max_allocations_per_user: Option<usize>,
    drain: Seconds,
    threads: Option<NonZero<u16>>,
    announce: bool,
}

impl RelaySettings {
    fn read(settings: &mut Settings<'_>, args: &RelayArgs) -> Result<Self, Failure> {
        Ok(Self {
            public_v4: settings.optional(name::PUBLIC_IP4, args.public_ip4.as_deref())?,
            public_v6: settings.optional(name::PUBLIC_IP6, args.public_ip6.as_deref())?,
            listen_port: settings.with_default(
                name::LISTEN_PORT,
                args.listen_port.as_deref(),
                DEFAULT_RELAY_PORT,
            )?,
            ports: port_range(settings, args.port_range.as_deref())?,
            health: settings.optional(name::HEALTH, args.health.as_deref())?,
            metrics: settings.optional(name::METRICS, args.metrics.as_deref())?,
            secret: settings.secret(name::SECRET, args.secret.as_deref()),
            allow_loopback_peers: settings
                .switch(name::ALLOW_LOOPBACK_PEERS, args.allow_loopback_peers)?,
            refuse_private_peers: settings
                .switch(name::REFUSE_PRIVATE_PEERS, args.refuse_private_peers)?,
            max_allocations: settings
                .optional(name::MAX_ALLOCATIONS, args.max_allocations.as_deref())?,
            max_allocations_per_user: settings.optional(
                name::MAX_ALLOCATIONS_PER_USER,
                args.max_allocations_per_user.as_deref(),
            )?,
            threads: settings.optional(name::THREADS, args.threads.as_deref())?,
            drain: settings.with_default(name::DRAIN, args.drain.as_deref(), "0")?,
            announce: settings.switch(name::ANNOUNCE, args.announce)?,
        })
    }
}

/// Ours is one value, Firezone's are two variables.
fn port_range(settings: &mut Settings<'_>, flag: Option<&str>) -> Result<PortRange, Failure> {
    let found = match settings.find(name::PORT_RANGE, flag)? {
        Some(found) if !matches!(found.origin, Origin::File { .. }) => Some(found),
        in_file => firezone_port_range(settings)?.or(in_file),
    };
    let found = found.unwrap_or_else(|| Found {
        text: DEFAULT_PORT_RANGE.into(),
        origin: Origin::Default,
    });
    settings.show(name::PORT_RANGE, Some(&found));

    parse(name::PORT_RANGE, &found)
}

fn firezone_port_range(settings: &Settings<'_>) -> Result<Option<Found>, Failure> {
    let (lowest, highest) = DEFAULT_PORT_RANGE.split_once('-').unwrap_or_default();
    let given_lowest = settings.variable("LOWEST_PORT")?;
    let given_highest = settings.variable("HIGHEST_PORT")?;
    let Some(origin) = given_lowest.as_ref().or(given_highest.as_ref()) else {
        return Ok(None);
    };

    let origin = origin.origin.clone();
    let text = |given: Option<Found>, default: &str| {
        given.map_or_else(|| default.to_owned(), |found| found.text)
    };
    Ok(Some(Found {
        text: format!(
            "{}-{}",
            text(given_lowest, lowest),
            text(given_highest, highest)
        ),
        origin,
    }))
}

/// Ports to lend: `LO-HI`.
#[derive(Clone, Debug, Eq, PartialEq)]
struct PortRange(RangeInclusive<u16>);

impl FromStr for PortRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write two ports, the lower one first, such as `49152-65535`";

        let (lowest, highest) = text.split_once('-').ok_or(WRONG)?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| WRONG);
        let (lowest, highest) = (port(lowest)?, port(highest)?);
        if lowest == 0 || lowest > highest {
            return Err(WRONG);
        }

        Ok(Self(lowest..=highest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_are_read() {
        let range: PortRange = "1000-2000".parse().unwrap();
        assert_eq!(range.0, 1000..=2000);
        for text in ["", "1", "2-1", "0-1", "1-70000", "a-b"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn both_vocabularies_of_dns_are_understood() {
        for (text, control) in [
            ("auto", DnsControl::Auto),
            ("resolved", DnsControl::Resolved),
            ("systemd-resolved", DnsControl::Resolved),
            ("resolv-conf", DnsControl::ResolvConf),
            ("etc-resolv-conf", DnsControl::ResolvConf),
            ("off", DnsControl::Off),
            ("disabled", DnsControl::Off),
        ] {
            assert_eq!(text.parse(), Ok(Dns(control)), "{text}");
        }
        assert!("nrpt".parse::<Dns>().is_err());
    }

    #[test]
    fn firezones_two_ports_are_one_range() {
        let environment = Environment::of(&[("LOWEST_PORT", "50000")], &[]);
        let mut settings = Settings::open(Role::Relay, None, &environment).unwrap();

        let range = port_range(&mut settings, None).unwrap();
        assert_eq!(range.0, 50_000..=65_535);
        let range = port_range(&mut settings, Some("1-2")).unwrap();
        assert_eq!(range.0, 1..=2);
    }
}
