//! Asking by TCP and TLS: one connection to a server, messages behind their lengths, many at once (RFC 7766, 7858, 9210).

mod connection;

use std::collections::VecDeque;
use std::mem;
use std::pin::pin;
use std::sync::Arc;

use connlib_tunnel::dns::{ExchangeError, Server};

use super::ask::{Ask, Inbox, refuse};
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
        let opening = open(&server, &network);
        let stream = match gathering(opening, &mut inbox, &mut unsent).await {
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

/// Waits for a connection, and meanwhile takes what is asked for as long as somebody waits for it.
async fn gathering<T>(
    opening: impl Future<Output = T>,
    inbox: &mut Inbox,
    unsent: &mut VecDeque<Unsent>,
) -> T {
    let mut opening = pin!(opening);
    loop {
        tokio::select! {
            opened = &mut opening => return opened,
            Some(ask) = inbox.recv() => {
                unsent.retain(|unsent| unsent.ask.is_awaited());
                unsent.push_back(Unsent { ask, tries: 0 });
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

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_any_longer_does_not_pile_up_during_an_opening() {
        let (sender, mut inbox) = mpsc::unbounded_channel();
        let mut unsent = VecDeque::new();
        let put = || {
            let (ask, outcome) = Ask::new(vec![0; 12], Instant::now());
            assert!(sender.send(ask).is_ok());
            outcome
        };
        let awaited = put();
        for _ in 0..1_000 {
            drop(put());
        }
        let another = put();
        let stuck = gathering(pending::<()>(), &mut inbox, &mut unsent);

        assert!(timeout(Duration::from_secs(1), stuck).await.is_err());

        assert!(inbox.is_empty());
        assert_eq!(unsent.len(), 2);
        drop((awaited, another));
    }
}
