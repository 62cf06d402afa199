//! Plain WireGuard with fixed peers, on the event loop, data path and devices of this library, so that other WireGuard
//! programs can be met and measured on equal terms. It stays in the foreground and needs root.
//!
//! ```text
//! wireguard_peer [--tun NAME] CONFIG
//! ```
//!
//! CONFIG is a file of `wg-quick` with these keys; others are refused (exit code 2):
//!
//! ```text
//! [Interface]
//! PrivateKey = …                         # wg genkey
//! ListenPort = 51820                     # any, if not given
//! Address = 10.0.0.1/24, fd00::1/64
//! MTU = 1280                             # no more: that is what the tunnel carries
//! [Peer]
//! PublicKey = …                          # wg pubkey
//! PresharedKey = …                       # optional: wg genpsk
//! Endpoint = 192.0.2.1:51820             # optional: without it the peer must speak first
//! AllowedIPs = 10.0.0.2/32, fd00::2/128  # must not hold an endpoint
//! PersistentKeepalive = 25               # optional
//! ```
//!
//! It prints `ready` when packets flow, and ends on SIGINT and SIGTERM.

mod config;
mod core;

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;

use connlib::node::{Node, Settings};
use connlib_link::Links;
use connlib_os::clock::Clock;
use connlib_os::netlink::{Netlink, QueueLimits, RouteSpec};
use connlib_os::random;
use connlib_os::tun::TunDevice;
use connlib_wire::MAX_PACKET;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::core::Core;

const USAGE: &str = "usage: wireguard_peer [--tun NAME] CONFIG";

/// As a client's: a super-packet that begins here is to be one train.
const OF_HOST: QueueLimits = QueueLimits {
    packets: 1_000,
    gso_bytes: 61_000,
    gso_segments: 49,
};

/// As a gateway's: one that others began would come apart into single packets.
const OF_ROUTER: QueueLimits = QueueLimits {
    gso_bytes: 65_536,
    gso_segments: 65_535,
    ..OF_HOST
};

/// What the caller has to mend: the arguments or the file.
const MISCONFIGURED: u8 = 2;

struct Args {
    tun: String,
    config: PathBuf,
}

fn main() -> ExitCode {
    let config = Args::parse(std::env::args_os().skip(1)).and_then(|args| {
        let config = Config::read(&args.config).map_err(|error| error.to_string())?;
        Ok((args, config))
    });
    let (args, config) = match config {
        Ok(config) => config,
        Err(why) => return refuse(&why, MISCONFIGURED),
    };
    if config
        .mtu
        .is_some_and(|mtu| u32::from(mtu) > config.device_mtu())
    {
        say(&format!(
            "the MTU is {MAX_PACKET}, the most that the tunnel carries"
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(&args.tun, config)),
        Err(error) => Err(error.into()),
    };

    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error.to_string(), 1),
    }
}

impl Args {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut tun = "connlib-peer".to_owned();
        let mut config = None;
        while let Some(arg) = args.next() {
            if arg == "--tun" {
                let name = args.next().and_then(|name| name.into_string().ok());
                tun = name.ok_or(USAGE)?;
            } else if arg.as_encoded_bytes().starts_with(b"-") || config.is_some() {
                return Err(USAGE.to_owned());
            } else {
                config = Some(PathBuf::from(arg));
            }
        }

        Ok(Self {
            tun,
            config: config.ok_or(USAGE)?,
        })
    }
}

async fn run(tun: &str, config: Config) -> Result<(), Box<dyn Error>> {
    // From here on both end the program in an orderly way, however early they come.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    is_free(config.listen_port)?;
    let device = TunDevice::create(tun)?;
    set_up(tun, &config).await?;

    let clock = Clock::new();
    let now = clock.now();
    let unix = clock.unix();
    let seed = random::seed()?;
    let links = connlib_link::Settings { unix };
    let links = Links::with_key(now, seed, links, &config.private_key);
    let mut core = Core::new(now, links);
    for peer in config.peers {
        core.add(now, peer)?;
    }
    let settings = Settings {
        name: "peer data",
        port: config.listen_port,
        mark: None,
    };
    let mut node = Node::spawn(core, clock, device, settings).await?;
    writeln!(io::stdout(), "ready")?;
    io::stdout().flush()?;

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        // Nothing comes but the end.
        _ = node.next_output() => {}
    }

    Ok(node.stop().await?)
}

/// The loop would take another port, and nobody would find us there.
fn is_free(port: u16) -> Result<(), Box<dyn Error>> {
    for ip in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        match UdpSocket::bind(SocketAddr::new(ip, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(format!("ListenPort {port} is taken; choose another one").into());
            }
            // One IP version may be missing.
            Ok(_) | Err(_) => {}
        }
    }

    Ok(())
}

async fn set_up(tun: &str, config: &Config) -> Result<(), Box<dyn Error>> {
    let mut netlink = Netlink::new()?;
    netlink.set_mtu(tun, config.device_mtu()).await?;
    let queue = match is_router() {
        true => OF_ROUTER,
        false => OF_HOST,
    };
    netlink.set_queue(tun, queue).await?;
    for address in &config.addresses {
        netlink.add_address(tun, *address).await?;
    }
    netlink.set_up(tun).await?;
    for network in config.peers.iter().flat_map(|peer| &peer.allowed) {
        netlink.add_route(&RouteSpec::by_dev(*network, tun)).await?;
    }

    Ok(())
}

/// Whether this host forwards packets of others.
fn is_router() -> bool {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
        .iter()
        .filter_map(|name| fs::read_to_string(format!("/proc/sys/net/{name}")).ok())
        .any(|setting| setting.trim() != "0")
}

fn refuse(why: &str, code: u8) -> ExitCode {
    say(why);

    ExitCode::from(code)
}

fn say(what: &str) {
    // There is nobody else to tell.
    drop(writeln!(io::stderr(), "wireguard_peer: {what}"));
}
