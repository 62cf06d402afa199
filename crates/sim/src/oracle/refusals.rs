//! Packets that go nowhere: their programs are told, and nobody else's are.

use std::time::Instant;

use super::answers::gateways;
use super::judge::{Court, Objection};
use crate::apps::{Refusal, Running};

impl Court<'_> {
    /// A flow to a name without an address of its family is refused at once (gateway.md §8.4); one that must come through never.
    pub(super) fn refusals(&self, running: &Running) -> Result<(), Objection> {
        if self.is_lossy || self.is_disorderly() {
            return Ok(());
        }
        let holds = self.first_holds() + self.named_holds(running) + self.round_trip;
        for (at, why) in &running.refused {
            if *why == Refusal::Other {
                continue;
            }
            let since = at.checked_sub(holds).unwrap_or(self.start).max(self.start);
            if self.is_served(running, (since, *at)) && self.resolves(running, *at) {
                let name = &running.flow.name;
                let what = format!("`{name}` is refused ({why:?}), and could come through");
                return Err((self.elapsed(*at), what));
            }
        }
        if running.name().is_none() {
            return Ok(());
        }
        for probe in &running.probes {
            let (from, until) = (probe.sent_at, probe.sent_at + holds);
            if until >= self.over_at
                || !self.is_served(running, (from, until))
                || !self.lacks_family(running, until)
            {
                continue;
            }
            self.count(|judged| judged.refusals += 1);
            let mut refusals = running.refused.iter();
            let is_told = |(at, why): &(Instant, Refusal)| {
                *why == Refusal::Unreachable && (from..=until).contains(at)
            };
            if !refusals.any(is_told) {
                let name = &running.flow.name;
                let what = format!("`{name}` leads nowhere, and isn't told so within {holds:?}");
                return Err((self.elapsed(from), what));
            }
        }

        Ok(())
    }

    /// Whether a flow gets through to its gateway all the time.
    fn is_served(&self, running: &Running, (from, until): (Instant, Instant)) -> bool {
        self.is_granted(running, from, until)
            && self.is_reachable(running, from)
            && self.is_reachable(running, until)
            && !self.is_token_over(running.flow.host, until)
            && !self.is_flow_disturbed(running, from, until)
    }

    /// Whether all servers that gateways ask answer, and say from the first question on that the flow's name has no address of
    /// its family.
    fn lacks_family(&self, running: &Running, until: Instant) -> bool {
        let Some(name) = running.name() else {
            return false;
        };
        let Some(asked_at) = self.resolver.times(running.flow.host, name).min() else {
            return false;
        };
        let sites = self.sites(running, until);
        let mut hosts = sites.iter().flat_map(|site| gateways(self.scenario, site));

        hosts.all(|gateway| {
            let span = (asked_at, until);
            self.has_good_servers(gateway, span, None)
                && self.has_no_address(gateway, span, (name, running.flow.to.is_ipv4()))
        })
    }
}
