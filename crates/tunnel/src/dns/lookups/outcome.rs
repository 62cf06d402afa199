//! What is asked, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use connlib_wire::dns::{Answer, ExtendedError, Query};
use connlib_wire::id::ResourceId;

use crate::dns::cache::Kept;
use crate::dns::{Carrier, Server};

/// A question, and how it is to be asked.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The question.
    pub(crate) query: Query,
    /// The servers, the preferred one first.
    pub(crate) servers: Vec<Server>,
    /// How a plain server is asked.
    pub(crate) carrier: Carrier,
    /// The resource at whose site it is asked.
    pub(crate) site: Option<ResourceId>,
    /// How long it may take.
    pub(crate) within: Duration,
}

/// What became of a question.
#[derive(Debug)]
pub(crate) struct Done<A> {
    pub(crate) asker: A,
    pub(crate) query: Query,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// A server answered, `age` seconds ago.
    Answer {
        answer: Arc<Answer>,
        age: u32,
        note: Option<ExtendedError>,
    },
    /// None did.
    Failed(Failure),
}

impl Outcome {
    /// Whether a server answered that a stream has more.
    pub(crate) fn is_truncated(&self) -> bool {
        matches!(self, Self::Answer { answer, .. } if answer.is_truncated())
    }
}

impl From<Kept> for Outcome {
    fn from(kept: Kept) -> Self {
        let note = kept.is_stale.then(|| {
            ExtendedError::new(
                ExtendedError::STALE_ANSWER,
                "no server answers; this is what one said before",
            )
        });

        Self::Answer {
            answer: kept.answer,
            age: kept.age,
            note,
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// There is nobody to ask.
    NoServers,
    /// Too much is asked at once.
    Busy,
    /// Nobody answered in time.
    TimedOut,
    /// Nobody could be reached.
    Unreachable(String),
    /// It was given up: the resource at whose site it was asked is gone.
    Interrupted,
}
