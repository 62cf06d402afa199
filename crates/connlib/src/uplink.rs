//! The connection to the portal, for all three roles (portal-protocol.md §1-§3).
//!
//! ```text
//!   uplink     attempts, and the time between them
//!   session    one attempt: socket, upgrade, then texts both ways
//!   channel    what is said on one socket and when; pure
//!   transport  names, TLS           url  addresses      upgrade  from HTTP to WebSocket, in either generation
//!   proxy      CONNECT, variables   http heads of answers        refusal  what they mean        backoff  delays
//! ```
//!
//! It runs apart from the data plane, which must not cost it a heartbeat.

mod backoff;
mod channel;
mod http;
mod protocol;
mod proxy;
mod refusal;
mod session;
mod transport;
mod upgrade;
mod url;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_wire::key::PublicKey;
use connlib_wire::portal::{Generation, phoenix};
use connlib_wire::secret::Secret;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::sleep;

pub(crate) use protocol::{OfClient, OfGateway, OfRelay, Protocol};
pub(crate) use url::{Introduction, PortalUrl};

pub use proxy::{Proxy, ProxyError, ProxyFailure};
pub use url::UrlError;

use self::url::Security;
use crate::exchanges::Bootstrap;
use crate::tls::{ClientCertificate, TlsError};
use backoff::Backoff;
use session::{Over, Session};
use transport::Dialer;

/// Why a portal was not reached.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name of its host leads nowhere.
    #[error("the name {host} can't be resolved ({source}); check it, and the resolver")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        source: Arc<io::Error>,
    },
    /// The name of its host has no addresses.
    #[error("the name {host} has no addresses; check it")]
    NoAddress {
        /// The host.
        host: String,
    },
    /// The connection can't carry the mark that keeps it out of the tunnel.
    #[error(
        "can't mark a TCP socket with {mark:#x} ({source}); run as root or grant CAP_NET_ADMIN \
         (`setcap cap_net_admin+ep` on the program)"
    )]
    Mark {
        /// The mark.
        mark: u32,
        /// What the kernel answered.
        source: Arc<io::Error>,
    },
    /// Its address doesn't answer.
    #[error("can't connect to {addr}: {source}; check the network and what listens there")]
    Tcp {
        /// The address.
        addr: SocketAddr,
        /// What the kernel answered.
        source: Arc<io::Error>,
    },
    /// The proxy on the way doesn't lead to it.
    #[error("no way to the portal by the proxy {proxy}: {source}")]
    Proxy {
        /// The proxy, without credentials.
        proxy: String,
        /// What is wrong.
        source: ProxyFailure,
    },
    /// It can't be trusted, or speaks no TLS.
    #[error("no TLS with the portal: {source}; check its certificate and the extra roots")]
    Tls {
        /// What is wrong.
        source: Arc<io::Error>,
    },
    /// It speaks something else.
    #[error("the portal does not speak WebSocket: {source}; check the address")]
    WebSocket {
        /// What is wrong.
        source: Arc<tokio_tungstenite::tungstenite::Error>,
    },
    /// It answered with an HTTP status.
    #[error("the portal answered {status}{}", detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default())]
    Status {
        /// The status.
        status: u16,
        /// What it says about it.
        detail: Option<String>,
    },
    /// It took too long.
    #[error("the portal did not answer in time; check the network and the portal")]
    TimedOut,
    /// The connection ended.
    #[error("the connection ended: {reason}")]
    Ended {
        /// Why.
        reason: String,
    },
}

/// Why there won't be a connection any more.
#[derive(Clone, Debug)]
pub(crate) enum UplinkError {
    /// The token is of no use, and nothing else will do.
    Token { detail: Option<String> },
    /// Something wants other credentials; the token may be good.
    Unauthorized { detail: Option<String> },
    /// The portal refused the join.
    Rejected { reason: phoenix::Reason },
    /// It was not reached for longer than allowed.
    GaveUp { after: Duration, last: ConnectError },
    /// The operating system doesn't let us.
    Refused(ConnectError),
}

/// What an uplink is told once.
pub(crate) struct UplinkConfig {
    pub(crate) url: PortalUrl,
    pub(crate) token: Option<Secret>,
    /// What the portal may want to see beside a token, or instead of one.
    pub(crate) certificate: Option<ClientCertificate>,
    /// Who connects us, if not ourselves.
    pub(crate) proxy: Option<Proxy>,
    pub(crate) introduction: Introduction,
    /// What the join carries.
    pub(crate) join: Box<RawValue>,
    /// How long the portal may be away, as the sum of all delays; `None` for ever.
    pub(crate) max_partition_time: Option<Duration>,
    /// The seed of the delays.
    pub(crate) seed: [u8; 32],
}

/// What an uplink is told later.
#[derive(Debug)]
pub(crate) enum ToUplink<M> {
    /// Say this; lost unless the channel is joined.
    Message(M),
    /// Be silent until the next [`Connect`](Self::Connect).
    Disconnect,
    /// Connect anew, at once, under this key.
    Connect(Option<PublicKey>),
    /// The network changed, or the machine slept: see at once whether the connection still works. One that doesn't, an
    /// attempt and a pause begin anew.
    Check,
    /// Something about the network is different: see whether a connection would still leave from the same address.
    CheckSource,
}

/// What an uplink tells.
#[derive(Debug)]
pub(crate) enum FromUplink<M> {
    /// The channel is joined, in this generation.
    Joined(Generation),
    /// It is not any more.
    Away,
    /// Something went wrong, and another attempt follows after that time.
    Failing(ConnectError, Duration),
    /// The portal said something.
    Message(M),
    /// It is over; nothing follows.
    Failed(UplinkError),
}

/// The connection of one role. Dropping its senders and receivers ends it.
#[derive(Debug)]
pub(crate) struct Uplink<P: Protocol> {
    session: Session<P>,
    backoff: Backoff,
    waited: Duration,
    commands: mpsc::Receiver<ToUplink<P::ToPortal>>,
    events: mpsc::Sender<FromUplink<P::FromPortal>>,
}

/// How many messages may wait in either direction (io.md §1.1).
pub(crate) const CHANNEL_SIZE: usize = 128;

impl<P: Protocol> Uplink<P> {
    /// Prepares a connection; nothing is sent before [`ToUplink::Connect`]. `mark` is the firewall mark of its sockets;
    /// without `bootstrap` the system resolves the portal's name.
    pub(crate) fn new(
        config: UplinkConfig,
        mark: Option<u32>,
        ca_file: Option<&Path>,
        bootstrap: Option<Arc<Bootstrap>>,
        commands: mpsc::Receiver<ToUplink<P::ToPortal>>,
        events: mpsc::Sender<FromUplink<P::FromPortal>>,
    ) -> Result<Self, TlsError> {
        let certificate = config.certificate.as_ref();
        if certificate.is_some() && config.url.security() == Security::Plain {
            return Err(TlsError::Plaintext);
        }
        let proxy = config.proxy.clone();
        let dialer = Dialer::new(mark, ca_file, certificate, proxy, bootstrap)?;
        let backoff = Backoff::new(config.max_partition_time, config.seed);

        Ok(Self {
            session: Session::new(dialer, config),
            backoff,
            waited: Duration::ZERO,
            commands,
            events,
        })
    }

    /// Keeps the connection up until it is told to end, or can't.
    pub(crate) async fn run(mut self, clock: Clock) {
        let Some(mut key) = self.idle().await else {
            return;
        };
        loop {
            let mut was_joined = false;
            let over = self
                .session
                .run(
                    clock,
                    key,
                    &mut self.commands,
                    &self.events,
                    &mut was_joined,
                )
                .await;
            if was_joined {
                self.forget_delays();
                if self.events.send(FromUplink::Away).await.is_err() {
                    return;
                }
            }

            let next = match over {
                Over::Reconnect(key) => {
                    self.forget_delays();
                    Some(key)
                }
                Over::Lost { error } => {
                    self.forget_delays();
                    self.tell(was_joined, error, Duration::ZERO).await;
                    Some(key)
                }
                Over::Disconnected => self.idle().await,
                Over::Abandoned => return,
                Over::Failed(error) => return self.fail(error).await,
                Over::Retry { error, after } => match self.backoff.delay(after) {
                    None => {
                        let after = self.waited;
                        return self.fail(UplinkError::GaveUp { after, last: error }).await;
                    }
                    Some(delay) => {
                        self.tell(was_joined, error, delay).await;
                        self.waited += delay;
                        self.pause(delay, key).await
                    }
                },
            };
            let Some(next) = next else {
                return;
            };
            key = next;
        }
    }

    /// One line when the portal goes away; how it is to be reached again is for who looks for it.
    async fn tell(&self, was_joined: bool, error: ConnectError, delay: Duration) {
        let is_news = was_joined || self.waited.is_zero();
        if is_news {
            tracing::info!(%error, "The portal is away; trying again");
        } else {
            tracing::debug!(%error, ?delay, "The portal is still away");
        }
        // Nobody listening any more is found out with the next command.
        let _ = self.events.send(FromUplink::Failing(error, delay)).await;
    }

    async fn fail(self, error: UplinkError) {
        let _ = self.events.send(FromUplink::Failed(error)).await;
    }

    /// The next delay is the first again.
    fn forget_delays(&mut self) {
        self.backoff.reset();
        self.waited = Duration::ZERO;
    }

    /// Waits to be told to connect, and returns the key.
    async fn idle(&mut self) -> Option<Option<PublicKey>> {
        loop {
            match self.commands.recv().await? {
                ToUplink::Connect(key) => {
                    self.forget_delays();
                    self.session.start_over();
                    return Some(key);
                }
                ToUplink::Disconnect
                | ToUplink::Message(_)
                | ToUplink::Check
                | ToUplink::CheckSource => {}
            }
        }
    }

    /// Waits before the next attempt, and returns its key.
    async fn pause(
        &mut self,
        delay: Duration,
        key: Option<PublicKey>,
    ) -> Option<Option<PublicKey>> {
        let over = sleep(delay);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Some(key),
                command = self.commands.recv() => match command? {
                    ToUplink::Message(_) | ToUplink::CheckSource => {}
                    ToUplink::Disconnect => return self.idle().await,
                    ToUplink::Check => {
                        self.forget_delays();
                        return Some(key);
                    }
                    ToUplink::Connect(key) => {
                        self.forget_delays();
                        return Some(key);
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests;
