//! The way to the portal: addresses, TCP, perhaps a proxy, TLS.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use connlib_os::resolver::Hosts;
use socket2::SockRef;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Host;

use super::ConnectError;
use super::proxy::{Proxy, ProxyFailure};
use super::url::{Place, PortalUrl, Security};
use crate::dial::{DialError, TCP_TIMEOUT, Transport, connect_any};
use crate::exchanges::Bootstrap;
use crate::tls::{self, ClientCertificate, TlsError};

/// A connection, and the addresses that it lives by.
pub(super) struct Opened {
    pub(super) stream: Box<dyn Transport>,
    pub(super) ends: Ends,
}

/// Both ends of a connection, as far as they are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    local: Option<IpAddr>,
    remote: Option<SocketAddr>,
}

/// Where a connection stands after a change of network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// A new one would leave from the same address.
    Same,
    /// A new one would leave from another address: this one is as good as dead, or at best a detour.
    Moved,
    /// No other would get anywhere now.
    NoWay,
}

/// Opens connections to one portal.
pub(super) struct Dialer {
    /// With the portal, which may want to see a certificate.
    tls: TlsConnector,
    /// With a proxy, which is none of those that may.
    tls_with_proxy: TlsConnector,
    proxy: Option<Proxy>,
    mark: Option<u32>,
    /// Resolves the portal's name without the system, which may ask us, who may need the portal for the answer.
    bootstrap: Option<Arc<Bootstrap>>,
    /// The machine's static names.
    hosts: PathBuf,
}

impl Dialer {
    /// `mark` is the firewall mark of the connections; `ca_file` holds roots besides the well-known ones, for the portal and a
    /// proxy alike.
    pub(super) fn new(
        mark: Option<u32>,
        ca_file: Option<&Path>,
        certificate: Option<&ClientCertificate>,
        proxy: Option<Proxy>,
        bootstrap: Option<Arc<Bootstrap>>,
    ) -> Result<Self, TlsError> {
        let anonymous = Arc::new(tls::client_config(ca_file)?);
        let config = match certificate {
            Some(certificate) => Arc::new(tls::client_config_with(ca_file, certificate)?),
            None => Arc::clone(&anonymous),
        };

        Ok(Self {
            tls: TlsConnector::from(config),
            tls_with_proxy: TlsConnector::from(anonymous),
            proxy,
            mark,
            bootstrap,
            hosts: "/etc/hosts".into(),
        })
    }

    /// Opens a connection. Addresses from the system's servers are kept for as long as those allow, unless the network changes
    /// or a dial fails; others are looked up anew each time.
    pub(super) async fn dial(&self, url: &PortalUrl) -> Result<Opened, ConnectError> {
        let portal = url.place();
        // A proxy looks for the portal itself.
        let first = self
            .proxy
            .as_ref()
            .map_or_else(|| url.place(), Proxy::place);
        let name = first.host.to_string();
        let trial = self.bootstrap.as_ref().map(|it| it.trial(&name));
        let tcp = self.connect(&first).await?;
        let ends = Ends {
            local: tcp.local_addr().ok().map(|addr| addr.ip()),
            remote: tcp.peer_addr().ok(),
        };
        let mut stream: Box<dyn Transport> = Box::new(tcp);
        if let Some(proxy) = &self.proxy {
            stream = self.pass(proxy, stream, &portal).await.map_err(|source| {
                let proxy = proxy.to_string();
                ConnectError::Proxy { proxy, source }
            })?;
        }
        if url.security() == Security::Tls {
            let secured = secure(&self.tls, &portal, stream).await;
            stream = secured.map_err(|source| ConnectError::Tls {
                source: Arc::new(source),
            })?;
        }
        if let Some(trial) = trial {
            trial.succeed();
        }

        Ok(Opened { stream, ends })
    }

    /// Has a proxy lead us on.
    async fn pass(
        &self,
        proxy: &Proxy,
        mut stream: Box<dyn Transport>,
        portal: &Place<'_>,
    ) -> Result<Box<dyn Transport>, ProxyFailure> {
        if proxy.security() == Security::Tls {
            let secured = secure(&self.tls_with_proxy, &proxy.place(), stream).await;
            stream = secured.map_err(|source| ProxyFailure::Tls {
                source: Arc::new(source),
            })?;
        }
        proxy.connect(&mut stream, portal).await?;

        Ok(stream)
    }

    async fn connect(&self, place: &Place<'_>) -> Result<TcpStream, ConnectError> {
        let addrs = self.resolve(place).await?;

        Ok(connect_any(&addrs, self.mark).await?)
    }

    async fn resolve(&self, place: &Place<'_>) -> Result<Vec<SocketAddr>, ConnectError> {
        let port = place.port;
        let name = match place.host {
            Host::Ipv4(ip) => return Ok(vec![(ip, port).into()]),
            Host::Ipv6(ip) => return Ok(vec![(ip, port).into()]),
            Host::Domain(name) => name,
        };
        let mut addrs: Vec<_> = match self.resolve_without_system(name).await {
            Some(ips) => ips.into_iter().map(|ip| (ip, port).into()).collect(),
            None => timeout(TCP_TIMEOUT, lookup_host((name, port)))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|source| ConnectError::Resolve {
                    host: name.into(),
                    source: Arc::new(source),
                })?
                .collect(),
        };
        addrs.sort_unstable();
        addrs.dedup();
        if addrs.is_empty() {
            return Err(ConnectError::NoAddress { host: name.into() });
        }

        Ok(addrs)
    }

    /// What static names and the system's servers say; the system knows other ways, so that it is asked when they don't.
    async fn resolve_without_system(&self, name: &str) -> Option<Vec<IpAddr>> {
        let bootstrap = self.bootstrap.as_ref().filter(|it| it.has_servers())?;
        let hosts = Hosts::read(&self.hosts).unwrap_or_default();
        let known = hosts.addresses(name);
        if !known.is_empty() {
            return Some(known.to_vec());
        }
        let found = timeout(TCP_TIMEOUT, bootstrap.resolve(name)).await.ok()?;

        found
            .inspect_err(|error| tracing::debug!(%error, "The portal's name"))
            .ok()
    }

    /// Compares a connection with one that would be made now. Nothing is sent.
    pub(super) fn standing(&self, ends: Ends) -> Standing {
        let (Some(local), Some(remote)) = (ends.local, ends.remote) else {
            return Standing::Same;
        };

        match source_for(remote, self.mark) {
            Ok(source) if source == local => Standing::Same,
            Ok(_) => Standing::Moved,
            Err(error) => {
                tracing::debug!(%error, "There is no way to the portal now");
                Standing::NoWay
            }
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("proxy", &self.proxy)
            .field("mark", &self.mark)
            .finish_non_exhaustive()
    }
}

/// The address that a connection to `remote` would leave from.
fn source_for(remote: SocketAddr, mark: Option<u32>) -> io::Result<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A UDP socket is connected by a look into the routes alone.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    socket.connect(remote)?;

    Ok(socket.local_addr()?.ip())
}

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Mark { mark, source } => Self::Mark { mark, source },
            DialError::Tcp { addr, source } => Self::Tcp { addr, source },
            DialError::NoAddress => Self::TimedOut,
        }
    }
}

/// Speaks TLS with the place at the other end of a stream.
async fn secure(
    tls: &TlsConnector,
    place: &Place<'_>,
    stream: Box<dyn Transport>,
) -> io::Result<Box<dyn Transport>> {
    let name = place.server_name();
    let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;

    Ok(Box::new(tls.connect(name, stream).await?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::{NamedTempFile, TempPath};
    use tokio::net::TcpListener;

    use super::*;
    use crate::exchanges::Exchanges;
    use crate::exchanges::tests::bootstrap::Resolver;

    #[test]
    fn a_connection_has_moved_when_another_would_leave_from_elsewhere() {
        let dialer = Dialer::new(None, None, None, None, None).unwrap();
        let remote = "127.0.0.1:9".parse().ok();
        for (local, remote, standing) in [
            ("127.0.0.1", remote, Standing::Same),
            ("192.0.2.7", remote, Standing::Moved),
            ("192.0.2.7", None, Standing::Same),
        ] {
            let local = local.parse().ok();

            assert_eq!(dialer.standing(Ends { local, remote }), standing);
        }
    }

    #[tokio::test]
    async fn the_portal_is_found_by_static_names_then_the_systems_servers_then_the_system() {
        const PORTAL: &str = "portal.test";

        let resolver = Resolver::new(PORTAL, &["192.0.2.1", "2001:db8::1"]).await;
        let (_exchanges, mut dialer, hosts) = dialer(&[resolver.addr]);
        fs::write(&hosts, "192.0.2.7 static.test\n").unwrap();
        dialer.hosts = hosts.to_path_buf();
        for (name, addrs, asked) in [
            ("static.test", &["192.0.2.7:80"][..], 0),
            (PORTAL, &["192.0.2.1:80", "[2001:db8::1]:80"], 2),
        ] {
            let url = PortalUrl::parse(&format!("ws://{name}:80")).unwrap();
            let found = dialer.resolve(&url.place()).await.unwrap();

            let addrs: Vec<SocketAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
            assert_eq!(found, addrs);
            assert_eq!(resolver.asked(), asked);
        }

        // The servers deny it, and the file has it no more.
        let url = PortalUrl::parse("ws://localhost/").unwrap();
        let found = dialer.resolve(&url.place()).await.unwrap();
        assert!(found.iter().all(|addr| addr.ip().is_loopback()));
        assert_eq!(resolver.asked(), 4);
    }

    #[tokio::test]
    async fn without_servers_the_system_finds_the_portal() {
        let (_exchanges, mut dialer, hosts) = dialer(&[]);
        fs::write(&hosts, "192.0.2.7 localhost\n").unwrap();
        dialer.hosts = hosts.to_path_buf();
        let url = PortalUrl::parse("ws://localhost/").unwrap();

        let found = dialer.resolve(&url.place()).await.unwrap();
        assert!(found.iter().all(|addr| addr.ip().is_loopback()));
    }

    #[tokio::test]
    async fn a_portal_that_was_not_reached_is_looked_for_anew() {
        const PORTAL: &str = "portal.test";

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let resolver = Resolver::new(PORTAL, &["127.0.0.1"]).await;
        let (_exchanges, dialer, _hosts) = dialer(&[resolver.addr]);
        let url = PortalUrl::parse(&format!("ws://{PORTAL}:{port}/")).unwrap();
        for _ in 0..2 {
            assert!(dialer.dial(&url).await.is_ok());
        }
        assert_eq!(resolver.asked(), 2);

        drop(listener);
        assert!(dialer.dial(&url).await.is_err());
        assert_eq!(resolver.asked(), 2, "it was known");
        assert!(dialer.dial(&url).await.is_err());
        assert_eq!(resolver.asked(), 4);
    }

    /// One that asks these servers, and a file for static names.
    fn dialer(servers: &[SocketAddr]) -> (Exchanges, Dialer, TempPath) {
        let mut exchanges = Exchanges::new(None, None).unwrap();
        exchanges.set_bootstrap(servers);
        let dialer = Dialer::new(None, None, None, None, Some(exchanges.bootstrap())).unwrap();
        let hosts = NamedTempFile::new().unwrap().into_temp_path();

        (exchanges, dialer, hosts)
    }
}
