//! What is seen while a world runs.

use std::time::{Duration, Instant};

use super::Reach;
use crate::limits::{Kind, LED_AWAY, UNSETTLED};
use crate::scenario::Scenario;

/// The most STUN messages that a node sends in a second for each client there is: a hundred pairs, each asked and answered
/// four times, and some more.
const MAX_CHECKS: u32 = 1_000;

/// What is seen while a world runs.
pub(crate) struct Watch {
    start: Instant,
    violation: Option<(Duration, String)>,
    datagrams: u64,
    /// Packets that clients sent and must not have.
    pub(crate) forged: u64,
    /// Spans in which datagrams of nodes are counted.
    spans: Vec<(Duration, Duration, u64)>,
    /// Of each host, the current second, and how many STUN messages it has sent in it.
    checks: Vec<(u64, u32)>,
    /// How many of them are too many.
    too_many_checks: u32,
    keeps_order: bool,
    /// When somebody last sent again what others had sent: what was lost on its way arrives for the first time then.
    replayed_at: Option<Instant>,
    /// When somebody sent it from elsewhere.
    copied_at: Vec<Instant>,
    pub(super) disturbances: Vec<Disturbance>,
    /// When the portal was away, for one host or for all.
    pub(super) outages: Vec<Disturbance>,
    /// Who could reach whom, since when.
    pub(super) reach: Vec<(Instant, Reach)>,
    /// When a node's path changed, and whether it is relayed since.
    pub(super) paths: Vec<(Instant, usize, bool)>,
    /// The peer that each of them leads to, as the log names it.
    pub(super) peers: Vec<String>,
    /// What hosts told people.
    lines: Vec<(Duration, usize, String)>,
    pub(super) flows_over_at: Option<Instant>,
}

/// A span in which anything may become of packets.
#[derive(Clone, Debug)]
pub(crate) struct Disturbance {
    pub(crate) kind: Kind,
    /// The client that it concerns; `None` for all.
    pub(crate) client: Option<usize>,
    /// The resource that it concerns; `None` for all.
    pub(crate) resource: Option<usize>,
    pub(crate) host: usize,
    pub(crate) began_at: Instant,
    /// `None` while it lasts.
    pub(crate) over_at: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(scenario: &Scenario, start: Instant) -> Self {
        Self {
            start,
            violation: None,
            datagrams: 0,
            forged: 0,
            spans: Vec::new(),
            checks: vec![(0, 0); scenario.hosts.len()],
            too_many_checks: MAX_CHECKS
                * u32::try_from(scenario.clients().max(1)).unwrap_or(u32::MAX),
            keeps_order: !scenario.reorders(),
            replayed_at: None,
            copied_at: Vec::new(),
            disturbances: Vec::new(),
            outages: Vec::new(),
            reach: vec![(start, Reach::new(scenario))],
            paths: Vec::new(),
            peers: Vec::new(),
            lines: Vec::new(),
            flows_over_at: None,
        }
    }

    pub(crate) fn violate(&mut self, at: Duration, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| (at, what.into()));
    }

    pub(crate) fn violation(&self) -> Option<(Duration, String)> {
        self.violation.clone()
    }

    pub(crate) fn datagrams(&self) -> u64 {
        self.datagrams
    }

    pub(crate) fn take_lines(&mut self) -> Vec<(Duration, usize, String)> {
        std::mem::take(&mut self.lines)
    }

    /// Whether packets must come out in the order they went in at `now`.
    pub(crate) fn keeps_order(&self, now: Instant) -> bool {
        let moved_at = self.paths.last().map(|(at, ..)| *at);
        let mut disorders = [moved_at, self.replayed_at].into_iter().flatten();

        self.keeps_order && disorders.all(|at| now > at + UNSETTLED.holds)
    }

    /// Somebody sends again what others have sent.
    pub(crate) fn replayed(&mut self, now: Instant) {
        self.replayed_at = Some(now);
    }

    /// Somebody sends again what others have sent, from an address of their own.
    pub(crate) fn copied(&mut self, now: Instant) {
        self.replayed(now);
        self.copied_at.push(now);
    }

    /// Whether who was to be reached at `at` may have been taken for somewhere else. Whoever copies a datagram that is on its
    /// way, and is faster than its network, brings the first of its kind: in WireGuard, too, the receiver follows, until the next
    /// genuine one, or until it asks whether anybody is there.
    pub(super) fn is_led_away(&self, at: Instant) -> bool {
        let mut times = self.copied_at.iter();

        times.any(|copied_at| (*copied_at..*copied_at + LED_AWAY.holds).contains(&at))
    }

    pub(crate) fn was_disturbed(&self) -> bool {
        !self.disturbances.is_empty() || !self.outages.is_empty()
    }

    /// Whether all is over, so that nobody has to begin any more.
    pub(crate) fn is_over(&self) -> bool {
        self.flows_over_at.is_some()
    }

    pub(crate) fn flows_are_over(&mut self, now: Instant) {
        self.flows_over_at = Some(now);
    }

    pub(crate) fn count_span(&mut self, from: Duration, until: Duration) {
        self.spans.push((from, until, 0));
    }

    /// How many datagrams nodes sent in a span that was asked for.
    pub(crate) fn counted(&self, from: Duration, until: Duration) -> u64 {
        let mut spans = self.spans.iter();
        let span = spans.find(|(since, end, _)| (*since, *end) == (from, until));

        span.map_or(0, |(_, _, count)| *count)
    }

    pub(crate) fn sent(&mut self, at: Duration, datagrams: u64, is_relay: bool) {
        self.datagrams += datagrams;
        for (from, until, count) in &mut self.spans {
            if !is_relay && (*from..*until).contains(&at) {
                *count += datagrams;
            }
        }
    }

    /// A node sent STUN messages. False if they are more than any pairs of candidates need.
    pub(crate) fn checked(&mut self, at: Duration, host: usize, count: u32) -> bool {
        let Some((second, sent)) = self.checks.get_mut(host) else {
            return true;
        };
        if *second != at.as_secs() {
            (*second, *sent) = (at.as_secs(), 0);
        }
        *sent += count;

        *sent <= self.too_many_checks
    }

    /// A node told something.
    pub(crate) fn hear(&mut self, now: Instant, host: usize, line: String) {
        if line.contains("Path changed") {
            self.paths
                .push((now, host, line.contains("path=\"relayed\"")));
            let mut words = line.split(' ');
            let is_peer = |word: &&str| word.starts_with("gateway=") || word.starts_with("client=");
            let peer = words.find(is_peer).unwrap_or_default().to_owned();
            self.peers.push(peer);
        }
        self.lines.push((self.since_start(now), host, line));
    }

    pub(crate) fn portal_is_back(&mut self, now: Instant) {
        for outage in &mut self.outages {
            if outage.host == usize::MAX {
                outage.over_at.get_or_insert(now);
            }
        }
    }

    pub(super) fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }
}
