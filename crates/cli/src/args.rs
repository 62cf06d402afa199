//! The command line, as clap reads it. What a value means is for [`settings`](crate::settings) to say.

mod portal;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::bench::Contestant;
use crate::exit::Failure;
pub(crate) use portal::{
    ApplyArgs, AuditArgs, BackupArgs, ExplainArgs, PortalCommand, PortalPlace, ServeArgs, ShowArgs,
    TokenCommand, TokenCreateArgs, TokenRevokeArgs, VerifyArgs,
};

/// Reach resources behind gateways over WireGuard, directly or through a relay.
#[derive(Debug, Parser)]
#[command(name = "connlib", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a client, until SIGINT or SIGTERM; SIGHUP says that the network changed
    Client(ClientArgs),
    /// Run a gateway, until SIGINT or SIGTERM
    Gateway(GatewayArgs),
    /// Run a relay, with a portal or alone
    Relay(RelayArgs),
    /// Run a portal, or change what a portal knows
    #[command(subcommand)]
    Portal(PortalCommand),
    /// Show what a running client, gateway or relay is doing
    Status(StatusArgs),
    /// Say what would become of a packet of a running client or gateway, and why
    Why(WhyArgs),
    /// Bring a whole system up on this machine, fetch through it, take it down
    Demo(DemoArgs),
    /// Measure this program's data path beside others', on this machine alone
    Bench(BenchArgs),

    /// Hold a namespace of a rig.
    #[command(hide = true)]
    RigHold,
    /// Remove a rig's directory when its owner has ended.
    #[command(hide = true)]
    RigSweep(SweepArgs),

    #[command(hide = true, disable_help_flag = true)]
    Capture(Later),
    #[command(hide = true, disable_help_flag = true)]
    Metrics(Later),
    #[command(hide = true, disable_help_flag = true)]
    Netcheck(Later),
    #[command(hide = true, disable_help_flag = true)]
    Ping(Later),
}

/// What is not in this version takes any arguments, to be refused with the right words.
#[derive(Args, Debug)]
pub(crate) struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// What client, gateway and relay have in common.
#[derive(Args, Debug)]
pub(crate) struct PeerArgs {
    /// The portal's address, such as wss://portal.example/
    #[arg(long, value_name = "URL")]
    pub(crate) api_url: Option<String>,
    /// The file that holds the token alone; mode 0600 or 0400
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<String>,
    /// More root certificates, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<String>,
    /// The certificate to show where the portal asks for one, in PEM; no token is needed then
    #[arg(long, value_name = "FILE")]
    pub(crate) client_cert: Option<String>,
    /// The certificate's key, in PEM; mode 0600 or 0400
    #[arg(long, value_name = "FILE")]
    pub(crate) client_key: Option<String>,
    /// The host where the portal asks for certificates [default: that of --api-url]
    #[arg(long, value_name = "HOST")]
    pub(crate) mtls_host: Option<String>,
    /// The HTTP proxy that leads to the portal, such as http://proxy.example:3128, or `off`; others see a password in it in `ps`, so
    /// rather use CONNLIB_PROXY [default: what HTTPS_PROXY, http_proxy, ALL_PROXY and NO_PROXY say]
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// What people see this device as [default: the host's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where `connlib status` asks [default: /run/connlib/<role>.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<String>,
    /// End if the portal is away for longer, such as `30d` [default: 24h for gateways, never for others]
    #[arg(long, value_name = "DURATION")]
    pub(crate) max_partition_time: Option<String>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// What everything that runs has in common.
#[derive(Args, Debug)]
pub(crate) struct CommonArgs {
    /// More settings, in TOML, with the flags' names as keys
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Show each setting and where it comes from, and end
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Write a line to this descriptor when ready
    #[arg(long, value_name = "N")]
    pub(crate) ready_fd: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    pub(crate) peer: PeerArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// How programs here come to ask for names of resources: auto, resolved, resolv-conf or off [default: auto]
    #[arg(long, value_name = "HOW")]
    pub(crate) dns: Option<String>,
    /// Whether what belongs to no other resource goes through the Internet resource: on or off [default: off]
    #[arg(long, value_name = "ON")]
    pub(crate) internet: Option<String>,
    #[arg(long, hide = true)]
    check: bool,
}

#[derive(Args, Debug)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) peer: PeerArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Under which addresses packets of clients leave: auto (this machine's, by nftables) or off (their own) [default: auto]
    #[arg(long, value_name = "HOW")]
    pub(crate) masquerade: Option<String>,
}

/// What client and gateway have in common.
#[derive(Args, Debug)]
pub(crate) struct DeviceArgs {
    /// What the portal knows this device by [default: kept in /var/lib/connlib]
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// The tunnel's interface [default: tun-firezone]
    #[arg(long, value_name = "NAME")]
    pub(crate) tun: Option<String>,
    /// The file that says which name servers to ask; a client may rewrite it while it runs (`--dns`), and leaves what was in it
    /// in a copy beside it [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    pub(crate) resolv_conf: Option<String>,
    #[arg(long, hide = true)]
    metrics: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    pub(crate) peer: PeerArgs,
    /// The IPv4 address that others reach this relay at
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) public_ip4: Option<String>,
    /// The IPv6 address that others reach this relay at
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) public_ip6: Option<String>,
    /// The port for STUN and TURN [default: 3478]
    #[arg(long, value_name = "PORT")]
    pub(crate) listen_port: Option<String>,
    /// The ports to lend [default: 49152-65535]
    #[arg(long, value_name = "LO-HI")]
    pub(crate) port_range: Option<String>,
    /// Answer health checks (/healthz, /readyz) over HTTP here
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) health: Option<String>,
    /// Tell what was counted (/metrics, for Prometheus) over HTTP here
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<String>,
    /// When told to end, leave the portal and serve those who have an allocation for so long; a second signal ends it at
    /// once [default: 0]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain: Option<String>,
    /// The most allocations at a time [default: as many as there are ports to lend]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_allocations: Option<String>,
    /// The most allocations of one user, without a portal [default: 1024]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_allocations_per_user: Option<String>,
    /// Without a portal, or with --announce: what credentials are made from; others see it in `ps`, so rather use
    /// CONNLIB_SECRET
    #[arg(long)]
    pub(crate) secret: Option<String>,
    /// Serve nothing, but tell the portal of another TURN server at these addresses and this port while it answers; its
    /// realm is `firezone`, and it shares --secret as a `static-auth-secret`
    #[arg(long)]
    pub(crate) announce: bool,
    /// How many threads relay [default: half as many as there are processors]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) threads: Option<String>,
    /// Let users reach this machine's own addresses
    #[arg(long)]
    pub(crate) allow_loopback_peers: bool,
    /// Don't let users reach addresses that the Internet doesn't route (10.0.0.0/8 and the like)
    #[arg(long)]
    pub(crate) refuse_private_peers: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Where to ask [default: the only one there is]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    #[arg(long, hide = true)]
    watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// ADDRESS or NAME, then :PORT, then /tcp, /udp or /icmp; TCP if there is a port, an echo if there is none
    #[arg(value_name = "ADDRESS|NAME[:PORT][/PROTOCOL]")]
    pub(crate) packet: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Where to ask [default: the only one there is]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Forbid the direct path, so that the relay carries everything
    #[arg(long)]
    pub(crate) relayed: bool,
    /// How much to fetch, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) size: u64,
    /// Go on fetching for so many seconds
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) seconds: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Stay up after the report, until SIGINT or SIGTERM
    #[arg(long)]
    pub(crate) keep: bool,
    /// Who may reach what; a cidr resource must cover the demo's host, 10.20.0.10
    #[arg(long, value_name = "FILE")]
    pub(crate) topology: Option<PathBuf>,
    /// Show the logs of all programs
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure this alone: a row's name, or what some names begin with
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Option<String>,
    /// How long each load takes
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) seconds: u64,
    /// How often everything is measured, contestant after contestant
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// Whom to compare with [default: everybody whose program is in PATH]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) against: Vec<Contestant>,
    /// Show the logs of all programs
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SweepArgs {
    /// The directory.
    pub(crate) directory: PathBuf,
}

impl Command {
    /// Refuses what cli.md promises and a later version brings.
    ///
    /// # Errors
    ///
    /// Exit 2, with its name.
    pub(crate) fn refuse_later(&self) -> Result<(), Failure> {
        let name = match self {
            Self::Client(ClientArgs { check: true, .. }) => Some("--check"),
            Self::Client(ClientArgs { device, .. }) | Self::Gateway(GatewayArgs { device, .. })
                if device.metrics.is_some() =>
            {
                Some("--metrics")
            }
            Self::Portal(PortalCommand::Serve(args)) if args.metrics.is_some() => Some("--metrics"),
            Self::Status(args) => args.watch.then_some("--watch"),
            Self::Capture(_) => Some("`connlib capture`"),
            Self::Metrics(_) => Some("`connlib metrics`"),
            Self::Netcheck(_) => Some("`connlib netcheck`"),
            Self::Ping(_) => Some("`connlib ping`"),
            Self::Client(_)
            | Self::Gateway(_)
            | Self::Why(_)
            | Self::Relay(_)
            | Self::Portal(_)
            | Self::Demo(_)
            | Self::Bench(_)
            | Self::RigHold
            | Self::RigSweep(_) => None,
        };

        match name {
            Some(name) => Err(Failure::later(name)),
            None => Ok(()),
        }
    }
}

/// The address of a portal's default place to listen: this machine only.
pub(crate) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_has_no_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_lists_only_what_works() {
        let help = Cli::command().render_long_help().to_string();

        for later in ["capture", "metrics", "netcheck", "ping", "rig-hold"] {
            assert!(!help.contains(&format!("  {later} ")), "{help}");
        }
        for works in [
            "client", "gateway", "relay", "portal", "status", "why", "demo", "bench",
        ] {
            assert!(help.contains(&format!("  {works} ")), "{help}");
        }
    }

    #[test]
    fn what_comes_later_is_refused_whatever_follows_it() {
        for line in [
            "netcheck",
            "client --check",
            "client --metrics 127.0.0.1:9",
            "status --watch",
        ] {
            let words = ["connlib"].into_iter().chain(line.split(' '));
            let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));

            let failure = cli.command.refuse_later().unwrap_err();
            assert!(
                failure.to_string().contains("not in this version"),
                "{line}"
            );
        }
    }
}
