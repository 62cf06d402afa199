//! What can go wrong, by whose fault it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use connlib_os::netlink::NetlinkError;
use connlib_os::resolver::ResolverError;
use connlib_os::router::RouterError;
use connlib_os::tun::TunError;
use connlib_os::udp::UdpError;
use connlib_portal::server::ServerError;
use connlib_wire::portal::phoenix::Reason;

use crate::data_plane::{DataPlaneEnded, DataPlaneError};
pub use crate::tls::TlsError;
pub use crate::uplink::{ConnectError, ProxyError, ProxyFailure, UrlError};

/// Why a role did not start, or ended by itself.
///
/// Each variant is somebody's to mend, and has an exit code of its own (cli.md).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the caller asked for makes no sense.
    #[error(transparent)]
    Misconfigured(#[from] Misconfigured),
    /// The portal doesn't let us in.
    #[error(transparent)]
    NotAuthorised(#[from] NotAuthorised),
    /// The portal can't be reached.
    #[error(transparent)]
    Network(#[from] Unreachable),
    /// The operating system refuses something.
    #[error(transparent)]
    Os(#[from] OsRefused),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] Failed),
}

/// What the caller asked for makes no sense.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Misconfigured {
    /// The portal's address is none.
    #[error(transparent)]
    Url(Arc<UrlError>),
    /// The certificates can't be used.
    #[error(transparent)]
    Tls(Arc<TlsError>),
    /// Something without which nothing starts was not given.
    #[error("{what} is missing; {next_step}")]
    Missing {
        /// What.
        what: &'static str,
        /// What to do.
        next_step: &'static str,
    },
    /// The portal can't be served like this.
    #[error(transparent)]
    Portal(Arc<ServerError>),
}

/// The portal doesn't let us in.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAuthorised {
    /// The token is wrong, expired or revoked.
    #[error("the portal does not accept the token{}; create a new one with `connlib portal token create`", said(.detail.as_ref()))]
    Token {
        /// What the portal says.
        detail: Option<String>,
    },
    /// Something on the way wants other credentials.
    #[error("the way to the portal wants other credentials{}; look at the proxies in between", said(.detail.as_ref()))]
    Elsewhere {
        /// What it says.
        detail: Option<String>,
    },
    /// The portal refused the join.
    #[error("the portal refused to let us join ({reason}); ask whoever runs it")]
    Rejected {
        /// Why.
        reason: Reason,
    },
}

/// The portal can't be reached.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the portal was away for longer than allowed ({}): {last}", humane(*.waited))]
pub struct Unreachable {
    /// How long it was waited for.
    pub waited: Duration,
    /// What went wrong last.
    pub last: ConnectError,
}

/// The operating system refuses something.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OsRefused {
    /// A UDP socket.
    #[error(transparent)]
    Udp(Arc<UdpError>),
    /// The TUN device.
    #[error(transparent)]
    Tun(Arc<TunError>),
    /// Addresses, routes or rules.
    #[error(transparent)]
    Netlink(Arc<NetlinkError>),
    /// The machine's resolver settings.
    #[error(transparent)]
    Resolver(Arc<ResolverError>),
    /// Passing packets on.
    #[error(transparent)]
    Router(Arc<RouterError>),
    /// The connection to the portal.
    #[error(transparent)]
    Connect(ConnectError),
    /// The portal's sockets.
    #[error(transparent)]
    Portal(Arc<ServerError>),
    /// A thread, a poller, randomness.
    #[error("can't get {what}: {source}; raise this process' limits")]
    Resource {
        /// What.
        what: &'static str,
        /// What the kernel answered.
        source: Arc<std::io::Error>,
    },
    /// A local socket.
    #[error("can't listen on {path}: {source}; check the folder's permissions or give another path", path = path.display())]
    LocalSocket {
        /// Where.
        path: PathBuf,
        /// What the kernel answered.
        source: Arc<std::io::Error>,
    },
    /// A socket to ask a TURN server by.
    #[error(
        "can't ask the TURN server at {addr}: {source}; check the address and that this machine has its IP version"
    )]
    TurnServer {
        /// Where it should be.
        addr: std::net::SocketAddr,
        /// What the kernel answered.
        source: Arc<std::io::Error>,
    },
    /// The address of the health checks.
    #[error("can't serve health checks on {addr}: {source}; choose another address")]
    Health {
        /// Where.
        addr: std::net::SocketAddr,
        /// What the kernel answered.
        source: Arc<std::io::Error>,
    },
}

/// Anything else.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// The loop met something it can't go on with.
    #[error("{0}")]
    DataPlane(String),
    /// The portal's store.
    #[error(transparent)]
    Portal(Arc<ServerError>),
    /// A thread ended without a word.
    #[error("a thread crashed; please report what the log says")]
    Crashed,
}

impl Error {
    pub(crate) fn resource(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| {
            Self::Os(OsRefused::Resource {
                what,
                source: Arc::new(source),
            })
        }
    }
}

impl From<DataPlaneError> for Error {
    fn from(error: DataPlaneError) -> Self {
        match error {
            DataPlaneError::Udp(error) => Self::Os(OsRefused::Udp(Arc::new(error))),
            DataPlaneError::Os(source) => Self::resource("a poller")(source),
        }
    }
}

impl From<DataPlaneEnded> for Error {
    fn from(ended: DataPlaneEnded) -> Self {
        match ended {
            DataPlaneEnded::Crashed => Self::Other(Failed::Crashed),
            DataPlaneEnded::Fatal(_) | DataPlaneEnded::Wait(_) => {
                Self::Other(Failed::DataPlane(ended.to_string()))
            }
        }
    }
}

impl From<UrlError> for Error {
    fn from(error: UrlError) -> Self {
        Self::Misconfigured(Misconfigured::Url(Arc::new(error)))
    }
}

impl From<TlsError> for Error {
    fn from(error: TlsError) -> Self {
        Self::Misconfigured(Misconfigured::Tls(Arc::new(error)))
    }
}

impl From<TunError> for Error {
    fn from(error: TunError) -> Self {
        Self::Os(OsRefused::Tun(Arc::new(error)))
    }
}

impl From<NetlinkError> for Error {
    fn from(error: NetlinkError) -> Self {
        Self::Os(OsRefused::Netlink(Arc::new(error)))
    }
}

impl From<ResolverError> for Error {
    fn from(error: ResolverError) -> Self {
        Self::Os(OsRefused::Resolver(Arc::new(error)))
    }
}

impl From<RouterError> for Error {
    fn from(error: RouterError) -> Self {
        Self::Os(OsRefused::Router(Arc::new(error)))
    }
}

impl From<crate::uplink::UplinkError> for Error {
    fn from(error: crate::uplink::UplinkError) -> Self {
        use crate::uplink::UplinkError;

        match error {
            UplinkError::Token { detail } => Self::NotAuthorised(NotAuthorised::Token { detail }),
            UplinkError::Unauthorized { detail } => {
                Self::NotAuthorised(NotAuthorised::Elsewhere { detail })
            }
            UplinkError::Rejected { reason } => {
                Self::NotAuthorised(NotAuthorised::Rejected { reason })
            }
            UplinkError::GaveUp { after, last } => Self::Network(Unreachable {
                waited: after,
                last,
            }),
            UplinkError::Refused(error) => Self::Os(OsRefused::Connect(error)),
        }
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        let error = Arc::new(error);
        match *error {
            ServerError::PlaintextRefused { .. } | ServerError::Tls(_) => {
                Self::Misconfigured(Misconfigured::Portal(error))
            }
            ServerError::Store(_) => Self::Other(Failed::Portal(error)),
            ServerError::Listen { .. }
            | ServerError::AdminSocket { .. }
            | ServerError::NoRandomness(_)
            | _ => Self::Os(OsRefused::Portal(error)),
        }
    }
}

fn said(detail: Option<&String>) -> String {
    detail
        .map(|detail| format!(" ({detail})"))
        .unwrap_or_default()
}

fn humane(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}
