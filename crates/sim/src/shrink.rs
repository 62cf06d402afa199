//! Makes a failing scenario smaller.

use crate::report::Failure;
use crate::scenario::{Link, Manners, PortalLink, Scenario, Upstream};
use crate::world::World;

/// How many worlds it tries at most.
const ATTEMPTS: usize = 400;

/// Drops whatever a failure doesn't need: events, faults, bad links, expectations; and ends early.
pub fn shrink(failure: Failure) -> Failure {
    let mut shrinker = Shrinker {
        best: failure,
        attempts: ATTEMPTS,
    };
    let end = shrinker.best.at + std::time::Duration::from_secs(30);
    if end < shrinker.best.scenario.lasts {
        shrinker.attempt(|scenario| scenario.lasts = end);
    }
    loop {
        let before = shrinker.attempts;
        let had = shrinker.size();
        shrinker.pass();
        if shrinker.size() == had || shrinker.attempts == 0 || shrinker.attempts == before {
            return shrinker.best;
        }
    }
}

struct Shrinker {
    best: Failure,
    attempts: usize,
}

impl Shrinker {
    fn pass(&mut self) {
        // Flows are meant by number in expectations, so that only worlds without those lose some.
        let is_free = self.best.scenario.expect.is_empty();
        for event in (0..self.best.scenario.events.len()).rev() {
            let events = &self.best.scenario.events;
            let is_flow = events
                .get(event)
                .is_some_and(|(_, event)| matches!(event, crate::scenario::Event::Flow(_)));
            if is_free || !is_flow {
                self.attempt(|scenario| {
                    if event < scenario.events.len() {
                        scenario.events.remove(event);
                    }
                });
            }
        }
        for host in 0..self.best.scenario.hosts.len() {
            self.attempt(|scenario| {
                if let Some(host) = scenario.hosts.get_mut(host) {
                    host.faults = Default::default();
                }
            });
            self.attempt(|scenario| {
                if let Some(host) = scenario.hosts.get_mut(host) {
                    host.link = Link::default();
                }
            });
            self.attempt(|scenario| {
                let edges = &scenario.edges;
                if let Some(host) = scenario.hosts.get_mut(host)
                    && let Some(behind) = host.place.behind
                {
                    host.place.behind = edges.get(behind).and_then(|edge| edge.behind);
                }
            });
            self.attempt(|scenario| {
                if let Some(host) = scenario.hosts.get_mut(host) {
                    host.place.ip6 = host.place.ip6.filter(|_| host.place.ip4.is_none());
                }
            });
        }
        for server in 0..self.best.scenario.servers.len() {
            self.attempt(|scenario| {
                if let Some(server) = scenario.servers.get_mut(server) {
                    server.manners = Manners::default();
                }
            });
        }
        for name in (0..self.best.scenario.names.len()).rev() {
            self.attempt(|scenario| {
                if name < scenario.names.len() {
                    scenario.names.remove(name);
                }
            });
        }
        self.attempt(|scenario| scenario.error_hosts.clear());
        for resource in 0..self.best.scenario.resources.len() {
            self.attempt(|scenario| {
                if let Some(resource) = scenario.resources.get_mut(resource) {
                    resource.filters.clear();
                }
            });
        }
        self.attempt(|scenario| scenario.upstream = Upstream::default());
        self.attempt(|scenario| scenario.portal = PortalLink::default());
    }

    /// Keeps a change if the world fails still.
    fn attempt(&mut self, change: impl FnOnce(&mut Scenario)) {
        let mut changed = (*self.best.scenario).clone();
        change(&mut changed);
        if self.attempts == 0 || changed == *self.best.scenario {
            return;
        }
        self.attempts -= 1;
        if let Err(failure) = World::new(changed).run()
            && complaint(&failure.what) == complaint(&self.best.what)
        {
            self.best = failure;
        }
    }

    fn size(&self) -> usize {
        self.best.scenario.to_string().len()
    }
}

/// What a failure says, without names and numbers: another complaint is another failure.
fn complaint(what: &str) -> String {
    let words = what.split_whitespace();
    let plain = words.filter(|word| !word.contains(|character: char| character.is_ascii_digit()));

    plain.collect::<Vec<&str>>().join(" ")
}
