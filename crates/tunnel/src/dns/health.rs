//! How name servers have done lately.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Carrier, Server};

#[derive(Debug, Default)]
pub(super) struct Health {
    servers: BTreeMap<Server, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The smoothed round trip, and when it was measured last.
    round_trip: Option<(Duration, Instant)>,
    failures_in_a_row: u32,
    failed_at: Option<Instant>,
    speaks_no_edns: bool,
}

/// A round trip says nothing about a server after this long: it is tried again, whatever it was (gateway.md §1).
const MAX_AGE: Duration = Duration::from_secs(60);

/// So many failures in a row, and a server is asked last,
const MAX_FAILURES: u32 = 2;

/// until this long after the latest one.
const DEAD_FOR: Duration = Duration::from_secs(30);

/// How long to wait for a server that nothing is known of before another is asked too. Most resolvers answer what they have
/// to look up themselves within that.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for what needs a connection first.
const PATIENCE_FOR_STREAMS: Duration = Duration::from_millis(2_500);

/// The bounds of what follows from a server's round trip.
const LEAST_PATIENCE: Duration = Duration::from_millis(300);
const MOST_PATIENCE: Duration = Duration::from_millis(1_500);

/// More servers than anybody configures: what is known of them isn't worth more memory.
const MAX_SERVERS: usize = 256;

impl Health {
    pub(super) fn answered(&mut self, now: Instant, server: &Server, took: Duration) {
        let known = self.known(server);
        known.failures_in_a_row = 0;
        known.failed_at = None;
        let smoothed = match known.round_trip {
            Some((former, at)) if now.saturating_duration_since(at) < MAX_AGE => {
                (former * 7 + took) / 8
            }
            Some(_) | None => took,
        };
        known.round_trip = Some((smoothed, now));
    }

    pub(super) fn failed(&mut self, now: Instant, server: &Server) {
        let known = self.known(server);
        known.failures_in_a_row = known.failures_in_a_row.saturating_add(1);
        known.failed_at = Some(now);
    }

    pub(super) fn speaks_no_edns(&mut self, server: &Server) {
        self.known(server).speaks_no_edns = true;
    }

    pub(super) fn may_have_edns(&self, server: &Server) -> bool {
        self.servers
            .get(server)
            .is_none_or(|known| !known.speaks_no_edns)
    }

    /// How long to wait for an answer of `server` before another one is asked too.
    pub(super) fn patience(&self, now: Instant, server: &Server, carrier: Carrier) -> Duration {
        match (server, carrier) {
            (Server::Plain(_), Carrier::Udp) => match self.round_trip(now, server) {
                Some(round_trip) => (round_trip * 3 + Duration::from_millis(100))
                    .clamp(LEAST_PATIENCE, MOST_PATIENCE),
                None => PATIENCE,
            },
            (Server::Plain(_), Carrier::Tcp) | (Server::Tls { .. } | Server::Https(_), _) => {
                PATIENCE_FOR_STREAMS
            }
        }
    }

    pub(super) fn sorted(&self, now: Instant, servers: &[Server]) -> Vec<Server> {
        let mut sorted = servers.to_vec();
        sorted.sort_by_key(|server| (self.is_dead(now, server), self.round_trip(now, server)));

        sorted
    }

    pub(super) fn dead_last(&self, now: Instant, mut servers: Vec<Server>) -> Vec<Server> {
        servers.sort_by_key(|server| self.is_dead(now, server));

        servers
    }

    fn is_dead(&self, now: Instant, server: &Server) -> bool {
        self.servers.get(server).is_some_and(|known| {
            known.failures_in_a_row >= MAX_FAILURES
                && known
                    .failed_at
                    .is_some_and(|at| now.saturating_duration_since(at) < DEAD_FOR)
        })
    }

    fn round_trip(&self, now: Instant, server: &Server) -> Option<Duration> {
        let (round_trip, at) = self.servers.get(server)?.round_trip?;

        (now.saturating_duration_since(at) < MAX_AGE).then_some(round_trip)
    }

    fn known(&mut self, server: &Server) -> &mut Known {
        if self.servers.len() >= MAX_SERVERS && !self.servers.contains_key(server) {
            self.servers.clear();
        }

        self.servers.entry(server.clone()).or_default()
    }
}
