//! Asking by TCP and TLS: one connection to a server, messages behind their lengths, many at once (RFC 7766, 7858, 9210).

mod connection;

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;

use connlib_tunnel::dns::{ExchangeError, Server};

use super::lines::{Ask, Inbox, refuse};
use super::network::{Network, Speaking};
use crate::dial::Transport;
use connection::Connection;

/// A message that isn't on its way.
struct Unsent {
    ask: Ask,
    tries: u32,
}

/// How often a message is sent when connections end under it.
const MAX_TRIES: u32 = 2;

/// Keeps a connection to a server as long as it is of use.
pub(super) async fn run(server: Server, network: Arc<Network>, mut inbox: Inbox) {
    let mut unsent = VecDeque::new();
    loop {
        if unsent.is_empty() {
            let Ok(ask) = inbox.try_recv() else {
                return;
            };
            unsent.push_back(Unsent { ask, tries: 0 });
        }
        let stream = match open(&server, &network).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%server, %error, "A name server can't be connected to");
                for Unsent { ask, .. } in unsent {
                    ask.answer(Err(error.clone()));
                }
                return refuse(&mut inbox, &error);
            }
        };

        let mut connection = Connection::new(stream, mem::take(&mut unsent));
        let end = connection.run(&mut inbox).await;
        tracing::debug!(%server, %end, "A connection to a name server is over");
        for Unsent { ask, tries } in connection.into_unanswered() {
            if tries < MAX_TRIES {
                unsent.push_back(Unsent { ask, tries });
            } else {
                let cause = format!("{server}: {end}");
                ask.answer(Err(ExchangeError::Unreachable(cause)));
            }
        }
    }
}

async fn open(server: &Server, network: &Network) -> Result<Box<dyn Transport>, ExchangeError> {
    Ok(match server {
        Server::Plain(addr) => Box::new(network.connect(&[*addr]).await?),
        Server::Tls { host, port } => {
            Box::new(network.connect_tls(host, *port, Speaking::Dns).await?)
        }
        Server::Https(url) => {
            let cause = format!("{url} is not asked by a bare stream; this is a bug");
            return Err(ExchangeError::Failed(cause));
        }
    })
}

/// Asks one server once, by a connection of its own.
pub(super) async fn ask_once(
    server: SocketAddr,
    mark: Option<u32>,
    message: &[u8],
) -> std::io::Result<Vec<u8>> {
    let stream = crate::dial::connect_any(&[server], mark).await;

    connection::ask_once(stream.map_err(std::io::Error::other)?, message).await
}
