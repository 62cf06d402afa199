//! What a scenario expects besides what must come true in any world.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::judge::{Court, Objection};
use crate::apps::{Probe, Running};
use crate::scenario::{Expectation, FlowKind, PerMille};

impl Court<'_> {
    /// Whether an expectation has come true.
    pub(super) fn expectation(&self, expectation: &Expectation) -> Result<(), Objection> {
        match *expectation {
            Expectation::Complete { flow, by } => self.complete(flow, by),
            Expectation::Answered { flow, least, most } => {
                let probes = self.probes_of(flow).iter();
                let asks = self.resolver.of_flow(flow);
                let is_lookup = self
                    .running(flow)
                    .is_some_and(|running| matches!(running.flow.kind, FlowKind::Lookup(_)));
                let answered = match is_lookup {
                    true => count(asks.filter(|ask| ask.answer.is_some())),
                    false => count(probes.filter(|probe| probe.replied_at.is_some())),
                };
                self.object_unless((least..=most).contains(&answered), || {
                    let name = self.scenario.flow_name(flow);
                    format!("{answered} of `{name}` were answered")
                })
            }
            Expectation::PathChanges { host, most, from } => {
                let changes = self.watch.paths.iter();
                let changes = count(
                    changes.filter(|(at, other, _)| *other == host && self.elapsed(*at) >= from),
                );
                self.object_unless(changes <= most, || {
                    let name = self.scenario.host(host);
                    format!("the path of {name} changed {changes} times")
                })
            }
            Expectation::Gap { flow, most, from } => {
                let gap = self.gap(flow, from);
                self.object_unless(gap <= most, || {
                    let name = self.scenario.flow_name(flow);
                    format!("`{name}` had no reply for {gap:?}")
                })
            }
            Expectation::Within { flow, most } => {
                let probes = self.probes_of(flow).iter();
                let took = probes.filter_map(|probe| Some(probe.replied_at? - probe.sent_at));
                let longest = took.max();
                self.object_unless(longest.is_some_and(|took| took <= most), || {
                    let name = self.scenario.flow_name(flow);
                    format!("`{name}` took {longest:?}")
                })
            }
            Expectation::Fair {
                ref flows,
                least,
                from,
                until,
            } => self.fair(flows, least, from..until),
            Expectation::Quiet { from, until, most } => {
                let sent = self.watch.counted(from, until);
                self.object_unless(sent <= most, || {
                    format!("{sent} datagrams where {most} are enough")
                })
            }
            Expectation::Said(ref said) => self.said(said),
            Expectation::Reaches { flow, ip } => {
                let arrivals = self.running(flow).map(|running| &running.arrivals);
                let ips = arrivals.into_iter().flatten().map(|arrival| arrival.ip);
                let ips: Vec<IpAddr> = ips.collect();
                self.object_unless(!ips.is_empty() && ips.iter().all(|it| *it == ip), || {
                    let name = self.scenario.flow_name(flow);
                    format!("`{name}` reached {ips:?}")
                })
            }
            // It has looked when it was time.
            Expectation::Path { .. } => Ok(()),
        }
    }

    fn complete(&self, flow: usize, by: Duration) -> Result<(), Objection> {
        let completed_at = self.running(flow).and_then(|running| running.completed_at);
        let at = completed_at.map(|at| self.elapsed(at));

        self.object_unless(at.is_some_and(|at| at <= by), || {
            let name = self.scenario.flow_name(flow);
            format!("`{name}` was complete at {at:?}, not by {by:?}")
        })
    }

    /// Jain's index: 1 if all get the same, 1/n if one gets all.
    fn fair(
        &self,
        flows: &[usize],
        least: PerMille,
        span: Range<Duration>,
    ) -> Result<(), Objection> {
        let shares = flows.iter().filter_map(|flow| self.running(*flow));
        let shares: Vec<u64> = shares
            .map(|running| {
                let pieces = running.pieces_at.iter();
                pieces
                    .filter(|at| span.contains(&self.elapsed(**at)))
                    .count() as u64
            })
            .collect();
        let sum: u64 = shares.iter().sum();
        let squares: u64 = shares.iter().map(|share| share * share).sum();
        let index = sum * sum * 1_000 / (squares * shares.len() as u64).max(1);

        self.object_unless(index >= least.0.into(), || {
            format!("shares of {shares:?} pieces: an index of {index} of a thousand")
        })
    }

    /// The longest time without a reply, from `from` until the last request.
    fn gap(&self, flow: usize, from: Duration) -> Duration {
        let probes = self.probes_of(flow).iter();
        let last = probes
            .clone()
            .map(|probe| self.elapsed(probe.sent_at))
            .max();
        let replies = probes.filter_map(|probe| probe.replied_at);
        let mut replies: Vec<Duration> = replies
            .map(|at| self.elapsed(at))
            .filter(|at| *at >= from)
            .collect();
        replies.sort_unstable();
        let (mut before, mut gap) = (from, Duration::ZERO);
        for at in replies.into_iter().chain(last) {
            gap = gap.max(at.saturating_sub(before));
            before = before.max(at);
        }

        gap
    }

    fn running(&self, flow: usize) -> Option<&Running> {
        self.apps.flows().get(flow)
    }

    fn probes_of(&self, flow: usize) -> &[Probe] {
        self.running(flow)
            .map(|running| &running.probes[..])
            .unwrap_or_default()
    }

    fn object_unless(&self, is_so: bool, what: impl FnOnce() -> String) -> Result<(), Objection> {
        if is_so {
            return Ok(());
        }

        Err((self.elapsed(self.over_at), what()))
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
