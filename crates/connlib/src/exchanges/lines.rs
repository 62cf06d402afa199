//! One task for each server that is asked by a stream: it owns the connections, and ends when nobody wants them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use connlib_tunnel::dns::{ExchangeError, Server};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ask::{Ask, Inbox};
use super::network::Network;
use super::{Outcome, https, lock, stream};

/// The tasks, by their servers.
pub(super) struct Lines {
    network: Arc<Network>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    inboxes: BTreeMap<Server, mpsc::UnboundedSender<Ask>>,
    tasks: JoinSet<()>,
}

impl Lines {
    pub(super) fn new(network: Arc<Network>) -> Self {
        Self {
            network,
            open: Mutex::default(),
        }
    }

    /// Asks a server by the connection that there is, or a new one.
    pub(super) async fn ask(&self, server: &Server, message: &[u8], deadline: Instant) -> Outcome {
        // A task that ends at this very moment leaves the question unanswered; the next one takes it.
        for _ in 0..2 {
            let (ask, outcome) = Ask::new(message.to_vec(), deadline);
            self.put(server, ask);
            if let Ok(outcome) = outcome.await {
                return outcome;
            }
        }

        let cause = format!("the connection to {server} ended early; this is a bug");
        Err(ExchangeError::Failed(cause))
    }

    /// Opens connections to those of the servers that are asked over HTTPS, unless there are some. Others close them soon where
    /// nothing is asked.
    pub(super) fn open(&self, servers: &[Server]) {
        let open = &mut *lock(&self.open);
        for server in servers {
            let is_open = |inbox: &mpsc::UnboundedSender<Ask>| !inbox.is_closed();
            if let Server::Https(url) = server
                && !open.inboxes.get(server).is_some_and(is_open)
            {
                let (_, inbox) = open.add(server);
                let network = Arc::clone(&self.network);
                open.tasks.spawn(https::run(url.clone(), network, inbox));
            }
        }
    }

    /// Drops all connections.
    pub(super) fn reset(&self) {
        *lock(&self.open) = Open::default();
    }

    fn put(&self, server: &Server, ask: Ask) {
        let open = &mut *lock(&self.open);
        let ask = match open.inboxes.get(server) {
            Some(inbox) => match inbox.send(ask) {
                Ok(()) => return,
                Err(mpsc::error::SendError(ask)) => ask,
            },
            None => ask,
        };

        let (sender, inbox) = open.add(server);
        let _ = sender.send(ask);
        let network = Arc::clone(&self.network);
        match server.clone() {
            Server::Https(url) => open.tasks.spawn(https::run(url, network, inbox)),
            server @ (Server::Plain(_) | Server::Tls { .. }) => {
                open.tasks.spawn(stream::run(server, network, inbox))
            }
        };
    }
}

impl Open {
    /// Makes room for one more task.
    fn add(&mut self, server: &Server) -> (mpsc::UnboundedSender<Ask>, Inbox) {
        while self.tasks.try_join_next().is_some() {}
        self.inboxes.retain(|_, inbox| !inbox.is_closed());
        let (sender, inbox) = mpsc::unbounded_channel();
        self.inboxes.insert(server.clone(), sender.clone());

        (sender, inbox)
    }
}
