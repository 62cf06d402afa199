//! Who can reach whom, as far as that is certain: through a relay.

use crate::scenario::{EdgeKind, Host, Place, Scenario};

/// Where relays listen.
const RELAY_PORT: u16 = 3_478;

/// What is there at a time.
pub(crate) struct Reach {
    /// Where each host is; `None` while it has no network or doesn't run.
    pub(crate) places: Vec<Option<Place>>,
}

impl Reach {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            places: scenario.hosts.iter().map(|host| Some(host.place)).collect(),
        }
    }

    /// Whether two nodes reach each other through relays that both can use.
    pub(crate) fn is_certain(&self, scenario: &Scenario, one: usize, two: usize) -> bool {
        let relays: Vec<usize> = scenario
            .hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| {
                matches!(
                    host,
                    Host {
                        role: crate::scenario::Role::Relay,
                        ..
                    }
                )
            })
            .map(|(relay, _)| relay)
            .collect();

        relays.iter().any(|relay| {
            let usable = |node| self.uses(scenario, node, *relay);
            usable(one) && usable(two)
        })
    }

    fn uses(&self, scenario: &Scenario, node: usize, relay: usize) -> bool {
        let place = |host: usize| self.places.get(host).copied().flatten();
        let (Some(node), Some(relay)) = (place(node), place(relay)) else {
            return false;
        };
        let v4 = node.ip4.is_some() && relay.ip4.is_some();
        let v6 = node.ip6.is_some() && relay.ip6.is_some();
        let mut edge = node.behind;
        while let Some(number) = edge {
            let Some(next) = scenario.edges.get(number) else {
                return false;
            };
            match next.kind {
                EdgeKind::Blocked => return false,
                EdgeKind::OnlyPort(port) if port != RELAY_PORT => return false,
                EdgeKind::OnlyPort(_) | EdgeKind::Nat(_) | EdgeKind::Firewall { .. } => {}
            }
            edge = next.behind;
        }

        v4 || v6
    }
}
