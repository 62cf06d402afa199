//! What the tests of worlds share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test uses a part of it, and fails by panicking"
)]

use std::path::{Path, PathBuf};

use connlib_sim::scenario::{Event, Manners, PerMille};
use connlib_sim::{Failure, Report, Scenario, World};

/// How many worlds are tried.
pub(crate) fn seeds() -> u64 {
    number("SEEDS").unwrap_or(if cfg!(debug_assertions) { 60 } else { 2_000 })
}

/// A number of the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;

    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not {text}")),
    )
}

/// Runs a world that must hold.
pub(crate) fn report(scenario: Scenario) -> Report {
    World::new(scenario)
        .run()
        .unwrap_or_else(|failure| panic!("{}", save(failure)))
}

/// Writes down a failure where builds lie.
pub(crate) fn save(failure: Failure) -> String {
    connlib_sim::save(failure, &failures())
}

fn failures() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));

    tmp.parent().unwrap_or(tmp).join("sim-failures")
}

/// A drawn world in which nothing is lost and nothing happens but its flows.
pub(crate) fn calm(seed: u64) -> Scenario {
    let mut scenario = Scenario::from_seed(seed);
    scenario
        .events
        .retain(|(_, event)| matches!(event, Event::Flow(_)));
    for host in &mut scenario.hosts {
        host.faults = Default::default();
        host.link.loss = PerMille(0);
        host.link.corrupts = PerMille(0);
    }
    for server in &mut scenario.servers {
        server.manners = Manners::default();
    }

    scenario
}
