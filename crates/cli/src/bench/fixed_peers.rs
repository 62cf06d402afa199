//! WireGuard programs that are told their peers, instead of asking a portal.

mod config;
mod uapi;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::netlink::{Netlink, RouteSpec};
use connlib_os::random;
use ipnet::{IpNet, Ipv4Net};
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::contestant::Contestant;
use super::standing::{INNER_MTU, Process};
use crate::exit::{Exit, Failure};
use crate::rig::certificates::write_private;
use crate::rig::children::Children;
use crate::rig::network::Network;
use crate::rig::plan::Place;
use crate::rig::scratch::Scratch;

use config::{Device, Key, Peer};

/// All that is needed to start a program at both ends.
#[derive(Debug)]
pub(super) struct FixedPeers<'a> {
    pub(super) contestant: Contestant,
    pub(super) program: &'a Path,
    pub(super) network: &'a Network,
    pub(super) children: &'a Children,
    pub(super) scratch: &'a Scratch,
}

/// The name of every tunnel's interface; each is in a namespace of its own.
const INTERFACE: &str = "wg0";

/// Where gateways listen.
const PORT: u16 = 51_820;

/// How often an idle peer says that it is there, in seconds.
const KEEPALIVE: u16 = 25;

/// How long a program may take to be ready for orders.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Between two tries to reach it.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// What programs for WireGuard take orders in, one socket per interface; it is hidden under a file system of each
/// process's own, so that the ends don't collide and nothing is left behind.
const RUN: &str = "/var/run";

/// Hides the directory and becomes the program; `$@` is the program with its arguments.
const IN_PRIVATE: &str =
    "mount -t tmpfs tmpfs /var/run && mkdir -p /var/run/wireguard && exec \"$@\"";

impl FixedPeers<'_> {
    /// Starts the gateway's and all clients' ends, and leads the clients' packets into their tunnels.
    ///
    /// # Errors
    ///
    /// A program can't be started, or doesn't take its peers.
    pub(super) async fn start(&self, clients: &[Place]) -> Result<Vec<Process>, Failure> {
        let gateway_key = new_key()?;
        let mut gateway = Device {
            key: gateway_key.clone(),
            listen_port: PORT,
            addresses: vec![Ipv4Net::new_assert(GATEWAY, 24)],
            peers: Vec::new(),
        };
        let resource = Place::Resource.subnet().host_v4();
        let mut client_devices = Vec::new();
        for (&place, host) in clients.iter().zip(2..) {
            let key = new_key()?;
            let address = Ipv4Net::new_assert(with_host(host), 32);
            gateway.peers.push(Peer {
                public_key: key.public(),
                endpoint: None,
                allowed_ips: vec![address],
            });
            let device = Device {
                key,
                listen_port: PORT,
                addresses: vec![address],
                peers: vec![Peer {
                    public_key: gateway_key.public(),
                    endpoint: Some((Place::Gateway.subnet().host_v4(), PORT).into()),
                    allowed_ips: vec![
                        Ipv4Net::new_assert(with_host(0), 24),
                        Ipv4Net::new_assert(resource, 16).trunc(),
                    ],
                }],
            };
            client_devices.push((place, device));
        }

        let mut processes = vec![self.start_end(Place::Gateway, &gateway).await?];
        for (place, device) in &client_devices {
            processes.push(self.start_end(*place, device).await?);
        }
        Ok(processes)
    }

    async fn start_end(&self, place: Place, device: &Device) -> Result<Process, Failure> {
        let pid = match self.contestant == Contestant::OursWireguard {
            true => self.start_ours(place, device).await?,
            false => self.start_other(place, device).await?,
        };

        Ok(Process {
            role: place.role(),
            pid,
        })
    }

    /// Ours reads a file, and sets the interface by itself.
    async fn start_ours(&self, place: Place, device: &Device) -> Result<u32, Failure> {
        let file = self.scratch.file(&format!("{place}.conf"));
        write_private(&file, &device.to_file(INNER_MTU, KEEPALIVE))
            .map_err(|error| Failure::os(format_args!("write {}", file.display()), &error))?;
        let arguments = ["--tun", INTERFACE, &file.display().to_string()].map(str::to_owned);
        let namespace = self.network.namespace(place)?;

        self.children
            .launch(
                place.name(),
                namespace,
                self.program,
                &arguments,
                Some("ready"),
            )
            .await
    }

    /// Others take orders at a socket, and leave addresses and routes to us.
    async fn start_other(&self, place: Place, device: &Device) -> Result<u32, Failure> {
        let program = self.program.display().to_string();
        let mut arguments: Vec<String> = ["--mount", "--propagation=private", "sh", "-c"]
            .into_iter()
            .chain([IN_PRIVATE, "sh", &program])
            .map(str::to_owned)
            .collect();
        arguments.extend(flags(self.contestant).iter().map(|&flag| flag.to_owned()));
        arguments.push(INTERFACE.to_owned());
        let namespace = self.network.namespace(place)?;
        let pid = self
            .children
            .launch(
                place.name(),
                namespace,
                Path::new("unshare"),
                &arguments,
                None,
            )
            .await?;

        let stream = self.wait_for_socket(pid).await?;
        uapi::set(stream, &device.to_uapi(KEEPALIVE))
            .await
            .map_err(|problem| {
                Failure::new(
                    Exit::Failed,
                    format_args!("{} does not take its peers: {problem}", self.contestant),
                )
            })?;

        let mut netlink = Netlink::new_in(namespace)?;
        netlink.set_mtu(INTERFACE, INNER_MTU).await?;
        for &address in &device.addresses {
            netlink.add_address(INTERFACE, address.into()).await?;
        }
        netlink.set_up(INTERFACE).await?;
        let routes = device.peers.iter().flat_map(|peer| &peer.allowed_ips);
        for &destination in routes.filter(|net| !device.covers(**net)) {
            let route = RouteSpec::by_dev(IpNet::from(destination), INTERFACE);
            netlink.add_route(&route).await?;
        }

        Ok(pid)
    }

    async fn wait_for_socket(&self, pid: u32) -> Result<UnixStream, Failure> {
        let path = socket_of(pid);
        let clock = Clock::new();
        let end_at = clock.now() + READY_WITHIN;
        loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => return Ok(stream),
                Err(error) if clock.now() >= end_at => {
                    return Err(Failure::new(
                        Exit::Failed,
                        format_args!(
                            "{} takes no orders after {} s: {error}; see its log with --verbose",
                            self.contestant,
                            READY_WITHIN.as_secs()
                        ),
                    ));
                }
                Err(_) => sleep(TRY_EVERY).await,
            }
        }
    }
}

/// The socket of a process that sees a directory of its own there. A link at its way would lead to ours, so there must
/// be none.
fn socket_of(pid: u32) -> PathBuf {
    let run = fs::canonicalize(RUN).unwrap_or_else(|_| RUN.into());
    let run = run.strip_prefix("/").unwrap_or(&run);

    Path::new("/proc")
        .join(pid.to_string())
        .join("root")
        .join(run)
        .join("wireguard")
        .join(format!("{INTERFACE}.sock"))
}

/// What lets a program stay in the foreground and say little.
fn flags(contestant: Contestant) -> &'static [&'static str] {
    const FOREGROUND: &[&str] = &[
        "--foreground",
        "--disable-drop-privileges",
        "--verbosity",
        "error",
    ];

    match contestant {
        Contestant::WireguardGo => &["--foreground"],
        Contestant::Gotatun | Contestant::Boringtun => FOREGROUND,
        Contestant::Ours | Contestant::OursWireguard | Contestant::Turnserver | Contestant::Raw => {
            &[]
        }
    }
}

/// The gateway's address inside of the tunnels.
const GATEWAY: Ipv4Addr = with_host(1);

/// An address of the tunnels' own network, which is nobody's (RFC 6598).
const fn with_host(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 99, 0, host)
}

fn new_key() -> Result<Key, Failure> {
    random::seed()
        .map(Key::new)
        .map_err(|error| Failure::os("make a key", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_the_process_sees_it() {
        let path = socket_of(42).display().to_string();

        assert!(path.starts_with("/proc/42/root/"), "{path}");
        assert!(path.ends_with("run/wireguard/wg0.sock"), "{path}");
    }
}
