//! What a run did, or why it must not have done so.

use std::fmt;
use std::time::Duration;

use crate::limits::Kind;
use crate::scenario::Scenario;
use crate::trace::TraceHash;

/// What a run did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Everything that could be seen, hashed.
    pub trace: TraceHash,
    /// Datagrams that left any host.
    pub datagrams: u64,
    /// What became of each flow, in their order.
    pub outcomes: Vec<Outcome>,
    /// How long disturbances lasted for those that they hit.
    pub measured: Vec<(Kind, Duration)>,
    /// What hosts told people.
    pub lines: Vec<String>,
}

/// What became of a flow. Two runs that differ in timing alone have the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The flow's name.
    pub flow: String,
    /// Requests that were sent; of a fetch, its pieces.
    pub sent: u32,
    /// Those that were answered.
    pub answered: u32,
}

/// An oracle that was violated.
#[derive(Debug)]
pub struct Failure {
    /// The world it happened in.
    pub scenario: Box<Scenario>,
    /// When, from the start.
    pub at: Duration,
    /// What should not have been.
    pub what: String,
    /// What hosts had told people by then.
    pub lines: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scenario, at, what, ..
        } = self;

        write!(
            f,
            "\"{}\", seed {:#x}, at {at:?}: {what}",
            scenario.name, scenario.seed
        )
    }
}

impl std::error::Error for Failure {}
