//! What a world did, as a hash: two runs are the same if and only if their traces are.

use std::fmt;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// A running hash over everything that can be seen from outside.
pub(crate) struct Trace {
    hash: Sha256,
    entries: u64,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self {
            hash: Sha256::new(),
            entries: 0,
        }
    }

    /// Adds bytes that were seen at a place and a time.
    pub(crate) fn add(&mut self, at: Duration, place: &str, bytes: &[u8]) {
        self.entries += 1;
        self.hash.update(at.as_nanos().to_be_bytes());
        self.hash.update(place.as_bytes());
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }

    /// The number of entries and the hash of all of them.
    pub(crate) fn finish(self) -> TraceHash {
        TraceHash {
            entries: self.entries,
            hash: self.hash.finalize().into(),
        }
    }
}

/// The hash of a whole run.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct TraceHash {
    entries: u64,
    hash: [u8; 32],
}

impl TraceHash {
    /// The number of things that were seen.
    pub fn entries(&self) -> u64 {
        self.entries
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries, ", self.entries)?;
        self.hash
            .iter()
            .take(8)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
