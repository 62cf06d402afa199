//! Connections to name servers, out of the tunnel.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use connlib_tunnel::dns::ExchangeError;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bootstrap::Bootstrap;
use super::udp::Sockets;
use crate::dial::connect_any;
use crate::tls::{self, TlsError};

/// What connections are made with.
pub(super) struct Network {
    mark: Option<u32>,
    dot: TlsConnector,
    http: TlsConnector,
    pub(super) bootstrap: Arc<Bootstrap>,
    /// The right to open a connection for HTTP.
    pub(super) openings: Semaphore,
}

/// What is to be spoken over TLS.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speaking {
    /// DNS behind lengths (RFC 7858).
    Dns,
    /// HTTP of either version (RFC 8484).
    Http,
}

/// How many connections for HTTP are opened at once (client.md §4.5).
const MAX_OPENINGS: usize = 10;

/// How long the opening of a connection may take, with its name, TCP and TLS (client.md §4.5).
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

impl Network {
    pub(super) fn new(
        mark: Option<u32>,
        ca_file: Option<&Path>,
        udp: Arc<Sockets>,
    ) -> Result<Self, TlsError> {
        // Sessions are remembered in the configuration, for as long as it lives.
        let config = tls::client_config(ca_file)?;
        let connector = |protocols: &[&str]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|&name| name.into()).collect();
            TlsConnector::from(Arc::new(config))
        };

        Ok(Self {
            mark,
            dot: connector(&["dot"]),
            http: connector(&["h2", "http/1.1"]),
            bootstrap: Arc::new(Bootstrap::new(mark, udp)),
            openings: Semaphore::new(MAX_OPENINGS),
        })
    }

    pub(super) async fn connect(&self, addrs: &[SocketAddr]) -> Result<TcpStream, ExchangeError> {
        connect_any(addrs, self.mark)
            .await
            .map_err(|error| ExchangeError::Unreachable(error.to_string()))
    }

    /// Connects to a host that proves to be `host`: a name or an address.
    pub(super) async fn connect_tls(
        &self,
        host: &str,
        port: u16,
        speaking: Speaking,
    ) -> Result<TlsStream<TcpStream>, ExchangeError> {
        let opening = async {
            let host = bare(host);
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| ExchangeError::Failed(format!("{host} is no name of a host")))?;
            let trial = self.bootstrap.trial(host);
            let ips = match host.parse::<IpAddr>() {
                Ok(ip) => vec![ip],
                Err(_) => self.bootstrap.resolve(host).await?,
            };
            let addrs: Vec<_> = ips.into_iter().map(|ip| (ip, port).into()).collect();
            let stream = self.connect(&addrs).await?;
            let connector = match speaking {
                Speaking::Dns => &self.dot,
                Speaking::Http => &self.http,
            };

            let stream = connector.connect(name, stream).await;
            let stream = stream.map_err(|error| no_tls(host, port, &error))?;
            trial.succeed();

            Ok(stream)
        };

        timeout(OPEN_TIMEOUT, opening).await.unwrap_or_else(|_| {
            let limit = OPEN_TIMEOUT.as_secs();
            let cause = format!("no TLS with {host}, port {port}, within {limit} s");
            Err(ExchangeError::Unreachable(cause))
        })
    }
}

/// As certificates and resolvers want it: without the brackets of an address and the dot behind a name.
fn bare(host: &str) -> &str {
    let host = host.strip_suffix('.').unwrap_or(host);

    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn no_tls(host: &str, port: u16, error: &io::Error) -> ExchangeError {
    let cause = format!("no TLS with {host}, port {port}: {error}");
    // Whatever the library finds wrong was said by the server; all else is of the network.
    if error
        .get_ref()
        .is_some_and(|error| error.is::<rustls::Error>())
    {
        ExchangeError::Failed(cause)
    } else {
        ExchangeError::Unreachable(cause)
    }
}
