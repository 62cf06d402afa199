//! The addresses of hosts that are reached out of the tunnel: the portal, and name servers that have names.
//!
//! The system's servers are asked and never those of the portal: to reach the portal, such a name may be needed. The system's own
//! resolver is asked only while no servers are known, because what it asks may be us.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connlib_tunnel::dns::{Carrier, ExchangeError, is_sentinel};
use connlib_wire::dns::{Answer, Name, Query, Rcode, RecordType};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::udp::Sockets;
use super::{lock, once};
use crate::dial::few;

/// Resolves names, and remembers the addresses.
pub(crate) struct Bootstrap {
    mark: Option<u32>,
    udp: Arc<Sockets>,
    state: Mutex<State>,
    /// Tells that whom to ask, or the way there, has changed; sent under the lock of the state.
    changed: watch::Sender<()>,
}

/// Somebody tries to reach a host. Unless that [succeeds](Self::succeed) its addresses are looked up anew the next time.
#[must_use = "dropping it forgets the host"]
pub(crate) struct Trial<'a> {
    bootstrap: &'a Bootstrap,
    host: &'a str,
    is_over: bool,
}

#[derive(Default)]
struct State {
    servers: Vec<SocketAddr>,
    known: BTreeMap<String, Known>,
}

struct Known {
    ips: Vec<IpAddr>,
    until: Instant,
}

/// What servers say about a name.
#[derive(Debug, Default)]
struct Found {
    /// Each address with the seconds for which it may be kept.
    ips: BTreeMap<IpAddr, u32>,
    /// Whether all say that there is no such name.
    is_denied: bool,
    /// What the last one that is of no help says.
    complaint: Option<String>,
}

/// How long answers are waited for, by each carrier (client.md §4.5).
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long the others are waited for once a server has said all there is to say: a dead one must not cost everybody
/// [`TIMEOUT`].
const GRACE: Duration = Duration::from_millis(200);

/// The shortest and the longest time that addresses are kept, in seconds.
const KEEP: (u32, u32) = (30, 3_600);

impl Bootstrap {
    pub(super) fn new(mark: Option<u32>, udp: Arc<Sockets>) -> Self {
        Self {
            mark,
            udp,
            state: Mutex::default(),
            changed: watch::Sender::default(),
        }
    }

    /// Our own addresses among the servers, which a killed client may have left, are not asked.
    pub(super) fn set_servers(&self, servers: &[SocketAddr]) {
        let others = servers.iter().filter(|it| !is_sentinel(it.ip()));
        let servers: Vec<_> = others.copied().collect();
        let mut state = lock(&self.state);
        if state.servers != servers {
            *state = State {
                servers,
                known: BTreeMap::new(),
            };
            self.changed.send_replace(());
        }
    }

    /// Whether it knows whom to ask.
    pub(crate) fn has_servers(&self) -> bool {
        !lock(&self.state).servers.is_empty()
    }

    /// Forgets addresses, and asks anew for those that are being looked for: on another network there may be others.
    pub(super) fn reset(&self) {
        let mut state = lock(&self.state);
        state.known.clear();
        self.changed.send_replace(());
    }

    /// Begins to try what [`resolve`](Self::resolve) says about a host.
    pub(crate) fn trial<'a>(&'a self, host: &'a str) -> Trial<'a> {
        Trial {
            bootstrap: self,
            host,
            is_over: false,
        }
    }

    /// Finds a few addresses of a host, at least one. When whom to ask changes meanwhile, it begins anew.
    pub(crate) async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ExchangeError> {
        let mut changes = self.changed.subscribe();
        loop {
            let servers = {
                let state = lock(&self.state);
                changes.mark_unchanged();
                let known = state.known.get(host);
                if let Some(known) = known.filter(|known| known.until > Instant::now()) {
                    return Ok(known.ips.clone());
                }
                state.servers.clone()
            };
            let found = tokio::select! {
                biased;
                _ = changes.changed() => continue,
                found = self.look_up(host, &servers) => found?,
            };

            let ips: Vec<_> = few(found.ips.keys().copied(), IpAddr::is_ipv4).collect();
            let (shortest, longest) = KEEP;
            let ttl = found.ips.into_values().min().unwrap_or_default();
            let ttl = ttl.clamp(shortest, longest);
            let now = Instant::now();
            let known = Known {
                ips: ips.clone(),
                until: now + Duration::from_secs(ttl.into()),
            };
            let mut state = lock(&self.state);
            if changes.has_changed().is_ok_and(|has_changed| has_changed) {
                continue;
            }
            state.known.retain(|_, known| known.until > now);
            state.known.insert(host.to_owned(), known);

            return Ok(ips);
        }
    }

    /// Asks for the addresses of a host, and fails without any.
    async fn look_up(&self, host: &str, servers: &[SocketAddr]) -> Result<Found, ExchangeError> {
        let failed = |cause: &dyn std::fmt::Display| {
            ExchangeError::Failed(format!("the name {host} can't be resolved: {cause}"))
        };
        let found = if servers.is_empty() {
            self.ask_system(host)
                .await
                .map_err(|error| failed(&error))?
        } else {
            let name = Name::parse(host).map_err(|error| failed(&error))?;
            self.ask_all(servers, &name).await
        };
        if found.ips.is_empty() {
            return Err(if found.is_denied {
                failed(&"there is no such name")
            } else {
                failed(&found.complaint.as_deref().unwrap_or("it has no addresses"))
            });
        }

        Ok(found)
    }

    async fn ask_all(&self, servers: &[SocketAddr], name: &Name) -> Found {
        let found = self.ask_by(Carrier::Udp, servers, name).await;
        if !found.ips.is_empty() || found.is_denied {
            return found;
        }
        tracing::debug!(complaint = ?found.complaint, "No address by UDP; asking by TCP");

        self.ask_by(Carrier::Tcp, servers, name).await
    }

    async fn ask_by(&self, carrier: Carrier, servers: &[SocketAddr], name: &Name) -> Found {
        let mut asked = FuturesUnordered::new();
        for &server in servers {
            for kind in [RecordType::A, RecordType::AAAA] {
                asked.push(async move { (server, self.ask(carrier, server, name, kind).await) });
            }
        }

        let mut found = Found {
            is_denied: true,
            ..Found::default()
        };
        let mut said = BTreeMap::<SocketAddr, u32>::new();
        let mut deadline = Instant::now() + TIMEOUT;
        loop {
            let next = tokio::select! {
                next = asked.next() => next,
                () = sleep_until(deadline) => {
                    found.is_denied = false;
                    found.complaint.get_or_insert_with(|| "no answer in time".into());
                    return found;
                }
            };
            let Some((server, answer)) = next else {
                return found;
            };
            *said.entry(server).or_default() += 1;
            match answer {
                Ok(answer) => {
                    found.is_denied &= answer.rcode() == Rcode::NXDOMAIN;
                    found.ips.extend(answer.addresses());
                }
                Err(complaint) => {
                    found.is_denied = false;
                    found.complaint = Some(complaint);
                }
            }
            let is_complete = said.values().any(|&answers| answers == 2);
            if is_complete && !found.ips.is_empty() {
                deadline = deadline.min(Instant::now() + GRACE);
            }
        }
    }

    /// Asks one server about one type; an answer that is of no help is an error.
    async fn ask(
        &self,
        carrier: Carrier,
        server: SocketAddr,
        name: &Name,
        kind: RecordType,
    ) -> Result<Answer, String> {
        let blame = |error: &dyn std::fmt::Display| format!("{server}: {error}");
        let [a, b, ..] = connlib_os::random::seed().map_err(|error| blame(&error))?;
        // Without EDNS, which not every router's server understands.
        let message = Query::new(name, kind).to_upstream(u16::from_be_bytes([a, b]), false);
        let answer = match carrier {
            Carrier::Udp => {
                let answer = self.udp.ask(server, &message).await;
                answer.map_err(|error| error.to_string())?
            }
            Carrier::Tcp => {
                let answer = once::ask(server, self.mark, &message).await;
                answer.map_err(|error| blame(&error))?
            }
        };

        let answer = Answer::parse(answer).map_err(|error| blame(&error))?;
        match answer.rcode() {
            Rcode::NOERROR | Rcode::NXDOMAIN => Ok(answer),
            rcode => Err(blame(&rcode)),
        }
    }

    async fn ask_system(&self, host: &str) -> io::Result<Found> {
        let addrs = lookup_host((host, 0)).await?;
        let (shortest, _) = KEEP;

        Ok(Found {
            ips: addrs.map(|addr| (addr.ip(), shortest)).collect(),
            ..Found::default()
        })
    }
}

impl Trial<'_> {
    /// The host was reached.
    pub(crate) fn succeed(mut self) {
        self.is_over = true;
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            lock(&self.bootstrap.state).known.remove(self.host);
        }
    }
}
