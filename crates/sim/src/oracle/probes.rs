//! Requests that are sent once: which must have been answered, and what excuses the others.

use std::time::{Duration, Instant};

use super::Way;
use super::excuses::was_up;
use super::judge::{Court, NOT_BY_CHANCE, Objection};
use crate::apps::{Probe, Refusal, Running};
use crate::excuse::Excuse;

impl Court<'_> {
    /// Every probe of a calm time must have been answered, and some of a lossy one.
    pub(super) fn probes(&self, running: &Running) -> Result<(), Objection> {
        let mut lost_in_a_row = 0;
        for (number, probe) in running.probes.iter().enumerate() {
            if self.is_refusable(running, probe) {
                continue;
            }
            self.count(|judged| judged.requests += 1);
            if let Some(excuse) = self.excuse_of(running, probe) {
                if !self.is_answered_in_time(running, probe) && !self.meets_error(probe) {
                    self.excuse(excuse);
                }
                continue;
            }
            if running.name().is_some() {
                self.count(|judged| judged.probes += 1);
            }
            self.count_choice(running, probe);
            if self.meets_error(probe) {
                self.is_told(running, number, probe)?;
                continue;
            }
            if let Some(replied_at) = probe.replied_at {
                lost_in_a_row = 0;
                self.is_in_time(running, number, (probe, replied_at))?;
                continue;
            }
            let last_seen_at = probe.arrived_at.unwrap_or(probe.sent_at);
            if self.watch.is_led_away(last_seen_at) {
                self.excuse(Excuse::LedAway);
                continue;
            }
            lost_in_a_row += 1;
            if !self.is_lossy || lost_in_a_row >= NOT_BY_CHANCE {
                let arrived = match probe.arrived_at {
                    Some(_) => "answered, and the answer is lost",
                    None => "never arrived",
                };
                let what = format!("`{}` {number} {arrived}", running.flow.name);
                return Err((self.elapsed(probe.sent_at), what));
            }
            self.excuse(Excuse::Lost);
        }

        Ok(())
    }

    /// Whether a host behind a gateway answers a request by an ICMP error.
    pub(super) fn meets_error(&self, probe: &Probe) -> bool {
        probe
            .arrived_to
            .is_some_and(|ip| self.scenario.error_of(ip).is_some())
    }

    /// Such an error reaches the program whatever filters say of ICMP (gateway.md §7, §10.2).
    fn is_told(&self, running: &Running, number: usize, probe: &Probe) -> Result<(), Objection> {
        let Some(from) = probe.arrived_at.filter(|_| !self.is_lossy) else {
            return Ok(());
        };
        self.count(|judged| judged.errors += 1);
        let until = from + self.round_trip;
        let is_it =
            |(at, why): &(Instant, Refusal)| *why == Refusal::Other && (from..=until).contains(at);
        if running.refused.iter().any(is_it) {
            return Ok(());
        }
        let name = &running.flow.name;
        let what = format!("`{name}` {number} met an ICMP error, and isn't told so");

        Err((self.elapsed(from), what))
    }

    /// Whether a probe was one to refuse, or for nobody: that is judged elsewhere.
    fn is_refusable(&self, running: &Running, probe: &Probe) -> bool {
        let at = probe.sent_at;
        let ways = self.names.ways(running, (at, at));

        !ways.iter().any(|way| matches!(way, Way::To(_)))
    }

    /// A reply that must come comes in time, where nothing is lost.
    fn is_in_time(
        &self,
        running: &Running,
        number: usize,
        (probe, replied_at): (&Probe, Instant),
    ) -> Result<(), Objection> {
        let holds = self.reply_holds(running, probe);
        let took = replied_at - probe.sent_at;
        if self.is_lossy || took <= holds {
            return Ok(());
        }
        let name = &running.flow.name;
        let what = format!("`{name}` {number} took {took:?}, not {holds:?}");

        Err((self.elapsed(probe.sent_at), what))
    }

    fn is_answered_in_time(&self, running: &Running, probe: &Probe) -> bool {
        let holds = self.reply_holds(running, probe);

        probe
            .replied_at
            .is_some_and(|replied_at| replied_at - probe.sent_at <= holds)
    }

    /// How long the reply to a probe may take.
    fn reply_holds(&self, running: &Running, probe: &Probe) -> Duration {
        // Another flow of its client may have had another resource.
        let is_first = !was_up(running, probe.sent_at);
        let waits = match running.name() {
            None if is_first => self.first_holds(),
            None | Some(_) => self.waits(running, probe.sent_at),
        };

        waits + self.round_trip
    }

    /// How long a probe may wait for whatever its flow needs: nothing, once a reply has come.
    fn waits(&self, running: &Running, sent_at: Instant) -> Duration {
        match running.name() {
            Some(_) if was_up(running, sent_at) => Duration::ZERO,
            Some(_) => self.first_holds() + self.named_holds(running),
            None if self.was_served(running.flow.host, self.chosen(running, sent_at), sent_at) => {
                Duration::ZERO
            }
            None => self.first_holds(),
        }
    }

    /// What excuses a probe, if anything does.
    fn excuse_of(&self, running: &Running, probe: &Probe) -> Option<Excuse> {
        let (client, sent_at) = (running.flow.host, probe.sent_at);
        // What waited for a connection left later than it was sent.
        let left_at = probe.arrived_at.unwrap_or(sent_at).max(sent_at);
        let done_at = left_at + self.waits(running, sent_at) + self.round_trip;
        let is_settled = !self.is_disorderly() || self.was_answered(client, None, sent_at);
        if done_at >= self.over_at {
            return Some(Excuse::End);
        }
        if self.names.ways(running, (sent_at, done_at)).len() > 1 {
            return Some(Excuse::Changed);
        }
        if !self.is_granted(running, sent_at, done_at) {
            return Some(Excuse::NotLetIn);
        }
        if self.is_token_over(client, done_at) {
            return Some(Excuse::TokenOver);
        }
        if let Some(excuse) = self.flow_disturbance(running, sent_at, done_at) {
            return Some(excuse);
        }
        if !self.is_reachable(running, sent_at) {
            return Some(Excuse::NoWay);
        }
        if !self.resolves(running, done_at) {
            return Some(Excuse::NameUnknown);
        }

        (!is_settled).then_some(Excuse::Disorder)
    }
}
