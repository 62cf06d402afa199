//! What a run did, or why it must not have done so.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::excuse::Excuse;
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
    /// How much was judged.
    pub judged: Judged,
    /// How many requests that were not answered in time each excuse was there for.
    pub excused: BTreeMap<Excuse, u64>,
    /// What hosts told people.
    pub lines: Vec<String>,
}

/// How much was judged, and not excused: an oracle that excuses everything objects to nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Judged {
    /// Requests that somebody should have answered, or was excused.
    pub requests: u64,
    /// Requests to names that must have been answered.
    pub probes: u64,
    /// Flows to names whose first reply had to come in time.
    pub first_replies: u64,
    /// Those that began to an address that their name had to have then.
    pub fresh: u64,
    /// Requests to names without an address that had to be refused.
    pub refusals: u64,
    /// Questions that must have had an answer in time.
    pub questions: u64,
    /// Those that somebody outside knew the answer to.
    pub outside: u64,
    /// Those that a site's servers knew the answer to.
    pub at_sites: u64,
    /// Requests that no filter let pass, which their client had to refuse.
    pub prohibited: u64,
    /// Requests that led nowhere, which their client had to refuse.
    pub unreachable: u64,
    /// Requests that must have been answered, and that several resources might have been for.
    pub overlapping: u64,
    /// Requests that must have been answered by way of the Internet resource.
    pub internet: u64,
    /// Packets that a client with a session sent, and must not have.
    pub forged: u64,
    /// Requests that met an ICMP error behind a gateway, of which their program had to be told.
    pub errors: u64,
    /// Requests that reached a living relay, and were answered in time.
    pub controls: u64,
    /// The longest time that one of them took.
    pub slowest_control: Duration,
    /// Datagrams of data that left relays, each of which had to be there.
    pub relayed: u64,
    /// Datagrams that somebody sent to relays who proved nothing.
    pub strange: u64,
}

impl Judged {
    /// Adds what another world judged.
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.probes += other.probes;
        self.first_replies += other.first_replies;
        self.fresh += other.fresh;
        self.refusals += other.refusals;
        self.questions += other.questions;
        self.outside += other.outside;
        self.at_sites += other.at_sites;
        self.prohibited += other.prohibited;
        self.unreachable += other.unreachable;
        self.overlapping += other.overlapping;
        self.internet += other.internet;
        self.forged += other.forged;
        self.errors += other.errors;
        self.controls += other.controls;
        self.slowest_control = self.slowest_control.max(other.slowest_control);
        self.relayed += other.relayed;
        self.strange += other.strange;
    }
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
