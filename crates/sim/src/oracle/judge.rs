//! The verdict on a whole run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::{Duration, Instant};

use super::{Access, Names, Relays, Watch};
use crate::apps::{Apps, Arrival, Probe, Running};
use crate::excuse::Excuse;
use crate::limits::{FIRST_REPLY_LOSSY, Kind, NAME_KNOWN};
use crate::names::{Resolver, Servers, Zones};
use crate::report::Judged;
use crate::scenario::{Drive, Event, FlowKind, Scenario};

/// What every round trip may take besides the links: devices that stand, jobs that are late.
pub(super) const SLACK: Duration = Duration::from_millis(120);

/// How long after a disturbance another one can be told from it.
const UNSETTLED_AFTER: Duration = Duration::from_secs(30);

/// How many probes of a lossy world in a row can't all be lost by chance.
pub(super) const NOT_BY_CHANCE: usize = 40;

/// The time that a fetch has for each window, besides round trips, without loss and with it.
const FETCH_WINDOW: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(2_500)];

/// When something should not have been, and what.
pub(crate) type Objection = (Duration, String);

/// What was measured, and how much was judged.
type Verdict = Result<(Vec<(Kind, Duration)>, Judged, Excused), Objection>;

/// How many requests each excuse was there for.
pub(crate) type Excused = BTreeMap<Excuse, u64>;

/// All that a run left behind.
pub(crate) struct Evidence<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) start: Instant,
    pub(crate) apps: &'a Apps,
    pub(crate) access: &'a Access,
    pub(crate) watch: &'a Watch,
    pub(crate) relays: &'a Relays,
    pub(crate) resolver: &'a Resolver,
    pub(crate) names: &'a Names,
    pub(crate) zones: &'a Zones,
    pub(crate) servers: &'a Servers,
}

/// Judges a run, and tells what was measured.
pub(crate) fn judge(evidence: Evidence<'_>) -> Verdict {
    let court = Court::new(evidence);
    let mut measured = Vec::new();
    for (number, running) in court.apps.flows().iter().enumerate() {
        court.flow(number, running, &mut measured)?;
    }
    court.asks()?;
    court.count(|judged| judged.forged += court.watch.forged);
    court.count(|judged| court.relays.count(judged));
    court.upgrades(&mut measured)?;
    for expectation in &court.scenario.expect {
        court.expectation(expectation)?;
    }

    Ok((measured, court.judged.get(), court.excused.into_inner()))
}

/// What loops that are called late may add.
pub(super) fn lateness(drive: Drive) -> Duration {
    match drive {
        Drive::Exact | Drive::EveryMilli => Duration::ZERO,
        Drive::Late => SLACK * 3,
    }
}

/// Who judges, and what they know.
pub(super) struct Court<'a> {
    evidence: Evidence<'a>,
    pub(super) is_lossy: bool,
    /// The longest round trip, through relays at both ends.
    pub(super) round_trip: Duration,
    /// When all is over.
    pub(super) over_at: Instant,
    judged: Cell<Judged>,
    excused: RefCell<Excused>,
}

impl<'a> Deref for Court<'a> {
    type Target = Evidence<'a>;

    fn deref(&self) -> &Evidence<'a> {
        &self.evidence
    }
}

impl<'a> Court<'a> {
    fn new(evidence: Evidence<'a>) -> Self {
        let scenario = evidence.scenario;

        Self {
            is_lossy: scenario.loses(),
            round_trip: scenario.longest_way() * 6 + SLACK + lateness(scenario.drive),
            over_at: evidence.watch.flows_over_at.unwrap_or(evidence.start),
            judged: Cell::default(),
            excused: RefCell::default(),
            evidence,
        }
    }

    /// Counts what is judged.
    pub(super) fn count(&self, add: impl FnOnce(&mut Judged)) {
        let mut judged = self.judged.get();
        add(&mut judged);
        self.judged.set(judged);
    }

    /// Counts what is excused.
    pub(super) fn excuse(&self, excuse: Excuse) {
        *self.excused.borrow_mut().entry(excuse).or_default() += 1;
    }

    fn flow(
        &self,
        number: usize,
        running: &Running,
        measured: &mut Vec<(Kind, Duration)>,
    ) -> Result<(), Objection> {
        match running.flow.kind {
            FlowKind::Ping { .. } => {
                self.first_reply(number, running, measured)?;
                self.probes(running)?;
                self.stays(running)?;
                self.refusals(running)?;
                self.decisions(running)?;
                self.recoveries(running, measured)
            }
            FlowKind::Fetch { bytes } => {
                self.stays(running)?;
                self.fetch(running, bytes)
            }
            FlowKind::Lookup(_) => Ok(()),
        }
    }

    /// Whether candidates can come before the link that they are for: a first attempt may fail then, and be made again.
    pub(super) fn is_disorderly(&self) -> bool {
        self.scenario.portal.reorders.0 > 0
    }

    fn first_reply(
        &self,
        number: usize,
        running: &Running,
        measured: &mut Vec<(Kind, Duration)>,
    ) -> Result<(), Objection> {
        let mut flows = self.apps.flows().iter().take(number);
        let is_first = flows.all(|other| other.flow.host != running.flow.host);
        let Some(first) = running.probes.first().filter(|_| is_first) else {
            return Ok(());
        };
        let holds = match self.is_lossy {
            true => FIRST_REPLY_LOSSY.holds,
            false => self.first_holds(),
        };
        let holds = holds + self.named_holds(running);
        let due_at = first.sent_at + holds;
        if due_at > self.over_at
            || running.probes.iter().any(|probe| self.meets_error(probe))
            || !self.is_granted(running, first.sent_at, due_at)
            || !self.is_reachable(running, first.sent_at)
            || !self.is_reachable(running, due_at)
            || self.is_token_over(running.flow.host, due_at)
            || self.is_flow_disturbed(running, first.sent_at, due_at)
            || !self.resolves(running, due_at)
        {
            return Ok(());
        }
        if running.name().is_some() {
            self.count(|judged| judged.first_replies += 1);
        }
        let replied_at = running
            .probes
            .iter()
            .filter_map(|probe| probe.replied_at)
            .min();
        let took = replied_at.map(|at| at.saturating_duration_since(first.sent_at));
        measured.extend(took.map(|took| (Kind::FirstReply, took)));

        match took {
            Some(took) if took <= holds => Ok(()),
            // Too few of them were sent to say anything.
            None if self.is_lossy && running.probes.len() < NOT_BY_CHANCE => Ok(()),
            Some(_) | None => {
                let what = format!(
                    "the first reply of `{}` took {took:?}, not {holds:?}",
                    running.flow.name
                );
                Err((self.elapsed(first.sent_at), what))
            }
        }
    }

    /// How long the first reply may take where nothing is lost.
    pub(super) fn first_holds(&self) -> Duration {
        let portal = self.scenario.portal;
        let signalling = (portal.latency + portal.jitter) * 12;
        let signalling = match portal.reorders.0 + portal.duplicates.0 {
            0 => signalling,
            _ => signalling + Duration::from_millis(2_500),
        };

        Kind::FirstReply.limit().holds + signalling + self.round_trip * 2
    }

    /// What comes on top for a name, which the gateway must learn and resolve.
    pub(super) fn named_holds(&self, running: &Running) -> Duration {
        match (running.name(), self.is_lossy) {
            (None, _) => Duration::ZERO,
            (Some(_), false) => NAME_KNOWN.goal + self.round_trip + self.servers.longest(),
            (Some(_), true) => NAME_KNOWN.holds + self.round_trip + self.servers.longest(),
        }
    }

    /// How long each disturbance lasted for this flow.
    fn recoveries(
        &self,
        running: &Running,
        measured: &mut Vec<(Kind, Duration)>,
    ) -> Result<(), Objection> {
        let client = running.flow.host;
        for disturbance in &self.watch.disturbances {
            let concerns = self.concerns(disturbance, client, self.destination(running));
            let Some(over_at) = disturbance.over_at.filter(|_| concerns) else {
                continue;
            };
            let until = self.forgiven_until(disturbance, client);
            let (from, kind) = (disturbance.began_at, disturbance.kind);
            let is_allowed = !matches!(kind, Kind::Allowed | Kind::Revoked);
            if !is_allowed || !self.was_answered(client, None, from) {
                continue;
            }
            let Some(took) = self.recovery(running, (from, over_at, until)) else {
                continue;
            };
            let is_alone = self.watch.disturbances.iter().all(|other| {
                let is_same = std::ptr::eq(other, disturbance);
                let is_over = other.over_at.is_some_and(|at| at + UNSETTLED_AFTER < from);
                is_same || other.began_at > over_at + took || is_over
            });
            if is_alone {
                measured.push((kind, took));
            }
        }

        Ok(())
    }

    /// From the end of a disturbance until the last probe that it hit was answered, or the next one was.
    fn recovery(
        &self,
        running: &Running,
        (from, over_at, until): (Instant, Instant, Instant),
    ) -> Option<Duration> {
        let before = from.checked_sub(self.round_trip)?;
        let probes: Vec<&Probe> = running
            .probes
            .iter()
            .filter(|probe| (before..=until).contains(&probe.sent_at))
            .collect();
        let is_hit = |probe: &&Probe| {
            let took = probe.replied_at.map(|at| at - probe.sent_at);
            took.is_none_or(|took| took > self.round_trip)
        };
        let last = probes.iter().rposition(is_hit)?;
        let mut rest = probes.get(last..)?.iter();
        let back_at = rest.find_map(|probe| probe.replied_at)?;

        Some(back_at.saturating_duration_since(over_at))
    }

    /// From the relayed path to the direct one, where nothing else went on.
    fn upgrades(&self, measured: &mut Vec<(Kind, Duration)>) -> Result<(), Objection> {
        let limit = Kind::Upgrade.limit().holds + self.round_trip * 2;
        for (index, (relayed_at, host, is_relayed)) in self.watch.paths.iter().enumerate() {
            if !is_relayed || !self.is_client(*host) {
                continue;
            }
            let peer = self.watch.peers.get(index);
            let paths = self.watch.paths.iter().zip(&self.watch.peers);
            let mut later = paths.skip(index + 1);
            let next = later.find(|((_, other, _), to)| other == host && Some(*to) == peer);
            let Some(((direct_at, _, false), _)) = next else {
                continue;
            };
            if self.is_lossy || self.is_disturbed(*host, *relayed_at, *direct_at) {
                continue;
            }
            let took = *direct_at - *relayed_at;
            measured.push((Kind::Upgrade, took));
            if took > limit {
                let name = self.scenario.host(*host);
                let what = format!("{name} took {took:?} to leave the relay, not {limit:?}");
                return Err((self.elapsed(*direct_at), what));
            }
        }

        Ok(())
    }

    /// A fetch asks again until it has everything: in time it must.
    fn fetch(&self, running: &Running, bytes: u32) -> Result<(), Objection> {
        let flow = &running.flow;
        let mut events = self.scenario.events.iter();
        let begins = events.find_map(|(at, event)| {
            matches!(event, Event::Flow(other) if other.name == flow.name).then_some(*at)
        });
        let began_at = self.start + begins.unwrap_or_default();
        // Whoever got no address has nothing to fetch from: what is answered to it is judged elsewhere (client.md §4.3).
        let meets_error = |it: &Arrival| self.scenario.error_of(it.ip).is_some();
        if running.completed_at.is_some()
            || running.arrivals.iter().any(meets_error)
            || running.to.is_none()
            || self.is_token_over(flow.host, self.over_at)
            || !self.is_granted(running, began_at, self.over_at)
            || !self.is_reachable(running, began_at)
            || !self.is_reachable(running, self.over_at)
            || !self.resolves(running, self.over_at)
        {
            return Ok(());
        }
        let windows = bytes / 16_000 + 2;
        let [calm, lossy] = FETCH_WINDOW;
        let each = self.round_trip + if self.is_lossy { lossy } else { calm };
        let named = self.named_holds(running);
        let mut budget = each * windows + named + FIRST_REPLY_LOSSY.holds;
        for disturbance in &self.watch.disturbances {
            let until = self.forgiven_until(disturbance, flow.host);
            budget +=
                until.saturating_duration_since(disturbance.began_at) + FIRST_REPLY_LOSSY.goal / 3;
        }
        for outage in &self.watch.outages {
            let until = self.outage_until(outage);
            budget += until.saturating_duration_since(outage.began_at);
        }

        match began_at + budget < self.over_at {
            true => Err((
                self.elapsed(self.over_at),
                format!("`{}` is not complete", flow.name),
            )),
            false => Ok(()),
        }
    }

    pub(super) fn elapsed(&self, at: Instant) -> Duration {
        self.watch.since_start(at)
    }
}
