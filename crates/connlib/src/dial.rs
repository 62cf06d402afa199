//! TCP connections that stay out of the tunnel.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// An open connection, encrypted or not.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// It can't carry the mark that keeps it out of the tunnel.
    #[error("can't mark a socket with {mark:#x} ({source}); run as root or grant CAP_NET_ADMIN")]
    Mark { mark: u32, source: Arc<io::Error> },
    /// An address doesn't answer.
    #[error("can't connect to {addr}: {source}")]
    Tcp {
        addr: SocketAddr,
        source: Arc<io::Error>,
    },
    /// There is no address to try.
    #[error("no address to connect to")]
    NoAddress,
}

/// How long one address may take (portal-protocol.md §3.1).
pub(crate) const TCP_TIMEOUT: Duration = Duration::from_secs(5);

/// How many addresses of each IP version are tried: an answer can name thousands, and each try is a socket.
const MAX_PER_VERSION: usize = 8;

/// The first few addresses of each IP version.
pub(crate) fn few<A>(
    addrs: impl IntoIterator<Item = A>,
    is_ipv4: fn(&A) -> bool,
) -> impl Iterator<Item = A> {
    let (mut v4, mut v6) = (0, 0);
    addrs.into_iter().filter(move |addr| {
        let count = if is_ipv4(addr) { &mut v4 } else { &mut v6 };
        *count += 1;
        *count <= MAX_PER_VERSION
    })
}

/// Tries a [few] addresses at once: a host may advertise one that is dead. `mark` is the connection's firewall mark.
pub(crate) async fn connect_any(
    addrs: &[SocketAddr],
    mark: Option<u32>,
) -> Result<TcpStream, DialError> {
    let mut attempts = JoinSet::new();
    for addr in few(addrs.iter().copied(), SocketAddr::is_ipv4) {
        attempts.spawn(connect(addr, mark));
    }

    let mut last = DialError::NoAddress;
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(stream)) => {
                // All that is said over these connections is short and awaited.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "One of a host's addresses can't be reached");
                // A refused mark is ours to mend; it must not hide behind an unreachable address.
                if !matches!(last, DialError::Mark { .. }) {
                    last = error;
                }
            }
            Err(error) => tracing::debug!(%error, "An attempt to connect ended early"),
        }
    }

    Err(last)
}

async fn connect(addr: SocketAddr, mark: Option<u32>) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Tcp {
        addr,
        source: Arc::new(source),
    };
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(failed)?;
    if let Some(mark) = mark {
        SockRef::from(&socket)
            .set_mark(mark)
            .map_err(|source| DialError::Mark {
                mark,
                source: Arc::new(source),
            })?;
    }

    match timeout(TCP_TIMEOUT, socket.connect(addr)).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const ANY: &str = "127.0.0.1:0";

    #[tokio::test]
    async fn a_dead_address_does_not_hide_one_that_answers() {
        let dead = closed_port().await;
        let listener = TcpListener::bind(ANY).await.unwrap();
        let alive = listener.local_addr().unwrap();

        let stream = connect_any(&[dead, alive], None).await.unwrap();

        assert_eq!(stream.peer_addr().unwrap(), alive);
    }

    #[tokio::test]
    async fn an_address_that_never_answers_costs_no_time() {
        // Nobody accepts, and there is room for one that waits.
        let full = TcpSocket::new_v4().unwrap();
        full.bind(ANY.parse().unwrap()).unwrap();
        let full = full.listen(0).unwrap();
        let silent = full.local_addr().unwrap();
        let _waiting = TcpStream::connect(silent).await.unwrap();
        let listener = TcpListener::bind(ANY).await.unwrap();
        let alive = listener.local_addr().unwrap();

        let addrs = [silent, alive];
        let stream = timeout(TCP_TIMEOUT / 2, connect_any(&addrs, None)).await;
        assert_eq!(stream.unwrap().unwrap().peer_addr().unwrap(), alive);
    }

    #[tokio::test]
    async fn a_few_addresses_of_each_version_are_tried_and_no_more() {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let alive = listener.local_addr().unwrap();
        let v6 = TcpListener::bind("[::1]:0").await.unwrap();
        let alive_v6 = v6.local_addr().unwrap();
        let mut addrs = vec![closed_port().await; 8];

        addrs.push(alive);
        assert!(connect_any(&addrs, None).await.is_err());
        addrs.push(alive_v6);
        let stream = connect_any(&addrs, None).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive_v6);
        addrs.swap(0, 8);
        addrs.truncate(9);
        assert!(connect_any(&addrs, None).await.is_ok());
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_named() {
        let dead = closed_port().await;
        let error = connect_any(&[dead], None).await.unwrap_err();

        assert!(error.to_string().contains(&dead.to_string()), "{error}");
    }

    #[tokio::test]
    async fn connections_carry_the_mark_or_are_not_made() {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let addr = listener.local_addr().unwrap();

        match connect_any(&[addr], Some(0x77)).await {
            Ok(stream) => assert_eq!(SockRef::from(&stream).mark().unwrap(), 0x77),
            Err(error) => assert!(
                matches!(error, DialError::Mark { mark: 0x77, .. }),
                "{error}"
            ),
        }
    }

    async fn closed_port() -> SocketAddr {
        let listener = TcpListener::bind(ANY).await.unwrap();

        listener.local_addr().unwrap()
    }
}
