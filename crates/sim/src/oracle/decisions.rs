//! Packets that their client lets go nowhere: their programs are told at once, and why (client.md §5.2, §5.3).

use std::time::{Duration, Instant};

use super::Way;
use super::judge::{Court, Objection, SLACK, lateness};
use super::names::LAG;
use crate::apps::{Probe, Refusal, Running};
use crate::faults::Faults;
use crate::scenario::Drive;

/// How long it takes a client that nothing keeps from it to answer a packet.
const AT_ONCE: Duration = Duration::from_millis(2);

/// How long a host that something happened to may be busy with it.
const SETTLES: Duration = Duration::from_secs(1);

impl Court<'_> {
    /// Every request that the client must refuse was refused by it, and rightly.
    pub(super) fn decisions(&self, running: &Running) -> Result<(), Objection> {
        if self.faults_lose(running.flow.host) {
            return Ok(());
        }
        for probe in &running.probes {
            let span = (probe.sent_at, probe.sent_at + LAG);
            let wanted = match self.names.ways(running, span)[..] {
                [Way::Prohibited] => Refusal::Prohibited,
                [Way::Unreachable] => Refusal::Unreachable,
                [Way::To(_) | Way::Nowhere] | [] | [_, ..] => continue,
            };
            self.is_refused(running, probe, wanted)?;
        }

        Ok(())
    }

    fn is_refused(
        &self,
        running: &Running,
        probe: &Probe,
        wanted: Refusal,
    ) -> Result<(), Objection> {
        let holds = self.refused_within(running.flow.host);
        let (client, from, until) = (running.flow.host, probe.sent_at, probe.sent_at + holds);
        // Whose token has ended is no client any more.
        if until >= self.over_at
            || self.is_token_over(client, until)
            || self.is_host_disturbed(client, (from, until))
        {
            return Ok(());
        }
        self.count(|judged| match wanted {
            Refusal::Prohibited => judged.prohibited += 1,
            Refusal::Unreachable | Refusal::Other => judged.unreachable += 1,
        });
        let in_time = |at: &Instant| (from..=until).contains(at);
        let mut said = running.refused.iter().filter(|(at, _)| in_time(at));
        if said.clone().any(|(_, why)| *why == wanted) {
            return Ok(());
        }
        let name = &running.flow.name;
        let what = match said.next() {
            Some((_, why)) => format!("`{name}` must be told {wanted:?}, and is told {why:?}"),
            None => {
                format!("`{name}` must be told {wanted:?} within {holds:?}, and is told nothing")
            }
        };

        Err((self.elapsed(from), what))
    }

    /// How long a client may take to refuse a packet: it asks nobody.
    fn refused_within(&self, client: usize) -> Duration {
        let plan = self.scenario.hosts.get(client);
        let is_quick = plan.is_some_and(|plan| plan.faults == Faults::default());

        match (is_quick, self.scenario.drive) {
            (true, Drive::Exact | Drive::EveryMilli) => AT_ONCE,
            (_, drive) => SLACK + lateness(drive),
        }
    }

    /// Whether something happened to a host itself.
    fn is_host_disturbed(&self, host: usize, (from, until): (Instant, Instant)) -> bool {
        let mut own = self.watch.disturbances.iter().filter(|it| it.host == host);

        own.any(|it| {
            let over_at = it.over_at.unwrap_or(self.over_at) + SETTLES;
            it.resource.is_none() && it.began_at <= until && from <= over_at
        })
    }

    fn faults_lose(&self, host: usize) -> bool {
        let plan = self.scenario.hosts.get(host);

        plan.is_some_and(|plan| plan.faults.lose())
    }
}
