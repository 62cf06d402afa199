//! Asking by HTTPS (RFC 8484): one connection of HTTP/2, or a few of HTTP/1.1.

mod connection;
mod target;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use connlib_tunnel::dns::ExchangeError;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Outcome;
use super::ask::{Ask, Inbox, refuse};
use super::network::{Network, Speaking};
use connection::{Connection, Drivers, Flaw, Http1, Http2};
use target::Target;

/// How many connections of HTTP/1.1 there may be, as one carries one request at a time.
const MAX_HTTP1: usize = 4;

/// How long an exchange waits for the first connection; it goes on being opened for the next (client.md §16).
const OPEN_PATIENCE: Duration = Duration::from_secs(2);

/// How long unused connections are kept: longer, and a firewall on the way may have forgotten them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How often a request is made when connections end under it.
const MAX_TRIES: u32 = 2;

/// One server: its connections and what is asked of it.
struct Site {
    target: Arc<Target>,
    network: Arc<Network>,
    /// What waits for a connection.
    waiting: VecDeque<Waiting>,
    /// At most one at a time.
    opening: JoinSet<Result<Connection, ExchangeError>>,
    requests: JoinSet<Done>,
    http2: Option<Http2>,
    idle_http1: Vec<Http1>,
    /// One for each connection of HTTP/1.1, and one here.
    http1: Arc<()>,
    /// Whether one more connection is worth trying beside those that there are.
    may_grow: bool,
    /// When the server last said anything.
    heard_at: Instant,
    idle_since: Instant,
    drivers: Drivers,
}

/// A message that waits for a connection.
struct Waiting {
    ask: Ask,
    tries: u32,
    /// When it has waited long enough for the first connection.
    patient_until: Instant,
}

/// What became of a request.
struct Done {
    ask: Ask,
    tries: u32,
    sent_at: Instant,
    /// `None` for no answer in time.
    result: Option<Result<Vec<u8>, Flaw>>,
    used: Used,
}

/// The connection that a request was made by.
enum Used {
    /// Which one.
    Http2(Http2),
    /// Given back, if it can be used again.
    Http1(Option<Http1>),
}

/// Opens a connection to a server, and keeps it, and others, as long as they are of use.
pub(super) async fn run(url: String, network: Arc<Network>, mut inbox: Inbox) {
    let target = match Target::parse(&url) {
        Ok(target) => target,
        Err(error) => return refuse(&mut inbox, &error),
    };
    let mut site = Site::new(target, network);
    site.open();
    while site.step(&mut inbox).await.is_continue() {}
}

impl Site {
    fn new(target: Target, network: Arc<Network>) -> Self {
        let now = Instant::now();

        Self {
            target: Arc::new(target),
            network,
            waiting: VecDeque::new(),
            opening: JoinSet::new(),
            requests: JoinSet::new(),
            http2: None,
            idle_http1: Vec::new(),
            http1: Arc::default(),
            may_grow: true,
            heard_at: now,
            idle_since: now,
            drivers: Drivers::default(),
        }
    }

    async fn step(&mut self, inbox: &mut Inbox) -> ControlFlow<()> {
        self.request_what_can_be();
        let wakes_at = self.wakes_at();
        tokio::select! {
            ask = inbox.recv() => match ask {
                Some(ask) => self.waiting.push_back(Waiting::new(ask, 0)),
                None => return ControlFlow::Break(()),
            },
            Some(opened) = self.opening.join_next() => self.handle_opened(opened),
            Some(done) = self.requests.join_next() => self.handle_done(done),
            () = sleep_until(wakes_at) => self.give_up_waiting(),
        }
        if self.is_busy() {
            self.idle_since = Instant::now();
        } else if Instant::now() >= self.idle_since + IDLE_TIMEOUT && inbox.is_empty() {
            return ControlFlow::Break(());
        }

        ControlFlow::Continue(())
    }

    /// Hands what waits to connections, and opens one if that is what it needs.
    fn request_what_can_be(&mut self) {
        while let Some(waiting) = self.waiting.pop_front() {
            if !waiting.ask.is_awaited() {
                continue;
            }
            match self.take_connection() {
                Some(connection) => self.request(waiting, connection),
                None => {
                    self.waiting.push_front(waiting);
                    break;
                }
            }
        }

        let count = self.count_http1();
        let is_worth_it = count == 0 || (self.may_grow && count < MAX_HTTP1);
        if !self.waiting.is_empty() && self.opening.is_empty() && is_worth_it {
            self.open();
        }
    }

    fn open(&mut self) {
        let (target, network) = (Arc::clone(&self.target), Arc::clone(&self.network));
        let (drivers, token) = (self.drivers.clone(), Arc::clone(&self.http1));
        self.opening
            .spawn(async move { open(&target, &network, &drivers, token).await });
    }

    fn take_connection(&mut self) -> Option<Connection> {
        if let Some(http2) = self.http2.take_if(|http2| http2.is_closed()) {
            tracing::debug!(host = %self.target.host, "A connection is over");
            drop(http2);
        }
        self.idle_http1.retain(|http1| !http1.is_closed());
        if let Some(http2) = &self.http2 {
            return Some(Connection::Http2(http2.clone()));
        }

        self.idle_http1.pop().map(Connection::Http1)
    }

    fn request(&mut self, waiting: Waiting, connection: Connection) {
        let Waiting { ask, tries, .. } = waiting;
        let target = Arc::clone(&self.target);
        self.requests.spawn(async move {
            let sent_at = Instant::now();
            let (result, used) = match connection {
                Connection::Http2(mut http2) => {
                    let asked = http2.ask(&target, &ask.message);
                    let result = timeout_at(ask.deadline, asked).await.ok();
                    (result, Used::Http2(http2))
                }
                Connection::Http1(mut http1) => {
                    let asked = http1.ask(&target, &ask.message);
                    let result = timeout_at(ask.deadline, asked).await.ok();
                    let is_usable = matches!(result, Some(Ok(_)));
                    (result, Used::Http1(is_usable.then_some(http1)))
                }
            };

            Done {
                ask,
                tries: tries + 1,
                sent_at,
                result,
                used,
            }
        });
    }

    fn handle_opened(&mut self, opened: Result<Result<Connection, ExchangeError>, JoinError>) {
        let opened = opened.unwrap_or_else(|error| {
            let cause = format!("opening a connection ended early ({error}); this is a bug");
            Err(ExchangeError::Failed(cause))
        });
        match opened {
            Ok(Connection::Http2(http2)) => {
                self.http2 = Some(http2);
                self.heard_at = Instant::now();
            }
            Ok(Connection::Http1(http1)) => self.idle_http1.push(http1),
            Err(error) if self.count_http1() > 0 => {
                tracing::debug!(%error, "No more connections than there are");
                self.may_grow = false;
            }
            Err(error) => {
                tracing::debug!(%error, "A name server can't be connected to");
                for Waiting { ask, .. } in self.waiting.drain(..) {
                    ask.answer(Err(error.clone()));
                }
            }
        }
    }

    fn handle_done(&mut self, done: Result<Done, JoinError>) {
        // Who waited for one that ended early asks anew.
        let Ok(done) = done else {
            return;
        };
        let Done {
            ask,
            tries,
            sent_at,
            result,
            used,
        } = done;
        let is_mute = result.is_none() && sent_at >= self.heard_at;
        let is_broken = matches!(result, Some(Err(Flaw::Connection(_)))) || is_mute;
        match used {
            Used::Http1(http1) => self.idle_http1.extend(http1),
            Used::Http2(http2) if is_broken => {
                self.http2.take_if(|current| current.is(&http2));
            }
            Used::Http2(_) => {}
        }

        match result {
            None => ask.answer(Err(ExchangeError::TimedOut)),
            Some(Err(Flaw::Connection(_))) if tries < MAX_TRIES => {
                self.waiting.push_front(Waiting::new(ask, tries));
            }
            Some(result) => {
                self.heard_at = Instant::now();
                ask.answer(self.outcome(result));
            }
        }
    }

    fn outcome(&self, result: Result<Vec<u8>, Flaw>) -> Outcome {
        let url = &self.target.url;
        result.map_err(|flaw| match flaw {
            Flaw::Connection(cause) => ExchangeError::Unreachable(format!("{url}: {cause}")),
            Flaw::Answer(cause) => ExchangeError::Failed(format!("{url}: {cause}")),
        })
    }

    /// Lets those go that have waited long enough.
    fn give_up_waiting(&mut self) {
        let now = Instant::now();
        let has_connection = self.count_http1() > 0;
        let (rest, late) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.waits_until(has_connection) > now);
        self.waiting = rest;
        for Waiting { ask, .. } in late {
            let error = if ask.deadline <= now {
                ExchangeError::TimedOut
            } else {
                let (url, limit) = (&self.target.url, OPEN_PATIENCE.as_secs());
                ExchangeError::Unreachable(format!("{url}: no connection within {limit} s"))
            };
            ask.answer(Err(error));
        }
    }

    fn wakes_at(&self) -> Instant {
        let has_connection = self.count_http1() > 0;
        let waits = self.waiting.iter();
        let first = waits.map(|waiting| waiting.waits_until(has_connection));

        // Requests end by themselves.
        first
            .min()
            .unwrap_or_else(|| self.idle_since + IDLE_TIMEOUT)
    }

    fn is_busy(&self) -> bool {
        !(self.waiting.is_empty() && self.opening.is_empty() && self.requests.is_empty())
    }

    /// How many connections of HTTP/1.1 there are. Nothing waits while there is one of HTTP/2.
    fn count_http1(&self) -> usize {
        // The one that is being opened holds one as well, for as long as it isn't known to be of another version.
        let others = 1 + self.opening.len();

        Arc::strong_count(&self.http1).saturating_sub(others)
    }
}

impl Waiting {
    fn new(ask: Ask, tries: u32) -> Self {
        Self {
            ask,
            tries,
            patient_until: Instant::now() + OPEN_PATIENCE,
        }
    }

    fn waits_until(&self, has_connection: bool) -> Instant {
        if has_connection {
            self.ask.deadline
        } else {
            self.ask.deadline.min(self.patient_until)
        }
    }
}

async fn open(
    target: &Target,
    network: &Network,
    drivers: &Drivers,
    token: Arc<()>,
) -> Result<Connection, ExchangeError> {
    let _right = network.openings.acquire().await;
    let stream = network
        .connect_tls(&target.host, target.port, Speaking::Http)
        .await?;

    Connection::new(stream, drivers, token)
        .await
        .map_err(|error| ExchangeError::Failed(format!("{}: no HTTP: {error}", target.url)))
}
