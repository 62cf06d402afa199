//! What a run did, or why it must not have done so.

use std::fmt;
use std::time::Duration;

use crate::scenario::Scenario;
use crate::trace::TraceHash;

/// What a run did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Everything that could be seen, hashed.
    pub trace: TraceHash,
    /// The time from the app's first packet to its first reply.
    pub first_reply_after: Duration,
    /// Datagrams that left any host.
    pub datagrams: u64,
    /// Replies that the app got.
    pub replies: u32,
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
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} at {:?}: {}\nreplay it with REPRO={} cargo test -p connlib-sim --test seeds\n{:#?}",
            self.scenario.seed, self.at, self.what, self.scenario.seed, self.scenario
        )
    }
}

impl std::error::Error for Failure {}
