//! Asking name servers (client.md §4.5–§4.8, gateway.md §11–§12).
//!
//! Whom to ask, for how long, and what is remembered is decided here; an [`Exchange`] is one message that somebody with
//! sockets carries to one server and back.
//!
//! # Carriers' duties
//!
//! * Answer each exchange once, within [`Exchange::within`]; afterwards nobody waits for it.
//! * Take only what comes from where the message went, and is an answer to it ([`is_answer_to`]): go on listening after
//!   anything else.
//! * Keep the socket out of the tunnel.
//!
//! [`is_answer_to`]: connlib_wire::dns::is_answer_to

mod cache;
mod health;
mod inside;
mod listener;
mod lookups;
mod tcp;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use connlib_wire::dns::{Query, Rcode};

pub use crate::ranges::is_sentinel;
pub(crate) use inside::Inside;
pub(crate) use listener::{Asker, Listener};
pub(crate) use lookups::{Ask, Done, Failure, Lookups, Outcome};

/// Names an [`Exchange`], so that its outcome finds back.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExchangeId(pub u64);

/// One message for one name server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exchange {
    /// Its name.
    pub id: ExchangeId,
    /// Who is asked.
    pub server: Server,
    /// How a plain server is asked; the others have one way only.
    pub carrier: Carrier,
    /// The query. Its id is random; a carrier whose protocol wants another one restores it in the answer.
    pub message: Vec<u8>,
    /// How long the answer may take.
    pub within: Duration,
}

/// A name server.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Server {
    /// DNS as it always was, over UDP and TCP (RFC 1035).
    Plain(SocketAddr),
    /// DNS over TLS (RFC 7858).
    Tls {
        /// A name or an address; what the certificate must be for.
        host: String,
        /// Usually 853.
        port: u16,
    },
    /// DNS over HTTPS (RFC 8484): the whole URL, without a query.
    Https(String),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(addr) if addr.port() == 53 => write!(f, "{}", addr.ip()),
            Self::Plain(addr) => write!(f, "{addr}"),
            Self::Tls { host, port } => write!(f, "tls://{host}:{port}"),
            Self::Https(url) => f.write_str(url),
        }
    }
}

/// How a plain server is asked.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Carrier {
    /// By one datagram each way.
    Udp,
    /// By a stream, each message behind its length.
    Tcp,
}

/// Why an exchange brought no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Nothing came in time.
    #[error("no answer in time")]
    TimedOut,
    /// The server, or the network on the way, refuses; or there is no such network.
    #[error("can't be reached: {0}")]
    Unreachable(String),
    /// The server's name doesn't resolve, its certificate isn't accepted, or it speaks another protocol.
    #[error("can't be talked to: {0}")]
    Failed(String),
    /// Too much is asked at once; the server has nothing to do with it.
    #[error("too many exchanges at once")]
    Busy,
    /// The way to the server has changed meanwhile: it may be asked again by the new one.
    #[error("the way to it has changed")]
    Interrupted,
}

/// How a question is refused that no name server here understands, whatever it asks for (RFC 1035 §4.1.1, RFC 6891 §6.1.3).
pub(crate) fn not_understood(query: &Query) -> Option<Rcode> {
    if query.opcode != 0 {
        return Some(Rcode::NOTIMP);
    }
    let version = query.edns.as_ref().map_or(0, |edns| edns.version);

    (version > 0).then_some(Rcode::BADVERS)
}

/// What the system would resolve names with.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Resolvers {
    /// Its name servers, best first.
    pub servers: Vec<SocketAddr>,
    /// The domains that names of one label are completed with.
    pub search: Vec<String>,
    /// Names that are no matter of any server (`/etc/hosts`): lower case, without the trailing dot.
    pub hosts: Vec<(String, Vec<IpAddr>)>,
}
