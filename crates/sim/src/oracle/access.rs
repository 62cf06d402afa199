//! Who may reach what, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::apps::Request;
use crate::limits::REVOKED;
use crate::scenario::{Role, Scenario};

/// How much later than its wall-clock second an end may be noticed.
const END_SLACK: Duration = Duration::from_millis(1_200);

/// Each client's access to each resource.
pub(crate) struct Access {
    start: Instant,
    /// The changes of each, oldest first.
    changes: BTreeMap<(usize, usize), Vec<(Instant, bool)>>,
}

impl Access {
    pub(crate) fn new(scenario: &Scenario, start: Instant) -> Self {
        let mut access = Self {
            start,
            changes: BTreeMap::new(),
        };
        for (number, resource) in scenario.resources.iter().enumerate() {
            for client in &resource.clients {
                access.set(start, (*client, number), true);
            }
        }

        access
    }

    pub(crate) fn set(&mut self, now: Instant, key: (usize, usize), is_allowed: bool) {
        self.changes.entry(key).or_default().push((now, is_allowed));
    }

    /// Whether `client` may reach `resource` at `at`, and since when that is so.
    pub(crate) fn state(&self, at: Instant, client: usize, resource: usize) -> (bool, Instant) {
        let changes = self.changes.get(&(client, resource));
        let last = changes.and_then(|changes| changes.iter().rev().find(|(since, _)| *since <= at));

        last.map_or((false, self.start), |(since, is_allowed)| {
            (*is_allowed, *since)
        })
    }

    /// Whether a request may come out of a gateway, whose channel has been there since `joined_at`.
    pub(crate) fn may_arrive(
        &self,
        now: Instant,
        scenario: &Scenario,
        gateway: usize,
        joined_at: Option<Instant>,
        request: &Request,
    ) -> Result<(), String> {
        let (name, flow) = (scenario.host(gateway), scenario.flow_name(request.flow));
        let site = match scenario.hosts.get(gateway).map(|host| &host.role) {
            Some(Role::Gateway { site }) => site,
            Some(Role::Client { .. } | Role::Relay) | None => return Ok(()),
        };
        let resources = scenario.resources.iter().enumerate();
        let served: Vec<usize> = resources
            .filter(|(_, resource)| {
                resource.site == *site && resource.network.contains(&request.to)
            })
            .map(|(number, _)| number)
            .collect();
        if served.is_empty() {
            return Err(format!(
                "`{flow}` came out of {name}, which doesn't serve {}",
                request.to
            ));
        }
        if let Some(Role::Client {
            token_ends_at: Some(ends_at),
        }) = scenario.hosts.get(request.host).map(|host| &host.role)
            && now > self.start + *ends_at + END_SLACK
        {
            return Err(format!(
                "`{flow}` came out of {name} after its client's token had ended"
            ));
        }

        let portal = scenario.portal;
        let slack = (portal.latency + portal.jitter) * 2 + REVOKED.holds + END_SLACK / 4;
        let slack = if portal.reorders.0 > 0 {
            slack + END_SLACK
        } else {
            slack
        };
        let is_let_in = served.iter().any(|resource| {
            let (is_allowed, since) = self.state(now, request.host, *resource);
            let told_at = joined_at.map(|joined_at| joined_at.max(since) + slack);
            is_allowed || told_at.is_none_or(|told_at| now <= told_at)
        });

        match is_let_in {
            true => Ok(()),
            false => Err(format!(
                "`{flow}` came out of {name}, though nobody let its client in"
            )),
        }
    }
}
