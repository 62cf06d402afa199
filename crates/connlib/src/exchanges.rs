//! Carrying DNS exchanges over the host's network (client.md §4.5, gateway.md §12).
//!
//! ```text
//!   Exchanges     what is under way, and what became of it
//!     udp         connected sockets, each used a few times
//!     lines       a task for each server that is asked by a stream
//!       stream    TCP and TLS: messages behind their lengths, pipelined
//!       https     HTTP/2, or a few connections of HTTP/1.1
//!     network     TCP and TLS, out of the tunnel      bootstrap  addresses of servers that have names
//!                                                       once     by TCP, where a datagram didn't do
//! ```
//!
//! Whom to ask, how often and what to make of it is decided elsewhere ([`connlib_tunnel::dns`]).

mod ask;
mod bootstrap;
mod https;
mod lines;
mod network;
mod once;
mod stream;
mod udp;

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connlib_tunnel::dns::{Carrier, Exchange, ExchangeError, ExchangeId, Server};
use connlib_wire::dns::MAX_MESSAGE;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::tls::TlsError;
pub(crate) use bootstrap::Bootstrap;
use lines::Lines;
use network::Network;
use udp::Sockets;

/// What became of an exchange: the answer, with the id of the query.
type Outcome = Result<Vec<u8>, ExchangeError>;

/// Carries exchanges. Lives on a runtime, and is used on it alone.
pub(crate) struct Exchanges {
    carriers: Arc<Carriers>,
    under_way: JoinSet<Outcome>,
    /// Which exchange each task is; as many as there are tasks.
    ids: HashMap<task::Id, ExchangeId>,
    /// What is known without any more work.
    outcomes: VecDeque<(ExchangeId, Outcome)>,
    /// Those to have connections to before anything is asked.
    ready_for: Vec<Server>,
}

/// How many exchanges may be under way (io.md §4).
const MAX_UNDER_WAY: usize = 1_000;

/// Keeps sums of instants in bounds.
const LONGEST: Duration = Duration::from_secs(3_600);

/// The length of a message's header (RFC 1035 §4.1.1).
const HEADER_SIZE: usize = 12;

impl Exchanges {
    /// `mark` is the firewall mark of all sockets; `ca_file` holds roots besides the well-known ones.
    pub(crate) fn new(mark: Option<u32>, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        Ok(Self {
            carriers: Arc::new(Carriers::new(mark, ca_file)?),
            under_way: JoinSet::new(),
            ids: HashMap::new(),
            outcomes: VecDeque::new(),
            ready_for: Vec::new(),
        })
    }

    /// Begins an exchange; [`next`](Self::next) says once what became of it. Never waits.
    pub(crate) fn start(&mut self, exchange: Exchange) {
        let id = exchange.id;
        if self.under_way.len() >= MAX_UNDER_WAY {
            self.outcomes.push_back((id, Err(ExchangeError::Busy)));
            return;
        }

        let deadline = Instant::now() + exchange.within.min(LONGEST);
        let carriers = Arc::clone(&self.carriers);
        let task = self
            .under_way
            .spawn(async move { carriers.carry(exchange, deadline).await });
        self.ids.insert(task.id(), id);
    }

    /// Waits for an exchange to be over; for ever while none is under way. Nothing is lost when this is cancelled.
    pub(crate) async fn next(&mut self) -> (ExchangeId, Outcome) {
        loop {
            if let Some(over) = self.outcomes.pop_front() {
                return over;
            }
            let Some(joined) = self.under_way.join_next_with_id().await else {
                return pending().await;
            };
            self.note(joined);
        }
    }

    /// What resolves the names of hosts that are reached out of the tunnel.
    pub(crate) fn bootstrap(&self) -> Arc<Bootstrap> {
        Arc::clone(&self.carriers.network.bootstrap)
    }

    /// Says which servers resolve the names of others: the system's. Without any the system itself is asked.
    pub(crate) fn set_bootstrap(&mut self, servers: &[SocketAddr]) {
        self.carriers.network.bootstrap.set_servers(servers);
    }

    /// Opens connections to servers before the first question to them comes (client.md §4.5); after each
    /// [`reset`](Self::reset) again. Replaces the servers of earlier calls, whose connections end when they are not used.
    pub(crate) fn get_ready_for(&mut self, servers: &[Server]) {
        self.ready_for = servers.to_vec();
        self.carriers.lines.open(&self.ready_for);
    }

    /// The network changed: all sockets and connections are given up, and what is under way fails.
    pub(crate) fn reset(&mut self) {
        while let Some(joined) = self.under_way.try_join_next_with_id() {
            self.note(joined);
        }
        self.under_way = JoinSet::new();
        let mut cut: Vec<_> = self.ids.drain().map(|(_, id)| id).collect();
        cut.sort_unstable();
        for id in cut {
            let error = ExchangeError::Unreachable("the network changed meanwhile".into());
            self.outcomes.push_back((id, Err(error)));
        }
        self.carriers.reset();
        self.carriers.lines.open(&self.ready_for);
    }

    fn note(&mut self, joined: Result<(task::Id, Outcome), task::JoinError>) {
        let (task, outcome) = joined.unwrap_or_else(|error| {
            let cause = format!("carrying it ended early ({error}); this is a bug");
            (error.id(), Err(ExchangeError::Failed(cause)))
        });
        if let Some(id) = self.ids.remove(&task) {
            self.outcomes.push_back((id, outcome));
        }
    }
}

/// Everything that exchanges have in common.
struct Carriers {
    udp: Arc<Sockets>,
    network: Arc<Network>,
    lines: Lines,
}

impl Carriers {
    fn new(mark: Option<u32>, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let udp = Arc::new(Sockets::new(mark));
        let network = Arc::new(Network::new(mark, ca_file, Arc::clone(&udp))?);
        let lines = Lines::new(Arc::clone(&network));

        Ok(Self {
            udp,
            network,
            lines,
        })
    }

    async fn carry(&self, exchange: Exchange, deadline: Instant) -> Outcome {
        let Exchange {
            server,
            carrier,
            message,
            ..
        } = exchange;
        if !(HEADER_SIZE..=MAX_MESSAGE).contains(&message.len()) {
            let len = message.len();
            let cause = format!("{len} bytes for {server} are no DNS message");
            return Err(ExchangeError::Failed(cause));
        }

        let outcome = timeout_at(deadline, async {
            match (&server, carrier) {
                (&Server::Plain(addr), Carrier::Udp) => self.udp.ask(addr, &message).await,
                (Server::Plain(_) | Server::Tls { .. } | Server::Https(_), _) => {
                    self.lines.ask(&server, &message, deadline).await
                }
            }
        });

        outcome.await.unwrap_or(Err(ExchangeError::TimedOut))
    }

    fn reset(&self) {
        self.udp.reset();
        self.lines.reset();
        self.network.bootstrap.reset();
    }
}

/// Takes a lock; what it guards is whole between any two statements, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
